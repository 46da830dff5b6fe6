//! Who is heard, and what is refused.

use crate::process::{Agent, TOKEN, UID, claim, raw, token};
use crate::waiting::{state, until};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::SecretString;
use slipway_agent_api::{AgentClient, AgentError, ErrorClass};
use slipway_model::{File, MachinePlan, PlanDigest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn plan(content: &str) -> MachinePlan {
    let file = File { path: "/etc/kubernetes/x".into(), mode: 0o600, owner: "root".into(), content: content.into() };
    MachinePlan { files: vec![file], ..MachinePlan::default() }
}

fn refused(error: &AgentError, words: &str) {
    assert!(matches!(error, AgentError::Refused { .. }) && error.to_string().contains(words), "{error:?} does not say {words:?}");
}

#[tokio::test]
async fn the_claim_may_be_repeated_until_the_first_call_over_mtls_and_never_after() {
    let agent = Agent::start().await;
    let early = AgentClient::connect(agent.address, UID, &agent.authority.operator()).await.unwrap_err();
    assert!(matches!(early, AgentError::NotClaimed { .. }) && early.class() == ErrorClass::Wait, "{early:?}");
    let info = agent.unclaimed().await.get_info().await.unwrap();
    assert_eq!((info.machine_uid.as_str(), info.name.as_str(), info.claimed, info.sealed), (UID, "one", false, false));

    agent.claim_once().await.unwrap();
    // As after a lost reply, or with another leader's certificate.
    agent.claim_once().await.unwrap();
    assert!(agent.unclaimed().await.get_info().await.unwrap().claimed);
    let held = agent.unclaimed().await;

    let info = agent.operator().await.get_info().await.unwrap();
    assert!(info.claimed && info.sealed);
    for late in
        [agent.claim_once().await.unwrap_err(), claim(&held, &agent.authority, UID).await.unwrap_err(), held.get_info().await.unwrap_err()]
    {
        assert!(matches!(late, AgentError::AlreadyClaimed { .. }), "{late:?}");
    }
    let identity = std::fs::read_to_string(agent.path("/etc/slipway/identity.json")).unwrap();
    assert!(!identity.contains(TOKEN), "the token is wiped");
    assert!(!agent.log().contains(TOKEN));
}

#[tokio::test]
async fn a_wrong_token_machine_or_certificate_installs_nothing() {
    let agent = Agent::start().await;
    let unclaimed = agent.unclaimed().await;
    refused(&unclaimed.claim(&SecretString::from("wrong"), UID).await.unwrap_err(), "proof");
    refused(&unclaimed.claim(&token(), "uid-2").await.unwrap_err(), "proof");
    let csr = unclaimed.claim(&token(), UID).await.unwrap();
    let (right, authority) = (agent.authority.sign(&csr, UID), &agent.authority);
    refused(&unclaimed.install(&SecretString::from("wrong"), UID, &right, &authority.pem).await.unwrap_err(), "proof");
    refused(&unclaimed.install(&token(), UID, &authority.sign(&csr, "uid-2"), &authority.pem).await.unwrap_err(), "does not speak for");
    refused(&unclaimed.install(&token(), UID, &right, &crate::authority::Authority::new().pem).await.unwrap_err(), "does not speak for");
    let foreign = Agent::start().await;
    let foreign = authority.sign(&foreign.unclaimed().await.claim(&token(), UID).await.unwrap(), UID);
    refused(&unclaimed.install(&token(), UID, &foreign, &authority.pem).await.unwrap_err(), "not for this agent's key");
    assert!(!unclaimed.get_info().await.unwrap().claimed);
    assert_eq!(agent.log().matches("proof of the token is wrong").count(), 2, "once per method, not per attempt:\n{}", agent.log());
}

#[tokio::test]
async fn someone_in_between_cannot_pass_proofs_on() {
    let agent = Agent::start().await;
    let (address, there) = between(agent.address).await;
    let victim = AgentClient::connect_unclaimed(address).await.unwrap();
    // What proves nothing passes, so the way is open …
    assert_eq!(victim.get_info().await.unwrap().machine_uid, UID);
    // … but a proof made for one TLS session is wrong in the other.
    refused(&victim.claim(&token(), UID).await.unwrap_err(), "proof");
    there.abort();
}

/// Ends the TLS of whoever calls and carries everything on to the agent, over a TLS session of its own.
async fn between(agent: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["agent".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = (*slipway_agent::http::Trust::anybody().unwrap().config()).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let there = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut caller = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(server)).accept(stream).await.unwrap();
        let stream = tokio::net::TcpStream::connect(agent).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("agent").unwrap();
        let mut onward = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client)).connect(name, stream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut onward).await;
    });
    (address, there)
}

