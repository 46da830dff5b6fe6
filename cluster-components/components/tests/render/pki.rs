//! Plans made with real certificates.

use crate::fixtures;
use jiff::Timestamp;
use slipway_components::machine;
use slipway_pki::{ClusterPki, MachineFacts, MachineLeaves, MachineRole};

#[test]
fn a_plan_stays_the_same_when_its_keys_come_back_from_their_secrets() {
    let now = Timestamp::UNIX_EPOCH;
    let mut settings = fixtures::control_plane("v1.36.4", 1);
    let facts = MachineFacts {
        node: settings.machine.node.clone(),
        address: settings.machine.address,
        role: MachineRole::ControlPlane {
            endpoint: settings.cluster.endpoint.host.clone(),
            service_ip: settings.cluster.network.api_service_ip(),
            extra_names: vec![],
        },
    };
    let pki = ClusterPki::generate("demo", now).unwrap();
    let leaves = MachineLeaves::issue(&pki, &facts, now).unwrap();
    settings.credentials = leaves.control_plane_credentials(&pki).unwrap();
    let before = machine::control_plane(&settings).unwrap().digest();

    let pki = ClusterPki::from_secret(&pki.to_secret()).unwrap();
    let leaves = MachineLeaves::from_secret(&leaves.to_secret(), &facts).unwrap();
    assert!(leaves.matches(&pki, &facts));
    settings.credentials = leaves.control_plane_credentials(&pki).unwrap();
    assert_eq!(machine::control_plane(&settings).unwrap().digest(), before);
}
