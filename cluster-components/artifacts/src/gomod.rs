//! The Go modules under `gomod/`, carried inside the program: building needs neither this source tree nor a repository.
//!
//! Each holds `go.mod` and `go.sum` (made by `gomod/generate.sh`), or, for the two programs that are ours, the source too.

use std::fs;
use std::io;
use std::path::Path;

use crate::catalogue::Component;

/// A module directory.
#[derive(Debug)]
pub(crate) struct Module {
    component: Component,
    version: &'static str,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! module {
    ($component:ident, $directory:literal, $version:literal $(, $more:literal)*) => {
        Module {
            component: Component::$component,
            version: $version,
            files: &[
                ("go.mod", include_str!(concat!("../gomod/", $directory, "/", $version, "/go.mod"))),
                ("go.sum", include_str!(concat!("../gomod/", $directory, "/", $version, "/go.sum"))),
                $(($more, include_str!(concat!("../gomod/", $directory, "/", $version, "/", $more))),)*
            ],
        }
    };
}

static MODULES: &[Module] = &[
    module!(Kubernetes, "kubernetes", "v1.35.8"),
    module!(Kubernetes, "kubernetes", "v1.36.4"),
    module!(Kubernetes, "kubernetes", "v1.37.2"),
    module!(Etcd, "etcd", "v3.6.14"),
    module!(Etcd, "etcd", "v3.7.3"),
    module!(Containerd, "containerd", "v2.3.4"),
    module!(Runc, "runc", "v1.4.3"),
    module!(Cni, "cni", "v1.9.1"),
    module!(Coredns, "coredns", "v1.14.2"),
    module!(Pause, "pause", "3.10.2", "main.go"),
    module!(TestClient, "test-client", "1", "main.go"),
];

/// The module that builds `component` at `version`.
pub(crate) fn find(component: Component, version: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.component == component && module.version == version)
}

impl Module {
    /// The contents of one of its files.
    pub(crate) fn file(&self, name: &str) -> Option<&'static str> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, contents)| *contents)
    }

    /// Names and contents, in a fixed order.
    pub(crate) fn files(&self) -> &'static [(&'static str, &'static str)] {
        self.files
    }

    /// The Go version it asks for, for instance `1.26.0`.
    pub(crate) fn go_version(&self) -> &'static str {
        self.file("go.mod").unwrap_or_default().lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.26").trim()
    }

    /// Writes it into `directory`, which must exist.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(|(name, contents)| fs::write(directory.join(name), contents))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_module_directory_in_the_tree_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("gomod");
        let mut found = 0;
        for component in fs::read_dir(&root).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
            for version in fs::read_dir(component.path()).unwrap().map(Result::unwrap) {
                let name = component.file_name().into_string().unwrap();
                let version = version.file_name().into_string().unwrap();
                assert!(find(name.parse().unwrap(), &version).is_some(), "gomod/{name}/{version} is not in MODULES");
                found += 1;
            }
        }
        assert_eq!(found, MODULES.len());
    }

    #[test]
    fn the_go_version_is_read_from_go_mod() {
        assert_eq!(find(Component::Kubernetes, "v1.36.4").unwrap().go_version(), "1.26.0");
        assert_eq!(find(Component::Pause, "3.10.2").unwrap().go_version(), "1.24");
    }
}
