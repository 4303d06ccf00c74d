//! Evaluates and builds a repository's untrusted configuration: `preview-config.nix` and the files that it refers to.
//!
//! ```text
//!  preview-config.nix ───► sandbox: own user, namespaces ──► derivations, each checked ──► the host's Nix
//!  nixpkgs, base module ─► nix-instantiate, scratch store       against its own hash         builds, sandboxed
//! ```
//!
//! # Isolation of the evaluation
//!
//! The evaluator runs in a **sandbox** (`sandbox.sh`) with its own mount, network, PID, IPC and UTS namespaces. Its root
//! contains the evaluator's programs, nixpkgs, the base module and the file itself, all read-only, and a scratch store
//! in memory. The host's `/var/secrets`, `/root`, `/home`, `/etc`, state directory, sockets and store are not mounted.
//! The evaluator's user owns nothing, has no capabilities and cannot gain any. No network interface is up.
//! Address space, CPU time, wall-clock time, processes, output and disk are limited. All processes end with the
//! sandbox's PID 1, at the latest when the daemon exits.
//!
//! Inside, Nix evaluates in pure and restricted mode, without import from derivation. The mount namespace backs this up:
//! `builtins.path` with a hash reads any path even in pure mode, and its `filter` sees file names, but only those inside
//! the sandbox.
//!
//! # Import of the result
//!
//! Nix's own commands trust their input: `nix-store --import` as root does not verify it, and `nix copy --from` would have
//! root open a database that the evaluator wrote. So the daemon reads the objects itself from the sandbox's store,
//! follows no links, and imports only objects whose path is the hash of their contents (derivations, sources, plain
//! files). Such an object cannot replace another one. Objects that the host has already are skipped, so the second preview
//! on the same nixpkgs imports only a few derivations.
//!
//! # Isolation of the build
//!
//! A derivation is a program that the host runs. Nix's sandbox is mandatory for previews and never falls back: the
//! builder sees only its inputs and runs as a build user (NixOS: `nixbld`). Without build users the builder would own the
//! store's files and could change its inputs, so such builds are refused (`users.rs`). A fixed-output build has the host's
//! network, as everywhere in Nix. A [`BuildNetwork`] blocks its access to the host itself and to private networks; without
//! it, builds are refused. Builders do not inherit the daemon's environment (see `nix.rs`).
//!
//! # On the host
//!
//! | object | path |
//! | --- | --- |
//! | GC root of a closure | `<roots>/<key>/closure` |
//! | GC roots of nixpkgs and the base module | `<roots>/.base/` |
//! | scratch of a running evaluation | `<scratch>/<number>/` |
//!
//! Tested with Nix 2.8 (Debian 12), with and without its daemon, and with Nix 2.26. Uses only commands that all versions
//! since 2.8 have: `nix-instantiate --eval --json`, `nix-store --load-db`, `--dump-db`, `--import`, `--realise`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use innkeeper_facilities::{
    BuildNetwork, Effort, Evaluated, EvaluationKey, Evaluator, FacilityError, Inspected,
    ProgressSink,
};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::{BuildProgress, Explain, STORE_DIR, StorePath, chain};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

use crate::FileErrorExt;
use crate::closure::precedence::Precedence;
use crate::closure::singleflight::SingleFlight;
use crate::closure::store::{self, Resolved};
use crate::closure::{ClosureError, check_nix};
use crate::tree::{self, blocking};

mod base;
mod claim;
mod config;
mod diagnosis;
mod error;
mod hash;
mod import;
mod key;
mod limits;
mod locate;
mod nix;
mod object;
mod registry;
mod repository;
mod roots;
mod sandbox;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod users;

pub use crate::closure::cause::HostFault;
pub use config::{DEFAULT_USER, EvaluationLimits, EvaluatorConfig};
pub use error::EvaluateError;
pub use key::{Base, Locked, key};
pub use limits::BuildLimits;

use claim::Claims;
use limits::BuildCgroups;
use nix::Nix;
use sandbox::{MetaOutput, Sandbox};

/// Evaluates with Nix in a sandbox. Coalesces concurrent evaluations of the same key.
pub struct NixEvaluator {
    shared: Arc<Shared>,
    in_flight: SingleFlight<(EvaluationKey, Effort), Evaluated, EvaluateError>,
    precedence: Precedence,
}

struct Shared {
    config: EvaluatorConfig,
    network: Arc<dyn BuildNetwork>,
    cgroups: BuildCgroups,
    base: OnceCell<Base>,
    claims: Claims,
    /// Limits concurrent evaluations.
    permits: Semaphore,
    evaluations: AtomicU64,
}

