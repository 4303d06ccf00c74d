use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{Code, Failure, GuestKind, GuestState, Level, OperationId, Verb};
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::fake::{Fake, Run, Stream, accept, events, failure_response, respond, run};
use crate::samples::{HOST_KEY, accepted, finished, guest};
use crate::tls_front::Front;

/// Responds with one view after the other, then always with the last.
fn looks(views: impl IntoIterator<Item = GuestView>) -> MethodRouter {
    let left = Arc::new(Mutex::new(views.into_iter().collect::<VecDeque<_>>()));
    get(move || {
        let mut left = left.lock().expect("locked");
        let next = match left.len() {
            1 => left.front().cloned(),
            _ => left.pop_front(),
        };
        std::future::ready(Json(next))
    })
}

fn fake(view: &GuestView) -> Fake {
    Fake::new(Router::new().route("/v1/guests/web", respond(view)))
}

/// Creates a directory with a fake `ssh` that prints its arguments and its known hosts.
fn fake_ssh(script: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ssh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    directory
}

fn ssh(fake: &Fake, script: &str, arguments: &[&str]) -> Run {
    let directory = fake_ssh(script);
    let mut command = fake.command("agent", arguments);
    command.env(
        "PATH",
        format!("{}:/usr/bin:/bin", directory.path().display()),
    );
    run(command)
}

const PRINT_ARGUMENTS: &str = r#"
for word in "$@"; do
    case $word in
    UserKnownHostsFile=*) cat "${word#*=}"; echo "UserKnownHostsFile=..." ;;
    *) echo "$word" ;;
    esac
done
exit 42
"#;

