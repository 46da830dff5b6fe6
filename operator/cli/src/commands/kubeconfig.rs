//! `slipway kubeconfig`

use crate::args::{Global, Kubeconfig};
use crate::connect::{Management, asked};
use crate::kubeconfig::{context_name, merge_file};
use crate::outcome::{Outcome, refused};
use crate::output::{print, say};
use crate::place::{Place, home, write_private};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// A cluster's kubeconfig out of its Secret.
pub async fn fetch(management: &Management, cluster: &str) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(management.client.clone(), &management.namespace);
    let name = format!("{cluster}-kubeconfig");
    let secret = asked("reading the kubeconfig", Duration::from_secs(10), secrets.get_opt(&name)).await?;
    let value = secret.and_then(|s| s.data?.remove("value")).ok_or_else(|| {
        let namespace = &management.namespace;
        refused(format!(
            "there is no kubeconfig of {cluster} in namespace {namespace} yet (Secret {name}): `slipway get clusters -A` lists clusters, `slipway describe {cluster}` says what this one waits for"
        ))
    })?;
    String::from_utf8(value.0).with_context(|| format!("the Secret {name} holds no text"))
}

/// Runs the command.
pub async fn run(global: &Global, args: &Kubeconfig) -> Result<Outcome> {
    let management = Management::connect(global).await?;
    let text = fetch(&management, &args.name).await?;
    if args.print {
        say(&text)?;
        return Ok(Outcome::Done);
    }
    let (path, changed, context) = if args.merge {
        let path = match &args.path {
            Some(path) => path.clone(),
            None => users_own()?,
        };
        let changed = merge_file(&path, &text, &args.name)?;
        (path, changed, context_name(&args.name))
    } else {
        let path = match &args.path {
            Some(path) => path.clone(),
            None => {
                let place = Place::new(global.state.as_deref())?;
                place.create()?;
                place.cluster_kubeconfig(&args.name)
            }
        };
        let changed = std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str());
        if changed {
            write_private(&path, text.as_bytes())?;
        }
        let current = kube::config::Kubeconfig::from_yaml(&text).ok().and_then(|k| k.current_context).unwrap_or_default();
        (path, changed, current)
    };
    print(global.output, &json!({ "path": path, "context": context, "changed": changed }), || {
        let verb = match (args.merge, changed) {
            (_, false) => "nothing to do:",
            (true, true) => "merged into",
            (false, true) => "wrote",
        };
        format!("{verb} {} (context {context})", path.display())
    })?;
    Ok(Outcome::Done)
}

/// Where kubectl would write: the first file of $KUBECONFIG, else ~/.kube/config.
fn users_own() -> Result<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").and_then(|v| std::env::split_paths(&v).find(|p| !p.as_os_str().is_empty()));
    match listed {
        Some(path) => Ok(path),
        None => Ok(home()?.join(".kube/config")),
    }
}
