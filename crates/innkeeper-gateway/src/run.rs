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
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::access::key::Keys;
use crate::access::{self, Access, Key};
use crate::config::{Config, Loaded};
use crate::credentials::Credentials;
use crate::error::GatewayError;
use crate::login;
use crate::metrics::{self, Metrics};
use crate::pairs::Pairs;
use crate::published::Published;
use crate::receive::{self, Context};

/// Grace period for requests in flight at shutdown. Events end at once: clients resume them.
const GRACE: Duration = Duration::from_secs(5);

/// The maximum length of a request's head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The index of the socket for requests to the API among those that systemd passes.
const HTTP_SOCKET: usize = 0;

/// The index of the socket for metrics among those that systemd passes.
const METRICS_SOCKET: usize = 1;

/// The index of the socket for Caddy's questions about visitors.
const ACCESS_SOCKET: usize = 2;

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
    let gateway = &config.gateway;
    let listener = listen(&gateway.socket, HTTP_SOCKET, gateway, &mut passed)?;
    let metrics_listener = listen_for_metrics(&config.gateway, &mut passed)?;
    let published = Published::new(config.gateway.published_tokens(&config.runtime_dir));
    let credentials = Arc::new(Credentials::new(published, current));
    let metrics = Metrics::default();
    let (access, sandbox_keys) = Access::new(
        config,
        Keys::load(config)?,
        Arc::clone(&credentials),
        metrics.clone(),
    );
    let access = Arc::new(access);
    let context = Context::new(config, Arc::clone(&credentials), metrics.clone());
    let context = Arc::new(context);
    let app = receive::router(Arc::clone(&context))
        .merge(login::router(context))
        .merge(access::entrance(Arc::clone(&access)));
    let (stop, stopped) = watch::channel(false);
    let visits = serve_visits(config, &mut passed, access, stopped);
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
                    reload(loaded, &pairs, &sandbox_keys);
                    systemd::ready(address);
                }
            }
        }
        systemd::stopping();
        info!("stopping");
        stop.send_replace(true);
    };
    let limits = limits(config, config.gateway.max_connections);
    if !server::serve(listener, app, limits, stopping, GRACE).await {
        warn!("canceled requests in flight");
    }
    if let Some(visits) = visits
        && let Err(error) = visits.await
    {
        error!(%error, "the decisions about visitors ended early");
    }
    Ok(())
}

/// Serves the decisions about visitors until `stopped`. Without their socket, which units of an earlier release do not pass,
/// Caddy refuses all visitors of previews that are not public, and the API works on.
fn serve_visits(
    config: &Config,
    passed: &mut Passed,
    access: Arc<Access>,
    mut stopped: watch::Receiver<bool>,
) -> Option<JoinHandle<bool>> {
    let gateway = &config.gateway;
    let path = &gateway.access_socket;
    let listener = match listen(path, ACCESS_SOCKET, gateway, passed) {
        Ok(listener) => listener,
        Err(error) => {
            error!(
                error = chain(&error),
                "previews that are not public have no visitors"
            );
            return None;
        }
    };
    let stopping = async move {
        // An error means that the sender is gone, which is a stop, too.
        stopped.wait_for(|stopped| *stopped).await.ok();
    };
    let limits = limits(config, gateway.max_connections);
    let app = access::router(access);
    Some(tokio::spawn(server::serve(
        listener, app, limits, stopping, GRACE,
    )))
}

fn limits(config: &Config, connections: usize) -> Limits {
    Limits {
        connections,
        head: config.timeout(),
        head_length: MAX_HEAD,
        stall: config.stall_timeout(),
    }
}

/// Reads the tokens of the file, and the key of `sandbox_preview`, again. On an error, the previous ones stay in force: a typo must not lock programs out.
fn reload(
    loaded: &Loaded,
    pairs: &watch::Sender<Arc<Pairs>>,
    sandbox_keys: &watch::Sender<Option<Key>>,
) {
    let reloaded = loaded
        .reload()
        .map_err(GatewayError::from)
        .and_then(|loaded| {
            let pairs = Pairs::load(&loaded.config)?;
            Ok((pairs, Keys::load_sandbox(&loaded.config)?))
        });
    match reloaded {
        Ok((new, key)) => {
            info!(pairs = %new, "reloaded the tokens");
            pairs.send_replace(Arc::new(new));
            sandbox_keys.send_replace(key);
        }
        Err(error) => error!(
            error = chain(&error),
            "cannot reload the tokens; the previous ones stay in force"
        ),
    }
}

fn listen(
    path: &Path,
    index: usize,
    gateway: &Gateway,
    passed: &mut Passed,
) -> Result<UnixListener, GatewayError> {
    let admit = |path: &Path| admit_group(path, &gateway.socket_group);
    let listener = passed.unix(index, path, admit);
    listener.map_err(|source| GatewayError::Listen {
        path: path.to_owned(),
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
