//! Settled hosts: the same responses as by the table, and no former address after any change.

use std::os::unix::fs::{MetadataExt as _, symlink};

use super::unavailable::serve_pages;
use super::*;

/// The address of the guest of `pages` stand-in, whose app comes and goes.
const APP: [u8; 4] = [127, 0, 1, 7];

/// Starts all programs, and settles the hosts of a preview.
async fn settled(test: &str, spec: &RouteSpec) -> Option<Rig> {
    let rig = Rig::start(test).await?;
    rig.start_resolver().await;
    rig.ensure(spec).await;
    rig.settle().await;
    assert!(rig.is_settled("web", "web"));
    assert!(rig.is_complete(spec).await);
    Some(rig)
}

fn at(guest: [u8; 4]) -> RouteSpec {
    RouteSpec {
        guest_address: guest.into(),
        ..simple("web")
    }
}

/// Whether Caddy has followed the link of the host since the last call of [`CaddyRoutes::visits`].
fn is_used(rig: &Rig) -> bool {
    let metadata = std::fs::symlink_metadata(rig.link("web", "web")).expect("settled");
    metadata.atime() != 0
}

/// Whether Caddy has listed the directory of the address since.
fn is_listed(rig: &Rig) -> bool {
    let live = rig.path("table/previews/web/hosts/web.localhost/live");
    std::fs::metadata(live).expect("live").atime() != 0
}

#[tokio::test]
async fn settled_hosts_have_the_same_responses() {
    let Some(rig) = settled("settled hosts", &simple("web")).await else {
        return;
    };
    rig.routes.visits().await.expect("visits");
    assert!(!is_used(&rig), "settling is no visit");
    let body = vec![b'x'; 1 << 20];
    let post = request("web.localhost", "POST /a%2Fb/?c=%20", "", &body).await;
    let expected = "127.0.1.3:3000 POST /a%2Fb/?c=%20 host=web.localhost:8080 for=127.0.0.1 proto=http body=1048576";
    assert_eq!((post.status, post.body.as_str()), (200, expected));
    assert!(is_used(&rig));
    assert!(!is_listed(&rig), "no directory is listed");
    responses::check_responses(&["/", "/x"]).await;
    let mut socket = Socket::open("web.localhost", "/ws").await;
    assert!(socket.echoes().await);
    // Settled again without a change: nothing happens to connections.
    rig.settle().await;
    rig.ensure(&simple("web")).await;
    assert!(rig.is_settled("web", "web"));
    assert!(socket.echoes().await);
    assert!(!is_listed(&rig), "no directory is listed");
    // Hosts that are not in lower case are looked up in the table.
    for host in ["WEB.localhost", "wEb.LOCALHOST"] {
        let response = get(host, "/").await;
        assert_eq!(response.status, 200, "{host}: {response:?}");
        assert!(response.body.starts_with("127.0.1.3:3000 GET / "), "{host}");
    }
    for host in [
        "w*.localhost",
        "we%62.localhost",
        "we_.localhost",
        "w\\eb.localhost",
        "[w]eb.localhost",
        "web.web.localhost",
        "a.b.web.localhost",
        "other.localhost",
        "..localhost",
        "localhost",
        "g-127-0-1-3.localhost",
        "g-127-0-1-3.routes.innkeeper.internal",
        "web.localhost.routes.innkeeper.internal",
    ] {
        let status = get(host, "/").await.status;
        assert!([400, 404].contains(&status), "{host}: {status}");
    }
    let dotted = get("web.localhost.", "/").await;
    assert_eq!(dotted.status, 308, "{dotted:?}");
    // Names with a meaning elsewhere.
    for slug in ["default", "import", "g-127-0-1-5"] {
        let host = format!("{slug}.localhost");
        rig.ensure(&simple(slug)).await;
        rig.settle().await;
        assert!(rig.is_settled(slug, slug));
        let response = get(&host, "/").await;
        assert!(
            response.body.starts_with("127.0.1.3:3000 GET / "),
            "{slug}: {response:?}"
        );
    }
    rig.stop().await;
}

