//! containerd, with runc and its shim, and the images that nobody can be asked for.

use crate::cni;
use crate::part::Part;
use crate::unit::{BIN, Hold, Kind, Service, bin};
use crate::{Artifacts, ClusterSettings, Host, Image, RenderError};
use slipway_model::{MachinePlan, ProbeKind};

pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
pub(crate) const UNIT: &str = "containerd.service";

/// Kernels and tools of the host are found after our own programs.
pub(crate) fn path() -> (String, String) {
    ("PATH".into(), format!("{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
}

pub(crate) fn render(cluster: &ClusterSettings, artifacts: &Artifacts) -> Result<MachinePlan, RenderError> {
    let mut part = Part::root("containerd");
    let config = part.file("/etc/containerd/config.toml", 0o600, config(&cluster.images.pause, cluster.profile.host));
    part.directory("/etc/containerd", 0o755);
    part.file(cni::TEMPLATE, 0o644, cni::template());
    part.directory("/etc/cni", 0o755);
    part.directory(cni::CONFIGURED, 0o755);
    let mut service = Service::program("containerd, the container runtime", "containerd", vec![format!("--config={config}")]);
    // Images and kubelets are ordered behind it, and it says when it serves.
    service.kind = Kind::Notify;
    service.after = vec![crate::host::UNIT];
    service.environment = vec![path()];
    // Pods outlive it: their shims are in its control group and must not be killed with it.
    service.extra = vec!["Delegate=yes", "KillMode=process", "TasksMax=infinity"];
    let uses = ["containerd", "containerd-shim-runc-v2", "runc"];
    let uses = [&uses[..], &cni::PLUGINS[..]].concat();
    let mut plan = part.finish(&service, &uses, artifacts, ProbeKind::Socket { path: SOCKET.to_owned() })?;
    plan.extend(import("slipway-sandbox-image", "Image of the pod sandbox", &[&cluster.images.pause], vec![], artifacts)?);
    if !cluster.images.others.is_empty() {
        // Unpacking waits until the Node is as good as ready.
        let others: Vec<_> = cluster.images.others.iter().collect();
        let hold = vec![Hold::DirectoryNotEmpty(cni::CONFIGURED)];
        plan.extend(import("slipway-images", "Images that this node must have", &others, hold, artifacts)?);
    }
    Ok(plan)
}

fn import(
    name: &'static str,
    description: &'static str,
    images: &[&Image],
    hold: Vec<Hold>,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    // Locally: the transfer service takes longer for archives of one image. Unpacked when a pod first needs it: most nodes never run most images.
    let options = ["--namespace=k8s.io", "images", "import", "--local", "--no-unpack"].map(str::to_owned).to_vec();
    let command = |image: &&Image| [vec![bin("ctr")], options.clone(), vec![bin(&image.artifact)]].concat();
    let mut service = Service::oneshot(description, images.iter().map(command).collect());
    service.after = vec![UNIT];
    service.hold = hold;
    let uses: Vec<_> = std::iter::once("ctr").chain(images.iter().map(|image| image.artifact.as_str())).collect();
    let mut plan = Part::root(name).finish(&service, &uses, artifacts, ProbeKind::Active)?;
    // Two oneshots share ctr.
    plan.artifacts.dedup_by(|a, b| a.name == b.name);
    Ok(plan)
}

/// Version 3 is read by containerd 2.0 to 2.4.
fn config(pause: &Image, host: Host) -> String {
    let Host { may_lower_oom_score, apparmor, .. } = host;
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = {no_apparmor}
# Lowering an oom_score_adj takes CAP_SYS_RESOURCE; without it no sandbox would start.
restrict_oom_score_adj = {restrict}

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{BIN}"]
conf_dir = "{conf}"
# Rendered once the cloud-controller-manager has given the Node its podCIDR and the kubelet has passed it on.
conf_template = "{template}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = true
"#,
        pause = pause.reference,
        no_apparmor = !apparmor,
        restrict = !may_lower_oom_score,
        conf = cni::CONFIGURED,
        template = cni::TEMPLATE,
        runc = bin("runc"),
    )
}
