use axum::Router;
use axum::routing::delete;
use innkeeper_model::access::{
    CreatedToken, Login, Person, Role, TokenId, TokenKind, TokenName, TokenRecord,
};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, fail, respond};
use crate::samples::time;

const TOKEN: &str = "ik_7_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn record(id: i64, name: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId(id),
        name: TokenName::parse(name).expect("a name"),
        kind: TokenKind::Token,
        person: None,
        role: Role::Developer,
        repo: None,
        created_by: "uid:0".to_owned(),
        created_at: time("10:00:00"),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    }
}

fn session(id: i64, name: &str) -> TokenRecord {
    TokenRecord {
        kind: TokenKind::Browser,
        person: Some(Person {
            id: "github:583231".parse().expect("a person"),
            login: Login::parse("octocat").expect("a login"),
        }),
        ..record(id, name)
    }
}

fn creating(gateway_enabled: bool, record: TokenRecord) -> Fake {
    let created = CreatedToken {
        record,
        token: TOKEN.to_owned(),
        gateway_enabled,
    };
    Fake::new(Router::new().route("/v1/tokens", respond(&created)))
}

#[test]
fn create_prints_the_token_alone_on_standard_output() {
    let fake = creating(true, record(7, "alice"));
    let run = fake.innkeeper(&["token", "create", "alice"]);
    assert_snapshot!(run.transcript());
    assert_eq!(
        fake.requests(),
        [r#"POST /v1/tokens {"name":"alice","role":"developer"}"#]
    );
}

#[test]
fn create_sends_role_repository_and_lifetime() {
    let repo = RepoName::parse("octo/web").ok();
    let expires_at = Some(time("11:00:00"));
    let record = TokenRecord {
        repo,
        expires_at,
        role: Role::Viewer,
        ..record(7, "ci")
    };
    let fake = creating(false, record);
    let arguments = [
        "token",
        "create",
        "ci",
        "--role",
        "viewer",
        "--repo",
        "octo/web",
        "--expires",
        "30d",
    ];
    assert_snapshot!(fake.innkeeper(&arguments).transcript());
    assert_eq!(
        fake.requests(),
        [
            r#"POST /v1/tokens {"name":"ci","role":"viewer","repo":"octo/web","expires_seconds":2592000}"#
        ]
    );
}

#[test]
fn create_prints_one_value_as_json_or_nothing_else() {
    let fake = creating(true, record(7, "alice"));
    let json = fake.innkeeper(&["token", "create", "alice", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["token"], &json["role"]),
        (&TOKEN.into(), &"developer".into())
    );
    let quiet = fake.innkeeper(&["token", "create", "alice", "--quiet"]);
    assert_eq!(quiet.ok(), format!("{TOKEN}\n"));
}

#[test]
fn invalid_arguments_are_refused_before_the_request() {
    let fake = Fake::new(Router::new());
    for (arguments, problem) in [
        (["alice bob", "--role=viewer"], "the name of a token"),
        (
            ["alice", "--role=root"],
            "the roles are viewer, developer, operator and admin",
        ),
        (
            ["alice", "--expires=soon"],
            "write a time such as 12h, 30d or 8w",
        ),
        (["alice", "--expires=0s"], "after one second at least"),
        (["alice", "--repo=web"], "owner/name"),
    ] {
        let run = fake.innkeeper(&["token", "create", arguments[0], arguments[1]]);
        assert!(run.stderr.contains(problem), "{problem}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    assert_eq!(fake.requests(), [""; 0]);
}

#[test]
fn list_shows_valid_tokens_and_all_shows_the_rest() {
    let tokens = [
        TokenRecord {
            last_used_at: Some(time("10:30:00")),
            ..record(1, "alice")
        },
        TokenRecord {
            expires_at: Some(time("10:30:00")),
            role: Role::Admin,
            ..record(2, "old")
        },
        TokenRecord {
            revoked_at: Some(time("10:30:00")),
            ..record(3, "gone")
        },
        TokenRecord {
            repo: RepoName::parse("octo/web").ok(),
            ..record(4, "ci")
        },
        session(5, "octocat.browser.3f9a1c"),
    ];
    let fake = Fake::new(Router::new().route("/v1/tokens", respond(&tokens)));
    assert_snapshot!(fake.innkeeper(&["token", "list"]).ok());
    assert_snapshot!(fake.innkeeper(&["token", "list", "--all"]).ok());
    let empty = Fake::new(Router::new().route("/v1/tokens", respond(&[(); 0])));
    assert_eq!(empty.innkeeper(&["token", "list"]).ok(), "(no tokens)\n");
}

#[test]
fn revoke_names_the_token() {
    let revoked = record(7, "alice");
    let route = delete(async move || axum::Json(revoked));
    let fake = Fake::new(Router::new().route("/v1/tokens/alice", route));
    assert_snapshot!(fake.innkeeper(&["token", "revoke", "alice"]).ok());
    assert_eq!(fake.requests(), ["DELETE /v1/tokens/alice"]);
}

#[test]
fn revoke_ends_all_sessions_of_a_person() {
    let tokens = [
        record(1, "octocat"),
        session(2, "octocat.browser.3f9a1c"),
        TokenRecord {
            revoked_at: Some(time("10:30:00")),
            ..session(3, "octocat.laptop.aaaaaa")
        },
        session(4, "octocat.laptop.bbbbbb"),
    ];
    let routes = Router::new()
        .route("/v1/tokens", respond(&tokens))
        .route("/v1/tokens/octocat.browser.3f9a1c", respond(&tokens[1]))
        .route("/v1/tokens/octocat.laptop.bbbbbb", respond(&tokens[3]));
    let fake = Fake::new(routes);
    assert_snapshot!(
        fake.innkeeper(&["token", "revoke", "--person", "Octocat"])
            .ok()
    );
    assert_eq!(
        fake.requests(),
        [
            "GET /v1/tokens",
            "DELETE /v1/tokens/octocat.browser.3f9a1c",
            "DELETE /v1/tokens/octocat.laptop.bbbbbb"
        ]
    );
    let nobody = fake.innkeeper(&["token", "revoke", "--person", "hubot"]);
    assert_snapshot!(nobody.transcript());
}

#[test]
fn failure_of_the_daemon_is_shown() {
    let failure = Failure::new(Code::TokenNotFound, "no token is named 'bob'")
        .with_remedy("`innkeeper token list` shows the tokens.");
    let fake = Fake::new(Router::new().route("/v1/tokens/bob", fail(failure)));
    assert_snapshot!(fake.innkeeper(&["token", "revoke", "bob"]).transcript());
}
