//! The program as the daemon runs it. The tests of innkeeper-host cover it inside guests.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect(name)
    }

    /// Supervises a program until it exits, as a manager that sends `input` and exits.
    fn supervise(&self, input: &[u8], program: &[&str]) -> Output {
        self.supervise_with(&[], input, program)
    }

    /// The same with further options.
    fn supervise_with(&self, more: &[&str], input: &[u8], program: &[&str]) -> Output {
        let (log, exit) = (self.path("log"), self.path("exit"));
        let options = [
            "supervise",
            "--log",
            &log,
            "--log-limit",
            "10000",
            "--exit",
            &exit,
        ];
        let mut shim = shim();
        shim.args(options)
            .args(more)
            .arg("--")
            .args(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut shim = shim.spawn().expect("it runs");
        let mut stdin = shim.stdin.take().expect("an input");
        stdin.write_all(input).expect("sent");
        drop(stdin);
        shim.wait_with_output().expect("it ended")
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "no guest writes here")]
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate has no crate::command"
)]
fn shim() -> Command {
    let mut shim = Command::new(env!("CARGO_BIN_EXE_innkeeper-shim"));
    shim.stdin(Stdio::null());
    shim
}

/// The byte that starts the program.
const GO: &[u8] = &[1];

#[test]
fn a_program_does_not_start_without_the_managers_byte() {
    let scratch = Scratch::new("no-byte");
    let witness = scratch.path("witness");
    let output = scratch.supervise(b"", &["touch", &witness]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(scratch.read("exit"), "125\n");
    assert!(scratch.read("log").contains("the daemon exited"));
    assert!(!scratch.0.join("witness").exists());
}

#[test]
fn a_programs_output_and_exit_status_are_recorded() {
    let scratch = Scratch::new("kept");
    let output = scratch.supervise(GO, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(scratch.read("exit"), "3\n");
    assert_eq!(scratch.read("log"), "out\nerr\n");
    scratch.supervise(GO, &["sh", "-c", "kill -9 $$"]);
    assert_eq!(scratch.read("exit"), "137\n");
}

#[test]
fn a_program_that_cannot_run_is_logged() {
    let scratch = Scratch::new("missing");
    scratch.supervise(GO, &["/no/such/program"]);
    assert_eq!(scratch.read("exit"), "127\n");
    assert!(scratch.read("log").contains("/no/such/program"));
    scratch.supervise(GO, &["/"]);
    assert_eq!(scratch.read("exit"), "126\n");
}

#[test]
fn a_program_does_not_run_outside_of_its_cgroup() {
    let scratch = Scratch::new("outside");
    let (cgroup, witness) = (scratch.path("gone"), scratch.path("witness"));
    let status = shim()
        .args(["join", "--cgroup", &cgroup, "--", "touch", &witness])
        .status();
    assert_eq!(status.expect("it runs").code(), Some(125));
    let options = ["--guest-cgroup", &cgroup];
    scratch.supervise_with(&options, GO, &["touch", &witness]);
    assert_eq!(scratch.read("exit"), "125\n");
    assert!(scratch.read("log").contains(&cgroup));
    assert!(!scratch.0.join("witness").exists());
}

#[test]
fn the_door_stays_closed_until_the_byte_arrives() {
    let scratch = Scratch::new("door");
    let socket = scratch.path("socket");
    // No listener yet, and the first one closes its connection: as when the daemon is restarted.
    let mut door = shim();
    door.args(["door", &socket, "sh", "-c", "echo opened"])
        .stdout(Stdio::piped());
    let mut door = door.spawn().expect("it runs");
    let listener = UnixListener::bind(&socket).expect("a socket");
    drop(listener.accept().expect("a connection"));
    let (mut connection, _) = listener.accept().expect("another connection");
    connection.write_all(&[1]).expect("sent");
    let mut rest = String::new();
    connection
        .read_to_string(&mut rest)
        .expect("closed by exec");
    assert_eq!(rest, "");
    let mut printed = String::new();
    door.stdout
        .take()
        .expect("output")
        .read_to_string(&mut printed)
        .expect("read");
    assert_eq!(printed, "opened\n");
    assert!(door.wait().expect("it ended").success());
}

#[test]
fn a_system_of_the_guests_own_is_booted_by_the_closure() {
    use std::os::unix::fs::PermissionsExt;

    let scratch = Scratch::new("own");
    let socket = scratch.path("socket");
    let boot = scratch.0.join("closure/etc/innkeeper/boot-own");
    fs::create_dir_all(boot.parent().expect("a parent")).expect("made");
    fs::write(&boot, "#!/bin/sh\necho boots $1\n").expect("written");
    fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)).expect("executable");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut door = shim();
    door.args(["door", &socket, &scratch.path("closure/init")])
        .stdout(Stdio::piped());
    let mut door = door.spawn().expect("it runs");
    // A daemon that is killed while it sends the path has not opened the door.
    let (mut connection, _) = listener.accept().expect("a connection");
    connection.write_all(b"\x03/nix/store/").expect("sent");
    drop(connection);
    let (mut connection, _) = listener.accept().expect("another connection");
    connection
        .write_all(b"\x03/nix/store/own\n\x01")
        .expect("sent");
    let mut printed = String::new();
    let mut output = door.stdout.take().expect("output");
    output.read_to_string(&mut printed).expect("read");
    assert_eq!(printed, "boots /nix/store/own\n");
    assert!(door.wait().expect("it ended").success());
}

