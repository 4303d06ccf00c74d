//! The table of role × call: each cell is requested, with a handler that accepts everything.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use innkeeper_model::access::{
    ACTOR_HEADER, CreateToken, Groups, Login, Person, Role, SOURCE_HEADER, TokenKind, TokenName,
};
use innkeeper_model::preview::RepoName;
use innkeeper_service::Gateway;
use innkeeper_store::{AuditFilter, Store, StoredPerson};
use jiff::SignedDuration;
use tower::ServiceExt as _;

use super::*;
use crate::access::{Admission, People, Publisher, Tokens};
use crate::api::Peer;
use crate::audit::AuditLog;
use crate::config::{AuditSettings, Config};

/// The daemon's parts that decide about access.
struct Fixture {
    store: Store,
    tokens: Tokens,
    audit: AuditLog,
    _directory: tempfile::TempDir,
}

/// The roles, in the order of the tokens: first of the whole host, then of one repository.
const ROLES: [Role; 4] = Role::ALL;

async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let range = "10.100.0.0/16".parse().expect("a subnet");
    let store = Store::open(&directory.path().join("innkeeper.db"), range).expect("opens");
    let publisher = Publisher::new(directory.path(), "no-such-group-of-tests");
    let people = People::new(&Config::default(), None);
    let tokens = Tokens::open(store.clone(), publisher, &Gateway::default(), &people).await;
    let tokens = tokens.expect("opens");
    for repo in [None, RepoName::parse("octo/web").ok()] {
        for role in ROLES {
            let suffix = if repo.is_some() { "-of-repo" } else { "" };
            let request = CreateToken {
                name: TokenName::parse(&format!("{role}{suffix}")).expect("a name"),
                role,
                repo: repo.clone(),
                expires_seconds: None,
            };
            assert!(tokens.create(request, "uid:0").await.is_ok());
        }
    }
    for kind in [TokenKind::Browser, TokenKind::Device] {
        let session = tokens.create_session(session(kind));
        assert!(session.await.is_ok());
    }
    let audit = AuditLog::new(store.clone(), &AuditSettings::default());
    Fixture {
        store,
        tokens,
        audit,
        _directory: directory,
    }
}

/// A session of a person with the role developer.
fn session(kind: TokenKind) -> Admission {
    Admission {
        person: StoredPerson {
            person: Person {
                id: "github:583231".parse().expect("a person"),
                login: Login::parse("octocat").expect("a login"),
            },
            groups: Groups::default(),
        },
        role: Role::Developer,
        kind,
        machine: None,
        lifetime: SignedDuration::from_hours(1),
    }
}

/// Headers of the gateway for an actor.
fn of(actor: &str) -> Vec<(&'static str, String)> {
    vec![
        (ACTOR_HEADER, actor.to_owned()),
        (SOURCE_HEADER, "192.0.2.7".to_owned()),
    ]
}

