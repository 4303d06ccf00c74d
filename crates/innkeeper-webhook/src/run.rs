//! Start, reload and shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::chain;
use innkeeper_service::server::{self, Limits, Passed};
use innkeeper_service::systemd;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::allowlist::Allowlist;
use crate::config::Loaded;
use crate::error::WebhookError;
use crate::intake::Intake;
use crate::receive::{self, Context};

/// Grace period for requests in flight at shutdown: GitHub waits as long for a response.
const GRACE: Duration = Duration::from_secs(10);

/// The maximum length of a request's head, in bytes. Those of GitHub and of proxies have about 1,000.
const MAX_HEAD: usize = 16 * 1024;

/// Runs until SIGTERM or SIGINT. SIGHUP reloads secrets and repositories.
///
/// # Errors
/// When it cannot start.
pub fn run(loaded: &Loaded) -> Result<(), WebhookError> {
    loaded.config.log.start()?;
    if rustix::process::geteuid().is_root() {
        warn!("running as root, which is not needed; use a dedicated user");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|source| system("start the runtime", source))?;
    runtime.block_on(serve(loaded))
}

async fn serve(loaded: &Loaded) -> Result<(), WebhookError> {
    let config = &loaded.config;
    let (allowlist, current) = watch::channel(Arc::new(Allowlist::load(config)?));
    let listener = listen(config.listen())?;
    let address = listener.local_addr().ok();
    let timeout = Duration::from_secs(config.webhook.timeout_seconds);
    let limits = Limits {
        connections: config.webhook.max_connections,
        head: timeout,
        head_length: MAX_HEAD,
        stall: timeout,
    };
    let intake = Intake::start(config.intake());
    let app = receive::router(Context::new(current, intake, timeout, limits.connections));
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hang_up = handle(SignalKind::hangup())?;
    tokio::spawn(systemd::watchdog());

    systemd::ready(address);
    info!(?address, intake = %config.intake().display(), allowlist = %*allowlist.borrow(), "ready");
    let stopping = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    systemd::reloading();
                    reload(loaded, &allowlist);
                    systemd::ready(address);
                }
            }
        }
        systemd::stopping();
        info!("stopping");
    };
    if !server::serve(listener, app, limits, stopping, GRACE).await {
        warn!("canceled requests in flight; GitHub can deliver them again");
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, WebhookError> {
    let listener = Passed::receive().tcp(0, address);
    listener.map_err(|source| WebhookError::Listen {
        address: address.to_string(),
        source,
    })
}

/// Reloads secrets and repositories. On an error, the previous ones stay in force: a typo must not shut GitHub out.
fn reload(loaded: &Loaded, allowlist: &watch::Sender<Arc<Allowlist>>) {
    let reloaded = loaded
        .reload()
        .map_err(WebhookError::from)
        .and_then(|loaded| Allowlist::load(&loaded.config));
    match reloaded {
        Ok(new) => {
            info!(allowlist = %new, "reloaded secrets and repositories");
            allowlist.send_replace(Arc::new(new));
        }
        Err(error) => error!(
            error = chain(&error),
            "cannot reload secrets and repositories; the previous ones stay in force"
        ),
    }
}

fn handle(kind: SignalKind) -> Result<Signal, WebhookError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: std::io::Error) -> WebhookError {
    WebhookError::System { action, source }
}