/// Caddy has the SRV record of the host in its cache throughout.
#[tokio::test]
async fn changes_of_settled_hosts_apply_at_once() {
    let Some(rig) = settled("changes of settled hosts", &simple("web")).await else {
        return;
    };
    let mut socket = Socket::open("web.localhost", "/ws").await;
    let loads = rig.loads();
    let states = [
        (at(OTHER_GUEST), 200, "127.0.1.5:3000 "),
        (
            RouteSpec {
                routes: vec![rule("/", 4000, false)],
                ..simple("web")
            },
            200,
            "127.0.1.3:4000 ",
        ),
        (placeholder("web"), 503, "This preview does not answer"),
        (
            RouteSpec {
                state: RouteState::Held,
                ..at(OTHER_GUEST)
            },
            503,
            "This preview does not answer",
        ),
        (full("web"), 200, "127.0.1.3:3000 "),
    ];
    for (spec, status, start) in states {
        rig.ensure(&simple("web")).await;
        // In service, the host is settled again only after Caddy has forgotten the record; here it still is the same.
        rig.settle().await;
        let before = get("web.localhost", "/").await;
        assert!(before.body.starts_with("127.0.1.3:3000 "), "{before:?}");
        rig.ensure(&spec).await;
        assert!(!rig.is_settled("web", "web"), "{spec:?}");
        let after = get("web.localhost", "/").await;
        assert_eq!(after.status, status, "{after:?}");
        assert!(after.body.starts_with(start), "{after:?}");
    }
    rig.ensure(&simple("web")).await;
    rig.settle().await;
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.remove("web").await;
    assert_eq!(get("web.localhost", "/").await.status, 404);
    assert_eq!(rig.loads(), loads);
    assert!(socket.echoes().await, "a WebSocket outlives all changes");
    rig.stop().await;
}

