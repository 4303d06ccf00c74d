//! Closures of previews: a repository's `preview-config.nix`, evaluated as the code of strangers.
//!
//! ```text
//!  preview-config.nix ──► place: own user, own namespaces ──► derivations, each checked ──► the host's Nix
//!  nixpkgs, base module ─►   nix-instantiate, scratch store      against its own hash          builds, sandboxed
//! ```
//!
//! # What protects the host
//!
//! The evaluator runs in a **place** (`sandbox.sh`) of its own mount, network, process, IPC and host name
//! namespaces. Its root has the evaluator's programs, nixpkgs, the base module and the file itself, all read-only,
//! and a scratch store in memory; the host's `/var/secrets`, `/root`, `/home`, `/etc`, state directory, sockets and
//! store are not there. Its user owns nothing, has no capabilities and cannot gain any. There is no network interface
//! that is up. Address space, processor time, time, processes, output and disk are limited, and all of it ends with
//! the place's first process, at the latest when the daemon ends.
//!
//! Inside, Nix evaluates purely and restricted, without import from derivation. That is the first line and not the
//! only one: `builtins.path` with a hash reads any path even in a pure evaluation, and its `filter` tells the names
//! of files. It can tell only what the place has.
//!
//! # How the result gets out
//!
//! Nix's own ways ask for trust: `nix-store --import` as root believes what it is told, and `nix copy --from` a store
//! of the evaluator's would have root open a database that a stranger wrote. So the daemon reads the objects itself
//! from the place's store, following no link, and takes only those whose path is the hash of what it has read
//! (derivations, sources, plain files). Such an object cannot stand in for anything else. What the host has already is
//! neither read nor copied, so the second preview on the same nixpkgs brings a few derivations.
//!
//! # What protects the host from the build
//!
//! A derivation is a program that the host runs. Nix's sandbox is always on for previews and never falls back:
//! the builder sees its inputs and nothing of the host's files, as a build user (NixOS: `nixbld`). Without build users it
//! would own the store's files and could change its inputs on the host, so nothing is built then (`users.rs`). A build
//! with a fixed output has the host's network, as everywhere in Nix: a [`BuildNetwork`] keeps it from the host itself and
//! from private networks, and nothing is built without it. It does not get the daemon's environment (see `nix.rs`).
//!
//! # On the host
//!
//! | what | where |
//! | --- | --- |
//! | GC root of a closure | `<roots>/<key>/closure` |
//! | GC roots of nixpkgs and the base module | `<roots>/.base/` |
//! | while an evaluation runs | `<scratch>/<number>/` |
//!
//! Tried with Nix 2.8 (Debian 12), alone and through its daemon, and with Nix 2.26. Only programs and formats are used that all versions since have:
//! `nix-instantiate --eval --json`, `nix-store --load-db`, `--dump-db`, `--import`, `--realise`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::Meta;
use innkeeper_model::{BuildProgress, Explain, STORE_DIR, StorePath, chain};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

use crate::closure::check_nix;
use crate::closure::flight::Flights;
use crate::closure::store::{self, Resolved};
use crate::facilities::{BuildNetwork, Evaluated, Evaluator, ProgressSink};
use crate::tree::{self, blocking};
use crate::{FileErrorExt, HostError};

mod base;
mod claim;
mod config;
mod error;
mod hash;
mod import;
mod key;
mod limits;
mod nix;
mod object;
mod place;
mod registry;
mod roots;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod users;

pub use crate::closure::cause::HostFault;
pub use config::{DEFAULT_USER, EvaluationLimits, EvaluatorConfig};
pub use error::EvaluateError;
pub use key::{Base, EvaluationKey, InvalidKey, Locked, key};
pub use limits::BuildLimits;

use claim::Claims;
use limits::BuildCgroups;
use nix::Nix;
use place::{MetaText, Place};

/// Evaluates with Nix, in a closed place.
pub struct NixEvaluator {
    shared: Arc<Shared>,
    flights: Flights<EvaluationKey, Evaluated, EvaluateError>,
}

struct Shared {
    config: EvaluatorConfig,
    network: Arc<dyn BuildNetwork>,
    cgroups: BuildCgroups,
    base: OnceCell<Base>,
    claims: Claims,
    room: Semaphore,
    evaluations: AtomicU64,
}

impl NixEvaluator {
    /// The driver; nothing is touched yet.
    #[must_use]
    pub fn new(config: EvaluatorConfig, network: Arc<dyn BuildNetwork>) -> Self {
        let room = Semaphore::new(config.concurrent.max(1));
        Self {
            shared: Arc::new(Shared {
                cgroups: BuildCgroups::new(&config.builds),
                config,
                network,
                base: OnceCell::new(),
                claims: Claims::default(),
                room,
                evaluations: AtomicU64::new(0),
            }),
            flights: Flights::default(),
        }
    }

    /// How often something was really evaluated since the start.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.shared.evaluations.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Evaluator for NixEvaluator {
    async fn key(&self, config: &str) -> Result<EvaluationKey, HostError> {
        Ok(key(config, self.shared.base().await?))
    }

