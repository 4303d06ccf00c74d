//! System closures: builds them with Nix, checks them, and protects them from its garbage collection.
//!
//! | path | object |
//! | --- | --- |
//! | `<gcroots>/<guest>` | GC root of a guest's closure |
//! | `<gcroots>/<guest>.former` | GC root of the closure before a change, until the change has ended |
//! | `<links>/<hash of the flake output>` | link to the last build of a flake output |
//! | `<gcroots>/.nix/<guest>` | for a guest that builds with Nix: [`shared`] |
//!
//! The links are Nix's own out-links, which are GC roots as well. Nix registers such a link before it releases its temporary
//! root, so a concurrent garbage collection cannot delete the result between build and link.
//!
//! Builds never write a flake's lock file: the flake belongs to the user.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use innkeeper_facilities::{Built, Closures, Effort, FacilityError, Found, ProgressSink, Resource};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{
    BuildProgress, Explain, Guest, GuestName, Installable, STORE_DIR, StorePath, Trust, chain,
};
use rustix::fs::{Access, access};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::identity::Identity;
use crate::tree::{self, blocking};
use crate::{FileErrorExt, command};

pub(crate) mod cause;
mod copy;
mod error;
mod flake;
pub(crate) mod log;
pub(crate) mod member;
pub(crate) mod nix;
pub(crate) mod nix_error;
pub(crate) mod precedence;
mod roots;
pub(crate) mod shared;
pub(crate) mod singleflight;
pub(crate) mod store;
#[cfg(test)]
mod tests;

pub use error::ClosureError;
pub use nix::NixConfig;

use flake::Metadata;
use member::MemberNix;
use nix::NixError;
use precedence::Precedence;
use singleflight::SingleFlight;

/// Builds closures with Nix. Coalesces concurrent builds of the same output.
pub struct NixClosures {
    config: Arc<NixConfig>,
    identity: Identity,
    in_flight: SingleFlight<(Trust, Effort, Installable), Built, ClosureError>,
    precedence: Precedence,
}

impl NixClosures {
    /// Creates the driver without touching the host.
    #[must_use]
    pub fn new(config: NixConfig, identity: Identity) -> Self {
        Self {
            config: Arc::new(config),
            identity,
            in_flight: SingleFlight::default(),
            precedence: Precedence::default(),
        }
    }

    /// Runs file operations on a blocking thread.
    async fn blocking<T: Send + 'static>(
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
        self.blocking(move |config| {
            let mut found = roots::observe(&config.gcroots, &identity)?;
            found.extend(shared::observe(&config.gcroots, &identity)?);
            Ok(found)
        })
        .await
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let (identity, guest) = (self.identity.clone(), guest.clone());
        self.blocking(move |config| {
            // The guest's own root is the last one: it is the one that a repair looks for.
            shared::remove(&config.gcroots, &identity, &guest)?;
            roots::remove(&config.gcroots, &identity, &guest)
        })
        .await
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let (identity, found) = (self.identity.clone(), found.clone());
        self.blocking(move |config| {
            if shared::is_guest_dir(&config.gcroots, &found) {
                shared::sweep(&identity, &found)
            } else {
                roots::sweep(&config.gcroots, &identity, &found)
            }
        })
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
        effort: Effort,
        progress: ProgressSink,
    ) -> Result<Built, FacilityError> {
        let start = |sender: watch::Sender<BuildProgress>| {
            let build = Build {
                config: Arc::clone(&self.config),
                installable: installable.clone(),
                trust,
                effort,
                progress: sender,
            };
            let known = known.cloned();
            async move { build.run(known).await.map_err(Arc::new) }.boxed()
        };
        let key = (trust, effort, installable.clone());
        let outcome = match effort {
            Effort::Normal => {
                let _claim = self.precedence.claim();
                self.in_flight.join(&key, &progress, start).await
            }
            Effort::Background => tokio::select! {
                biased;
                () = self.precedence.lost() => return Err(ClosureError::GaveWay.into()),
                outcome = self.in_flight.join(&key, &progress, start) => outcome,
            },
        };
        Ok(outcome.map_err(ClosureError::Shared)?)
    }

    async fn require_space(&self) -> Result<(), FacilityError> {
        self.blocking(|_| store::require_space()).await
    }

    async fn verify(&self, closure: &StorePath) -> Result<(), FacilityError> {
        let closure = closure.clone();
        self.blocking(move |_| store::verify(&closure)).await
    }

    async fn require_registered(&self, closure: &StorePath) -> Result<(), FacilityError> {
        let (identity, path) = (self.identity.clone(), closure.clone());
        let is_known = self
            .blocking(move |config| {
                // Roots are set only for valid paths, and keep them valid.
                Ok(roots::has_root(&config.gcroots, &identity, &path)?
                    // A program of Nix takes longer than all that the daemon itself does for a create.
                    || shared::lists(&config.state, &path) == Some(true))
            })
            .await?;
        if is_known {
            return Ok(());
        }
        Ok(self.config.require_valid(closure).await?)
    }

    async fn ensure(&self, guest: &Guest, closure: &StorePath) -> Result<(), FacilityError> {
        let (identity, closure) = (self.identity.clone(), closure.clone());
        let (kind, guest) = (guest.kind, guest.name.clone());
        self.blocking(move |config| {
            let gcroots = &config.gcroots;
            roots::ensure(gcroots, &identity, &guest, &closure)?;
            if shared::is_requested(kind, &closure) {
                shared::ensure(gcroots, &config.state, &identity, &guest, &closure)?;
            }
            Ok(())
        })
        .await
    }

    async fn builds_with_nix(
        &self,
        guest: &Guest,
        closure: &StorePath,
    ) -> Result<bool, FacilityError> {
        let (kind, closure) = (guest.kind, closure.clone());
        self.blocking(move |_| Ok(shared::is_requested(kind, &closure)))
            .await
    }

    async fn inherit(&self, origin: &GuestName, guest: &GuestName) -> Result<(), FacilityError> {
        let identity = self.identity.clone();
        let (origin, guest) = (origin.clone(), guest.clone());
        self.blocking(move |config| shared::inherit(&config.gcroots, &identity, &origin, &guest))
            .await
    }

    async fn export(&self, closures: &[StorePath], to: &Path) -> Result<(), FacilityError> {
        Ok(copy::export(&self.config, closures, to).await?)
    }

    async fn import(&self, closure: &StorePath, from: &Path) -> Result<(), FacilityError> {
        Ok(copy::import(&self.config, closure, from).await?)
    }

    async fn ensure_former(
        &self,
        guest: &GuestName,
        closure: &StorePath,
    ) -> Result<(), FacilityError> {
        let (identity, guest, closure) = (self.identity.clone(), guest.clone(), closure.clone());
        self.blocking(move |config| {
            roots::ensure_former(&config.gcroots, &identity, &guest, &closure)
        })
        .await
    }

    async fn remove_former(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let (identity, guest) = (self.identity.clone(), guest.clone());
        self.blocking(move |config| roots::remove_former(&config.gcroots, &identity, &guest))
            .await
    }

    async fn has_program(
        &self,
        closure: &StorePath,
        program: &'static str,
    ) -> Result<bool, FacilityError> {
        let closure = closure.clone();
        self.blocking(move |_| Ok(store::has_program(&closure, program)?))
            .await
    }
}

