//! What becomes of a plan, with a real systemd.

use crate::balancer::Balancer;
use crate::fixture::{Machine, service};
use crate::waiting::{LONG, active, state, unit, until};
use slipway_agent_api::{AgentError, ErrorClass};
use slipway_model::{Directory, File, GATE_PORT, Gate, MachinePlan, PlanDigest, Probe, ProbeKind, Unit, UnitState, User};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio_stream::StreamExt;

const LOOP: &str = "#!/bin/sh\necho \"$0 has started\"\nexec sleep infinity\n";

fn file(path: &str, content: &str) -> File {
    File { path: path.into(), mode: 0o640, owner: "root".into(), content: content.into() }
}

/// Two services with a file each, and what else a plan may hold.
fn plan(machine: &Machine) -> MachinePlan {
    let mut b = service("b", "b", &["/etc/kubernetes/b"]);
    b.content.push_str("User=etcd\n");
    MachinePlan {
        users: vec![User { name: "etcd".into(), id: 2379 }],
        directories: vec![Directory { path: "/var/lib/etcd".into(), mode: 0o700, owner: "etcd".into() }],
        files: vec![file("/etc/kubernetes/a", "one"), File { owner: "etcd".into(), ..file("/etc/kubernetes/b", "one") }],
        artifacts: vec![machine.program("a", LOOP), machine.program("b", LOOP)],
        units: vec![service("a", "a", &["/etc/kubernetes/a"]), b],
        probes: vec![Probe { name: "a".into(), unit: "a.service".into(), kind: ProbeKind::Active }],
        gate: None,
    }
}

fn done(state: &slipway_agent_api::v1::MachineState, digest: &PlanDigest, units: &[&str]) -> bool {
    state.applied_digest == digest.0 && state.trouble.is_empty() && units.iter().all(|unit| active(state, unit))
}

#[tokio::test]
async fn a_plan_becomes_users_files_and_running_units_and_only_what_changes_restarts() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    let start = Instant::now();
    let one = client.apply_plan(None, 1, &wanted).await.unwrap();
    let before = state(&client, "both run", |state| done(state, &one, &["a.service", "b.service"]) && state.probes[0].healthy).await;
    eprintln!("from ApplyPlan to two active units seen by Watch: {} ms", start.elapsed().as_millis());
    eprintln!(
        "memory of the agent: {}",
        machine.exec("grep -E '^Rss|^VmRSS|^Threads' /proc/$(pidof slipway-agent)/status | tr -s '\\n\\t ' ' '")
    );
    assert!(before.disk_total_bytes > 0 && before.certificate_expires_ms > 0);
    let etcd = fs::metadata(machine.path("/var/lib/etcd")).unwrap();
    assert_eq!((etcd.uid(), etcd.mode() & 0o7777), (2379, 0o700));
    let file_b = fs::metadata(machine.path("/etc/kubernetes/b")).unwrap();
    assert_eq!((file_b.uid(), file_b.mode() & 0o7777), (2379, 0o640));
    let (a, b) = (machine.main_pid("a.service"), machine.main_pid("b.service"));

    // A changed file restarts its unit and no other.
    wanted.files[0].content = "two".into();
    let two = client.apply_plan(Some(&one), 1, &wanted).await.unwrap();
    let fingerprint = unit(&before, "a.service").fingerprint.clone();
    let changed = state(&client, "a is started anew", |state| {
        done(state, &two, &["a.service"]) && unit(state, "a.service").fingerprint != fingerprint
    });
    changed.await;
    assert_ne!(machine.main_pid("a.service"), a);
    assert_eq!(machine.main_pid("b.service"), b);

    // A changed unit file is read anew; a removed unit is stopped and its file, program and unit go.
    wanted.units.remove(1);
    wanted.files.remove(1);
    wanted.artifacts.remove(1);
    wanted.units[0].content.push_str("Environment=COLOUR=green\n");
    let three = client.apply_plan(Some(&two), 1, &wanted).await.unwrap();
    let last = state(&client, "b is gone", |state| done(state, &three, &["a.service"])).await;
    assert_eq!(last.units.len(), 1);
    assert!(machine.exec(&format!("tr '\\0' '\\n' </proc/{}/environ", machine.main_pid("a.service"))).contains("COLOUR=green"));
    assert_eq!(machine.exec("systemctl show --property=ActiveState,LoadState --value b.service"), "not-found\ninactive");
    for path in ["/etc/kubernetes/b", "/opt/slipway/bin/b"] {
        assert!(fs::symlink_metadata(machine.path(path)).is_err(), "{path} is left");
    }
    assert!(machine.path("/var/lib/etcd").exists());
}

