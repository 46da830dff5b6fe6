//! A stream that remembers TLS' own words about its end.
//!
//! In TLS 1.3 a client's handshake is over before the server has looked at the client's certificate: a refusal arrives as an alert in place of
//! the first answer, deep below the gRPC library, which makes "connection reset" of it.

use crate::error::tls_error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last words, shared with whoever explains errors.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<rustls::Error>>>);

impl LastWords {
    pub(crate) fn get(&self) -> Option<rustls::Error> {
        self.0.lock().ok()?.clone()
    }
}

pub(crate) struct Noting<S> {
    inner: S,
    words: LastWords,
}

impl<S> Noting<S> {
    pub(crate) fn new(inner: S) -> (Self, LastWords) {
        let words = LastWords::default();
        (Self { inner, words: words.clone() }, words)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(e)) = &done
            && let (Some(error), Ok(mut words)) = (tls_error(e), self.words.0.lock())
        {
            *words = Some(error.clone());
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
