//! The script that a machine runs once, at its first boot: it brings the agent up and nothing else.
//!
//! It carries no secret of the cluster: the machine's UID and a one-time token, worthless after the claim. Callers freeze the rendered
//! bytes before the first create call, so that a repeated call is the same call.

use serde::Serialize;
use slipway_model::{ArtifactRef, MachineName};

/// What the script needs to know.
#[derive(Debug)]
pub struct UserData<'a> {
    /// `metadata.uid` of the Machine.
    pub machine_uid: &'a str,
    /// The Machine's name.
    pub name: &'a MachineName,
    /// `metadata.uid` of the Cluster.
    pub cluster_uid: &'a str,
    /// The one-time token, hexadecimal. Checked against the shell's metacharacters by construction: see [`UserData::render`].
    pub token: &'a str,
    /// The agent's program: digest and sources.
    pub agent: &'a ArtifactRef,
}

/// Port of every agent.
pub const AGENT_PORT: u16 = 7443;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    machine_uid: &'a str,
    name: &'a str,
    cluster_uid: &'a str,
    token: &'a str,
    listen: String,
}

const AGENT_UNIT: &str = "\
[Unit]
Description=Slipway agent
Wants=dbus.socket
After=dbus.socket
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/opt/slipway/bin/slipway-agent run
Restart=always
RestartSec=300ms
WatchdogSec=30s
# What it started is systemd's: an agent that ends takes nothing with it.
KillMode=process
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
";

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl UserData<'_> {
    /// The script. The same input gives the same bytes.
    #[must_use]
    pub fn render(&self) -> String {
        let identity = Identity {
            machine_uid: self.machine_uid,
            name: self.name.as_str(),
            cluster_uid: self.cluster_uid,
            token: self.token,
            listen: format!("0.0.0.0:{AGENT_PORT}"),
        };
        // Five plain strings: serialising them cannot fail, and an empty file would only be refused by the agent.
        let identity = serde_json::to_string(&identity).unwrap_or_default();
        let sources: Vec<String> = self.agent.sources.iter().map(|s| quoted(s)).collect();
        format!(
            r#"#!/bin/sh
# Brings up the Slipway agent: verifies its program by digest, writes its identity, starts its unit.
set -eu
umask 077
agent=/opt/slipway/bin/slipway-agent
want={sha256}
mkdir -p /etc/slipway /opt/slipway/bin
verified() {{ [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$want" ]; }}
for source in {sources}; do
  case $source in
    file://*)
      file=${{source#file://}}
      if [ -r "$file" ] && verified "$file"; then ln -sfn "$file" "$agent"; break; fi ;;
    *)
      if curl -fsSL --retry 5 --retry-connrefused -o "$agent.part" "$source" && verified "$agent.part"; then
        chmod 0755 "$agent.part"; mv -f "$agent.part" "$agent"; break
      fi ;;
  esac
  echo "slipway: $source does not give a file of sha256 $want" >&2
done
[ -x "$agent" ] || {{ echo "slipway: no source gave the agent: nothing was started" >&2; exit 1; }}
cat >/etc/slipway/identity.json.part <<'IDENTITY'
{identity}
IDENTITY
mv -f /etc/slipway/identity.json.part /etc/slipway/identity.json
umask 022
units=/etc/systemd/system
cat >$units/slipway-agent.service <<'UNIT'
{AGENT_UNIT}UNIT
mkdir -p $units/multi-user.target.wants
ln -sfn ../slipway-agent.service $units/multi-user.target.wants/slipway-agent.service
# systemd reads a unit that it does not know yet when it is first asked for it: a reload, with all its generators, is for a second run of this script.
systemctl start --no-block slipway-agent.service 2>/dev/null || {{ systemctl daemon-reload; systemctl start --no-block slipway-agent.service; }}
"#,
            sha256 = quoted(&self.agent.sha256),
            sources = sources.join(" "),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_script_is_a_posix_shell_script_and_says_what_it_was_told() {
        let agent = ArtifactRef {
            name: "slipway-agent".into(),
            sha256: "ab".repeat(32),
            size: 1,
            sources: vec!["file:///opt/slipway/store/sha256/ab/slipway-agent".into(), "https://mirror.example/it's".into()],
        };
        let name = "demo-cp-0".parse().unwrap();
        let text = UserData { machine_uid: "uid-1", name: &name, cluster_uid: "uid-0", token: "70ken", agent: &agent }.render();
        assert!(text.contains(r#"{"machineUid":"uid-1","name":"demo-cp-0","clusterUid":"uid-0","token":"70ken","listen":"0.0.0.0:7443"}"#));
        let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
}
