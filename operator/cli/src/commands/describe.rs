//! `slipway describe`

use crate::args::{Describe, Format, Global};
use crate::connect::Management;
use crate::observe::Observer;
use crate::outcome::{Outcome, refused};
use crate::output::{print, say};
use crate::timeline;
use crate::view::{Detail, tree};
use anyhow::{Context, Result};
use jiff::Timestamp;

/// Runs the command.
pub async fn run(global: &Global, args: &Describe) -> Result<Outcome> {
    let management = Management::connect(global).await?;
    let observer = Observer::new(&management.client, Some(&management.namespace)).await?;
    let view = observer.view(&management.namespace, &args.name).ok_or_else(|| {
        refused(format!("there is no cluster {} in namespace {}: `slipway get clusters -A` lists them", args.name, management.namespace))
    })?;
    if let Some(path) = &args.svg {
        std::fs::write(path, timeline::svg(&view)).with_context(|| format!("writing {}", path.display()))?;
    }
    print(global.output, &view, || {
        if args.timeline { timeline::table(&view) } else { tree(&view, Timestamp::now(), Detail::Units).join("\n") }
    })?;
    if let Some(path) = &args.svg
        && global.output == Format::Text
    {
        say(&format!("\nthe picture is in {}", path.display()))?;
    }
    Ok(Outcome::Done)
}
