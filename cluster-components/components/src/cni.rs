//! The pod network: a bridge per node with addresses of the Node's podCIDR; the cloud routes each podCIDR to its machine. No overlay, no daemon.

/// Where containerd puts the network once it knows the podCIDR.
pub(crate) const CONFIGURED: &str = "/etc/cni/net.d";
/// What containerd makes it of.
pub(crate) const TEMPLATE: &str = "/etc/cni/slipway.conflist.template";
/// Programs of the network, beside containerd's own.
pub(crate) const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// The plug-ins in order, as a template of containerd's (`conf_template`). Pods keep their addresses on the way to other nodes: no masquerading here.
pub(crate) fn template() -> String {
    r#"{
  "cniVersion": "1.0.0",
  "name": "slipway",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "{{.PodCIDR}}" }]],
        "dataDir": "/var/lib/cni"
      }
    },
    {
      "type": "portmap",
      "backend": "nftables",
      "capabilities": { "portMappings": true }
    }
  ]
}
"#
    .to_owned()
}
