//! Connections that switched to another protocol: bytes in both directions, until one side ends.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use innkeeper_service::server::Link;
use tokio::io::copy_bidirectional;
use tracing::debug;

/// Connects two connections in a task of its own. `link` occupies the client's slot until the end; `held` is dropped then.
/// When the program stops, open tunnels have its grace period.
pub(crate) fn open(client: OnUpgrade, daemon: OnUpgrade, link: Link, held: impl Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = carry(client, daemon).await {
            debug!(%error, "a tunnel ended early");
        }
        drop((link, held));
    });
}

async fn carry(client: OnUpgrade, daemon: OnUpgrade) -> io::Result<()> {
    // First innkeeperd's: the client's is complete when it has the response.
    let daemon = daemon.await.map_err(io::Error::other)?;
    let client = client.await.map_err(io::Error::other)?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(daemon)).await?;
    Ok(())
}
