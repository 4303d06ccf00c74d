//! Connections and their limits.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use listenfd::ListenFd;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::error::PagesError;

/// The maximum length of a request's head, in bytes: visitors send what they like, and Caddy adds to it.
const MAX_HEAD: usize = 64 * 1024;

/// Timeout for a request's head, counted from the end of the previous request. Caddy keeps idle connections for two
/// minutes: it must not find one closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(150);

/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Returns the socket that systemd has opened (sd_listen_fds(3)), or else listens on this path.
///
/// # Errors
/// [`PagesError::Listen`].
pub(crate) fn listen(path: &Path) -> Result<UnixListener, PagesError> {
    bind(path).map_err(|source| PagesError::Listen {
        path: path.to_owned(),
        source,
    })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = match ListenFd::from_env().take_unix_listener(0)? {
        Some(passed) => passed,
        None => {
            remove_stale(path)?;
            let listener = StdListener::bind(path)?;
            // Caddy's user differs from installation to installation, and the pages are public.
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            listener
        }
    };
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Removes the socket of a former run. Another kind of file stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Serves until `stopping`, then waits for requests in flight, for `grace` at most.
pub(crate) async fn serve(
    listener: UnixListener,
    app: Router,
    connections: usize,
    stopping: impl Future<Output = ()>,
    grace: Duration,
) {
    let graceful = GracefulShutdown::new();
    tokio::select! {
        never = accept(&listener, app, connections, &graceful) => match never {},
        () = stopping => {}
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("canceled requests in flight");
    }
}

async fn accept(
    listener: &UnixListener,
    app: Router,
    connections: usize,
    graceful: &GracefulShutdown,
) -> std::convert::Infallible {
    let slots = Arc::new(Semaphore::new(connections));
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD);
    loop {
        // The semaphore is never closed, so this cannot fail.
        let slot = Arc::clone(&slots).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(app.clone());
        let connection = protocol.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
}
