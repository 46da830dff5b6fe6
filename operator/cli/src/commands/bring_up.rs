//! The second half of `up`: the file is applied, its clusters are watched until they are ready, and then tried.

use crate::args::Global;
use crate::check;
use crate::commands::up::{ReadyCluster, Run};
use crate::connect::{Management, client_of};
use crate::file::Object;
use crate::observe::Observer;
use crate::place::write_private;
use crate::view::{ClusterView, Detail, changes, tree};
use anyhow::Result;
use jiff::Timestamp;
use kube::Client;
use std::collections::BTreeMap;
use std::time::Duration;

/// A cluster by namespace and name.
type Key = (String, String);

/// Applies the file and brings its clusters up.
pub async fn clusters(run: &mut Run, global: &Global, client: &Client, objects: &[Object]) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let namespace = global.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let mut keys: Vec<Key> = Vec::new();
    for object in objects {
        let changed = run.timed(&format!("apply {}", object.name()), object.apply(client, &namespace)).await?;
        run.report.changed |= changed;
        if object.is_cluster() {
            keys.push((object.namespace().unwrap_or(&namespace).to_owned(), object.name().to_owned()));
        }
    }
    let screen = run.screen.clone();
    let was_ready = run.timed("clusters ready", ready(&screen, client, &keys)).await?;
    run.report.changed |= !was_ready;
    for (namespace, name) in keys {
        let cluster = finish(run, client, namespace, name).await?;
        run.report.clusters.push(cluster);
    }
    Ok(())
}

/// Watches until all are ready. Returns whether they were so from the beginning.
async fn ready(screen: &crate::screen::Screen, client: &Client, keys: &[Key]) -> Result<bool> {
    let mut observer = Observer::new(client, None).await?;
    let mut before: BTreeMap<Key, ClusterView> = BTreeMap::new();
    let mut first = true;
    loop {
        let now = Timestamp::now();
        let views: Vec<(Key, ClusterView)> = keys.iter().filter_map(|k| Some((k.clone(), observer.view(&k.0, &k.1)?))).collect();
        let lines: Vec<String> = views.iter().flat_map(|(_, v)| tree(v, now, Detail::Machines)).collect();
        screen.show(&lines);
        let all_ready = views.len() == keys.len() && views.iter().all(|(_, v)| v.is_ready());
        if all_ready && first {
            return Ok(true);
        }
        for (key, view) in views {
            if screen.is_log() {
                changes(before.get(&key), &view).iter().for_each(|l| screen.note(l));
            }
            before.insert(key, view);
        }
        if all_ready {
            // The finished tree stays on the screen.
            if !screen.is_log() {
                lines.iter().for_each(|l| screen.note(l));
            }
            return Ok(false);
        }
        first = false;
        // A terminal's clocks go on while nothing changes.
        observer.changed(if screen.is_log() { Duration::from_secs(5) } else { Duration::from_millis(200) }).await?;
    }
}

/// Kubeconfig and checks of a ready cluster.
async fn finish(run: &mut Run, client: &Client, namespace: String, name: String) -> Result<ReadyCluster> {
    let management = Management { client: client.clone(), namespace: namespace.clone(), place: Some(run.place.clone()) };
    let kubeconfig = super::kubeconfig::fetch(&management, &name).await?;
    let path = run.place.cluster_kubeconfig(&name);
    if std::fs::read_to_string(&path).ok().as_deref() != Some(kubeconfig.as_str()) {
        write_private(&path, kubeconfig.as_bytes())?;
        run.report.changed = true;
    }
    let mut checks = Vec::new();
    let workers = Observer::new(client, Some(&namespace)).await?.view(&namespace, &name).is_some_and(|v| v.has_workers());
    // Tried once per cluster and success; a run that was ended in between tries again.
    let note = run.place.root().join(format!("checked-{namespace}-{name}"));
    let tried = std::fs::read_to_string(&note).is_ok_and(|known| known == fingerprint(&kubeconfig));
    if run.check && workers && !tried {
        let topic = format!("checks of {name}");
        let screen = run.screen.clone();
        let inside = client_of(&kubeconfig).await?;
        let say = {
            let (screen, topic) = (screen.clone(), topic.clone());
            move |what: &str| screen.at(&topic, what)
        };
        checks = run.timed(&topic, check::run(&inside, &say)).await?;
        for c in &checks {
            screen.done(&topic, &format!("{}: {} ({:.1} s)", c.check, c.result, c.seconds));
        }
        write_private(&note, fingerprint(&kubeconfig).as_bytes())?;
        run.report.changed = true;
    } else if run.check && !workers {
        run.screen.note(&format!("checks of {name}: skipped, it has no workers"));
    }
    Ok(ReadyCluster { name, kubeconfig: path, checks })
}

/// Tells one cluster of a name from a later one: their authorities differ. Not the kubeconfig itself, which holds a key.
fn fingerprint(kubeconfig: &str) -> String {
    let authority = kubeconfig.lines().find_map(|l| l.trim().strip_prefix("certificate-authority-data:")).unwrap_or_default();
    authority.trim().to_owned()
}
