//! Closures: built by Nix, checked, and kept from its garbage collection.
//!
//! | on the host | what |
//! | --- | --- |
//! | `<gcroots>/<guest>` | the GC root of a guest's closure |
//! | `<links>/<hash of the flake output>` | what was built last of a flake output |
//!
//! The links are Nix's own out-links, which are GC roots too: Nix makes the link and enters it among its
//! roots before it gives up its hold on what it built. So there is no moment between the end of the build
//! and the link in which a garbage collection could take the result.
//!
//! No flake's lock file is written: the flake belongs to somebody else.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use innkeeper_facilities::{Built, Closures, FacilityError, Found, ProgressSink, Resource};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{
    BuildProgress, Explain, GuestName, Installable, STORE_DIR, StorePath, Trust, chain,
};
use rustix::fs::{Access, access};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::identity::Identity;
use crate::tree::{self, blocking};
use crate::{FileErrorExt, command};

pub(crate) mod cause;
mod error;
mod flake;
pub(crate) mod flight;
pub(crate) mod log;
pub(crate) mod member;
pub(crate) mod nix;
mod roots;
pub(crate) mod store;
#[cfg(test)]
mod tests;

pub use error::ClosureError;
pub use nix::NixConfig;

use flake::Metadata;
use flight::Flights;
use member::MemberNix;
use nix::NixError;

/// Closures that Nix builds.
pub struct NixClosures {
    config: Arc<NixConfig>,
    identity: Identity,
    flights: Flights<(Trust, Installable), Built, ClosureError>,
}

impl NixClosures {
    /// The driver; nothing is touched yet.
    #[must_use]
    pub fn new(config: NixConfig, identity: Identity) -> Self {
        Self {
            config: Arc::new(config),
            identity,
            flights: Flights::default(),
        }
    }

    /// Gives what was built of a flake output free for Nix's garbage collection. Guests that have it keep
    /// it by their own roots.
    ///
    /// # Errors
    /// When the link cannot be removed.
    pub async fn forget_link(&self, installable: &Installable) -> Result<(), FacilityError> {
        let installable = installable.clone();
        self.work(move |config| {
            Link::of(config, Trust::Host, &installable).remove()?;
            Link::of(config, Trust::Member, &installable).remove()
        })
        .await
    }

    /// Does file work on a thread that may wait for the disk.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&NixConfig) -> Result<T, ClosureError> + Send + 'static,
    ) -> Result<T, FacilityError> {
        let config = Arc::clone(&self.config);
        Ok(blocking(move || work(&config)).await?)
    }
}

#[async_trait]
impl Resource for NixClosures {
    fn kind(&self) -> &'static str {
        "closure"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        let identity = self.identity.clone();
        self.work(move |config| roots::observe(&config.gcroots, &identity))
            .await
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let (identity, guest) = (self.identity.clone(), guest.clone());
        self.work(move |config| roots::remove(&config.gcroots, &identity, &guest))
            .await
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let (identity, found) = (self.identity.clone(), found.clone());
        self.work(move |config| roots::sweep(&config.gcroots, &identity, &found))
            .await
    }

    async fn check(&self) -> Vec<Check> {
        vec![
            check_nix(&self.config.program).await,
            check_store(Path::new(STORE_DIR)),
            check_writable("GC roots", &self.config.gcroots),
        ]
    }
}

#[async_trait]
impl Closures for NixClosures {
    async fn build(
        &self,
        installable: &Installable,
        trust: Trust,
        known: Option<&Built>,
        progress: ProgressSink,
    ) -> Result<Built, FacilityError> {
        let start = |sender: watch::Sender<BuildProgress>| {
            let build = Build {
                config: Arc::clone(&self.config),
                installable: installable.clone(),
                trust,
                progress: sender,
            };
            let known = known.cloned();
            async move { build.run(known).await.map_err(Arc::new) }.boxed()
        };
        let key = (trust, installable.clone());
        let outcome = self.flights.join(&key, &progress, start).await;
        Ok(outcome.map_err(ClosureError::Shared)?)
    }

    async fn verify(&self, closure: &StorePath) -> Result<(), FacilityError> {
        let closure = closure.clone();
        self.work(move |_| store::verify(&closure)).await
    }

    async fn require_registered(&self, closure: &StorePath) -> Result<(), FacilityError> {
        let (identity, path) = (self.identity.clone(), closure.clone());
        let kept = self
            .work(move |config| roots::keep(&config.gcroots, &identity, &path))
            .await?;
        // The roots are only of paths that were valid, and keep them so.
        if kept {
            return Ok(());
        }
        Ok(self.config.require_valid(closure).await?)
    }

    async fn ensure(&self, guest: &GuestName, closure: &StorePath) -> Result<(), FacilityError> {
        let (identity, guest, closure) = (self.identity.clone(), guest.clone(), closure.clone());
        self.work(move |config| roots::ensure(&config.gcroots, &identity, &guest, &closure))
            .await
    }
}

