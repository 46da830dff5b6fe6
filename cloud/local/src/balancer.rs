//! The load balancer: HAProxy in a machine of its own, in front of the API servers.
//!
//! Targets come and go without reloads: HAProxy has as many servers as there are machine addresses to be asked for, empty at first, and
//! its admin socket sets them. The file is written first, so that a HAProxy that starts meanwhile reads what the socket would tell it; a
//! reload requested during a start would be lost, and every reload would leave an old process with the old connections behind.
//!
//! A server leaves in one of two ways. One that ends on purpose gets nothing new and keeps what it has: its /readyz says that it shuts down, or its
//! machine's agent that it is about to restart something. One that died has its connections cut, so that nobody waits for it.

use crate::host::HostError;
use slipway_model::GATE_PORT;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Most targets of one load balancer: seven control planes, and as many again while they are replaced.
pub const TARGETS_MAX: usize = 16;
/// HAProxy's socket within its machine.
const SOCKET: &str = "run/haproxy/admin.sock";
/// How long a request may take that was sent to a server before it left. Connections that are kept for longer are cut.
const DRAIN: Duration = Duration::from_millis(500);
/// How long HAProxy may take to answer on its socket.
const DEADLINE: Duration = Duration::from_secs(2);

/// haproxy.cfg for targets in slots; unused slots are in maintenance. Pure.
pub fn render(port: u16, slots: &[Option<Ipv4Addr>]) -> String {
    let mut text = format!(
        "# Written by slipway-local.
global
 maxconn 4000
 nbthread 1
 user haproxy
 group haproxy
 stats socket /{SOCKET} mode 600 level admin
 stats timeout 1m
defaults
 mode tcp
 balance roundrobin
 option redispatch 1
 retries 3
 timeout connect 200ms
 timeout check 1s
 timeout queue 1s
 timeout client 1h
 timeout server 1h
frontend api
 bind :{port}
 default_backend apis
backend apis
 option httpchk GET /readyz
 # One that shuts down: no new connections, and those that it has may end.
 http-check disable-on-404
 http-check expect ! rstring shutdown.failed error-status L7OKC
 http-check expect status 200
 # One that fails, or cannot be connected to: its connections are cut, and go elsewhere.
 default-server check check-ssl verify none inter 200ms fastinter 50ms downinter 200ms fall 2 rise 1 on-marked-down shutdown-sessions observe layer4 error-limit 1 on-error mark-down
 # What the agent knows before a check does.
 default-server agent-check agent-port {GATE_PORT} agent-inter 100ms
"
    );
    for (n, slot) in (1..).zip(slots.iter().copied().chain(std::iter::repeat(None)).take(TARGETS_MAX)) {
        let _ = match slot {
            Some(address) => writeln!(text, " server s{n} {address}:{port}"),
            None => writeln!(text, " server s{n} 0.0.0.0:{port} disabled"),
        };
    }
    text
}

/// Puts wanted addresses into slots so that those that stay keep theirs. Pure.
pub fn assign(current: &[Option<Ipv4Addr>], wanted: &[Ipv4Addr]) -> Vec<Option<Ipv4Addr>> {
    let mut slots: Vec<Option<Ipv4Addr>> = current.iter().copied().chain(std::iter::repeat(None)).take(TARGETS_MAX).collect();
    for slot in &mut slots {
        *slot = slot.filter(|a| wanted.contains(a));
    }
    for address in wanted {
        if !slots.contains(&Some(*address))
            && let Some(free) = slots.iter_mut().find(|s| s.is_none())
        {
            *free = Some(*address);
        }
    }
    slots
}

/// What HAProxy runs with: per slot the address, none where the slot is in maintenance. Parsed from `show servers state`.
fn parse(state: &str) -> Vec<Option<Ipv4Addr>> {
    // Fields: be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state …; bit 0 of the admin state is forced maintenance.
    let lines = state.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_whitespace().collect::<Vec<_>>()).filter(|f| f.len() > 6);
    let server = |f: Vec<&str>| {
        let number: usize = f.get(3)?.strip_prefix('s')?.parse().ok()?;
        let address: Ipv4Addr = f.get(4)?.parse().ok()?;
        let admin: u32 = f.get(6)?.parse().ok()?;
        Some((number, (admin & 1 == 0).then_some(address)))
    };
    let mut slots = vec![None; TARGETS_MAX];
    for (number, address) in lines.filter_map(server) {
        if let Some(slot) = number.checked_sub(1).and_then(|n| slots.get_mut(n)) {
            *slot = address;
        }
    }
    slots
}

