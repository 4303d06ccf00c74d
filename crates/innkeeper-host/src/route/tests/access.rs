//! Previews whose visitors are checked.

use super::app::serve_pages;
use super::client::Response;
use super::door::{Asked, serve_door};
use super::*;

const ADMITTED: &str = "Cookie: a=1; __Host-innkeeper-preview=ok; sandbox_preview=zz;b=2\r\n";

impl Rig {
    /// Starts Caddy with a stand-in for the access socket.
    async fn start_checked(test: &str) -> Option<(Self, Asked)> {
        let mut rig = Self::start(test).await?;
        rig.connect_door();
        let asked = serve_door(&rig.path("access.sock"));
        serve_pages(&rig.path("pages.sock"));
        Some((rig, asked))
    }

    /// Has Caddy ask the access socket.
    fn connect_door(&mut self) {
        self.routes = CaddyRoutes::new(CaddyConfig {
            access: Some(self.path("access.sock")),
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
            ..config(self.dir.path())
        });
    }
}

fn checked(spec: RouteSpec) -> RouteSpec {
    RouteSpec {
        checked: true,
        ..spec
    }
}

fn with_state(state: RouteState) -> RouteSpec {
    RouteSpec {
        state,
        ..checked(full("web"))
    }
}

async fn admitted(path: &str) -> Response {
    request("web.localhost", &format!("GET {path}"), ADMITTED, b"").await
}

fn is_refusal(response: &Response) -> bool {
    response.status == 401 && response.body == "refused"
}

#[tokio::test]
async fn nothing_of_a_preview_precedes_the_check_of_its_visitor() {
    let Some((rig, asked)) = Rig::start_checked("checked previews").await else {
        return;
    };
    for state in [RouteState::Placeholder, RouteState::Held, RouteState::Live] {
        rig.ensure(&with_state(state.clone())).await;
        assert!(rig.is_complete(&with_state(state.clone())).await);
        // Not even once it would be settled.
        rig.settle().await;
        for path in [
            "/",
            "/api",
            "/Api/x?q={env.HOME}",
            "/ws",
            "/.innkeeper/events",
            "/.innkeeper-access?code=x",
            "/.innkeeper-check",
        ] {
            for host in ["web.localhost", "WEB.localhost"] {
                let response = get(host, path).await;
                assert!(
                    is_refusal(&response),
                    "{state:?} {host} {path}: {response:?}"
                );
                // The response is the gateway's own.
                assert_eq!(
                    response.header("set-cookie"),
                    Some("__Host-innkeeper-nonce=n; Path=/; Secure")
                );
            }
        }
        assert!(is_refusal(&get("admin-web.localhost", "/").await));
        let (_, head) = Socket::request("web.localhost", "/ws", "").await;
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    }
    assert_eq!(
        rig.routes.visits().await.expect("visits"),
        [],
        "a refused request is no visit"
    );
    let forwarded = "X-Forwarded-Host: open.localhost\r\n";
    request("web.localhost", "GET /", forwarded, b"").await;
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 3 * (7 * 2 + 2) + 1);
    let last = asked.last().expect("asked");
    assert!(
        last.contains("\r\nx-forwarded-host: web.localhost:8080\r\n"),
        "{last}"
    );
    let all = |text: &str| asked.iter().all(|head| head.contains(text));
    assert!(all("get /.innkeeper-check") && all("\r\nx-innkeeper-access: /web\r\n"));
    assert!(all("\r\nx-forwarded-method: get\r\n"));
    assert!(
        asked
            .iter()
            .any(|head| head.contains("\r\nx-forwarded-uri: /api/x?q={env.home}\r\n"))
    );
    rig.stop().await;
}