#[tokio::test]
async fn an_altered_program_is_not_started_and_the_trouble_ends_with_its_cause() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let wanted = plan(&machine);
    fs::set_permissions(machine.stored("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.stored("a"), "#!/bin/sh\necho EVIL\nexec sleep infinity\n").unwrap();
    let digest = client.apply_plan(None, 1, &wanted).await.unwrap();
    let troubled = state(&client, "trouble is told", |state| !state.trouble.is_empty() && active(state, "b.service")).await;
    let words = &troubled.trouble;
    assert!(words.contains("/opt/slipway/store/a is altered") && words.contains(&wanted.artifacts[0].sha256), "{words}");
    assert!(troubled.trouble_since_ms > 0 && troubled.applied_digest.is_empty() && !active(&troubled, "a.service"));
    fs::write(machine.stored("a"), LOOP).unwrap();
    let healed = state(&client, "it heals", |state| done(state, &digest, &["a.service", "b.service"])).await;
    assert_eq!(healed.trouble_since_ms, 0);
    assert!(!machine.exec("journalctl --no-pager --unit=a.service").contains("EVIL"));
}

#[tokio::test]
async fn an_old_program_runs_until_the_new_one_is_there_and_verified() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    let one = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &one, &["a.service", "b.service"])).await;
    let old = machine.main_pid("a.service");

    // What was promised is not what is there: the old one is not touched.
    let new = LOOP.replace("started", "begun");
    wanted.artifacts[0] = machine.program("a2", &new);
    fs::set_permissions(machine.stored("a2"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.stored("a2"), LOOP).unwrap();
    wanted.artifacts[0].name = "a".into();
    let two = client.apply_plan(Some(&one), 1, &wanted).await.unwrap();
    let troubled = state(&client, "trouble is told", |state| !state.trouble.is_empty()).await;
    assert!(active(&troubled, "a.service") && machine.main_pid("a.service") == old, "{}", troubled.trouble);

    fs::write(machine.stored("a2"), &new).unwrap();
    state(&client, "the new one runs", |state| done(state, &two, &["a.service", "b.service"])).await;
    until("a is another process", || async { if machine.main_pid("a.service") == old { Err("not yet") } else { Ok(()) } }).await;
    let at =
        |what: &str| machine.exec(&format!("systemctl show --property={what}TimestampMonotonic --value a.service")).parse::<u64>().unwrap();
    let gap = Duration::from_micros(at("ActiveEnter") - at("ActiveExit"));
    eprintln!("from the end of the old program to the start of the new one: {} ms", gap.as_millis());
    assert!(gap < Duration::from_millis(500), "the old program was stopped {gap:?} before the new one started");
}

