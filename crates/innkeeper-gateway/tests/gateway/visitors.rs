//! Visitors of previews that are not public: the responses to Caddy's requests about them.

use innkeeper_model::access::{AccessGrant, GrantKind};
use innkeeper_model::preview::Visibility::{Private, Public, Team};
use jiff::{Timestamp, ToSpan as _};
use rustix::process::Signal;
use serde_json::json;

use crate::support::client::get;
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::visitor::{
    PAGE, cookie, grant, host, log_in, path_of, publish, published, signed, visit, visit_host,
};
use crate::support::{bearer, directory, publish as publish_tokens};

#[tokio::test]
async fn stranger_is_sent_to_log_in_and_programs_are_refused() {
    let directory = directory();
    let program = Program::start(directory.path());
    // Until innkeeperd has written the rights, nobody passes.
    assert_eq!(visit(&program, "web", "/", &[PAGE]).await.status(), 503);
    publish(directory.path(), &[("web", Private), ("open", Public)], &[]);
    publish_tokens(directory.path(), &[]);

    let page = visit(&program, "web", "/a?b=c&d", &[PAGE]).await;
    assert_eq!(page.status(), 302);
    let path = path_of(page.header("location"), "api.example.org");
    let expected = "/access?host=web%2Eexample%2Eorg&return=%2Fa%3Fb%3Dc%26d&nonce=";
    assert!(path.starts_with(expected), "{path}");
    let set = page.header("set-cookie");
    assert!(set.starts_with("__Host-innkeeper-nonce="), "{set}");
    assert!(
        set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"),
        "{set}"
    );
    assert_eq!(page.header("cache-control"), "no-store");
    // The URL does not have the nonce itself.
    let nonce = cookie(&page);
    let (_, nonce) = nonce.split_once('=').expect("a cookie");
    assert!(nonce.len() == 43 && !path.contains(nonce), "{path}");

    for headers in [
        &[][..],
        &[("accept", "*/*")],
        &[PAGE, ("sec-fetch-mode", "cors")],
        &[PAGE, ("x-forwarded-method", "POST")],
        &[("upgrade", "websocket"), ("connection", "upgrade")],
        &[("cookie", "__Host-innkeeper-preview=x; sandbox_preview=y")],
    ] {
        let refused = visit(&program, "web", "/", headers).await;
        assert_eq!(refused.status(), 401, "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        assert_eq!(refused.header("set-cookie"), "");
        let fields: serde_json::Value = serde_json::from_str(&refused.body).expect("JSON");
        assert_eq!(fields["error"], "unauthorized");
    }
    assert_eq!(visit(&program, "open", "/", &[]).await.status(), 204);
    let metrics = scrape(&program).await;
    for line in [
        "visits_total{result=\"passed\"} 1",
        "visits_total{result=\"login\"} 1",
        "visits_total{result=\"refused\"} 6",
        "visits_total{result=\"unavailable\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

/// Returns the metrics.
async fn scrape(program: &Program) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(&program.metrics)
        .await
        .expect("connects");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("responds");
    text
}

#[tokio::test]
async fn requests_that_caddy_does_not_send_never_pass() {
    let directory = directory();
    let program = Program::start(directory.path());
    publish_tokens(directory.path(), &[7]);
    publish(
        directory.path(),
        &[("web", Team), ("other", Team), ("open", Public)],
        &[published(1, "web", GrantKind::Bypass)],
    );
    let token = format!("Bearer {}", grant(1));
    let headers = [("authorization", token.as_str())];
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 204);
    for (slug, host, target, status) in [
        ("web", "web.example.org:8443", "/", 204),
        ("web", "api-web.example.org", "/", 204),
        ("web", "other.example.org", "/", 503),
        ("web", "open.example.org", "/", 503),
        ("open", "web.example.org", "/", 503),
        ("missing", "web.example.org", "/", 503),
        ("web", "web.example.org.evil.example", "/", 503),
        ("web", "evil.example/web.example.org", "/", 400),
        ("web", "web.example.org@evil.example", "/", 400),
        ("web", "", "/", 400),
        ("", "web.example.org", "/", 400),
        ("../web", "web.example.org", "/", 400),
        ("web", "web.example.org", "", 400),
        ("web", "web.example.org", "https://evil.example/", 400),
    ] {
        let answer = visit_host(&program, slug, host, target, &headers).await;
        assert_eq!(answer.status(), status, "{slug} {host} {target}");
    }
    for path in ["/", "/access", "/v1/guests", "/.innkeeper-check/x"] {
        assert_eq!(
            get(&program.access, path, &headers).await.status(),
            404,
            "{path}"
        );
    }
    assert_eq!(get(&program.access, "/healthz", &[]).await.body, "ok");
}

#[tokio::test]
async fn page_of_another_host_cannot_use_a_pass() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(directory.path(), &[("web", Team)], &[]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let pass = log_in(&program, "web", "/", 7).await;
    let site = |value| ("sec-fetch-site", value);
    let mode = |value| ("sec-fetch-mode", value);
    let origin = |value| ("origin", value);
    let [own, extra, other] = [
        "https://web.example.org",
        "https://api-web.example.org",
        "https://other.example.org",
    ];
    for (headers, status) in [
        (vec![origin(own)], 204),
        (vec![origin(extra), site("same-site"), mode("cors")], 204),
        (vec![site("same-origin"), mode("cors")], 204),
        (vec![site("none"), mode("navigate")], 204),
        (vec![site("same-site"), mode("navigate")], 204),
        (
            vec![
                site("same-site"),
                mode("no-cors"),
                ("referer", "https://api-web.example.org/x"),
            ],
            204,
        ),
        (vec![origin(other)], 401),
        (
            vec![
                origin(other),
                ("upgrade", "websocket"),
                ("connection", "upgrade"),
            ],
            401,
        ),
        (
            vec![
                origin(other),
                site("same-site"),
                mode("navigate"),
                ("x-forwarded-method", "POST"),
            ],
            401,
        ),
        (vec![origin("null")], 401),
        (vec![origin("http://web.example.org")], 401),
        (vec![origin("https://web.example.org:8443")], 401),
        (vec![origin("https://web.example.org.evil.example")], 401),
        (vec![site("same-site"), mode("no-cors")], 401),
        (
            vec![
                site("cross-site"),
                mode("no-cors"),
                ("referer", "https://evil.example/https://web.example.org/"),
            ],
            401,
        ),
    ] {
        let all = [&headers[..], &[("cookie", pass.as_str())]].concat();
        assert_eq!(
            visit(&program, "web", "/", &all).await.status(),
            status,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn share_links_and_bypass_tokens_open_one_preview() {
    let directory = directory();
    let program = Program::start(directory.path());
    let expired = AccessGrant {
        expires: Some(Timestamp::now() - 1.second()),
        ..published(5, "web", GrantKind::Share)
    };
    let grants = [
        published(1, "web", GrantKind::Share),
        published(2, "web", GrantKind::Bypass),
        published(3, "other", GrantKind::Share),
        published(4, "other", GrantKind::Bypass),
        expired,
    ];
    publish_tokens(directory.path(), &[7]);
    publish(
        directory.path(),
        &[("web", Private), ("other", Team)],
        &grants,
    );
    let [share, bypass, other_share, other_bypass, expired] = [1, 2, 3, 4, 5].map(grant);

    for (headers, status) in [
        (vec![("authorization", format!("Bearer {bypass}"))], 204),
        (vec![("x-innkeeper-bypass", bypass.clone())], 204),
        (
            vec![
                ("authorization", "Basic YTpi".to_owned()),
                ("x-innkeeper-bypass", bypass.clone()),
            ],
            204,
        ),
        (vec![("authorization", format!("bearer  {bypass}"))], 204),
        (vec![("authorization", format!("Bearer {share}"))], 401),
        (
            vec![("authorization", format!("Bearer {other_bypass}"))],
            401,
        ),
        (
            vec![(
                "authorization",
                format!("Bearer {}x", &bypass[..bypass.len() - 1]),
            )],
            401,
        ),
        (vec![("authorization", bearer(7))], 401),
        (
            vec![
                ("authorization", bearer(7)),
                ("x-innkeeper-bypass", bypass.clone()),
            ],
            401,
        ),
        (
            vec![
                ("authorization", "Bearer app".to_owned()),
                ("authorization", format!("Bearer {bypass}")),
            ],
            401,
        ),
        (vec![("x-innkeeper-bypass", String::new())], 401),
        (vec![("authorization", "Bearer app".to_owned())], 401),
    ] {
        let sent: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            visit(&program, "web", "/", &sent).await.status(),
            status,
            "{headers:?}"
        );
    }

    let exchange = async |slug: &str, query: &str| {
        let target = format!("/a?{query}");
        visit(&program, slug, &target, &[PAGE]).await
    };
    let query = format!("b=%20&innkeeper_share={share}&c");
    let opened = exchange("web", &query).await;
    assert_eq!(
        (opened.status(), opened.header("location")),
        (302, "https://web.example.org/a?b=%20&c")
    );
    let pass = cookie(&opened);
    let with_pass = [("cookie", pass.as_str())];
    assert_eq!(visit(&program, "web", "/", &with_pass).await.status(), 204);
    assert_eq!(
        visit(&program, "other", "/", &with_pass).await.status(),
        401
    );
    let ci = exchange("web", &format!("innkeeper_bypass={bypass}")).await;
    assert_eq!(
        (ci.status(), ci.header("location")),
        (302, "https://web.example.org/a")
    );
    for query in [
        format!("innkeeper_share={bypass}"),
        format!("innkeeper_bypass={share}"),
        format!("innkeeper_share={other_share}"),
        format!("innkeeper_share={expired}"),
        "innkeeper_share=".to_owned(),
        "innkeeper_share=ig_1_x".to_owned(),
    ] {
        let refused = exchange("web", &query).await;
        assert_eq!(
            (refused.status(), refused.header("set-cookie")),
            (403, ""),
            "{query}"
        );
        assert!(!refused.body.contains("ig_"), "{}", refused.body);
    }
    // A visitor with a pass is not disturbed by an old link.
    let headers = [PAGE, ("cookie", pass.as_str())];
    let old = visit(&program, "web", "/a?innkeeper_share=x&b", &headers).await;
    assert_eq!(
        (old.status(), old.header("location")),
        (302, "https://web.example.org/a?b")
    );

    publish(directory.path(), &[("web", Private)], &grants[1..]);
    assert_eq!(
        visit(&program, "web", "/", &with_pass).await.status(),
        401,
        "revoked"
    );
}

#[tokio::test]
async fn visitor_of_another_program_has_a_name() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let directory = directory();
    let file = directory.path().join("sandbox.key");
    std::fs::write(&file, format!("{KEY}\n")).expect("writes");
    let settings = format!("sandbox_preview_key_file = '{}'", file.display());
    let program = Program::start_with(directory.path(), &settings);
    publish(directory.path(), &[("web", Private)], &[]);
    publish_tokens(directory.path(), &[]);
    let now = Timestamp::now().as_second();
    let claims = json!({
        "aud": "sandbox-preview", "sub": "user_1", "host": host("web"), "exp": now + 600,
    });
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let token = signed(KEY, header, &claims);
    let with = async |token: &str| {
        let cookie = format!("sandbox_preview={token}");
        visit(&program, "web", "/", &[("cookie", &cookie)]).await
    };
    let passed = with(&token).await;
    assert_eq!(passed.status(), 204);
    assert_eq!(passed.header("x-sandbox-external-user-id"), "user_1");
    let forged = [("x-sandbox-external-user-id", "admin")];
    let refused = visit(&program, "web", "/", &forged).await;
    assert_eq!(
        (
            refused.status(),
            refused.header("x-sandbox-external-user-id")
        ),
        (401, "")
    );

    let target = format!("/a?sandbox_preview={token}&b");
    let opened = visit(&program, "web", &target, &[PAGE]).await;
    assert_eq!(
        (opened.status(), opened.header("location")),
        (302, "https://web.example.org/a?b")
    );
    assert_eq!(cookie(&opened), format!("sandbox_preview={token}"));
    assert!(opened.header("set-cookie").contains("HttpOnly"));

    let changed = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(KEY, header, &claims)
    };
    let (unsigned, _) = token.rsplit_once('.').expect("three parts");
    for token in [
        signed(KEY, r#"{"alg":"none"}"#, &claims),
        signed(KEY, r#"{"alg":"HS512"}"#, &claims),
        signed("another key of thirty-two bytes.", header, &claims),
        format!("{unsigned}."),
        changed("aud", json!("innkeeper-preview")),
        changed("host", json!(host("other"))),
        changed("exp", json!(now - 1)),
        changed("sub", json!("a\r\nb: c")),
    ] {
        assert_eq!(with(&token).await.status(), 401, "{token}");
    }

    // Another key, without a restart.
    std::fs::write(&file, "another key of thirty-two bytes.").expect("writes");
    program.signal(Signal::HUP);
    program.wait_for("RELOADING=1");
    program.wait_for("READY=1");
    assert_eq!(with(&token).await.status(), 401);
}

#[tokio::test]
async fn hostile_heads_are_refused_and_cost_little() {
    let directory = directory();
    let program = Program::start(directory.path());
    publish_tokens(directory.path(), &[]);
    publish(directory.path(), &[("web", Private)], &[]);
    let huge = format!("__Host-innkeeper-preview={}", "a".repeat(100 << 10));
    assert_eq!(
        visit(&program, "web", "/", &[("cookie", &huge)])
            .await
            .status(),
        431
    );
    let many = "__Host-innkeeper-preview=a.b.c; ".repeat(900);
    assert_eq!(
        visit(&program, "web", "/", &[("cookie", &many)])
            .await
            .status(),
        401
    );
    let parameters = format!("/?{}", "innkeeper_share=x&".repeat(800));
    assert_eq!(visit(&program, "web", &parameters, &[]).await.status(), 401);
    let long = format!("/{}", "a".repeat(20 << 10));
    assert_eq!(visit(&program, "web", &long, &[PAGE]).await.status(), 400);
    // A path that is too long to be kept over a login leads to the first page.
    let long = format!("/{}", "a".repeat(4 << 10));
    let sent = visit(&program, "web", &long, &[PAGE]).await;
    assert!(
        sent.header("location").contains("&return=%2F&"),
        "{}",
        sent.header("location")
    );
    let fields = vec![("x-many", "1"); 200];
    assert_eq!(visit(&program, "web", "/", &fields).await.status(), 431);
    assert_eq!(visit(&program, "web", "/", &[]).await.status(), 401);
}
