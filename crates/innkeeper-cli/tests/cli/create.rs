use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;

use axum::Router;
use innkeeper_model::{BuildProgress, Code, EventKind, Failure, Verb};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{
    Fake, Run, Stream, accept, attach, directory, events, fail, read_until, respond, terminal,
};
use crate::samples::{CLOSURE, accepted, done, event, finished, guest, guest_here};

fn daemon(parts: impl IntoIterator<Item = Stream>) -> Router {
    Router::new()
        .route("/v1/guests", accept(7, Some("web")))
        .route("/v1/guests/web", respond(&guest("web", 1)))
        .route("/v1/events", events(parts))
}

fn successful_create() -> Stream {
    Stream::Ends(vec![
        accepted(1, Verb::Create),
        event(
            2,
            EventKind::StepStarted {
                step: "ensure-rootfs".to_owned(),
            },
        ),
        done(3, "ensure-rootfs"),
        finished(4),
    ])
}

fn failure() -> Failure {
    let mut failure = Failure::new(
        Code::GuestDied,
        "agent 'web' ended before its init took over",
    )
    .with_remedy("Look at its log: `agent logs web`.");
    failure.log = vec![
        "init: no such file".to_owned(),
        "\u{1b}[31mbye\u{1b}[0m".to_owned(),
    ];
    failure
}

