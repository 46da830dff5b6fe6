//! Another build of the agent: tried, and kept only if the operator reaches it. With a real systemd.

use crate::fixture::{AGENT, Machine, service};
use crate::waiting::{active, state, until};
use slipway_agent_api::v1::{AgentBuild, MachineState};
use slipway_agent_api::{AgentClient, AgentError, ErrorClass};
use slipway_model::{ArtifactRef, MachinePlan};
use std::fs;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

const LINK: &str = "/opt/slipway/bin/slipway-agent";
const DROP_INS: &str = "/run/systemd/system/slipway-agent.service.d";
const TRIAL: &str = "slipway-agent-trial.service";
/// Can say its version, says that it is ready, and then hears nobody: neither the operator nor systemd. A process of its own stays behind.
const DEAF: &str =
    "#!/bin/sh\n[ \"$1\" = version ] && exec echo 9.9.9\ntrap '' TERM\nsleep 7777 &\nsystemd-notify --ready\nexec sleep infinity\n";
/// Whether that process is there.
const IS_THERE: &str = "pgrep -xf 'sleep 7777' >/dev/null";
/// Can say its version and nothing else.
const BROKEN: &str = "#!/bin/sh\n[ \"$1\" = version ] && exec echo 9.9.9\necho no such luck >&2\nexit 7\n";

/// A build of the agent from a script, or from the very program under test with another digest.
fn script(machine: &Machine, name: &str, text: &str) -> ArtifactRef {
    ArtifactRef { name: "slipway-agent".into(), ..machine.program(name, text) }
}

fn good(machine: &Machine, name: &str) -> ArtifactRef {
    let part = machine.stored(&format!("{name}.part"));
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_slipway-agent")).unwrap();
    bytes.extend_from_slice(name.as_bytes());
    fs::write(&part, bytes).unwrap();
    let build = ArtifactRef { name: "slipway-agent".into(), ..machine.adopted(name, &part) };
    fs::remove_file(part).unwrap();
    build
}

/// A machine with a unit that runs, and what its agent says of itself.
struct Tried {
    machine: Machine,
    client: AgentClient,
    own: String,
    unit: String,
}

impl Tried {
    /// `seconds`: how long the operator has to reach a build on trial.
    async fn new(seconds: u32) -> Self {
        let machine = Machine::boot().await;
        fs::write(machine.path("/etc/agent.env"), format!("SLIPWAY_TRIAL_SECONDS={seconds}\n")).unwrap();
        machine.exec("systemctl restart slipway-agent.service");
        machine.answers().await;
        let client = machine.claimed().await;
        let plan = MachinePlan {
            artifacts: vec![machine.program("a", "#!/bin/sh\nexec sleep infinity\n")],
            units: vec![service("a", "a", &[])],
            ..MachinePlan::default()
        };
        let digest = client.apply_plan(None, 1, &plan).await.unwrap();
        let runs = |state: &MachineState| state.applied_digest == digest.0 && active(state, "a.service") && !build(state).sha256.is_empty();
        let own = build(&state(&client, "the unit runs", runs).await).sha256.clone();
        let unit = machine.main_pid("a.service");
        Self { machine, client, own, unit }
    }

    async fn update(&self, build: &ArtifactRef) -> Result<(), AgentError> {
        self.client.update(1, &self.own, build).await
    }

    /// As the operator: connects anew until the machine says what it should.
    async fn until(&self, what: &str, good: impl Fn(&AgentBuild) -> bool) -> AgentBuild {
        until(what, || async {
            let said = first(&self.machine).await.map_err(|e| e.to_string())?;
            if good(&said) { Ok(said) } else { Err(format!("{said:?}")) }
        })
        .await
    }

    async fn holds(&self, what: &str, condition: &str) {
        until(what, || async { if self.machine.exec(&format!("{condition} && echo yes")) == "yes" { Ok(()) } else { Err("not yet") } })
            .await;
    }

    /// The trial is over: `runs` is the agent's build, whose link `leads` to its program, and no unit was touched.
    fn settled(&self, runs: &str, leads: &str) {
        let machine = &self.machine;
        let agent = machine.main_pid("slipway-agent.service");
        assert_eq!(machine.exec(&format!("sha256sum </proc/{agent}/exe | cut -d' ' -f1")), runs);
        assert_eq!(machine.exec(&format!("readlink {LINK}")), leads);
        assert_eq!(machine.exec(&format!("ls -d {DROP_INS} /run/slipway/trial*")), "");
        assert_eq!(machine.main_pid("a.service"), self.unit, "a trial touches no unit");
    }

