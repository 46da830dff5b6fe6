//! One lock per component and version, held by whoever fetches or builds it: two processes that want the same thing build
//! it once, and different components go on side by side. The kernel lets go of it when its holder dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Store, StoreError};
use crate::Progress;

/// Long enough to cost nothing, short enough that nobody notices.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The lock of one component and version; let go of when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    #[cfg(test)]
    waited: bool,
}

impl Store {
    /// Waits for the lock, telling `progress` for whom. No time limit of its own: the holder's build has none either, and a
    /// holder that dies lets go.
    pub(crate) fn lock(&self, component: &str, version: &str, progress: &dyn Progress) -> Result<Lock, StoreError> {
        let path = self.root.join("locks").join(format!("{component}-{version}.lock"));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(StoreError::io("open", &path))?;
        let mut waited_for = None;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(StoreError::Io { what: "lock", path, source }),
            }
            let holder = read_holder(&path);
            if waited_for.as_ref() != Some(&holder) {
                progress.step(&format!("{component} {version}"), &format!("waiting for {holder}, which is fetching or building it"));
                waited_for = Some(holder);
            }
            thread::sleep(LOOK_AGAIN);
        }
        if waited_for.is_some() {
            tracing::debug!(component, version, seconds = started.elapsed().as_secs_f64(), "waited for the store's lock");
        }
        // For the next one who waits; not being able to say so is no reason to stop.
        let _ = write_holder(&mut file);
        Ok(Lock {
            _file: file,
            #[cfg(test)]
            waited: waited_for.is_some(),
        })
    }
}

fn read_holder(path: &PathBuf) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    write!(file, "process {} ({})", std::process::id(), program.as_deref().unwrap_or("slipway"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    struct Heard(Mutex<mpsc::Sender<String>>);

    impl Progress for Heard {
        fn step(&self, artifact: &str, what: &str) {
            self.0.lock().unwrap().send(format!("{artifact}: {what}")).unwrap();
        }
        fn done(&self, _: &str, _: &str, _: Duration) {}
    }

    #[test]
    fn who_waits_is_told_for_whom_and_gets_the_lock_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let held = store.lock("etcd", "v1", &crate::Silent).unwrap();
        assert!(!held.waited);
        let (sender, heard) = mpsc::channel();
        let other = store.clone();
        let waiter = thread::spawn(move || other.lock("etcd", "v1", &Heard(Mutex::new(sender))).unwrap().waited);
        let said = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(said.contains(&format!("etcd v1: waiting for process {}", std::process::id())), "{said}");
        drop(held);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn different_components_do_not_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let _one = store.lock("etcd", "v1", &crate::Silent).unwrap();
        assert!(!store.lock("runc", "v1", &crate::Silent).unwrap().waited);
    }
}
