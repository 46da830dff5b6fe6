//! What is shown is what is done.

use crate::build::{complete, nothing, now, spec};
use slipway_plan::{ConditionType, End, Status, forecast, plan, seen};

#[test]
fn a_new_highly_available_cluster() {
    let forecast = forecast(&spec(3, 2), &nothing(), now());
    println!("{forecast}");
    assert_eq!(forecast.end, End::Done);
}

#[test]
fn a_complete_cluster_is_ready_and_needs_nothing() {
    let spec = spec(3, 2);
    let world = complete(&spec);
    let plan = plan(&spec, &seen(&world), now());
    println!("{plan:#?}");
    assert!(plan.actions.is_empty() && plan.waits.is_empty());
    for kind in ConditionType::ALL {
        let wanted = if kind == ConditionType::Progressing { Status::False } else { Status::True };
        assert_eq!(plan.condition(kind).unwrap().status, wanted, "{kind:?}");
    }
    assert!(forecast(&spec, &world, now()).steps.is_empty());
}
