//! The management machine's own agent: `up` brings it to this release's build, as the operator does on clusters' machines (docs/adr/0010).
//!
//! ```text
//! what it says of itself ─► step ─┬─ it is this build ─────────► nothing to do
//!                                 ├─ it has refused this build ► said, and left as it is
//!                                 ├─ it is another ──► Update ─► a trial begins ─┐
//!                                 └─ it tries one ─────────────► wait for its end ◄┘
//! ```
//! Nobody but `up` speaks to this agent, so the calls by which it looks are those that let the tried build stay.

use crate::plane::machine::{EPOCH, Say};
use futures::StreamExt;
use slipway_agent_api::v1::AgentBuild;
use slipway_agent_api::{AgentClient, AgentError, ErrorClass};
use slipway_model::ArtifactRef;
use std::time::Duration;

/// A trial takes a minute at most; the rest is for fetching the build before, and for going back.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two tries to reach an agent that is being exchanged.
const AGAIN: Duration = Duration::from_millis(50);

/// What became of it.
pub struct Exchange {
    /// A connection to the agent as it is now.
    pub agent: AgentClient,
    /// Whether this run had it try the build.
    pub tried: bool,
    /// Why it is not the build that is wanted. What runs on the machine is none the worse for it.
    pub without: Option<String>,
}

/// Has the agent be this build. `reach` connects anew, and makes a call: to whichever build answers by then.
pub async fn ensure_build(
    agent: AgentClient,
    reach: impl AsyncFn() -> Result<AgentClient, AgentError>,
    build: &ArtifactRef,
    say: Say<'_>,
) -> Exchange {
    let mut course = Course { agent, build, say, tried: false, waits: "asking its agent which build it is".to_owned() };
    let without = match tokio::time::timeout(PATIENCE, course.run(reach)).await {
        Ok(without) => without,
        Err(_) => Some(format!("after {} s it was still {}", PATIENCE.as_secs(), course.waits)),
    };
    Exchange { agent: course.agent, tried: course.tried, without }
}

/// On the way to the wanted build.
struct Course<'a> {
    agent: AgentClient,
    build: &'a ArtifactRef,
    say: Say<'a>,
    tried: bool,
    waits: String,
}

impl Course<'_> {
    /// Until it is decided. Why the agent is not this build, if it is not.
    async fn run(&mut self, reach: impl AsyncFn() -> Result<AgentClient, AgentError>) -> Option<String> {
        loop {
            let mut error = match self.follow().await {
                Ok(without) => return without,
                Err(error) => error,
            };
            // Each build ends the other's connections, and one on trial may answer in any way: of interest only if it stays so.
            (self.say)("waiting for its agent to answer again");
            self.agent = loop {
                self.waits = format!("waiting for its agent to answer again ({error})");
                tokio::time::sleep(AGAIN).await;
                match reach().await {
                    Ok(fresh) => break fresh,
                    Err(other) => error = other,
                }
            };
        }
    }

    /// As long as this connection holds.
    async fn follow(&mut self) -> Result<Option<String>, AgentError> {
        let agent = self.agent.clone();
        let mut states = agent.watch().await?;
        while let Some(state) = states.next().await {
            match step(state?.agent.as_ref(), &self.build.sha256) {
                Step::Done => return Ok(None),
                Step::Leave(why) => return Ok(Some(why)),
                Step::Wait(what) => self.wait(what),
                Step::Try { instead_of } => match agent.update(EPOCH, &instead_of, self.build).await {
                    Ok(()) => self.begun(),
                    // It could not even say its version. The next state tells so, with the reason.
                    Err(AgentError::RefusedBuild { .. }) => self.begun(),
                    Err(error) if error.class() == ErrorClass::Terminal => return Ok(Some(error.to_string())),
                    // Still being fetched, or no more as it was seen: asked again.
                    Err(error) => return Err(error),
                },
            }
        }
        Err(AgentError::Unreachable { peer: agent.machine_uid().to_owned(), why: "it has ended the watch".to_owned() })
    }

    fn begun(&mut self) {
        self.tried = true;
        self.wait(trial_of(&self.build.sha256));
    }

    fn wait(&mut self, what: String) {
        (self.say)(&what);
        self.waits = what;
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is the wanted build, for good.
    Done,
    /// It is this build, and has not tried the wanted one.
    Try { instead_of: String },
    /// What for.
    Wait(String),
    /// It stays what it is. Why.
    Leave(String),
}

