//! People who log in to see a preview that is not public: one-time codes and passes.

use std::os::unix::fs::MetadataExt as _;

use innkeeper_model::preview::Visibility::{Private, Public, Team};

use crate::support::client::get;
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::visitor::{
    PAGE, log_in, obtain_code, path_of, publish, session, visit, visit_host,
};
use crate::support::{directory, publish as publish_tokens};

#[tokio::test]
async fn person_gets_a_pass_for_one_host() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(
        directory.path(),
        &[("web", Private), ("other", Private)],
        &[],
    );
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());

    // Without a session, the person logs in first.
    let first = visit(&program, "web", "/a?b", &[PAGE]).await;
    let entrance = path_of(first.header("location"), "api.example.org");
    let login = get(&program.socket, entrance, &[]).await;
    assert_eq!(login.status(), 302);
    assert!(
        login
            .header("location")
            .starts_with("/login?return=%2Faccess%3Fhost%3D")
    );

    let pass = log_in(&program, "web", "/a?b", 7).await;
    assert!(pass.starts_with("__Host-innkeeper-preview="), "{pass}");
    let headers = [("cookie", pass.as_str())];
    let seen = daemon.received().len();
    for _ in 0..20 {
        let passed = visit(&program, "web", "/", &headers).await;
        assert_eq!((passed.status(), passed.body.as_str()), (204, ""));
        assert_eq!(passed.header("set-cookie"), "");
    }
    let socket = [
        ("cookie", pass.as_str()),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
    ];
    assert_eq!(visit(&program, "web", "/", &socket).await.status(), 204);
    let post = [("cookie", pass.as_str()), ("x-forwarded-method", "POST")];
    assert_eq!(visit(&program, "web", "/", &post).await.status(), 204);
    assert_eq!(daemon.received().len(), seen, "innkeeperd takes no part");
    let asked = &daemon.received()[0];
    assert_eq!(asked.uri, "/v1/previews/web/visibility");
    assert_eq!(asked.header("innkeeper-actor"), "token:7");

    // The pass of a host opens no other one, not even of the same preview.
    assert_eq!(visit(&program, "other", "/", &headers).await.status(), 401);
    let extra = visit_host(&program, "web", "api-web.example.org", "/", &headers).await;
    assert_eq!(extra.status(), 401);
    // Neither does the session itself.
    let own = session(7);
    assert_eq!(
        visit(&program, "web", "/", &[("cookie", &own)])
            .await
            .status(),
        401
    );

    // A logout applies at once, and so does the removal of the preview.
    publish_tokens(directory.path(), &[8]);
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 401);
    publish_tokens(directory.path(), &[7]);
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 204);
    publish(directory.path(), &[("other", Private)], &[]);
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 503);
}

#[tokio::test]
async fn refusal_does_not_show_whether_a_preview_exists() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(directory.path(), &[("web", Private)], &[]);
    let daemon = Daemon::start(directory.path());
    daemon.hide(&["/v1/previews/web/visibility"]);
    let program = Program::start(directory.path());
    let own = session(7);
    let headers = [("cookie", own.as_str()), ("host", "api.example.org")];
    let nonce = "n".repeat(43);
    let enter = async |host: &str| {
        let path = format!("/access?host={host}&return=%2F&nonce={nonce}");
        get(&program.socket, &path, &headers).await
    };
    let refused = enter("web.example.org").await;
    assert_eq!(refused.status(), 403);
    assert!(
        refused.body.contains("No access to this preview"),
        "{}",
        refused.body
    );
    let policy = refused.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let missing = enter("missing.example.org").await;
    assert_eq!((missing.status(), &missing.body), (403, &refused.body));
    assert_eq!(missing.head.headers().len(), refused.head.headers().len());

    // innkeeperd is away, and there is no decision yet.
    drop(daemon);
    publish(directory.path(), &[("web", Team)], &[]);
    assert_eq!(enter("web.example.org").await.status(), 503);
}

