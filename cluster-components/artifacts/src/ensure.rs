//! Bringing a version into the store: what is there and unaltered stays, the rest comes from the first source that has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::catalogue::{self, Component, VersionSet, binaries};
use crate::store::{Artifact, Store, StoreError};
use crate::{BuildError, Progress, gomod, oci, recipe, release, toolchain};

/// Where to get what the store does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// The mirror if there is one, then official releases that can be reached, then Go modules.
    #[default]
    Auto,
    /// Only official releases whose digest the catalogue pins. What came from elsewhere is fetched anew.
    Release,
    /// Only Go modules. What came from elsewhere is built anew.
    GoModules,
    /// Only this directory, which has a store's layout.
    Mirror(PathBuf),
}

/// How [`ensure`] goes about it.
#[derive(Clone, Debug, Default)]
pub struct EnsureOptions {
    /// Where to get what is missing.
    pub source: SourceChoice,
    /// With [`SourceChoice::Auto`]: a directory with a store's layout that is looked into first.
    pub mirror: Option<PathBuf>,
    /// Hash every file, even those that look exactly as they did when they were last hashed.
    pub full: bool,
}

/// Why a version is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue does not have it.
    #[error("Kubernetes {wanted} is not in the catalogue; there are {known}")]
    UnknownVersion {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The catalogue has the component, but not this version of it.
    #[error("{component} {version} is not in the catalogue")]
    UnknownComponentVersion {
        /// Of what.
        component: Component,
        /// What was asked for.
        version: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No source had it.
    #[error("{artifact} could not be had:{tried}")]
    NoSource {
        /// What is missing.
        artifact: String,
        /// Each source and why it did not serve, a line each.
        tried: String,
    },
}

/// Brings every executable and image archive of a Kubernetes version (`v1.36.4`, or `1.36` for its newest patch known here)
/// into the store, and returns them. What is there is checked first; what was truncated or altered is got anew.
///
/// # Errors
/// If the version is unknown, the store cannot be written, or no source has something. What did arrive stays, and the next
/// call carries on.
pub fn ensure(store: &Store, kubernetes: &str, options: &EnsureOptions, progress: &dyn Progress) -> Result<Vec<Artifact>, Error> {
    let set = set(kubernetes)?;
    let mut artifacts = Vec::new();
    for &component in Component::ALL {
        artifacts.extend(ensure_component(store, component, component.version(&set), options, progress)?);
    }
    Ok(artifacts)
}

/// The version set, or an error that lists what there is.
pub(crate) fn set(kubernetes: &str) -> Result<VersionSet, Error> {
    catalogue::version_set(kubernetes).ok_or_else(|| Error::UnknownVersion {
        wanted: kubernetes.to_owned(),
        known: catalogue::supported().iter().map(|set| set.kubernetes).collect::<Vec<_>>().join(", "),
    })
}

/// As [`ensure`], for one component at one of its versions.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_component(
    store: &Store,
    component: Component,
    version: &str,
    options: &EnsureOptions,
    progress: &dyn Progress,
) -> Result<Vec<Artifact>, Error> {
    let job = Job::new(store, component, version, options, progress)?;
    let started = Instant::now();
    let mut have = job.look(options.full, progress);
    if !have.is_complete() {
        let _lock = store.lock(component.name(), version, progress)?;
        // Somebody may have brought it since.
        have = job.look(false, &crate::Silent);
        store.sweep(&job.scratch_prefix());
        job.complete(&mut have)?;
    } else {
        progress.done(&job.label, "in the store", started.elapsed());
    }
    Ok(have.into_artifacts())
}

/// One component at one version, on its way into the store.
struct Job<'a> {
    store: &'a Store,
    component: Component,
    version: &'a str,
    options: &'a EnsureOptions,
    progress: &'a dyn Progress,
    module: &'static gomod::Module,
    invocations: Vec<recipe::Invocation>,
    /// `gomod:<digest>`.
    own_build: String,
    label: String,
}

