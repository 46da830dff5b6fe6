//! Proofs of the one-time token, in both directions.
//!
//! Nothing but the token is known to both ends at first contact, and the agent's certificate is self-signed. Each end therefore proves the
//! token over bytes that only the two ends of this very TLS session know (RFC 8446 §7.5, RFC 9266 in spirit): someone in between has two
//! sessions with different exporters, and a proof taken from one is wrong in the other.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};

/// Label of the exporter.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-slipway-claim";

/// Key material of one TLS session, known to its two ends only.
#[derive(Clone)]
pub struct Exporter([u8; 32]);

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(…)")
    }
}

impl Exporter {
    /// From a session whose handshake is done. The function is `export_keying_material` of either end's connection.
    pub fn take(
        export: impl FnOnce([u8; 32], &'static [u8], Option<&'static [u8]>) -> Result<[u8; 32], rustls::Error>,
    ) -> Result<Self, rustls::Error> {
        export([0; 32], EXPORTER_LABEL, None).map(Self)
    }
}

/// A proof: HMAC-SHA256 under the token.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// The operator asks for the certificate request.
    Operator,
    /// The agent vouches for its certificate request.
    Agent {
        /// What it hands over.
        csr_pem: &'a [u8],
    },
    /// The operator vouches for the certificate and the authority it installs.
    Install {
        /// The signed certificate.
        certificate_pem: &'a [u8],
        /// The agent CA.
        ca_pem: &'a [u8],
    },
}

fn parts<'a>(statement: Statement<'a>, exporter: &'a Exporter, machine_uid: &'a str) -> Vec<&'a [u8]> {
    let label: &[u8] = match statement {
        Statement::Operator => b"slipway operator",
        Statement::Agent { .. } => b"slipway agent",
        Statement::Install { .. } => b"slipway install",
    };
    let mut parts = vec![label, &exporter.0, machine_uid.as_bytes()];
    match statement {
        Statement::Operator => {}
        Statement::Agent { csr_pem } => parts.push(csr_pem),
        Statement::Install { certificate_pem, ca_pem } => parts.extend([certificate_pem, ca_pem]),
    }
    parts
}

fn message(statement: Statement<'_>, exporter: &Exporter, machine_uid: &str) -> Vec<u8> {
    let mut message = Vec::new();
    for part in parts(statement, exporter, machine_uid) {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn key(token: &SecretString) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.expose_secret().as_bytes())
}

/// Proves the token.
#[must_use]
pub fn prove(token: &SecretString, statement: Statement<'_>, exporter: &Exporter, machine_uid: &str) -> Vec<u8> {
    hmac::sign(&key(token), &message(statement, exporter, machine_uid)).as_ref().to_vec()
}

/// Whether a proof is right, in a time that does not depend on how wrong it is. An empty token proves nothing: it is a burnt one.
#[must_use]
pub fn verify(token: &SecretString, statement: Statement<'_>, exporter: &Exporter, machine_uid: &str, proof: &[u8]) -> bool {
    !token.expose_secret().is_empty() && hmac::verify(&key(token), &message(statement, exporter, machine_uid), proof).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: Exporter = Exporter([1; 32]);
    const OTHER: Exporter = Exporter([2; 32]);

    #[test]
    fn a_proof_holds_only_for_its_token_session_machine_and_statement() {
        let (token, wrong) = (SecretString::from("70ken"), SecretString::from("t0ken"));
        let proof = prove(&token, Statement::Operator, &ONE, "uid");
        assert!(verify(&token, Statement::Operator, &ONE, "uid", &proof));
        assert!(!verify(&wrong, Statement::Operator, &ONE, "uid", &proof), "token");
        assert!(!verify(&token, Statement::Operator, &OTHER, "uid", &proof), "session");
        assert!(!verify(&token, Statement::Operator, &ONE, "uie", &proof), "machine");
        assert!(!verify(&token, Statement::Agent { csr_pem: b"" }, &ONE, "uid", &proof), "statement");
        assert!(!verify(&token, Statement::Operator, &ONE, "uid", proof.get(..31).unwrap()), "truncated");
    }

    #[test]
    fn bytes_cannot_move_from_one_part_to_the_next() {
        let token = SecretString::from("70ken");
        let proof = prove(&token, Statement::Install { certificate_pem: b"ab", ca_pem: b"c" }, &ONE, "uid");
        assert!(!verify(&token, Statement::Install { certificate_pem: b"a", ca_pem: b"bc" }, &ONE, "uid", &proof));
    }

    #[test]
    fn a_burnt_token_proves_nothing() {
        let burnt = SecretString::from("");
        let proof = prove(&burnt, Statement::Operator, &ONE, "uid");
        assert!(!verify(&burnt, Statement::Operator, &ONE, "uid", &proof));
    }
}
