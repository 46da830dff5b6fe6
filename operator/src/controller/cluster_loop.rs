//! The loop of one Cluster: wait for the bell, make a pass, never die.

use crate::bell::Bell;
use crate::context::{ClusterRef, Context};
use crate::memory::Memory;
use crate::reconcile::{self, Next};
use crate::report;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// First wait after a pass that could not see what it needed; doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(250);
/// Longest such wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A running loop. Dropping it ends it wherever it is.
pub struct ClusterLoop {
    /// Wakes it.
    pub bell: Arc<Bell>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl ClusterLoop {
    /// Starts the loop of a cluster.
    pub fn start(context: Arc<Context>, cluster: ClusterRef) -> Self {
        let (bell, stop) = (Arc::new(Bell::default()), CancellationToken::new());
        let span = tracing::info_span!("cluster", namespace = %cluster.namespace, name = %cluster.name);
        let task = AbortOnDropHandle::new(tokio::spawn(run(context, cluster, bell.clone(), stop.clone()).instrument(span)));
        Self { bell, stop, task }
    }

    /// Whether it has ended: its Cluster is gone.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it after the pass that it is in.
    pub async fn stop(self) {
        self.stop.cancel();
        // A pass is short; one that hangs is cut off.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
    }
}

async fn run(context: Arc<Context>, cluster: ClusterRef, bell: Arc<Bell>, stop: CancellationToken) {
    let mut memory = Memory::new(cluster, bell.clone());
    let mut failures = 0u32;
    let mut look_again = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.rung(look_again) => {}
        }
        // Passes of thousands of clusters at once would only fight over two cores.
        let Ok(_permit) = context.workers.acquire().await else { return };
        let begin = Instant::now();
        let pass = AssertUnwindSafe(reconcile::reconcile(&context, &mut memory)).catch_unwind().await;
        let took = begin.elapsed();
        let outcome = match pass {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(panic) => {
                context.metrics.panicked();
                memory.after_panic();
                Err(format!("the pass panicked: {}", words(panic.as_ref())))
            }
        };
        context.metrics.pass(took, outcome.is_ok());
        tracing::debug!(milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "pass");
        match outcome {
            Ok(Next::Gone) => return,
            Ok(Next::LookAgain(wait)) => {
                failures = 0;
                look_again = Instant::now() + wait;
            }
            Err(error) => {
                let wait = FIRST.saturating_mul(1 << failures.min(7)).min(LONGEST);
                failures = failures.saturating_add(1);
                tracing::warn!(%error, "the pass failed; next try in {wait:?}");
                report::trouble(&context, &mut memory, &error, wait).await;
                look_again = Instant::now() + wait;
            }
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
