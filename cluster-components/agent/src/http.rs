//! A minimal HTTP/1.1 client. An artifact source needs one GET on one connection; whoever asks the same again and again, as probes and `wait-for` do,
//! is an [`Asker`] and keeps its connection: of the processor that a starting machine lacks, a TLS handshake is what such a question costs.

use crate::credentials::provider;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use slipway_agent_api::AnyCertificate;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Most of an answer that is read only to get past it, or of a small document, in bytes.
const SMALL: usize = 64 * 1024;

/// Where a GET goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

/// Why a GET gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL of this client's.
    #[error("{0:?} is no http:// or https:// URL")]
    Url(String),
    /// Nobody listens, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// HTTP went wrong.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// TLS settings.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A PEM file that holds nothing of what it should.
    #[error("{0}")]
    Pem(String),
    /// An answer that is larger than a small document, or broke off.
    #[error("its answer was not whole: {0}")]
    Body(String),
    /// Too slow.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Something else than asked for.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Led in circles.
    #[error("redirected too often")]
    Redirects,
}

/// Whom an https target must prove to be.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Nobody in particular: for addresses of this machine's own, and where only an answer matters.
    Anybody(Arc<ClientConfig>),
    /// Whoever an authority vouches for.
    Authorities(Arc<ClientConfig>),
}

impl Target {
    /// From a URL.
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host, port, path })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    fn follow(&self, location: &str) -> Result<Self, HttpError> {
        if location.starts_with('/') {
            return Ok(Self { path: location.to_owned(), ..self.clone() });
        }
        let next = Self::parse(location)?;
        // Once safe, always safe.
        if self.secure && !next.secure { Err(HttpError::Url(location.to_owned())) } else { Ok(next) }
    }
}

impl Trust {
    /// Takes any certificate.
    pub fn anybody() -> Result<Self, HttpError> {
        let provider = provider();
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(Self::Anybody(finish(config)))
    }

    /// Takes certificates of the authorities in a PEM file.
    pub fn file(path: &Path) -> Result<Self, HttpError> {
        Ok(Self::Authorities(finish(authorities(path)?.with_no_client_auth())))
    }

    /// The same, and shows who asks: a certificate and its key, both PEM files.
    pub fn client(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, HttpError> {
        let wrong = |path: &Path, e: rustls::pki_types::pem::Error| HttpError::Pem(format!("{}: {e}", path.display()));
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(|e| wrong(certificate, e))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e))?;
        Ok(Self::Authorities(finish(authorities(ca)?.with_client_auth_cert(chain, key)?)))
    }

    /// What the distribution trusts.
    pub fn system() -> Result<Self, HttpError> {
        Self::file(Path::new("/etc/ssl/certs/ca-certificates.crt"))
    }

    /// As rustls wants it.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Anybody(config) | Self::Authorities(config) => config.clone(),
        }
    }
}

/// Trusts the certificates of a PEM file, of which there must be one.
fn authorities(path: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, HttpError> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|e| HttpError::Pem(format!("{shown}: {e}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        // A bundle of the distribution may hold one that rustls cannot read; the others still count.
        let _ = roots.add(certificate.map_err(|e| HttpError::Pem(format!("{shown}: {e}")))?);
    }
    if roots.is_empty() {
        return Err(HttpError::Pem(format!("{shown}: no certificate in it")));
    }
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?.with_root_certificates(roots))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Asks one target, more than once, over one connection while it holds.
pub struct Asker {
    target: Target,
    trust: Trust,
    sender: Option<Sender>,
}

impl Asker {
    /// Nothing is connected before the first question.
    #[must_use]
    pub fn new(target: Target, trust: Trust) -> Self {
        Self { target, trust, sender: None }
    }

    /// GET; an answer of 200 within `within`, redirects not followed. The body is dropped.
    pub async fn healthy(&mut self, within: Duration) -> Result<(), HttpError> {
        match self.status(within).await? {
            StatusCode::OK => Ok(()),
            other => Err(HttpError::Status(other)),
        }
    }

    /// GET, and an answer within `within`, whatever it says.
    pub async fn status(&mut self, within: Duration) -> Result<StatusCode, HttpError> {
        // Taken out: a question that is given up leaves a connection on which its answer may still come.
        let kept = self.sender.take();
        let (status, sender) = timeout(within, asked(kept, &self.target, &self.trust)).await.map_err(|_| HttpError::Timeout(within))??;
        self.sender = sender;
        Ok(status)
    }

    /// Closes the connection, if there is one: at rest it would only cost memory.
    pub fn rest(&mut self) {
        self.sender = None;
    }
}

/// One question over the kept connection, or over a new one. The connection comes back if it can be used again.
async fn asked(kept: Option<Sender>, target: &Target, trust: &Trust) -> Result<(StatusCode, Option<Sender>), HttpError> {
    if let Some(mut sender) = kept
        && sender.ready().await.is_ok()
        && let Ok(answer) = sender.send_request(request(target, "keep-alive")?).await
    {
        return Ok(drained(answer, sender).await);
    }
    // None, or the other side closed it meanwhile: that says nothing about how it is now.
    let mut sender = connect(target, trust).await?;
    let answer = sender.send_request(request(target, "keep-alive")?).await?;
    Ok(drained(answer, sender).await)
}

/// Reads what came with an answer, so that the next can follow on the same connection.
async fn drained(answer: http::Response<Incoming>, sender: Sender) -> (StatusCode, Option<Sender>) {
    let status = answer.status();
    let mut body = Limited::new(answer.into_body(), SMALL);
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return (status, None);
        }
    }
    (status, Some(sender))
}

