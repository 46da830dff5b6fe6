//! A management plane of the bench's own, beside whatever else runs on the host, and taken away when the bench ends.

use crate::{build, run};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Its names and range: apart from the quickstart's.
const NAME: &str = "slb";
const RANGE: &str = "198.18.128.0/20";

/// A running management plane.
pub struct Plane {
    bin: PathBuf,
    state: PathBuf,
}

/// `3+2`: control planes and workers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Control planes.
    pub control_planes: u32,
    /// Workers.
    pub workers: u32,
}

impl std::str::FromStr for Shape {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let (control_planes, workers) = text.split_once('+').context("a shape is CONTROL_PLANES+WORKERS, for example 3+2")?;
        Ok(Self { control_planes: control_planes.parse()?, workers: workers.parse()? })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.control_planes, self.workers)
    }
}

impl Plane {
    /// Builds the programs and brings the plane up.
    pub fn up(profile: build::Profile) -> Result<Self> {
        let bin = build::programs(profile)?;
        let state = std::env::temp_dir().join(format!("slipway-bench-{}", std::process::id()));
        let plane = Self { bin, state };
        run::must(plane.slipway(&["up", "--name", NAME, "--range", RANGE]).stdout(Stdio::null()))?;
        Ok(plane)
    }

    /// `slipway` against this plane.
    pub fn slipway(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("slipway"));
        command.env("SLIPWAY_STATE", &self.state).args(args);
        command
    }

    /// `kubectl` against the management plane.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.state.join("bin/kubectl"));
        command.env("KUBECONFIG", self.state.join("management.kubeconfig")).args(args);
        command
    }

    /// Applies a cluster and waits for all its Nodes to be Ready. Seconds from the start of `kubectl apply`.
    pub fn create(&self, name: &str, shape: Shape) -> Result<f64> {
        let file = self.state.join(format!("{name}.yaml"));
        let pools =
            if shape.workers == 0 { String::new() } else { format!("  pools:\n  - {{ name: workers, replicas: {} }}\n", shape.workers) };
        std::fs::write(
            &file,
            format!(
                "apiVersion: slipway.dev/v1alpha1\nkind: Cluster\nmetadata: {{ name: {name} }}\nspec:\n  kubernetesVersion: v1.36.4\n  provider: {{ local: {{}} }}\n  controlPlane: {{ replicas: {} }}\n{pools}",
                shape.control_planes
            ),
        )?;
        let started = Instant::now();
        let limit = Duration::from_secs(300);
        run::must(self.kubectl(&["apply", "--filename"]).arg(&file).stdout(Stdio::null()))?;
        let secret = format!("secret/{name}-kubeconfig");
        run::must(self.kubectl(&["wait", "--for=create", "--timeout=60s", &secret]).stdout(Stdio::null()))?;
        let kubeconfig = self.state.join(format!("{name}.kubeconfig"));
        let path = kubeconfig.to_string_lossy().into_owned();
        run::must(self.slipway(&["kubeconfig", name, "--path", &path]).stdout(Stdio::null()))?;
        self.answers(name, &path, limit)?;
        let wanted = usize::try_from(shape.control_planes + shape.workers)?;
        let mut ready = std::collections::BTreeSet::new();
        while started.elapsed() < limit {
            // One watch: nothing that polls takes part in what is measured.
            let mut watch = Command::new(self.state.join("bin/kubectl"));
            watch.args(["get", "nodes", "--watch", "--no-headers", "--request-timeout=0", "--kubeconfig", &path]);
            let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
            for line in lines.map_while(std::result::Result::ok) {
                let mut words = line.split_whitespace();
                if let (Some(node), Some("Ready")) = (words.next(), words.next()) {
                    ready.insert(node.to_owned());
                }
                if ready.len() == wanted {
                    break;
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            let _ = child.kill();
            child.wait()?;
            if ready.len() == wanted {
                return Ok(seconds);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("not every Node of {name} was Ready after {limit:?}: `slipway describe {name}` in {} says why", self.state.display())
    }

    /// Waits until a cluster's API answers. A kubectl that is begun anew until it does would take as much of the processor as another component.
    fn answers(&self, name: &str, kubeconfig: &str, limit: Duration) -> Result<()> {
        let field = |path: &str| {
            let output = format!("jsonpath={{.clusters[0].cluster.{path}}}");
            let args = ["config", "view", "--raw", "--kubeconfig", kubeconfig, "--output", &output];
            run::output(Command::new(self.state.join("bin/kubectl")).args(args))
        };
        let (server, ca) = (field("server")?, self.state.join(format!("{name}.ca")));
        let decode = "printf %s \"$1\" | base64 --decode >\"$2\"";
        run::must(Command::new("sh").args(["-c", decode, "sh", &field("certificate-authority-data")?]).arg(&ca))?;
        let mut wait = Command::new(self.bin.join("slipway-agent"));
        wait.args(["wait-for", "--url", &format!("{server}/readyz"), "--ca"]).arg(&ca).stdout(Stdio::null());
        match run::limited(&mut wait, limit)? {
            run::End::Exited(status) if status.success() => Ok(()),
            run::End::Exited(status) => bail!("waiting for the API of {name} ended with {status}"),
            run::End::TooLong(took) => bail!("the API of {name} at {server} did not answer within {took:?}"),
        }
    }

    /// Deletes a cluster and waits for its end.
    pub fn delete(&self, name: &str) -> Result<()> {
        run::must(self.kubectl(&["delete", "cluster", name, "--timeout=120s"]).stdout(Stdio::null()))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Err(error) = run::must(self.slipway(&["down"]).stdout(Stdio::null())) {
            eprintln!("xtask: the bench's management plane is still there: {error:#}");
        }
    }
}
