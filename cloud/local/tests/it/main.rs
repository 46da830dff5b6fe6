//! The local cloud as its users see it: a real daemon, real machines. Needs root and the programs that `slipway doctor` lists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cloud;

use cloud::{TestCloud, cluster, kill, machine, program, request, wait, wait_file};
use nix::sys::signal::Signal;
use slipway_cloud_api::{Cloud, ErrorClass, InstanceState, LoadBalancerRequest, Route};
use slipway_local::wire::{CallFault, Faults};
use slipway_local::{LocalClient, leftovers};
use std::process::Command;
use std::time::{Duration, Instant};

/// Serves HTTPS on 6443; /readyz says `ok`, /name who it is.
const SERVER: &str = "mkdir -p /srv/www && cd /srv/www && echo ok > readyz && hostname > name
printf '[req]\\ndistinguished_name=dn\\n[dn]\\n' > conf
openssl req -config conf -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert -subj /CN=test -days 1 2>/dev/null
cat > /etc/systemd/system/www.service <<UNIT
[Service]
WorkingDirectory=/srv/www
ExecStart=/usr/bin/openssl s_server -quiet -accept 6443 -cert cert -key key -WWW
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --now www.service";

fn get(url: &str) -> Option<String> {
    let out = Command::new("curl").args(["-sk", "--max-time", "2", url]).output().unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned()).filter(|t| !t.is_empty())
}

#[tokio::test]
async fn a_machine_lives_through_power_and_daemon_failures_and_leaves_nothing() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    let network = cloud.client.ensure_network(&demo).await.unwrap();
    assert_eq!(cloud.client.ensure_network(&demo).await.unwrap(), network);
    let script = "echo once >> /var/lib/count; printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' > /etc/systemd/system/nap.service
systemctl enable --now nap.service; echo $(hostname) > /var/lib/hello";
    let start = Instant::now();
    let made = cloud.client.create_instance(&request(&demo, "demo-cp-0", script)).await.unwrap();
    assert!(network.cidr.contains(&made.address));
    let id = made.id.clone();
    assert_eq!(wait_file(&cloud.disk(&id, "var/lib/hello")).await.trim(), "demo-cp-0");
    println!("from the call to the end of the user data: {:?}", start.elapsed());
    let up = cloud.wait_state(&demo, &id, InstanceState::Running).await;
    assert_eq!(up.provider_id, format!("local://uid-demo/{id}"));
    let journal = cloud.client.journal(&demo, &id, Some("slipway-user-data.service"), 50).await.unwrap();
    assert!(journal.contains("User data, once"), "{journal}");

    // The same Machine is the same instance, and nobody else's.
    assert_eq!(cloud.client.create_instance(&request(&demo, "demo-cp-0", script)).await.unwrap().id, id);
    let mut stolen = request(&demo, "demo-cp-1", script);
    stolen.machine_uid = "uid-demo-cp-0".into();
    assert_eq!(cloud.client.create_instance(&stolen).await.unwrap_err().class, ErrorClass::Terminal);

    // The daemon dies, the machine does not.
    let machine_boots = cloud.disk(&id, "proc/1");
    assert!(!machine_boots.exists(), "a machine's /proc is its own");
    cloud.kill_daemon();
    wait("the daemon's successor", || async { cloud.client.status().await.ok() }).await;
    assert_eq!(cloud.wait_state(&demo, &id, InstanceState::Running).await, up);

    cloud.client.power_off(&demo, &id).await.unwrap();
    cloud.wait_state(&demo, &id, InstanceState::Stopped).await;
    assert!(cloud.disk(&id, "var/lib/hello").exists(), "the disk survives");
    cloud.client.start_instance(&demo, &id).await.unwrap();
    cloud.wait_state(&demo, &id, InstanceState::Running).await;
    wait("the unit that was enabled", || async {
        cloud.client.journal(&demo, &id, Some("nap.service"), 50).await.ok().filter(|j| j.contains("Started nap.service"))
    })
    .await;
    assert_eq!(std::fs::read_to_string(cloud.disk(&id, "var/lib/count")).unwrap(), "once\n");

    // Powered off from inside: somebody must press the button.
    let out = cloud.within(&id, &["true"]);
    assert!(out.status.success());
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(cloud.state.join(format!("runc/{}-{id}/state.json", cloud.name))).unwrap()).unwrap();
    kill(i32::try_from(state["init_process_pid"].as_i64().unwrap()).unwrap());
    let dead = cloud.wait_state(&demo, &id, InstanceState::Stopped).await;
    assert!(dead.trouble.unwrap().contains("PID 1"));
    cloud.client.start_instance(&demo, &id).await.unwrap();
    assert_eq!(cloud.wait_state(&demo, &id, InstanceState::Running).await.trouble, None);
    cloud.client.reboot(&demo, &id).await.unwrap();
    cloud.wait_state(&demo, &id, InstanceState::Running).await;

    assert_eq!(cloud.client.delete_network(&demo).await.unwrap_err().class, ErrorClass::Wait);
    let start = Instant::now();
    cloud.client.delete_instance(&demo, &id).await.unwrap();
    cloud.wait_inventory(&demo, "deleted", |i| i.instances.is_empty()).await;
    println!("deleted within {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2));
    cloud.client.delete_instance(&demo, &id).await.unwrap();
    assert!(!cloud.disk(&id, "").exists());
    cloud.client.delete_network(&demo).await.unwrap();
    cloud.wait_inventory(&demo, "empty", |i| *i == slipway_cloud_api::Inventory::default()).await;
    wait("no cluster", || async { cloud.client.clusters().await.ok().filter(Vec::is_empty) }).await;
    let left = leftovers(&cloud.name, &cloud.state);
    assert!(!left.iter().any(|l| l.contains("-r1") || l.contains(&id)), "{left:?}");

    let status = std::fs::read_to_string(format!("/proc/{}/status", cloud.daemon_pid().unwrap())).unwrap();
    println!("daemon: {}", status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("Rss")).collect::<Vec<_>>().join(", "));
}