#[tokio::test]
async fn a_unit_behind_the_gate_restarts_once_its_load_balancer_knows() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    wanted.gate = Some(Gate { port: GATE_PORT, units: vec!["a.service".into()] });
    let one = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &one, &["a.service", "b.service"])).await;
    let old = machine.main_pid("a.service");

    let balancer = Balancer::start((machine.address.ip(), GATE_PORT).into());
    balancer.hears(&["up ready"]).await;
    wanted.files[0].content = "two".into();
    client.apply_plan(Some(&one), 1, &wanted).await.unwrap();
    let heard = balancer.hears(&["up ready", "drain", "up ready"]).await;
    let new = machine.main_pid("a.service");
    assert_ne!(new, old);
    // However late anybody here looks: what was sent before the load balancer knew had its time.
    let ended =
        machine.exec("date --date=\"$(systemctl show --timestamp=us+utc --property=ActiveExitTimestamp --value a.service)\" +%s%6N");
    let ended = UNIX_EPOCH + Duration::from_micros(ended.parse().unwrap());
    let notice = ended.duration_since(heard[1].asked).expect("it was restarted before the load balancer knew");
    assert!(notice >= Duration::from_millis(300), "it was restarted {notice:?} after the load balancer had asked");

    machine.exec(&format!("kill -9 {new}"));
    balancer.hears(&["up ready", "drain", "up ready", "down", "up ready"]).await;
}

#[tokio::test]
async fn the_end_of_the_agent_touches_no_unit_and_its_state_returns() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let digest = client.apply_plan(None, 1, &plan(&machine)).await.unwrap();
    let before = state(&client, "both run", |state| done(state, &digest, &["a.service", "b.service"])).await;
    let (a, agent) = (machine.main_pid("a.service"), machine.main_pid("slipway-agent.service"));
    machine.exec(&format!("kill -9 {agent}"));
    until("the agent is another process", || async {
        if machine.main_pid("slipway-agent.service") == agent { Err("not yet") } else { Ok(()) }
    })
    .await;
    machine.answers().await;
    let client = machine.operator().await;
    let after = state(&client, "the state returns", |state| done(state, &digest, &["a.service", "b.service"])).await;
    assert_eq!(after.boot_id, before.boot_id);
    assert_eq!(unit(&after, "a.service").fingerprint, unit(&before, "a.service").fingerprint);
    assert_eq!(machine.main_pid("a.service"), a);
    // A unit that somebody stops while nobody tells the agent to is started again.
    machine.exec("systemctl stop a.service");
    state(&client, "a runs again", |state| {
        done(state, &digest, &["a.service"]) && unit(state, "a.service").since_ms > unit(&before, "a.service").since_ms
    })
    .await;
    // And the bus may go, too.
    machine.exec("kill -9 $(pidof dbus-daemon)");
    machine.exec("systemctl kill --signal=KILL b.service");
    state(&client, "b is seen to restart", |state| active(state, "b.service") && unit(state, "b.service").restarts == 1).await;
}

#[tokio::test]
async fn a_reboot_without_an_operator_brings_everything_back_after_checking_it() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let digest = client.apply_plan(None, 1, &plan(&machine)).await.unwrap();
    let before = state(&client, "both run", |state| done(state, &digest, &["a.service", "b.service"])).await;
    machine.power_off();
    let silent = client.get_info().await.unwrap_err();
    assert!(silent.is_silence(), "{silent:?}");
    // While it is off, somebody swaps a program: it must not run after the reboot, not even for a moment.
    fs::set_permissions(machine.stored("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.stored("a"), "#!/bin/sh\necho EVIL\nexec sleep infinity\n").unwrap();
    machine.power_on();
    machine.answers().await;
    let client = machine.operator().await;
    let after = state(&client, "b runs and a does not", |state| active(state, "b.service") && state.trouble.contains("altered")).await;
    assert_ne!(after.boot_id, before.boot_id);
    assert_eq!((after.accepted_digest.as_str(), active(&after, "a.service")), (digest.0.as_str(), false));
    fs::write(machine.stored("a"), LOOP).unwrap();
    state(&client, "all is back", |state| done(state, &digest, &["a.service", "b.service"])).await;
    assert!(!machine.exec("journalctl --no-pager --unit=a.service").contains("EVIL"));
}

#[tokio::test]
async fn a_unit_that_holds_its_own_start_holds_up_nothing_else() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    wanted.units[0].content =
        format!("{}ExecStartPre=/opt/slipway/agent wait-for --path /run/there\nTimeoutStartSec=300\n", wanted.units[0].content);
    wanted.units.push(Unit {
        name: "once.service".into(),
        content: "[Service]\nType=oneshot\nExecStart=/bin/true\n".into(),
        state: UnitState::Running,
        files: vec![],
        artifacts: vec![],
    });
    let digest = client.apply_plan(None, 1, &wanted).await.unwrap();
    let waiting = state(&client, "b runs while a waits", |state| done(state, &digest, &["b.service"])).await;
    assert_eq!(unit(&waiting, "a.service").active_state, "activating");
    machine.exec("touch /run/there");
    state(&client, "a runs", |state| done(state, &digest, &["a.service"]) && unit(state, "once.service").result == "success").await;
    assert!(machine.exec("journalctl --no-pager --unit=a.service").contains("waiting for /run/there"));
}

