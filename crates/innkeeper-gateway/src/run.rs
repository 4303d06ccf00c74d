//! Start, reload and shutdown.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::chain;
use innkeeper_service::server::{self, Limits, Passed};
use innkeeper_service::{Gateway, systemd};
use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, Loaded};
use crate::credentials::Credentials;
use crate::error::GatewayError;
use crate::metrics::{self, Metrics};
use crate::pairs::Pairs;
use crate::published::Published;
use crate::receive::{self, Context};

/// Grace period for requests in flight at shutdown. Events end at once: clients resume them.
const GRACE: Duration = Duration::from_secs(5);

/// The maximum length of a request's head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The index of the socket for metrics among those that systemd passes.
const METRICS_SOCKET: usize = 1;

/// The maximum number of connections to the address of the metrics.
const METRICS_CONNECTIONS: usize = 16;

/// Runs until SIGTERM or SIGINT. SIGHUP reads the file of tokens again.
///
/// # Errors
/// When it cannot start.
pub fn run(loaded: &Loaded) -> Result<(), GatewayError> {
    loaded.config.log.start()?;
    if !loaded.config.gateway.enabled {
        return Err(GatewayError::Disabled);
    }
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

async fn serve(loaded: &Loaded) -> Result<(), GatewayError> {
    let config = &loaded.config;
    let (pairs, current) = watch::channel(Arc::new(Pairs::load(config)?));
    let mut passed = Passed::receive();
    let listener = listen(&config.gateway, &mut passed)?;
    let metrics_listener = listen_for_metrics(&config.gateway, &mut passed)?;
    let published = Published::new(config.gateway.published_tokens(&config.runtime_dir));
    let credentials = Arc::new(Credentials::new(published, current));
    let metrics = Metrics::default();
    let app = receive::router(Context::new(
        config,
        Arc::clone(&credentials),
        metrics.clone(),
    ));
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hang_up = handle(SignalKind::hangup())?;
    tokio::spawn(systemd::watchdog());
    let address = metrics_listener.as_ref().and_then(|l| l.local_addr().ok());
    if let Some(listener) = metrics_listener {
        let limits = limits(config, METRICS_CONNECTIONS);
        let app = metrics::router(metrics, credentials);
        tokio::spawn(server::serve(
            listener,
            app,
            limits,
            std::future::pending(),
            GRACE,
        ));
    }

    systemd::ready(address);
    let socket = config.gateway.socket.display();
    info!(%socket, metrics = ?address, pairs = %*pairs.borrow(), "ready");
    let stopping = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    systemd::reloading();
                    reload(loaded, &pairs);
                    systemd::ready(address);
                }
            }
        }
        systemd::stopping();
        info!("stopping");
    };
    let limits = limits(config, config.gateway.max_connections);
    if !server::serve(listener, app, limits, stopping, GRACE).await {
        warn!("canceled requests in flight");
    }
    Ok(())
}

fn limits(config: &Config, connections: usize) -> Limits {
    Limits {
        connections,
        head: config.timeout(),
        head_length: MAX_HEAD,
        stall: config.stall_timeout(),
    }
}

/// Reads the tokens of the file again. On an error, the previous ones stay in force: a typo must not lock programs out.
fn reload(loaded: &Loaded, pairs: &watch::Sender<Arc<Pairs>>) {
    let reloaded = loaded
        .reload()
        .map_err(GatewayError::from)
        .and_then(|loaded| Ok(Pairs::load(&loaded.config)?));
    match reloaded {
        Ok(new) => {
            info!(pairs = %new, "reloaded the tokens");
            pairs.send_replace(Arc::new(new));
        }
        Err(error) => error!(
            error = chain(&error),
            "cannot reload the tokens; the previous ones stay in force"
        ),
    }
}

fn listen(gateway: &Gateway, passed: &mut Passed) -> Result<UnixListener, GatewayError> {
    let admit = |path: &Path| admit_group(path, &gateway.socket_group);
    let listener = passed.unix(0, &gateway.socket, admit);
    listener.map_err(|source| GatewayError::Listen {
        path: gateway.socket.clone(),
        source,
    })
}

/// Gives a socket to a group: others on the host could claim to be any client.
fn admit_group(path: &Path, group: &str) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let missing = || {
        let text = format!("the group {group} of gateway.socket_group does not exist");
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    let group = Group::from_name(group)?.ok_or_else(missing)?;
    chown(path, None, Some(group.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
}

/// Listens on the address of the metrics, if one is configured.
fn listen_for_metrics(
    gateway: &Gateway,
    passed: &mut Passed,
) -> Result<Option<TcpListener>, GatewayError> {
    // Validated: it is an address, or empty.
    let Ok(address) = gateway.metrics_listen.parse() else {
        return Ok(None);
    };
    let listener = passed.tcp(METRICS_SOCKET, address);
    let listener = listener.map_err(|source| GatewayError::Metrics {
        address: address.to_string(),
        source,
    })?;
    Ok(Some(listener))
}

fn handle(kind: SignalKind) -> Result<Signal, GatewayError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: io::Error) -> GatewayError {
    GatewayError::System { action, source }
}
