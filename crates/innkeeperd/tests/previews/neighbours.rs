//! What happens to one preview is nothing to another.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use innkeeper_model::preview::PreviewState;

use crate::town::{Town, WEB, app, other_app};

/// The app with a second server: it answers requests, and after an upgrade says again what is said to it.
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

/// An open connection after an upgrade, as a WebSocket is one.
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

    /// What is sent comes back.
    fn echoes(&mut self, word: &str) {
        let mut echo = vec![0; word.len()];
        self.0.write_all(word.as_bytes()).expect("open");
        self.0.read_exact(&mut echo).expect("open");
        assert_eq!(echo, word.as_bytes());
    }
}

#[test]
fn an_open_websocket_outlives_all_that_happens_to_other_previews() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.commit("topic", &[("preview-config.nix", &with_echo())]);
    town.pull(7, "topic", &sha);
    town.deliver(7, "opened");
    town.settled(7, &sha, PreviewState::Live);
    let mut socket = Socket::open("web-7");
    socket.echoes("open");

    town.open(8, "other");
    socket.echoes("another one came");
    let pushed = town.push(8, "other", &[("README", "two")]);
    town.settled(8, &pushed, PreviewState::Live);
    let pushed = town.push(8, "other", &[("preview-config.nix", &other_app("two"))]);
    town.settled(8, &pushed, PreviewState::Live);
    socket.echoes("it changed");
    town.close(8);
    town.gone(8);
    socket.echoes("it went");
    // Nor does it need us.
    daemon.stop();
    socket.echoes("the daemon stopped");
    let daemon = town.start();
    socket.echoes("the daemon is back");
    daemon.stop();
}