#[tokio::test]
async fn nothing_is_applied_while_what_ran_before_still_runs() {
    const LINGERS: &str = "#!/bin/sh\ntrap 'while [ ! -e /run/end ]; do sleep 0.05; done; exit 0' TERM\nwhile :; do sleep 0.05; done\n";
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    wanted.artifacts[0] = machine.program("a", LINGERS);
    let one = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &one, &["a.service", "b.service"])).await;
    let before = machine.main_pid("a.service");
    wanted.files[0].content = "two".into();
    let two = client.apply_plan(Some(&one), 1, &wanted).await.unwrap();
    let waiting = state(&client, "the old one is waited for", |state| state.applying.contains("the old a.service to end")).await;
    assert_eq!((waiting.applied_digest.as_str(), &machine.main_pid("a.service")), (one.0.as_str(), &before));
    machine.exec("touch /run/end");
    state(&client, "the new one runs", |state| done(state, &two, &["a.service"])).await;
    assert_ne!(machine.main_pid("a.service"), before);
}

#[tokio::test]
async fn logs_are_read_and_followed_and_end_with_their_reader() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    wanted.artifacts[0] = machine.program("a", "#!/bin/sh\nn=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done\n");
    let digest = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &digest, &["a.service", "b.service"])).await;
    let mut lines = client.logs("a.service", 10, true).await.unwrap();
    let follow = async {
        while let Some(line) = lines.next().await {
            if line.unwrap().contains("line 5") {
                return;
            }
        }
        panic!("the log has ended");
    };
    tokio::time::timeout(LONG, follow).await.unwrap();
    assert_eq!(machine.exec("pidof journalctl | wc -w"), "1");
    drop(lines);
    until("journalctl ends", || async { if machine.exec("pidof journalctl").is_empty() { Ok(()) } else { Err("not yet") } }).await;
    let past: Vec<_> = client.logs("slipway-agent.service", 100, false).await.unwrap().collect().await;
    assert!(past.iter().any(|line| line.as_ref().unwrap().contains("a plan is accepted")));
}