#[tokio::test]
async fn admitted_request_reaches_the_app_without_our_secrets() {
    let Some((rig, _)) = Rig::start_checked("admitted requests").await else {
        return;
    };
    rig.ensure(&checked(full("web"))).await;
    let spoofed = "X-Sandbox-External-User-Id: root\r\nX_Sandbox_External_User_Id: root\r\nX-Sandbox_External-User-Id: root\r\nX-Innkeeper-Bypass: ig_1_x\r\nX-Innkeeper-Access: /other\r\n";
    let headers = format!("{ADMITTED}{spoofed}Authorization: Basic eDp5\r\n");
    let body = vec![b'x'; 1 << 20];
    let echoed = request("web.localhost", "POST /echo", &headers, &body).await;
    let heads = echoed.body.to_ascii_lowercase();
    assert!(heads.starts_with("post /echo http/1.1\r\n"), "{echoed:?}");
    assert!(heads.contains("\r\ncookie: a=1; b=2\r\n"), "{heads}");
    assert!(
        heads.contains("\r\nauthorization: basic edp5\r\n"),
        "{heads}"
    );
    assert!(
        heads.contains("\r\nx-sandbox-external-user-id: alice\r\n"),
        "{heads}"
    );
    for secret in [
        "root",
        "__host-innkeeper",
        "sandbox_preview",
        "ig_1",
        "x-innkeeper-bypass",
    ] {
        assert!(!heads.contains(secret), "{secret}: {heads}");
    }
    let posted = request("web.localhost", "POST /api/x", ADMITTED, &body).await;
    assert!(
        posted.body.starts_with(&response_start(4000, "POST /x"))
            && posted.body.ends_with("body=1048576"),
        "{posted:?}"
    );

    // A program without a name.
    let token = "Authorization: Bearer ig_1_ok\r\nX-Sandbox-External-User-Id: root\r\n";
    let echoed = request("web.localhost", "GET /echo", token, b"").await;
    let heads = echoed.body.to_ascii_lowercase();
    assert!(heads.starts_with("get /echo"), "{echoed:?}");
    for removed in ["authorization", "cookie", "external-user-id"] {
        assert!(!heads.contains(removed), "{removed}: {heads}");
    }
    let only = "Cookie: __Host-innkeeper-preview=ok; __Host-innkeeper=ik_1_x\r\n";
    let echoed = request("web.localhost", "GET /echo", only, b"").await;
    assert!(
        !echoed.body.to_ascii_lowercase().contains("cookie"),
        "{echoed:?}"
    );

    let (mut socket, head) = Socket::request("web.localhost", "/ws", ADMITTED).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(socket.echoes().await);
    rig.stop().await;
}

#[tokio::test]
async fn parameters_of_ours_end_in_a_redirect_to_the_rest() {
    let Some((rig, asked)) = Rig::start_checked("parameters").await else {
        return;
    };
    rig.ensure(&checked(simple("web"))).await;
    rig.ensure(&simple("open")).await;
    let cases = [
        ("/x?innkeeper_share=ig_1_x", "/x"),
        ("/x?a=%20&innkeeper_share=ig_1_x", "/x?a=%20"),
        ("/x?sandbox_preview=j.w.t&a=1&b", "/x?a=1&b"),
        ("//evil%3F?a=1&innkeeper_bypass=x&b=2", "//evil%3F?a=1&b=2"),
        (
            "/?innkeeper_share=x&innkeeper_share=y",
            "/?innkeeper_share=y",
        ),
    ];
    for (path, left) in cases {
        for host in [
            "web.localhost",
            "open.localhost",
            "WEB.localhost",
            "oPen.LOCALHOST",
        ] {
            let line = format!("GET {path}");
            let response = request(host, &line, ADMITTED, b"").await;
            assert_eq!(response.status, 307, "{host} {path}: {response:?}");
            let location = format!("http://{}:8080{left}", host.to_ascii_lowercase());
            assert_eq!(response.header("location"), Some(location.as_str()));
        }
    }
    // Another name is the app's own.
    let own = get(
        "open.localhost",
        "/x?my_innkeeper_share=1&innkeeper_shared=2",
    )
    .await;
    assert_eq!(own.status, 200, "{own:?}");
    // The gateway gets the parameters of a visitor that it does not know.
    let share = get("web.localhost", "/x?innkeeper_share=ig_1_x").await;
    assert!(is_refusal(&share));
    let asked = asked.lock().clone();
    assert!(
        asked
            .last()
            .expect("asked")
            .contains("\r\nx-forwarded-uri: /x?innkeeper_share=ig_1_x\r\n")
    );
    rig.stop().await;
}

#[tokio::test]
async fn public_preview_causes_no_question_and_gets_no_secrets() {
    let Some((rig, asked)) = Rig::start_checked("public previews").await else {
        return;
    };
    rig.start_resolver().await;
    rig.ensure(&simple("web")).await;
    let headers = format!(
        "{ADMITTED}X-Sandbox-External-User-Id: root\r\nX_Sandbox-External_User-Id: root\r\nAuthorization: bearer ik_1_x\r\nX-Innkeeper-Bypass: x\r\n"
    );
    for stage in ["new", "settled", "with rules"] {
        match stage {
            "settled" => {
                rig.settle().await;
                assert!(rig.is_settled("web", "web"));
            }
            "with rules" => rig.ensure(&full("web")).await,
            _ => {}
        }
        let echoed = request("web.localhost", "GET /echo", &headers, b"").await;
        let heads = echoed.body.to_ascii_lowercase();
        assert!(heads.starts_with("get /echo"), "{stage}: {echoed:?}");
        assert!(
            heads.contains("\r\ncookie: a=1; b=2\r\n"),
            "{stage}: {heads}"
        );
        for secret in [
            "root",
            "ik_1",
            "innkeeper-preview",
            "bypass",
            "external",
            "authorization",
        ] {
            assert!(!heads.contains(secret), "{stage}: {secret}: {heads}");
        }
    }
    assert!(Socket::open("web.localhost", "/ws").await.echoes().await);
    assert_eq!(*asked.lock(), Vec::<String>::new());
    rig.stop_resolver().await;
    rig.stop().await;
}

