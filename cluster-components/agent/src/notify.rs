//! What systemd wants to hear from a `Type=notify` service with a watchdog: a datagram to the socket it names in the environment.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Says `state` (`READY=1`, `WATCHDOG=1`, `STATUS=…`) to systemd, if it is there. That it cannot be heard is no reason to stop working.
pub fn notify(state: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}

/// Tells systemd for ever that this runtime still turns: at half the interval it asks for. None when it does not ask.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros / 2)).filter(|interval| !interval.is_zero())
}
