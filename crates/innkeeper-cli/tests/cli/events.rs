use axum::Router;
use innkeeper_model::{Code, Event, EventKind, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, events, fail};
use crate::samples::{accepted, done, event, finished};

fn all_kinds() -> Vec<Event> {
    let failure = || Failure::new(Code::NetworkFailed, "cannot add ve-1\nat all");
    let step = || "ensure-network".to_owned();
    let mut host_event = event(
        9,
        EventKind::Note {
            text: "The firewall was replaced.".to_owned(),
        },
    );
    host_event.operation = None;
    host_event.guest = None;
    vec![
        accepted(1, Verb::Create),
        event(2, EventKind::StepStarted { step: step() }),
        event(
            3,
            EventKind::StepFailed {
                step: step(),
                failure: failure(),
            },
        ),
        done(4, "remove-rootfs"),
        event(5, EventKind::Failed { failure: failure() }),
        finished(6),
        event(7, EventKind::Exited { status: 137 }),
        host_event,
    ]
}

fn fake(parts: impl IntoIterator<Item = Stream>) -> Fake {
    Fake::new(Router::new().route("/v1/events", events(parts)))
}

#[test]
fn events_are_one_line_each() {
    let fake = fake([Stream::Ends(all_kinds())]);
    assert_snapshot!(fake.innkeeper(&["events"]).ok(), @r"
    2026-11-20T10:00:01Z       1      7  web               create accepted
    2026-11-20T10:00:01Z       2      7  web               setting up the network
    2026-11-20T10:00:01Z       3      7  web               setting up the network failed: cannot add ve-1 at all
    2026-11-20T10:00:01Z       4      7  web               removing the file tree took 1.2 ms
    2026-11-20T10:00:01Z       5      7  web               failed: cannot add ve-1 at all
    2026-11-20T10:00:01Z       6      7  web               finished
    2026-11-20T10:00:01Z       7      7  web               the guest exited with status 137
    2026-11-20T10:00:01Z       9      -  -                 The firewall was replaced.
    ");
}

#[test]
fn json_has_one_value_per_line() {
    let fake = fake([Stream::Ends(all_kinds())]);
    let stdout = fake.innkeeper(&["events", "--json"]).ok();
    let read = |line| serde_json::from_str(line).expect("an event");
    assert_eq!(
        stdout.lines().map(read).collect::<Vec<Event>>(),
        all_kinds()
    );
}

#[test]
fn request_has_all_filters() {
    let fake = fake([Stream::Ends(Vec::new())]);
    fake.innkeeper(&["events", "--guest", "web", "--after", "12"])
        .ok();
    assert_eq!(
        fake.requests(),
        ["GET /v1/events?after=12&follow=false&guest=web"]
    );
}

#[test]
fn follow_resumes_after_a_lost_connection() {
    let parts = [
        Stream::Breaks(vec![accepted(41, Verb::Create)]),
        Stream::Stays(vec![finished(42)]),
    ];
    let fake = fake(parts);
    let mut child = fake.spawn("innkeeper", &["events", "--follow"]);
    fake.wait_for("GET /v1/events?after=41&follow=true");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn rejected_request_is_not_retried() {
    let failure = Failure::new(Code::InvalidRequest, "after must not be negative");
    let fake = Fake::new(Router::new().route("/v1/events", fail(failure.clone())));
    let run = fake.innkeeper(&["events", "--follow", "--after=-1", "--json"]);
    assert_eq!(run.failure(), failure);
    assert_eq!(fake.requests().len(), 1);
}
