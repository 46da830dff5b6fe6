//! systemd over D-Bus: start, stop, reload, and word of every unit that changes. systemd supervises; nothing here does.
//!
//! One connection, made anew when the bus goes away. Calls ask systemd to queue a job and return: none waits for a unit to be up, because a
//! unit may hold its own start for minutes.

use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use zbus::message::Type as MessageType;
use zbus::{Connection, DynamicType, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Type, Variant};

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// A reload on a busy machine takes a second; a systemd that needs longer is in trouble.
const DEADLINE: Duration = Duration::from_secs(20);
/// The bus starts beside the agent at boot, and comes back at once when it was restarted.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const RECONNECT: Duration = Duration::from_millis(100);
/// Microseconds until a transient service that failed is started again.
const AGAIN_AFTER: u64 = 300_000;

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No bus.
    #[error("systemd cannot be reached over D-Bus")]
    Disconnected,
    /// Too slow.
    #[error("systemd did not answer {0} within 20 s")]
    Timeout(&'static str),
    /// It says no.
    #[error("systemd refuses {method}: {why}")]
    Refused {
        /// Asked for.
        method: &'static str,
        /// Its words.
        why: String,
        /// Whether it does not know the unit.
        unknown: bool,
    },
}

/// A row of ListUnitsByNames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRow {
    /// Name.
    pub name: String,
    /// `loaded`, `not-found`, `bad-setting`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …; never `active` while a restart or stop is queued.
    pub active: String,
    /// `running`, `exited`, `dead`, …
    pub sub: String,
    /// Its object.
    pub path: String,
    /// Whether a job for it is queued.
    pub queued: bool,
    /// Whether what runs is what ran before a restart or stop that was asked for.
    pub ending: bool,
}

type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// What changed since it was last asked.
#[derive(Default)]
struct Dirty {
    paths: Mutex<HashSet<String>>,
    everything: Mutex<bool>,
    wake: Notify,
}

/// systemd. Cheap to clone.
#[derive(Clone)]
pub struct Systemd {
    connection: watch::Receiver<Option<Connection>>,
    dirty: Arc<Dirty>,
}

impl Systemd {
    /// Connects, and stays connected for the life of the runtime.
    #[must_use]
    pub fn spawn() -> Self {
        let (publish, connection) = watch::channel(None);
        let dirty = Arc::new(Dirty::default());
        let link = dirty.clone();
        tokio::spawn(async move {
            let mut said = String::new();
            loop {
                let ended = hold(&publish, &link).await;
                publish.send_replace(None);
                let why = ended.map_or_else(|e| e.to_string(), |()| "the bus closed the connection".to_owned());
                if why != said {
                    tracing::warn!(%why, "no connection to systemd; trying on");
                    said = why;
                }
                sleep(RECONNECT).await;
            }
        });
        Self { connection, dirty }
    }

    /// Waits until units change. None: any may have.
    pub async fn changed(&self) -> Option<HashSet<String>> {
        loop {
            if self.dirty.everything.lock().is_ok_and(|mut everything| std::mem::take(&mut *everything)) {
                return None;
            }
            let paths = self.dirty.paths.lock().map(|mut paths| std::mem::take(&mut *paths)).unwrap_or_default();
            if !paths.is_empty() {
                return Some(paths);
            }
            self.dirty.wake.notified().await;
        }
    }

    async fn call<B, R>(&self, path: &str, interface: &str, method: &'static str, body: &B) -> Result<R, SystemdError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let connection = self.connection(CONNECT_WITHIN).await.ok_or(SystemdError::Disconnected)?;
        let refused = |e: zbus::Error| {
            let why = e.to_string();
            let unknown = why.contains("NoSuchUnit") || why.contains("not found") || why.contains("not loaded");
            SystemdError::Refused { method, why, unknown }
        };
        let answer = timeout(DEADLINE, connection.call_method(Some(SERVICE), path, Some(interface), method, body))
            .await
            .map_err(|_| SystemdError::Timeout(method))?
            .map_err(refused)?;
        answer.body().deserialize::<R>().map_err(refused)
    }

    async fn manager<B, R>(&self, method: &'static str, body: &B) -> Result<R, SystemdError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.call(MANAGER_PATH, MANAGER, method, body).await
    }