#[tokio::test]
async fn one_time_code_is_bound_and_used_once() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(directory.path(), &[("web", Team), ("other", Team)], &[]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let redeem = async |slug: &str, code: &str, nonce: &str| {
        let headers = [PAGE, ("cookie", nonce)];
        visit(&program, slug, code, &headers).await
    };
    let (nonce, code) = obtain_code(&program, "web", "/", 7).await;
    let pass = redeem("web", &code, &nonce).await;
    assert_eq!(
        (pass.status(), pass.header("location")),
        (302, "https://web.example.org/")
    );
    let again = redeem("web", &code, &nonce).await;
    assert_eq!((again.status(), again.header("set-cookie")), (403, ""));
    assert!(again.body.contains("not valid any more"), "{}", again.body);

    // On another host, in another browser, and after a logout.
    for (slug, with_nonce, sessions) in [
        ("other", true, &[7][..]),
        ("web", false, &[7]),
        ("web", true, &[8]),
    ] {
        publish_tokens(directory.path(), &[7]);
        let (nonce, code) = obtain_code(&program, "web", "/", 7).await;
        publish_tokens(directory.path(), sessions);
        let cookie = if with_nonce { nonce.as_str() } else { "a=b" };
        let refused = redeem(slug, &code, cookie).await;
        assert_eq!((refused.status(), refused.header("set-cookie")), (403, ""));
        publish_tokens(directory.path(), &[7]);
        assert_eq!(
            redeem("web", &code, &nonce).await.status(),
            403,
            "it was used"
        );
    }
    for code in ["", "?code=", "?code=x", "?code=%00", "?code[]=x", "?x"] {
        let path = format!("/.innkeeper-access{code}");
        assert_eq!(redeem("web", &path, &nonce).await.status(), 403, "{path}");
    }
    // A code without a browser.
    let (nonce, code) = obtain_code(&program, "web", "/", 7).await;
    let post = [("cookie", nonce.as_str()), ("x-forwarded-method", "POST")];
    assert_eq!(visit(&program, "web", &code, &post).await.status(), 401);
    assert_eq!(redeem("web", &code, &nonce).await.status(), 302);
}

#[tokio::test]
async fn browser_returns_to_the_preview_and_nowhere_else() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(directory.path(), &[("web", Team), ("open", Public)], &[]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let own = session(7);
    let headers = [("cookie", own.as_str()), ("host", "api.example.org:8443")];
    let nonce = "n".repeat(43);
    let enter = async |query: &str| {
        let path = format!("/access?{query}");
        get(&program.socket, &path, &headers).await
    };
    for back in [
        "%2F%2Fevil.example%2F",
        "%2F%5Cevil.example",
        "%2F..%2F%2Fevil.example",
        "%2F@evil.example",
    ] {
        let query = format!("host=open.example.org&return={back}&nonce={nonce}");
        let sent = enter(&query).await;
        let location = sent.header("location");
        assert_eq!(sent.status(), 302, "{back}");
        assert!(
            location.starts_with("https://open.example.org:8443/"),
            "{location}"
        );
    }
    let web = format!("host=WEB.example.org&return=%2F&nonce={nonce}");
    let sent = enter(&web).await;
    let location = sent.header("location");
    assert!(
        location.starts_with("https://web.example.org:8443/.innkeeper-access?code="),
        "{location}"
    );
    assert_eq!(sent.header("referrer-policy"), "no-referrer");
    for query in [
        String::new(),
        "host=web.example.org".to_owned(),
        format!("host=web.example.org&return=https%3A%2F%2Fevil.example&nonce={nonce}"),
        format!("host=web.example.org&return=&nonce={nonce}"),
        format!("host=web.example.org&return=%2F%0d%0aset-cookie:%20a=b&nonce={nonce}"),
        format!("host=web.example.org&host=evil.example&return=%2F&nonce={nonce}"),
        format!("host=evil.example&return=%2F&nonce={nonce}"),
        format!("host=web.example.org:80@evil.example&return=%2F&nonce={nonce}"),
        "host=web.example.org&return=%2F&nonce=short".to_owned(),
        format!("host=web.example.org&return=%2F&nonce={}", "ä".repeat(22)),
    ] {
        let refused = enter(&query).await;
        assert_eq!(
            (refused.status(), refused.header("location")),
            (403, ""),
            "{query}"
        );
    }
}

#[tokio::test]
async fn passes_outlive_a_restart() {
    let directory = directory();
    publish_tokens(directory.path(), &[7]);
    publish(directory.path(), &[("web", Team)], &[]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let pass = log_in(&program, "web", "/", 7).await;
    let (nonce, code) = obtain_code(&program, "web", "/", 7).await;
    let key = directory.path().join("own/preview-cookies.key");
    assert_eq!(
        std::fs::metadata(&key).expect("is there").mode() & 0o777,
        0o600
    );
    drop(program);
    let program = Program::start(directory.path());
    let headers = [("cookie", pass.as_str())];
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 204);
    // Codes do not: the browser starts again.
    let lost = visit(&program, "web", &code, &[PAGE, ("cookie", &nonce)]).await;
    assert_eq!(lost.status(), 403);

    drop(program);
    std::fs::remove_file(&key).expect("removes");
    let program = Program::start(directory.path());
    assert_eq!(visit(&program, "web", "/", &headers).await.status(), 401);
}