#[test]
fn an_init_that_cannot_be_executed_is_reported_to_the_manager() {
    let scratch = Scratch::new("init");
    let socket = scratch.path("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut door = shim();
    door.args(["door", &socket, "/no/such/init"])
        .stderr(Stdio::null());
    let mut door = door.spawn().expect("it runs");
    let (mut connection, _) = listener.accept().expect("a connection");
    connection.write_all(&[1]).expect("sent");
    let mut message = String::new();
    connection.read_to_string(&mut message).expect("a message");
    assert!(
        message.contains("cannot execute /no/such/init"),
        "{message}"
    );
    assert_eq!(door.wait().expect("it ended").code(), Some(127));
}

/// A filter that allows every call: one instruction, `return SECCOMP_RET_ALLOW`.
fn filters() -> Vec<u8> {
    let mut instruction = 6u16.to_ne_bytes().to_vec();
    instruction.extend([0, 0]);
    instruction.extend(0x7fff_0000u32.to_ne_bytes());
    [&1u32.to_le_bytes()[..], &1u32.to_le_bytes(), &instruction].concat()
}

/// The daemon's message that opens a door with filters.
fn opening(list: &[u8]) -> Vec<u8> {
    let length = u32::try_from(list.len()).expect("short").to_le_bytes();
    [&[2][..], &length, list].concat()
}

/// Sends each message on a connection of its own to a door that requires filters; returns its answer to the last one, its
/// output and its status.
fn opened(test: &str, messages: &[&[u8]]) -> (String, String, Option<i32>) {
    let scratch = Scratch::new(test);
    let socket = scratch.path("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut door = shim();
    door.args(["door", "--filters", &socket, "sh", "-c"])
        .arg("grep -E '^(NoNewPrivs|Seccomp)' /proc/self/status")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let door = door.spawn().expect("it runs");
    let mut answer = String::new();
    for message in messages {
        let (mut connection, _) = listener.accept().expect("a connection");
        connection.write_all(message).expect("sent");
        answer.clear();
        if message == messages.last().expect("one") {
            connection.read_to_string(&mut answer).expect("closed");
        }
    }
    let output = door.wait_with_output().expect("it ended");
    let printed = String::from_utf8(output.stdout).expect("text");
    (answer, printed, output.status.code())
}

#[test]
fn init_runs_with_the_filters_and_can_gain_privileges() {
    let before = fs::read_to_string("/proc/self/status").expect("a status");
    let count = |status: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.expect("a field")
            .trim()
            .parse::<u32>()
            .expect("a number")
    };
    let whole = opening(&filters());
    // The first daemon is killed while it sends the filters.
    let (answer, printed, status) = opened("filters", &[&whole[..9], &whole]);
    if answer.contains("Operation not permitted") || answer.contains("Permission denied") {
        eprintln!(
            "INNKEEPER-NOT-RUN: init_runs_with_the_filters_and_can_gain_privileges: not root"
        );
        return;
    }
    assert_eq!((answer.as_str(), status), ("", Some(0)));
    assert!(
        printed.contains("NoNewPrivs:\t0") && printed.contains("Seccomp:\t2"),
        "{printed}"
    );
    assert_eq!(count(&printed), count(&before) + 1);
}

#[test]
fn init_does_not_run_without_the_filters() {
    let mut damaged = filters();
    damaged.pop();
    let mut rejected = filters();
    rejected[8..].fill(0xff);
    for (test, message) in [
        ("older-daemon", vec![1]),
        ("damaged", opening(&damaged)),
        ("rejected", opening(&rejected)),
        ("no-filters", opening(&0u32.to_le_bytes())),
        ("too-long", [&[2][..], &[0xff; 4]].concat()),
    ] {
        let (answer, printed, status) = opened(test, &[&message]);
        assert!(answer.starts_with('\u{1}'), "{test}: {answer}");
        assert_eq!((printed.as_str(), status), ("", Some(125)), "{test}");
    }
}