/// One build of one flake output.
struct Build {
    config: Arc<NixConfig>,
    installable: Installable,
    trust: Trust,
    progress: watch::Sender<BuildProgress>,
}

/// What `nix build --json` says of each thing it built.
#[derive(Deserialize)]
struct Answer {
    outputs: Outputs,
}

#[derive(Deserialize)]
struct Outputs {
    out: Option<StorePath>,
}

impl Build {
    /// Builds the output, unless `known` was built from the same and is still there.
    async fn run(self, known: Option<Built>) -> Result<Built, ClosureError> {
        if self.trust == Trust::Member {
            return self.run_for_member().await;
        }
        flake::require_local(&self.installable)?;
        let links = &self.config.links;
        fs::create_dir_all(links).on("create", links)?;
        let metadata = self.metadata(None).await?;
        let fingerprint = metadata.fingerprint(&self.installable, &self.config.options);
        if let Some(known) = known
            && fingerprint.as_ref() == Some(&known.fingerprint)
            && store::verify(&known.closure).is_ok()
            && self.keep(&known.closure).await
        {
            return Ok(known);
        }
        let answer = match self.nix_build(&self.installable.to_string()).await {
            Err(NixError::Failed { .. }) if self.has_no_output(None, &metadata).await => {
                return Err(ClosureError::OutputNotFound(self.installable));
            }
            built => built.map_err(|error| self.explain(error))?,
        };
        let checked = self.read(&answer).and_then(|closure| {
            store::verify(&closure)?;
            Ok(closure)
        });
        if checked.is_err() {
            // What no guest can boot from is not worth keeping.
            self.link().remove()?;
        }
        let closure = checked?;
        store::settle().await?;
        // When the flake was changed during the build, nobody knows which state of it was built.
        let still = self
            .metadata(None)
            .await?
            .fingerprint(&self.installable, &self.config.options);
        let fingerprint = fingerprint.filter(|was| still.as_ref() == Some(was));
        // An unknown fingerprint is empty, and never equal to one that is known.
        Ok(Built {
            closure,
            fingerprint: fingerprint.unwrap_or_default(),
        })
    }

    /// Builds the output for a caller who is not root. The daemon's own Nix only keeps the result.
    async fn run_for_member(self) -> Result<Built, ClosureError> {
        if !self.installable.is_remote() {
            return Err(ClosureError::LocalFlake(self.installable));
        }
        let member = MemberNix::new(&self.config, &self.installable)?;
        let links = &self.config.links;
        fs::create_dir_all(links).on("create", links)?;
        let metadata = self.metadata(Some(&member)).await?;
        metadata.require_remote(&self.installable)?;
        let output = metadata.pinned(&self.installable);
        let arguments = [
            "build",
            "--json",
            "-v",
            "--no-write-lock-file",
            "--no-link",
            &output,
        ];
        let answer = match self.nix(Some(&member), &arguments).await {
            Err(NixError::Failed { .. }) if self.has_no_output(Some(&member), &metadata).await => {
                return Err(ClosureError::OutputNotFound(self.installable));
            }
            built => built.map_err(|error| self.explain(error))?,
        };
        let closure = self.read(&answer)?;
        self.config.require_valid(&closure).await?;
        store::verify(&closure)?;
        // Fails when Nix's garbage collector took the path meanwhile.
        if !self.link().leads_to(&closure) {
            self.nix_build(closure.as_str())
                .await
                .map_err(|error| self.explain(error))?;
        }
        store::settle().await?;
        // Nothing is remembered of it.
        Ok(Built {
            closure,
            fingerprint: String::new(),
        })
    }

    /// What the flake is made of. Nix reads `flake.nix` for that, but none of its outputs.
    async fn metadata(&self, member: Option<&MemberNix>) -> Result<Metadata, ClosureError> {
        let arguments = [
            "flake",
            "metadata",
            "--json",
            "--no-write-lock-file",
            self.installable.flake(),
        ];
        let answer = self
            .nix(member, &arguments)
            .await
            .map_err(|error| self.explain(error))?;
        serde_json::from_slice(&answer).map_err(|source| self.unreadable(source))
    }

    /// Keeps a closure that is there already. Says no when that fails, for example because it is going
    /// just now; then it is built again.
    async fn keep(&self, closure: &StorePath) -> bool {
        self.link().leads_to(closure) || self.nix_build(closure.as_str()).await.is_ok()
    }

    async fn nix_build(&self, what: &str) -> Result<Vec<u8>, NixError> {
        let link = self.link().path;
        let mut arguments: Vec<OsString> = [
            "build",
            "--json",
            "-v",
            "--no-write-lock-file",
            "--out-link",
        ]
        .map(Into::into)
        .into();
        arguments.extend([link.into_os_string(), what.into()]);
        self.nix(None, &arguments).await
    }

