//! Reaching into machines' networks, and cutting them off.

use anyhow::{Context, Result, anyhow, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
const TABLE: &str = "slipway_trial";

/// Does something on a thread of its own inside the network that a process lives in.
pub fn inside<T: Send + 'static>(pid: i32, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::spawn(move || {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))?;
        work()
    });
    thread.join().map_err(|_| anyhow!("a thread inside the network of process {pid} ended early"))?
}

/// The body of a plain GET inside the network that a process lives in.
pub fn get_inside(pid: i32, address: &'static str, path: &'static str) -> Result<String> {
    inside(pid, move || {
        let mut socket = TcpStream::connect_timeout(&address.parse()?, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text.split_once("\r\n\r\n").context("no HTTP answer")?.1.to_owned())
    })
}

/// A machine that nobody reaches and that reaches nobody, until this is dropped or healed.
pub struct Cut {
    pid: i32,
}

impl Cut {
    /// Drops every packet that comes to the machine in which this process lives, and every one that it sends; what stays inside goes on.
    pub fn off(pid: i32) -> Result<Self> {
        let cut = Self { pid };
        cut.nft(&format!(
            "table inet {TABLE} {{
                chain incoming {{ type filter hook prerouting priority raw; iifname != \"lo\" drop; }}
                chain outgoing {{ type filter hook output priority raw; oifname != \"lo\" drop; }}
            }}"
        ))?;
        Ok(cut)
    }

    /// Lets packets through again.
    pub fn heal(self) -> Result<()> {
        let healed = self.nft(&format!("delete table inet {TABLE}"));
        std::mem::forget(self);
        healed
    }

    fn nft(&self, script: &str) -> Result<()> {
        let target = self.pid.to_string();
        let done = Command::new("nsenter").args(["--net", "--target", &target, "nft", script]).output().context("cannot start nsenter")?;
        ensure!(done.status.success(), "nft {script} where process {target} lives: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // On the way out of a trial that failed: the machine is taken down next.
        let _ = self.nft(&format!("delete table inet {TABLE}"));
    }
}
