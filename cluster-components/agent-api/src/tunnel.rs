//! A tunnel through an agent, as a byte stream: TLS to the target goes through it end to end, so the agent in between is not trusted.

use crate::v1;
use futures::StreamExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Bytes to and from a target behind an agent. Dropping it closes the tunnel.
#[derive(Debug)]
pub struct TunnelStream {
    inner: DuplexStream,
}

const CHUNK: usize = 32 * 1024;

/// The caller's end of a tunnel's messages: the first one names the target.
pub(crate) fn outgoing(machine_uid: &str, target: &str) -> (mpsc::Sender<v1::TunnelBytes>, ReceiverStream<v1::TunnelBytes>) {
    let (sender, receiver) = mpsc::channel(4);
    let first = v1::TunnelBytes { target: target.to_owned(), machine_uid: machine_uid.to_owned(), data: vec![] };
    // The channel is new and has room.
    let _ = sender.try_send(first);
    (sender, ReceiverStream::new(receiver))
}

impl TunnelStream {
    pub(crate) fn new(sender: mpsc::Sender<v1::TunnelBytes>, mut incoming: Streaming<v1::TunnelBytes>) -> Self {
        let (inner, outer) = tokio::io::duplex(2 * CHUNK);
        let (mut from_caller, mut to_caller) = tokio::io::split(outer);
        tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(read @ 1..) = from_caller.read(&mut buffer).await {
                let data = buffer.get(..read).unwrap_or_default().to_vec();
                if sender.send(v1::TunnelBytes { data, ..v1::TunnelBytes::default() }).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if to_caller.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = to_caller.shutdown().await;
        });
        Self { inner }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
