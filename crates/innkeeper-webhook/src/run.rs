//! From the configuration to a program that answers, and back to nothing.

use std::time::Duration;

use innkeeper_model::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::Loaded;
use crate::error::WebhookError;
use crate::gate::{Gate, SharedGate};
use crate::intake::Intake;
use crate::receive::{self, Context};
use crate::server::{self, ServerLimits};
use crate::service;

/// How long requests under way may take when the program stops: as long as GitHub waits for an answer.
const GOODBYE: Duration = Duration::from_secs(10);

/// Runs until it is told to stop (SIGTERM, SIGINT). SIGHUP has secrets and repositories read again.
///
/// # Errors
/// When it cannot start.
pub fn run(loaded: Loaded) -> Result<(), WebhookError> {
    loaded.config.log.start()?;
    if rustix::process::geteuid().is_root() {
        warn!("this program needs no rights; give it a user of its own");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|source| system("start the runtime", source))?;
    runtime.block_on(serve(loaded))
}

async fn serve(loaded: Loaded) -> Result<(), WebhookError> {
    let config = &loaded.config;
    let gate = SharedGate::new(Gate::load(&loaded)?);
    let listener = server::listen(config.listen())?;
    let address = listener.local_addr().ok();
    let timeout = Duration::from_secs(config.webhook.timeout_seconds);
    let limits = ServerLimits {
        connections: config.webhook.max_connections,
        head: timeout,
    };
    let intake = Intake::start(config.intake());
    let app = receive::router(Context::new(
        gate.clone(),
        intake,
        timeout,
        limits.connections,
    ));
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hang_up = handle(SignalKind::hangup())?;
    tokio::spawn(service::watchdog());

    service::ready(address);
    info!(address = ?address, intake = %config.intake().display(), gate = %gate.get(), "ready");
    let stopping = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    service::reloading();
                    reload(&loaded, &gate);
                    service::ready(address);
                }
            }
        }
        service::stopping();
        info!("stopping");
    };
    server::serve(listener, app, limits, stopping, GOODBYE).await;
    Ok(())
}

/// Reads secrets and repositories again. What is wrong is said, and the former ones stay in force: a
/// misspelt file must not shut GitHub out.
fn reload(loaded: &Loaded, gate: &SharedGate) {
    let again = loaded
        .again(|name| std::env::var(name).ok())
        .map_err(WebhookError::from)
        .and_then(|again| Gate::load(&again));
    match again {
        Ok(new) => {
            info!(gate = %new, "secrets and repositories were read again");
            gate.replace(new);
        }
        Err(error) => error!(
            error = chain(&error),
            "the former secrets and repositories stay in force"
        ),
    }
}

fn handle(kind: SignalKind) -> Result<Signal, WebhookError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: std::io::Error) -> WebhookError {
    WebhookError::System { action, source }
}
