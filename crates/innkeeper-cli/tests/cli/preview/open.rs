use std::os::unix::fs::PermissionsExt;

use axum::Router;
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, respond, run};
use crate::samples::preview;

fn fake(state: PreviewState) -> Fake {
    Fake::new(Router::new().route("/v1/previews/web-7", respond(&preview("web-7", state))))
}

#[test]
fn url_is_printed_without_a_display() {
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
fn unready_preview_has_a_note() {
    assert_snapshot!(fake(PreviewState::Building).preview(&["open", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    https://web-7.preview.example.com
    --- stderr
    [INFO] Preview web-7 is building: it does not respond yet.
    ");
}

#[test]
fn url_is_opened_with_a_display() {
    let directory = tempfile::tempdir().expect("a directory");
    let (program, opened) = (
        directory.path().join("xdg-open"),
        directory.path().join("opened"),
    );
    // Reading from a FIFO waits until the browser has started.
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
fn missing_browser_is_not_a_failure() {
    let fake = fake(PreviewState::Live);
    let mut command = fake.command("preview", &["open", "web-7"]);
    command
        .env("WAYLAND_DISPLAY", "wayland-0")
        .env("PATH", "/nonexistent");
    assert_snapshot!(run(command).transcript(), @r"
    status: 0
    --- stdout
    https://web-7.preview.example.com
    --- stderr
    [INFO] Cannot open the URL: xdg-open did not start (No such file or directory (os error 2)).
    ");
}
