//! HTTP/1.1 requests on a connection over TCP or a Unix socket.
//!
//! A [`Connection`] sends one request after the other. It has no pool, no redirects and no TLS, so its users compile
//! none of these: the programs on the daemon's socket, the webhook on the intake, the daemon on Caddy's admin API. A caller
//! with TLS of its own [opens](open) a connection on its stream.
//! Callers set the `Host` header and the timeout.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// An open connection. It closes when this is dropped and the response in flight was read or dropped.
pub type Connection = SendRequest<Full<Bytes>>;

/// Connects to a Unix socket.
///
/// # Errors
/// The kernel's.
pub async fn connect_unix(socket: &Path) -> io::Result<Connection> {
    open(UnixStream::connect(socket).await?).await
}

/// Connects to a TCP address.
///
/// # Errors
/// The kernel's.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    open(stream).await
}

/// Begins HTTP/1.1 on a connected stream, such as one with TLS.
///
/// # Errors
/// When the connection breaks.
pub async fn open<S>(stream: S) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Its errors also reach the request or the body that waits for it.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Sends a request and reads the whole response, with a body of at most `limit` bytes.
///
/// # Errors
/// When the connection breaks, or the body is longer.
pub async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> io::Result<Response<Bytes>> {
    connection.ready().await.map_err(io::Error::other)?;
    let response = connection.send_request(request).await;
    let (head, body) = response.map_err(io::Error::other)?.into_parts();
    Ok(Response::from_parts(head, read(body, limit).await?))
}

/// Reads a body of at most `limit` bytes to its end.
///
/// # Errors
/// When the connection breaks, or the body is longer.
pub async fn read(body: Incoming, limit: usize) -> io::Result<Bytes> {
    let body = Limited::new(body, limit).collect().await;
    Ok(body.map_err(io::Error::other)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// Accepts one connection, and responds to each request with a body of five bytes.
    async fn serve(listener: UnixListener) -> io::Result<()> {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 1024];
        while stream.read(&mut request).await? > 0 {
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            stream.write_all(response).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn exchange_reuses_a_connection_and_limits_bodies() {
        let directory = tempfile::tempdir().expect("tempdir");
        let socket = directory.path().join("socket");
        tokio::spawn(serve(UnixListener::bind(&socket).expect("binds")));
        let mut connection = connect_unix(&socket).await.expect("connects");
        let request = || Request::new(Full::default());
        for _ in 0..2 {
            let response = exchange(&mut connection, request(), 5).await;
            assert_eq!(response.expect("responds").into_body(), "hello");
        }
        let error = exchange(&mut connection, request(), 4).await;
        let error = error.expect_err("too long").to_string();
        assert!(error.contains("length limit"), "{error}");
    }
}