    async fn connection(&self, within: Duration) -> Option<Connection> {
        let mut connection = self.connection.clone();
        timeout(within, connection.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// Reads changed unit files.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.manager("Reload", &()).await
    }

    /// Queues a restart (a start, when it is not running).
    pub async fn restart(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager::<_, OwnedObjectPath>("RestartUnit", &(unit, "replace")).await.map(|_| ())
    }

    /// Queues a restart only if it is running.
    pub async fn try_restart(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager::<_, OwnedObjectPath>("TryRestartUnit", &(unit, "replace")).await.map(|_| ())
    }

    /// Queues a stop.
    pub async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        match self.manager::<_, OwnedObjectPath>("StopUnit", &(unit, "replace")).await {
            Err(SystemdError::Refused { unknown: true, .. }) | Ok(_) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether it can be asked anything.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// Queues the start of a service that is known to systemd only until it ends, and is started again as long as it fails. One that is there
    /// already is left as it is.
    pub async fn start_transient(&self, unit: &str, description: &str, command: &[&str]) -> Result<(), SystemdError> {
        const START: &str = "StartTransientUnit";
        let program = command.first().copied().unwrap_or_default();
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", description.into()),
            ("ExecStart", Variant::new(vec![(program, command.to_vec(), false)])),
            ("Restart", "on-failure".into()),
            ("RestartUSec", AGAIN_AFTER.into()),
            // It must not be given up, and must not be in the way of the next when it has ended.
            ("StartLimitIntervalUSec", 0_u64.into()),
            ("CollectMode", "inactive-or-failed".into()),
        ];
        let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        match self.manager::<_, OwnedObjectPath>(START, &(unit, "replace", properties, others)).await {
            Err(SystemdError::Refused { why, .. }) if why.contains("UnitExists") => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Signals every process of a unit, those left behind included.
    pub async fn kill(&self, unit: &str, signal: i32) -> Result<(), SystemdError> {
        match self.manager::<_, ()>("KillUnit", &(unit, "all", signal)).await {
            // No process is left: as good.
            Err(SystemdError::Refused { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Forgets that a unit failed, so that it may start again.
    pub async fn reset_failed(&self, unit: &str) -> Result<(), SystemdError> {
        match self.manager::<_, ()>("ResetFailedUnit", &(unit,)).await {
            Err(SystemdError::Refused { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes the links that start a unit at boot.
    pub async fn disable(&self, unit: &str) -> Result<(), SystemdError> {
        let _: Vec<(String, String, String)> = self.manager("DisableUnitFiles", &(vec![unit], false)).await?;
        Ok(())
    }

    /// How units are, in the order of the names.
    pub async fn list(&self, names: &[&str]) -> Result<Vec<UnitRow>, SystemdError> {
        let rows: Vec<Row> = self.manager("ListUnitsByNames", &(names,)).await?;
        let row = |(name, _, load, active, sub, _, path, job, kind, _): Row| {
            let queued = job != 0;
            let is_asked_to_go = queued && active == "active";
            let ending = is_asked_to_go || active == "deactivating";
            // A unit that is about to be restarted is not up in the sense of whoever asked for the restart.
            let active = match (is_asked_to_go, kind.as_str()) {
                (true, "stop") => "deactivating".to_owned(),
                (true, "start" | "restart" | "try-restart") => "activating".to_owned(),
                _ => active,
            };
            UnitRow { name, load, active, sub, path: path.as_str().to_owned(), queued, ending }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// A property of a unit's object; of its kind's own interface (`…systemd1.Service`) or of `Unit`.
    pub async fn property<T>(&self, path: &str, kind: Option<&str>, name: &str) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedVariant>,
    {
        let interface = kind.map_or_else(|| UNIT.to_owned(), |kind| format!("{SERVICE}.{kind}"));
        let value: OwnedVariant = self.call(path, PROPERTIES, "Get", &(interface.as_str(), name)).await?;
        T::try_from(value).map_err(|_| SystemdError::Refused { method: "Get", why: format!("{name} is not of its type"), unknown: false })
    }
}

/// Connects, subscribes and listens until the connection ends.
async fn hold(publish: &watch::Sender<Option<Connection>>, dirty: &Dirty) -> zbus::Result<()> {
    let connection = Connection::system().await?;
    connection.call_method(Some(SERVICE), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await?;
    let rule = MatchRule::builder()
        .msg_type(MessageType::Signal)
        .sender(SERVICE)
        .interface(PROPERTIES)
        .member("PropertiesChanged")
        .path_namespace("/org/freedesktop/systemd1/unit")
        .build()?;
    let mut signals = MessageStream::for_match_rule(rule, &connection, NonZeroUsize::new(256)).await?;
    publish.send_replace(Some(connection));
    // Whatever happened while nobody listened.
    if let Ok(mut everything) = dirty.everything.lock() {
        *everything = true;
    }
    dirty.wake.notify_one();
    while let Some(message) = signals.next().await {
        let message = message?;
        if let (Some(path), Ok(mut paths)) = (message.header().path(), dirty.paths.lock()) {
            paths.insert(path.as_str().to_owned());
        }
        dirty.wake.notify_one();
    }
    Ok(())
}

/// The object of a unit, as systemd escapes its name.
#[must_use]
pub fn object_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (i, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (i > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_escaped_as_systemd_does() {
        assert_eq!(object_path("kube-apiserver.service"), "/org/freedesktop/systemd1/unit/kube_2dapiserver_2eservice");
        assert_eq!(object_path("0a.timer"), "/org/freedesktop/systemd1/unit/_30a_2etimer");
    }
}
