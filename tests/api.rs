//! A client that hides nothing: one request, one fresh TLS connection, one deadline, no retry. What it cannot know (whether a request that was sent
//! and never answered had its effect) it says.

use anyhow::{Context, Result};
use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a request went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It was never sent: it certainly had no effect.
    NotSent(String),
    /// It may have had its effect: the answer is missing.
    Unanswered(String),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; null where it is no JSON.
    pub body: Value,
}

/// A cluster's API as a client with a kubeconfig sees it.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    host: String,
    config: Arc<ClientConfig>,
}

impl Api {
    /// The server, authority and client certificate of a kubeconfig with one of each.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let field = |name: &str| {
            let of = |line: &str| line.trim().strip_prefix(&format!("{name}:")).map(|v| v.trim().trim_matches(['"', '\'']).to_owned());
            text.lines().find_map(|l| of(l.trim_start_matches("- "))).with_context(|| format!("{} has no {name}", path.display()))
        };
        let bytes = |name: &str| Ok::<_, anyhow::Error>(base64::engine::general_purpose::STANDARD.decode(field(name)?)?);
        Self::new(&field("server")?, &bytes("certificate-authority-data")?, &bytes("client-certificate-data")?, &bytes("client-key-data")?)
    }

    /// The local cloud's own API, as the one who started it.
    pub fn local_cloud(directory: &Path) -> Result<Self> {
        let read =
            |name: &str| std::fs::read(directory.join(name)).with_context(|| format!("cannot read {name} in {}", directory.display()));
        let server = String::from_utf8(read("endpoint")?)?;
        Self::new(server.trim(), &read("pki/ca.crt")?, &read("pki/admin.crt")?, &read("pki/admin.key")?)
    }

    fn new(server: &str, ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate?)?;
        }
        let certificate = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificate, key)?;
        let at = server.strip_prefix("https://").with_context(|| format!("{server} is no https address"))?;
        let address = at.to_socket_addrs()?.next().with_context(|| format!("{at} has no address"))?;
        let host = at.rsplit_once(':').map_or(at, |(host, _)| host).to_owned();
        Ok(Self { address, host, config: Arc::new(config) })
    }

    /// The same API at one server's own address, past the load balancer.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, host: address.ip().to_string(), config: self.config.clone() }
    }

    /// One request, within `limit` from connect to the last byte.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>, limit: Duration) -> Result<Answer, Failure> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let unsent = |e: &dyn std::fmt::Display| Failure::NotSent(e.to_string());
        let unanswered = |e: &dyn std::fmt::Display| Failure::Unanswered(e.to_string());
        let name = ServerName::try_from(self.host.clone()).map_err(|e| unsent(&e))?;
        let socket = TcpStream::connect_timeout(&self.address, left()).map_err(|e| unsent(&e))?;
        socket.set_nodelay(true).map_err(|e| unsent(&e))?;
        let connection = ClientConnection::new(self.config.clone(), name).map_err(|e| unsent(&e))?;
        let mut stream = StreamOwned::new(connection, socket);
        let pace = |stream: &StreamOwned<ClientConnection, TcpStream>| {
            if Instant::now() >= deadline {
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}")));
            }
            stream.sock.set_read_timeout(Some(left()))?;
            stream.sock.set_write_timeout(Some(left()))
        };
        while stream.conn.is_handshaking() {
            pace(&stream).and_then(|()| stream.conn.complete_io(&mut stream.sock).map(|_| ())).map_err(|e| unsent(&e))?;
        }
        let payload = body.map(Value::to_string).unwrap_or_default();
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: {content}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{payload}",
            self.host,
            payload.len()
        );
        pace(&stream).and_then(|()| stream.write_all(text.as_bytes())).and_then(|()| stream.flush()).map_err(|e| unanswered(&e))?;
        let mut received = vec![];
        let mut chunk = [0_u8; 16384];
        loop {
            pace(&stream).map_err(|e| unanswered(&e))?;
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => received.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                // A server that closes without a goodbye, after a complete answer.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(unanswered(&error)),
            }
        }
        parse(&received).ok_or_else(|| Failure::Unanswered(format!("{} bytes of an answer, then the end", received.len())))
    }
}

/// A complete HTTP/1.1 answer.
fn parse(received: &[u8]) -> Option<Answer> {
    let end = received.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(received.get(..end)?).ok()?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let of = |line: &str| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned());
        head.lines().find_map(of)
    };
    let rest = received.get(end + 4..)?;
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        dechunk(rest)?
    } else {
        let length: usize = header("content-length").map_or(Some(rest.len()), |v| v.parse().ok())?;
        rest.get(..length)?.to_vec()
    };
    Some(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = vec![];
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?.trim(), 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_complete_answer_is_one() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        let answer = parse(whole).unwrap();
        assert_eq!((answer.status, answer.body["a"].as_i64()), (200, Some(1)));
        assert!(parse(&whole[..whole.len() - 1]).is_none());
        let chunked = b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body["a"], 1);
        assert!(parse(&chunked[..chunked.len() - 8]).is_none());
    }
}
