//! Isolation between previews.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use innkeeper_model::preview::PreviewState;

use crate::host::{PreviewHost, WEB, app, other_app};

/// The app with a second server, which answers requests and echoes its input after an upgrade.
fn with_echo() -> String {
    let served = app()
        .replacen(
            "routes = [",
            "routes = [\n      { path = \"/ws\"; port = 3001; }",
            1,
        )
        .replacen(
            "exec httpd",
            "nc -ll -p 3001 -e sh /etc/echo &\n      exec httpd",
            1,
        );
    served.replacen(
        "{\n  system.build",
        &format!("{{\n{ECHO}\n  system.build"),
        1,
    )
}

const ECHO: &str = r#"  environment.etc.echo.text = ''
    upgrade=
    while read -r line; do
      case "$line" in
        [Uu]pgrade:*) upgrade=1 ;;
      esac
      [ ''${#line} -gt 1 ] || break
    done
    if [ -n "$upgrade" ]; then
      printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
      exec cat
    fi
    printf 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
  '';"#;

/// An open connection after an upgrade, like a WebSocket.
struct Socket(TcpStream);

impl Socket {
    fn open(slug: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", WEB)).expect("Caddy listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("set");
        write!(
            stream,
            "GET /ws HTTP/1.1\r\nHost: {slug}.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        .expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self(stream)
    }

    /// Checks that the server echoes a text.
    fn expect_echo(&mut self, word: &str) {
        let mut echo = vec![0; word.len()];
        self.0.write_all(word.as_bytes()).expect("open");
        self.0.read_exact(&mut echo).expect("open");
        assert_eq!(echo, word.as_bytes());
    }
}

#[test]
fn an_open_websocket_survives_changes_of_other_previews() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &with_echo())]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    let mut socket = Socket::open("web-7");
    socket.expect_echo("open");

    host.open(8, "other");
    socket.expect_echo("another preview was created");
    let pushed = host.push(8, "other", &[("README", "two")]);
    host.wait_for_state(8, &pushed, PreviewState::Live);
    let pushed = host.push(8, "other", &[("preview-config.nix", &other_app("two"))]);
    host.wait_for_state(8, &pushed, PreviewState::Live);
    socket.expect_echo("it was updated");
    host.close(8);
    host.wait_until_gone(8);
    socket.expect_echo("it was removed");
    // The connection does not depend on the daemon.
    daemon.stop();
    socket.expect_echo("the daemon stopped");
    let daemon = host.start();
    socket.expect_echo("the daemon is back");
    daemon.stop();
}
