//! Requests to previews that are asleep.

use std::net::TcpListener;

use crate::support::{Program, asked, asleep, status};

const SETTINGS: &str =
    "wake_timeout_seconds = 60\nwake_page_seconds = 0\n[network]\nsubnet = '127.9.0.0/16'\n";
const BROWSER: &str = "Accept: text/html,*/*;q=0.8";
const POST: &str = "X-Forwarded-Method: POST";

/// Returns an address of a guest on which nothing listens, and the header of a request that waits for it.
fn closed_port() -> (std::net::SocketAddr, String) {
    let app = TcpListener::bind("127.9.0.3:0").expect("binds");
    let address = app.local_addr().expect("an address");
    (
        address,
        format!("X-Innkeeper-Hold: /web-7,127.9.0.3,{}", address.port()),
    )
}

#[test]
fn a_request_wakes_its_preview_and_goes_on() {
    let program = Program::start(SETTINGS);
    program.put("web-7", &asleep("null"));
    let (address, hold) = closed_port();
    // A form is no reason for a page: its contents would be lost.
    let program_and_form = [vec![hold.as_str()], vec![&hold, BROWSER, POST]];
    std::thread::scope(|scope| {
        let requests = program_and_form.each_ref();
        let waiting = requests.map(|headers| scope.spawn(|| program.get("/", headers).status));
        // The first datagrams are lost: the daemon restarts.
        let daemon = program.daemon();
        assert_eq!(asked(&daemon), "web-7");
        let wake = r#"{"since":"2026-11-20T10:00:00Z"}"#;
        program.put("web-7", &asleep(wake));
        // A person gets the page, and does not wait for long.
        let page = program.get("/", &[&hold, BROWSER]);
        assert_eq!((page.status, page.header("retry-after")), (503, Some("3")));
        assert!(page.body.contains("Waking up"), "{}", page.body);
        let app = TcpListener::bind(address).expect("binds");
        for request in waiting {
            assert_eq!(request.join().expect("ends"), 204);
        }
        drop(app);
    });
}

#[test]
fn bots_wake_nothing_unless_they_may() {
    let program = Program::start(SETTINGS);
    let daemon = program.daemon();
    program.put("web-7", &asleep("null"));
    let (_, hold) = closed_port();
    let bot = "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1)";
    for (path, headers) in [
        ("/", &[&hold, bot][..]),
        ("/.innkeeper-hold/.env", &[&hold, "User-Agent: curl/8"]),
    ] {
        let response = program.get(path, headers);
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("3600"))
        );
        assert_eq!(response.body, "preview web-7 is not ready: asleep\n");
    }
    // The next datagram is that of an expired preview, so there was none before.
    program.put("api-1", &status("expired", &[]).replace("web-7", "api-1"));
    let expired = "X-Innkeeper-Preview: api-1";
    assert_eq!(program.get("/", &[expired, bot]).status, 503);
    assert_eq!(program.get("/", &[expired]).status, 503);
    assert_eq!(asked(&daemon), "api-1");

    let program = Program::start(&format!("wake_for_bots = true\n{SETTINGS}"));
    let daemon = program.daemon();
    program.put("web-7", &asleep("null"));
    let page = program.get("/", &[&hold, bot, BROWSER]);
    assert_eq!((page.status, page.header("retry-after")), (503, Some("3")));
    assert_eq!(asked(&daemon), "web-7");
}

#[test]
fn a_preview_that_does_not_wake_is_left_alone_for_a_while() {
    let program = Program::start(SETTINGS);
    let daemon = program.daemon();
    let (_, hold) = closed_port();
    let failed = |retry_at: &str| {
        asleep(&format!(
            r#"{{"since":"2026-11-20T10:00:00Z","retry_at":"{retry_at}"}}"#
        ))
    };
    program.put("web-7", &failed("2999-01-01T00:00:00Z"));
    let line = program.get("/", &[&hold]);
    assert_eq!((line.status, line.header("retry-after")), (503, Some("3")));
    assert_eq!(
        line.body,
        "preview web-7 is not ready: it could not be woken\n"
    );
    let page = program.get("/", &[&hold, BROWSER]);
    assert!(page.body.contains("It does not wake"), "{}", page.body);
    daemon.set_nonblocking(true).expect("set");
    daemon.recv(&mut [0; 64]).expect_err("no datagram");

    // Afterwards, the next request tries again; it ends with the failure.
    daemon.set_nonblocking(false).expect("set");
    program.put("web-7", &failed("2026-11-20T10:00:01Z"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| program.get("/", &[&hold]).status);
        assert_eq!(asked(&daemon), "web-7");
        program.put("web-7", &failed("2999-01-01T00:00:00Z"));
        assert_eq!(waiting.join().expect("ends"), 503);
    });
}

#[test]
fn a_program_gets_no_response_only_past_the_limit() {
    let program = Program::start(&SETTINGS.replace("= 60", "= 1"));
    let _daemon = program.daemon();
    program.put("web-7", &asleep("null"));
    let (_, hold) = closed_port();
    let line = program.get("/", &[&hold]);
    assert_eq!((line.status, line.header("retry-after")), (503, Some("3")));
}