/// What a job has by now, in the catalogue's order.
struct Have(Vec<(&'static str, Option<Artifact>)>);

impl Have {
    fn is_complete(&self) -> bool {
        self.0.iter().all(|(_, artifact)| artifact.is_some())
    }

    fn missing(&self, of: &[&'static str]) -> Vec<&'static str> {
        self.0.iter().filter(|(name, artifact)| artifact.is_none() && of.contains(name)).map(|(name, _)| *name).collect()
    }

    fn get(&self, wanted: &str) -> Option<&Artifact> {
        self.0.iter().find(|(name, _)| *name == wanted).and_then(|(_, artifact)| artifact.as_ref())
    }

    fn put(&mut self, artifact: Artifact) {
        if let Some((_, place)) = self.0.iter_mut().find(|(name, _)| *name == artifact.name) {
            *place = Some(artifact);
        }
    }

    fn into_artifacts(self) -> Vec<Artifact> {
        self.0.into_iter().filter_map(|(_, artifact)| artifact).collect()
    }
}

/// A place to get things from.
enum From<'a> {
    Mirror(&'a Path),
    Release,
    GoModules,
}

impl<'a> Job<'a> {
    fn new(
        store: &'a Store,
        component: Component,
        version: &'a str,
        options: &'a EnsureOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let module =
            gomod::find(component, version).ok_or_else(|| Error::UnknownComponentVersion { component, version: version.to_owned() })?;
        let invocations = recipe::recipe(component, version);
        let own_build = format!("gomod:{}", recipe::digest(module, &invocations));
        let label = format!("{component} {version}");
        Ok(Self { store, component, version, options, progress, module, invocations, own_build, label })
    }

    fn scratch_prefix(&self) -> String {
        format!("build-{}-{}-", self.component, self.version)
    }

    /// What of it is in the store, from an acceptable source, and unaltered.
    fn look(&self, full: bool, progress: &dyn Progress) -> Have {
        let mut have = Have(self.component.artifacts().map(|name| (name, None)).collect());
        // The image archive comes last, so its program is there to compare with.
        for name in self.component.artifacts() {
            let Some(artifact) = self.store.lookup(self.component.name(), self.version, name) else { continue };
            if !self.acceptable(&artifact, &have) {
                continue;
            }
            let checked = if full { self.store.verify(&artifact) } else { self.store.check(&artifact) };
            match checked {
                Ok(()) => have.put(artifact),
                Err(error) => {
                    tracing::warn!(artifact = name, version = self.version, %error, "an artifact must be had anew");
                    progress.step(&self.label, &format!("{error}; getting it anew"));
                }
            }
        }
        have
    }

    fn acceptable(&self, artifact: &Artifact, have: &Have) -> bool {
        if Some(artifact.name.as_str()) == self.component.image_archive() {
            return self.image_origin(have).is_some_and(|origin| origin == artifact.origin);
        }
        // A build by another recipe is stale; releases stay what they are.
        let current = !artifact.origin.starts_with("gomod:") || artifact.origin == self.own_build;
        current
            && match self.options.source {
                SourceChoice::Auto | SourceChoice::Mirror(_) => true,
                // Upstream publishes no pause or probe of ours.
                SourceChoice::Release => artifact.origin.starts_with("release:") || self.is_own(),
                SourceChoice::GoModules => artifact.origin == self.own_build,
            }
    }

    fn is_own(&self) -> bool {
        recipe::upstream_module(self.component).is_none()
    }

    /// Gets what is missing, source after source, then packs the image.
    fn complete(&self, have: &mut Have) -> Result<(), Error> {
        let executables = binaries(self.component);
        let mut tried = String::new();
        for from in self.sources() {
            let wanted = have.missing(executables);
            if wanted.is_empty() {
                break;
            }
            let started = Instant::now();
            let (name, result) = match from {
                From::Mirror(directory) => ("mirror", self.try_mirror(directory, &wanted)),
                From::Release => ("official release", self.try_release(&wanted)),
                From::GoModules => ("Go modules", self.try_modules(&wanted)),
            };
            match result {
                Ok(artifacts) => {
                    let got: Vec<_> = artifacts.iter().map(|artifact| artifact.name.clone()).collect();
                    artifacts.into_iter().for_each(|artifact| have.put(artifact));
                    if !got.is_empty() {
                        self.progress.done(&self.label, &format!("{} from {name}", got.join(", ")), started.elapsed());
                    }
                    if got.len() < wanted.len() {
                        tried.push_str(&format!("\n  {name}: not there, or without a digest in the catalogue"));
                    }
                }
                Err(why) => {
                    tracing::info!(artifact = %self.label, source = name, %why, "a source did not serve");
                    self.progress.step(&self.label, &format!("{name}: {why}"));
                    tried.push_str(&format!("\n  {name}: {why}"));
                }
            }
        }
        let missing = have.missing(executables);
        if !missing.is_empty() {
            return Err(Error::NoSource { artifact: format!("{} ({})", self.label, missing.join(", ")), tried });
        }
        self.pack_image(have)
    }

    fn sources(&self) -> Vec<From<'_>> {
        match &self.options.source {
            SourceChoice::Auto => {
                let mirror = self.options.mirror.as_deref().map(From::Mirror);
                mirror.into_iter().chain([From::Release, From::GoModules]).collect()
            }
            SourceChoice::Release if self.is_own() => vec![From::GoModules],
            SourceChoice::Release => vec![From::Release],
            SourceChoice::GoModules => vec![From::GoModules],
            SourceChoice::Mirror(directory) => vec![From::Mirror(directory)],
        }
    }

    /// Copies what a directory of a store's layout has, if it is what its index says.
    fn try_mirror(&self, directory: &Path, wanted: &[&'static str]) -> Result<Vec<Artifact>, String> {
        let mirror = Store::mirror(directory).map_err(|error| error.to_string())?;
        let mut copied = Vec::new();
        for name in wanted {
            let Some(there) = mirror.lookup(self.component.name(), self.version, name) else { continue };
            if there.origin.starts_with("gomod:") && there.origin != self.own_build {
                self.progress.step(&self.label, &format!("{name} in the mirror was built by another recipe"));
                continue;
            }
            let result = self.store.adopt_expecting(&there).map_err(|error| error.to_string());
            match result {
                Ok(artifact) => copied.push(artifact),
                // The next source may have it.
                Err(why) => self.progress.step(&self.label, &format!("not from the mirror: {why}")),
            }
        }
        Ok(copied)
    }

    fn try_release(&self, wanted: &[&'static str]) -> Result<Vec<Artifact>, String> {
        let asked_for = self.options.source == SourceChoice::Release;
        release::fetch(self.store, self.component, self.version, wanted, asked_for, self.progress).map_err(|error| error.to_string())
    }

    fn try_modules(&self, wanted: &[&'static str]) -> Result<Vec<Artifact>, String> {
        let build = || -> Result<Vec<Artifact>, ModulesError> {
            let scratch = self.store.scratch(&self.scratch_prefix())?;
            let built = toolchain::build(self.module, &self.invocations, wanted, scratch.path(), &self.label, self.progress)?;
            let adopt = |(name, path): (&str, PathBuf)| self.store.adopt(self.component.name(), self.version, name, &self.own_build, &path);
            Ok(built.into_iter().map(adopt).collect::<Result<_, _>>()?)
        };
        build().map_err(|error| error.to_string())
    }

    /// What the image archive's origin must say to be the one of the program in the store.
    fn image_origin(&self, have: &Have) -> Option<String> {
        let reference = catalogue::image_reference(self.component, self.version)?;
        let image = oci::image(self.component, &reference)?;
        let program = have.get(image.program)?;
        let inputs = format!("{}\n{reference}\n{image:?}\n{}", program.sha256, oci::LAYOUT);
        Some(format!("own:{}", hex::encode(Sha256::digest(inputs))))
    }

    fn pack_image(&self, have: &mut Have) -> Result<(), Error> {
        let Some((name, origin)) = self.component.image_archive().zip(self.image_origin(have)) else { return Ok(()) };
        // A new program makes a new image.
        if have.get(name).is_some_and(|artifact| artifact.origin == origin) {
            return Ok(());
        }
        let started = Instant::now();
        let reference = catalogue::image_reference(self.component, self.version).unwrap_or_default();
        if let Some(image) = oci::image(self.component, &reference)
            && let Some(program) = have.get(image.program)
        {
            let io = |source: io::Error| StoreError::Io { what: "pack", path: program.path.clone(), source };
            let bytes = fs::read(&program.path).map_err(io)?;
            let mut temp = self.store.temp_file()?;
            oci::write(&image, &bytes, &mut temp).map_err(io)?;
            let artifact = self.store.adopt_temp(self.component.name(), self.version, name, &origin, temp)?;
            have.put(artifact);
            self.progress.done(&self.label, &format!("{name} packed as {reference}"), started.elapsed());
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum ModulesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

#[cfg(test)]
#[path = "ensure_tests.rs"]
mod tests;