#[tokio::test]
async fn only_the_operator_is_heard_after_the_claim() {
    let agent = Agent::start().await;
    agent.claimed().await;
    let authority = &agent.authority;
    let impostor = match AgentClient::connect(agent.address, UID, &authority.impostor()).await {
        Ok(client) => client.get_info().await.unwrap_err(),
        Err(e) => e,
    };
    refused(&impostor, "certificate");
    let somebody = AgentClient::connect(agent.address, UID, &authority.client("somebody")).await.unwrap();
    refused(&somebody.apply_plan(None, 1, &plan("x")).await.unwrap_err(), "operator's certificate");
    let other = AgentClient::connect(agent.address, "uid-2", &authority.operator()).await.unwrap_err();
    assert!(matches!(other, AgentError::WrongIdentity { .. }) && other.class() == ErrorClass::Terminal, "{other:?}");
    let stranger = AgentClient::connect(agent.address, UID, &crate::authority::Authority::new().operator()).await.unwrap_err();
    assert!(matches!(stranger, AgentError::WrongIdentity { .. }), "{stranger:?}");
    until("the refusal is logged", || async { agent.log().contains("TLS handshake refused").then_some(()).ok_or("not yet") }).await;
}

#[tokio::test]
async fn plans_are_swapped_by_digest_fenced_by_epoch_and_survive_kill_9() {
    let mut agent = Agent::start().await;
    let client = agent.claimed().await;
    let (one, two) = (plan("one"), plan("two"));
    let first = client.apply_plan(None, 5, &one).await.unwrap();
    assert_eq!(first, one.digest());
    let mismatch = client.apply_plan(None, 5, &two).await.unwrap_err();
    assert!(matches!(&mismatch, AgentError::DigestMismatch { current, .. } if *current == first.0), "{mismatch:?}");
    assert_eq!(client.apply_plan(Some(&PlanDigest("whatever".into())), 5, &one).await.unwrap(), first, "repeated: accepted");
    let stale = client.apply_plan(Some(&first), 4, &two).await.unwrap_err();
    assert!(matches!(stale, AgentError::StaleEpoch { heard: 5, .. }) && stale.class() == ErrorClass::Terminal, "{stale:?}");
    state(&client, "applied", |state| state.applied_digest == first.0).await;
    assert_eq!(std::fs::read_to_string(agent.path("/etc/kubernetes/x")).unwrap(), "one");

    let second = client.apply_plan(Some(&first), 6, &two).await.unwrap();
    agent.kill();
    let silent = client.get_info().await.unwrap_err();
    assert!(silent.is_silence() && silent.class() == ErrorClass::Retry, "{silent:?}");
    // What was written by hand meanwhile is mended at the start.
    std::fs::write(agent.path("/etc/kubernetes/x"), "drift").unwrap();
    agent.run().await;
    let client = agent.operator().await;
    let info = client.get_info().await.unwrap();
    assert_eq!((info.applied_digest, info.epoch, info.sealed), (second.0.clone(), 6, true));
    state(&client, "applied again", |state| state.applied_digest == second.0).await;
    assert_eq!(std::fs::read_to_string(agent.path("/etc/kubernetes/x")).unwrap(), "two");
    // Files that are not in the plan any more go.
    client.apply_plan(Some(&second), 6, &MachinePlan::default()).await.unwrap();
    let empty = MachinePlan::default().digest().0;
    state(&client, "emptied", |state| state.applied_digest == empty).await;
    assert!(!agent.path("/etc/kubernetes/x").exists());
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_before_it_is_kept() {
    let agent = Agent::start().await;
    let client = agent.claimed().await;
    let mut bad = plan("x");
    bad.files[0].path = "/etc/passwd".into();
    refused(&client.apply_plan(None, 1, &bad).await.unwrap_err(), "/etc/passwd");
    let large = plan(&"x".repeat(slipway_agent_api::MAX_MESSAGE));
    refused(&client.apply_plan(None, 1, &large).await.unwrap_err(), "at most");
    refused(&client.logs("sshd.service", 1, false).await.err().unwrap(), "neither a unit");
    refused(&client.tunnel("127.0.0.1:22").await.unwrap_err(), "allowed are");
    assert_eq!(client.get_info().await.unwrap().applied_digest, "");
}

#[tokio::test]
async fn strangers_may_not_send_much_nobody_may_send_too_much_and_what_is_unknown_has_no_door() {
    let agent = Agent::start().await;
    let stranger = || (*slipway_agent::http::Trust::anybody().unwrap().config()).clone();
    let announce = |bytes: u32| [&[0][..], &bytes.to_be_bytes(), &vec![0; 100_000]].concat();
    let (code, message) = raw(agent.address, stranger(), "/slipway.agent.v1.Agent/Install", announce(100_000)).await;
    assert!(code != 0 && message.contains("length limit exceeded"), "{code} {message}");
    let (code, message) = raw(agent.address, stranger(), "/slipway.agent.v1.Agent/Exec", announce(0)).await;
    assert!(code == tonic::Code::PermissionDenied as i32 && message.contains("no method"), "{code} {message}");

    agent.claimed().await;
    let operator = || agent.authority.rustls();
    let (code, message) = raw(agent.address, operator(), "/slipway.agent.v1.Agent/ApplyPlan", announce(17 << 20)).await;
    assert!(code == tonic::Code::OutOfRange as i32 && message.contains("too large"), "{code} {message}");
    let (code, message) = raw(agent.address, operator(), "/slipway.agent.v1.Agent/ApplyPlan", announce(50_000)).await;
    assert!(code != 0, "malformed: {code} {message}");
    let (code, _) = raw(agent.address, operator(), "/slipway.agent.v1.Agent/Exec", announce(0)).await;
    assert_eq!(code, tonic::Code::PermissionDenied as i32);
}

#[tokio::test]
async fn the_certificate_is_renewed_over_mtls_as_often_as_asked_and_shown_from_the_next_connection_on() {
    let mut agent = Agent::start().await;
    let client = agent.claimed().await;
    let (first, mut expired) = (shown(&agent, &agent.authority).await, expires(&client).await);
    let (one, two) = (client.renewal_request(1).await.unwrap(), client.renewal_request(1).await.unwrap());
    for (request, year) in [(&one, 4001), (&two, 4002), (&one, 4003)] {
        let renewed = agent.authority.sign_until(request, UID, year);
        // As after a lost reply.
        for _ in 0..2 {
            client.install_renewed(1, &renewed, &agent.authority.pem).await.unwrap();
        }
        let now = shown(&agent, &agent.authority).await;
        assert!(now != first && now == CertificateDer::from_pem_slice(renewed.as_bytes()).unwrap(), "the next connection shows it");
        let expires = expires(&client).await;
        assert!(expires > expired, "and the connection that brought it goes on and tells it");
        expired = expires;
    }
    let last = shown(&agent, &agent.authority).await;
    let stale = client.apply_plan(None, 5, &plan("x")).await.map(|_| client.install_renewed(4, "x", "x")).unwrap().await.unwrap_err();
    assert!(matches!(stale, AgentError::StaleEpoch { heard: 5, .. }), "{stale:?}");
    client.renewal_request(6).await.unwrap();
    let overtaken = client.apply_plan(None, 5, &plan("y")).await.unwrap_err();
    assert!(matches!(overtaken, AgentError::StaleEpoch { heard: 6, .. }), "asking is enough to be heard: {overtaken:?}");
    let stranger = crate::authority::Authority::new();
    refused(&client.install_renewed(6, &stranger.sign(&one, "uid-2"), &stranger.pem).await.unwrap_err(), "does not speak for");
    refused(&client.install_renewed(6, &agent.authority.sign(&one, UID), &stranger.pem).await.unwrap_err(), "does not speak for");
    agent.kill();
    agent.run().await;
    assert_eq!(shown(&agent, &agent.authority).await, last, "it is kept, and what was refused is not");
}

#[tokio::test]
async fn a_renewal_may_change_the_authority_and_be_cut_short() {
    let mut agent = Agent::start().await;
    let client = agent.claimed().await;
    let (request, next) = (client.renewal_request(1).await.unwrap(), crate::authority::Authority::new());
    // Killed after the first write: what is there by then is heard by the operators of both.
    agent.kill();
    std::fs::write(agent.path("/var/lib/slipway/agent/ca.crt"), format!("{}\n{}", next.pem, agent.authority.pem)).unwrap();
    agent.run().await;
    let client = agent.operator().await;
    let renewed = next.sign(&request, UID);
    client.install_renewed(1, &renewed, &next.pem).await.unwrap();
    AgentClient::connect(agent.address, UID, &next.operator()).await.unwrap().get_info().await.unwrap();
    let old = AgentClient::connect(agent.address, UID, &agent.authority.operator()).await.unwrap_err();
    assert!(matches!(old, AgentError::WrongIdentity { .. }), "{old:?}");
    assert_eq!(
        std::fs::read_to_string(agent.path("/var/lib/slipway/agent/ca.crt")).unwrap(),
        next.pem,
        "the old authority is heard no more"
    );
}

/// The certificate that a new connection is shown.
async fn shown(agent: &Agent, authority: &crate::authority::Authority) -> CertificateDer<'static> {
    let mut config = authority.rustls();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(agent.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(slipway_agent_api::server_name(UID)).unwrap();
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn expires(client: &AgentClient) -> i64 {
    state(client, "the state", |state| state.certificate_expires_ms > 0).await.certificate_expires_ms
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let agent = Agent::start().await;
    let client = agent.claimed().await;
    // The machine's own etcd port, if nobody has it here.
    let Ok(server) = tokio::net::TcpListener::bind("127.0.0.1:2379").await else { return };
    let echo = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut tunnel = client.tunnel("127.0.0.1:2379").await.unwrap();
    let sent = vec![7; 300_000];
    let (mut read, mut write) = tokio::io::split(&mut tunnel);
    let mut received = vec![0; sent.len()];
    let (written, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
    written.unwrap();
    got.unwrap();
    assert_eq!(received, sent);
    tunnel.shutdown().await.unwrap();
    assert_eq!(tunnel.read(&mut [0; 1]).await.unwrap(), 0, "closed at one end, it ends at the other");
    echo.await.unwrap();
}

#[tokio::test]
async fn a_reset_leaves_nothing_and_is_the_end() {
    let mut agent = Agent::start().await;
    let client = agent.claimed().await;
    let mut one = plan("one");
    one.directories = vec![slipway_model::Directory { path: "/var/lib/etcd".into(), mode: 0o700, owner: "root".into() }];
    let digest = client.apply_plan(None, 5, &one).await.unwrap().0;
    state(&client, "applied", |state| state.applied_digest == digest).await;
    std::fs::write(agent.path("/var/lib/etcd/data"), "x").unwrap();
    refused(&client.reset(5, "two").await.unwrap_err(), "called");
    assert!(matches!(client.reset(4, "one").await.unwrap_err(), AgentError::StaleEpoch { .. }));
    // Nobody disables the agent's unit here, as there is no systemd to ask; the rest does not wait for it.
    until("the reset is done", || client.reset(5, "one")).await;
    for path in
        ["/etc/kubernetes/x", "/var/lib/etcd", "/etc/slipway", "/var/lib/slipway/agent/agent.key", "/var/lib/slipway/agent/plan.json"]
    {
        assert!(!agent.path(path).exists(), "{path} is left");
    }
    let late = client.apply_plan(None, 9, &plan("x")).await.unwrap_err();
    assert!(matches!(late, AgentError::Reset { .. }), "{late:?}");
    // 0.0.0.0:7443 is where an agent without an identity says so; here only that it takes nothing more matters.
    agent.kill();
}
