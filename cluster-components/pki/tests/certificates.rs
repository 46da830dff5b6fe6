//! Certificates as their users see them: verified by rustls, read by x509-parser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::RootCertStore;
use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use secrecy::ExposeSecret;
use slipway_pki::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

type Secret = BTreeMap<String, Vec<u8>>;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn pki() -> ClusterPki {
    ClusterPki::generate("demo", now()).unwrap()
}

fn control_plane() -> MachineFacts {
    let role = MachineRole::ControlPlane {
        endpoint: "198.18.1.2".into(),
        service_ip: Ipv4Addr::new(10, 96, 0, 1),
        extra_names: vec!["api.example.com".into(), "localhost".into()],
    };
    MachineFacts { node: "demo-cp-0".into(), address: Ipv4Addr::new(198, 18, 1, 10), role }
}

fn worker() -> MachineFacts {
    MachineFacts { node: "demo-workers-0".into(), address: Ipv4Addr::new(198, 18, 1, 20), role: MachineRole::Worker }
}

fn roots(ca: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn at(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_second().cast_unsigned()))
}

fn serves(certificate: &str, ca: &str, name: &str, time: Timestamp) -> bool {
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca), provider()).build().unwrap();
    verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], at(time)).is_ok()
}

fn authenticates(certificate: &str, ca: &str, time: Timestamp) -> bool {
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider()).build().unwrap();
    verifier.verify_client_cert(&leaf, &[], at(time)).is_ok()
}

fn subject(certificate: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    pem.parse_x509().unwrap().subject().to_string()
}

fn serial(certificate: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    pem.parse_x509().unwrap().raw_serial_as_string()
}

#[test]
fn every_identity_has_the_subject_that_upstream_authorises() {
    let pki = pki();
    let node = || "n".to_owned();
    let address = Ipv4Addr::LOCALHOST;
    let cases = [
        (Identity::EtcdClient, "CN=kube-apiserver-etcd-client"),
        (Identity::EtcdOperator, "CN=slipway-operator"),
        (Identity::EtcdServer { member: node(), address }, "CN=n"),
        (Identity::ApiServerKubeletClient, "CN=kube-apiserver-kubelet-client"),
        (Identity::FrontProxyClient, "CN=front-proxy-client"),
        (Identity::KubeletClient { node: node() }, "O=system:nodes, CN=system:node:n"),
        (Identity::KubeletServer { node: node(), address }, "O=system:nodes, CN=system:node:n"),
        (Identity::ControllerManager, "CN=system:kube-controller-manager"),
        (Identity::Scheduler, "CN=system:kube-scheduler"),
        (Identity::CloudControllerManager, "CN=system:cloud-controller-manager"),
        (Identity::KubeProxy, "CN=system:kube-proxy"),
        (Identity::Admin, "O=slipway:cluster-admins, CN=kubernetes-admin"),
        (Identity::SuperAdmin, "O=system:masters, CN=kubernetes-super-admin"),
        (Identity::Operator, "CN=slipway-operator"),
    ];
    for (identity, expected) in cases {
        let leaf = pki.issue(&identity, now()).unwrap();
        assert_eq!(subject(leaf.certificate()), expected, "{identity:?}");
        let own = pki.authority(identity.authority()).certificate();
        let client = !matches!(identity, Identity::KubeletServer { .. });
        assert_eq!(authenticates(leaf.certificate(), own, now()), client, "{identity:?}");
        for other in [AuthorityKind::Cluster, AuthorityKind::Etcd, AuthorityKind::FrontProxy, AuthorityKind::Agent] {
            if other != identity.authority() {
                assert!(!authenticates(leaf.certificate(), pki.authority(other).certificate(), now()), "{identity:?} and {other:?}");
            }
        }
    }
}

#[test]
fn servers_answer_to_all_their_names_and_to_no_other() {
    let pki = pki();
    let secret = MachineLeaves::issue(&pki, &control_plane(), now()).unwrap().to_secret();
    let certificate = |name: &str| String::from_utf8(secret[&format!("{name}.crt")].clone()).unwrap();
    let api =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"];
    let api = [&api[..], &["10.96.0.1", "198.18.1.10", "198.18.1.2", "api.example.com"]].concat();
    let local = vec!["localhost", "127.0.0.1"];
    let etcd = vec!["localhost", "127.0.0.1", "demo-cp-0", "198.18.1.10"];
    let cases = [
        ("apiserver", pki.cluster.certificate(), api),
        ("etcd-server", pki.etcd.certificate(), etcd.clone()),
        ("etcd-peer", pki.etcd.certificate(), etcd),
        ("kubelet-server", pki.cluster.certificate(), vec!["demo-cp-0", "198.18.1.10"]),
        ("kube-controller-manager", pki.cluster.certificate(), local.clone()),
        ("kube-scheduler", pki.cluster.certificate(), local),
    ];
    for (name, ca, names) in cases {
        let certificate = certificate(name);
        names.iter().for_each(|server| assert!(serves(&certificate, ca, server, now()), "{name} as {server}"));
        for foreign in ["example.com", "198.18.1.99"] {
            assert!(!serves(&certificate, ca, foreign, now()), "{name} as {foreign}");
        }
    }
    assert!(!authenticates(&certificate("apiserver"), pki.cluster.certificate(), now()), "a server's certificate opens no API");
}

