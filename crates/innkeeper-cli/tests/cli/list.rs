use axum::Router;
use innkeeper_model::api::GuestView;
use innkeeper_model::{GuestKind, GuestState};
use insta::assert_snapshot;

use crate::fake::{Fake, answer};
use crate::samples::guest;

fn with(guests: &[GuestView]) -> Fake {
    Fake::new(Router::new().route("/v1/guests", answer(&guests)))
}

fn some() -> Fake {
    let mut stopped = guest("a-xkcd42", 300);
    stopped.state = GuestState::Stopped;
    stopped.guest_address = None;
    let mut preview = guest("shop-17", 2);
    preview.guest.kind = GuestKind::Preview;
    with(&[guest("web", 1), preview, stopped])
}

#[test]
fn agents_are_a_table() {
    assert_snapshot!(some().agent(&["list"]).ok(), @r"
    NAME      STATUS   ADDRESS     SLOT  MEMORY  CPUS  CREATED
    web       running  10.100.0.3  1     4G      0.5   2026-11-20T10:00:00Z
    a-xkcd42  stopped  -           300   4G      0.5   2026-11-20T10:00:00Z
    ");
}

#[test]
fn programs_get_the_views() {
    let stdout = some().agent(&["list", "--json"]).ok();
    let views: Vec<GuestView> = serde_json::from_str(&stdout).expect("one value");
    let names: Vec<_> = views.iter().map(|view| view.guest.name.as_str()).collect();
    assert_eq!(names, ["web", "a-xkcd42"]);
    assert_eq!(views[0], guest("web", 1));
}

#[test]
fn no_agents_are_said_so() {
    assert_eq!(with(&[]).agent(&["list"]).ok(), "(no agents)\n");
    assert_eq!(with(&[]).agent(&["list", "--json"]).ok(), "[]\n");
}
