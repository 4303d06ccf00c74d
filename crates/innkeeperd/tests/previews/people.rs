//! People who have logged in with GitHub, and the previews that they may see.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use innkeeper_github::fake::{AccountRecord, OauthRecord};
use innkeeper_model::Failure;
use innkeeper_model::access::{Amount, CreatedSession, QuotaReport, TokenText};
use innkeeper_model::preview::{PreviewState, PullDetails, RepoName};
use innkeeper_store::PreviewFact;

use crate::access::client_for;
use crate::host::{PreviewHost, app};
use crate::support::{Client, Response};

const CALLBACK: &str = "https://api.example.org/login/callback";

/// A verifier of PKCE and its challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// Returns a host on which these people may log in, each with a role.
pub(crate) fn host_of(people: &[(&str, &str)], more: &str) -> PreviewHost {
    let mut host = PreviewHost::with(&format!(
        "[gateway]\nenabled = true\ngroup = 'root'\n{more}"
    ));
    let file = host.root().join("oauth.env");
    fs::write(&file, "GITHUB_CLIENT_ID=app\nGITHUB_CLIENT_SECRET=secret\n").expect("written");
    let users: String = (people.iter())
        .map(|(login, role)| format!("{login} = '{role}'\n"))
        .collect();
    let (web, file) = (host.github.base_url(), file.display());
    let section = format!(
        "[people]\noauth_file = '{file}'\ngithub_url = '{web}'\ncallback_url = '{CALLBACK}'\n[people.users]\n{users}"
    );
    host.sandbox.configure(&section);
    host.github.with(|world| {
        world.oauth = Some(OauthRecord {
            client_id: "app".to_owned(),
            client_secret: "secret".to_owned(),
            callback: CALLBACK.to_owned(),
        });
    });
    host
}

/// Logs a person in, and returns a client with the session.
pub(crate) fn log_in(host: &PreviewHost, login: &str, number: u64) -> Client {
    host.github.with(|world| {
        let account = AccountRecord {
            id: number,
            ..AccountRecord::default()
        };
        world.accounts.insert(login.to_owned(), account);
        world.visitor = Some(login.to_owned());
    });
    let gateway = || Client::new(host.root().join("run/gateway.sock"));
    let begin = serde_json::json!({ "state": "s".repeat(43), "challenge": CHALLENGE });
    let page = gateway().call("POST", "/v1/logins", &begin.to_string());
    let page: innkeeper_model::access::LoginPage = page.read();
    let finish = serde_json::json!({ "code": code(&page.url), "verifier": VERIFIER });
    let source = "innkeeper-source: 192.0.2.7\r\n";
    let created = gateway()
        .with_headers(source)
        .call("POST", "/v1/sessions", &finish.to_string());
    let created: CreatedSession = created.read();
    let token = TokenText::parse(&created.token).expect("a token");
    gateway().with_headers(&format!(
        "innkeeper-actor: token:{}\r\n{source}",
        token.id()
    ))
}