#[tokio::test]
async fn preview_is_closed_while_its_visitors_cannot_be_checked() {
    let Some(mut rig) = Rig::start("closed previews").await else {
        return;
    };
    serve_pages(&rig.path("pages.sock"));
    let is_closed = |response: &Response| {
        response.status == 503 && response.header("x-innkeeper-page") == Some("closed")
    };
    // Without a gateway, and then with one that does not run.
    for stage in ["no gateway", "not running"] {
        for state in [RouteState::Live, RouteState::Held, RouteState::Placeholder] {
            rig.ensure(&with_state(state.clone())).await;
            let page = request(
                "web.localhost",
                "GET /",
                "Accept: text/html\r\nCookie: __Host-innkeeper-preview=ok\r\n",
                b"",
            )
            .await;
            assert!(
                is_closed(&page) && page.body.starts_with("<!doctype html>"),
                "{stage} {state:?}: {page:?}"
            );
            let posted = request("web.localhost", "POST /api/x", ADMITTED, b"x").await;
            assert!(is_closed(&posted), "{stage} {state:?}: {posted:?}");
        }
        rig.connect_door();
    }
    // An answer that never comes is no admission either: this socket only accepts.
    let _listener =
        std::os::unix::net::UnixListener::bind(rig.path("access.sock")).expect("listens");
    let pending = tokio::spawn(async { get("web.localhost", "/").await });
    rig.ensure(&simple("other")).await;
    assert_eq!(get("other.localhost", "/").await.status, 200);
    assert!(!pending.is_finished());
    pending.abort();
    rig.stop().await;
}

#[tokio::test]
async fn change_of_the_visibility_is_in_force_at_once() {
    let Some((rig, asked)) = Rig::start_checked("changes of visibility").await else {
        return;
    };
    rig.start_resolver().await;
    rig.ensure(&full("web")).await;
    rig.ensure(&simple("other")).await;
    rig.settle().await;
    let mut socket = Socket::open("web.localhost", "/ws").await;
    let loads = rig.loads();
    let slug = name("web");
    // Without a route there is nothing to do.
    rig.routes
        .set_checked(&name("absent"), true)
        .await
        .expect("nothing");
    for _ in 0..2 {
        rig.routes.set_checked(&slug, true).await.expect("checked");
        assert!(is_refusal(&get("web.localhost", "/").await));
        assert!(is_refusal(&get("admin-web.localhost", "/").await));
        assert!(!rig.is_complete(&full("web")).await);
        let response = admitted("/api/x").await;
        assert!(
            response.body.starts_with(&response_start(4000, "GET /x")),
            "{response:?}"
        );
        assert_eq!(get("other.localhost", "/").await.status, 200);
        // The next route keeps it, whatever the file of the administrator has.
        rig.ensure(&checked(full("web"))).await;
        assert!(rig.is_complete(&checked(full("web"))).await);
        rig.routes.set_checked(&slug, false).await.expect("open");
        check_full("open again").await;
        rig.ensure(&full("web")).await;
        check_full("open again, with shortcuts").await;
    }
    assert_eq!(rig.loads(), loads, "no change needs a load");
    assert!(socket.echoes().await);
    let questions = asked.lock().len();
    assert_eq!(questions, 6, "only those of checked requests");
    rig.stop_resolver().await;
    rig.stop().await;
}

#[tokio::test]
async fn own_guest_and_errors_of_apps_are_as_in_public_previews() {
    let Some((rig, asked)) = Rig::start_checked("a guest's own requests").await else {
        return;
    };
    // Nothing listens there.
    let broken = RouteSpec {
        routes: vec![rule("/", 3999, false), rule("/x", 3000, false)],
        ..checked(simple("web"))
    };
    rig.ensure(&broken).await;
    assert!(is_refusal(&get("web.localhost", "/").await));
    let page = admitted("/").await;
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.body.contains("/.innkeeper-hold/ for"), "{page:?}");
    assert!(
        rig.routes
            .visits()
            .await
            .expect("visits")
            .iter()
            .any(|(slug, _)| *slug == name("web"))
    );
    // The guest's own address: no question.
    let before = asked.lock().len();
    let stream = tokio::net::TcpSocket::new_v4().expect("a socket");
    stream.bind(SocketAddr::from((GUEST, 0))).expect("binds");
    let guests: SocketAddr = "127.0.0.1:8082".parse().expect("an address");
    let mut stream = stream.connect(guests).await.expect("connects");
    let head = "GET /x HTTP/1.1\r\nHost: web.localhost:8082\r\nConnection: close\r\nX-Sandbox-External-User-Id: root\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("reads");
    assert!(
        response.contains(&response_start(3000, "GET /x")),
        "{response}"
    );
    let stranger = request_on(8082, "web.localhost", "GET /x", "", b"").await;
    assert_eq!(stranger.status, 403, "{stranger:?}");
    assert_eq!(asked.lock().len(), before);
    rig.stop().await;
}
