//! Connections that switched to another protocol: bytes in both directions, until both sides have ended.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use innkeeper_service::server::Link;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tracing::debug;

/// The size of a piece of a client's data, in bytes.
const PIECE: usize = 16 * 1024;

/// Connects two connections in a task of its own. `link` occupies the client's slot until the end; `held` is dropped then.
/// When the program stops, open tunnels have its grace period.
pub(crate) fn open(client: OnUpgrade, daemon: OnUpgrade, link: Link, held: impl Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = upgraded(client, daemon).await {
            debug!(%error, "a tunnel ended early");
        }
        drop((link, held));
    });
}

async fn upgraded(client: OnUpgrade, daemon: OnUpgrade) -> io::Result<()> {
    // First innkeeperd's: the client's is complete when it has the response.
    let daemon = daemon.await.map_err(io::Error::other)?;
    let client = client.await.map_err(io::Error::other)?;
    carry(TokioIo::new(client), TokioIo::new(daemon)).await
}

/// Carries bytes until both sides have ended, or the client is gone.
///
/// innkeeperd ends its side after a command's exit status, and may close it while the client still sends input. That input is
/// discarded, so that the status reaches the client: Caddy drops it when it cannot write to this program.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    daemon: impl AsyncRead + AsyncWrite,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_daemon, mut to_daemon) = tokio::io::split(daemon);
    let upward = async {
        let mut piece = vec![0; PIECE];
        let mut is_read = true;
        loop {
            let length = from_client.read(&mut piece).await?;
            if length == 0 {
                // It may be closed already.
                to_daemon.shutdown().await.ok();
                return Ok::<_, io::Error>(());
            }
            is_read = is_read && to_daemon.write_all(&piece[..length]).await.is_ok();
        }
    };
    let downward = async {
        if let Err(error) = tokio::io::copy(&mut from_daemon, &mut to_client).await {
            debug!(%error, "a tunnel broke");
        }
        // The protocols have an end of their own, so that no client takes a part for the whole.
        to_client.shutdown().await
    };
    tokio::try_join!(upward, downward).map(|_| ())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn last_data_of_the_daemon_arrives_though_it_reads_no_more() {
        let (client, mut near) = UnixStream::pair().expect("a pair");
        let (daemon, mut far) = UnixStream::pair().expect("a pair");
        near.write_all(b"the end of the input")
            .await
            .expect("sends");
        far.write_all(b"exit status").await.expect("sends");
        drop(far);
        let carried = tokio::spawn(carry(client, daemon));
        let mut received = Vec::new();
        near.read_to_end(&mut received).await.expect("receives");
        assert_eq!(received, b"exit status");
        drop(near);
        carried.await.expect("ends").expect("both have ended");
    }

    #[tokio::test]
    async fn end_of_one_side_is_that_of_the_other() {
        let (client, mut near) = UnixStream::pair().expect("a pair");
        let (daemon, mut far) = UnixStream::pair().expect("a pair");
        let carried = tokio::spawn(carry(client, daemon));
        near.write_all(b"input").await.expect("sends");
        near.shutdown().await.expect("ends");
        let mut input = Vec::new();
        far.read_to_end(&mut input).await.expect("receives");
        assert_eq!(input, b"input");
        // The client still receives.
        far.write_all(b"output").await.expect("sends");
        drop(far);
        let mut output = Vec::new();
        near.read_to_end(&mut output).await.expect("receives");
        assert_eq!(output, b"output");
        carried.await.expect("ends").expect("both have ended");
    }
}
