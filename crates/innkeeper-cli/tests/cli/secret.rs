use std::io::Write as _;
use std::process::Stdio;

use axum::Router;
use axum::routing::MethodRouter;
use innkeeper_model::preview::secrets::{
    RepoSecrets, SecretChange, SecretChanged, SecretState, SecretView,
};
use innkeeper_model::preview::{EnvName, PreviewState, RepoName};
use insta::assert_snapshot;

use crate::fake::{Fake, Run, attach, read_until, respond, terminal};
use crate::samples::{name, preview};

const PATH: &str = "/v1/secrets/octo/web/MAIL_KEY";

fn repo() -> RepoName {
    RepoName::parse("octo/web").expect("a repository")
}

fn key(text: &str) -> EnvName {
    EnvName::parse(text).expect("a name")
}

fn changed(change: SecretChange, restart: &[&str]) -> SecretChanged {
    SecretChanged {
        repo: repo(),
        name: key("MAIL_KEY"),
        change,
        needs_restart: restart.iter().map(|slug| name(slug)).collect(),
    }
}

fn daemon(change: SecretChange, restart: &[&str]) -> Fake {
    let changed = changed(change, restart);
    let handler: MethodRouter = respond(&changed);
    Fake::new(Router::new().route(PATH, handler))
}

/// Runs a command with an input.
fn with_input(fake: &Fake, arguments: &[&str], input: &[u8]) -> Run {
    let mut command = fake.command("innkeeper", arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("its input");
    // A refused command ends before it reads its input.
    stdin.write_all(input).ok();
    drop(stdin);
    Run::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn set_sends_standard_input_and_names_the_previews_to_restart() {
    let fake = daemon(SecretChange::Replaced, &["web-7", "web-main"]);
    let run = with_input(&fake, &["secret", "set", "octo/web", "MAIL_KEY"], b"a\nb\n");
    assert_snapshot!(run.ok(), @r"
    [OK] Secret MAIL_KEY of octo/web has the new value.
    [WARN] web-7 has a former value of MAIL_KEY and needs a restart
            Hint: `preview update web-7` restarts it.
    [WARN] web-main has a former value of MAIL_KEY and needs a restart
            Hint: `preview update web-main` restarts it.
    ");
    assert_eq!(
        fake.requests(),
        [r#"POST /v1/secrets/octo/web/MAIL_KEY {"value":"a\nb"}"#]
    );
    let arguments = ["secret", "set", "octo/web", "MAIL_KEY", "-", "--json"];
    let json = with_input(&fake, &arguments, b"a").ok();
    let json: SecretChanged = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json.needs_restart.len(), 2);
}

#[test]
fn value_is_not_shown_on_a_terminal() {
    let fake = daemon(SecretChange::Created, &[]);
    let (mut user, program) = terminal();
    let mut command = fake.command("innkeeper", &["secret", "set", "octo/web", "MAIL_KEY", "-"]);
    attach(&mut command, &program);
    let mut child = command.spawn().expect("it starts");
    drop(command);
    drop(program);
    read_until(&mut user, "shown): ");
    writeln!(user, "hunter2").expect("written");
    let output = read_until(&mut user, "is set.");
    assert!(!output.contains("hunter2"), "{output}");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(
        fake.requests(),
        [r#"POST /v1/secrets/octo/web/MAIL_KEY {"value":"hunter2"}"#]
    );
}

#[test]
fn value_as_an_argument_and_invalid_ones_are_refused_without_being_shown() {
    let fake = Fake::new(Router::new());
    let long = vec![b'x'; 40_000];
    for (arguments, input, problem) in [
        (
            ["octo/web", "MAIL_KEY", "hunter2"],
            &b""[..],
            "is not an argument",
        ),
        (["octo/web", "MAIL_KEY", "-"], b"\n", "is empty"),
        (
            ["octo/web", "MAIL_KEY", "-"],
            &long,
            "has more than 32768 bytes",
        ),
        (
            ["octo/web", "MAIL_KEY", "-"],
            b"hunter2\xff",
            "cannot read the value",
        ),
        (
            ["octo/web", "MAIL-KEY", "-"],
            b"hunter2",
            "only letters, digits and '_'",
        ),
        (
            ["octo/web", "BASH_ENV", "-"],
            b"hunter2",
            "bash reserves it",
        ),
        (["web", "MAIL_KEY", "-"], b"hunter2", "owner/name"),
    ] {
        let arguments = [&["secret", "set"][..], &arguments].concat();
        let run = with_input(&fake, &arguments, input);
        assert!(run.stderr.contains(problem), "{problem}: {}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    assert_eq!(fake.requests(), [""; 0]);
}

#[test]
fn rm_removes_a_secret() {
    let fake = daemon(SecretChange::Removed, &[]);
    let run = fake.innkeeper(&["secret", "rm", "octo/web", "MAIL_KEY"]);
    assert_snapshot!(run.ok(), @"[OK] Secret MAIL_KEY of octo/web is removed.");
    assert_eq!(fake.requests(), [format!("DELETE {PATH}")]);
}

#[test]
fn list_shows_states_and_previews_without_values() {
    let view = |text, state, used: &[&str], restart: &[&str]| SecretView {
        name: key(text),
        state,
        used_by: used.iter().map(|slug| name(slug)).collect(),
        needs_restart: restart.iter().map(|slug| name(slug)).collect(),
    };
    let secrets = RepoSecrets {
        repo: repo(),
        secrets: vec![
            view("BROKEN", SecretState::Invalid, &[], &[]),
            view(
                "MAIL_KEY",
                SecretState::Set,
                &["web-7", "web-8"],
                &["web-7"],
            ),
            view("UNSET", SecretState::Missing, &["web-8"], &[]),
        ],
    };
    let fake = Fake::new(Router::new().route("/v1/secrets/octo/web", respond(&secrets)));
    assert_snapshot!(fake.innkeeper(&["secret", "list", "octo/web"]).ok(), @r"
    KEY       STATE    USED BY       NEEDS RESTART
    BROKEN    invalid  -             -
    MAIL_KEY  set      web-7, web-8  web-7
    UNSET     missing  web-8         -
    ");
}

#[test]
fn preview_list_names_former_values() {
    let mut stale = preview("web-7", PreviewState::Live);
    stale.outlook.stale_secrets = vec![key("MAIL_KEY"), key("OTHER")];
    let fake = Fake::new(Router::new().route("/v1/previews", respond(&[stale])));
    let list = fake.preview(&["list"]).ok();
    let line = "web-7 has a former value of MAIL_KEY, OTHER: `preview update web-7` restarts it";
    assert!(list.contains(line), "{list}");
}
