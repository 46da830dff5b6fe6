//! `slipway-agent wait-for`: holds a unit's start (as ExecStartPre) until what it needs is there. It never gives up: systemd's
//! TimeoutStartSec, or a stop, ends it. A kubelet that starts before its API answers backs off and is Ready many seconds late.

use crate::http::Asker;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_secs(2);
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What to wait for.
pub enum Condition {
    /// GET answers 200.
    Url(Asker),
    /// GET answers, if only that it is not ready, or who may ask.
    Answers(Asker),
    /// A path exists.
    Path(PathBuf),
    /// A directory has an entry.
    DirectoryNotEmpty(PathBuf),
}

impl Condition {
    /// None when it holds, or why not.
    async fn missing(&mut self) -> Option<String> {
        match self {
            Self::Url(asker) => asker.healthy(WITHIN).await.err().map(|e| e.to_string()),
            Self::Answers(asker) => asker.status(WITHIN).await.err().map(|e| e.to_string()),
            Self::Path(path) => (!path.exists()).then(|| "it does not exist".to_owned()),
            Self::DirectoryNotEmpty(path) => empty(path),
        }
    }
}

fn empty(path: &Path) -> Option<String> {
    match std::fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
        Ok(true) => None,
        Ok(false) => Some("it is empty".to_owned()),
        Err(e) => Some(e.to_string()),
    }
}

/// Waits until `condition` holds; `what` names it in the log, once at first and then each 10 s.
pub async fn wait_for(what: &str, condition: &mut Condition) {
    let (start, mut said) = (Instant::now(), None::<Instant>);
    while let Some(why) = condition.missing().await {
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            println!("waiting for {what} since {} s: {why}", start.elapsed().as_secs());
            said = Some(Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
    if said.is_some() {
        println!("{what} is there after {:.1} s", start.elapsed().as_secs_f32());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_there_holds_up_nobody_and_what_is_not_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Condition::DirectoryNotEmpty(dir.path().to_owned());
        assert_eq!(directory.missing().await.unwrap(), "it is empty");
        std::fs::write(dir.path().join("x"), "").unwrap();
        wait_for("directory", &mut directory).await;
        wait_for("path", &mut Condition::Path(dir.path().join("x"))).await;
        assert!(Condition::Path(dir.path().join("y")).missing().await.is_some());
    }
}
