//! Asks the operator what it would do: it has seen what no object says (what agents and etcd said last).
//!
//! The operator of a local management plane listens on its machine's own loopback address. The machine's agent carries the bytes there, to those who hold
//! the plane's keys: nothing is opened to the network.

use crate::connect::Management;
use crate::outcome::refused;
use crate::plane::Way;
use crate::plane::objects::OPERATOR_HTTP;
use anyhow::Result;
use slipway_operator::forecast::Foreseen;
use slipway_operator::forecast::ask::{AskError, Question, ask};
use std::time::{Duration, Instant};

/// How long a busy operator, or one that has not seen the newest object yet, is asked again.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two times.
const PAUSE: Duration = Duration::from_millis(200);

/// The operator's forecast, or why it could not be asked. `generation`: the oldest that it must have seen. An error: it says no, and nobody else would say yes.
pub async fn operator(
    management: &Management,
    namespace: &str,
    name: &str,
    question: Question<'_>,
    generation: Option<i64>,
) -> Result<Result<Foreseen, String>> {
    let Some(place) = &management.place else {
        return Ok(Err("only the operator of a local management plane can be asked from here".to_owned()));
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let why = match once(place, namespace, name, question).await {
            Ok(foreseen) if generation <= foreseen.generation => return Ok(Ok(foreseen)),
            Ok(_) => "it has not looked at the newest change yet".to_owned(),
            Err(Unasked::Refused(why)) => return Err(refused(why)),
            Err(Unasked::NotNow(why)) => why,
            Err(Unasked::NoWay(why)) => return Ok(Err(why)),
        };
        if Instant::now() > deadline {
            return Ok(Err(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Unasked {
    Refused(String),
    NotNow(String),
    NoWay(String),
}

async fn once(place: &crate::place::Place, namespace: &str, name: &str, question: Question<'_>) -> Result<Foreseen, Unasked> {
    let way = Way::to_management(place).await.map_err(|e| Unasked::NoWay(format!("{e:#}")))?;
    let agent = way.open().await.map_err(|e| Unasked::NoWay(e.to_string()))?;
    let stream = agent.tunnel(OPERATOR_HTTP).await.map_err(|e| Unasked::NotNow(e.to_string()))?;
    ask(stream, namespace, name, question).await.map_err(|e| match e {
        AskError::Refused(why) => Unasked::Refused(why),
        other @ (AskError::NotNow(_) | AskError::Silent(_)) => Unasked::NotNow(other.to_string()),
    })
}
