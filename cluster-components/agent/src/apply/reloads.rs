//! Reloads of systemd.

use crate::systemd::{Systemd, SystemdError};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// One reload for all who ask while another runs.
#[derive(Default)]
pub(super) struct Reloads {
    asked: AtomicU64,
    served: tokio::sync::Mutex<u64>,
}

impl Reloads {
    /// Returns when systemd has read what was written before the call.
    pub async fn reload(&self, systemd: &Systemd) -> Result<(), SystemdError> {
        let mine = self.asked.fetch_add(1, SeqCst) + 1;
        let mut served = self.served.lock().await;
        if *served < mine {
            // Everybody who has asked by now has written their file by now.
            let all = self.asked.load(SeqCst);
            systemd.reload().await?;
            *served = all;
        }
        Ok(())
    }
}
