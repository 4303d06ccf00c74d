//! From the configuration to a daemon that answers, and back to nothing.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::{Engine, EngineError};
use innkeeper_host::features::FeatureError;
use innkeeper_host::identity::Identity;
use innkeeper_host::{FileError, FileErrorExt, HostError};
use innkeeper_model::{Code, Explain, SlotBounds, chain};
use innkeeper_preview::Previews;
use innkeeper_store::StoreError;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{self, Context, Peer};
use crate::claims::{self, Claim};
use crate::config::{Config, ConfigError, Loaded};
use crate::intake::{self, Bell};
use crate::lock::{LockError, StateLock};
use crate::registry::{self, Entry, RegistryError};
use crate::{previews, service, wiring};

/// How long operations under way may take to end when the daemon stops. What is not done by then goes on
/// at the next start.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long callers may take to hear their last answer.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon in the same state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The same, with the settings that both have.
    #[error("{held}; both are configured to use {shared}")]
    Held {
        /// Who has the state directory.
        held: LockError,
        /// The settings in conflict, with their values.
        shared: String,
        /// What to write for each of them.
        remedy: String,
    },
    /// Another daemon of the host has what this one is configured to use.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Guests have slots that the configuration leaves to other daemons.
    #[error("network.slots is \"{bounds}\", and guests have slots outside of it: {slots}")]
    Slots {
        /// The configured slots.
        bounds: SlotBounds,
        /// The guests' other slots.
        slots: String,
    },
    /// A file or a socket.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A resource.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What previews need: the files with credentials, GitHub's address.
    #[error("{0}")]
    Previews(innkeeper_model::Failure),
    /// The runtime, a signal handler, the server.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Explain for DaemonError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Lock(LockError::Held { .. }) | Self::Held { .. } => Code::StateLocked,
            Self::Registry(RegistryError::File(error)) => error.code_or(Code::Internal),
            Self::Registry(_) => Code::DaemonConflict,
            Self::Slots { .. } => Code::InvalidConfig,
            Self::Lock(LockError::File(error)) | Self::File(error) => error.code_or(Code::Internal),
            Self::Store(error) => error.code(),
            Self::Features(error) => error.code(),
            Self::Host(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Previews(failure) => failure.code,
            Self::System { .. } => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Lock(LockError::Held { .. }) => Some(
                "Stop it first. A second daemon needs a state_dir of its own, and further settings: docs/configuration.md, \"Several daemons on one host\".".to_owned(),
            ),
            Self::Held { remedy, .. } => Some(format!("Stop it first. To run a second daemon instead: {remedy}")),
            Self::Registry(error) => error.remedy(),
            Self::Slots { slots, .. } => Some(format!(
                "Set network.slots so that it contains {slots}, or set it back, destroy these guests (`agent list` shows their slots' addresses), and then change it."
            )),
            Self::Lock(LockError::File(error)) | Self::File(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Features(error) => error.remedy(),
            Self::Host(error) => error.remedy(),
            Self::Engine(error) => error.remedy(),
            Self::Previews(failure) => failure.remedy.clone(),
            Self::System { .. } => None,
        }
    }
}

/// Runs the daemon until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// When it cannot start, or its server fails.
pub fn run(loaded: Loaded) -> Result<(), DaemonError> {
    loaded.config.log.start()?;
    // Two threads are enough for what is mostly waiting, and keep the daemon small.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|source| system("start the runtime", source))?;
    let result = runtime.block_on(serve(loaded));
    // Threads that still work on the host's files end with the process; their work is taken up again.
    runtime.shutdown_background();
    result
}