/// From what an agent says of its build. Nothing, where it is older than exchanges.
fn step(said: Option<&AgentBuild>, wanted: &str) -> Step {
    let Some(said) = said else {
        return Step::Leave(
            "it is of a release that could not exchange its agent; `slipway down` and `slipway up` make the machine anew".into(),
        );
    };
    let (is_wanted, has_refused) = (said.sha256 == wanted, said.refused == wanted);
    if said.sha256.is_empty() {
        Step::Wait("waiting for its agent to say which build it is".to_owned())
    } else if !said.trial.is_empty() {
        Step::Wait(trial_of(&said.trial))
    } else if is_wanted && has_refused {
        // Given up, and about to be killed.
        Step::Wait("waiting for its agent to go back to the build before".to_owned())
    } else if is_wanted {
        Step::Done
    } else if has_refused {
        Step::Leave(format!(
            "it was tried, and build {:.12} came back: {}. That build is not tried again, another one is",
            said.sha256, said.refused_why
        ))
    } else {
        Step::Try { instead_of: said.sha256.clone() }
    }
}

fn trial_of(build: &str) -> String {
    format!("waiting for the end of the trial of its agent's build {build:.12}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0ld";
    const NEW: &str = "new";

    fn said(sha256: &str, trial: &str, refused: &str) -> Step {
        let why = if refused.is_empty() { "" } else { "no such luck" };
        let (sha256, trial, refused, refused_why) = (sha256.to_owned(), trial.to_owned(), refused.to_owned(), why.to_owned());
        step(Some(&AgentBuild { sha256, trial, refused, refused_why, refused_since_ms: 0 }), NEW)
    }

    fn waits_for(step: &Step, what: &str) -> bool {
        matches!(step, Step::Wait(said) if said.contains(what))
    }

    #[test]
    fn an_agent_of_this_build_is_left_alone() {
        assert_eq!(said(NEW, "", ""), Step::Done);
        assert_eq!(said(NEW, "", "older"), Step::Done, "what it refused does not matter");
    }

    #[test]
    fn an_agent_of_another_build_tries_this_one_instead_of_that() {
        assert_eq!(said(OLD, "", ""), Step::Try { instead_of: OLD.into() });
        assert_eq!(said(OLD, "", "older"), Step::Try { instead_of: OLD.into() }, "it has refused another one");
    }

    #[test]
    fn a_build_that_was_refused_is_not_tried_again_and_it_is_said_why() {
        let step = said(OLD, "", NEW);
        assert!(matches!(&step, Step::Leave(why) if why.contains("no such luck") && why.contains(OLD)), "{step:?}");
    }

    #[test]
    fn nothing_is_decided_while_a_build_is_on_trial() {
        // Before the tried build runs, while it does, and when another `up` began it.
        for (runs, trial) in [(OLD, NEW), (NEW, NEW), (OLD, "third"), ("third", "third"), (NEW, "third")] {
            assert!(waits_for(&said(runs, trial, ""), trial), "{runs} runs and {trial} is on trial");
        }
        assert!(waits_for(&said(OLD, "third", NEW), "third"));
    }

    #[test]
    fn a_tried_build_that_was_given_up_is_not_taken_for_one_that_stays() {
        assert!(waits_for(&said(NEW, "", NEW), "go back"));
    }

    #[test]
    fn an_agent_that_does_not_know_itself_yet_is_waited_for() {
        assert!(waits_for(&said("", "", ""), "which build it is"));
        assert!(waits_for(&said("", "", NEW), "which build it is"));
    }

    #[test]
    fn an_agent_older_than_exchanges_is_left_with_a_word_about_the_way_out() {
        assert!(matches!(step(None, NEW), Step::Leave(why) if why.contains("slipway down")));
    }
}
