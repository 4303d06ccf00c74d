//! People who log in with a browser, and pages of other sites that use their cookie.

use axum::body::Body;
use axum::http::Method;

use crate::support::client::{Answer, get, request, send};
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::{bearer, directory, publish, token};

const ORIGIN: (&str, &str) = ("origin", "https://api.test");
const FETCH: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A gateway whose tokens are 7, of a program, and 9, a session.
fn start() -> (tempfile::TempDir, Daemon, Program) {
    let directory = directory();
    publish(directory.path(), &[7, 9]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    (directory, daemon, program)
}

fn session() -> String {
    format!("__Host-innkeeper={}", token(9).text().expose())
}

/// Returns the part of a header `Set-Cookie` that browsers send back.
fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap_or_default().to_owned()
}

/// Returns the CSRF token of the session.
async fn csrf(program: &Program) -> String {
    let cookie = session();
    let shown = get(
        &program.socket,
        "/v1/session",
        &[("cookie", &cookie), FETCH],
    )
    .await;
    let body: serde_json::Value = serde_json::from_str(&shown.body).expect("JSON");
    assert_eq!(body["person"]["login"], "octocat");
    body["csrf"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn login_ends_in_the_browser_that_began_it() {
    let (_directory, daemon, program) = start();
    let begun = get(&program.socket, "/login?return=/access%3Fx=1", &[]).await;
    assert_eq!(begun.status(), 302);
    assert_eq!(
        begun.header("location"),
        "https://github.test/authorize?state=x"
    );
    let seed = cookie(&begun);
    assert!(seed.starts_with("__Host-innkeeper-login="), "{seed}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(begun.header("set-cookie").contains(attribute));
    }
    let asked = daemon.received();
    assert_eq!(
        (asked[0].uri.as_str(), asked[0].header("innkeeper-actor")),
        ("/v1/logins", "")
    );
    assert_eq!(asked[0].header("innkeeper-source"), "192.0.2.1");
    let state = serde_json::from_str::<serde_json::Value>(&asked[0].body).expect("JSON");
    let state = state["state"].as_str().expect("a state").to_owned();

    let other = get(&program.socket, "/login", &[]).await;
    for (cookie, state) in [
        (String::new(), state.clone()),
        (cookie(&other), state.clone()),
        (seed.clone(), String::new()),
        (seed.clone(), format!("{state}x")),
    ] {
        let path = format!("/login/callback?code=c&state={state}");
        let refused = get(&program.socket, &path, &[("cookie", &cookie)]).await;
        assert_eq!((refused.status(), refused.header("set-cookie")), (403, ""));
        assert!(
            refused
                .header("content-security-policy")
                .contains("frame-ancestors 'none'")
        );
    }
    let is_end = |uri: &str| uri == "/v1/sessions";
    assert!(!daemon.received().iter().any(|one| is_end(&one.uri)));

    let path = format!("/login/callback?code=c&state={state}");
    let ended = get(&program.socket, &path, &[("cookie", &seed)]).await;
    assert_eq!(
        (ended.status(), ended.header("location")),
        (302, "/access?x=1")
    );
    assert_eq!(cookie(&ended), session());
    assert_eq!(
        daemon
            .received()
            .iter()
            .filter(|one| is_end(&one.uri))
            .count(),
        1
    );
}

#[tokio::test]
async fn cookie_counts_on_requests_of_own_pages_only() {
    let (_directory, daemon, program) = start();
    let cookie = session();
    let cookie = ("cookie", cookie.as_str());
    let csrf = csrf(&program).await;
    let csrf = ("x-innkeeper-csrf", csrf.as_str());
    let before = daemon.received().len();
    let evil = ("origin", "https://web.test");
    let site = ("sec-fetch-site", "same-site");
    let upgrade = [("connection", "upgrade"), ("upgrade", "innkeeper-exec")];
    for (method, path, headers) in [
        (Method::POST, "/v1/guests", vec![]),
        (Method::POST, "/v1/guests", vec![evil]),
        (Method::POST, "/v1/guests", vec![evil, csrf]),
        (Method::POST, "/v1/guests", vec![ORIGIN]),
        (Method::POST, "/v1/guests", vec![csrf]),
        (Method::DELETE, "/v1/session", vec![evil, csrf]),
        (Method::GET, "/v1/events", vec![site]),
        (Method::GET, "/v1/events", vec![site, csrf]),
        (Method::GET, "/v1/guests", vec![]),
        (Method::GET, "/v1/session", vec![site]),
        (Method::GET, "/v1/session", vec![evil]),
        (
            Method::GET,
            "/v1/exec",
            [vec![evil, csrf], upgrade.to_vec()].concat(),
        ),
        (
            Method::GET,
            "/v1/exec",
            [vec![FETCH, csrf], upgrade.to_vec()].concat(),
        ),
    ] {
        let headers = [vec![cookie], headers].concat();
        let mut sent = request(path, &headers, Body::empty());
        *sent.method_mut() = method.clone();
        let refused = send(&program.socket, sent).await;
        assert_eq!(refused.status(), 403, "{method} {path} {headers:?}");
        assert_eq!(refused.header("access-control-allow-origin"), "");
    }
    assert_eq!(daemon.received().len(), before, "none reached innkeeperd");

    let own = get(&program.socket, "/v1/guests", &[cookie, csrf, FETCH]).await;
    assert_eq!(own.status(), 200);
    let mut create = request("/v1/guests", &[cookie, csrf, ORIGIN], "{}");
    *create.method_mut() = Method::POST;
    assert_eq!(send(&program.socket, create).await.status(), 200);
    let passed = daemon.received();
    for one in &passed[before..] {
        assert_eq!(one.header("innkeeper-actor"), "token:9");
        assert_eq!(
            (one.header("cookie"), one.header("x-innkeeper-csrf")),
            ("", "")
        );
    }
    // A token of its own counts in place of the cookie.
    let program_token = bearer(7);
    let both = [cookie, ("authorization", program_token.as_str())];
    assert_eq!(
        get(&program.socket, "/v1/guests", &both).await.status(),
        200
    );
    let last = daemon.received().pop().expect("a request");
    assert_eq!(last.header("innkeeper-actor"), "token:7");
}

#[tokio::test]
async fn session_ends_with_the_logout_or_a_revocation() {
    let (directory, daemon, program) = start();
    let cookie = session();
    let cookie = ("cookie", cookie.as_str());
    let csrf = csrf(&program).await;
    let log_out = async |headers: &[(&str, &str)], form: String| {
        let mut sent = request("/logout", headers, form);
        *sent.method_mut() = Method::POST;
        send(&program.socket, sent).await
    };
    let page = get(&program.socket, "/login", &[cookie]).await;
    // Browsers send `Origin: null` with forms of pages that have `no-referrer`.
    assert_eq!(page.header("referrer-policy"), "same-origin");
    let form = format!("csrf={csrf}");
    for (headers, form) in [
        (vec![cookie], form.clone()),
        (vec![cookie, ("origin", "https://web.test")], form.clone()),
        (vec![cookie, ORIGIN], "csrf=".to_owned()),
    ] {
        assert_eq!(log_out(&headers, form).await.status(), 403);
    }
    let is_end = |one: &crate::support::daemon::Received| one.method == Method::DELETE;
    assert!(!daemon.received().iter().any(is_end));
    let ended = log_out(&[cookie, ORIGIN], form).await;
    assert_eq!(ended.status(), 200);
    assert!(
        ended
            .header("set-cookie")
            .starts_with("__Host-innkeeper=; ")
    );
    let end = daemon
        .received()
        .into_iter()
        .find(is_end)
        .expect("a request");
    assert_eq!(
        (end.uri.as_str(), end.header("innkeeper-actor")),
        ("/v1/session", "token:9")
    );

    publish(directory.path(), &[7]);
    let revoked = get(&program.socket, "/v1/session", &[cookie, FETCH]).await;
    assert_eq!(revoked.status(), 401);
    let page = get(&program.socket, "/login", &[cookie]).await;
    assert_eq!(page.status(), 302, "logs in again");
}