    async fn over(&self) {
        self.holds("the trial's unit is gone", &format!("! systemctl list-units --all --plain --no-legend | grep -q {TRIAL}")).await;
    }
}

fn build(state: &MachineState) -> &AgentBuild {
    state.agent.as_ref().unwrap()
}

async fn first(machine: &Machine) -> Result<AgentBuild, AgentError> {
    let client = AgentClient::connect(machine.address, &machine.uid, &machine.authority.operator()).await?;
    let state = client.watch().await?.next().await.unwrap_or_else(|| Err(AgentError::Own("the stream has ended".into())))?;
    Ok(build(&state).clone())
}

#[tokio::test]
async fn a_build_that_the_operator_reaches_stays_and_touches_no_unit() {
    let tried = Tried::new(60).await;
    let (machine, build) = (&tried.machine, good(&tried.machine, "good"));
    tried.update(&build).await.unwrap();
    let stays = |said: &AgentBuild| said.sha256 == build.sha256 && said.trial.is_empty();
    let said = tried.until("the new build stays", stays).await;
    assert_eq!((said.refused.as_str(), said.refused_since_ms), ("", 0));
    let agent = machine.main_pid("slipway-agent.service");
    tried.over().await;
    tried.settled(&build.sha256, "/opt/slipway/store/good");
    assert_eq!(machine.main_pid("slipway-agent.service"), agent, "what was confirmed needs no restart");
    assert_eq!(machine.exec(&format!("{LINK} wait-for --path / && echo held")), "held");
    // The reply may have been lost, and the operator may know by now, or not.
    let client = machine.operator().await;
    client.update(1, &tried.own, &build).await.unwrap();
    client.update(1, &build.sha256, &build).await.unwrap();

    machine.power_off();
    machine.power_on();
    tried.until("a reboot keeps it", stays).await;
    let client = machine.operator().await;
    state(&client, "the unit is back", |state| active(state, "a.service")).await;
}

#[tokio::test]
async fn a_build_that_ends_at_once_is_refused_with_its_last_words_and_not_tried_again() {
    let tried = Tried::new(60).await;
    let (machine, build) = (&tried.machine, script(&tried.machine, "broken", BROKEN));
    tried.update(&build).await.unwrap();
    let back = |said: &AgentBuild| said.sha256 == tried.own && said.refused == build.sha256 && said.trial.is_empty();
    let said = tried.until("the proven build is back", back).await;
    for words in ["ended 3 times", "status 7", "no such luck"] {
        assert!(said.refused_why.contains(words), "{said:?}");
    }
    assert!(said.refused_since_ms > 0);
    tried.over().await;
    tried.settled(&tried.own, AGENT);
    let client = machine.operator().await;
    let again = client.update(1, &tried.own, &build).await.unwrap_err();
    assert!(
        matches!(&again, AgentError::RefusedBuild { build: named, why, .. } if *named == build.sha256 && why.contains("status 7")),
        "{again:?}"
    );
    assert_eq!(again.class(), ErrorClass::Terminal);

    machine.power_off();
    machine.power_on();
    tried.until("a reboot does not forget it", back).await;
    // Another build that stays lets it be forgotten.
    let other = good(machine, "good");
    machine.operator().await.update(1, &tried.own, &other).await.unwrap();
    tried.until("another build stays", |said| said.sha256 == other.sha256 && said.trial.is_empty() && said.refused.is_empty()).await;
}

#[tokio::test]
async fn a_build_that_cannot_say_its_version_is_refused_without_a_trial() {
    let tried = Tried::new(60).await;
    let agent = tried.machine.main_pid("slipway-agent.service");
    let build = script(&tried.machine, "wrong", "#!/bin/sh\necho this is for another processor >&2\nexit 1\n");
    let refused = tried.update(&build).await.unwrap_err();
    assert!(matches!(&refused, AgentError::RefusedBuild { why, .. } if why.contains("another processor")), "{refused:?}");
    let told =
        |state: &MachineState| self::build(state).refused == build.sha256 && self::build(state).refused_why.contains("another processor");
    state(&tried.client, "it is told", told).await;
    assert_eq!(tried.machine.main_pid("slipway-agent.service"), agent);
    tried.settled(&tried.own, AGENT);
}

