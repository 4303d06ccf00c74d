use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, StorePath, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, events};
use crate::samples::{CLOSURE, accepted, event, finished};

/// A daemon that accepts a build on a path.
pub(crate) fn daemon(path: &str, end: EventKind) -> Fake {
    let parts = [Part::Ends(vec![accepted(1, Verb::Build), event(2, end)])];
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
fn the_configured_output_is_built_when_none_is_given() {
    let fake = fake(EventKind::Finished);
    assert_snapshot!(fake.agent(&["build"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Building the configured flake output.
    [OK] The closure is built after N ms.
    --- stderr
    ");
    assert_eq!(fake.seen()[0], r#"POST /v1/builds {"installable":null}"#);
}

#[test]
fn a_relative_flake_means_the_callers_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path().canonicalize().expect("its path");
    let built = EventKind::Built {
        what: format!("{}#guest", here.display()),
        closure: StorePath::parse(CLOSURE).expect("a store path"),
    };
    let parts = [Part::Ends(vec![
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
    assert_snapshot!(run.whole(), @r#"
    status: 0
    --- stdout
    {"operation":7,"elapsed_ms":0,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}
    --- stderr
    "#);
    let request = format!(
        r#"POST /v1/builds {{"installable":"{}#guest"}}"#,
        here.display()
    );
    assert_eq!(fake.seen()[0], request);
}

#[test]
fn a_failed_build_shows_nixs_last_lines() {
    let mut failure = Failure::new(Code::BuildFailed, "cannot build /srv/fleet#guest")
        .with_remedy("Build it by hand to see all of it: `nix build /srv/fleet#guest`.");
    failure.log = vec!["error: attribute 'guest' missing".to_owned()];
    assert_snapshot!(fake(EventKind::Failed { failure }).agent(&["build", "/srv/fleet#guest"]).whole(), @r"
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
fn the_end_of_a_stream_is_the_operations_end_only_with_its_last_event() {
    let parts = [
        Part::Ends(vec![accepted(1, Verb::Build)]),
        Part::Ends(vec![finished(2)]),
    ];
    let fake = Fake::new(
        Router::new()
            .route("/v1/builds", accept(7, None))
            .route("/v1/events", events(parts)),
    );
    fake.agent(&["build"]).ok();
    assert_eq!(fake.seen().len(), 3);
}
