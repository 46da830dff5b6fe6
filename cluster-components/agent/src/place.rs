//! Users, directories and files of a plan: compared with what is there, and only what differs is written.

use crate::root::{self, Access, Root};
use slipway_model::{Directory, File, MachinePlan, User};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// What could not be written, by path or user: the words of the file system.
pub type Failures = BTreeMap<String, String>;

/// Makes users, directories and files as the plan says. A failure holds up nothing else.
pub fn place(plan: &MachinePlan, root: &Root) -> Failures {
    let mut failures = Failures::new();
    if let Err(e) = users(&plan.users, root) {
        failures.insert("users".into(), root::words(&e));
    }
    let owner = |name: &str| plan.users.iter().find(|user| user.name == name).map_or(0, |user| user.id);
    for wanted in &plan.directories {
        if let Err(e) = directory(wanted, owner(&wanted.owner), root) {
            failures.insert(wanted.path.clone(), root::words(&e));
        }
    }
    for wanted in &plan.files {
        match file(wanted, owner(&wanted.owner), root) {
            Ok(true) => tracing::debug!(path = wanted.path, "written"),
            Ok(false) => {}
            Err(e) => {
                failures.insert(wanted.path.clone(), root::words(&e));
            }
        }
    }
    failures
}

fn directory(wanted: &Directory, owner: u32, root: &Root) -> io::Result<()> {
    let path = root.at(&wanted.path);
    fs::create_dir_all(&path)?;
    let is = fs::symlink_metadata(&path)?;
    if !is.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "something else than a directory is there"));
    }
    if (is.uid(), is.gid()) != (owner, owner) {
        chown(&path, Some(owner), Some(owner))?;
    }
    if is.mode() & 0o7777 != wanted.mode {
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted.mode))?;
    }
    Ok(())
}

/// Whether it had to be written.
fn file(wanted: &File, owner: u32, root: &Root) -> io::Result<bool> {
    let path = root.at(&wanted.path);
    let same = fs::symlink_metadata(&path).is_ok_and(|is| {
        is.is_file()
            && is.len() == wanted.content.0.len() as u64
            && is.mode() & 0o7777 == wanted.mode
            && (is.uid(), is.gid()) == (owner, owner)
    });
    if same && root::read(&path)?.as_deref() == Some(wanted.content.0.as_slice()) {
        return Ok(false);
    }
    root::replace(&path, &wanted.content.0, Access { mode: wanted.mode, owner: Some(owner) })?;
    Ok(true)
}

// === users: /etc/passwd and /etc/group, without useradd ===

fn users(wanted: &[User], root: &Root) -> io::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    add("/etc/passwd", wanted, root, |user| format!("{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin", user.name, user.id))?;
    add("/etc/group", wanted, root, |user| format!("{}:x:{}:", user.name, user.id))
}

fn add(file: &str, wanted: &[User], root: &Root, line: impl Fn(&User) -> String) -> io::Result<()> {
    let path = root.at(file);
    let mut text = String::from_utf8_lossy(&root::read(&path)?.unwrap_or_default()).into_owned();
    let before = text.len();
    for user in wanted {
        let id = user.id.to_string();
        let there = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&user.name.as_str()));
        if let Some(fields) = there {
            if fields.get(2) != Some(&id.as_str()) {
                let why = format!("{file}: {} is there with another id than {id}", user.name);
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&line(user));
            text.push('\n');
        }
    }
    if text.len() == before {
        return Ok(());
    }
    root::replace_durably(&path, text.as_bytes(), Access { mode: 0o644, owner: Some(0) })
}

/// Takes users out again.
pub fn remove_users(names: &std::collections::BTreeSet<String>, root: &Root) -> io::Result<()> {
    for file in ["/etc/passwd", "/etc/group"] {
        let path = root.at(file);
        let Some(bytes) = root::read(&path)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let ours = |line: &&str| line.split(':').next().is_some_and(|name| names.contains(name));
        let kept: String = text.split_inclusive('\n').filter(|line| !ours(line)).collect();
        if kept.len() != text.len() {
            root::replace_durably(&path, kept.as_bytes(), Access { mode: 0o644, owner: Some(0) })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn world() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root::replace(&root.at("/etc/passwd"), b"root:x:0:0:root:/root:/bin/bash", Access::PUBLIC).unwrap();
        root::replace(&root.at("/etc/group"), b"root:x:0:\n", Access::PUBLIC).unwrap();
        (dir, root)
    }

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn users_are_added_once_and_taken_out_again() {
        if me() != 0 {
            return;
        }
        let (_dir, root) = world();
        let wanted = [User { name: "etcd".into(), id: 2379 }];
        users(&wanted, &root).unwrap();
        users(&wanted, &root).unwrap();
        let passwd = fs::read_to_string(root.at("/etc/passwd")).unwrap();
        assert_eq!(passwd, "root:x:0:0:root:/root:/bin/bash\netcd:x:2379:2379::/nonexistent:/usr/sbin/nologin\n");
        assert!(users(&[User { name: "etcd".into(), id: 2380 }], &root).unwrap_err().to_string().contains("another id"));
        remove_users(&["etcd".to_owned()].into(), &root).unwrap();
        assert_eq!(fs::read_to_string(root.at("/etc/group")).unwrap(), "root:x:0:\n");
    }

    #[test]
    fn a_file_is_written_only_when_it_differs() {
        let (_dir, root) = world();
        let mut wanted = File { path: "/etc/kubernetes/x".into(), mode: 0o600, owner: "root".into(), content: "one".into() };
        assert!(file(&wanted, me(), &root).unwrap());
        assert!(!file(&wanted, me(), &root).unwrap());
        fs::write(root.at("/etc/kubernetes/x"), "two").unwrap();
        assert!(file(&wanted, me(), &root).unwrap(), "drift of the bytes is mended");
        wanted.mode = 0o644;
        assert!(file(&wanted, me(), &root).unwrap(), "the mode counts");
    }

    #[test]
    fn one_failure_holds_up_nothing_else() {
        let (_dir, root) = world();
        let file = |path: &str| File { path: path.into(), mode: 0o644, owner: "root".into(), content: "x".into() };
        // /etc/passwd is a file, so nothing can be below it.
        let plan = MachinePlan { files: vec![file("/etc/passwd/x"), file("/etc/y")], ..MachinePlan::default() };
        if me() != 0 {
            return;
        }
        let failures = place(&plan, &root);
        assert_eq!(failures.keys().collect::<Vec<_>>(), ["/etc/passwd/x"]);
        assert!(root.at("/etc/y").exists());
    }
}