/// GET; the body of an answer of 200, with redirects followed. `within` is for each answer to begin.
pub async fn fetch(target: &Target, trust: &Trust, within: Duration) -> Result<Incoming, HttpError> {
    let mut target = target.clone();
    for _ in 0..5 {
        let answer = timeout(within, get(&target, trust)).await.map_err(|_| HttpError::Timeout(within))??;
        let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        match (answer.status(), location) {
            (StatusCode::OK, _) => return Ok(answer.into_body()),
            (status, Some(location)) if status.is_redirection() => target = target.follow(location)?,
            (status, _) => return Err(HttpError::Status(status)),
        }
    }
    Err(HttpError::Redirects)
}

type Sender = SendRequest<BoxBody<Bytes, hyper::Error>>;

/// One request for a small JSON document, or with one: the answer's status and body. Redirects are not followed.
pub async fn exchange(method: Method, target: &Target, trust: &Trust, body: Vec<u8>) -> Result<(StatusCode, Bytes), HttpError> {
    let mut request = request(target, "close")?;
    *request.method_mut() = method;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = of(body);
    let answer = connect(target, trust).await?.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), SMALL).collect().await.map_err(|e| HttpError::Body(e.to_string()))?;
    Ok((status, body.to_bytes()))
}

async fn get(target: &Target, trust: &Trust) -> Result<http::Response<Incoming>, HttpError> {
    Ok(connect(target, trust).await?.send_request(request(target, "close")?).await?)
}

async fn connect(target: &Target, trust: &Trust) -> Result<Sender, HttpError> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
    if target.secure {
        let name = ServerName::try_from(target.host.clone()).map_err(|_| HttpError::Url(target.host.clone()))?;
        handshake(TlsConnector::from(trust.config()).connect(name, tcp).await?).await
    } else {
        handshake(tcp).await
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, HttpError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the answer, and the sender, are dropped.
    tokio::spawn(connection);
    Ok(sender)
}

fn request(target: &Target, connection: &'static str) -> Result<Request<BoxBody<Bytes, hyper::Error>>, HttpError> {
    Request::get(target.path.as_str())
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, concat!("slipway-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, connection)
        .body(of(vec![]))
        .map_err(|_| HttpError::Url(target.path.clone()))
}

fn of(body: Vec<u8>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://127.0.0.1:6443/readyz?verbose").unwrap();
        assert_eq!((target.secure, target.authority().as_str(), target.path.as_str()), (true, "127.0.0.1:6443", "/readyz?verbose"));
        assert_eq!(Target::parse("http://[::1]/x").unwrap().authority(), "[::1]:80");
        for wrong in ["file:///x", "x", "http://", "https:///x"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Answers each request with the next status, and closes the connection after an answer where it says so.
    async fn server(answers: Vec<(u16, bool)>) -> (Target, Arc<std::sync::atomic::AtomicUsize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}/x", listener.local_addr().unwrap())).unwrap();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let Some((status, close)) = answers.next() else { return };
                    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nwords");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if close {
                        break;
                    }
                }
            }
        });
        (target, connections)
    }

    #[tokio::test]
    async fn who_asks_again_keeps_the_connection_and_one_that_was_closed_is_made_anew() {
        let (target, connections) = server(vec![(500, false), (500, false), (200, true), (200, false), (200, false)]).await;
        let mut asker = Asker::new(target, Trust::anybody().unwrap());
        let within = Duration::from_secs(5);
        assert!(matches!(asker.healthy(within).await, Err(HttpError::Status(status)) if status == 500));
        assert_eq!(asker.status(within).await.unwrap(), 500);
        asker.healthy(within).await.unwrap();
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
        asker.healthy(within).await.unwrap();
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 2);
        asker.rest();
        asker.healthy(within).await.unwrap();
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 3);
        assert!(asker.healthy(within).await.is_err(), "nobody answers any more");
    }

    #[test]
    fn a_redirect_never_leads_from_https_to_http() {
        let target = Target::parse("https://a/x").unwrap();
        assert_eq!(target.follow("/y").unwrap().path, "/y");
        assert!(target.follow("http://a/x").is_err());
    }
}