#[tokio::test]
async fn a_reset_stops_everything_and_leaves_nothing() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    // One that leaves a process behind when it is stopped, as containerd leaves its shims, and one that does not listen.
    wanted.units[0].content.push_str("KillMode=process\n");
    wanted.artifacts[0] = machine.program("a", "#!/bin/sh\nsleep 7777 &\nexec sleep infinity\n");
    wanted.artifacts[1] = machine.program("b", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n");
    let digest = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &digest, &["a.service", "b.service"])).await;
    fs::write(machine.path("/var/lib/etcd/data"), "x").unwrap();
    let start = Instant::now();
    until("the reset is done", || client.reset(1, &machine.name)).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(machine.exec("pgrep -xf 'sleep 7777'"), "");
    assert_eq!(machine.exec("systemctl show --property=ActiveState --value a.service"), "inactive");
    assert_eq!(
        machine.exec("ls /run/systemd/system /opt/slipway/bin; ls -d /etc/kubernetes/* /var/lib/etcd /etc/slipway"),
        "/opt/slipway/bin:\nslipway-agent\n\n/run/systemd/system:"
    );
    assert_eq!(machine.exec("ls /var/lib/slipway/agent"), "lock\nreset");
    assert!(!machine.exec("cat /etc/passwd").contains("etcd"));
    let late = client.apply_plan(None, 2, &plan(&machine)).await.unwrap_err();
    assert!(matches!(late, AgentError::Reset { .. }), "{late:?}");
    assert_eq!(machine.exec("systemctl is-enabled slipway-agent.service"), "disabled");
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_acknowledged_that_is_not_kept_and_it_heals() {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    let mut wanted = plan(&machine);
    let one = client.apply_plan(None, 1, &wanted).await.unwrap();
    state(&client, "both run", |state| done(state, &one, &["a.service", "b.service"])).await;
    let pids = || (machine.main_pid("a.service"), machine.main_pid("b.service"));
    let before = pids();
    wanted.files[0].content = "two".into();

    // The agent's own directory: the plan cannot be kept, so it is not accepted, and the one before it is whole.
    fill(&machine, "/var/lib/slipway/agent");
    let error = client.apply_plan(Some(&one), 1, &wanted).await.unwrap_err();
    assert!(matches!(error, AgentError::Failed { .. }) && error.class() == ErrorClass::Retry, "{error}");
    let words = error.to_string();
    assert!(words.contains("plan.json") && words.contains("No space left") && words.contains("free space"), "{words}");
    let agent = machine.main_pid("slipway-agent.service");
    machine.exec(&format!("kill -9 {agent}"));
    until("the agent is back", || async { if machine.main_pid("slipway-agent.service") == agent { Err("not yet") } else { Ok(()) } }).await;
    let client = machine.operator().await;
    state(&client, "it remembers", |state| done(state, &one, &["a.service", "b.service"])).await;
    assert_eq!(pids(), before, "a full disk restarts nothing");

    // Where the plan's files are: it is accepted, and what cannot be written is named, with since when and when it is tried again.
    machine.exec("rm /var/lib/slipway/agent/ballast");
    fill(&machine, "/etc/kubernetes");
    let two = client.apply_plan(Some(&one), 1, &wanted).await.unwrap();
    let told = state(&client, "the trouble is told", |state| {
        state.accepted_digest == two.0 && state.trouble.contains("/etc/kubernetes/a: No space left") && state.applying.contains("again")
    });
    let told = told.await;
    assert!(told.trouble_since_ms > 0 && told.applied_digest == one.0, "{told:?}");
    assert_eq!(machine.exec("cat /etc/kubernetes/a"), "one", "the old file is whole");
    assert_eq!(pids(), before);

    machine.exec("rm /etc/kubernetes/ballast");
    state(&client, "it heals by itself", |state| done(state, &two, &["a.service", "b.service"])).await;
    assert_eq!(machine.exec("cat /etc/kubernetes/a"), "two");
    let after = pids();
    assert!(after.0 != before.0 && after.1 == before.1, "only the unit of the changed file is started anew: {before:?} {after:?}");
}

/// Gives a directory a small file system of its own with what was in it, and fills that to the last byte.
fn fill(machine: &Machine, directory: &str) {
    let full = machine.exec(&format!(
        "set -e; mkdir -p /run/small; mount -t tmpfs -o size=4m,mode=700 small /run/small; cp -a {directory}/. /run/small/; \
         mount --bind /run/small {directory}; umount /run/small; \
         dd if=/dev/zero of={directory}/ballast bs=4k status=none 2>/dev/null || echo full"
    ));
    assert_eq!(full, "full");
}