    /// Whether it is certain that the flake does not have the output. Asked after a failure only, of the
    /// evaluator itself, because the error is a sentence for people. When evaluation fails on the way
    /// there, the output exists and is broken, which is a failed build.
    async fn has_no_output(&self, member: Option<&MemberNix>, metadata: &Metadata) -> bool {
        let Some(expression) = metadata.has_output(&self.installable) else {
            return false;
        };
        let arguments = ["eval", "--json", "--expr", &expression];
        let answer = self.nix(member, &arguments).await;
        answer.is_ok_and(|answer| serde_json::from_slice(&answer).is_ok_and(|has: bool| !has))
    }

    async fn nix<A: AsRef<std::ffi::OsStr>>(
        &self,
        member: Option<&MemberNix>,
        arguments: &[A],
    ) -> Result<Vec<u8>, NixError> {
        let report = |news: BuildProgress| {
            self.progress.send_if_modified(|now| {
                let changed = *now != news;
                *now = news;
                changed
            });
        };
        match member {
            Some(member) => member.run(&self.config, arguments, report).await,
            None => self.config.run(arguments, report).await,
        }
    }

    fn read(&self, answer: &[u8]) -> Result<StorePath, ClosureError> {
        let answers: Vec<Answer> =
            serde_json::from_slice(answer).map_err(|source| self.unreadable(source))?;
        let closure = answers.into_iter().find_map(|answer| answer.outputs.out);
        closure.ok_or_else(|| ClosureError::NoOutput(self.installable.clone()))
    }

    fn link(&self) -> Link {
        Link::of(&self.config, self.trust, &self.installable)
    }

    fn explain(&self, error: NixError) -> ClosureError {
        let installable = self.installable.clone();
        match error {
            NixError::Run(source) => ClosureError::Nix {
                installable,
                source,
            },
            NixError::Failed { summary, log, .. } => ClosureError::Build {
                installable,
                summary,
                log,
            },
        }
    }

    fn unreadable(&self, source: serde_json::Error) -> ClosureError {
        ClosureError::Answer {
            installable: self.installable.clone(),
            source,
        }
    }
}

/// The link to what was built last of a flake output.
struct Link {
    path: PathBuf,
}

impl Link {
    /// A member's build never replaces the link of the host's.
    fn of(config: &NixConfig, trust: Trust, installable: &Installable) -> Self {
        let name = match trust {
            Trust::Host => installable.to_string(),
            // No installable holds a space.
            Trust::Member => format!("member {installable}"),
        };
        let hash = flake::hex(&Sha256::digest(name));
        Self {
            path: config.links.join(&hash[..32]),
        }
    }

    fn leads_to(&self, closure: &StorePath) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == closure.as_path())
    }

    /// Removes the link, and those that Nix makes beside it: `<link>-<output>` for further outputs, and
    /// `.<number>_<link>` while it replaces one.
    fn remove(&self) -> Result<(), ClosureError> {
        let (Some(links), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        let name = name.to_string_lossy();
        let entries = match fs::read_dir(links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.on("list", links)?,
        };
        for entry in entries {
            let entry = entry.on("list", links)?;
            // The name is a hash: nothing else has it as a part.
            if entry.file_name().to_string_lossy().contains(&*name) {
                tree::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Shows Nix's version as Nix prints it.
pub(crate) async fn check_nix(program: &Path) -> Check {
    let (verdict, finding, remedy) = match command::run(program, ["--version"], b"").await {
        Ok(version) => (
            Verdict::Ok,
            String::from_utf8_lossy(&version).trim().to_owned(),
            None,
        ),
        Err(error) => (Verdict::Broken, chain(&error), error.remedy()),
    };
    Check {
        subject: "nix".to_owned(),
        verdict,
        finding,
        remedy,
    }
}

/// Checks the store directory. A missing one is a warning: distributions package Nix without it, and the first build
/// creates it.
fn check_store(directory: &Path) -> Check {
    let exists = directory.is_dir();
    let path = directory.display();
    Check {
        subject: "Nix store".to_owned(),
        verdict: if exists {
            Verdict::Ok
        } else {
            Verdict::Warning
        },
        finding: if exists {
            format!("{path} exists")
        } else {
            format!("{path} does not exist yet; Nix creates it with the first build")
        },
        remedy: (!exists).then(|| {
            format!(
                "If the store is on a disk of its own, mount it at {path} before the first build."
            )
        }),
    }
}

fn check_writable(subject: &str, directory: &Path) -> Check {
    let there = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let answer = access(there, Access::WRITE_OK | Access::EXEC_OK);
    let path = there.display();
    Check {
        subject: subject.to_owned(),
        verdict: if answer.is_ok() {
            Verdict::Ok
        } else {
            Verdict::Broken
        },
        finding: match answer {
            Ok(()) => format!("{} can be written", directory.display()),
            Err(errno) => format!("{path} cannot be written: {errno}"),
        },
        remedy: answer
            .is_err()
            .then(|| format!("Give innkeeperd the right to write {path}.")),
    }
}
