use std::os::unix::fs::PermissionsExt;

use axum::Router;
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, answer, run};
use crate::samples::preview;

fn fake(state: PreviewState) -> Fake {
    Fake::new(Router::new().route("/v1/previews/web-7", answer(&preview("web-7", state))))
}

#[test]
fn without_a_display_the_url_is_printed() {
    let fake = fake(PreviewState::Live);
    assert_eq!(
        fake.preview(&["open", "web-7"]).ok(),
        "https://web-7.preview.example.com\n"
    );
    let value = fake.preview(&["open", "web-7", "--json"]).ok();
    assert!(
        value.contains(r#""url":"https://web-7.preview.example.com""#),
        "{value}"
    );
}

#[test]
fn a_preview_that_does_not_answer_yet_is_said_so() {
    assert_snapshot!(fake(PreviewState::Building).preview(&["open", "web-7"]).whole(), @r"
    status: 0
    --- stdout
    https://web-7.preview.example.com
    --- stderr
    [INFO] Preview web-7 is building: nothing of it answers yet.
    ");
}

#[test]
fn with_a_display_the_url_is_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let (program, opened) = (
        directory.path().join("xdg-open"),
        directory.path().join("opened"),
    );
    // A pipe: who reads it waits until the browser has been started.
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &opened,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    );
    made.expect("a pipe");
    let script = format!("#!/bin/sh\necho \"$1\" > {}\n", opened.display());
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
    let fake = fake(PreviewState::Live);
    let mut command = fake.command("preview", &["open", "web-7"]);
    command.env("DISPLAY", ":0").env(
        "PATH",
        format!("{}:/usr/bin:/bin", directory.path().display()),
    );
    assert_eq!(run(command).ok(), "https://web-7.preview.example.com\n");
    assert_eq!(
        std::fs::read_to_string(&opened).expect("what was opened"),
        "https://web-7.preview.example.com\n"
    );
}

#[test]
fn a_missing_browser_is_no_failure() {
    let fake = fake(PreviewState::Live);
    let mut command = fake.command("preview", &["open", "web-7"]);
    command
        .env("WAYLAND_DISPLAY", "wayland-0")
        .env("PATH", "/nonexistent");
    assert_snapshot!(run(command).whole(), @r"
    status: 0
    --- stdout
    https://web-7.preview.example.com
    --- stderr
    [INFO] xdg-open does not run (No such file or directory (os error 2)), so the URL was not opened.
    ");
}
