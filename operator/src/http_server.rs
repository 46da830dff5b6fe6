//! The operator's own small HTTP server: `/metrics`, `/healthz`, `/readyz`, and forecasts under `/plan`.
//!
//! Plain HTTP, without asking who asks: it belongs on the loopback address of a machine, or on the network of pods of a management cluster. It changes
//! nothing and tells no secrets.

use crate::forecast::{Desk, router};
use crate::looks::Looks;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Serves until `stop`.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    looks: Arc<Looks>,
    desk: Arc<Desk>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let app = Router::new()
        .route("/metrics", get(move |State(m): State<Arc<Metrics>>| async move { m.text(&looks) }))
        .route("/healthz", get(|| async { "ok\n" }))
        // A follower is ready too: it stands by.
        .route("/readyz", get(|State(m): State<Arc<Metrics>>| async move { if m.is_leading() { "leader\n" } else { "follower\n" } }))
        .with_state(metrics)
        .merge(router(desk));
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}
