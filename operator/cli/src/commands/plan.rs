//! stub
use crate::args::{Global, Plan};
use crate::outcome::Outcome;
use anyhow::Result;
pub async fn run(_: &Global, _: &Plan) -> Result<Outcome> {
    Ok(Outcome::Done)
}