#[tokio::test]
async fn a_deaf_build_is_given_up_at_the_deadline_and_leaves_nothing() {
    let tried = Tried::new(3).await;
    let build = script(&tried.machine, "deaf", DEAF);
    tried.update(&build).await.unwrap();
    tried.holds("the deaf build is the agent", IS_THERE).await;
    let back = |said: &AgentBuild| said.sha256 == tried.own && said.refused == build.sha256;
    let said = tried.until("the proven build is back", back).await;
    assert!(said.refused_why.contains("did not reach it within 3 s"), "{said:?}");
    tried.over().await;
    tried.settled(&tried.own, AGENT);
    assert_eq!(tried.machine.exec(&format!("{IS_THERE} || echo gone")), "gone", "what a refused build left behind goes with it");
}

#[tokio::test]
async fn a_build_that_only_strangers_reach_does_not_stay() {
    let tried = Tried::new(3).await;
    let (machine, build) = (&tried.machine, good(&tried.machine, "good"));
    tried.update(&build).await.unwrap();
    let runs = "[ $(readlink /proc/$(systemctl show --property=MainPID --value slipway-agent.service)/exe) = /opt/slipway/store/good ]";
    tried.holds("the tried build is the agent", runs).await;
    let stranger = until("it answers", || AgentClient::connect_unclaimed(machine.address)).await.get_info().await.unwrap_err();
    assert!(matches!(stranger, AgentError::AlreadyClaimed { .. }), "{stranger:?}");
    let impostor = AgentClient::connect(machine.address, &machine.uid, &machine.authority.client("somebody")).await.unwrap();
    let impostor = impostor.get_info().await.unwrap_err();
    assert!(matches!(impostor, AgentError::AlreadyClaimed { .. }), "{impostor:?}");
    tried.holds("it is refused", "[ -e /var/lib/slipway/agent/refused.json ]").await;
    tried.over().await;
    let said = tried.until("the proven build is back", |said| said.sha256 == tried.own).await;
    assert_eq!(said.refused, build.sha256);
    tried.settled(&tried.own, AGENT);
}

#[tokio::test]
async fn a_trial_survives_the_death_of_whoever_decides() {
    let tried = Tried::new(4).await;
    let kill = async |what: &str| {
        until(what, || async {
            let pid = tried.machine.main_pid(TRIAL);
            if matches!(pid.as_str(), "" | "0") { Err("not there") } else { Ok(tried.machine.exec(&format!("kill -9 {pid}"))) }
        })
        .await
    };
    let deaf = script(&tried.machine, "deaf", DEAF);
    tried.update(&deaf).await.unwrap();
    kill("as soon as it is there").await;
    tried.holds("the deaf build is the agent", IS_THERE).await;
    kill("in the middle").await;
    tried.until("the proven build is back", |said| said.sha256 == tried.own && said.refused == deaf.sha256).await;
    tried.over().await;
    tried.settled(&tried.own, AGENT);

    let build = good(&tried.machine, "good");
    tried.machine.operator().await.update(1, &tried.own, &build).await.unwrap();
    kill("as soon as it is there").await;
    tried.until("the new build stays", |said| said.sha256 == build.sha256 && said.trial.is_empty()).await;
    tried.over().await;
    tried.settled(&build.sha256, "/opt/slipway/store/good");
}

#[tokio::test]
async fn a_trial_ends_well_however_often_whoever_decides_is_killed_and_wherever() {
    let tried = Tried::new(6).await;
    let machine = &tried.machine;
    let deaf = script(machine, "deaf", DEAF);
    tried.update(&deaf).await.unwrap();
    let killed = tried.kill_often("/run/slipway/refused.json").await;
    tried.until("the proven build is back", |said| said.sha256 == tried.own && said.refused == deaf.sha256).await;
    assert!(killed.await.unwrap() > 0, "while it falls back");
    tried.over().await;
    tried.settled(&tried.own, AGENT);

    let mut runs = tried.own.clone();
    for (name, from) in [("one", "/run/slipway/trial.json"), ("two", "/run/slipway/trial.confirmed")] {
        let build = good(machine, name);
        machine.operator().await.update(1, &runs, &build).await.unwrap();
        let killed = tried.kill_often(from).await;
        tried.until("the new build stays", |said| said.sha256 == build.sha256 && said.trial.is_empty()).await;
        assert!(killed.await.unwrap() > 0, "from {from} on");
        tried.over().await;
        tried.settled(&build.sha256, &format!("/opt/slipway/store/{name}"));
        runs = build.sha256;
    }
}

