use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, fail, respond};
use crate::samples::{accepted, event, finished, guest};

fn daemon() -> Router {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let busy = Failure::new(
        Code::RootfsFailed,
        "cannot remove /var/lib/innkeeper/guests/db",
    );
    Router::new()
        .route("/v1/guests", respond(&[guest("web", 1), guest("db", 2)]))
        .route("/v1/guests/web", accept(7, Some("web")))
        .route("/v1/guests/db", accept(8, Some("db")))
        .route("/v1/guests/wbe", fail(missing))
        .route(
            "/v1/events",
            events([
                Stream::Ends(vec![accepted(1, Verb::Destroy), finished(2)]),
                Stream::Ends(vec![event(3, EventKind::Failed { failure: busy })]),
            ]),
        )
}

#[test]
fn exit_status_is_that_of_the_worst_failure() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.agent(&["destroy", "web", "wbe", "web", "db"]).transcript(), @r"
    status: 7
    --- stdout
    [INFO] Destroying agent web.
    [OK] Agent web destroyed in N ms.
    [INFO] Destroying agent db.
    --- stderr
    [ERROR] no guest is named 'wbe'
            Hint: Did you mean 'web'?
    [ERROR] cannot remove /var/lib/innkeeper/guests/db
    ");
    let deletes = fake
        .requests()
        .iter()
        .filter(|line| line.starts_with("DELETE"))
        .count();
    assert_eq!(deletes, 3, "duplicate names are removed");
}

#[test]
fn json_has_every_result() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.agent(&["destroy", "web", "wbe", "db", "--json"]).transcript(), @r#"
    status: 7
    --- stdout
    [{"name":"web","operation":7,"elapsed_ms":0},{"name":"wbe","elapsed_ms":0,"failure":{"code":"guest_not_found","message":"no guest is named 'wbe'","remedy":"Did you mean 'web'?"}},{"name":"db","operation":8,"elapsed_ms":0,"failure":{"code":"rootfs_failed","message":"cannot remove /var/lib/innkeeper/guests/db"}}]
    --- stderr
    {"code":"guest_not_found","message":"no guest is named 'wbe'","remedy":"Did you mean 'web'?"}
    {"code":"rootfs_failed","message":"cannot remove /var/lib/innkeeper/guests/db"}
    "#);
}
