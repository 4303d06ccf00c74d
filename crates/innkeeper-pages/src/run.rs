//! Start and shutdown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use innkeeper_service::server::{self, Limits, Passed};
use innkeeper_service::systemd;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Loaded;
use crate::error::PagesError;
use crate::respond::{self, Context};

/// Grace period for requests in flight at shutdown. Live logs end at once: browsers connect again.
const GRACE: Duration = Duration::from_secs(5);

/// The maximum length of a request's head, in bytes: visitors send what they like, and Caddy adds to it.
const MAX_HEAD: usize = 64 * 1024;

/// Timeout for a request's head, counted from the end of the previous request. Caddy keeps idle connections for two
/// minutes: it must not find one closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(150);

/// Timeout for a visitor who follows a log and reads none of it.
const STALL_TIMEOUT: Duration = Duration::from_secs(150);

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
    let listener = listen(&pages.socket)?;
    let limits = Limits {
        connections: pages.max_connections,
        head: HEAD_TIMEOUT,
        head_length: MAX_HEAD,
        stall: STALL_TIMEOUT,
    };
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
    if !server::serve(listener, app, limits, stopping, GRACE).await {
        warn!("canceled requests in flight");
    }
    Ok(())
}

fn listen(path: &Path) -> Result<UnixListener, PagesError> {
    // Caddy's user differs from installation to installation, and the pages are public.
    let everybody = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666));
    let listener = Passed::receive().unix(0, path, everybody);
    listener.map_err(|source| PagesError::Listen {
        path: path.to_owned(),
        source,
    })
}

fn handle(kind: SignalKind) -> Result<Signal, PagesError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: std::io::Error) -> PagesError {
    PagesError::System { action, source }
}