async fn ask(pid: i32, commands: &str) -> Result<String, HostError> {
    // By way of /proc the path is short enough for a socket's, wherever the state directory is.
    let path = format!("/proc/{pid}/root/{SOCKET}");
    let talk = async {
        let mut socket = UnixStream::connect(&path).await?;
        socket.write_all(commands.as_bytes()).await?;
        socket.shutdown().await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(DEADLINE, talk).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(HostError::File { what: "asking HAProxy over", path: path.into(), why }),
        Err(_) => Err(HostError::Waited(format!("HAProxy did not answer on {path} within {DEADLINE:?}"))),
    }
}

/// Makes the running HAProxy forward to exactly these, and writes the file that the next one starts with. `pid` is the machine's PID 1.
pub async fn apply(root: &Path, pid: i32, port: u16, wanted: &[Ipv4Addr]) -> Result<(), HostError> {
    let current = parse(&ask(pid, "show servers state apis\n").await?);
    let slots = assign(&current, wanted);
    // Record before effect, here too. A rename, so that HAProxy never reads half a file.
    let file = root.join("etc/haproxy/haproxy.cfg");
    let (next, text) = (file.with_extension("next"), render(port, &slots));
    crate::host::write(&next, text.as_bytes(), 0o644)?;
    crate::host::file("renaming", &file, std::fs::rename(&next, &file))?;
    let changes: Vec<_> = (1..).zip(current.iter().zip(&slots)).filter(|(_, (before, after))| before != after).collect();
    let leaving: Vec<u16> = changes.iter().filter(|(_, (before, _))| before.is_some()).map(|(n, _)| *n).collect();
    if !leaving.is_empty() {
        drain(pid, &leaving).await?;
    }
    let command = |(n, (_, after)): &(u16, (&Option<Ipv4Addr>, &Option<Ipv4Addr>))| match after {
        None => format!("set server apis/s{n} state maint; shutdown sessions server apis/s{n}"),
        Some(address) => format!(
            "set server apis/s{n} state maint; set server apis/s{n} addr {address} port {port}; set server apis/s{n} state ready; \
             set server apis/s{n} health down; enable agent apis/s{n}"
        ),
    };
    let mut commands: Vec<String> = changes.iter().map(command).collect();
    if !commands.is_empty() {
        // There is nobody to be asked in an empty slot, and ten tries a second in each of them add up.
        let empty = (1..).zip(&slots).filter(|(_, slot)| slot.is_none());
        commands.extend(empty.map(|(n, _): (u16, _)| format!("disable agent apis/s{n}")));
    }
    if !commands.is_empty() {
        let said = ask(pid, &(commands.join("; ") + "\n")).await?;
        let now = parse(&ask(pid, "show servers state apis\n").await?);
        if now != slots {
            return Err(HostError::Waited(format!("HAProxy did not take its targets: {}", said.trim())));
        }
    }
    Ok(())
}

/// Gives servers nothing new, and what they have a moment to end. Their agents have no say any more: a word of theirs would end a maintenance.
async fn drain(pid: i32, leaving: &[u16]) -> Result<(), HostError> {
    let each = |n: &u16| format!("disable agent apis/s{n}; set server apis/s{n} state drain");
    ask(pid, &(leaving.iter().map(each).collect::<Vec<_>>().join("; ") + "\n")).await?;
    let end = tokio::time::Instant::now() + DRAIN;
    while tokio::time::Instant::now() < end {
        let stat = ask(pid, "show stat apis 4 -1\n").await?;
        // Fields: pxname, svname, qcur, qmax, scur, …
        let sessions = |line: &str| {
            let mut fields = line.split(',').skip(1);
            let number: u16 = fields.next()?.strip_prefix('s')?.parse().ok()?;
            Some((number, fields.nth(2)?.parse::<u32>().ok()?))
        };
        if !stat.lines().filter_map(sessions).any(|(n, sessions)| sessions > 0 && leaving.contains(&n)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn at(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 1, host)
    }

    #[test]
    fn targets_that_stay_keep_their_slot() {
        let slots = assign(&[Some(at(10)), Some(at(11)), Some(at(12))], &[at(12), at(13), at(10)]);
        assert_eq!(slots[..4], [Some(at(10)), Some(at(13)), Some(at(12)), None]);
        assert_eq!(assign(&slots, &[]), vec![None; TARGETS_MAX]);
    }

    #[test]
    fn state_is_read_as_haproxy_writes_it() {
        let state = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
            3 apis 1 s1 198.18.1.10 2 0 1 1 4 6 3 4 6 0 0 0 - 6443 - 0 1 - - 0\n3 apis 2 s2 0.0.0.0 0 5 1 1 4 1 0 0 14 0 0 0 - 6443 - 0 1 - - 0\n\n";
        assert_eq!(parse(state)[..2], [Some(at(10)), None]);
    }

    #[test]
    fn rendered_as_reviewed() {
        insta::assert_snapshot!(render(6443, &[Some(at(10)), None, Some(at(12))]));
    }
}