    async fn evaluate(
        &self,
        config: &str,
        known: Option<&Evaluated>,
        progress: ProgressSink,
    ) -> Result<Evaluated, HostError> {
        let (size, limit) = (config.len(), self.shared.config.limits.config);
        if size > limit {
            return Err(EvaluateError::TooLarge { size, limit }.into());
        }
        let key = self.key(config).await?;
        let start = |progress: watch::Sender<BuildProgress>| {
            let work = Work {
                shared: Arc::clone(&self.shared),
                key: key.clone(),
                progress,
            };
            let (config, known) = (config.to_owned(), known.cloned());
            async move { work.run(&config, known).await.map_err(Arc::new) }.boxed()
        };
        let outcome = self.flights.join(&key, &progress, start).await;
        Ok(outcome.map_err(EvaluateError::Shared)?)
    }

    async fn forget(&self, key: &EvaluationKey) -> Result<(), HostError> {
        let folder = self.shared.config.roots.join(key.as_str());
        Ok(blocking(move || tree::remove(&folder).map_err(EvaluateError::File)).await?)
    }

    async fn kept(&self) -> Result<Vec<EvaluationKey>, HostError> {
        let roots = self.shared.config.roots.clone();
        let mut kept = blocking(move || roots::list(&roots).map_err(EvaluateError::File)).await?;
        kept.retain(|key| !self.flights.goes_on(key));
        Ok(kept)
    }

    async fn check(&self) -> Vec<Check> {
        let config = &self.shared.config;
        let nix = Nix::new(&config.nix, &config.scratch);
        let mut checks = vec![
            check_nix(&config.nix.program).await,
            check(
                "evaluator",
                place::check(config),
                "its programs and its user are there",
            ),
            check(
                "nixpkgs for previews",
                base::check(config),
                "it and the base module are there",
            ),
            check(
                "build users",
                nix.builders().await.map(drop),
                "builds of previews cannot change the Nix store",
            ),
            check(
                "space for builds",
                config.builds.require_space(),
                "there is enough on the disk of the Nix store",
            ),
        ];
        if let Ok(settings) = nix.host_settings().await {
            let by_itself = settings::builds_by_itself(&settings);
            checks.extend(limits::check(&config.builds, by_itself));
        }
        checks
    }
}

fn check(subject: &str, outcome: Result<(), EvaluateError>, well: &str) -> Check {
    Check {
        subject: subject.to_owned(),
        verdict: if outcome.is_ok() {
            Verdict::Ok
        } else {
            Verdict::Broken
        },
        finding: match &outcome {
            Ok(()) => well.to_owned(),
            Err(error) => chain(error),
        },
        remedy: outcome.err().and_then(|error| error.remedy()),
    }
}

impl Shared {
    /// What every preview is made of. Read once: a folder that changes counts when the daemon starts again.
    async fn base(&self) -> Result<&Base, EvaluateError> {
        self.base.get_or_try_init(|| self.prepare()).await
    }

    async fn prepare(&self) -> Result<Base, EvaluateError> {
        let scratch = &self.config.scratch;
        // What a crash left. No evaluation runs before this is done.
        tree::remove(scratch)?;
        fs::create_dir_all(scratch).on("create", scratch)?;
        base::lock(&self.config).await
    }
}

/// One evaluation and build.
struct Work {
    shared: Arc<Shared>,
    key: EvaluationKey,
    progress: watch::Sender<BuildProgress>,
}

impl Work {
    async fn run(self, config: &str, known: Option<Evaluated>) -> Result<Evaluated, EvaluateError> {
        let folder = self.shared.config.roots.join(self.key.as_str());
        let claim = self.shared.claims.begin(&self.key, &folder);
        if let Some(known) = known
            && known.key == self.key
        {
            // The root first: what is there then stays.
            roots::set(&folder, roots::CLOSURE, &known.closure)?;
            if self.is_valid(&known.closure).await && store::verify(&known.closure).is_ok() {
                claim.keep();
                return Ok(known);
            }
        }
        let evaluated = self.evaluate(config, &folder).await?;
        claim.keep();
        Ok(evaluated)
    }

    async fn evaluate(&self, config: &str, folder: &Path) -> Result<Evaluated, EvaluateError> {
        let shared = &self.shared;
        let room = self.room().await;
        // Before the evaluation, which takes longer.
        self.require_safe_builds().await?;
        let number = shared.evaluations.fetch_add(1, Ordering::Relaxed);
        let base = shared.base().await?;
        // Not by the key: one that was given up may still be clearing its folder away.
        let scratch = shared.config.scratch.join(number.to_string());
        let place = Place::evaluate(&shared.config, base, scratch, config, |now| {
            self.tell(now);
        })
        .await?;
        let made = Made::of(&place)?;
        made.keep(folder)?;
        let limit = shared.config.limits.disk.bytes();
        let taken = import::import(
            &self.nix(),
            &place.store(),
            &place.registry,
            &made.roots,
            limit,
        )
        .await?;
        tracing::debug!(key = %self.key, taken, "took derivations");
        drop((place, room));
        self.build(made, folder).await
    }

