//! Start and shutdown of the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_host::identity::Identity;
use innkeeper_host::{FileError, FileErrorExt};
use innkeeper_model::chain;
use innkeeper_preview::Previews;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{People, Publisher, Tokens};
use crate::api::{self, Context, Peer};
use crate::audit::AuditLog;
use crate::backup::{self, Backups};
use crate::claims::{self, Claim};
use crate::config::{Config, Loaded};
use crate::error::DaemonError;
use crate::gateway_check::GatewayCheck;
use crate::guarded;
use crate::intake::{self, Notifier};
use crate::lock::{LockError, StateLock};
use crate::prefetch::Prefetches;
use crate::quotas::Quotas;
use crate::registry::{self, Entry};
use crate::{gateway, previews, systemd, wakes, wiring};

/// Grace period for running operations at shutdown. The rest resumes at the next start.
const OPERATIONS_GRACE: Duration = Duration::from_secs(20);

/// Grace period for clients to read their last response.
const RESPONSE_GRACE: Duration = Duration::from_secs(2);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or its server fails.
pub fn run(loaded: Loaded) -> Result<(), DaemonError> {
    loaded.config.log.start()?;
    // Two threads suffice for work that mostly waits, and keep the daemon small.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|source| system("start the runtime", source))?;
    let result = runtime.block_on(serve(loaded));
    // Threads that still work on the host's files end with the process; the next start resumes their work.
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
    // Registers before the daemon changes anything on the host.
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
    let web = previews::web_ports(&config)?;
    let (engine, user_ids) =
        wiring::engine(&config, store, &identity, Arc::clone(&builds), web).await?;
    let previews = previews::open(&config, &engine, &identity, user_ids, builds)?;
    if let Some(previews) = &previews {
        previews.enforce_visibilities().await;
    }
    let listener = api::bind(&config.socket(), &config.api.group)?;
    let stopping = stop_signal()?;
    let notifier = Notifier::default();
    // Accepts deliveries before guests are restored: GitHub waits only for ten seconds.
    let intake = guarded::Listener::bind(
        &config.intake_socket(),
        &config.webhook.group,
        intake::PURPOSE,
    )?;
    let intake_end = CancellationToken::new();
    let intake = tokio::spawn(intake::serve(
        intake,
        engine.store().clone(),
        notifier.clone(),
        config.previews.admits_all(),
        intake_end.clone(),
    ));
    adopt(&engine, previews.as_ref()).await?;
    backup::clean_up(&engine, &config.state_dir).await;
    engine.restore().await?;
    let waking = match &previews {
        Some(previews) => {
            previews.start(notifier.subscribe());
            engine.set_level_hooks(Box::new(previews.clone()));
            let pages = &config.pages;
            let socket = wakes::bind(&pages.wake_socket(&config.runtime_dir), &pages.group)?;
            Some(tokio::spawn(wakes::serve(socket, previews.clone())))
        }
        None => None,
    };
    let prefetches = Prefetches::new(engine.clone(), previews.clone());
    prefetches.resume().await;
    let publisher = Publisher::new(&config.runtime_dir, &config.gateway.group);
    let people = People::new(&config, config.gateway.host(domain.as_deref()));
    let tokens = Tokens::open(engine.store().clone(), publisher, &config.gateway, &people).await?;
    let gateway = match config.gateway.enabled {
        true => Some(gateway::bind(&config.gateway, &config.runtime_dir)?),
        false => None,
    };
    let context = Context {
        engine: engine.clone(),
        previews: previews.clone(),
        prefetches,
        backups: Backups::new(engine.clone(), previews.clone(), config.state_dir.clone()),
        tokens,
        people,
        audit: AuditLog::new(engine.store().clone(), &config.audit),
        quotas: Quotas::new(engine.clone(), &config),
        notifier,
        gateway: GatewayCheck::new(&config),
        config: Arc::new(loaded.report),
        started_at,
        stopping: stopping.clone(),
    };
    tokio::spawn(systemd::watchdog(engine.clone(), stopping.clone()));
    let watching = {
        let engine = engine.clone();
        let interval = Duration::from_secs(config.engine.interval_seconds);
        tokio::spawn(async move { engine.watch(interval).await })
    };
    let measuring = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.measure().await })
    };
    let measuring_disks = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.measure_disks().await })
    };
    let following = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.follow_packets().await })
    };
    let pool = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.keep_seats().await })
    };
    let following_memory = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.follow_memory().await })
    };
    systemd::ready();
    info!(socket = %config.socket().display(), version = env!("CARGO_PKG_VERSION"), "ready");

    let app = api::router(context);
    let gateway = gateway
        .map(|listener| tokio::spawn(gateway::serve(listener, app.clone(), stopping.clone())));
    let app = app.into_make_service_with_connect_info::<Peer>();
    let server =
        axum::serve(listener, app).with_graceful_shutdown(stopping.clone().cancelled_owned());
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        // The server may end with the same signal, so the signal is checked first: the shutdown below must still run.
        biased;
        () = stopping.cancelled() => {}
        // Without a signal, the server ends only with an error.
        result = &mut server => return joined(result),
    }
    systemd::stopping();
    info!("stopping; guests keep running");
    if let Some(waking) = waking {
        waking.abort();
    }
    if let Some(previews) = &previews {
        previews.stop().await;
    }
    if tokio::time::timeout(OPERATIONS_GRACE, engine.stop_working())
        .await
        .is_err()
    {
        warn!("operations are still running; they resume at the next start");
    }
    watching.abort();
    measuring.abort();
    measuring_disks.abort();
    following.abort();
    pool.abort();
    following_memory.abort();
    // Deliveries are accepted until operations have ended, which can take longer than GitHub waits. Recorded deliveries
    // are answered; later ones wait for the next daemon.
    intake_end.cancel();
    drop(tokio::time::timeout(RESPONSE_GRACE, intake).await);
    if let Ok(result) = tokio::time::timeout(RESPONSE_GRACE, server).await {
        joined(result)?;
    }
    if let Some(gateway) = gateway {
        drop(tokio::time::timeout(RESPONSE_GRACE, gateway).await);
    }
    if let Err(error) = engine.store().clone().close().await {
        warn!(%error, "cannot close the database; it is consistent nevertheless");
    }
    Ok(())
}

/// Marks objects of recorded guests and previews that a previous release created, once. Retried at the next start if it
/// fails.
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
        warn!("cannot mark all objects of a previous release: {failures}");
    }
    Ok(())
}

fn joined(result: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), DaemonError> {
    result
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| system("serve the API", source))
}

/// Adds the settings in conflict to the error, if another daemon holds the state directory.
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
    // Root only: guests' files may be set-user-ID.
    make_directory(&config.state_dir, 0o700)?;
    // Searchable for all: members of the group reach the socket here, and a guest's root its door.
    make_directory(&config.runtime_dir, 0o755)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .on("create", path)
}

/// Returns a token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once.
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
