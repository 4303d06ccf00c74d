//! The apps of guests.

use super::*;

/// Serves an app that returns its address and the request, and echoes data after an upgrade. Its responses have headers
/// like a lookup's, which must have no effect.
pub(super) async fn serve_app(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("bind");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            tokio::spawn(respond(stream, address));
        }
    });
}

async fn respond(mut stream: TcpStream, me: SocketAddr) {
    let (head, mut body) = read_head(&mut stream).await;
    let (line, headers) = head.split_once("\r\n").expect("head");
    let headers: BTreeMap<_, _> = headers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    if headers.contains_key("upgrade") {
        let accept =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(accept.as_bytes()).await.expect("write");
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.ok();
        return;
    }
    let length: usize = headers
        .get("content-length")
        .map_or(0, |n| n.parse().expect("number"));
    while body.len() < length {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("read");
        assert!(count > 0, "the body is cut off");
        body.extend(&piece[..count]);
    }
    let line = line.strip_suffix(" HTTP/1.1").expect("request line");
    let get = |name: &str| headers.get(name).copied().unwrap_or("-");
    let text = format!(
        "{me} {line} host={} for={} proto={} body={}",
        get("host"),
        get("x-forwarded-for"),
        get("x-forwarded-proto"),
        body.len()
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Innkeeper-Upstream: 127.0.1.5:5000\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(response.as_bytes()).await.ok();
}