    /// Waits until this may start. Evaluations take memory; builds are Nix's to queue.
    async fn room(&self) -> Option<SemaphorePermit<'_>> {
        let room = &self.shared.room;
        if let Ok(permit) = room.try_acquire() {
            return Some(permit);
        }
        self.tell(BuildProgress {
            activity: "waiting for other evaluations".to_owned(),
            ..BuildProgress::default()
        });
        room.acquire().await.ok()
    }

    /// Makes sure that builders can neither change the store nor reach the host's own network.
    async fn require_safe_builds(&self) -> Result<(), EvaluateError> {
        self.shared.config.builds.require_space()?;
        let builders = self.nix().builders().await?;
        let filtered = self.shared.network.ensure(&builders).await;
        filtered.map_err(|source| EvaluateError::BuildNetwork(Box::new(source)))
    }

    async fn build(&self, made: Made, folder: &Path) -> Result<Evaluated, EvaluateError> {
        self.require_safe_builds().await?;
        let limit = self.shared.config.limits.build;
        let (limits, cgroups) = (&self.shared.config.builds, &self.shared.cgroups);
        let derivations: Vec<&StorePath> = made.roots.iter().collect();
        let nix = self.nix();
        let built = nix
            .realise(&derivations, limit, limits, cgroups, |now| self.tell(now))
            .await?;
        if !built.contains(&made.closure) {
            return Err(EvaluateError::Refused(
                "its closure is not what its derivation builds".to_owned(),
            ));
        }
        store::verify(&made.closure)?;
        let meta = match made.meta {
            Described::Here(meta) => meta,
            Described::In(path) => Meta::parse(&read_meta(path, &built, &made.roots).await?)?,
        };
        roots::settle(folder)?;
        Ok(Evaluated {
            key: self.key.clone(),
            closure: made.closure,
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

    fn tell(&self, news: BuildProgress) {
        self.progress.send_if_modified(|now| {
            let changed = *now != news;
            *now = news;
            changed
        });
    }
}

/// What an evaluator says it has made.
struct Made {
    /// What is to be built or is there: the toplevel's derivation, and what the meta data needs.
    roots: Vec<StorePath>,
    closure: StorePath,
    meta: Described,
}

/// What the preview says about itself, or where.
enum Described {
    Here(Meta),
    In(PathBuf),
}

impl Made {
    fn of(place: &Place) -> Result<Self, EvaluateError> {
        let toplevel = &place.answer.toplevel;
        let mut roots = vec![toplevel.derivation.clone()];
        let meta = match &place.answer.meta {
            MetaText::Here { json } => Described::Here(Meta::parse(json)?),
            MetaText::File { path, needs } => {
                roots.extend(needs.iter().cloned());
                Described::In(path.clone())
            }
        };
        if !toplevel.derivation.as_str().ends_with(".drv") {
            return Err(EvaluateError::Refused(
                "its system.build.toplevel is no derivation".to_owned(),
            ));
        }
        Ok(Self {
            roots,
            closure: toplevel.out.clone(),
            meta,
        })
    }

    /// Keeps all that will be there from Nix's garbage collection.
    fn keep(&self, folder: &Path) -> Result<(), EvaluateError> {
        roots::set(folder, roots::CLOSURE, &self.closure)?;
        for (number, root) in self.roots.iter().enumerate() {
            roots::set(folder, &format!("root-{number}"), root)?;
        }
        Ok(())
    }
}

/// Reads meta data from the store: out of what was built or brought, and of nothing else.
async fn read_meta(
    path: PathBuf,
    built: &[StorePath],
    brought: &[StorePath],
) -> Result<String, EvaluateError> {
    let ours = built
        .iter()
        .chain(brought)
        .any(|object| path.starts_with(object.as_path()));
    if !ours {
        return Err(EvaluateError::Meta(
            "it names a file that it does not bring".to_owned(),
        ));
    }
    blocking(move || {
        let file = match store::resolve(Path::new(STORE_DIR), &path)? {
            Resolved::Inside(file) => file,
            Resolved::Outside(_) => {
                return Err(EvaluateError::Meta("it leads out of the store".to_owned()));
            }
            Resolved::Nowhere => {
                return Err(EvaluateError::Meta("its file does not exist".to_owned()));
            }
        };
        let metadata = fs::symlink_metadata(&file).on("look at", &file)?;
        if !metadata.is_file() {
            return Err(EvaluateError::Meta("it is no file".to_owned()));
        }
        if metadata.len() > Meta::MAX_BYTES as u64 {
            return Err(EvaluateError::Meta(format!(
                "it has more than {} bytes",
                Meta::MAX_BYTES
            )));
        }
        let bytes = fs::read(&file).on("read", &file)?;
        String::from_utf8(bytes).map_err(|_| EvaluateError::Meta("it is no text".to_owned()))
    })
    .await
}
