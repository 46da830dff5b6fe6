//! What the agent was told: the plan last accepted and the highest epoch heard, one file, durable before anything is acknowledged.

use crate::root::{self, Access, Root};
use serde::{Deserialize, Serialize};
use slipway_agent_api::refusal::Refusal;
use slipway_model::MachinePlan;
use std::io;
use std::sync::Arc;

/// A plan with its identity.
#[derive(Debug)]
pub struct Plan {
    /// sha256 of its canonical JSON.
    pub digest: String,
    /// The machine's desired state.
    pub plan: MachinePlan,
}

/// The agent's memory of what it was told.
#[derive(Debug, Clone, Default)]
pub struct Accepted {
    /// Highest epoch heard.
    pub epoch: u64,
    /// The plan last accepted.
    pub plan: Option<Arc<Plan>>,
}

#[derive(Serialize)]
struct Written<'a> {
    epoch: u64,
    digest: &'a str,
    plan: Option<&'a MachinePlan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    epoch: u64,
    digest: String,
    plan: Option<MachinePlan>,
}

impl Accepted {
    /// From the disk; the default where nothing was accepted yet.
    pub fn load(root: &Root) -> io::Result<Self> {
        let Some(bytes) = root::read(&root.state("plan.json"))? else { return Ok(Self::default()) };
        let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("plan.json is damaged: {why}"));
        let Read { epoch, digest, plan } =
            serde_json::from_slice(&bytes).map_err(|e| damaged(&format!("line {}, column {}", e.line(), e.column())))?;
        let plan = plan.map(|plan| Arc::new(Plan { digest, plan }));
        match plan.as_ref().filter(|plan| plan.plan.digest().0 != plan.digest) {
            Some(_) => Err(damaged("its plan has another digest")),
            None => Ok(Self { epoch, plan }),
        }
    }

    /// To the disk, durably.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        let plan = self.plan.as_deref();
        let written =
            Written { epoch: self.epoch, digest: plan.map_or("", |plan| plan.digest.as_str()), plan: plan.map(|plan| &plan.plan) };
        root::replace_durably(&root.state("plan.json"), &serde_json::to_vec(&written)?, Access::SECRET)
    }

    /// Digest of the plan last accepted, empty before the first.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.plan.as_ref().map_or("", |plan| plan.digest.as_str())
    }

    /// Whether a caller of this epoch is heard.
    pub fn fence(&self, epoch: u64) -> Result<(), Refusal> {
        if epoch < self.epoch { Err(Refusal::StaleEpoch { heard: self.epoch, asked: epoch }) } else { Ok(()) }
    }

    /// What there is to remember once a caller of this epoch was heard, so that none of an earlier one is any more; None when that is remembered already.
    pub fn hear(&self, epoch: u64) -> Result<Option<Self>, Refusal> {
        self.fence(epoch)?;
        Ok((epoch > self.epoch).then(|| Self { epoch, plan: self.plan.clone() }))
    }

    /// What there is to remember once this plan is accepted; None when that is what is remembered already.
    pub fn accept(&self, epoch: u64, expected: &str, plan: MachinePlan, digest: String) -> Result<Option<Self>, Refusal> {
        self.fence(epoch)?;
        if digest == self.digest() {
            return self.hear(epoch);
        }
        if expected != self.digest() {
            return Err(Refusal::DigestMismatch { current: self.digest().to_owned(), expected: expected.to_owned() });
        }
        Ok(Some(Self { epoch, plan: Some(Arc::new(Plan { digest, plan })) }))
    }
}

/// A plan from a message: exactly the canonical JSON, so that its digest means the same to both ends. Errors never quote it: it holds keys.
pub fn parse(bytes: &[u8]) -> Result<(MachinePlan, String), Refusal> {
    let plan: MachinePlan = serde_json::from_slice(bytes).map_err(|e| {
        let words = e.to_string();
        let safe = ["unknown field", "missing field", "unknown variant"].iter().any(|start| words.starts_with(start));
        let words = if safe { words } else { format!("unexpected JSON at line {} column {}", e.line(), e.column()) };
        Refusal::Invalid(format!("the plan is malformed: {words}"))
    })?;
    if plan.canonical() != bytes {
        return Err(Refusal::Invalid("the plan is not in its canonical form: send MachinePlan::canonical()".into()));
    }
    crate::check::check(&plan).map_err(|why| Refusal::Invalid(format!("the plan cannot be right: {why}")))?;
    let digest = plan.digest().0;
    Ok((plan, digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_model::{File, User};

    fn plan(id: u32) -> (MachinePlan, String) {
        let plan = MachinePlan { users: vec![User { name: "etcd".into(), id }], ..MachinePlan::default() };
        let digest = plan.digest().0;
        (plan, digest)
    }

    #[test]
    fn a_plan_is_swapped_only_against_the_one_it_was_made_from() {
        let ((one, d1), (two, d2)) = (plan(2001), plan(2002));
        let first = Accepted::default().accept(1, "", one.clone(), d1.clone()).unwrap().unwrap();
        assert_eq!(
            first.accept(1, "", two.clone(), d2.clone()).unwrap_err(),
            Refusal::DigestMismatch { current: d1.clone(), expected: String::new() }
        );
        assert_eq!(first.accept(1, &d1, two, d2.clone()).unwrap().unwrap().digest(), d2);
        assert!(first.accept(1, "whatever", one, d1).unwrap().is_none(), "a repeated plan is accepted");
    }

    #[test]
    fn an_older_leader_is_not_heard_and_a_newer_one_is_remembered() {
        let (one, d1) = plan(2001);
        let first = Accepted::default().accept(5, "", one.clone(), d1.clone()).unwrap().unwrap();
        assert_eq!(first.accept(4, &d1, one.clone(), d1.clone()).unwrap_err(), Refusal::StaleEpoch { heard: 5, asked: 4 });
        assert_eq!(first.accept(6, "", one, d1.clone()).unwrap().unwrap().epoch, 6);
        let heard = first.hear(7).unwrap().unwrap();
        assert_eq!((heard.epoch, heard.digest()), (7, d1.as_str()));
        assert!(heard.hear(7).unwrap().is_none() && heard.hear(6).is_err());
    }

    #[test]
    fn it_survives_the_disk_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(Accepted::load(&root).unwrap().digest(), "");
        let (one, d1) = plan(2001);
        Accepted::default().accept(5, "", one, d1.clone()).unwrap().unwrap().save(&root).unwrap();
        let again = Accepted::load(&root).unwrap();
        assert_eq!((again.epoch, again.digest()), (5, d1.as_str()));
        let text = String::from_utf8(std::fs::read(root.state("plan.json")).unwrap()).unwrap();
        std::fs::write(root.state("plan.json"), text.replace("2001", "2002")).unwrap();
        assert!(Accepted::load(&root).unwrap_err().to_string().contains("digest"));
    }

    #[test]
    fn a_malformed_plan_is_refused_without_showing_its_secrets() {
        let file = File { path: "/etc/x".into(), mode: 0o600, owner: "root".into(), content: "SECRET".into() };
        let good = MachinePlan { files: vec![file], ..MachinePlan::default() };
        parse(&good.canonical()).unwrap();
        let text = String::from_utf8(good.canonical()).unwrap();
        for bad in [
            text.replace("384", "\"SECRET\""),
            text.replace("\"mode\"", "\"mood\""),
            format!(" {text}"),
            text.replace("[", "{"),
            "SECRET".into(),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
        assert!(parse(text.replace("\"users\"", "\"persons\"").as_bytes()).unwrap_err().to_string().contains("unknown field `persons`"));
    }
}