impl Tried {
    /// Kills whoever decides as soon as a file is there, and then one life after the other, each some milliseconds longer than the one before:
    /// from before it has read anything until after it has done all. How many it were. Returns once it is on the watch.
    async fn kill_often(&self, from: &str) -> tokio::task::JoinHandle<usize> {
        let trial = "/run/slipway/trial.json";
        let kill = format!(
            "rm -f /run/on-the-watch
             for life in 0 1 2 3 4 5 6 7 8 9; do
                 until pid=$(systemctl show --property=MainPID --value {TRIAL}) && [ $pid != 0 ] && [ $pid != \"$last\" ]; do
                     [ -e {trial} ] || exit
                 done
                 touch /run/on-the-watch
                 until [ -e {from} ]; do [ -e {trial} ] || exit; done
                 [ $life = 0 ] || sleep 0.0$((life * 8 / 10))$((life * 8 % 10))
                 kill -9 $pid && echo $pid
                 last=$pid
             done"
        );
        let name = self.machine.name.clone();
        let killed = tokio::task::spawn_blocking(move || {
            let output = Command::new("runc").args(["exec", &name, "sh", "-c", &kill]).output().unwrap();
            eprintln!("killed: {}", String::from_utf8_lossy(&output.stdout).replace('\n', " "));
            output.stdout.iter().filter(|byte| **byte == b'\n').count()
        });
        self.holds("the killer is on the watch", "[ -e /run/on-the-watch ]").await;
        killed
    }
}

#[tokio::test]
async fn a_build_that_is_long_in_coming_is_asked_for_again() {
    let tried = Tried::new(60).await;
    let mut build = good(&tried.machine, "good");
    let bytes = fs::read(tried.machine.stored("good")).unwrap();
    let std::net::IpAddr::V4(own) = tried.machine.address.ip() else { panic!("machines have IPv4 addresses") };
    let server = tokio::net::TcpListener::bind((std::net::Ipv4Addr::from_bits(own.to_bits() - 1), 0)).await.unwrap();
    build.sources = vec![format!("http://{}/agent", server.local_addr().unwrap())];
    let (let_go, mut may_end) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        stream.write_all(first).await.unwrap();
        may_end.wait_for(|may| *may).await.unwrap();
        stream.write_all(rest).await.unwrap();
        // Once: who asks again finds what was fetched for the one before.
        drop(server);
    });
    for _ in 0..2 {
        let late = tried.update(&build).await.unwrap_err();
        assert!(late.to_string().contains("ask again") && late.class() == ErrorClass::Retry, "{late:?}");
    }
    let_go.send_replace(true);
    serving.await.unwrap();
    until("it is there", || tried.update(&build)).await;
    tried.until("the new build stays", |said| said.sha256 == build.sha256 && said.trial.is_empty()).await;
}