/// One build of a flake output.
struct Build {
    config: Arc<NixConfig>,
    installable: Installable,
    trust: Trust,
    effort: Effort,
    progress: watch::Sender<BuildProgress>,
}

/// One element of the output of `nix build --json`.
#[derive(Deserialize)]
struct BuildOutput {
    outputs: Outputs,
}

#[derive(Deserialize)]
struct Outputs {
    out: Option<StorePath>,
}

impl Build {
    /// Builds the output. Returns `known` if it has the same inputs and still exists.
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
            && self.set_link(&known.closure).await
        {
            return Ok(known);
        }
        let output = match self.nix_build(&self.installable.to_string()).await {
            Err(NixError::Failed { .. }) if self.has_no_output(None, &metadata).await => {
                return Err(ClosureError::OutputNotFound(self.installable));
            }
            built => built.map_err(|error| self.explain(error))?,
        };
        let checked = self.parse(&output).and_then(|closure| {
            store::verify(&closure)?;
            Ok(closure)
        });
        if checked.is_err() {
            // Do not keep a closure that guests cannot boot from.
            self.link().remove()?;
        }
        let closure = checked?;
        store::sync().await?;
        // If the flake changed during the build, the state that was built is unknown.
        let current = self
            .metadata(None)
            .await?
            .fingerprint(&self.installable, &self.config.options);
        let fingerprint = fingerprint.filter(|before| current.as_ref() == Some(before));
        // An unknown fingerprint is empty: it never equals a known one.
        Ok(Built {
            closure,
            fingerprint: fingerprint.unwrap_or_default(),
        })
    }

    /// Builds the output for a caller who is not root. The daemon's own Nix only sets the GC root.
    async fn run_for_member(self) -> Result<Built, ClosureError> {
        if !self.installable.is_remote() {
            return Err(ClosureError::LocalFlake(self.installable));
        }
        let member = MemberNix::new(&self.config, &self.installable)?;
        let links = &self.config.links;
        fs::create_dir_all(links).on("create", links)?;
        let metadata = self.metadata(Some(&member)).await?;
        metadata.require_remote(&self.installable)?;
        let pinned = metadata.pinned(&self.installable);
        let arguments = [
            "build",
            "--json",
            "-v",
            "--no-write-lock-file",
            "--no-link",
            &pinned,
        ];
        let output = match self.nix(Some(&member), &arguments).await {
            Err(NixError::Failed { .. }) if self.has_no_output(Some(&member), &metadata).await => {
                return Err(ClosureError::OutputNotFound(self.installable));
            }
            built => built.map_err(|error| self.explain(error))?,
        };
        let closure = self.parse(&output)?;
        self.config.require_valid(&closure).await?;
        store::verify(&closure)?;
        // Fails if Nix's garbage collector deleted the path meanwhile.
        if !self.link().points_to(&closure) {
            self.nix_build(closure.as_str())
                .await
                .map_err(|error| self.explain(error))?;
        }
        store::sync().await?;
        // Members' builds are not cached.
        Ok(Built {
            closure,
            fingerprint: String::new(),
        })
    }

    /// Returns the flake's inputs. Nix reads `flake.nix` for that without evaluating its outputs.
    async fn metadata(&self, member: Option<&MemberNix>) -> Result<Metadata, ClosureError> {
        let arguments = [
            "flake",
            "metadata",
            "--json",
            "--no-write-lock-file",
            self.installable.flake(),
        ];
        let output = self
            .nix(member, &arguments)
            .await
            .map_err(|error| self.explain(error))?;
        serde_json::from_slice(&output).map_err(|source| self.unreadable(source))
    }

    /// Links an existing closure. Returns false if that fails, for example because Nix is deleting it; the caller then
    /// builds it again.
    async fn set_link(&self, closure: &StorePath) -> bool {
        self.link().points_to(closure) || self.nix_build(closure.as_str()).await.is_ok()
    }

    async fn nix_build(&self, installable: &str) -> Result<Vec<u8>, NixError> {
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
        arguments.extend([link.into_os_string(), installable.into()]);
        self.nix(None, &arguments).await
    }

    /// Reports whether the flake certainly lacks the output. Evaluates this after a failure instead of parsing Nix's error
    /// message. If the evaluation fails, the output exists but is broken: that is a failed build.
    async fn has_no_output(&self, member: Option<&MemberNix>, metadata: &Metadata) -> bool {
        let Some(expression) = metadata.has_output(&self.installable) else {
            return false;
        };
        let arguments = ["eval", "--json", "--expr", &expression];
        let output = self.nix(member, &arguments).await;
        output.is_ok_and(|output| serde_json::from_slice(&output).is_ok_and(|has: bool| !has))
    }

    async fn nix<A: AsRef<std::ffi::OsStr>>(
        &self,
        member: Option<&MemberNix>,
        arguments: &[A],
    ) -> Result<Vec<u8>, NixError> {
        let report = |progress: BuildProgress| {
            self.progress.send_if_modified(|current| {
                let changed = *current != progress;
                *current = progress;
                changed
            });
        };
        match member {
            Some(member) => member.run(&self.config, arguments, report).await,
            None => self.config.run(self.effort, arguments, report).await,
        }
    }

    fn parse(&self, output: &[u8]) -> Result<StorePath, ClosureError> {
        let built: Vec<BuildOutput> =
            serde_json::from_slice(output).map_err(|source| self.unreadable(source))?;
        let closure = built.into_iter().find_map(|built| built.outputs.out);
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
        ClosureError::InvalidOutput {
            installable: self.installable.clone(),
            source,
        }
    }
}

