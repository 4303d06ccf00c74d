use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, answer, events, refuse};
use crate::samples::{accepted, event, finished, guest};

fn daemon() -> Router {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let busy = Failure::new(
        Code::RootfsFailed,
        "cannot remove /var/lib/innkeeper/guests/db",
    );
    Router::new()
        .route("/v1/guests", answer(&[guest("web", 1), guest("db", 2)]))
        .route("/v1/guests/web", accept(7, Some("web")))
        .route("/v1/guests/db", accept(8, Some("db")))
        .route("/v1/guests/wbe", refuse(missing))
        .route(
            "/v1/events",
            events([
                Part::Ends(vec![accepted(1, Verb::Destroy), finished(2)]),
                Part::Ends(vec![event(3, EventKind::Failed { failure: busy })]),
            ]),
        )
}

#[test]
fn each_is_tried_and_the_worst_failure_counts() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.agent(&["destroy", "web", "wbe", "web", "db"]).whole(), @r"
    status: 7
    --- stdout
    [INFO] Destroying agent web.
    [OK] Agent web is gone after N ms.
    [INFO] Destroying agent db.
    --- stderr
    [ERROR] no guest is named 'wbe'
            Hint: Did you mean 'web'?
    [ERROR] cannot remove /var/lib/innkeeper/guests/db
    ");
    let deletes = fake
        .seen()
        .iter()
        .filter(|line| line.starts_with("DELETE"))
        .count();
    assert_eq!(deletes, 3, "a name that is given twice is meant once");
}

#[test]
fn programs_get_one_value_with_every_result() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.agent(&["destroy", "web", "wbe", "db", "--json"]).whole(), @r#"
    status: 7
    --- stdout
    [{"name":"web","operation":7,"elapsed_ms":0},{"name":"wbe","elapsed_ms":0,"failure":{"code":"guest_not_found","message":"no guest is named 'wbe'","remedy":"Did you mean 'web'?"}},{"name":"db","operation":8,"elapsed_ms":0,"failure":{"code":"rootfs_failed","message":"cannot remove /var/lib/innkeeper/guests/db"}}]
    --- stderr
    {"code":"guest_not_found","message":"no guest is named 'wbe'","remedy":"Did you mean 'web'?"}
    {"code":"rootfs_failed","message":"cannot remove /var/lib/innkeeper/guests/db"}
    "#);
}
