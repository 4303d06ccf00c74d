//! Requests whose app does not answer: held, sent once more, or answered with a page; never with an empty response.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UnixListener;
use tokio::sync::watch;

use super::*;

/// The address of a guest whose app comes and goes.
const APP: [u8; 4] = [127, 0, 1, 7];

/// A stand-in for `innkeeper-pages`: it waits for the ports of a held request, and otherwise responds with a page. Returns
/// the number of requests that have arrived.
pub(super) fn serve_pages(rig: &Rig) -> (watch::Receiver<usize>, tokio::task::JoinHandle<()>) {
    let listener = UnixListener::bind(rig.path("pages.sock")).expect("binds");
    let (arrived, arrivals) = watch::channel(0);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            arrived.send_modify(|count| *count += 1);
            tokio::spawn(respond(stream));
        }
    });
    (arrivals, task)
}

async fn respond(mut stream: tokio::net::UnixStream) {
    let head = read_head_of(&mut stream).await.to_lowercase();
    assert!(head.starts_with("get "), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let header = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(&format!("{name}: ")))
    };
    if let Some(app) = header("x-innkeeper-hold") {
        let ports = app.strip_prefix("/web,127.0.1.7,").expect("the app");
        for port in ports
            .split(',')
            .map(|port| port.parse::<u16>().expect("a port"))
        {
            let app = SocketAddr::from((APP, port));
            while TcpStream::connect(app).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let ready = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        stream.write_all(ready).await.ok();
        return;
    }
    let preview = header("x-innkeeper-preview").expect("a preview");
    assert!(preview.starts_with("/web,127.0.1.7,3000"), "{preview}");
    let page = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 4\r\nConnection: close\r\n\r\nPAGE";
    stream.write_all(page).await.ok();
}

fn web(state: RouteState) -> RouteSpec {
    RouteSpec {
        guest_address: APP.into(),
        routes: vec![rule("/", 3000, false), rule("/api", 4000, true)],
        state,
        ..simple("web")
    }
}

/// Starts the app on its ports.
async fn start_app() -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for port in [3000, 4000] {
        tasks.push(serve_app(SocketAddr::from((APP, port))).await);
    }
    tasks
}

async fn stop_app(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.abort();
        drop(task.await);
    }
}

async fn wait_for_arrivals(arrivals: &mut watch::Receiver<usize>, count: usize) {
    let arrived = arrivals.wait_for(|arrived| *arrived >= count);
    drop(arrived.await.expect("the stand-in runs"));
}