/// Requests a call and returns the response's status.
async fn request(
    fixture: &Fixture,
    call: &Call,
    peer: Peer,
    headers: &[(&'static str, String)],
) -> StatusCode {
    let accept = async || "accepted";
    let handler = match call.method {
        "GET" => routing::get(accept),
        "POST" => routing::post(accept),
        _ => routing::delete(accept),
    };
    let (tokens, audit) = (fixture.tokens.clone(), fixture.audit.clone());
    let app = Router::new().route(call.path, gated(handler, call.access, tokens, audit));
    let mut request = Request::builder()
        .method(call.method)
        .uri(filled(call.path));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(ConnectInfo(peer));
    app.oneshot(request).await.expect("responds").status()
}

/// Replaces the parameters of a path by values.
fn filled(path: &str) -> String {
    let part = |part: &str| match part.starts_with('{') {
        true => "7".to_owned(),
        false => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_cell_of_role_and_call_is_decided() {
    let fixture = fixture().await;
    let own = nix::unistd::geteuid().as_raw();
    let mut callers = vec![
        ("root", Peer::Local(Some(own)), Vec::new()),
        ("member", Peer::Local(Some(own + 1)), Vec::new()),
        ("nobody", Peer::Gateway, Vec::new()),
        ("revoked", Peer::Gateway, of("token:99")),
    ];
    let names = ["viewer", "developer", "operator", "admin"];
    for (id, name) in (1..).zip(names) {
        callers.push((name, Peer::Gateway, of(&format!("token:{id}"))));
    }
    for (id, name) in (5..).zip([
        "repo-viewer",
        "repo-developer",
        "repo-operator",
        "repo-admin",
    ]) {
        callers.push((name, Peer::Gateway, of(&format!("token:{id}"))));
    }
    for (id, name) in (9..).zip(["browser", "device"]) {
        callers.push((name, Peer::Gateway, of(&format!("token:{id}"))));
    }
    let mut table = String::new();
    for (name, ..) in &callers {
        write!(table, "{name} ").expect("a string");
    }
    table.push('\n');
    for call in all() {
        for (_, peer, headers) in &callers {
            let status = request(&fixture, &call, *peer, headers).await;
            write!(table, "{} ", status.as_u16()).expect("a string");
        }
        let scope = match call.access.scope {
            Scope::Host => "",
            Scope::Own => " (own agents)",
            Scope::Visible => " (visible objects)",
        };
        writeln!(table, "{} {}{scope}", call.method, call.path).expect("a string");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn each_call_of_a_preview_or_a_guest_is_checked() {
    for call in all() {
        let expected = match call.path {
            path if path.contains("{slug}") => &[Named::Preview, Named::VisitedPreview][..],
            // The name of files that a destroyed agent has left.
            path if path.starts_with("/v1/retained") || path.starts_with("/v1/secrets") => {
                &[Named::Other]
            }
            path if path.contains("{name}") => &[Named::Guest],
            _ => &[Named::Other],
        };
        let named = Named::of(call.method, call.path);
        assert!(expected.contains(&named), "{} {}", call.method, call.path);
        let is_visit = call.method == "GET" && call.path.ends_with("/visibility");
        assert_eq!(named == Named::VisitedPreview, is_visit, "{}", call.path);
    }
}

#[tokio::test]
async fn each_call_is_in_the_list_of_the_api() {
    let list = include_str!("../../../../innkeeper-model/src/api.rs");
    for call in all() {
        let name = format!(
            "`{} {}",
            call.method,
            call.path.replace("{token}", "{name}")
        );
        let ends = ["`", "?"].map(|end| format!("{name}{end}"));
        let is_listed = ends.iter().any(|end| list.contains(end));
        assert!(is_listed || call.path == "/v1/retained/{name}", "{name}");
    }
}

#[tokio::test]
async fn gateway_cannot_claim_more_than_an_actor() {
    let fixture = fixture().await;
    let call = all().into_iter().find(|call| call.path == "/v1/guests");
    let call = call.expect("a call");
    let twice = [of("token:1"), of("token:4")].concat();
    let mut without_source = of("token:4");
    without_source.pop();
    let mut forged_source = of("token:4");
    forged_source[1].1 = "here".to_owned();
    let mut role = of("token:99");
    role.push(("innkeeper-role", "admin".to_owned()));
    for headers in [
        twice,
        without_source,
        forged_source,
        role,
        of("uid:0"),
        of(""),
    ] {
        let status = request(&fixture, &call, Peer::Gateway, &headers).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
    // On the API's own socket, the header means nothing.
    let root = Peer::Local(Some(nix::unistd::geteuid().as_raw()));
    let status = request(&fixture, &call, root, &of("token:99")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn changes_of_a_person_are_recorded_with_the_person() {
    let fixture = fixture().await;
    let calls = all();
    let call = |path| calls.iter().find(|call| call.path == path).expect("a call");
    for actor in ["token:9", "token:10"] {
        let created = request(&fixture, call("/v1/builds"), Peer::Gateway, &of(actor)).await;
        assert_eq!(created, StatusCode::OK);
    }
    let entries = async |actor: &str| {
        let filter = AuditFilter {
            actor: Some(actor.to_owned()),
            limit: 10,
            ..AuditFilter::default()
        };
        fixture.store.audit(filter).await.expect("reads")
    };
    let of_person = entries("github:583231").await;
    assert_eq!(of_person.len(), 2);
    let login = of_person[0].login.as_ref().map(Login::as_str);
    assert_eq!((login, &of_person[0].token), (Some("octocat"), &None));
    assert_eq!(entries("Octocat").await, of_person);
}

#[tokio::test]
async fn changes_are_audited_and_refusals_and_queries_are_not() {
    let fixture = fixture().await;
    for call in all() {
        for actor in ["token:1", "token:4"] {
            request(&fixture, &call, Peer::Gateway, &of(actor)).await;
        }
    }
    let filter = AuditFilter {
        limit: 1000,
        ..AuditFilter::default()
    };
    let entries = fixture.store.audit(filter).await.expect("reads");
    let mut found: Vec<_> = entries.iter().map(|entry| entry.verb.as_str()).collect();
    let allowed = |call: &Call| !matches!(call.access.needs, LOCAL | SESSION | BROWSER);
    let mut expected: Vec<_> = (all().iter())
        .filter(|call| allowed(call))
        .filter_map(|call| call.access.audit)
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let destroyed = entries.iter().find(|entry| entry.verb == "guest-destroy");
    let destroyed = destroyed.expect("an entry");
    assert_eq!(
        (destroyed.actor.as_str(), destroyed.source.as_deref()),
        ("token:4", Some("192.0.2.7"))
    );
    assert_eq!(
        (destroyed.object.as_deref(), destroyed.result.as_deref()),
        (Some("7"), Some("ok"))
    );
    assert_eq!(
        destroyed.token.as_ref().map(TokenName::as_str),
        Some("admin")
    );
    // The check of a configuration has no effect, nor has the begin of a login; its end writes the log itself.
    let silent: Vec<_> = (all().iter())
        .filter(|call| call.method != "GET" && call.access.audit.is_none())
        .map(|call| call.path)
        .collect();
    assert_eq!(silent, ["/v1/logins", "/v1/sessions", "/v1/preview-checks"]);
}
