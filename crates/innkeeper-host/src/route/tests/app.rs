//! The apps of guests.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Cookies of all forms, as names of those that browsers accept for the host `web.localhost` only.
const COOKIES: &str = "\
Set-Cookie: own=1; Path=/; Domain=web.localhost; Secure\r\n\
Set-Cookie: none=1; HttpOnly\r\n\
Set-Cookie: parent=1; Domain=localhost; Path=/\r\n\
Set-Cookie: dotted=1; DOMAIN = .LocalHost\r\n\
Set-Cookie: twice=1; domain=localhost; domain=localhost.; Path=/\r\n\
Set-Cookie: dense=1;Secure;domain=localhost;Domain=web.localhost;;DoMaIn=..localhost..;HttpOnly\r\n\
set-cookie: tabs=1;\tDomain\t=\tLOCALHOST\t; Path=/\r\n\
Set-Cookie: escaped=1; Domain=%6cocalhos%74; Path=/; domain=\u{2113}ocalhost\r\n\
Set-Cookie: quoted=1; Domain=\"localhost\"\r\n\
Set-Cookie: value=Domain=localhost; Comment=domain=localhost\r\n\
Set-Cookie: other=1; Domain=notlocalhost; Path=/\r\n";

/// Serves an app that returns its address and the request, and echoes data after an upgrade. Its responses have headers
/// like a lookup's, which must have no effect.
pub(super) async fn serve_app(address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(address).await.expect("bind");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            tokio::spawn(respond(stream, address));
        }
    })
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
        let cookie = headers
            .get("x-cookie")
            .map(|cookie| format!("Set-Cookie: {cookie}\r\n"));
        let accept = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\r\n",
            cookie.unwrap_or_default()
        );
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
    if line == "GET /status/502" {
        let error = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(error.as_bytes()).await.ok();
        return;
    }
    if line.ends_with("/echo") {
        let (text, length) = (&head, head.len());
        let response = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        stream.write_all(response.as_bytes()).await.ok();
        return;
    }
    let get = |name: &str| headers.get(name).copied().unwrap_or("-");
    let text = format!(
        "{me} {line} host={} for={} proto={} body={}",
        get("host"),
        get("x-forwarded-for"),
        get("x-forwarded-proto"),
        body.len()
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Innkeeper-Upstream: 127.0.1.5:5000\r\n{COOKIES}Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(response.as_bytes()).await.ok();
}

/// Accepts connections and never responds.
pub(super) async fn serve_silence(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("bind");
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.expect("accept"));
        }
    });
}

/// Runs a server that speaks only HTTP/2 with prior knowledge, as gRPC servers do: it has the file `call`, and returns what
/// it receives. `None` if it is not installed.
pub(super) async fn run_h2c(rig: &Rig, address: SocketAddr) -> Option<tokio::process::Child> {
    let files = rig.path("files");
    std::fs::create_dir(&files).expect("directory");
    std::fs::write(files.join("call"), "over HTTP/2").expect("file");
    let server = command("nghttpd")
        .args(["--no-tls", "--echo-upload", "--address"])
        .arg(address.ip().to_string())
        .arg("--htdocs")
        .arg(files)
        .arg(address.port().to_string())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Some(server)
}

/// Accepts connections, counts them, and closes each when a request arrives, as an app that is killed.
pub(super) async fn serve_ends(
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(address).await.expect("bind");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            requests.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move { stream.read_u8().await });
        }
    })
}

/// Serves requests for pages on a socket with their first line and their preview.
pub(super) fn serve_pages(socket: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let listener = tokio::net::UnixListener::bind(socket).expect("listens");
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("permissions");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut line, mut preview) = (String::new(), String::new());
                stream.read_line(&mut line).await.expect("a line");
                loop {
                    let mut header = String::new();
                    stream.read_line(&mut header).await.expect("a header");
                    if header.trim().is_empty() {
                        break;
                    }
                    if let Some(slug) = header.strip_prefix("X-Innkeeper-Preview: ") {
                        preview = slug.trim().to_owned();
                    }
                }
                let line = line.trim().trim_end_matches(" HTTP/1.1");
                let body = format!("{line} for {preview}");
                let response = format!(
                    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(response.as_bytes()).await.ok();
                stream.shutdown().await.ok();
                // A connection that is closed with unread data is reset, and Caddy loses the response.
                tokio::io::copy(&mut stream, &mut tokio::io::sink())
                    .await
                    .ok();
            });
        }
    });
}
