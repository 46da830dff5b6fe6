//! One pass over one Cluster. This is the table of contents; each step is a module.

use crate::context::Context;
use crate::looks::Look;
use crate::memory::Memory;
use crate::observe::ObserveError;
use crate::{clock, compose, execute, observe, report, validate};
use std::sync::Arc;
use std::time::Duration;

/// What comes after a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look again after this, unless the bell rings before.
    LookAgain(Duration),
    /// There is no such Cluster any more.
    Gone,
}

/// Observes, validates, plans, begins what is to be done, and reports. It waits for nothing but reads.
pub async fn reconcile(context: &Arc<Context>, memory: &mut Memory) -> Result<Next, ObserveError> {
    let now = clock::now();
    execute::collect(memory, context, now);
    if execute::is_choosing(memory) {
        // A plan made now could choose differently. Its end rings the bell.
        return Ok(Next::LookAgain(Duration::from_secs(1)));
    }
    let Some(seen) = observe::observe(context, memory, now).await? else {
        context.looks.forget(&memory.cluster);
        return Ok(Next::Gone);
    };
    let spec = match validate::validate(&seen.cluster, &context.artifacts) {
        Ok(spec) => spec,
        Err(invalid) => {
            context.looks.refuse(&memory.cluster, &invalid);
            return Ok(report::refused(context, memory, &seen, &invalid, now));
        }
    };
    let world = compose::compose(context, memory, seen, spec, now).await; // renders; reads only keys that changed
    let plan = slipway_plan::plan(&world.scene.spec, &world.observed, now); // no client required
    execute::start(context, memory, &world.scene, &plan, now);
    report::report(context, memory, &world, &plan, now);
    context.looks.keep(&memory.cluster, Look::of(world, now));
    Ok(Next::LookAgain(observe::look_again(memory, &plan, now)))
}
