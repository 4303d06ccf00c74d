use std::fs::File;
use std::io::Write as _;
use std::process::Child;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use hyper_util::rt::TokioIo;
use innkeeper_model::api::exec::{EXIT, FAILURE, PROTOCOL, RESIZE, STDERR, STDIN, STDOUT};
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{self, Fake, Run, fail, read_until, respond, terminal};
use crate::samples::guest;

pub(crate) type Connection = TokioIo<hyper::upgrade::Upgraded>;
type Frames = Arc<Mutex<Vec<(u8, Vec<u8>)>>>;

/// Creates a daemon that runs `command` for each exec request to the guest `web`.
pub(crate) fn daemon<F, R>(command: F) -> Fake
where
    F: Fn(Connection) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Option<()>> + Send,
{
    let exec = async move |request: Request| -> Response {
        let requested = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        assert_eq!(requested(header::UPGRADE), Some(PROTOCOL));
        assert_eq!(requested(header::CONNECTION), Some("Upgrade"));
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
            command(TokioIo::new(upgraded)).await
        });
        let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, PROTOCOL)];
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    };
    Fake::new(Router::new().route("/v1/guests/web/exec", post(exec)))
}

pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = from.read_u8().await.ok()?;
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()?];
    from.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

pub(crate) async fn send(to: &mut Connection, kind: u8, body: &[u8]) -> Option<()> {
    let mut frame = vec![kind];
    frame.extend(u32::try_from(body.len()).ok()?.to_be_bytes());
    frame.extend(body);
    to.write_all(&frame).await.ok()
}

async fn exit(to: &mut Connection, status: i32) -> Option<()> {
    send(to, EXIT, &status.to_be_bytes()).await
}

/// Echoes its input. At the end of input, writes a line to standard error and exits with 7.
pub(crate) async fn echo(mut connection: Connection) -> Option<()> {
    loop {
        match receive(&mut connection).await? {
            (STDIN, body) if body.is_empty() => break,
            (STDIN, body) => send(&mut connection, STDOUT, &body).await?,
            (kind, _) => panic!("a frame of kind {kind}"),
        }
    }
    send(&mut connection, STDERR, b"the end\n").await?;
    exit(&mut connection, 7).await
}

fn with_input(fake: &Fake, arguments: &[&str], input: Vec<u8>) -> std::process::Output {
    let mut child = fake.spawn("agent", arguments);
    let mut stdin = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was read");
    output
}

#[test]
fn streams_and_status_are_forwarded() {
    let output = with_input(
        &daemon(echo),
        &["exec", "web", "--", "cat"],
        b"hello\n".to_vec(),
    );
    let run = Run::of(output);
    assert_eq!(
        (run.status, run.stdout.as_str(), run.stderr.as_str()),
        (7, "hello\n", "the end\n")
    );
}

#[test]
fn large_input_and_output_are_forwarded_concurrently() {
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|n| u8::try_from(n % 251).expect("a byte"))
        .collect();
    let output = with_input(&daemon(echo), &["exec", "web", "--", "cat"], input.clone());
    assert_eq!(output.status.code(), Some(7));
    assert!(
        output.stdout == input,
        "{} of {} bytes came back",
        output.stdout.len(),
        input.len()
    );
}