impl NixEvaluator {
    /// Creates the driver without touching the host.
    #[must_use]
    pub fn new(config: EvaluatorConfig, network: Arc<dyn BuildNetwork>) -> Self {
        let permits = Semaphore::new(config.concurrent.max(1));
        Self {
            shared: Arc::new(Shared {
                cgroups: BuildCgroups::new(&config.builds),
                config,
                network,
                base: OnceCell::new(),
                claims: Claims::default(),
                permits,
                evaluations: AtomicU64::new(0),
            }),
            in_flight: SingleFlight::default(),
            precedence: Precedence::default(),
        }
    }
}

#[async_trait]
impl Evaluator for NixEvaluator {
    async fn key(&self, sources: &SourceTree) -> Result<EvaluationKey, FacilityError> {
        Ok(key(sources, self.shared.base().await?))
    }

    async fn evaluate(
        &self,
        sources: &SourceTree,
        known: Option<&Evaluated>,
        effort: Effort,
        progress: ProgressSink,
    ) -> Result<Evaluated, FacilityError> {
        self.shared.require_size(sources)?;
        let key = self.key(sources).await?;
        let start = |progress: watch::Sender<BuildProgress>| {
            let job = Job {
                shared: Arc::clone(&self.shared),
                key: key.clone(),
                effort,
                progress,
            };
            let (sources, known) = (sources.clone(), known.cloned());
            async move { job.run(&sources, known).await.map_err(Arc::new) }.boxed()
        };
        let work = (key.clone(), effort);
        let outcome = match effort {
            Effort::Normal => {
                let _claim = self.precedence.claim();
                self.in_flight.join(&work, &progress, start).await
            }
            Effort::Background => tokio::select! {
                biased;
                () = self.precedence.lost() => return Err(ClosureError::GaveWay.into()),
                outcome = self.in_flight.join(&work, &progress, start) => outcome,
            },
        };
        Ok(outcome.map_err(EvaluateError::Shared)?)
    }

    async fn requisites(&self, closure: &StorePath) -> Result<Vec<StorePath>, FacilityError> {
        let config = &self.shared.config;
        let nix = Nix::new(&config.nix, &config.scratch);
        let paths = nix.requisites(&[closure.as_path().to_owned()]).await;
        let paths = paths.map_err(EvaluateError::from)?;
        Ok(nix::store_paths(&paths))
    }

    async fn inspect(&self, sources: &SourceTree) -> Result<Inspected, FacilityError> {
        match self.shared.inspect(sources).await {
            Ok(meta) => Ok(Inspected {
                problems: Vec::new(),
                meta,
            }),
            Err(error) => match error.problems() {
                Some(problems) => Ok(Inspected {
                    problems,
                    meta: None,
                }),
                None => Err(error.into()),
            },
        }
    }

    async fn forget(&self, key: &EvaluationKey) -> Result<(), FacilityError> {
        let folder = self.shared.config.roots.join(key.as_str());
        Ok(blocking(move || tree::remove(&folder).map_err(EvaluateError::File)).await?)
    }

    async fn kept(&self) -> Result<Vec<EvaluationKey>, FacilityError> {
        let roots = self.shared.config.roots.clone();
        let mut kept = blocking(move || roots::list(&roots).map_err(EvaluateError::File)).await?;
        let is_in_flight = |key: &EvaluationKey| {
            [Effort::Normal, Effort::Background]
                .into_iter()
                .any(|effort| self.in_flight.is_in_flight(&(key.clone(), effort)))
        };
        kept.retain(|key| !is_in_flight(key));
        Ok(kept)
    }

    async fn check(&self) -> Vec<Check> {
        let config = &self.shared.config;
        let nix = Nix::new(&config.nix, &config.scratch);
        let mut checks = vec![
            check_nix(&config.nix.program).await,
            check(
                "evaluator",
                sandbox::check(config),
                "its programs and its user exist",
            ),
            check(
                "nixpkgs for previews",
                base::check(config),
                "nixpkgs and the base module exist",
            ),
            check(
                "build users",
                nix.builders().await.map(drop),
                "builds of previews cannot change the Nix store",
            ),
            check(
                "space for builds",
                config.builds.require_space(),
                "the disk of the Nix store has enough free space",
            ),
        ];
        if let Ok(settings) = nix.host_settings().await {
            let by_itself = settings::builds_by_itself(&settings);
            checks.extend(limits::check(&config.builds, by_itself));
        }
        checks
    }
}

fn check(subject: &str, outcome: Result<(), EvaluateError>, ok_finding: &str) -> Check {
    Check {
        subject: subject.to_owned(),
        verdict: if outcome.is_ok() {
            Verdict::Ok
        } else {
            Verdict::Broken
        },
        finding: match &outcome {
            Ok(()) => ok_finding.to_owned(),
            Err(error) => chain(error),
        },
        remedy: outcome.err().and_then(|error| error.remedy()),
    }
}

