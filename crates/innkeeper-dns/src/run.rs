//! Start and shutdown.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use innkeeper_service::systemd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Loaded;
use crate::error::DnsError;
use crate::probe;
use crate::server::{self, Resolver};
use crate::upstream::Upstream;

/// The time in which the program still responds at its end, to requests that Caddy has begun.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT. Returns at once if `dns.port` is 0.
///
/// # Errors
/// When it cannot start.
pub fn run(loaded: &Loaded) -> Result<(), DnsError> {
    loaded.config.log.start()?;
    // After a crash. Until this program resolves names, Caddy looks up requests itself.
    unlink(&loaded.config.dns.table());
    if loaded.config.dns.port == 0 {
        systemd::ready(None::<String>);
        info!("guests have no resolver of the host: dns.port is 0");
        return Ok(());
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

async fn serve(loaded: &Loaded) -> Result<(), DnsError> {
    let config = &loaded.config;
    let sockets = server::listen((Ipv4Addr::UNSPECIFIED, config.dns.port).into()).await?;
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let listening = config.dns.listening();
    report(&listening)?;
    let table = config.dns.table();
    if let Err(error) = link(&table, &config.caddy.table) {
        // Guests need the resolver all the same.
        warn!(%error, "cannot create the link {}: Caddy looks up all requests itself", table.display());
    }
    let port = config.dns.port;
    tokio::spawn(systemd::watchdog_while(async move || {
        probe::responds(port, probe::LIMIT).await
    }));
    systemd::ready(None::<String>);
    info!(port = config.dns.port, "ready");

    let resolver = Resolver::new(config, Upstream::new(&config.network.nameservers));
    let serving = resolver.serve(&sockets);
    tokio::pin!(serving);
    let mut is_defect = false;
    tokio::select! {
        () = &mut serving => is_defect = true,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    systemd::stopping();
    info!("stopping");
    // First: without it, Caddy looks up requests itself.
    unlink(&table);
    if is_defect {
        return Err(DnsError::Ended);
    }
    tokio::time::timeout(DRAIN, serving).await.ok();
    // The daemon removes the resolver from guests. After a crash the file stays, since the program starts again.
    if let Err(error) = fs::remove_file(&listening) {
        warn!(%error, "cannot remove {}", listening.display());
    }
    Ok(())
}

/// Creates the file that shows the daemon that this program listens.
fn report(listening: &Path) -> Result<(), DnsError> {
    let write = || -> io::Result<()> {
        if let Some(directory) = listening.parent() {
            DirBuilder::new().recursive(true).create(directory)?;
        }
        fs::write(listening, b"")
    };
    write().map_err(|source| DnsError::Report {
        path: listening.to_owned(),
        source,
    })
}

/// Creates the link to the table by which Caddy finds settled routes while this program resolves their names.
fn link(link: &Path, table: &Path) -> io::Result<()> {
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(table, &new)?;
    fs::rename(&new, link)
}

/// Removes the link to the table.
fn unlink(link: &Path) {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%error, "cannot remove {}", link.display());
        }
        _ => {}
    }
}

fn handle(kind: SignalKind) -> Result<Signal, DnsError> {
    signal(kind).map_err(|source| system("handle signals", source))
}

fn system(action: &'static str, source: io::Error) -> DnsError {
    DnsError::System { action, source }
}
