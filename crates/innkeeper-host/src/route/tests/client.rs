//! HTTP clients.

use super::*;

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(super) async fn get(host: &str, path: &str) -> Response {
    request(host, &format!("GET {path}"), "", b"").await
}

pub(super) async fn request(host: &str, line: &str, headers: &str, body: &[u8]) -> Response {
    request_on(8080, host, line, headers, body).await
}

pub(super) async fn request_on(
    port: u16,
    host: &str,
    line: &str,
    headers: &str,
    body: &[u8],
) -> Response {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    let message = [head.as_bytes(), body].concat();
    stream.write_all(&message).await.expect("write");
    let mut response = Vec::new();
    let end = stream.read_to_end(&mut response).await;
    let response = String::from_utf8(response).expect("UTF-8");
    end.unwrap_or_else(|error| panic!("{line}: {error}: {response}"));
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    let status = head.split(' ').nth(1).expect("status");
    Response {
        status: status.parse().expect("number"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// An upgraded connection, such as a WebSocket.
pub(super) struct Socket(TcpStream);

impl Socket {
    pub(super) async fn open(host: &str, path: &str) -> Self {
        let (socket, head) = Self::request(host, path, "").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        socket
    }

    /// Requests an upgrade, and returns the connection with the head of the response.
    pub(super) async fn request(host: &str, path: &str, headers: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(FRONT).await.expect("connect");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("write");
        let (head, _) = read_head(&mut stream).await;
        (Self(stream), head)
    }

    /// Reports whether sent data comes back.
    pub(super) async fn echoes(&mut self) -> bool {
        let mut echo = [0; 4];
        self.0.write_all(b"ping").await.is_ok()
            && self.0.read_exact(&mut echo).await.is_ok()
            && &echo == b"ping"
    }
}

/// Reads the head of a message, and the bytes after it that arrived with it.
pub(super) async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("read");
        assert!(count > 0, "the head is cut off");
        read.extend(&piece[..count]);
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return (String::from_utf8(read).expect("UTF-8"), body);
        }
    }
}