#[tokio::test]
async fn a_lost_reply_and_a_repeated_call_make_one_instance() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    let lose = CallFault { lose_next: 1, ..CallFault::default() };
    let fail = CallFault { fail_next: 1, ..CallFault::default() };
    let faults =
        Faults { calls: [("create_instance".into(), lose), ("ensure_network".into(), fail)].into(), never_boot: 1, ..Faults::default() };
    cloud.client.set_faults(&faults).await.unwrap();
    assert_eq!(cloud.client.ensure_network(&demo).await.unwrap_err().class, ErrorClass::Retry);
    cloud.client.ensure_network(&demo).await.unwrap();
    let wanted = request(&demo, "demo-cp-0", "touch /var/lib/hello");
    let lost = cloud.client.create_instance(&wanted).await.unwrap_err();
    assert_eq!(lost.class, ErrorClass::Retry, "{lost}");
    let made = cloud.client.create_instance(&wanted).await.unwrap();
    let all = cloud.client.inventory(&demo).await.unwrap().instances;
    assert_eq!(all.iter().map(|i| &i.id).collect::<Vec<_>>(), [&made.id]);
    // It was the one that never gets up: the cloud says that it runs, and nothing happens in it.
    cloud.wait_state(&demo, &made.id, InstanceState::Running).await;
    assert_eq!(cloud.client.faults().await.unwrap().never_boot, 0);
    machine(&cloud, &demo, "demo-cp-1", "touch /var/lib/hello").await.unwrap();
    assert!(!cloud.disk(&made.id, "var/lib/hello").exists());
}

#[tokio::test]
async fn a_daemon_killed_again_and_again_while_creating_ends_with_what_was_asked_for() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.ensure_network(&demo).await.unwrap();
    let mut ids = Vec::new();
    for (n, delay) in [0_u64, 15, 60, 120].into_iter().enumerate() {
        let wanted = request(&demo, &format!("demo-w-{n}"), "echo up > /var/lib/hello");
        ids.push(wait("the answer", || async { cloud.client.create_instance(&wanted).await.ok() }).await.id);
        // Into the midst of the boot: earlier or later in it each time.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        cloud.kill_daemon();
        wait("the daemon's successor", || async { cloud.client.status().await.ok() }).await;
    }
    for id in &ids {
        wait_file(&cloud.disk(id, "var/lib/hello")).await;
        cloud.wait_state(&demo, id, InstanceState::Running).await;
    }
    let found: Vec<String> = cloud.client.inventory(&demo).await.unwrap().instances.into_iter().map(|i| i.id).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), unique);
    assert_eq!(unique.len(), 4);
    // And while deleting.
    for id in &ids {
        wait("the answer", || async { cloud.client.delete_instance(&demo, id).await.ok() }).await;
    }
    cloud.kill_daemon();
    cloud.wait_inventory(&demo, "deleted", |i| i.instances.is_empty()).await;
}