/// The link to the last build of a flake output.
struct Link {
    path: PathBuf,
}

impl Link {
    /// Returns the link of an output. Members' builds have other links than root's, and never replace those.
    fn of(config: &NixConfig, trust: Trust, installable: &Installable) -> Self {
        let name = match trust {
            Trust::Host => installable.to_string(),
            // Installables contain no space.
            Trust::Member => format!("member {installable}"),
        };
        let hash = flake::hex(&Sha256::digest(name));
        Self {
            path: config.links.join(&hash[..32]),
        }
    }

    fn points_to(&self, closure: &StorePath) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == closure.as_path())
    }

    /// Removes the link, and the links that Nix creates beside it: `<link>-<output>` for further outputs, and
    /// `.<number>_<link>` temporarily.
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
            // The name is a hash: unrelated names do not contain it.
            if entry.file_name().to_string_lossy().contains(&*name) {
                tree::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Returns Nix's version as Nix prints it.
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

/// Checks the store directory. If it is missing, that is a warning: distributions package Nix without it, and the first
/// build creates it.
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
            format!("If the store has its own disk, mount it at {path} before the first build.")
        }),
    }
}

fn check_writable(subject: &str, directory: &Path) -> Check {
    let existing = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let writable = access(existing, Access::WRITE_OK | Access::EXEC_OK);
    let path = existing.display();
    Check {
        subject: subject.to_owned(),
        verdict: if writable.is_ok() {
            Verdict::Ok
        } else {
            Verdict::Broken
        },
        finding: match writable {
            Ok(()) => format!("{} is writable", directory.display()),
            Err(errno) => format!("{path} cannot be written: {errno}"),
        },
        remedy: writable
            .is_err()
            .then(|| format!("Allow innkeeperd to write {path}.")),
    }
}