#[test]
fn certificates_are_valid_a_little_earlier_and_for_their_time() {
    let pki = pki();
    let leaf = pki.issue(&Identity::Scheduler, now()).unwrap();
    let ok = |after: SignedDuration| authenticates(leaf.certificate(), pki.cluster.certificate(), now() + after);
    let day = SignedDuration::from_hours(24);
    assert!(ok(-SignedDuration::from_mins(4)) && ok(day * 364));
    assert!(!ok(-SignedDuration::from_mins(6)) && !ok(day * 366));
    assert!(leaf.renew_at() > now() + day * 243 && leaf.renew_at() < now() + day * 244);
    let short = pki.issue_for_days(&Identity::Operator, now(), 1).unwrap();
    assert_eq!(short.not_after(), now() + day);
    assert!(pki.expires() > now() + day * 3650);
}

#[test]
fn an_agents_request_gets_the_records_name_and_nothing_that_it_claims() {
    let pki = pki();
    let pair = KeyPair::generate().unwrap();
    let mut claim = CertificateParams::new(vec!["somebody.agent.slipway.internal".to_owned()]).unwrap();
    claim.distinguished_name.push(DnType::CommonName, "slipway-operator");
    claim.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    claim.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = claim.serialize_request(&pair).unwrap().pem().unwrap();
    let signed = pki.sign_agent(&csr, "uid-1", &["198.18.1.10".into()], now(), AGENT_LIFE).unwrap();
    let ca = pki.agent.certificate();
    assert_eq!(subject(&signed), "CN=uid-1");
    assert!(serves(&signed, ca, &agent_server_name("uid-1"), now()) && serves(&signed, ca, "198.18.1.10", now()));
    assert!(!serves(&signed, ca, "somebody.agent.slipway.internal", now()) && !authenticates(&signed, ca, now()));
    let again = pki.sign_agent(&csr, "uid-1", &["198.18.1.10".into()], now(), AGENT_LIFE).unwrap();
    assert_ne!(serial(&signed), serial(&again), "the same key, but two certificates");
    let hour = SignedDuration::from_hours(1);
    let short = pki.sign_agent(&csr, "uid-1", &[], now(), hour).unwrap();
    let name = agent_server_name("uid-1");
    assert!(serves(&short, ca, &name, now() + hour - SignedDuration::from_secs(2)) && !serves(&short, ca, &name, now() + hour * 2));
    let long = pki.sign_agent(&csr, "uid-1", &[], now(), AGENT_LIFE * 3).unwrap();
    assert!(!serves(&long, ca, &name, now() + AGENT_LIFE + hour), "none lives longer than a year");

    // A request whose signature is not by its own key.
    let mut der = CertificateDer::from(x509_parser::pem::parse_x509_pem(csr.as_bytes()).unwrap().1.contents).to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der)
    );
    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default().serialize_request(&edwards).unwrap().pem().unwrap();
    for bad in [forged.as_str(), other.as_str(), "", "-----BEGIN", ca] {
        assert!(
            matches!(pki.sign_agent(bad, "uid-1", &[], now(), AGENT_LIFE), Err(PkiError::Request { machine, .. }) if machine == "uid-1")
        );
    }
}

#[test]
fn what_is_kept_in_secrets_comes_back_the_same() {
    let pki = pki();
    let secret = pki.to_secret();
    assert_eq!(ClusterPki::from_secret(&secret).unwrap().to_secret(), secret);
    for facts in [control_plane(), worker()] {
        let secret = MachineLeaves::issue(&pki, &facts, now()).unwrap().to_secret();
        assert_eq!(MachineLeaves::from_secret(&secret, &facts).unwrap().to_secret(), secret);
    }
    let secret = AdminLeaves::issue(&pki, now()).unwrap().to_secret();
    let admin = AdminLeaves::from_secret(&secret).unwrap();
    assert!(admin.to_secret() == secret && admin.matches(&pki));
}

