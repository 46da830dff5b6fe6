//! Waiting for a condition, with a deadline and a last word.

use slipway_agent_api::v1::{MachineState, UnitStatus};
use slipway_agent_api::{AgentClient, AgentError};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

pub const LONG: Duration = Duration::from_secs(20);

/// Tries until it gives something; panics with the last error after [`LONG`].
pub async fn until<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(e) if start.elapsed() > LONG => panic!("{what}: {e}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Watches the machine until its state satisfies the condition.
pub async fn state(client: &AgentClient, what: &str, mut good: impl FnMut(&MachineState) -> bool) -> MachineState {
    let mut last = None;
    let watch = async {
        let mut stream = client.watch().await?;
        while let Some(state) = stream.next().await {
            let state = state?;
            if good(&state) {
                return Ok(state);
            }
            last = Some(state);
        }
        Err(AgentError::Own("the stream has ended".into()))
    };
    match tokio::time::timeout(LONG, watch).await {
        Ok(Ok(state)) => state,
        Ok(Err(e)) => panic!("{what}: {e}; last: {last:#?}"),
        Err(_) => panic!("{what}: not within {LONG:?}; last: {last:#?}"),
    }
}

pub fn unit<'a>(state: &'a MachineState, name: &str) -> &'a UnitStatus {
    state.units.iter().find(|unit| unit.name == name).unwrap_or_else(|| panic!("{name} is not in {state:#?}"))
}

pub fn active(state: &MachineState, name: &str) -> bool {
    state.units.iter().any(|unit| unit.name == name && unit.active_state == "active")
}
