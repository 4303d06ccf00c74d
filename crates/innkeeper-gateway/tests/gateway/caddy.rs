//! The whole way of a request: curl, the installed Caddy with the site of docs/remote.md, the gateway, the fake daemon.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::{bearer, command, directory, is_installed, publish};

/// The page whose site the test uses.
const PAGE: &str = include_str!("../../../../docs/remote.md");

/// The first line of the site.
const SITE: &str = "api.preview.example.org {";

/// Caddy in front of the gateway, which is killed on drop.
struct Caddy {
    child: Child,
    port: u16,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Caddy {
    /// Starts Caddy with the page's site, on a port of the loopback interface without TLS.
    async fn start(directory: &Path, socket: &Path) -> Self {
        let site = PAGE.split_once(SITE).expect("the site is on the page").1;
        let (site, _) = site.split_once("\n   }\n").expect("the site ends");
        let site = site.replace("\timport cloudflare_tls\n", "").replace(
            "/run/innkeeper-gateway/http.sock",
            &socket.display().to_string(),
        );
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let file = directory.join("Caddyfile");
        let text = format!("{{\n\tadmin off\n}}\nhttp://127.0.0.1:{port} {{{site}\n}}\n");
        std::fs::write(&file, text).expect("writes");
        let child = command("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("HOME", directory)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let caddy = Self { child, port };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        caddy
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Runs curl, and returns its output, with the response's status in the last line.
async fn curl(arguments: &[&str]) -> (String, u16) {
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60"])
        .args(["--write-out", "\n%{http_code}"])
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || curl.output().expect("runs"));
    let Output { stdout, stderr, .. } = output.await.expect("joins");
    let text = String::from_utf8(stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    let status = status.parse().expect("a number");
    assert_ne!(status, 0, "{}", String::from_utf8_lossy(&stderr));
    (body.to_owned(), status)
}

/// Reports whether Caddy and curl are installed.
fn is_possible(test: &str) -> bool {
    is_installed(test, "caddy", "version") && is_installed(test, "curl", "--version")
}

#[tokio::test]
async fn requests_pass_through_caddy() {
    if !is_possible("caddy::requests_pass_through_caddy") {
        return;
    }
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let caddy = Caddy::start(directory.path(), &program.socket).await;
    let guests = caddy.url("/v1/guests");
    let token = format!("Authorization: {}", bearer(7));

    let forged = [
        "--header",
        "X-Forwarded-For: 203.0.113.9",
        "--header",
        "Innkeeper-Actor: token:1",
    ];
    let with_token = [&forged[..], &["--header", &token, &guests]].concat();
    assert_eq!(curl(&with_token).await.1, 200);
    let received = daemon.received();
    assert_eq!(received[0].header("innkeeper-actor"), "token:7");
    assert_eq!(received[0].header("innkeeper-source"), "127.0.0.1");

    let (body, status) = curl(&[&guests]).await;
    assert_eq!(status, 401);
    assert!(body.starts_with("{\"error\":\"unauthorized\""), "{body}");
    assert_eq!(curl(&[&caddy.url("/metrics")]).await.1, 404);
    assert_eq!(
        curl(&[&caddy.url("/healthz")]).await,
        ("ok".to_owned(), 200)
    );

    // 8 MiB, which curl sends at once.
    let big = directory.path().join("big");
    std::fs::write(&big, vec![b'x'; 8 << 20]).expect("writes");
    let big = format!("@{}", big.display());
    for (header, path, expected) in [
        (token.as_str(), "/v1/too-long", 413),
        ("Authorization: Bearer x", "/v1/too-long", 401),
        (&token, "/v1/files", 200),
    ] {
        let url = caddy.url(path);
        let sent = [
            "--header",
            header,
            "--header",
            "Expect:",
            "--data-binary",
            &big,
            &url,
        ];
        let (body, status) = curl(&sent).await;
        assert_eq!(status, expected, "{body}");
    }
    assert_eq!(daemon.received().len(), 3);
}

/// Reads until a text has arrived.
async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).ends_with(end) {
        text.push(stream.read_u8().await.expect("more"));
    }
}

#[tokio::test]
async fn streams_and_commands_pass_through_caddy() {
    if !is_possible("caddy::streams_and_commands_pass_through_caddy") {
        return;
    }
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let caddy = Caddy::start(directory.path(), &program.socket).await;
    let connect = async || {
        TcpStream::connect(("127.0.0.1", caddy.port))
            .await
            .expect("connects")
    };
    let head = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {}\r\n",
            bearer(7)
        )
    };
    for path in ["/v1/events", "/v1/logs"] {
        let mut stream = connect().await;
        let request = head("GET", path) + "\r\n";
        stream.write_all(request.as_bytes()).await.expect("sends");
        read_until(&mut stream, "first\n\r\n").await;
        daemon.send("second\n");
        read_until(&mut stream, "second\n\r\n").await;
    }
    let mut stream = connect().await;
    let request = head("POST", "/v1/exec")
        + "connection: Upgrade\r\nupgrade: innkeeper-exec\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.expect("sends");
    read_until(&mut stream, "\r\n\r\n").await;
    for text in ["hello", "again"] {
        stream.write_all(text.as_bytes()).await.expect("sends");
        read_until(&mut stream, text).await;
    }
}
