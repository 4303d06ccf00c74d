//! The program as the daemon runs it. What it does inside guests, the tests of innkeeper-host show.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory that is gone when the test ends.
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

    /// Has a program supervised to its end, as a manager that says `word` and goes.
    fn supervise(&self, word: &[u8], program: &[&str]) -> Output {
        let (log, exit) = (self.path("log"), self.path("exit"));
        let options = [
            "supervise",
            "--log",
            &log,
            "--log-limit",
            "10000",
            "--exit",
            &exit,
            "--",
        ];
        let mut shim = shim();
        shim.args(options)
            .args(program)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut shim = shim.spawn().expect("it runs");
        let mut stdin = shim.stdin.take().expect("an input");
        stdin.write_all(word).expect("sent");
        drop(stdin);
        shim.wait_with_output().expect("it ended")
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "no guest wrote here")]
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no crate::command here")]
fn shim() -> Command {
    let mut shim = Command::new(env!("CARGO_BIN_EXE_innkeeper-shim"));
    shim.stdin(Stdio::null());
    shim
}

/// What lets the program start.
const GO: &[u8] = &[1];

#[test]
fn nothing_starts_when_the_manager_ends_before_it_says_so() {
    let scratch = Scratch::new("unsaid");
    let witness = scratch.path("witness");
    let output = scratch.supervise(b"", &["touch", &witness]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(scratch.read("exit"), "125\n");
    assert!(scratch.read("log").contains("the manager ended"));
    assert!(!scratch.0.join("witness").exists());
}

#[test]
fn a_programs_output_and_end_are_kept() {
    let scratch = Scratch::new("kept");
    let output = scratch.supervise(GO, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(scratch.read("exit"), "3\n");
    assert_eq!(scratch.read("log"), "out\nerr\n");
    scratch.supervise(GO, &["sh", "-c", "kill -9 $$"]);
    assert_eq!(scratch.read("exit"), "137\n");
}

#[test]
fn a_program_that_cannot_run_is_complained_about_in_the_log() {
    let scratch = Scratch::new("missing");
    scratch.supervise(GO, &["/no/such/program"]);
    assert_eq!(scratch.read("exit"), "127\n");
    assert!(scratch.read("log").contains("/no/such/program"));
    scratch.supervise(GO, &["/"]);
    assert_eq!(scratch.read("exit"), "126\n");
}

#[test]
fn nothing_runs_outside_of_its_cgroup() {
    let scratch = Scratch::new("outside");
    let (cgroup, witness) = (scratch.path("gone"), scratch.path("witness"));
    let status = shim()
        .args(["join", "--cgroup", &cgroup, "--", "touch", &witness])
        .status();
    assert_eq!(status.expect("it runs").code(), Some(125));
    assert!(!scratch.0.join("witness").exists());
}

#[test]
fn the_door_stays_closed_until_the_byte_comes() {
    let scratch = Scratch::new("door");
    let socket = scratch.path("socket");
    // Nobody listens yet, and the first who does goes away again: as when the daemon is restarted.
    let mut door = shim();
    door.args(["door", &socket, "sh", "-c", "echo opened"])
        .stdout(Stdio::piped());
    let mut door = door.spawn().expect("it runs");
    let listener = UnixListener::bind(&socket).expect("a socket");
    drop(listener.accept().expect("a knock"));
    let (mut connection, _) = listener.accept().expect("another knock");
    connection.write_all(&[1]).expect("sent");
    let mut rest = String::new();
    connection
        .read_to_string(&mut rest)
        .expect("closed by exec");
    assert_eq!(rest, "");
    let mut said = String::new();
    door.stdout
        .take()
        .expect("output")
        .read_to_string(&mut said)
        .expect("read");
    assert_eq!(said, "opened\n");
    assert!(door.wait().expect("it ended").success());
}

#[test]
fn an_init_that_cannot_be_executed_is_told_to_the_manager() {
    let scratch = Scratch::new("init");
    let socket = scratch.path("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut door = shim();
    door.args(["door", &socket, "/no/such/init"])
        .stderr(Stdio::null());
    let mut door = door.spawn().expect("it runs");
    let (mut connection, _) = listener.accept().expect("a knock");
    connection.write_all(&[1]).expect("sent");
    let mut complaint = String::new();
    connection
        .read_to_string(&mut complaint)
        .expect("a complaint");
    assert!(
        complaint.contains("cannot execute /no/such/init"),
        "{complaint}"
    );
    assert_eq!(door.wait().expect("it ended").code(), Some(127));
}
