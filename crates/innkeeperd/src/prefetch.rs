//! Builds closures before somebody requests them: of agents, and of the base branches of previews.
//!
//! One at a time, at low priority, and only while the host has resources to spare. The next daemon continues a prefetch that a
//! crash has interrupted: it starts again, and what is built already costs little then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::{Engine, EngineError, OperationLog};
use innkeeper_model::api::Accepted;
use innkeeper_model::{Code, Explain, Failure, Installable, OperationId, StorePath, Trust, Verb};
use innkeeper_preview::{BaseConfig, PreviewError, Previews};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::api_error::ApiError;

/// The maximum number of closures of one prefetch.
const MOST: usize = 100;

/// The time limit of one closure.
const LIMIT: Duration = Duration::from_secs(3600);

/// The interval at which the host's resources are checked during a build.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The step that builds one closure.
const STEP: &str = "prefetch-closure";

/// Runs prefetches, one at a time. Clones share this.
#[derive(Clone)]
pub(crate) struct Prefetches {
    engine: Engine,
    previews: Option<Previews>,
    running: Arc<Mutex<Option<OperationId>>>,
}

/// A closure to build.
enum Target {
    Agent(Installable),
    Base(BaseConfig),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(installable) => write!(f, "{installable}"),
            Self::Base(BaseConfig { repo, path }) => {
                write!(f, "{path} on the default branch of {repo}")
            }
        }
    }
}

/// The reason why a closure was not built.
#[derive(Debug, thiserror::Error)]
enum TargetError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Preview(#[from] PreviewError),
    #[error("it was not built within {} minutes", LIMIT.as_secs() / 60)]
    TooSlow,
}

impl Explain for TargetError {
    fn code(&self) -> Code {
        match self {
            Self::Engine(error) => error.code(),
            Self::Preview(error) => error.code(),
            Self::TooSlow => Code::BuildFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.remedy(),
            Self::Preview(error) => error.remedy(),
            Self::TooSlow => Some(
                "Build it yourself: `agent build` or `preview build` have no such limit."
                    .to_owned(),
            ),
        }
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Engine(error) => error.log(),
            Self::Preview(error) => error.log(),
            Self::TooSlow => &[],
        }
    }
}

impl Prefetches {
    pub(crate) fn new(engine: Engine, previews: Option<Previews>) -> Self {
        Self {
            engine,
            previews,
            running: Arc::default(),
        }
    }

    /// Starts a prefetch, or returns the one in progress.
    pub(crate) async fn start(&self, actor: &str, trust: Trust) -> Result<Accepted, ApiError> {
        if trust == Trust::Member {
            let failure = Failure::new(Code::InvalidRequest, "only root may prefetch closures");
            let remedy = "Run it as root (`sudo innkeeper prefetch`).";
            return Err(ApiError(failure.with_remedy(remedy)));
        }
        // Held until the operation is recorded: its end waits for that.
        let mut running = self.running.lock().await;
        if let Some(operation) = *running {
            return Ok(Accepted {
                operation,
                guest: None,
            });
        }
        let this = self.clone();
        let started = self
            .engine
            .run_operation(Verb::Prefetch, actor, |log| this.work(log));
        let accepted = started.await?;
        *running = Some(accepted.operation);
        Ok(accepted)
    }

    /// Continues the prefetch that the former daemon has left.
    pub(crate) async fn resume(&self) {
        let mut running = self.running.lock().await;
        let this = self.clone();
        let resumed = self
            .engine
            .resume_operation(Verb::Prefetch, |log| this.work(log));
        match resumed.await {
            Ok(operation) => *running = operation,
            Err(error) => warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
        }
    }

    async fn work(self, log: OperationLog) -> Result<(), Failure> {
        let ended = self.build_all(&log).await;
        *self.running.lock().await = None;
        ended
    }

    /// Builds the closures, one after the other. One that cannot be built does not keep the others from it: its flake or
    /// repository is other people's.
    async fn build_all(&self, log: &OperationLog) -> Result<(), Failure> {
        let targets = self.targets().await?;
        let (mut built, mut failed) = (0, 0);
        for (number, target) in targets.iter().enumerate() {
            let refused = |error: EngineError| {
                let left = targets.len() - number;
                log.note(format!("Stopped with {left} closures left."));
                Failure::from(&error)
            };
            self.engine
                .require_spare_resources()
                .await
                .map_err(refused)?;
            log.note(format!("Building {target}."));
            let step = Box::pin(log.step(STEP, self.build(target, log)));
            let ended = tokio::select! {
                ended = step => ended,
                error = self.until_short() => return Err(refused(error)),
            };
            match ended {
                Ok(()) => built += 1,
                Err(TargetError::Engine(EngineError::ShuttingDown)) => {
                    return Err(Failure::from(&EngineError::ShuttingDown));
                }
                Err(error) => {
                    failed += 1;
                    warn!(code = %error.code(), "cannot build {target} in advance: {}", innkeeper_model::chain(&error));
                    log.note(format!("{target}: {}", Failure::from(&error)));
                }
            }
        }
        log.note(match (built, failed) {
            (0, 0) => {
                "There is nothing to build: no flake is configured, and no repository has previews."
                    .to_owned()
            }
            (built, 0) => format!("Ready: {built}."),
            (built, failed) => format!("Ready: {built}. Not built: {failed}."),
        });
        Ok(())
    }

    async fn targets(&self) -> Result<Vec<Target>, Failure> {
        let flakes = self.engine.agent_flakes().await;
        let flakes = flakes.map_err(|error| Failure::from(&error))?;
        let mut targets: Vec<_> = flakes.into_iter().map(Target::Agent).collect();
        if let Some(previews) = &self.previews {
            let bases = previews.base_configs().await;
            let bases = bases.map_err(|error| Failure::from(&error))?;
            targets.extend(bases.into_iter().map(Target::Base));
        }
        targets.truncate(MOST);
        Ok(targets)
    }

    async fn build(&self, target: &Target, log: &OperationLog) -> Result<(), TargetError> {
        let progress = log.progress_sink();
        let build = async {
            let closure: Option<StorePath> = match (target, &self.previews) {
                (Target::Agent(installable), _) => {
                    let built = self.engine.build_in_background(installable, progress);
                    Some(built.await?)
                }
                (Target::Base(base), Some(previews)) => previews.build_base(base, progress).await?,
                (Target::Base(_), None) => None,
            };
            Ok(closure)
        };
        let closure = timeout(LIMIT, build)
            .await
            .unwrap_or(Err(TargetError::TooSlow))?;
        if let Some(closure) = closure {
            log.built(target.to_string(), closure);
        }
        Ok(())
    }

    /// Waits until the host has no resources to spare.
    async fn until_short(&self) -> EngineError {
        loop {
            sleep(CHECK_INTERVAL).await;
            if let Err(error) = self.engine.require_spare_resources().await {
                return error;
            }
        }
    }
}
