//! Start and shutdown.

use std::time::Duration;

use innkeeper_service::systemd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Loaded;
use crate::error::PagesError;
use crate::respond::{self, Context};
use crate::server;

/// Grace period for requests in flight at shutdown. Live logs end at once: browsers connect again.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(loaded: &Loaded) -> Result<(), PagesError> {
    loaded.config.log.start()?;
    if rustix::process::geteuid().is_root() {
        warn!("running as root, which is not needed; use a dedicated user");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|source| system("start the runtime", source))?;
    runtime.block_on(serve(loaded))
}

async fn serve(loaded: &Loaded) -> Result<(), PagesError> {
    let pages = &loaded.config.pages;
    let listener = server::listen(&pages.socket)?;
    let context = Context::new(&loaded.config);
    let closing = context.closing();
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    tokio::spawn(systemd::watchdog());

    systemd::ready(None::<String>);
    info!(socket = %pages.socket.display(), directory = %pages.directory.display(), "ready");
    let stopping = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        systemd::stopping();
        info!("stopping");
        closing.send_replace(true);
    };
    let app = respond::router(context);
    server::serve(listener, app, pages.max_connections, stopping, GRACE).await;
    Ok(())
}

fn handle(kind: SignalKind) -> Result<Signal, PagesError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: std::io::Error) -> PagesError {
    PagesError::System { action, source }
}