#[tokio::test]
async fn requests_wait_while_the_app_restarts() {
    let Some(rig) = Rig::start("held requests").await else {
        return;
    };
    let (mut arrivals, _pages) = serve_pages(&rig);
    rig.ensure(&web(RouteState::Held)).await;
    assert!(rig.is_complete(&web(RouteState::Held)).await);
    assert!(!rig.is_complete(&web(RouteState::Live)).await);
    let body = vec![b'x'; 1 << 20];
    let posted = request("web.localhost", "POST /p%2Fq?x=1", "", &body);
    let stripped = get("web.localhost", "/api/users");
    let socket = Socket::open("web.localhost", "/ws");
    let restart = async {
        wait_for_arrivals(&mut arrivals, 3).await;
        // The app is in service before the requests go on.
        rig.ensure(&web(RouteState::Live)).await;
        start_app().await
    };
    let (posted, stripped, mut socket, app) = tokio::join!(posted, stripped, socket, restart);
    let expected = "127.0.1.7:3000 POST /p%2Fq?x=1 host=web.localhost:8080 for=127.0.0.1 proto=http body=1048576";
    assert_eq!((posted.status, posted.body.as_str()), (200, expected));
    assert!(stripped.body.starts_with("127.0.1.7:4000 GET /users "));
    assert!(socket.echoes().await);

    // A held app that accepts connections answers.
    rig.ensure(&web(RouteState::Held)).await;
    let response = get("web.localhost", "/x").await;
    assert!(response.body.starts_with("127.0.1.7:3000 GET /x "));
    // Paths that only resemble those of innkeeper-pages are the app's.
    for path in ["/.INNKEEPER/x", "/%2einnkeeper/x", "//.innkeeper/x"] {
        let response = get("web.localhost", path).await;
        let expected = format!("127.0.1.7:3000 GET {path} ");
        assert!(response.body.starts_with(&expected), "{response:?}");
    }
    // The visitor's own header is no hold.
    let forged = "X-Innkeeper-Hold: /web,10.0.0.1,22\r\n";
    assert_eq!(
        request("web.localhost", "GET /x", forged, b"").await.status,
        200
    );
    stop_app(app).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_live_app_that_refuses_connections_has_a_page() {
    let Some(rig) = Rig::start("refused connections").await else {
        return;
    };
    let (mut arrivals, pages) = serve_pages(&rig);
    rig.ensure(&web(RouteState::Live)).await;
    let forged = "X-Innkeeper-Again: 127.0.1.3:3000\r\nX-Innkeeper-Hold: /web,127.0.1.3,3000\r\n";
    for (line, headers) in [
        ("POST /p", ""),
        ("POST /api/p", "Expect: 100-continue\r\n"),
        ("DELETE /p", forged),
    ] {
        let response = request("web.localhost", line, headers, b"body").await;
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("3")),
            "{line}: {response:?}"
        );
        assert_eq!(response.body, "PAGE", "{line}");
    }
    // A request without a body waits, and the app answers it.
    let before = *arrivals.borrow();
    let stripped = get("web.localhost", "/api/users?x=1");
    let socket = Socket::open("web.localhost", "/ws");
    let restart = async {
        wait_for_arrivals(&mut arrivals, before + 2).await;
        start_app().await
    };
    let (stripped, mut socket, app) = tokio::join!(stripped, socket, restart);
    let expected =
        "127.0.1.7:4000 GET /users?x=1 host=web.localhost:8080 for=127.0.0.1 proto=http body=0";
    assert_eq!((stripped.status, stripped.body.as_str()), (200, expected));
    assert!(socket.echoes().await);
    // The app's own errors are unchanged.
    let own = get("web.localhost", "/status/502").await;
    assert_eq!((own.status, own.header("retry-after")), (502, None));

    stop_app(app).await;
    pages.abort();
    drop(pages.await);
    std::fs::remove_file(rig.path("pages.sock")).expect("removed");
    for state in [RouteState::Live, RouteState::Held] {
        rig.ensure(&web(state.clone())).await;
        for (line, body) in [
            ("GET /", &b""[..]),
            ("POST /", b"body"),
            ("GET /api/x", b""),
        ] {
            let response = request("web.localhost", line, "", body).await;
            assert_eq!(
                (response.status, response.header("retry-after")),
                (503, Some("3")),
                "{state:?}: {line}: {response:?}"
            );
            assert_eq!(
                response.body, "This preview does not answer at the moment.",
                "{state:?}: {line}"
            );
        }
    }
    rig.stop().await;
}

/// An app that is killed while it has a request: the connection ends without a response. The app may have acted on the request,
/// so it is not sent again.
#[tokio::test]
async fn requests_to_an_app_that_ends_meanwhile_have_a_response() {
    let Some(rig) = Rig::start("apps that end").await else {
        return;
    };
    let (_arrivals, _pages) = serve_pages(&rig);
    rig.ensure(&web(RouteState::Live)).await;
    let (mut app, requests) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for port in [3000, 4000] {
        app.push(serve_ends(SocketAddr::from((APP, port)), Arc::clone(&requests)).await);
    }
    for (line, body) in [
        ("POST /p", &b"body"[..]),
        ("PUT /api/p", b"another"),
        ("GET /", b""),
    ] {
        let response = request("web.localhost", line, "", body).await;
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("3")),
            "{line}: {response:?}"
        );
        assert_eq!(response.body, "PAGE", "{line}");
        assert_eq!(requests.swap(0, Ordering::Relaxed), 1, "{line}");
    }
    stop_app(app).await;
    rig.stop().await;
}