/// Requests GitHub's page, and returns the code with which it sends the browser back.
fn code(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("the fake's address");
    let (authority, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(authority).expect("the fake listens");
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let (_, code) = response.split_once("code=").expect("a code");
    let (code, _) = code.split_once('&').expect("a state");
    code.to_owned()
}

/// Requires that two objects are refused in the same way.
fn require_same(client: &Client, method: &str, path: &str, hidden: &str, absent: &str) {
    let call = |name: &str| client.call(method, &path.replace("NAME", name), "{}");
    let (seen, expected) = (call(hidden), call(absent));
    assert_eq!(seen.status, 404, "{method} {path}: {seen:?}");
    let expected = (expected.status, expected.body.replace(absent, hidden));
    assert_eq!((seen.status, seen.body), expected, "{method} {path}");
}

fn is_empty(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    response.body == "[]"
}

const CALLS: [(&str, &str); 22] = [
    ("GET", "/v1/previews/NAME"),
    ("GET", "/v1/previews/NAME/guest"),
    ("GET", "/v1/previews/NAME/rest"),
    ("GET", "/v1/previews/NAME/logs"),
    ("GET", "/v1/previews/NAME/explain"),
    ("GET", "/v1/previews/NAME/visibility"),
    ("POST", "/v1/previews/NAME/visibility"),
    ("GET", "/v1/previews/NAME/grants"),
    ("POST", "/v1/previews/NAME/grants"),
    ("DELETE", "/v1/previews/NAME/grants/1"),
    ("POST", "/v1/previews/NAME/update"),
    ("POST", "/v1/previews/NAME/start"),
    ("POST", "/v1/previews/NAME/idle"),
    ("POST", "/v1/previews/NAME/exec"),
    ("POST", "/v1/previews/NAME/connect/80"),
    ("POST", "/v1/previews/NAME/approve"),
    ("POST", "/v1/previews/NAME/database/reset"),
    ("DELETE", "/v1/previews/NAME"),
    ("GET", "/v1/guests/NAME"),
    ("GET", "/v1/guests/NAME/logs"),
    ("POST", "/v1/guests/NAME/exec"),
    ("DELETE", "/v1/guests/NAME"),
];

/// Records whether the repository of the preview is private, as the resync does. No daemon may run.
fn record_privacy(host: &PreviewHost, private: bool) {
    host.with_store(async |store| {
        let details = PullDetails {
            private: Some(private),
            ..PullDetails::default()
        };
        let slug = "web-7".parse().expect("a slug");
        let facts = vec![PreviewFact::Details(details)];
        store.set_preview(&slug, facts).await.expect("recorded");
    });
}

#[test]
fn private_preview_does_not_exist_without_read_access() {
    let people = [("alice", "operator"), ("bob", "admin")];
    let mut host = host_of(&people, "");
    host.github.with(|world| {
        let repo = world.repos.get_mut(&host.repo).expect("there");
        repo.permissions
            .insert("alice".to_owned(), "read".to_owned());
        repo.private = true;
    });
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    // The fake's deliveries do not report it.
    daemon.stop();
    record_privacy(&host, true);
    let daemon = host.start();
    let alice = log_in(&host, "alice", 1001);
    let bob = log_in(&host, "bob", 1002);
    // The preview is public, its repository is not: it may be visited.
    let visibility = "/v1/previews/web-7/visibility";
    assert_eq!(bob.call("GET", visibility, "").status, 200);
    require_same(&bob, "GET", "/v1/previews/NAME", "web-7", "web-8");
    assert!(is_empty(&bob.call("GET", "/v1/previews", "")));
    let private = r#"{"visibility":"private"}"#;
    assert_eq!(host.client().call("POST", visibility, private).status, 200);

    // With read access, and for programs, nothing has changed.
    let machine = client_for(&host, "octo/web", "viewer");
    for client in [&alice, &machine] {
        let shown = client.call("GET", "/v1/previews/web-7", "");
        assert_eq!(shown.status, 200, "{shown:?}");
        assert!(!is_empty(&client.call("GET", "/v1/previews", "")));
        assert!(!client.events("guest=web-7").is_empty());
    }

    for path in ["previews", "guests", "usage", "deliveries"] {
        assert!(
            is_empty(&bob.call("GET", &format!("/v1/{path}"), "")),
            "{path}"
        );
        assert!(
            !is_empty(&alice.call("GET", &format!("/v1/{path}"), "")),
            "{path}"
        );
    }
    let stopped = alice.finish(&alice.call("POST", "/v1/previews/web-7/stop", ""));
    assert_eq!(stopped.failure, None);
    for (method, path) in CALLS {
        require_same(&bob, method, path, "web-7", "web-8");
    }
    for path in ["/v1/operations/NAME", "/v1/events?operation=NAME"] {
        require_same(&bob, "GET", path, &stopped.id.to_string(), "999999");
    }
    let delivery = host.last_delivery();
    let absent = "00000000-0000-0000-0000-000000000000";
    require_same(&bob, "GET", "/v1/deliveries/NAME", &delivery, absent);
    assert!(bob.events("follow=false").is_empty());
    assert!(bob.events("guest=web-7").is_empty());
    let slots = bob.call("GET", "/v1/slots", "");
    assert!(slots.body.contains("a private preview"), "{slots:?}");
    for path in ["slots", "status"] {
        let shown = bob.call("GET", &format!("/v1/{path}"), "");
        assert!(
            shown.status == 200 && !shown.body.contains("web-7"),
            "{shown:?}"
        );
    }
    // Neither does its repository.
    let secrets = "/v1/secrets/octo/NAME";
    require_same(&bob, "GET", secrets, "web", "none");
    for path in ["/v1/previews", "/v1/preview-builds"] {
        let create = |repo: &str| {
            let body = format!(r#"{{"repo":"octo/{repo}","branch":"main"}}"#);
            let response = bob.call("POST", path, &body);
            (response.status, response.body.replace(repo, "NAME"))
        };
        assert_eq!(create("web"), create("none"), "{path}");
    }

    daemon.stop();

    // The repository is public now, and the preview is private still.
    host.github.with(|world| {
        world.repos.get_mut(&host.repo).expect("there").private = false;
    });
    record_privacy(&host, false);
    let daemon = host.start();
    require_same(&bob, "GET", "/v1/previews/NAME", "web-7", "web-8");
    host.client()
        .call("POST", visibility, r#"{"visibility":null}"#);
    assert_eq!(bob.call("GET", "/v1/previews/web-7", "").status, 200);
    daemon.stop();
}

#[test]
fn quotas_limit_the_previews_of_a_person_and_of_a_repository() {
    let quotas = "[quotas.operator]\npreviews = 1\n[quotas.repositories.'octo/web']\npreviews = 1";
    let host = host_of(&[("alice", "operator")], quotas);
    let daemon = host.start();
    let (one, two) = (host.commit_app("one"), host.commit_app("two"));
    let alice = log_in(&host, "alice", 1001);
    let create = |client: &Client, branch: &str| {
        let body = format!(r#"{{"repo":"octo/web","branch":"{branch}"}}"#);
        client.call("POST", "/v1/previews", &body)
    };
    assert_eq!(create(&alice, "one").status, 202);
    let live = host.wait_for_state_of("web-one", &one, PreviewState::Live);
    assert_eq!(live.preview.owner.as_deref(), Some("github:1001"));
    let refused: Failure = create(&alice, "two").read();
    assert_eq!(refused.code.as_str(), "quota_exceeded");
    let remedy = refused.remedy.expect("a remedy");
    assert!(remedy.contains("quotas.operator.previews"), "{remedy}");
    let report: QuotaReport = alice.get("/v1/quotas");
    let amount = |used, limit| Amount { used, limit };
    assert_eq!(report.actors[0].name.as_deref(), Some("alice"));
    assert_eq!(report.actors[0].previews, amount(1, Some(1)));
    assert_eq!(report.repositories[0].previews, amount(1, Some(1)));
    // Another preview of the repository takes the place of the least recently used one.
    assert_eq!(create(&host.client(), "two").status, 202);
    host.wait_for_state_of("web-two", &two, PreviewState::Live);
    host.wait_until_slug_is_gone("web-one");
    daemon.stop();
}

#[test]
fn approval_by_a_person_needs_write_access() {
    let people = [("alice", "operator"), ("maintainer", "operator")];
    let mut host = host_of(&people, "");
    host.github.with(|world| {
        let repo = world.repos.get_mut(&host.repo).expect("there");
        repo.permissions
            .insert("alice".to_owned(), "read".to_owned());
    });
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("theirs", &[("preview-config.nix", &app())]);
    let fork = RepoName::parse("mallory/web").expect("a name");
    host.pull_from(7, "theirs", &sha, &fork);
    host.deliver_of(7, "opened", "mallory");
    host.wait_for_state(7, &sha, PreviewState::WaitingForApproval);

    let path = "/v1/previews/web-7/approve";
    let body = serde_json::json!({ "sha": sha }).to_string();
    let refused: Failure = log_in(&host, "alice", 1001)
        .call("POST", path, &body)
        .read();
    assert_eq!(refused.code.as_str(), "forbidden");
    assert!(refused.message.contains("may not write"), "{refused:?}");
    let view = host.preview(7).expect("there");
    assert_eq!(view.preview.approved_sha, None);
    let accepted = log_in(&host, "maintainer", 1002).call("POST", path, &body);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let view = host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(view.preview.approved_sha, Some(sha));
    daemon.stop();
}
