//! Opaque bytes to a few addresses that the operator cannot reach itself: this machine's apiserver and etcd, and the agents and etcd members beside it
//! (so that a member whose own agent is silent can still be asked). TLS goes end to end, so that this opens no more than a network that is not filtered.
//! And to an operator on a management machine, which listens there alone and says what it would do to whoever may ask its agent.

use futures::StreamExt;
use futures::stream::BoxStream;
use slipway_agent_api::AGENT_PORT;
use slipway_agent_api::refusal::Refusal;
use slipway_agent_api::v1::TunnelBytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use tonic::{Status, Streaming};

const DIAL: Duration = Duration::from_secs(3);
const CHUNK: usize = 32 * 1024;
/// etcd, apiserver, operator.
const OWN_PORTS: [u16; 3] = [2379, 6443, 8080];
/// On machines of the same network: agents, and etcd towards its clients.
const PEER_PORTS: [u16; 2] = [AGENT_PORT, 2379];

/// The address, if a tunnel may go there. `local`: the machine's address that the caller dialled, whose network is the machine's.
pub fn allowed(target: &str, local: SocketAddr) -> Result<SocketAddr, Refusal> {
    let refuse = |why: &str| Refusal::Invalid(format!("no tunnel to {target:?}: {why}"));
    let address: SocketAddr = target.parse().map_err(|_| refuse("a target is address:port"))?;
    let network = |ip: Ipv4Addr| ip.to_bits() >> 8;
    match (address.ip(), local.ip()) {
        (IpAddr::V4(Ipv4Addr::LOCALHOST), _) if OWN_PORTS.contains(&address.port()) => Ok(address),
        (IpAddr::V4(to), IpAddr::V4(own)) if PEER_PORTS.contains(&address.port()) && !to.is_loopback() && network(to) == network(own) => {
            Ok(address)
        }
        _ => Err(refuse(&format!(
            "allowed are 127.0.0.1:{}, 127.0.0.1:{}, 127.0.0.1:{}, and agents (port {}) and etcd members (port {}) of this machine's network",
            OWN_PORTS[0], OWN_PORTS[1], OWN_PORTS[2], PEER_PORTS[0], PEER_PORTS[1]
        ))),
    }
}

/// Connects and carries bytes both ways until either end closes.
pub async fn open(
    target: SocketAddr,
    mut incoming: Streaming<TunnelBytes>,
) -> Result<BoxStream<'static, Result<TunnelBytes, Status>>, Status> {
    let stream = timeout(DIAL, TcpStream::connect(target))
        .await
        .map_err(|_| Status::aborted(format!("{target}: no connection within {} s", DIAL.as_secs())))?
        .map_err(|e| Status::aborted(format!("{target}: {e}")))?;
    stream.set_nodelay(true).map_err(|e| Status::aborted(format!("{target}: {e}")))?;
    let (from_target, mut to_target) = stream.into_split();
    let writer = tokio::spawn(async move {
        while let Some(Ok(message)) = incoming.next().await {
            if to_target.write_all(&message.data).await.is_err() {
                return;
            }
        }
        let _ = to_target.shutdown().await;
    });
    let back = Back { from_target, buffer: vec![0; CHUNK], _writer: Abort(writer) };
    let stream = futures::stream::unfold(back, |mut back| async move {
        let read = back.from_target.read(&mut back.buffer).await.ok().filter(|read| *read > 0)?;
        let data = back.buffer.get(..read)?.to_vec();
        Some((Ok(TunnelBytes { data, ..TunnelBytes::default() }), back))
    });
    Ok(stream.boxed())
}

struct Back {
    from_target: OwnedReadHalf,
    buffer: Vec<u8>,
    /// The caller that drops the answer closes the tunnel.
    _writer: Abort,
}

struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tunnels_lead_to_few_places() {
        let local: SocketAddr = "198.18.3.10:7443".parse().unwrap();
        for good in ["127.0.0.1:2379", "127.0.0.1:6443", "127.0.0.1:8080", "198.18.3.20:7443", "198.18.3.20:2379"] {
            allowed(good, local).unwrap();
        }
        for bad in [
            "127.0.0.1:22",
            "127.0.0.1:7443",
            "198.18.4.20:7443",
            "198.18.4.20:2379",
            "198.18.3.20:2380",
            "198.18.3.20:10250",
            "[::1]:6443",
            "localhost:6443",
            "127.0.0.2:6443",
            "",
        ] {
            assert!(allowed(bad, local).is_err(), "{bad}");
        }
    }
}