#[test]
fn steps_and_result_are_printed() {
    let fake = Fake::new(daemon([successful_create()]));
    assert_snapshot!(fake.agent(&["create", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Creating agent web.
    [INFO] creating the file tree took 1.2 ms.
    [OK] Agent web is up at 10.100.0.3 after N ms.
    --- stderr
    ");
}

#[test]
fn terminal_has_a_spinner_and_colors() {
    let (mut user_end, program_end) = terminal();
    for (no_color, end) in [
        ("", "\u{1b}[32m[OK]\u{1b}[0m Agent web"),
        ("1", "[OK] Agent web"),
    ] {
        let fake = Fake::new(daemon([successful_create()]));
        let mut command = fake.command("agent", &["create", "web"]);
        command.env("TERM", "xterm").env("NO_COLOR", no_color);
        attach(&mut command, &program_end);
        let mut child = command.spawn().expect("it starts");
        let text = read_until(&mut user_end, " ms.");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert!(text.contains(end) && !text.contains("[INFO]"), "{text:?}");
        assert_eq!(
            text.contains("\u{1b}[32m[OK]"),
            no_color.is_empty(),
            "{text:?}"
        );
    }
}

#[test]
fn json_has_the_guest() {
    let fake = Fake::new(daemon([successful_create()]));
    assert_snapshot!(fake.agent(&["create", "--json"]).transcript(), @r#"
    status: 0
    --- stdout
    {"operation":7,"elapsed_ms":0,"name":"web","kind":"agent","slot":1,"want":"running","level":"awake","source":{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"},"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","limits":{"memory":"4G","cpus":"0.5","tasks":4096,"user_ids":65536},"ssh_host_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample","fault":null,"owner":"uid:1000","created_at":"2026-11-20T10:00:00.25Z","state":"running","unit":"running","host_address":"10.100.0.2","guest_address":"10.100.0.3","interface":"ve-1"}
    --- stderr
    "#);
}

#[test]
fn quiet_prints_the_name_only() {
    let fake = Fake::new(daemon([successful_create()]));
    assert_eq!(fake.agent(&["create", "--quiet"]).ok(), "web\n");
}

#[test]
fn request_has_all_arguments() {
    let fake = Fake::new(daemon([
        successful_create(),
        successful_create(),
        successful_create(),
    ]));
    let limits = ["--memory", "4G", "--cpus", "0.5", "--tasks", "99"];
    let ids = ["--user-ids", "131072", "--nesting"];
    let limits = [limits.as_slice(), &ids].concat();
    fake.agent(&[&["create", "web", "--closure", CLOSURE], limits.as_slice()].concat())
        .ok();
    fake.agent(&["create", "--flake", "/srv/fleet#guest"]).ok();
    fake.agent(&["create"]).ok();
    let mut requests = fake.requests();
    requests.retain(|line| line.starts_with("POST"));
    assert_snapshot!(requests.join("\n"), @r#"
    POST /v1/guests {"name":"web","flake":null,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","memory":"4G","cpus":"0.5","tasks":99,"user_ids":131072,"nesting":true}
    POST /v1/guests {"name":null,"flake":"/srv/fleet#guest","closure":null,"memory":null,"cpus":null,"tasks":null}
    POST /v1/guests {"name":null,"flake":null,"closure":null,"memory":null,"cpus":null,"tasks":null}
    "#);
}

#[test]
fn failed_operation_is_reported() {
    let end = event(2, EventKind::Failed { failure: failure() });
    let fake = Fake::new(daemon([Stream::Ends(vec![accepted(1, Verb::Create), end])]));
    assert_snapshot!(fake.agent(&["create", "web"]).transcript(), @r"
    status: 7
    --- stdout
    [INFO] Creating agent web.
    --- stderr
    [ERROR] agent 'web' ended before its init took over
            Hint: Look at its log: `agent logs web`.
            | init: no such file
            | bye
    ");
}

#[test]
fn failed_operation_is_a_json_failure() {
    let end = || Stream::Ends(vec![event(2, EventKind::Failed { failure: failure() })]);
    let fake = Fake::new(daemon([end()]));
    let run = fake.agent(&["create", "web", "--json"]);
    assert_eq!((run.status, run.stdout.as_str()), (7, ""));
    assert_eq!(run.failure(), failure());
}

#[test]
fn rejected_request_is_reported_and_not_followed() {
    let failure = Failure::new(Code::GuestExists, "a guest named 'web' exists")
        .with_remedy("Choose another name, or `agent destroy web` first.");
    let fake = Fake::new(Router::new().route("/v1/guests", fail(failure)));
    assert_snapshot!(fake.agent(&["create", "web"]).transcript(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] a guest named 'web' exists
            Hint: Choose another name, or `agent destroy web` first.
    ");
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn notes_and_failed_steps_are_printed() {
    let step = "ensure-network".to_owned();
    let failure = Failure::new(Code::InterfaceTaken, "ve-1 belongs to somebody else");
    let note = "Innkeeper takes the next slot.".to_owned();
    let fake = Fake::new(daemon([Stream::Ends(vec![
        event(1, EventKind::StepFailed { step, failure }),
        event(2, EventKind::Note { text: note }),
        finished(3),
    ])]));
    assert_snapshot!(fake.agent(&["create", "web"]).stdout.lines().take(3).collect::<Vec<_>>().join("\n"), @r"
    [INFO] Creating agent web.
    [INFO] setting up the network failed: ve-1 belongs to somebody else.
    [INFO] Innkeeper takes the next slot.
    ");
}

#[test]
fn build_progress_is_throttled() {
    let progress = |n| {
        let progress = BuildProgress {
            activity: format!("building part {n}"),
            built: n,
            to_build: 1000,
            ..BuildProgress::default()
        };
        event(0, EventKind::Progress { progress })
    };
    let all: Vec<_> = (0..1000).map(progress).chain([finished(2)]).collect();
    let fake = Fake::new(daemon([Stream::Ends(all)]));
    let stdout = fake.agent(&["create", "web"]).ok();
    assert!(
        stdout.contains("[INFO] building part 0 (0 of 1000 built).\n"),
        "{stdout}"
    );
    assert!(stdout.lines().count() < 100, "{stdout}");
}

#[test]
fn stream_resumes_after_the_last_event() {
    let fake = Fake::new(daemon([
        Stream::Breaks(vec![accepted(11, Verb::Create), done(12, "ensure-rootfs")]),
        // Neither an early end nor progress, which has no number, changes the resume position.
        Stream::Ends(vec![event(
            0,
            EventKind::Progress {
                progress: BuildProgress::default(),
            },
        )]),
        Stream::Ends(vec![done(13, "ensure-network"), finished(14)]),
    ]));
    let stdout = fake.agent(&["create", "web"]).ok();
    for step in ["creating the file tree", "setting up the network"] {
        assert_eq!(stdout.matches(step).count(), 1, "{stdout}");
    }
    let mut requests = fake.requests();
    requests.retain(|line| line.contains("/v1/events"));
    assert_snapshot!(requests.join("\n"), @r"
    GET /v1/events?after=0&follow=true&operation=7
    GET /v1/events?after=12&follow=true&operation=7
    GET /v1/events?after=12&follow=true&operation=7
    ");
}

#[test]
fn operation_is_followed_across_a_daemon_restart() {
    let directory = directory();
    let socket = directory.path().join("api.sock");
    let first = Fake::at(
        &socket,
        daemon([Stream::Stays(vec![accepted(1, Verb::Create)])]),
    );
    let child = first.spawn("agent", &["create", "web"]);
    first.wait_for("GET /v1/events");
    drop(first);
    let _second = Fake::at(&socket, daemon([Stream::Ends(vec![finished(2)])]));
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert!(
        run.ok()
            .contains("[OK] Agent web is up at 10.100.0.3 after")
    );
}

#[test]
fn ctrl_c_reports_that_the_operation_continues() {
    let fake = Fake::new(daemon([Stream::Stays(vec![done(1, "ensure-rootfs")])]));
    let mut child = fake.spawn("agent", &["create", "web"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = String::new();
    while !lines.contains("creating the file tree") {
        assert_ne!(stdout.read_line(&mut lines).expect("a line"), 0, "{lines}");
    }
    interrupt(&child);
    stdout.read_to_string(&mut lines).expect("the rest");
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_snapshot!(run.transcript(), @r"
    status: 130
    --- stdout
    --- stderr
    [INFO] Operation 7 continues in the background; `innkeeper events --follow --guest web` shows its progress.
    ");
}

fn interrupt(child: &std::process::Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::INT).expect("it is there");
}

#[test]
fn wait_ends_when_the_port_accepts_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener
        .local_addr()
        .expect("its address")
        .port()
        .to_string();
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", accept(7, Some("web")))
            .route("/v1/guests/web", respond(&guest_here("web")))
            .route("/v1/events", events([successful_create()])),
    );
    let stdout = fake
        .agent(&["create", "web", "--wait", "--wait-port", &port])
        .ok();
    let end =
        format!("[OK] Agent web is up at 127.0.0.1 and accepts connections on port {port} after ");
    assert!(stdout.contains(&end), "{stdout}");
}

#[test]
fn ctrl_c_ends_the_wait_and_keeps_the_agent() {
    // The port is closed before the program starts.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener
        .local_addr()
        .expect("its address")
        .port()
        .to_string();
    drop(listener);
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", accept(7, Some("web")))
            .route("/v1/guests/web", respond(&guest_here("web")))
            .route("/v1/events", events([successful_create()])),
    );
    let child = fake.spawn("agent", &["create", "web", "--wait", "--wait-port", &port]);
    // The signal handler is installed by then.
    fake.wait_for("GET /v1/guests/web");
    interrupt(&child);
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130, "{run:?}");
    assert!(
        run.stderr
            .contains("Agent web is up; its port was not checked"),
        "{run:?}"
    );
}