#[test]
fn exit_does_not_wait_for_end_of_input() {
    let fake = daemon(async |mut connection| exit(&mut connection, 0).await);
    let mut child = fake.spawn("agent", &["exec", "web", "--", "true"]);
    // The input stays open.
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn request_has_all_arguments() {
    let fake = daemon(async |mut connection| exit(&mut connection, 0).await);
    let arguments = [
        "exec", "-t", "-u", "kim", "-e", "A=b c", "-e", "TOKEN", "web", "--", "ls", "-l", "--json",
    ];
    let mut command = fake.command("agent", &arguments);
    command.env("TOKEN", "secret").env("TERM", "xterm");
    fake::run(command).ok();
    fake.agent(&["exec", "web", "ls", "-l"]).ok();
    assert_snapshot!(fake.requests().join("\n"), @r#"
    POST /v1/guests/web/exec {"command":["ls","-l","--json"],"tty":true,"size":null,"environment":[["A","b c"],["TOKEN","secret"],["TERM","xterm"]],"user":"kim"}
    POST /v1/guests/web/exec {"command":["ls","-l"],"tty":false,"size":null,"environment":[],"user":null}
    "#);
}

#[test]
fn statuses_beyond_exit_codes_become_255() {
    for (status, code) in [
        (0, 0),
        (1, 1),
        (137, 137),
        (255, 255),
        (256, 255),
        (-1, 255),
    ] {
        let fake = daemon(move |mut connection| async move { exit(&mut connection, status).await });
        assert_eq!(
            fake.agent(&["exec", "web", "true"]).status,
            code,
            "{status}"
        );
    }
}

#[test]
fn failure_of_the_daemon_is_reported() {
    let fake = daemon(async |mut connection| {
        let failure = Failure::new(
            Code::InvalidRequest,
            "no user is named 'kim' in agent 'web'",
        );
        send(
            &mut connection,
            FAILURE,
            &serde_json::to_vec(&failure).ok()?,
        )
        .await
    });
    assert_snapshot!(fake.agent(&["exec", "-u", "kim", "web", "true"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] no user is named 'kim' in agent 'web'
    ");
}

#[test]
fn lost_connection_is_a_failure() {
    let fake = daemon(async |mut connection| send(&mut connection, STDOUT, b"half\n").await);
    assert_snapshot!(fake.agent(&["exec", "web", "true"]).transcript(), @r"
    status: 8
    --- stdout
    half
    --- stderr
    [ERROR] lost the connection to innkeeperd before the command exited: early eof
            Hint: Check `systemctl status innkeeper`. The command may still run in the guest.
    ");
}

#[test]
fn mistyped_name_gets_a_suggestion() {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1)]))
            .route("/v1/guests/wbe/exec", fail(missing)),
    );
    let run = fake.agent(&["exec", "wbe", "--json", "--", "true"]);
    assert_eq!(run.status, 3);
    assert_eq!(run.failure().remedy.as_deref(), Some("Did you mean 'web'?"));
}

fn on_terminal(fake: &Fake, terminal: &File) -> Child {
    let mut command = fake.command("agent", &["exec", "-t", "web", "--", "sh"]);
    fake::attach(&mut command, terminal);
    command.spawn().expect("it starts")
}

/// Prints "ready", records every frame, and exits after a `q`.
fn until_q(frames: &Frames) -> Fake {
    let frames = Arc::clone(frames);
    daemon(move |mut connection| {
        let frames = Arc::clone(&frames);
        async move {
            send(&mut connection, STDOUT, b"ready").await?;
            loop {
                let (kind, body) = receive(&mut connection).await?;
                let ends = kind == STDIN && body.contains(&b'q');
                if kind == RESIZE {
                    send(&mut connection, STDOUT, b"resized").await?;
                }
                frames.lock().expect("unpoisoned").push((kind, body));
                if ends {
                    return exit(&mut connection, 3).await;
                }
            }
        }
    })
}

fn is_raw(terminal: &File) -> bool {
    let modes = tcgetattr(terminal).expect("a terminal").local_modes;
    !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

#[test]
fn terminal_is_raw_while_the_command_runs() {
    let frames = Frames::default();
    let fake = until_q(&frames);
    let (mut user_end, program_end) = terminal();
    let mut child = on_terminal(&fake, &program_end);
    read_until(&mut user_end, "ready");
    assert!(is_raw(&program_end));
    let size = Winsize {
        ws_row: 33,
        ws_col: 111,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&user_end, size).expect("another size");
    // The kernel signals the session of a terminal only; this terminal has no session.
    kill_process(Pid::from_child(&child), Signal::WINCH).expect("it runs");
    read_until(&mut user_end, "resized");
    user_end.write_all(b"\x03q").expect("typed");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert!(!is_raw(&program_end));
    let frames = frames.lock().expect("unpoisoned");
    assert!(
        frames.contains(&(RESIZE, vec![0, 33, 0, 111])),
        "{frames:?}"
    );
    let typed: Vec<u8> = frames
        .iter()
        .filter(|(kind, _)| *kind == STDIN)
        .flat_map(|(_, body)| body.clone())
        .collect();
    assert_eq!(typed, b"\x03q");
}

#[test]
fn terminal_mode_is_restored_after_signals() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let fake = until_q(&Frames::default());
        let (mut user_end, program_end) = terminal();
        let mut child = on_terminal(&fake, &program_end);
        read_until(&mut user_end, "ready");
        assert!(is_raw(&program_end));
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
        assert!(!is_raw(&program_end), "after {signal:?}");
    }
}