#[tokio::test]
async fn the_load_balancer_goes_by_readyz_and_survives_its_machines_death() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.ensure_network(&demo).await.unwrap();
    let wanted = LoadBalancerRequest { cluster: demo.clone(), port: 6443 };
    let start = Instant::now();
    let balancer = cloud.client.ensure_load_balancer(&wanted).await.unwrap();
    cloud.wait_inventory(&demo, "a load balancer without targets", |i| i.load_balancer.as_ref().is_some_and(|l| l.ready)).await;
    println!("load balancer ready after {:?}", start.elapsed());
    let (a, b) = tokio::join!(machine(&cloud, &demo, "demo-cp-0", SERVER), machine(&cloud, &demo, "demo-cp-1", SERVER));
    let (a, b) = (a.unwrap(), b.unwrap());
    cloud.client.set_targets(&demo, &[a.id.clone(), b.id.clone()]).await.unwrap();
    let url = format!("https://{}:6443/name", balancer.address);
    for name in ["demo-cp-0", "demo-cp-1"] {
        wait(name, || async { get(&url).filter(|n| n == name) }).await;
    }
    cloud.client.power_off(&demo, &a.id).await.unwrap();
    let start = Instant::now();
    let mut last_failure = start;
    while start.elapsed() < Duration::from_secs(3) {
        let begun = Instant::now();
        if get(&url).as_deref() != Some("demo-cp-1") {
            last_failure = Instant::now();
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    println!("a dead target was noticed after {:?}", last_failure - start);
    assert!(last_failure - start < Duration::from_secs(2));
    // The load balancer's own machine dies: the cloud makes it run again, with the targets that it had.
    let state = std::fs::read(cloud.state.join(format!("runc/{}-{}/state.json", cloud.name, balancer.id))).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    kill(i32::try_from(state["init_process_pid"].as_i64().unwrap()).unwrap());
    wait("the load balancer's return", || async { get(&url) }).await;
    // A target that is deleted is none.
    cloud.client.delete_instance(&demo, &b.id).await.unwrap();
    cloud.wait_inventory(&demo, "one target", |i| i.load_balancer.as_ref().is_some_and(|l| l.targets == [a.id.clone()])).await;
    assert_eq!(cloud.client.set_targets(&demo, std::slice::from_ref(&b.id)).await.unwrap_err().class, ErrorClass::Wait);
    cloud.client.delete_load_balancer(&demo).await.unwrap();
    cloud.wait_inventory(&demo, "no load balancer", |i| i.load_balancer.is_none()).await;
}

#[tokio::test]
async fn pod_routes_carry_packets_between_machines_and_nowhere_else() {
    let cloud = TestCloud::start().await;
    let (demo, other) = (cluster("demo"), cluster("other"));
    for cluster in [&demo, &other] {
        cloud.client.ensure_network(cluster).await.unwrap();
    }
    let pod = |ip: &str| format!("ip addr add {ip}/32 dev lo\n{SERVER}");
    let (pod_a, pod_b, pod_c) = (pod("10.244.0.1"), pod("10.244.1.1"), pod("10.244.9.1"));
    let (a, b, c) = tokio::join!(
        machine(&cloud, &demo, "demo-w-0", &pod_a),
        machine(&cloud, &demo, "demo-w-1", &pod_b),
        machine(&cloud, &other, "other-w-0", &pod_c)
    );
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    let route = |d: &str, id: &str| Route { destination: d.parse().unwrap(), instance_id: id.to_owned() };
    let routes = [route("10.244.0.0/24", &a.id), route("10.244.1.0/24", &b.id)];
    cloud.client.set_routes(&demo, &routes).await.unwrap();
    let fetch = |from: &str, source: &str, to: &str| {
        let url = format!("https://{to}:6443/name");
        let out = cloud.within(from, &["curl", "-sk", "--max-time", "1", "--interface", source, &url]);
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    wait("pod to pod", || async { fetch(&b.id, "10.244.1.1", "10.244.0.1").filter(|n| n == "demo-w-0") }).await;
    // Between networks: machines reach each other, pods do not, and the host knows no pods.
    wait("machine to machine", || async { fetch(&c.id, &c.address.to_string(), &a.address.to_string()) }).await;
    assert_eq!(fetch(&c.id, "10.244.9.1", "10.244.0.1"), None);
    assert_eq!(fetch(&a.id, "10.244.0.1", &c.address.to_string()), None);
    assert_eq!(get(&format!("https://{}:6443/name", a.address)).as_deref(), Some("demo-w-0"));
    let table = |network: &str| String::from_utf8(cloud.within(network, &["ip", "route"]).stdout).unwrap();
    assert!(!table("core").contains("10.244.") && !table("r2").contains("10.244."), "{}{}", table("core"), table("r2"));
    // What nobody may route.
    for wrong in ["10.244.0.1/24", &cloud.range] {
        assert_eq!(cloud.client.set_routes(&demo, &[route(wrong, &a.id)]).await.unwrap_err().class, ErrorClass::Terminal, "{wrong}");
    }
    assert_eq!(cloud.client.set_routes(&demo, &[route("10.244.0.0/24", &c.id)]).await.unwrap_err().class, ErrorClass::Wait);
    cloud.client.delete_instance(&demo, &a.id).await.unwrap();
    cloud.wait_inventory(&demo, "its route gone", |i| i.network.as_ref().is_some_and(|n| n.routes == [routes[1].clone()])).await;
    wait("the route's end", || async { (!table("r1").contains("10.244.0.0/24")).then_some(()) }).await;
}

#[tokio::test]
async fn a_machine_with_frozen_processes_is_removed_at_once() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.ensure_network(&demo).await.unwrap();
    let script = "sleep infinity & pid=$!
if [ -d /sys/fs/cgroup/freezer ]; then d=/sys/fs/cgroup/freezer/cold; mkdir $d; echo $pid > $d/cgroup.procs; echo FROZEN > $d/freezer.state
else d=/sys/fs/cgroup/cold; mkdir $d; echo $pid > $d/cgroup.procs; echo 1 > $d/cgroup.freeze; fi
touch /var/lib/frozen; echo yes > /var/lib/frozen; wait";
    let made = machine(&cloud, &demo, "demo-w-0", script).await.unwrap();
    wait_file(&cloud.disk(&made.id, "var/lib/frozen")).await;
    let start = Instant::now();
    cloud.client.delete_instance(&demo, &made.id).await.unwrap();
    cloud.wait_inventory(&demo, "deleted", |i| i.instances.is_empty()).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn after_a_reboot_of_the_host_machines_run_again() {
    let mut cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.ensure_network(&demo).await.unwrap();
    let on = machine(&cloud, &demo, "demo-w-0", "echo once >> /var/lib/count").await.unwrap();
    let off = machine(&cloud, &demo, "demo-w-1", "true").await.unwrap();
    wait_file(&cloud.disk(&on.id, "var/lib/count")).await;
    cloud.client.power_off(&demo, &off.id).await.unwrap();
    cloud.wait_state(&demo, &off.id, InstanceState::Stopped).await;
    cloud.stop_all(Signal::SIGTERM);
    // As a reboot leaves it: no process, no namespace, no link; records of another boot.
    for id in [&on.id, &off.id] {
        let container = format!("{}-{id}", cloud.name);
        let _ = Command::new("runc").arg("--root").arg(cloud.state.join("runc")).args(["delete", "-f", &container]).output();
        let record = cloud.state.join(format!("records/machines/{id}.json"));
        let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        text["seen"] = "00000000-0000-0000-0000-000000000000/1".into();
        std::fs::write(&record, text.to_string()).unwrap();
    }
    let _ = Command::new("ip").args(["link", "del", &format!("{}-host", cloud.name)]).output();
    for namespace in [on.id.as_str(), off.id.as_str(), "r1", "core"] {
        let _ = Command::new("ip").args(["netns", "del", &format!("{}-{namespace}", cloud.name)]).output();
    }
    cloud.start_again().await;
    assert_eq!(cloud.wait_state(&demo, &on.id, InstanceState::Running).await.address, on.address);
    cloud.wait_state(&demo, &off.id, InstanceState::Stopped).await;
    assert_eq!(std::fs::read_to_string(cloud.disk(&on.id, "var/lib/count")).unwrap(), "once\n");
}

#[tokio::test]
async fn removal_leaves_nothing_even_after_everything_was_killed() {
    let mut cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.ensure_network(&demo).await.unwrap();
    cloud.client.ensure_load_balancer(&LoadBalancerRequest { cluster: demo.clone(), port: 6443 }).await.unwrap();
    machine(&cloud, &demo, "demo-w-0", "sleep infinity &").await.unwrap();
    cloud.client.create_instance(&request(&demo, "demo-w-1", "true")).await.unwrap();
    cloud.stop_all(Signal::SIGKILL);
    assert!(!leftovers(&cloud.name, &cloud.state).is_empty());
    let removed = cloud.remove();
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    for part in ["machine i-", "network namespace", "link", "files in"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(leftovers(&cloud.name, &cloud.state), Vec::<String>::new());
    // Again: nothing to do, and no error.
    assert!(cloud.remove().status.success());
}

#[tokio::test]
async fn who_may_not_is_refused_and_so_is_what_is_not_understood() {
    let cloud = TestCloud::start().await;
    let (demo, other) = (cluster("demo"), cluster("other"));
    cloud.client.ensure_network(&demo).await.unwrap();
    let endpoint = cloud.client.status().await.unwrap().endpoint;
    let ccm = cloud.client.issue_certificate("ccm:uid-demo").await.unwrap();
    let ccm = LocalClient::connect(&endpoint, &ccm.ca, &ccm.cert, &ccm.key).unwrap();
    ccm.inventory(&demo).await.unwrap();
    ccm.set_routes(&demo, &[]).await.unwrap();
    assert_eq!(ccm.inventory(&other).await.unwrap_err().class, ErrorClass::Terminal);
    assert_eq!(ccm.create_instance(&request(&demo, "demo-w-0", "")).await.unwrap_err().class, ErrorClass::Terminal);
    assert_eq!(ccm.issue_certificate("admin").await.unwrap_err().class, ErrorClass::Terminal);
    assert_eq!(cloud.client.issue_certificate("root").await.unwrap_err().class, ErrorClass::Terminal);
    // Without a certificate there is no connection.
    assert_eq!(get(&format!("{endpoint}/v1/status")), None);
    let curl = |method: &str, path: &str, body: &str| {
        let pki = |name: &str| cloud.state.join("pki").join(name).display().to_string();
        let url = format!("{endpoint}{path}");
        let (ca, cert, key) = (pki("ca.crt"), pki("admin.crt"), pki("admin.key"));
        let args = ["-s", "-X", method, "--cacert", &ca, "--cert", &cert, "--key", &key, "-w", " %{http_code}", "-d", body, &url];
        String::from_utf8(Command::new("curl").args(args).output().unwrap().stdout).unwrap()
    };
    let said = curl("PUT", "/v1/clusters/uid-demo/network", r#"{"uid":"uid-demo","name":"demo","colour":"red"}"#);
    assert!(said.contains("terminal") && said.contains("colour") && said.ends_with("400"), "{said}");
    let said = curl("PUT", "/v1/clusters/uid-demo/network", r#"{"uid":"uid-other","name":"demo"}"#);
    assert!(said.contains("uid-other") && said.ends_with("400"), "{said}");
    assert!(curl("GET", "/v1/nonsense", "").ends_with("404"));
    let large = cloud.state.join("../large");
    std::fs::write(&large, "x".repeat((1 << 20) + 1)).unwrap();
    assert!(curl("PUT", "/v1/clusters/uid-demo/network", &format!("@{}", large.display())).ends_with("413"));
    let said = curl("PUT", "/v1/faults", r#"{"calls":{"create_instances":{"failNext":1}}}"#);
    assert!(said.contains("no such call"), "{said}");
    let mut wrong = request(&demo, "demo-w-0", "");
    wrong.zone = Some("mars-1".into());
    assert!(cloud.client.create_instance(&wrong).await.unwrap_err().message.contains("local-a"));
    assert_eq!(cloud.client.create_instance(&request(&other, "other-w-0", "")).await.unwrap_err().class, ErrorClass::Wait);

    // One daemon per state; its settings stay; its addresses are nobody else's.
    let serve = |state: &std::path::Path, name: &str, range: &str| {
        let out =
            program().arg("serve").arg("--state").arg(state).args(["--store", "/tmp", "--name", name, "--range", range]).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(serve(&cloud.state, &cloud.name, &cloud.range).0, Some(3));
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, said) = serve(elsewhere.path(), "tother", &cloud.range);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("--range"), "{said}");
}

#[tokio::test]
async fn a_change_is_told_at_once_and_silence_only_when_the_time_is_up() {
    let cloud = TestCloud::start().await;
    let demo = cluster("demo");
    cloud.client.inventory(&demo).await.unwrap();
    let start = Instant::now();
    cloud.client.changed(&demo, Duration::from_millis(300)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250), "nothing had changed");
    let waiting = cloud.client.clone();
    let key = demo.clone();
    let told = tokio::spawn(async move { waiting.changed(&key, Duration::from_secs(15)).await });
    tokio::task::yield_now().await;
    cloud.client.ensure_network(&demo).await.unwrap();
    let start = Instant::now();
    told.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    // A change between an inventory and the wait for the next one is not missed.
    cloud.wait_inventory(&demo, "network", |i| i.network.is_some()).await;
    cloud.client.ensure_load_balancer(&LoadBalancerRequest { cluster: demo.clone(), port: 6443 }).await.unwrap();
    let start = Instant::now();
    cloud.client.changed(&demo, Duration::from_secs(15)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
}