#[tokio::test]
async fn only_hosts_that_have_not_changed_for_a_minute_are_settled() {
    let Some(rig) = Rig::start("the time until hosts are settled").await else {
        return;
    };
    // The record may be as old as a query can take, by Go's default.
    let query = Duration::from_secs(5);
    assert!(render::settled::REFRESH + query < UNCHANGED);
    let settle = async |routes: &CaddyRoutes| routes.settle().await.expect("settles");
    let minute_later = |routes: &CaddyRoutes| {
        let mut since = routes.inner.table.unchanged_since.lock();
        for time in since.values_mut() {
            *time = time.checked_sub(UNCHANGED).expect("an earlier time");
        }
    };
    rig.ensure(&full("web")).await;
    settle(&rig.routes).await;
    settle(&rig.routes).await;
    assert!(!rig.is_settled("web", "admin-web"));
    minute_later(&rig.routes);
    settle(&rig.routes).await;
    assert!(rig.is_settled("web", "admin-web"));
    assert!(!rig.is_settled("web", "web"), "it has several rules");
    // A change, and one that is none.
    rig.ensure(&with_extra("web", "admin")).await;
    assert!(!rig.is_settled("web", "admin-web"));
    settle(&rig.routes).await;
    minute_later(&rig.routes);
    rig.ensure(&with_extra("web", "admin")).await;
    settle(&rig.routes).await;
    assert!(rig.is_settled("web", "admin-web") && rig.is_settled("web", "web"));
    // A change just before the look at the routes.
    minute_later(&rig.routes);
    rig.ensure(&full("web")).await;
    settle(&rig.routes).await;
    assert!(!rig.is_settled("web", "admin-web"));
    // Removed and created again.
    minute_later(&rig.routes);
    rig.remove("web").await;
    rig.ensure(&simple("web")).await;
    settle(&rig.routes).await;
    assert!(!rig.is_settled("web", "web"));
    minute_later(&rig.routes);
    settle(&rig.routes).await;
    assert!(rig.is_settled("web", "web"));
    // After a restart of the daemon, links stay, and other hosts wait again.
    rig.ensure(&simple("shop")).await;
    let restarted = CaddyRoutes::new(config(rig.dir.path()));
    settle(&restarted).await;
    assert!(rig.is_settled("web", "web") && !rig.is_settled("shop", "shop"));
    for options in [
        RouteRule {
            protocol: RouteProtocol::H2c,
            ..rule("/", 3000, false)
        },
        rule("/app/*", 3000, false),
    ] {
        let spec = RouteSpec {
            routes: vec![options],
            ..simple("web")
        };
        rig.ensure(&spec).await;
        rig.settle().await;
        assert!(!rig.is_settled("web", "web"), "{spec:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn visits_of_settled_hosts_are_reported() {
    let Some(rig) = settled("visits of settled hosts", &with_extra("web", "admin")).await else {
        return;
    };
    let visited = async || {
        let visits = rig.routes.visits().await.expect("visits");
        let slugs = visits.into_iter().map(|(slug, _)| slug.to_string());
        slugs.collect::<Vec<_>>()
    };
    visited().await;
    for _ in 0..2 {
        for host in ["web", "admin-web"] {
            assert_eq!(get(&format!("{host}.localhost"), "/").await.status, 200);
            assert_eq!(visited().await, ["web"], "{host}");
            assert!(rig.is_complete(&with_extra("web", "admin")).await);
            rig.settle().await;
            assert_eq!(visited().await, [""; 0], "{host}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn without_the_resolver_requests_are_looked_up() {
    let Some(rig) = settled("settled hosts without a resolver", &simple("web")).await else {
        return;
    };
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.routes.visits().await.expect("visits");
    rig.stop_resolver().await;
    let response = request("web.localhost", "POST /", "", b"body").await;
    assert!(response.body.ends_with("body=4"), "{response:?}");
    assert!(is_listed(&rig));
    assert!(!is_used(&rig));
    // It starts again.
    rig.start_resolver().await;
    assert_eq!(get("web.localhost", "/").await.status, 200);
    assert!(is_used(&rig));
    rig.stop().await;
}

/// A crash leaves the link to the table, until the program has started again.
#[tokio::test]
async fn requests_are_answered_while_the_resolver_has_crashed() {
    let Some(rig) = Rig::start("a crashed resolver").await else {
        return;
    };
    let (_arrivals, pages) = serve_pages(&rig);
    std::fs::create_dir(rig.path("dns")).expect("made");
    symlink(rig.path("table"), rig.path("dns/table")).expect("linked");
    rig.ensure(&at(APP)).await;
    rig.settle().await;
    let app = serve_app(SocketAddr::from((APP, 3000))).await;
    for (line, body) in [
        ("GET /x", &b""[..]),
        ("POST /x", b"body"),
        ("DELETE /x", b""),
    ] {
        let forged = "X-Innkeeper-Again: 127.0.1.3:4000\r\n";
        let response = request("web.localhost", line, forged, body).await;
        let expected = format!(
            "127.0.1.7:3000 {line} host=web.localhost:8080 for=127.0.0.1 proto=http body={}",
            body.len()
        );
        assert_eq!((response.status, response.body), (200, expected), "{line}");
    }
    assert!(Socket::open("web.localhost", "/ws").await.echoes().await);
    // Without the pages' program, and with a host that has no app meanwhile: never an empty response.
    pages.abort();
    drop(pages.await);
    std::fs::remove_file(rig.path("pages.sock")).expect("removed");
    let response = get("web.localhost", "/").await;
    let no_answer = "This preview does not answer at the moment.";
    assert_eq!((response.status, response.body.as_str()), (503, no_answer));
    app.abort();
    rig.ensure(&placeholder("web")).await;
    let page = rig.path("table/previews/web/hosts/web.localhost/settled");
    symlink("host", page).expect("linked");
    let response = get("web.localhost", "/").await;
    assert_eq!((response.status, response.body.as_str()), (503, no_answer));
    rig.stop().await;
}

/// Caddy has the app's name, and the resolver or the app is gone.
#[tokio::test]
async fn a_settled_app_that_refuses_connections_has_a_page() {
    let Some(rig) = settled("refused connections of a settled app", &at(APP)).await else {
        return;
    };
    let (mut arrivals, pages) = serve_pages(&rig);
    let post = async || request("web.localhost", "POST /p", "", b"body").await;
    let response = post().await;
    assert_eq!((response.status, response.body.as_str()), (503, "PAGE"));
    let before = *arrivals.borrow();
    let (response, mut socket, app) = tokio::join!(
        get("web.localhost", "/x"),
        Socket::open("web.localhost", "/ws"),
        async {
            let arrived = arrivals.wait_for(|arrived| *arrived >= before + 2);
            drop(arrived.await.expect("the stand-in runs"));
            Some(serve_app(SocketAddr::from((APP, 3000))).await)
        }
    );
    let app = app.expect("started");
    let expected = "127.0.1.7:3000 GET /x host=web.localhost:8080 for=127.0.0.1 proto=http body=0";
    assert_eq!((response.status, response.body.as_str()), (200, expected));
    assert!(socket.echoes().await);
    rig.stop_resolver().await;
    symlink(rig.path("table"), rig.path("dns/table")).expect("linked");
    let response = get("web.localhost", "/x").await;
    assert_eq!((response.status, response.body.as_str()), (200, expected));
    app.abort();
    drop(app.await);
    pages.abort();
    drop(pages.await);
    for response in [post().await, get("web.localhost", "/x").await] {
        assert_eq!(response.status, 503, "{response:?}");
        assert!(!response.body.is_empty(), "{response:?}");
    }
    rig.stop().await;
}
