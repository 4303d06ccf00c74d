//! Requests to previews that are asleep: they wake them, and arrive whole.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use innkeeper_model::preview::PreviewState;
use innkeeper_model::{EventKind, GuestState, Verb};

use crate::host::{PreviewHost, WEB, app, run};
use crate::support::{Client, wait_until};

/// The length of a body that Caddy does not buffer.
const BODY: usize = 3 << 20;

/// Limits that no machine exceeds.
const PATIENT: &str = "hold_seconds = 60\nwake_timeout_seconds = 300\nwake_page_seconds = 300";

/// Returns the fixtures' app with a count of a body's bytes, server-sent events, and an upgrade that returns what it receives.
fn counting_app() -> String {
    let scripts = r#"
      mkdir -p cgi-bin
      printf '#!%s\necho "Content-Type: text/plain"; echo; head -c $CONTENT_LENGTH | wc -c\n' ${pkgs.busybox}/bin/sh > cgi-bin/count
      printf '#!%s\necho "Content-Type: text/event-stream"; echo; for n in 1 2 3; do echo "data: $n"; echo; sleep 0.1; done\n' ${pkgs.busybox}/bin/sh > cgi-bin/events
      printf '#!%s\nwhile read -r line; do [ "''${#line}" -gt 1 ] || break; done\nprintf "HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n"; exec cat\n' ${pkgs.busybox}/bin/sh > ../socket
      chmod +x cgi-bin/count cgi-bin/events ../socket
      echo "prepared"#;
    let route = "port = 3000;\n      }\n      {\n        path = \"/socket\";\n        port = 3001;\n      }";
    app()
        .replacen("\n      echo \"prepared", scripts, 1)
        .replacen("port = 3000;\n      }", route, 1)
        .replacen(
            "exec httpd",
            "nc -ll -p 3001 -e /home/preview/socket &\n      exec httpd",
            1,
        )
}

/// A request on its own connection.
struct Request(TcpStream);

impl Request {
    fn send(line: &str, headers: &str, body: &[u8]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", WEB)).expect("Caddy listens");
        let limit = Some(Duration::from_secs(300));
        stream.set_read_timeout(limit).expect("set");
        let head = format!("{line} HTTP/1.1\r\nHost: web-7.localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        Self(stream)
    }

    fn get(path: &str, headers: &str) -> Self {
        Self::send(
            &format!("GET {path}"),
            &format!("Connection: close\r\n{headers}"),
            b"",
        )
    }

    /// Reads until a text.
    fn read_until(&mut self, end: &[u8]) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a byte");
            read.extend(byte);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Returns the whole response.
    fn response(mut self) -> String {
        let mut response = Vec::new();
        let end = self.0.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response).into_owned();
        end.unwrap_or_else(|error| panic!("{error}: {response}"));
        response
    }
}

fn status(response: &str) -> u16 {
    response[9..12].parse().expect(response)
}

/// Returns how many wakes of the preview's guest have begun.
fn wakes(client: &Client) -> usize {
    let events = client.events("guest=web-7&limit=1000");
    let is_wake = |kind: &EventKind| matches!(kind, EventKind::Accepted { verb: Verb::Wake });
    events.iter().filter(|event| is_wake(&event.kind)).count()
}

fn put_to_sleep(host: &PreviewHost) {
    let client = host.client();
    let slept = client.finish(&client.call("POST", "/v1/previews/web-7/sleep", ""));
    assert_eq!(slept.failure, None, "{slept:?}");
    assert_eq!(client.guest("web-7").state, GuestState::Asleep);
}

