//! Routing of requests, placeholders, certificates and visits.

use super::*;

#[tokio::test]
async fn longest_path_wins_in_the_table_and_in_the_file() {
    let Some(rig) = Rig::start("route rules").await else {
        return;
    };
    rig.ensure(&full("web")).await;
    check_full("from the table").await;
    rig.reload().await;
    check_full("from the file").await;
    // Caddy now routes by the file.
    let link = rig.path("table/hosts/web.localhost");
    std::fs::remove_file(&link).expect("remove");
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.ensure(&full("web")).await;
    assert!(link.exists());
    rig.stop().await;
}

/// Excludes `.` and `..` between slashes, which clients resolve themselves.
#[tokio::test]
async fn table_and_file_agree_on_all_paths() {
    let Some(rig) = Rig::start("route paths").await else {
        return;
    };
    let mut spec = full("web");
    spec.extra_hosts.push(ExtraHost {
        prefix: name("bare"),
        routes: vec![rule("/Api/docs", 5000, false), rule("/ws/*", 4000, true)],
    });
    rig.ensure(&spec).await;
    let mut runner = TestRunner::deterministic();
    let piece = proptest::sample::select(vec![
        "/",
        "//",
        "api",
        "Api",
        "docs",
        "ws",
        "x",
        "%2F",
        "%41pi",
        "%61pi",
        "%20",
        "%3F",
        "/api",
        "/api/docs",
        "+",
        "~",
    ]);
    let paths =
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| format!("/{}", pieces.concat()));
    let paths: Vec<_> = (0..300)
        .map(|_| paths.new_tree(&mut runner).expect("value").current())
        .collect();
    let fetch = async |host: &str, path: &str| {
        let response = get(host, path).await;
        let location = response.header("location").map(str::to_owned);
        (response.status, location, response.body)
    };
    let requests: Vec<_> = ["web.localhost", "bare-web.localhost"]
        .iter()
        .flat_map(|host| paths.iter().map(move |path| (host, path)))
        .collect();
    let mut from_table = Vec::new();
    for (host, path) in &requests {
        from_table.push(fetch(host, path).await);
    }
    rig.reload().await;
    for ((host, path), expected) in requests.into_iter().zip(from_table) {
        assert_eq!(fetch(host, path).await, expected, "{host} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn loaded_routes_are_never_stale() {
    let Some(rig) = Rig::start("stale routes").await else {
        return;
    };
    rig.ensure(&with_extra("web", "admin")).await;
    rig.ensure(&simple("shop")).await;
    rig.reload().await;
    let loads = rig.loads();
    // Another address of the guest, and one host less.
    let moved = RouteSpec {
        guest_address: OTHER_GUEST.into(),
        ..simple("web")
    };
    rig.ensure(&moved).await;
    assert!(
        get("web.localhost", "/")
            .await
            .body
            .starts_with("127.0.1.5:3000")
    );
    assert_eq!(get("admin-web.localhost", "/").await.status, 404);
    rig.remove("shop").await;
    assert_eq!(get("shop.localhost", "/").await.status, 404);
    // The version that Caddy has in memory.
    rig.ensure(&with_extra("web", "admin")).await;
    assert!(
        get("web.localhost", "/")
            .await
            .body
            .starts_with("127.0.1.3:3000")
    );
    assert!(
        get("admin-web.localhost", "/")
            .await
            .body
            .starts_with("127.0.1.3:5000")
    );
    assert_eq!(rig.loads(), loads);
    rig.stop().await;
}

/// Caddy 2.6 confuses kept connections to the lookup with those to apps.
#[tokio::test]
async fn many_requests_all_reach_their_guest() {
    let Some(rig) = Rig::start("route burst").await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    let other = RouteSpec {
        guest_address: OTHER_GUEST.into(),
        ..simple("shop")
    };
    rig.ensure(&other).await;
    for round in 0..15 {
        let requests = (0..300).map(async |number| {
            let (host, guest) = [
                ("web.localhost", "127.0.1.3"),
                ("shop.localhost", "127.0.1.5"),
            ][number % 2];
            let response = get(host, &format!("/{number}")).await;
            let expected = format!("{guest}:3000 GET /{number} host={host}:8080 ");
            assert!(
                response.body.starts_with(&expected),
                "round {round}: {host}: {response:?}"
            );
        });
        futures_util::future::join_all(requests).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn placeholder_serves_a_page_and_503() {
    let Some(rig) = Rig::start("route placeholder").await else {
        return;
    };
    rig.ensure(&placeholder("web")).await;
    for stage in ["from the table", "after a reload"] {
        let html = "Accept: text/html,application/xhtml+xml\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\nRange: bytes=0-1\r\n";
        let page = request("web.localhost", "GET /any/path?x", html, b"").await;
        assert_eq!(
            (page.status, page.header("retry-after")),
            (503, Some("3")),
            "{stage}: {page:?}"
        );
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8"),
            "{stage}"
        );
        assert!(
            page.header("content-security-policy")
                .is_some_and(|csp| csp.starts_with("default-src 'none'"))
        );
        assert_eq!(page.header("etag"), None);
        assert!(
            page.body.contains(
                "&lt;script&gt;alert(1)&lt;/script&gt; {{env &quot;HOME&quot;}} {env.HOME}"
            ),
            "{page:?}"
        );
        let refresh = request("web.localhost", "HEAD /", html, b"").await;
        assert_eq!(
            (refresh.status, refresh.body.as_str()),
            (503, ""),
            "{stage}: {refresh:?}"
        );
        for line in [
            "GET /",
            "POST /hook",
            "DELETE /page.txt",
            "GET /previews/web/page.txt/",
        ] {
            let response = request("web.localhost", line, "Accept: */*\r\n", b"{}").await;
            assert_eq!(
                (response.status, response.header("retry-after")),
                (503, Some("3")),
                "{stage}: {line}: {response:?}"
            );
            assert_eq!(
                response.body, "preview web is not ready: building\n",
                "{stage}: {line}"
            );
        }
        rig.reload().await;
    }
    rig.ensure(&simple("web")).await;
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.ensure(&placeholder("web")).await;
    assert_eq!(get("web.localhost", "/").await.status, 503);
    assert_eq!(get("nobody.localhost", "/").await.status, 404);
    rig.stop().await;
}

#[tokio::test]
async fn on_demand_certificates_are_limited_to_previews() {
    let Some(rig) = Rig::start("route certificates").await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    let status = async |domain: &str| {
        let mut stream = TcpStream::connect(LOOKUP).await.expect("connect");
        let head = format!(
            "GET /?domain={domain} HTTP/1.1\r\nHost: {LOOKUP}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("write");
        read_head(&mut stream).await.0[9..12].to_owned()
    };
    assert_eq!(status("web.localhost").await, "200");
    for domain in [
        "shop.localhost",
        "",
        "*",
        "web.localhos%3F",
        "..",
        "../hosts",
    ] {
        assert_eq!(status(domain).await, "404", "{domain}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn visits_are_reported_once_and_only_for_requests() {
    let Some(mut rig) = Rig::start("route visits").await else {
        return;
    };
    let visited = async |rig: &Rig| {
        let visits = rig.routes.visits().await.expect("visits");
        let slugs = visits.into_iter().map(|(slug, _)| slug.to_string());
        slugs.collect::<Vec<_>>()
    };
    assert_eq!(visited(&rig).await, [""; 0]);
    rig.ensure(&with_extra("web", "admin")).await;
    rig.ensure(&placeholder("other")).await;
    assert!(rig.is_complete(&with_extra("web", "admin")).await);
    assert_eq!(visited(&rig).await, [""; 0], "no visits yet");
    for round in ["looked up", "loaded", "restarted"] {
        for host in ["web", "admin-web"] {
            assert_eq!(get(&format!("{host}.localhost"), "/").await.status, 200);
            assert_eq!(visited(&rig).await, ["web"], "{round}: {host}");
            assert!(rig.is_complete(&with_extra("web", "admin")).await);
            assert_eq!(visited(&rig).await, [""; 0], "{round}: {host}");
        }
        match round {
            // From now on, Caddy uses the route in its own file.
            "looked up" => rig.reload().await,
            _ => {
                rig.caddy.kill().await.expect("kill");
                rig.caddy = run_caddy(rig.dir.path()).await;
            }
        }
        assert_eq!(visited(&rig).await, [""; 0], "{round}: loading is no visit");
    }
    get("other.localhost", "/").await;
    assert_eq!(visited(&rig).await, ["other"]);
    rig.stop().await;
}
