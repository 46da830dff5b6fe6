//! Whose vote counts when parts of the view are older than others.

use crate::build::{complete, look, now, spec};
use slipway_plan::{Action, Fact, InstanceState, plan, seen};

#[test]
fn a_member_that_answered_a_moment_ago_does_not_count_when_its_machine_is_gone() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    look(&spec, &mut world);
    let mut view = seen(&world);
    // One that a person deleted does not answer any more and was powered off; of another, the cloud has nothing left, but etcd was asked before.
    let since = now() - jiff::SignedDuration::from_secs(3600);
    let [_, gone, leaving] = ["demo-cp-0", "demo-cp-1", "demo-cp-2"];
    for record in view.machines.known_mut().unwrap().iter_mut().filter(|m| m.name.as_str() == leaving) {
        record.deleting = Some(since);
    }
    for member in view.etcd.known_mut().unwrap().members.iter_mut().filter(|m| m.name == leaving) {
        member.status = Fact::unknown("connection refused", since);
    }
    let instances = &mut view.cloud.known_mut().unwrap().instances;
    instances.retain(|i| i.machine.as_str() != gone);
    instances.iter_mut().filter(|i| i.machine.as_str() == leaving).for_each(|i| i.state = InstanceState::Stopped);
    let actions = plan(&spec, &view, now()).actions;
    assert!(!actions.iter().any(|a| matches!(a, Action::RemoveMember { .. })), "one of three answers: {actions:#?}");
}