async fn serve(loaded: Loaded) -> Result<(), DaemonError> {
    let started_at = Timestamp::now();
    let config = loaded.config;
    prepare_directories(&config)?;
    let domain = previews::domain(&config)?;
    let claims = claims::of(
        &config,
        config.supervisor.kind.is_systemd(),
        domain.as_deref(),
    );
    let _lock = StateLock::take(&config.state_dir)
        .map_err(|error| with_settings(error, &config, &claims))?;
    let store = wiring::store(&config).await?;
    let identity = store.identity().await?;
    // Before anything of the host is touched.
    let _registration = registry::join(
        &config.daemons_dir,
        &Entry {
            daemon: identity.daemon.clone(),
            state_dir: config.state_dir.clone(),
            claims,
        },
    )?;
    let identity = Identity::new(identity.daemon, !identity.adopted);
    let builds = wiring::build_filter(&config, &identity);
    let (engine, user_ids) = wiring::engine(&config, store, &identity, Arc::clone(&builds)).await?;
    let previews = previews::open(&config, &engine, &identity, user_ids, builds)?;
    let listener = api::bind(&config.socket(), &config.api.group)?;
    let stopping = stop_signal()?;
    let bell = Bell::default();
    // Before guests are restored: GitHub waits for ten seconds and no longer.
    let intake = intake::Listener::bind(&config.intake_socket(), &config.webhook.group)?;
    let intake_end = CancellationToken::new();
    let intake = tokio::spawn(intake::serve(
        intake,
        engine.store().clone(),
        bell.clone(),
        intake_end.clone(),
    ));
    adopt(&engine, previews.as_ref()).await?;
    engine.restore().await?;
    if let Some(previews) = &previews {
        previews.start(bell.listen());
    }
    let context = Context {
        engine: engine.clone(),
        previews: previews.clone(),
        bell,
        config: Arc::new(loaded.report),
        started_at,
        stopping: stopping.clone(),
    };
    tokio::spawn(service::watchdog(engine.clone(), stopping.clone()));
    let watching = {
        let engine = engine.clone();
        let interval = Duration::from_secs(config.engine.interval_seconds);
        tokio::spawn(async move { engine.watch(interval).await })
    };
    service::ready();
    info!(socket = %config.socket().display(), version = env!("CARGO_PKG_VERSION"), "ready");

    let app = api::router(context).into_make_service_with_connect_info::<Peer>();
    let server =
        axum::serve(listener, app).with_graceful_shutdown(stopping.clone().cancelled_owned());
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        // The server ends with the same signal, perhaps before we look; that is not the end of our work.
        biased;
        () = stopping.cancelled() => {}
        // Without a signal, it ends only when it cannot go on.
        result = &mut server => return joined(result),
    }
    service::stopping();
    info!("stopping; guests go on");
    if let Some(previews) = &previews {
        previews.stop().await;
    }
    if tokio::time::timeout(PATIENCE, engine.stop_working())
        .await
        .is_err()
    {
        warn!("operations are still under way; they go on at the next start");
    }
    watching.abort();
    // Deliveries are taken while operations end, which can take longer than GitHub waits. Whoever waits to hear
    // that one is on disk hears it; what comes later waits for the next daemon.
    intake_end.cancel();
    drop(tokio::time::timeout(GOODBYE, intake).await);
    if let Ok(result) = tokio::time::timeout(GOODBYE, server).await {
        joined(result)?;
    }
    if let Err(error) = engine.store().clone().close().await {
        warn!(%error, "the database was not closed properly; it is consistent all the same");
    }
    Ok(())
}

/// Marks what a former release made for our records, once. Without success, it is tried again at the next start.
async fn adopt(engine: &Engine, previews: Option<&Previews>) -> Result<(), DaemonError> {
    let store = engine.store();
    if store.identity().await?.adopted {
        return Ok(());
    }
    let mut failures = Vec::new();
    failures.extend(engine.adopt().await.err().map(|error| chain(&error)));
    if let Some(previews) = previews {
        failures.extend(previews.adopt().await.err().map(|error| chain(&error)));
    }
    if failures.is_empty() {
        store.finish_adoption().await?;
    } else {
        let failures = failures.join("; ");
        warn!("objects of a former release were not all marked: {failures}");
    }
    Ok(())
}

fn joined(result: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), DaemonError> {
    result
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| system("serve the API", source))
}

/// Adds the settings that the daemon which has the state directory uses as well.
fn with_settings(error: LockError, config: &Config, claims: &[Claim]) -> DaemonError {
    match (error, registry::shared(&config.daemons_dir, claims)) {
        (held @ LockError::Held { .. }, Some((shared, remedy))) => DaemonError::Held {
            held,
            shared,
            remedy,
        },
        (error, _) => error.into(),
    }
}

fn prepare_directories(config: &Config) -> Result<(), FileError> {
    // Guests' files may be set-user-id; nobody but root gets that far.
    make_directory(&config.state_dir, 0o700)?;
    // Members of the group pass through here to the socket; a guest's root to its door.
    make_directory(&config.runtime_dir, 0o755)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .on("create", path)
}

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
fn stop_signal() -> Result<CancellationToken, DaemonError> {
    let failed = |source| system("handle signals", source);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let token = CancellationToken::new();
    let stopping = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(130);
            }
            token.cancel();
        }
    });
    Ok(stopping)
}

fn system(action: &'static str, source: io::Error) -> DaemonError {
    DaemonError::System { action, source }
}
