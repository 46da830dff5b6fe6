//! The port: accepts connections, shakes hands, and gives them to the gRPC server with what TLS has proved about the other end.

use crate::credentials::Credentials;
use crate::service::Complaints;
use rustls::ServerConnection;
use slipway_agent_api::OPERATOR_COMMON_NAME;
use slipway_agent_api::claim::Exporter;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections at once. An operator holds one or two; tunnels end in others' agents.
const CONNECTIONS: usize = 64;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// What is known of the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The machine's address that it dialled.
    pub local: SocketAddr,
    /// Whether it has shown the operator's certificate.
    pub operator: bool,
    /// Key material of this session: what proofs of the token are bound to.
    pub exporter: Exporter,
}

/// A connection after its handshake.
pub struct Connection {
    stream: Box<TlsStream<TcpStream>>,
    peer: Peer,
    _turn: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

/// Accepts for ever. A slow handshake holds up nobody.
#[must_use]
pub fn accept(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    complaints: Arc<Complaints>,
) -> ReceiverStream<Result<Connection, io::Error>> {
    let (ready, connections) = mpsc::channel(8);
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        while let Ok(turn) = turns.clone().acquire_owned().await {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, mostly: the next attempt fails as well unless somebody closes one.
                    complaints.say(&e.to_string(), "accept", "no connection accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (credentials, complaints, ready) = (credentials.clone(), complaints.clone(), ready.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_WITHIN, shake(stream, address, &credentials, turn)).await {
                    Ok(Ok(connection)) => {
                        let _ = ready.send(Ok(connection)).await;
                    }
                    Ok(Err(e)) => complaints.say(&e.to_string(), &address.ip().to_string(), "TLS handshake refused"),
                    Err(_) => complaints.say("too slow", &address.ip().to_string(), "TLS handshake given up"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn shake(stream: TcpStream, address: SocketAddr, credentials: &Credentials, turn: OwnedSemaphorePermit) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let stream = match TlsAcceptor::from(credentials.tls()).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            part(stream).await;
            return Err(error);
        }
    };
    let session = stream.get_ref().1;
    let exporter = Exporter::take(|out, label, context| session.export_keying_material(out, label, context)).map_err(io::Error::other)?;
    let peer = Peer { address, local, operator: is_operator(session), exporter };
    Ok(Connection { stream: Box::new(stream), peer, _turn: turn })
}

/// Closing a socket with unread bytes resets the connection, and the alert that says why would be lost with it.
async fn part(mut stream: TcpStream) {
    let mut unread = [0; 4096];
    let _ = stream.shutdown().await;
    let _ = timeout(Duration::from_secs(1), async { while let Ok(1..) = stream.read(&mut unread).await {} }).await;
}

/// The agent CA also signs other agents' certificates, so being signed by it is not enough. (Their usage is refused before by webpki.)
fn is_operator(session: &ServerConnection) -> bool {
    let Some(leaf) = session.peer_certificates().and_then(|chain| chain.first()) else { return false };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    let mut names = parsed.subject().iter_common_name();
    names.next().is_some_and(|name| name.as_str() == Ok(OPERATOR_COMMON_NAME)) && names.next().is_none()
}