#[test]
fn requests_wake_a_preview_once_and_arrive_whole() {
    let mut host = PreviewHost::with_pages(PATIENT);
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &counting_app())]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    put_to_sleep(&host);

    // These wake nothing.
    let bot = "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1)\r\n";
    for (path, headers) in [("/", bot), ("/.env", "User-Agent: curl/8\r\n")] {
        let response = Request::get(path, headers).response();
        assert_eq!(status(&response), 503, "{response}");
        assert!(response.contains("Retry-After: 3600"), "{response}");
    }
    assert_eq!(wakes(&host.client()), 0);

    // More than the queue of the app's connections has places for.
    let (length, body) = (format!("Content-Length: {BODY}\r\n"), vec![b'x'; BODY]);
    let post = || {
        let headers = format!("Connection: close\r\n{length}");
        Request::send("POST /cgi-bin/count", &headers, &body)
    };
    let posts: Vec<_> = (0..20).map(|_| post()).collect();
    let events = Request::get("/cgi-bin/events", "Accept: text/event-stream\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut socket = Request::send("GET /socket", upgrade, b"");
    let pages: Vec<_> = (0..78).map(|_| Request::get("/", "")).collect();
    wait_until("the guest wakes", || wakes(&host.client()) > 0);
    // Caddy sends its subrequests again.
    host.kill_pages();

    for page in pages {
        let page = page.response();
        assert_eq!(status(&page), 200, "{page}");
        assert!(page.contains("prepared 2 times"), "{page}");
    }
    for post in posts {
        let posted = post.response();
        let is_counted = |line: &str| line.trim() == BODY.to_string();
        assert!(posted.lines().any(is_counted), "{posted}");
    }
    let events = events.response();
    let data: Vec<_> = events
        .lines()
        .filter(|line| line.starts_with("data: "))
        .collect();
    assert_eq!(data, ["data: 1", "data: 2", "data: 3"], "{events}");
    let head = socket.read_until(b"\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    socket.0.write_all(b"ping").expect("sent");
    assert_eq!(socket.read_until(b"ping"), "ping");
    assert_eq!(
        wakes(&host.client()),
        1,
        "{:?}",
        host.client().events("guest=web-7&limit=100")
    );

    // A killed daemon: the next one receives the request.
    put_to_sleep(&host);
    daemon.kill();
    let page = Request::get("/", "");
    let daemon = host.start();
    let page = page.response();
    assert!(
        status(&page) == 200 && page.contains("prepared 3 times"),
        "{page}"
    );
    daemon.stop();
}

#[test]
fn people_get_a_page_and_programs_503_past_their_limits() {
    let mut host = PreviewHost::with_pages("wake_timeout_seconds = 1\nwake_page_seconds = 0");
    let daemon = host.start();
    host.start_webhook();
    let slow = app().replacen(
        "mkdir -p ${app}",
        "[ ! -e ${app}/../count ] || sleep 5; mkdir -p ${app}",
        1,
    );
    let sha = host.commit("topic", &[("preview-config.nix", &slow)]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    put_to_sleep(&host);

    let program = Request::get("/", "").response();
    assert_eq!(status(&program), 503, "{program}");
    assert!(program.contains("Retry-After: 3\r\n"), "{program}");
    let page = Request::get("/", "Accept: text/html\r\n").response();
    assert_eq!(status(&page), 503, "{page}");
    assert!(page.contains("Waking up"), "{page}");
    // The wake goes on.
    wait_until("the app answers", || {
        Request::get("/", "")
            .response()
            .contains("prepared 2 times")
    });
    assert_eq!(wakes(&host.client()), 1);
    daemon.stop();
}

#[test]
fn a_preview_that_does_not_wake_says_why_and_is_left_alone() {
    let mut host = PreviewHost::with_pages(PATIENT);
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    put_to_sleep(&host);
    // A stranger's interface has the name of the guest's.
    let interface = format!("ve-{}", host.client().guest("web-7").guest.slot);
    let ip = |arguments: &[&str]| run(host.root(), "ip", arguments);
    ip(&[
        "link", "add", &interface, "type", "veth", "peer", "name", "other",
    ]);

    for _ in 0..3 {
        let program = Request::get("/", "").response();
        assert_eq!(status(&program), 503, "{program}");
        assert!(program.contains("it could not be woken"), "{program}");
    }
    let page = Request::get("/", "Accept: text/html\r\n").response();
    assert!(page.contains("It does not wake"), "{page}");
    assert_eq!(wakes(&host.client()), 1);
    assert_eq!(host.client().guest("web-7").state, GuestState::Asleep);
    let log = host
        .client()
        .call("GET", "/v1/previews/web-7/logs?lines=100", "");
    assert!(log.body.contains("It does not wake: "), "{log:?}");

    ip(&["link", "del", &interface]);
    let client = host.client();
    let woken = client.finish(&client.call("POST", "/v1/previews/web-7/wake", ""));
    assert_eq!(woken.failure, None, "{woken:?}");
    assert!(host.page("web-7").contains("prepared 2 times"));
    daemon.stop();
}

#[test]
fn a_request_does_not_wait_for_its_preview_s_turn_after_a_reboot() {
    let mut host = PreviewHost::with_all(
        "[engine]\nconcurrent_starts = 1",
        "interval_seconds = 3600",
        "hold_seconds = 25",
    );
    let daemon = host.start();
    host.start_webhook();
    // The second setup waits for a file.
    let waiting = app().replacen(
        "cd ${app}",
        "cd ${app}\n      if [ -e ../count ]; then touch ../begun; until [ -e ../go ]; do sleep 0.1; done; fi",
        1,
    );
    for (number, branch) in [(7, "one"), (8, "two")] {
        let sha = host.commit(branch, &[("preview-config.nix", &waiting)]);
        host.pull(number, branch, &sha);
        host.deliver(number, "opened");
        host.wait_for_state(number, &sha, PreviewState::Live);
    }
    daemon.stop();
    host.reboot();
    let daemon = host.start();
    let home =
        |slug: &str| (host.sandbox.state().join("guests").join(slug)).join("rootfs/home/preview");
    let begun = || ["web-7", "web-8"].map(|slug| home(slug).join("begun").exists());
    wait_until("a preview has its turn", || begun().contains(&true));
    wait_until("both guests run", || {
        let running = |slug| host.client().guest(slug).state == GuestState::Running;
        running("web-7") && running("web-8")
    });
    let other = match begun() {
        [true, false] => "web-8",
        [false, true] => "web-7",
        both => panic!("{both:?}"),
    };
    fs::write(home(other).join("go"), "").expect("written");
    let page = host.page(other);
    assert!(page.contains("prepared 2 times"), "{page}");
    assert_eq!(begun(), [true, true]);
    daemon.stop();
}
