//! systemd unit files.

use std::fmt::Write;

/// Where the agent keeps programs and archives, linked to verified files.
pub(crate) const BIN: &str = "/opt/slipway/bin";

/// Path of an artifact.
pub(crate) fn bin(name: &str) -> String {
    format!("{BIN}/{name}")
}

/// How systemd knows that a service has started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its program runs. Whether it works is the probes' business: systemd would kill what takes long to become ready.
    Exec,
    /// It says so. For what others are ordered behind.
    Notify,
    /// It has ended well; stays active.
    Oneshot,
}

/// What a service waits for before its program starts, with `slipway-agent wait-for`: every 100 ms and for ever.
///
/// A kubelet that finds no API backs off, and its Node is Ready 20 s late; controllers that die of it and start again cost the apiserver
/// the processor that it needs to start.
pub(crate) enum Hold {
    /// GET answers 200, from a server that the CA in this file vouches for.
    Url { url: String, ca: &'static str },
    /// The same, and any answer will do: it serves, ready or not.
    Answers { url: String, ca: &'static str },
    /// The directory has an entry.
    DirectoryNotEmpty(&'static str),
}

impl Hold {
    fn command(&self) -> Vec<String> {
        let mut words = vec![bin("slipway-agent"), "wait-for".to_owned()];
        match self {
            Self::Url { url, ca } => words.extend(["--url".into(), url.clone(), "--ca".into(), (*ca).to_owned()]),
            Self::Answers { url, ca } => words.extend(["--answers".into(), url.clone(), "--ca".into(), (*ca).to_owned()]),
            Self::DirectoryNotEmpty(path) => words.extend(["--dir-nonempty".into(), (*path).to_owned()]),
        }
        words
    }
}

/// A service.
pub(crate) struct Service {
    pub description: &'static str,
    pub kind: Kind,
    /// `None`: root.
    pub user: Option<&'static str>,
    /// Units of the same plan that it is started behind.
    pub after: Vec<&'static str>,
    /// Units of the same plan that are started behind it.
    pub before: Vec<&'static str>,
    pub environment: Vec<(String, String)>,
    pub hold: Vec<Hold>,
    /// Commands, run one after the other; all but a oneshot have one.
    pub commands: Vec<Vec<String>>,
    /// Run when none of its processes is left, however it ended. That it fails changes nothing.
    pub afterwards: Option<Vec<String>>,
    /// More lines of `[Service]`.
    pub extra: Vec<&'static str>,
}

impl Service {
    /// A long-running program from [`BIN`].
    pub fn program(description: &'static str, name: &str, args: Vec<String>) -> Self {
        let command = [vec![bin(name)], args].concat();
        Self {
            description,
            kind: Kind::Exec,
            user: None,
            after: vec![],
            before: vec![],
            environment: vec![],
            hold: vec![],
            commands: vec![command],
            afterwards: None,
            extra: vec![],
        }
    }

    /// Commands run once per boot.
    pub fn oneshot(description: &'static str, commands: Vec<Vec<String>>) -> Self {
        Self { kind: Kind::Oneshot, commands, ..Self::program(description, "", vec![]) }
    }

    /// Runs as a user of its own, without any capability or way to gain one.
    pub fn run_as(mut self, user: &'static str) -> Self {
        self.user = Some(user);
        self.extra.extend(["NoNewPrivileges=yes", "CapabilityBoundingSet=", "AmbientCapabilities=", "UMask=0077"]);
        self
    }

    pub fn render(&self) -> String {
        let mut text = format!("[Unit]\nDescription={}\n", self.description);
        for (key, units) in [("After", &self.after), ("Wants", &self.after), ("Before", &self.before)] {
            if !units.is_empty() {
                let _ = writeln!(text, "{key}={}", units.join(" "));
            }
        }
        // A component that cannot work yet is tried again for as long as it takes.
        text.push_str("StartLimitIntervalSec=0\n\n[Service]\n");
        text.push_str(match self.kind {
            Kind::Exec => "Type=exec\n",
            Kind::Notify => "Type=notify\n",
            Kind::Oneshot => "Type=oneshot\nRemainAfterExit=yes\n",
        });
        if let Some(user) = self.user {
            let _ = write!(text, "User={user}\nGroup={user}\n");
        }
        for (name, value) in &self.environment {
            let _ = writeln!(text, "Environment={}", quote(&format!("{name}={value}")));
        }
        for hold in &self.hold {
            let _ = writeln!(text, "ExecStartPre={}", line(&hold.command(), " "));
        }
        for command in &self.commands {
            let _ = writeln!(text, "ExecStart={}", line(command, if self.kind == Kind::Oneshot { " " } else { " \\\n  " }));
        }
        if let Some(command) = &self.afterwards {
            let _ = writeln!(text, "ExecStopPost=-{}", line(command, " "));
        }
        text.push_str(if self.kind == Kind::Oneshot { "Restart=on-failure\n" } else { "Restart=always\n" });
        text.push_str("RestartSec=300ms\n");
        if !self.hold.is_empty() {
            text.push_str("TimeoutStartSec=infinity\n");
        }
        for extra in &self.extra {
            let _ = writeln!(text, "{extra}");
        }
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
        text
    }
}

fn line(words: &[String], separator: &str) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(separator)
}

/// A word as systemd reads it back: specifiers and variables doubled, the rest quoted where it must be (systemd.service(5), "Command lines").
fn quote(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+*%$".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_systemd() {
        let cases = [
            ("--a=b", "--a=b"),
            ("--x=a b", "\"--x=a b\""),
            ("100%", "100%%"),
            ("$HOME", "$$HOME"),
            ("", "\"\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
        ];
        for (word, written) in cases {
            assert_eq!(quote(word), written);
        }
    }

    #[test]
    fn a_held_service_may_wait_for_ever() {
        let mut service = Service::program("x", "x", vec![]);
        assert!(!service.render().contains("TimeoutStartSec"));
        service.hold = vec![Hold::DirectoryNotEmpty("/d")];
        assert!(service.render().contains("ExecStartPre=/opt/slipway/bin/slipway-agent wait-for --dir-nonempty /d\n"));
        assert!(service.render().contains("TimeoutStartSec=infinity"));
    }
}
