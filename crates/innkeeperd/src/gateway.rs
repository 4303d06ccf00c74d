//! The socket on which `innkeeper-gateway` passes on the requests of other machines.
//!
//! It serves the same calls as the API's socket. The gateway names the actor of each request, and the daemon determines the
//! actor's rights: no request on this socket has those of root.

use std::path::Path;

use axum::Router;
use innkeeper_host::FileError;
use innkeeper_service::Gateway;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::api::Peer;
use crate::guarded::{Listener, Purpose};

/// The purpose of the socket. The gateway opens a connection for each request.
const PURPOSE: Purpose = Purpose {
    program: "innkeeper-gateway",
    connections: 256,
};

/// Listens on the socket. The caller must hold the state directory's lock.
///
/// # Errors
/// When the socket cannot be created.
pub(crate) fn bind(settings: &Gateway, runtime_dir: &Path) -> Result<Listener, FileError> {
    let path = settings.daemon_socket(runtime_dir);
    Listener::bind(&path, &settings.group, PURPOSE)
}

/// Serves until `stopping`, then completes the calls in flight.
pub(crate) async fn serve(listener: Listener, app: Router, stopping: CancellationToken) {
    let app = app.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        error!(%error, "requests of other machines are no longer accepted");
    }
}