#[tokio::test]
async fn a_reboot_in_the_middle_of_a_trial_goes_back_and_blames_nobody() {
    let tried = Tried::new(60).await;
    let deaf = script(&tried.machine, "deaf", DEAF);
    tried.update(&deaf).await.unwrap();
    tried.holds("the deaf build is the agent", IS_THERE).await;
    tried.machine.power_off();
    tried.machine.power_on();
    let said = tried.until("the proven build is back", |said| said.sha256 == tried.own).await;
    assert_eq!((said.trial.as_str(), said.refused.as_str()), ("", ""));
    tried.over().await;
    assert_eq!(tried.machine.exec(&format!("readlink {LINK}; ls -d {DROP_INS} /run/slipway/trial*")), AGENT);
    let build = good(&tried.machine, "good");
    tried.machine.operator().await.update(1, &tried.own, &build).await.unwrap();
    tried.until("another one stays", |said| said.sha256 == build.sha256 && said.trial.is_empty()).await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_begins_nothing() {
    let tried = Tried::new(60).await;
    let (machine, client) = (&tried.machine, &tried.client);
    let build = good(machine, "good");
    let agent = machine.main_pid("slipway-agent.service");

    let other = client.update(1, &"0".repeat(64), &build).await.unwrap_err();
    assert!(
        matches!(&other, AgentError::OtherBuild { current, .. } if *current == tried.own) && other.class() == ErrorClass::Wait,
        "{other:?}"
    );
    let stale = client.update(0, &tried.own, &build).await.unwrap_err();
    assert!(matches!(stale, AgentError::StaleEpoch { heard: 1, .. }), "{stale:?}");
    let named = client.update(1, &tried.own, &ArtifactRef { name: "kubelet".into(), ..build.clone() }).await.unwrap_err();
    assert!(matches!(&named, AgentError::Refused { why, .. } if why.contains("slipway-agent")), "{named:?}");
    let wrong = client.update(1, &tried.own, &ArtifactRef { sha256: "ab".repeat(32), ..build.clone() }).await.unwrap_err();
    assert!(matches!(&wrong, AgentError::Failed { why, .. } if why.contains("altered") && why.contains(&build.sha256)), "{wrong:?}");
    assert_eq!(wrong.class(), ErrorClass::Retry, "the right file may be put there");
    assert_eq!(machine.main_pid("slipway-agent.service"), agent);
    tried.settled(&tried.own, AGENT);

    // While one is on trial there is no other; the same again is no second one.
    machine.exec(&format!(
        "mkdir -p /run/systemd/system && printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/run/systemd/system/{TRIAL}"
    ));
    client.update(1, &tried.own, &build).await.unwrap();
    client.update(1, &tried.own, &build).await.unwrap();
    let second = client.update(1, &tried.own, &good(machine, "second")).await.unwrap_err();
    assert!(matches!(&second, AgentError::OnTrial { build: named, .. } if *named == build.sha256), "{second:?}");
    assert_eq!(second.class(), ErrorClass::Wait);
    state(client, "it is told", |state| self::build(state).trial == build.sha256).await;
}

#[tokio::test]
async fn fetched_builds_keep_one_predecessor_and_a_reset_wipes_all_but_what_runs() {
    let tried = Tried::new(60).await;
    let machine = &tried.machine;
    // As user data leaves it where the agent comes over the network: a file in place of the link.
    machine.exec(&format!("cp {AGENT} {LINK}.part && mv {LINK}.part {LINK} && systemctl restart slipway-agent.service"));
    let copies = |builds: &[&str]| {
        let mut builds: Vec<String> = builds.iter().map(|sha256| format!("/var/lib/slipway/artifacts/{sha256}/slipway-agent")).collect();
        builds.sort();
        builds.join("\n")
    };
    let mut runs = tried.own.clone();
    for name in ["one", "two"] {
        let mut build = good(machine, name);
        fs::copy(machine.stored(name), machine.path(&format!("/srv/{name}"))).unwrap();
        build.sources = vec![format!("file:///srv/{name}")];
        machine.operator().await.update(1, &runs, &build).await.unwrap();
        tried.until("the new build stays", |said| said.sha256 == build.sha256 && said.trial.is_empty()).await;
        tried.over().await;
        tried.settled(&build.sha256, &copies(&[&build.sha256]));
        assert_eq!(machine.exec("ls /var/lib/slipway/artifacts/*/slipway-agent"), copies(&[&build.sha256, &runs]));
        runs = build.sha256;
    }
    // A plan that names nothing prunes nothing of the agent's.
    let client = machine.operator().await;
    let accepted = client.get_info().await.unwrap().applied_digest;
    let empty = client.apply_plan(Some(&slipway_model::PlanDigest(accepted)), 1, &MachinePlan::default()).await.unwrap();
    state(&client, "the plan is applied", |state| state.applied_digest == empty.0).await;
    assert_eq!(machine.exec("ls /var/lib/slipway/artifacts/*/slipway-agent | wc -l"), "2");

    // Reset in the middle of a trial.
    let build = good(machine, "three");
    client.update(1, &runs, &build).await.unwrap();
    until("the reset is done", || async { machine.operator().await.reset(1, &machine.name).await }).await;
    tried.over().await;
    // Whichever it was when the reset came.
    let linked = machine.exec(&format!("readlink {LINK}"));
    let copied = if linked.starts_with("/var/") { linked.as_str() } else { "" };
    assert_eq!(machine.exec("ls /var/lib/slipway/artifacts/*/*"), copied);
    assert_eq!(
        machine.exec("ls /var/lib/slipway/agent /run/systemd/system; ls -d /run/slipway"),
        "/run/systemd/system:\n\n/var/lib/slipway/agent:\nlock\nreset"
    );
    assert_eq!(machine.exec(&format!("test -e {LINK} && echo stays")), "stays");
}
