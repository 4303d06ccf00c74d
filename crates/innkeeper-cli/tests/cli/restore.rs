use axum::Router;
use innkeeper_model::{GuestState, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, answer, events};
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
            .route("/v1/guests/web", answer(&view))
            .route(path, accept(7, Some("web")))
            .route("/v1/events", events([Part::Ends(steps)])),
    )
}

#[test]
fn an_agent_that_ran_is_up_again() {
    let run = fake(GuestState::Running).agent(&["restore", "web", "old"]);
    assert_snapshot!(run.whole(), @r"
    status: 0
    --- stdout
    [INFO] Restoring snapshot old of agent web.
    [INFO] restoring the file tree took 1.2 ms.
    [OK] Agent web is as in snapshot old and up at 10.100.0.3 after N ms.
    --- stderr
    ");
}

#[test]
fn an_agent_that_was_stopped_stays_so() {
    let stdout = fake(GuestState::Stopped)
        .agent(&["restore", "web", "old"])
        .ok();
    assert!(
        stdout.contains("[OK] Agent web is as in snapshot old after "),
        "{stdout}"
    );
}

#[test]
fn programs_get_the_guest_as_one_value() {
    let run = fake(GuestState::Running).agent(&["restore", "web", "old", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    assert_eq!(
        (&value["operation"], &value["name"]),
        (&7.into(), &"web".into())
    );
}
