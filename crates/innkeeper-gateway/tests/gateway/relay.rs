//! OAuth inside previews: the callback of all of them.

use innkeeper_model::access::GrantKind;
use innkeeper_model::preview::Visibility::Private;

use crate::support::client::{Answer, get};
use crate::support::program::Program;
use crate::support::visitor::{PAGE, grant, path_of, publish, publish_fork, published, visit};
use crate::support::{directory, publish as publish_tokens};

const PROVIDER: &str = "https://provider.example/authorize";

/// The parameters of the app's own, as a library sends them.
const OWN: &str = "response_type=code&client_id=app&redirect_uri=https%3A%2F%2Fauth.example.org%2Frelay&scope=a+b&state=own%26state\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

fn start(directory: &std::path::Path) -> Program {
    publish_tokens(directory, &[]);
    let grants = [
        published(1, "web", GrantKind::Bypass),
        published(2, "other", GrantKind::Bypass),
    ];
    publish(directory, &[("web", Private), ("other", Private)], &grants);
    let settings = format!("relay_providers = ['{PROVIDER}']\n[previews]\ndomain = 'example.org'");
    Program::start_with(directory, &settings)
}

/// Begins a login in a browser that may see the preview.
async fn begin(program: &Program, slug: &str, id: i64, query: &str) -> Answer {
    let target = format!("/.innkeeper-relay?{query}");
    let bypass = grant(id);
    visit(
        program,
        slug,
        &target,
        &[PAGE, ("x-innkeeper-bypass", &bypass)],
    )
    .await
}

/// Returns our own query, followed by that of the app.
fn query(own: &str) -> String {
    format!(
        "innkeeper_authorize=https%3A%2F%2Fprovider.example%2Fauthorize&innkeeper_callback=/auth/callback&{own}"
    )
}

/// Returns the state that the provider receives.
fn state(answer: &Answer) -> String {
    let location = answer.header("location");
    let (_, rest) = location.split_once("state=").expect("a state");
    rest.split('&').next().expect("a value").to_owned()
}

/// Sends the browser back from the provider.
async fn end(program: &Program, query: &str) -> Answer {
    get(
        &program.socket,
        &format!("/relay?{query}"),
        &[("host", "auth.example.org")],
    )
    .await
}

#[tokio::test]
async fn code_returns_to_the_host_that_began_the_login() {
    let directory = directory();
    let program = start(directory.path());
    let begun = begin(&program, "web", 1, &query(OWN)).await;
    assert_eq!(begun.status(), 302, "{}", begun.body);
    let location = begun.header("location");
    let expected =
        format!("{PROVIDER}?redirect_uri=https%3A%2F%2Fauth%2Eexample%2Eorg%2Frelay&state=");
    assert!(location.starts_with(&expected), "{location}");
    assert!(
        location.contains("&client_id=app&scope=a+b&code_challenge=E9Melhoa"),
        "{location}"
    );
    assert!(
        !location.contains("own%26state") && !location.contains("innkeeper_"),
        "{location}"
    );
    assert_eq!(location.matches("redirect_uri=").count(), 1, "{location}");

    let state = state(&begun);
    let ended = end(&program, &format!("code=x%26y&state={state}&iss=p")).await;
    assert_eq!(ended.status(), 302);
    let path = path_of(ended.header("location"), "web.example.org");
    assert_eq!(path, "/auth/callback?state=own%26state&code=x%26y&iss=p");
    assert_eq!(ended.header("referrer-policy"), "no-referrer");
    // Once only.
    let again = end(&program, &format!("code=x&state={state}")).await;
    assert_eq!((again.status(), again.header("location")), (403, ""));
    for query in ["", "code=x", "code=x&state=", "code=x&state=own%26state"] {
        assert_eq!(end(&program, query).await.status(), 403, "{query}");
    }
    // Two states: a server in front might look at the other one.
    let begun = begin(&program, "other", 2, &query(OWN)).await;
    let other = self::state(&begun);
    let twice = end(&program, &format!("code=x&state={other}&state=y")).await;
    assert_eq!(twice.status(), 403);
    let ended = end(&program, &format!("error=access_denied&state={other}")).await;
    let path = path_of(ended.header("location"), "other.example.org");
    assert_eq!(path, "/auth/callback?state=own%26state&error=access_denied");
}

#[tokio::test]
async fn login_needs_a_visitor_a_known_provider_and_pkce() {
    let directory = directory();
    let program = start(directory.path());
    let target = format!("/.innkeeper-relay?{}", query(OWN));
    assert_eq!(visit(&program, "web", &target, &[]).await.status(), 401);
    assert_eq!(begin(&program, "web", 2, &query(OWN)).await.status(), 401);
    let valid = query(OWN);
    for (from, to) in [
        ("provider.example", "evil.example"),
        ("%2Fauthorize", "%2Fauthorize%2Fx"),
        (
            "innkeeper_callback=/auth/callback",
            "innkeeper_callback=https://evil.example",
        ),
        (
            "innkeeper_callback=/auth/callback",
            "innkeeper_callback=/a%3Fb",
        ),
        ("&innkeeper_callback=/auth/callback", ""),
        ("S256", "plain"),
        ("&code_challenge_method=S256", ""),
        ("code_challenge=E9Mel", "x=E9Mel"),
        ("code_challenge=", "code_challenge=x&code_challenge="),
        ("response_type=code", "response_type=token"),
        (
            "response_type=code",
            "response_type=code&response_mode=fragment",
        ),
        ("state=own", "state=x&state=own"),
    ] {
        assert!(valid.contains(from), "{from}");
        let refused = begin(&program, "web", 1, &valid.replacen(from, to, 1)).await;
        assert_eq!(
            (refused.status(), refused.header("location")),
            (400, ""),
            "{from} {to}"
        );
        assert!(refused.body.contains("remedy"), "{}", refused.body);
    }
    assert_eq!(begin(&program, "web", 1, &valid).await.status(), 302);
}

#[tokio::test]
async fn fork_gets_no_login() {
    let directory = directory();
    let program = start(directory.path());
    let begun = begin(&program, "web", 1, &query(OWN)).await;
    let state = state(&begun);
    let grants = [published(1, "web", GrantKind::Bypass)];
    publish_fork(directory.path(), "web", &grants);
    let refused = begin(&program, "web", 1, &query(OWN)).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.body.contains("fork"), "{}", refused.body);
    // The host has become that of a fork meanwhile.
    let ended = end(&program, &format!("code=x&state={state}")).await;
    assert_eq!((ended.status(), ended.header("location")), (403, ""));
}
