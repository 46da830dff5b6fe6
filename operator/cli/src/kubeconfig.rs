//! Merging a cluster's kubeconfig into one that people already have: theirs is kept, ours is added or replaced by name.
//!
//! Works on YAML values, not on types, so that fields nobody here knows survive. Comments do not: kubectl drops them as well.

use crate::place::write_private;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The lists of a kubeconfig whose entries are found by name.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// `existing` (may be empty) with every cluster, context and user of `incoming` added or replaced, and `incoming`'s context made the current one.
///
/// `incoming`'s cluster, user and context all take the cluster's name `name` here, prefixed, so that they collide with nothing of the user's.
pub fn merge(existing: &str, incoming: &str, name: &str) -> Result<String> {
    let mut base = parse(existing).context("the kubeconfig that is there")?;
    let mut new = parse(incoming).context("the cluster's kubeconfig")?;
    rename(&mut new, name)?;
    for list in LISTS {
        let added = take_list(&mut new, list)?;
        let mut kept = take_list(&mut base, list)?;
        for entry in added {
            let id = entry.get("name").cloned();
            match kept.iter_mut().find(|k| k.get("name") == id.as_ref()) {
                Some(old) => *old = entry,
                None => kept.push(entry),
            }
        }
        base.insert(list.to_owned(), Value::Array(kept));
    }
    base.entry("apiVersion").or_insert_with(|| json!("v1"));
    base.entry("kind").or_insert_with(|| json!("Config"));
    base.insert("current-context".to_owned(), json!(context_name(name)));
    serde_saphyr::to_string(&Value::Object(base)).context("writing the kubeconfig")
}

/// The context that a cluster gets in a merged kubeconfig.
pub fn context_name(cluster: &str) -> String {
    format!("slipway-{cluster}")
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str(text).context("is not YAML")? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => bail!("is not a kubeconfig: a mapping with clusters, contexts and users is expected"),
    }
}

fn take_list(map: &mut Map<String, Value>, list: &str) -> Result<Vec<Value>> {
    match map.remove(list) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => bail!("`{list}` of the kubeconfig is not a list: mend it, or name another file with --path"),
    }
}

/// Gives the one cluster, user and context of a kubeconfig of ours the same new name.
fn rename(config: &mut Map<String, Value>, cluster: &str) -> Result<()> {
    let name = context_name(cluster);
    for list in LISTS {
        let Some(Value::Array(entries)) = config.get_mut(list) else { bail!("the cluster's kubeconfig has no {list}") };
        let [Value::Object(entry)] = entries.as_mut_slice() else {
            bail!("the cluster's kubeconfig must have exactly one entry in {list}")
        };
        entry.insert("name".to_owned(), json!(name));
        if list == "contexts"
            && let Some(Value::Object(context)) = entry.get_mut("context")
        {
            context.insert("cluster".to_owned(), json!(name));
            context.insert("user".to_owned(), json!(name));
        }
    }
    Ok(())
}

/// Merges into the file at `path`, under the lock that kubectl respects, in one rename. What was there stays beside it as `<path>.slipway-backup`
/// the first time. Returns whether anything changed.
pub fn merge_file(path: &Path, incoming: &str, cluster: &str) -> Result<bool> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // A link stays a link: what it points to is what is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = KubectlLock::take(&target)?;
    let existing = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("reading {}", target.display())),
    };
    let merged = merge(&existing, incoming, cluster).with_context(|| format!("merging into {}", target.display()))?;
    if merged == existing {
        return Ok(false);
    }
    let backup = target.with_added_extension("slipway-backup");
    if !existing.is_empty() && !backup.exists() {
        write_private(&backup, existing.as_bytes())?;
    }
    write_private(&target, merged.as_bytes())?;
    Ok(true)
}

/// client-go's lock on a kubeconfig: a file `<path>.lock` that whoever writes has made.
struct KubectlLock(PathBuf);

impl KubectlLock {
    fn take(path: &Path) -> Result<Self> {
        let lock = path.with_added_extension("lock");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            match fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    if std::time::Instant::now() > deadline {
                        bail!("{} exists: another program is writing the kubeconfig; if none is, remove that file", lock.display());
                    }
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                Err(e) => return Err(e).with_context(|| format!("making {}", lock.display())),
            }
        }
    }
}

impl Drop for KubectlLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const OURS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: admin@demo\nclusters:\n- name: demo\n  cluster: {server: https://198.18.1.2:6443}\n\
        contexts:\n- name: admin@demo\n  context: {cluster: demo, user: admin}\nusers:\n- name: admin\n  user: {client-certificate-data: AAAA}\n";
    const THEIRS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\nfuture-field: kept\nclusters:\n- name: work\n  cluster: {server: https://work:443}\n\
        contexts:\n- name: work\n  context: {cluster: work, user: me, namespace: team}\nusers:\n- name: me\n  user: {exec: {command: login, args: [\"0x10\", \"true\"]}}\n";

    fn names(text: &str, list: &str) -> Vec<String> {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        value[list].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_people_have_is_kept() {
        let merged = merge(THEIRS, OURS, "demo").unwrap();
        for list in LISTS {
            assert_eq!(names(&merged, list).len(), 2, "{list}\n{merged}");
        }
        let value: Value = serde_saphyr::from_str(&merged).unwrap();
        let theirs: Value = serde_saphyr::from_str(THEIRS).unwrap();
        assert_eq!(value["users"][0], theirs["users"][0], "quoting survives");
        assert_eq!(value["future-field"], "kept");
        assert_eq!(value["current-context"], "slipway-demo");
        assert_eq!(value["contexts"][1], json!({"name": "slipway-demo", "context": {"cluster": "slipway-demo", "user": "slipway-demo"}}));
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let once = merge(THEIRS, OURS, "demo").unwrap();
        assert_eq!(merge(&once, OURS, "demo").unwrap(), once);
        let other = merge(&once, &OURS.replace("AAAA", "BBBB"), "demo").unwrap();
        assert_eq!(names(&other, "users"), ["me", "slipway-demo"], "replaced, not doubled");
        assert!(other.contains("BBBB") && !other.contains("AAAA"));
    }

    #[test]
    fn an_empty_file_is_as_good_as_none() {
        for empty in ["", "\n", "clusters: null\n"] {
            assert_eq!(names(&merge(empty, OURS, "demo").unwrap(), "clusters"), ["slipway-demo"]);
        }
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for bad in ["- a list\n", "clusters: {}\n", "{unclosed"] {
            fs::write(&path, bad).unwrap();
            assert!(merge_file(&path, OURS, "demo").is_err(), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        assert!(!path.with_added_extension("lock").exists());
    }

    #[test]
    fn the_first_original_is_backed_up_and_an_unchanged_file_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, THEIRS).unwrap();
        assert!(merge_file(&path, OURS, "demo").unwrap());
        assert!(!merge_file(&path, OURS, "demo").unwrap());
        assert_eq!(fs::read_to_string(path.with_added_extension("slipway-backup")).unwrap(), THEIRS);
    }
}
