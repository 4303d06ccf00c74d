//! The frames of an `exec` connection ([`innkeeper_model::api::exec`]).

use std::io;

use innkeeper_model::api::exec::MAX_BODY;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a header: one for the kind, four for the length of the body.
const HEADER: usize = 5;

/// Reads the next frame into `body` and returns its kind.
///
/// Not cancel-safe: dropping the future loses the bytes that it has read.
pub(crate) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
) -> io::Result<u8> {
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes exceeds the limit of {MAX_BODY} bytes"),
        ));
    }
    body.resize(length, 0);
    reader.read_exact(body).await?;
    Ok(kind)
}

/// Writes one frame.
pub(crate) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    body: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(body.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "frame is too long"))?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    writer.write_all(&frame).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use innkeeper_model::api::exec;

    use super::*;

    #[tokio::test]
    async fn frame_round_trips() {
        let mut wire = Vec::new();
        write(&mut wire, exec::STDOUT, b"hello")
            .await
            .expect("written");
        assert_eq!(wire, b"\x01\0\0\0\x05hello");
        let mut body = Vec::new();
        assert_eq!(
            read(&mut wire.as_slice(), &mut body).await.expect("read"),
            exec::STDOUT
        );
        assert_eq!(body, b"hello");
    }

    #[tokio::test]
    async fn oversized_frame_is_rejected() {
        let mut body = Vec::new();
        let error = read(&mut b"\x01\xff\xff\xff\xff".as_slice(), &mut body).await;
        assert_eq!(
            error.expect_err("too long").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
