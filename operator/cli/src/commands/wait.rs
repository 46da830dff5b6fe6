//! `slipway wait`

use crate::args::{Global, Wait};
use crate::connect::Management;
use crate::observe::Observer;
use crate::outcome::{Outcome, refused, timed_out, usage};
use crate::output::{print, seconds};
use crate::view::ClusterView;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Until {
    /// A condition has this status, and speaks of the newest spec.
    Condition { kind: String, status: String },
    /// The object is gone.
    Deleted,
}

impl Until {
    fn parse(text: &str) -> Result<Self> {
        if text == "deleted" || text == "delete" {
            return Ok(Self::Deleted);
        }
        let wrong = || usage(format!("--for {text:?}: write condition=TYPE, condition=TYPE=False, or deleted"));
        let rest = text.strip_prefix("condition=").ok_or_else(wrong)?;
        let (kind, status) = rest.split_once('=').unwrap_or((rest, "True"));
        let known = ["True", "False", "Unknown"].into_iter().find(|s| s.eq_ignore_ascii_case(status)).ok_or_else(wrong)?;
        if kind.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Condition { kind: kind.to_owned(), status: known.to_owned() })
    }

    /// `None`: met. Otherwise what is there instead.
    fn missing(&self, view: Option<&ClusterView>) -> Option<String> {
        match (self, view) {
            (Self::Deleted, None) => None,
            (Self::Deleted, Some(view)) => Some(format!("it is there: {}", view.headline())),
            (Self::Condition { .. }, None) => Some("there is no such cluster".to_owned()),
            (Self::Condition { kind, status }, Some(view)) => match view.condition(kind) {
                Some(c) if c.status == *status && view.current => None,
                Some(c) => Some(format!("{kind} is {}: {}", c.status, if c.message.is_empty() { &c.reason } else { &c.message })),
                None => Some(format!("it has no condition {kind} yet")),
            },
        }
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Wait) -> Result<Outcome> {
    let until = Until::parse(&args.until)?;
    let management = Management::connect(global).await?;
    let started = Instant::now();
    let deadline = started + args.timeout;
    let mut observer = Observer::new(&management.client, Some(&management.namespace)).await?;
    let mut seen = false;
    loop {
        let view = observer.view(&management.namespace, &args.name);
        let Some(missing) = until.missing(view.as_ref()) else { break };
        if view.is_none() && !seen {
            return Err(refused(format!(
                "there is no cluster {} in namespace {}: `slipway get clusters -A` lists them",
                args.name, management.namespace
            )));
        }
        if view.is_none() {
            return Err(refused(format!("{} was deleted while it was being waited for", args.name)));
        }
        seen = true;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timed_out(format!("{}: not within {}: {missing}", args.name, seconds(args.timeout))));
        }
        observer.changed(left.min(Duration::from_secs(5))).await?;
    }
    let took = started.elapsed();
    print(global.output, &json!({ "cluster": args.name, "for": args.until, "seconds": took.as_secs_f64() }), || {
        format!("{}: {} after {}", args.name, args.until, seconds(took))
    })?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::view::tests::example;

    #[test]
    fn conditions_are_read_as_kubectl_writes_them() {
        let until = |kind: &str, status: &str| Until::Condition { kind: kind.into(), status: status.into() };
        assert_eq!(Until::parse("condition=Ready").unwrap(), until("Ready", "True"));
        assert_eq!(Until::parse("condition=Ready=false").unwrap(), until("Ready", "False"));
        assert_eq!(Until::parse("deleted").unwrap(), Until::Deleted);
        for bad in ["Ready", "condition=", "condition=Ready=maybe"] {
            assert_eq!(Outcome::of_error(&Until::parse(bad).unwrap_err()), Outcome::Usage, "{bad}");
        }
    }

    #[test]
    fn a_condition_of_an_old_spec_does_not_count() {
        let mut view = example();
        let healthy = Until::parse("condition=EtcdHealthy").unwrap();
        assert_eq!(healthy.missing(Some(&view)), None);
        view.current = false;
        assert!(healthy.missing(Some(&view)).is_some());
        assert!(Until::Deleted.missing(Some(&view)).is_some());
        assert_eq!(Until::Deleted.missing(None), None);
    }
}
