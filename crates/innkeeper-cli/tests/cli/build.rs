use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, StorePath, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events};
use crate::samples::{CLOSURE, accepted, event, finished};

/// Creates a daemon that accepts builds at a path.
pub(crate) fn daemon(path: &str, end: EventKind) -> Fake {
    let parts = [Stream::Ends(vec![accepted(1, Verb::Build), event(2, end)])];
    Fake::new(
        Router::new()
            .route(path, accept(7, None))
            .route("/v1/events", events(parts)),
    )
}

fn fake(end: EventKind) -> Fake {
    daemon("/v1/builds", end)
}

#[test]
fn configured_output_is_the_default() {
    let fake = fake(EventKind::Finished);
    assert_snapshot!(fake.agent(&["build"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Building the configured flake output.
    [OK] Closure built in N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/builds {"installable":null}"#
    );
}

#[test]
fn relative_flake_resolves_in_the_callers_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path().canonicalize().expect("its path");
    let built = EventKind::Built {
        what: format!("{}#guest", here.display()),
        closure: StorePath::parse(CLOSURE).expect("a store path"),
    };
    let parts = [Stream::Ends(vec![
        accepted(1, Verb::Build),
        event(2, built),
        finished(3),
    ])];
    let fake = Fake::new(
        Router::new()
            .route("/v1/builds", accept(7, None))
            .route("/v1/events", events(parts)),
    );
    let mut command = fake.command("agent", &["build", ".#guest", "--json"]);
    let run = crate::fake::run({
        command.current_dir(&here);
        command
    });
    assert_snapshot!(run.transcript(), @r#"
    status: 0
    --- stdout
    {"operation":7,"elapsed_ms":0,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}
    --- stderr
    "#);
    let request = format!(
        r#"POST /v1/builds {{"installable":"{}#guest"}}"#,
        here.display()
    );
    assert_eq!(fake.requests()[0], request);
}

#[test]
fn failed_build_shows_the_end_of_the_log() {
    let mut failure = Failure::new(Code::BuildFailed, "cannot build /srv/fleet#guest")
        .with_remedy("Build it by hand to see all of it: `nix build /srv/fleet#guest`.");
    failure.log = vec!["error: attribute 'guest' missing".to_owned()];
    assert_snapshot!(fake(EventKind::Failed { failure }).agent(&["build", "/srv/fleet#guest"]).transcript(), @r"
    status: 6
    --- stdout
    [INFO] Building /srv/fleet#guest.
    --- stderr
    [ERROR] cannot build /srv/fleet#guest
            Hint: Build it by hand to see all of it: `nix build /srv/fleet#guest`.
            | error: attribute 'guest' missing
    ");
}

#[test]
fn stream_end_without_last_event_reconnects() {
    let parts = [
        Stream::Ends(vec![accepted(1, Verb::Build)]),
        Stream::Ends(vec![finished(2)]),
    ];
    let fake = Fake::new(
        Router::new()
            .route("/v1/builds", accept(7, None))
            .route("/v1/events", events(parts)),
    );
    fake.agent(&["build"]).ok();
    assert_eq!(fake.requests().len(), 3);
}
