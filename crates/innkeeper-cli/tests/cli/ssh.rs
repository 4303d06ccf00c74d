use std::os::unix::fs::PermissionsExt;

use axum::Router;
use innkeeper_model::api::GuestView;
use innkeeper_model::{Code, GuestKind, GuestState};
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::fake::{Fake, Run, answer, run};
use crate::samples::{HOST_KEY, guest};

fn fake(view: &GuestView) -> Fake {
    Fake::new(Router::new().route("/v1/guests/web", answer(view)))
}

/// A directory with an `ssh` that tells what it was asked for and what it would believe.
fn stand_in(script: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ssh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    directory
}

fn ssh(fake: &Fake, script: &str, words: &[&str]) -> Run {
    let directory = stand_in(script);
    let mut command = fake.command("agent", words);
    command.env(
        "PATH",
        format!("{}:/usr/bin:/bin", directory.path().display()),
    );
    run(command)
}

const TELL: &str = r#"
for word in "$@"; do
    case $word in
    UserKnownHostsFile=*) cat "${word#*=}"; echo "UserKnownHostsFile=..." ;;
    *) echo "$word" ;;
    esac
done
exit 42
"#;

#[test]
fn ssh_believes_the_guests_own_key_and_no_other() {
    let fake = fake(&guest("web", 1));
    let words = ["ssh", "web", "--", "-L", "8080:localhost:80", "uname"];
    assert_snapshot!(ssh(&fake, TELL, &words).whole(), @r"
    status: 42
    --- stdout
    -o
    HostKeyAlias=innkeeper-web
    -o
    innkeeper-web ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample
    UserKnownHostsFile=...
    -o
    GlobalKnownHostsFile=/dev/null
    -o
    StrictHostKeyChecking=yes
    -o
    ConnectTimeout=10
    -o
    User=agent
    10.100.0.3
    -L
    8080:localhost:80
    uname
    --- stderr
    ");
}

#[test]
fn a_command_needs_no_dashes_before_it() {
    let fake = fake(&guest("web", 1));
    let run = ssh(&fake, TELL, &["ssh", "web", "cat", "-u", "x"]);
    assert!(
        run.stdout.ends_with("User=agent\n10.100.0.3\ncat\n-u\nx\n"),
        "{run:?}"
    );
}

#[test]
fn a_previews_guest_is_refused() {
    let mut view = guest("web", 1);
    view.guest.kind = GuestKind::Preview;
    assert_snapshot!(fake(&view).agent(&["ssh", "web"]).whole(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] 'web' is a preview, not an agent
            Hint: Use `preview ssh web`.
    ");
}

#[test]
fn the_user_cannot_be_an_option() {
    let run = ssh(
        &fake(&guest("web", 1)),
        TELL,
        &["ssh", "web", "--user=-oProxyCommand=x"],
    );
    assert!(run.stdout.contains("\nUser=-oProxyCommand=x\n"), "{run:?}");
}

#[test]
fn a_signal_that_ends_ssh_is_passed_on_as_shells_do() {
    let run = ssh(&fake(&guest("web", 1)), "kill -TERM $$", &["ssh", "web"]);
    assert_eq!(run.status, 128 + 15);
}

#[test]
fn without_ssh_the_package_is_named() {
    let fake = fake(&guest("web", 1));
    let mut command = fake.command("agent", &["ssh", "web"]);
    command.env("PATH", "/nonexistent");
    assert_snapshot!(run(command).whole(), @r"
    status: 7
    --- stdout
    --- stderr
    [ERROR] cannot run 'ssh': No such file or directory (os error 2)
            Hint: Install it (on Debian: `apt-get install openssh-client`). `agent exec` works without it.
    ");
}

#[test]
fn a_guest_that_cannot_be_reached_is_refused() {
    let mut stopped = guest("web", 1);
    stopped.state = GuestState::Stopped;
    assert_snapshot!(fake(&stopped).agent(&["ssh", "web"]).whole(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] agent 'web' cannot be reached: it is stopped
            Hint: `agent list` shows its state; `agent start web` starts it.
    ");
    let mut keyless = guest("web", 1);
    keyless.guest.ssh_host_key = None;
    let run = fake(&keyless).agent(&["ssh", "web", "--json"]);
    assert_eq!(run.failure().code, Code::GuestNotRunning);
}

#[test]
fn a_key_of_two_lines_is_no_key() {
    let mut view = guest("web", 1);
    view.guest.ssh_host_key = Some(format!("{HOST_KEY}\n* ssh-ed25519 AAAAother"));
    let run = ssh(&fake(&view), TELL, &["ssh", "web", "--json"]);
    assert_eq!(
        (run.failure().code, run.stdout.as_str()),
        (Code::Internal, "")
    );
}
