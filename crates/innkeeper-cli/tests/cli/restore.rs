use axum::Router;
use innkeeper_model::{GuestState, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, done, finished, guest};

fn fake(state: GuestState) -> Fake {
    let mut view = guest("web", 1);
    view.state = state;
    let steps = vec![
        accepted(1, Verb::RestoreSnapshot),
        done(2, "restore-rootfs"),
        finished(3),
    ];
    let path = "/v1/guests/web/snapshots/old/restore";
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&view))
            .route(path, accept(7, Some("web")))
            .route("/v1/events", events([Stream::Ends(steps)])),
    )
}

#[test]
fn running_agent_is_started_again() {
    let run = fake(GuestState::Running).agent(&["restore", "web", "old"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [INFO] Restoring snapshot old of agent web.
    [INFO] restoring the file tree took 1.2 ms.
    [OK] Agent web is restored from snapshot old and up at 10.100.0.3 after N ms.
    --- stderr
    ");
}

#[test]
fn stopped_agent_stays_stopped() {
    let stdout = fake(GuestState::Stopped)
        .agent(&["restore", "web", "old"])
        .ok();
    assert!(
        stdout.contains("[OK] Agent web is restored from snapshot old after "),
        "{stdout}"
    );
}

#[test]
fn json_has_the_guest() {
    let run = fake(GuestState::Running).agent(&["restore", "web", "old", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    assert_eq!(
        (&value["operation"], &value["name"]),
        (&7.into(), &"web".into())
    );
}