impl Shared {
    /// Returns the sources that all previews share. Read once: changes take effect after a restart of the daemon.
    async fn base(&self) -> Result<&Base, EvaluateError> {
        self.base.get_or_try_init(|| self.prepare()).await
    }

    fn require_size(&self, sources: &SourceTree) -> Result<(), EvaluateError> {
        let (size, limit) = (sources.size(), self.config.limits.config);
        if size > limit {
            return Err(EvaluateError::TooLarge { size, limit });
        }
        Ok(())
    }

    /// Evaluates without a build. Returns the metadata unless a build makes it.
    async fn inspect(&self, sources: &SourceTree) -> Result<Option<Meta>, EvaluateError> {
        self.require_size(sources)?;
        let _permit = self.permits.acquire().await.ok();
        let number = self.evaluations.fetch_add(1, Ordering::Relaxed);
        let base = self.base().await?;
        let scratch = self.config.scratch.join(number.to_string());
        let sandbox =
            Sandbox::evaluate(&self.config, base, scratch, sources, Effort::Normal, |_| ()).await?;
        let result = Instantiated::from_output(&sandbox, sources)?;
        sandbox
            .repository
            .require_no_partial_copy(sources, &sandbox.registry, &result.roots)?;
        Ok(match result.meta {
            MetaSource::Inline(meta) => Some(meta),
            MetaSource::File(_) => None,
        })
    }

    async fn prepare(&self) -> Result<Base, EvaluateError> {
        let scratch = &self.config.scratch;
        // Leftovers of a crash. Evaluations start only after this.
        tree::remove(scratch)?;
        fs::create_dir_all(scratch).on("create", scratch)?;
        base::lock(&self.config).await
    }
}

/// One evaluation and build.
struct Job {
    shared: Arc<Shared>,
    key: EvaluationKey,
    effort: Effort,
    progress: watch::Sender<BuildProgress>,
}

impl Job {
    async fn run(
        self,
        sources: &SourceTree,
        known: Option<Evaluated>,
    ) -> Result<Evaluated, EvaluateError> {
        let folder = self.shared.config.roots.join(self.key.as_str());
        let claim = self.shared.claims.begin(&self.key, &folder);
        if let Some(known) = known
            && known.key == self.key
        {
            // The root first: the garbage collector cannot delete the closure after the check.
            roots::set(&folder, roots::CLOSURE, &known.closure)?;
            if self.is_valid(&known.closure).await && store::verify(&known.closure).is_ok() {
                claim.keep();
                return Ok(known);
            }
        }
        let evaluated = self.evaluate(sources, &folder).await?;
        claim.keep();
        Ok(evaluated)
    }

    async fn evaluate(
        &self,
        sources: &SourceTree,
        folder: &Path,
    ) -> Result<Evaluated, EvaluateError> {
        let shared = &self.shared;
        let permit = self.wait_for_permit().await;
        // Fails early: the evaluation takes longer.
        self.require_safe_builds().await?;
        let number = shared.evaluations.fetch_add(1, Ordering::Relaxed);
        let base = shared.base().await?;
        // Numbered, not named by the key: a canceled evaluation of this key may still be removing its folder.
        let scratch = shared.config.scratch.join(number.to_string());
        let report = |progress| self.report(progress);
        let effort = self.effort;
        let sandbox = Sandbox::evaluate(&shared.config, base, scratch, sources, effort, report);
        let sandbox = sandbox.await?;
        let result = Instantiated::from_output(&sandbox, sources)?;
        sandbox
            .repository
            .require_no_partial_copy(sources, &sandbox.registry, &result.roots)?;
        result.set_roots(folder)?;
        let limit = shared.config.limits.disk.bytes();
        let imported = import::import(
            &self.nix(),
            &sandbox.store(),
            &sandbox.registry,
            &result.roots,
            limit,
        )
        .await?;
        tracing::debug!(key = %self.key, imported, "imported derivations");
        drop((sandbox, permit));
        self.build(result, sources, folder).await
    }

