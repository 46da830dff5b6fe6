//! What a Node's kernel must do, set at every boot.

use crate::part::Part;
use crate::unit::Service;
use crate::{Artifacts, RenderError};
use slipway_model::{MachinePlan, ProbeKind};

pub(crate) const UNIT: &str = "slipway-host.service";
const SETTINGS: &str = "/etc/sysctl.d/90-slipway.conf";

pub(crate) fn render(artifacts: &Artifacts) -> Result<MachinePlan, RenderError> {
    let mut part = Part::root("slipway-host");
    part.directory("/etc/sysctl.d", 0o755);
    // Bridged packets must pass conntrack, or answers of a Service's pod on the same node come from the wrong address.
    let file = part.file(SETTINGS, 0o644, "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n");
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let service = Service::oneshot(
        "Kernel settings of a Kubernetes node",
        vec![
            // Mounts that pods make for others must be seen by others; systemd leaves this out in a container.
            words(&["/usr/bin/mount", "--make-rshared", "/"]),
            // --ignore: kernels without bridge netfilter have no such key.
            words(&["/usr/sbin/sysctl", "--ignore", "--quiet", "--load", &file]),
        ],
    );
    part.finish(&service, &[], artifacts, ProbeKind::Active)
}