#[test]
fn leaves_are_known_to_be_wrong_as_soon_as_a_fact_changes() {
    let (pki, facts) = (pki(), control_plane());
    let leaves = MachineLeaves::issue(&pki, &facts, now()).unwrap();
    assert!(leaves.matches(&pki, &facts));
    let moved = MachineFacts { address: Ipv4Addr::new(198, 18, 1, 11), ..facts.clone() };
    let renamed = MachineFacts { node: "demo-cp-1".into(), ..facts.clone() };
    let demoted = MachineFacts { role: MachineRole::Worker, ..facts.clone() };
    let mut balanced = facts.clone();
    if let MachineRole::ControlPlane { endpoint, .. } = &mut balanced.role {
        *endpoint = "198.18.1.3".into();
    }
    for other in [moved, renamed, demoted, balanced] {
        assert!(!leaves.matches(&pki, &other), "{other:?}");
    }
    assert!(!leaves.matches(&ClusterPki::generate("demo", now()).unwrap(), &facts), "the same names by another authority");
    assert!(leaves.control_plane_credentials(&pki).is_ok());
    let worker = MachineLeaves::issue(&pki, &worker(), now()).unwrap();
    assert!(worker.node_credentials(&pki).is_ok() && worker.control_plane_credentials(&pki).is_err());
}

#[test]
fn a_broken_secret_is_refused_by_the_name_of_its_entry() {
    let pki = pki();
    let good = pki.to_secret();
    let error = |change: &dyn Fn(&mut Secret)| {
        let mut secret = good.clone();
        change(&mut secret);
        ClusterPki::from_secret(&secret).unwrap_err()
    };
    for key in good.keys() {
        assert_eq!(error(&|secret| drop(secret.remove(key))), PkiError::Missing { key: key.clone() });
        for broken in [&b"x"[..], b"\xff", b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let error = error(&|secret| drop(secret.insert(key.clone(), broken.to_vec()))).to_string();
            assert!(error.contains(key.as_str()), "{error}");
        }
    }
    let swapped = error(&|secret| drop(secret.insert("etcd-ca.key".into(), good["agent-ca.key"].clone())));
    assert_eq!(swapped, PkiError::Mismatch { certificate: "etcd-ca.crt".into(), key: "etcd-ca.key".into() });
    let leaf = AdminLeaves::issue(&pki, now()).unwrap().to_secret();
    let no_authority = error(&|secret| {
        secret.insert("agent-ca.crt".into(), leaf["admin.crt"].clone());
        secret.insert("agent-ca.key".into(), leaf["admin.key"].clone());
    });
    assert!(no_authority.to_string().contains("\"agent-ca.crt\" of the Secret is not an authority's certificate"), "{no_authority}");
}

#[test]
fn keys_show_in_neither_debug_nor_errors() {
    let pki = pki();
    let leaves = MachineLeaves::issue(&pki, &control_plane(), now()).unwrap();
    let admin = AdminLeaves::issue(&pki, now()).unwrap();
    let mut shown = format!("{pki:?} {leaves:?} {admin:?} {:?}", leaves.control_plane_credentials(&pki).unwrap());
    shown.push_str(&format!("{:?}", admin.kubeconfig("demo", "https://198.18.1.2:6443", &pki)));
    let mut secret = pki.to_secret();
    let key = String::from_utf8(secret["etcd-ca.key"].clone()).unwrap();
    secret.insert("etcd-ca.crt".into(), key.clone().into_bytes());
    let error = ClusterPki::from_secret(&secret).unwrap_err();
    shown.push_str(&format!("{error} {error:?}"));
    secret.insert("sa.key".into(), key.replace("END", "XXX").into_bytes());
    let error = ClusterPki::from_secret(&secret).unwrap_err();
    shown.push_str(&format!("{error} {error:?}"));
    assert!(!shown.contains("PRIVATE KEY") && !shown.contains("MIGH"), "{shown}");
    for line in key.lines().filter(|line| line.len() > 30) {
        assert!(!shown.contains(line));
    }
}

#[test]
fn a_kubeconfig_names_server_authority_and_user() {
    let pki = pki();
    let admin = AdminLeaves::issue(&pki, now()).unwrap();
    let text = admin.kubeconfig("demo", "https://198.18.1.2:6443", &pki);
    let decode = |field: &str| {
        let line = text.expose_secret().lines().find_map(|line| line.trim().strip_prefix(field)).unwrap().to_owned();
        String::from_utf8(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, line).unwrap()).unwrap()
    };
    assert!(text.expose_secret().contains("current-context: \"kubernetes-admin@demo\"\n"));
    assert!(text.expose_secret().contains("    server: \"https://198.18.1.2:6443\"\n"));
    assert_eq!(decode("certificate-authority-data: "), pki.cluster.certificate());
    assert_eq!(decode("client-certificate-data: "), admin.admin.certificate());
    assert_eq!(decode("client-key-data: "), admin.admin.key().expose_secret());
}