    /// Waits for a free evaluation slot, which bounds memory use. Builds need none: Nix queues them.
    async fn wait_for_permit(&self) -> Option<SemaphorePermit<'_>> {
        let permits = &self.shared.permits;
        if let Ok(permit) = permits.try_acquire() {
            return Some(permit);
        }
        self.report(BuildProgress {
            activity: "waiting for other evaluations".to_owned(),
            ..BuildProgress::default()
        });
        permits.acquire().await.ok()
    }

    /// Fails unless builders can neither change the store nor reach the host's own network.
    async fn require_safe_builds(&self) -> Result<(), EvaluateError> {
        self.shared.config.builds.require_space()?;
        let builders = self.nix().builders().await?;
        let filtered = self.shared.network.ensure(&builders).await;
        filtered.map_err(EvaluateError::BuildNetwork)
    }

    async fn build(
        &self,
        result: Instantiated,
        sources: &SourceTree,
        folder: &Path,
    ) -> Result<Evaluated, EvaluateError> {
        self.require_safe_builds().await?;
        let limit = self.shared.config.limits.build;
        let (limits, cgroups) = (&self.shared.config.builds, &self.shared.cgroups);
        let derivations: Vec<&StorePath> = result.roots.iter().collect();
        let nix = self.nix();
        let report = |progress| self.report(progress);
        let built = nix
            .realise(&derivations, limit, limits, cgroups, self.effort, report)
            .await?;
        if !built.contains(&result.closure) {
            return Err(EvaluateError::Refused(
                "the closure is not an output of its derivation".to_owned(),
            ));
        }
        store::verify(&result.closure)?;
        let meta = match result.meta {
            MetaSource::Inline(meta) => meta,
            MetaSource::File(path) => {
                parse_meta(&read_meta(path, &built, &result.roots).await?, sources)?
            }
        };
        roots::keep_only_closure(folder)?;
        Ok(Evaluated {
            key: self.key.clone(),
            closure: result.closure,
            meta,
        })
    }

    async fn is_valid(&self, path: &StorePath) -> bool {
        let missing = self.nix().missing(&[path]).await;
        missing.is_ok_and(|missing| missing.is_empty())
    }

    fn nix(&self) -> Nix<'_> {
        Nix::new(&self.shared.config.nix, &self.shared.config.scratch)
    }

    fn report(&self, progress: BuildProgress) {
        self.progress.send_if_modified(|current| {
            let changed = *current != progress;
            *current = progress;
            changed
        });
    }
}

/// The evaluator's result. Not trusted before the build has confirmed it.
struct Instantiated {
    /// Objects to build or import: the toplevel's derivation, and dependencies of the metadata.
    roots: Vec<StorePath>,
    closure: StorePath,
    meta: MetaSource,
}

/// The preview's metadata, or the file that will contain it.
enum MetaSource {
    Inline(Meta),
    File(PathBuf),
}

impl Instantiated {
    fn from_output(sandbox: &Sandbox, sources: &SourceTree) -> Result<Self, EvaluateError> {
        let toplevel = &sandbox.output.toplevel;
        let mut roots = vec![toplevel.derivation.clone()];
        let meta = match &sandbox.output.meta {
            MetaOutput::Inline { json } => MetaSource::Inline(parse_meta(json, sources)?),
            MetaOutput::File { path, needs } => {
                roots.extend(needs.iter().cloned());
                MetaSource::File(path.clone())
            }
        };
        if !toplevel.derivation.as_str().ends_with(".drv") {
            return Err(EvaluateError::Refused(
                "system.build.toplevel is not a derivation".to_owned(),
            ));
        }
        Ok(Self {
            roots,
            closure: toplevel.out.clone(),
            meta,
        })
    }

    /// Sets GC roots for the closure and its inputs, before any of them exists.
    fn set_roots(&self, folder: &Path) -> Result<(), EvaluateError> {
        roots::set(folder, roots::CLOSURE, &self.closure)?;
        for (number, root) in self.roots.iter().enumerate() {
            roots::set(folder, &format!("root-{number}"), root)?;
        }
        Ok(())
    }
}

fn parse_meta(json: &str, sources: &SourceTree) -> Result<Meta, EvaluateError> {
    Meta::parse(json).map_err(|problems| EvaluateError::wrong_meta(sources, &problems))
}

/// Reads metadata from the store, only from objects that were built or imported for this preview.
async fn read_meta(
    path: PathBuf,
    built: &[StorePath],
    imported: &[StorePath],
) -> Result<String, EvaluateError> {
    let belongs = built
        .iter()
        .chain(imported)
        .any(|object| path.starts_with(object.as_path()));
    if !belongs {
        return Err(EvaluateError::Meta(
            "its file is not part of the preview".to_owned(),
        ));
    }
    blocking(move || {
        let file = match store::resolve(Path::new(STORE_DIR), &path)? {
            Resolved::Inside(file) => file,
            Resolved::Outside(_) => {
                return Err(EvaluateError::Meta(
                    "it points outside the store".to_owned(),
                ));
            }
            Resolved::Missing => {
                return Err(EvaluateError::Meta("its file does not exist".to_owned()));
            }
        };
        let metadata = fs::symlink_metadata(&file).on("inspect", &file)?;
        if !metadata.is_file() {
            return Err(EvaluateError::Meta("it is not a regular file".to_owned()));
        }
        if metadata.len() > Meta::MAX_BYTES as u64 {
            return Err(EvaluateError::Meta(format!(
                "it exceeds {} bytes",
                Meta::MAX_BYTES
            )));
        }
        let bytes = fs::read(&file).on("read", &file)?;
        String::from_utf8(bytes).map_err(|_| EvaluateError::Meta("it is not UTF-8".to_owned()))
    })
    .await
}
