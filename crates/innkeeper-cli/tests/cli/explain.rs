use axum::Router;
use innkeeper_model::{GuestName, GuestState, IdlePolicy, RestReport};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

/// A guest that is paused after four minutes.
pub(crate) fn report() -> RestReport {
    RestReport {
        name: GuestName::parse("web").expect("a name"),
        state: GuestState::Running,
        idle_policy: IdlePolicy::Pause,
        is_own_policy: true,
        idle_seconds: Some(60),
        last_use: Some("a new connection to it".to_owned()),
        kept_awake_by: None,
        keepalive_seconds: None,
        pause_in_seconds: Some(240),
        sleep_in_seconds: None,
    }
}

#[test]
fn report_is_printed() {
    let fake = Fake::new(Router::new().route("/v1/guests/web/rest", respond(&report())));
    assert_snapshot!(fake.agent(&["explain", "web"]).transcript(), @r"
    status: 0
    --- stdout
    Guest:         web is running
    Idle policy:   pause, its own
    Last use:      a new connection to it, 1m ago
    Is paused:     in 4m, if it is not used
    --- stderr
    ");
    let run = fake.agent(&["explain", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    assert_eq!(value["pause_in_seconds"], 240);
}