/// A spec with one path only.
fn api(state: RouteState) -> RouteSpec {
    RouteSpec {
        routes: vec![rule("/api/*", 4000, false)],
        ..web(state)
    }
}

#[tokio::test]
async fn only_requests_with_a_rule_are_held() {
    let Some(rig) = Rig::start("held paths").await else {
        return;
    };
    let listener = UnixListener::bind(rig.path("pages.sock")).expect("binds");
    rig.ensure(&api(RouteState::Held)).await;
    let answer = async || {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let head = read_head_of(&mut stream).await;
        let page = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nPAGE";
        stream.write_all(page).await.expect("written");
        head
    };
    // Nobody is asked about other paths.
    for path in ["/", "/apix", "/innkeeper/page.css"] {
        assert_eq!(get("web.localhost", path).await.status, 404, "{path}");
    }
    // The files of the page have no rule.
    for (line, method) in [
        ("POST /api/x", "POST"),
        ("GET /api/x?y=%2F", "GET"),
        ("GET /.innkeeper/page.css", "GET"),
    ] {
        let forged = "X-Forwarded-Method: PUT\r\n";
        let (response, head) = tokio::join!(request("web.localhost", line, forged, b""), answer());
        assert_eq!(
            (response.status, response.body.as_str()),
            (503, "PAGE"),
            "{line}"
        );
        let head = head.to_lowercase();
        let uri = line.split_once(' ').expect("a path").1.to_lowercase();
        let start = format!("get /.innkeeper-hold{uri} ");
        assert!(head.starts_with(&start), "{head}");
        let has_body = head.contains("content-length") || head.contains("transfer-encoding");
        assert!(!has_body, "{head}");
        let expected = format!("x-forwarded-method: {}\r\n", method.to_lowercase());
        assert!(head.contains(&expected), "{head}");
        assert!(!head.contains("put"), "{head}");
    }
    rig.stop().await;
}

async fn read_head_of(stream: &mut tokio::net::UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("read"));
    }
    String::from_utf8(head).expect("UTF-8")
}

/// innkeeper-pages is killed while it holds requests, and is absent for a moment: Caddy sends the subrequests again.
#[tokio::test]
async fn a_crash_of_the_program_that_holds_requests_loses_none() {
    let Some(rig) = Rig::start("a crash during a hold").await else {
        return;
    };
    let listener = UnixListener::bind(rig.path("pages.sock")).expect("binds");
    rig.ensure(&web(RouteState::Held)).await;
    let body = vec![b'x'; 3 << 20];
    let posted = request("web.localhost", "POST /p", "", &body);
    // A search, for example.
    let query = request("web.localhost", "GET /q", "", &body);
    let socket = Socket::open("web.localhost", "/ws");
    let crash = async {
        let mut held = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.expect("accept");
            read_head_of(&mut stream).await;
            held.push(stream);
        }
        drop(listener);
        std::fs::remove_file(rig.path("pages.sock")).expect("removed");
        drop(held);
        // The requests find nobody for a while.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let pages = serve_pages(&rig);
        (pages, start_app().await)
    };
    let (posted, query, mut socket, ((_arrivals, _pages), app)) =
        tokio::join!(posted, query, socket, crash);
    let expected =
        "127.0.1.7:3000 POST /p host=web.localhost:8080 for=127.0.0.1 proto=http body=3145728";
    assert_eq!((posted.status, posted.body.as_str()), (200, expected));
    let expected = expected.replace("POST /p", "GET /q");
    assert_eq!(
        (query.status, query.body.as_str()),
        (200, expected.as_str())
    );
    assert!(socket.echoes().await);
    stop_app(app).await;
    rig.stop().await;
}