#[test]
fn ssh_accepts_only_the_guests_key() {
    let fake = fake(&guest("web", 1));
    let arguments = ["ssh", "web", "--", "-L", "8080:localhost:80", "uname"];
    assert_snapshot!(ssh(&fake, PRINT_ARGUMENTS, &arguments).transcript(), @r"
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
fn command_needs_no_separator() {
    let fake = fake(&guest("web", 1));
    let run = ssh(&fake, PRINT_ARGUMENTS, &["ssh", "web", "cat", "-u", "x"]);
    assert!(
        run.stdout.ends_with("User=agent\n10.100.0.3\ncat\n-u\nx\n"),
        "{run:?}"
    );
}

#[test]
fn guest_of_a_preview_is_rejected() {
    let mut view = guest("web", 1);
    view.guest.kind = GuestKind::Preview;
    assert_snapshot!(fake(&view).agent(&["ssh", "web"]).transcript(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] 'web' is a preview, not an agent
            Hint: Use `preview ssh web`.
    ");
}

#[test]
fn user_is_never_parsed_as_an_option() {
    let run = ssh(
        &fake(&guest("web", 1)),
        PRINT_ARGUMENTS,
        &["ssh", "web", "--user=-oProxyCommand=x"],
    );
    assert!(run.stdout.contains("\nUser=-oProxyCommand=x\n"), "{run:?}");
}

#[test]
fn signal_of_ssh_becomes_the_exit_code() {
    let run = ssh(&fake(&guest("web", 1)), "kill -TERM $$", &["ssh", "web"]);
    assert_eq!(run.status, 128 + 15);
}

#[test]
fn missing_ssh_has_a_hint() {
    let fake = fake(&guest("web", 1));
    let mut command = fake.command("agent", &["ssh", "web"]);
    command.env("PATH", "/nonexistent");
    assert_snapshot!(run(command).transcript(), @r"
    status: 7
    --- stdout
    --- stderr
    [ERROR] cannot run 'ssh': No such file or directory (os error 2)
            Hint: Install it (on Debian: `apt-get install openssh-client`). `agent exec` works without it.
    ");
}

#[test]
fn paused_guest_is_woken() {
    let mut paused = guest("web", 1);
    (paused.guest.level, paused.state) = (Level::Paused, GuestState::Paused);
    let events = events([Stream::Ends(vec![accepted(1, Verb::Wake), finished(2)])]);
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests/web", looks([paused, guest("web", 1)]))
            .route("/v1/guests/web/wake", accept(7, Some("web")))
            .route("/v1/events", events),
    );
    let run = ssh(&fake, "echo in the guest", &["ssh", "web"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "in the guest\n"));
}

/// Another command works on the guest, which is at another state at each look.
#[test]
fn guest_under_work_is_waited_for() {
    let at = |level, state| {
        let mut view = guest("web", 1);
        (view.guest.level, view.state) = (level, state);
        // No wait for an SSH server.
        view.guest_address = None;
        view
    };
    let views = [
        at(Level::Paused, GuestState::Running),
        at(Level::Asleep, GuestState::Asleep),
        at(Level::Awake, GuestState::Starting),
        at(Level::Awake, GuestState::Running),
    ];
    let busy = Failure::new(Code::GuestBusy, "operation 6 (pause) works on guest 'web'");
    let wakes = Arc::new(Mutex::new(0));
    let wake = move || {
        let mut wakes = wakes.lock().expect("locked");
        *wakes += 1;
        std::future::ready(match *wakes {
            2 => Json(Accepted {
                operation: OperationId(7),
                guest: None,
            })
            .into_response(),
            _ => failure_response(&busy),
        })
    };
    let events = events([Stream::Ends(vec![accepted(1, Verb::Wake), finished(2)])]);
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests/web", looks(views))
            .route("/v1/guests/web/wake", post(wake))
            .route("/v1/events", events),
    );
    let run = ssh(&fake, "true", &["ssh", "web"]);
    // The sample has no address at the end.
    assert!(run.stderr.contains("it has no address"), "{run:?}");
    let wakes = fake.requests();
    let wakes = wakes.iter().filter(|request| request.ends_with("/wake"));
    assert_eq!(wakes.count(), 2, "a guest that does not rest is not woken");
}

#[test]
fn unreachable_guest_is_rejected() {
    let mut stopped = guest("web", 1);
    stopped.state = GuestState::Stopped;
    assert_snapshot!(fake(&stopped).agent(&["ssh", "web"]).transcript(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] cannot reach agent 'web': it is stopped
            Hint: `agent list` shows its state; `agent start web` starts it.
    ");
    let mut keyless = guest("web", 1);
    keyless.guest.ssh_host_key = None;
    let run = fake(&keyless).agent(&["ssh", "web", "--json"]);
    assert_eq!(run.failure().code, Code::GuestNotRunning);
}

#[test]
fn host_key_of_two_lines_is_rejected() {
    let mut view = guest("web", 1);
    view.guest.ssh_host_key = Some(format!("{HOST_KEY}\n* ssh-ed25519 AAAAother"));
    let run = ssh(&fake(&view), PRINT_ARGUMENTS, &["ssh", "web", "--json"]);
    assert_eq!(
        (run.failure().code, run.stdout.as_str()),
        (Code::Internal, "")
    );
}

#[test]
fn gateway_is_the_proxy_of_ssh() {
    let fake = fake(&guest("web", 1));
    let front = Front::of(&fake, None);
    let script = r#"env | grep INNKEEPER_URL; for word in "$@"; do case $word in ProxyCommand=*) echo "$word" ;; esac; last=$word; done; echo "$last""#;
    let directory = fake_ssh(script);
    let mut command = front.command(
        None,
        "agent",
        &["ssh", "web", "--url", &format!("http://{}/", front.address)],
    );
    command.env_remove("INNKEEPER_URL").env(
        "PATH",
        format!("{}:/usr/bin:/bin", directory.path().display()),
    );
    let run = run(command);
    let program = env!("CARGO_BIN_EXE_agent");
    assert_eq!(
        run.ok(),
        format!(
            "INNKEEPER_URL=http://{}/\nProxyCommand='{program}' connect web 22 --wait 60\ninnkeeper-web\n",
            front.address
        )
    );
}
