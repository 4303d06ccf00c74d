use axum::Router;
use axum::routing::delete;
use innkeeper_model::access::{CreatedGrant, GrantId, GrantKind, GrantRecord};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::time;

fn record(kind: GrantKind) -> GrantRecord {
    GrantRecord {
        id: GrantId(3),
        kind,
        created_by: "uid:0".to_owned(),
        created_at: time("10:00:00"),
        expires_at: time("11:00:00"),
    }
}

fn creating(kind: GrantKind, secret: &str, is_public: bool) -> Fake {
    let created = CreatedGrant {
        record: record(kind),
        secret: secret.to_owned(),
        url: "https://web-7.preview.example.com".to_owned(),
        is_public,
    };
    Fake::new(Router::new().route("/v1/previews/web-7/grants", respond(&created)))
}

#[test]
fn share_prints_the_link_alone_on_standard_output() {
    let link = "https://web-7.preview.example.com/?innkeeper_share=ig_3_A";
    let fake = creating(GrantKind::Share, link, false);
    let run = fake.preview(&["share", "web-7"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    https://web-7.preview.example.com/?innkeeper_share=ig_3_A
    --- stderr
    [INFO] This link opens preview web-7 until 2026-11-20T11:00:00Z: it is not shown again. `preview unshare web-7 3` revokes it.
    ");
    fake.preview(&["share", "web-7", "--expires", "12h"]);
    assert_eq!(
        fake.requests(),
        [
            r#"POST /v1/previews/web-7/grants {"kind":"share","expires_seconds":null}"#,
            r#"POST /v1/previews/web-7/grants {"kind":"share","expires_seconds":43200}"#
        ]
    );
    let run = fake.preview(&["share", "web-7", "--expires", "2y"]);
    assert!(run.transcript().starts_with("status: 2"));
}

#[test]
fn token_prints_the_token_alone_on_standard_output() {
    let fake = creating(GrantKind::Bypass, "ig_3_A", true);
    let run = fake.preview(&["token", "web-7"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    ig_3_A
    --- stderr
    [INFO] This token opens preview web-7 until 2026-11-20T11:00:00Z: it is not shown again. `preview unshare web-7 3` revokes it.
    [INFO] The preview is public: everybody may visit it.
    ");
    assert_eq!(
        fake.requests(),
        [r#"POST /v1/previews/web-7/grants {"kind":"bypass","expires_seconds":7776000}"#]
    );
}

#[test]
fn shares_are_listed_without_their_secrets_and_revoked_by_number() {
    let grants = vec![record(GrantKind::Share), record(GrantKind::Bypass)];
    let revoke = delete(async || axum::Json(record(GrantKind::Bypass)));
    let routes = Router::new()
        .route("/v1/previews/web-7/grants", respond(&grants))
        .route("/v1/previews/web-7/grants/3", revoke);
    let fake = Fake::new(routes);
    let run = fake.preview(&["shares", "web-7"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    ID  KIND   EXPIRES               CREATED               BY
    3   link   2026-11-20T11:00:00Z  2026-11-20T10:00:00Z  uid:0
    3   token  2026-11-20T11:00:00Z  2026-11-20T10:00:00Z  uid:0
    --- stderr
    ");
    let run = fake.preview(&["unshare", "web-7", "3"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] The token 3 of preview web-7 is revoked.
    --- stderr
    ");
    let run = fake.preview(&["unshare", "web-7", "03"]);
    assert!(run.transcript().starts_with("status: 2"));
}
