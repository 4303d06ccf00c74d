//! The guest's side is the one of the shim, without the shim: it works on a directory of the test.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use innkeeper_copy::{
    Attributes, CopyError, Entry, Owner, ProcessDir, Receiver, Target, Totals, Writer, send,
};
use innkeeper_model::api::exec::{EXIT, STDERR, STDIN, STDOUT};
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::exec::{Connection, daemon, receive, send as send_frame};
use crate::fake::{self, Fake, Run, fail, respond};
use crate::samples::guest;
use crate::tls_front::{Authority, Front};

/// A directory of this machine and one of the guest.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().expect("a directory"));
        for name in ["here", "guest"] {
            fs::create_dir(scratch.path(name)).expect("created");
        }
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, content).expect(name);
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    /// Runs `agent cp` in the directory of this machine.
    fn cp(&self, fake: &Fake, arguments: &[&str]) -> Run {
        let mut command = fake.command("agent", &[&["cp"], arguments].concat());
        fake::run({
            command.current_dir(self.path("here"));
            command
        })
    }

    /// Returns a daemon whose guest receives files.
    fn receiving(&self, target: &str) -> Fake {
        let target = self.path("guest").join(target);
        daemon(move |connection| receive_files(connection, target.clone()))
    }

    /// Returns a daemon whose guest sends files.
    fn sending(&self, sources: &[&str]) -> Fake {
        let sources: Vec<_> = sources
            .iter()
            .map(|name| self.path("guest").join(name))
            .collect();
        daemon(move |mut connection| {
            let sources = sources.clone();
            async move {
                let mut stream = Vec::new();
                let sent = send::<ProcessDir>(&mut stream, &sources, &mut |_| {});
                for chunk in stream.chunks(10_000) {
                    send_frame(&mut connection, STDOUT, chunk).await?;
                }
                end(connection, sent).await
            }
        })
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

async fn receive_files(mut connection: Connection, target: PathBuf) -> Option<()> {
    let mut stream = Vec::new();
    loop {
        match receive(&mut connection).await? {
            (STDIN, body) if body.is_empty() => break,
            (STDIN, body) => stream.extend(body),
            (kind, _) => panic!("a frame of kind {kind}"),
        }
    }
    let received = Target::<ProcessDir>::resolve(&target, false)
        .and_then(|target| Receiver::new(target, Owner::Process).receive(stream.as_slice()));
    end(connection, received).await
}

async fn end(mut connection: Connection, result: Result<Totals, CopyError>) -> Option<()> {
    let status = match result {
        Ok(_) => 0,
        Err(error) => {
            let line = format!("innkeeper-shim: {error}\n");
            send_frame(&mut connection, STDERR, line.as_bytes()).await?;
            error.reason().status()
        }
    };
    send_frame(&mut connection, EXIT, &i32::from(status).to_be_bytes()).await
}

/// Returns a daemon whose guest sends this, then exits.
fn scripted(stream: Vec<u8>, messages: &'static str, status: i32) -> Fake {
    daemon(move |mut connection| {
        let stream = stream.clone();
        async move {
            send_frame(&mut connection, STDOUT, &stream).await?;
            send_frame(&mut connection, STDERR, messages.as_bytes()).await?;
            send_frame(&mut connection, EXIT, &status.to_be_bytes()).await
        }
    })
}

/// Returns the beginning of a stream: a file without its end.
fn begun(name: &str, content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = Writer::new(&mut stream).expect("begun");
    let entry = Entry::File(name.into(), Attributes::default());
    writer.entry(&entry).expect("written");
    writer.chunk(content).expect("written");
    stream
}

#[test]
fn tree_is_copied_to_the_guest_and_back() {
    let scratch = Scratch::new();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    scratch.write("here/tree/sub/large", &large);
    scratch.write("here/tree/empty", "");
    std::os::unix::fs::symlink("sub/large", scratch.path("here/tree/link")).expect("linked");
    let fake = scratch.receiving("");
    assert_eq!(scratch.cp(&fake, &["tree", "web:/srv"]).ok(), "");
    assert!(scratch.read("guest/tree/sub/large") == large);
    assert_snapshot!(fake.requests().join("\n"), @r#"POST /v1/guests/web/exec {"command":["/run/host/innkeeper/shim","copy-in","--","/srv"],"tty":false,"size":null,"environment":[],"user":null}"#);

    let fake = scratch.sending(&["tree"]);
    let run = scratch.cp(&fake, &["--json", "web:tree", "back"]);
    assert_snapshot!(run.ok(), @r#"{"files":2,"directories":2,"links":1,"bytes":3000000}"#);
    assert!(scratch.read("here/back/sub/large") == large);
    let link = fs::read_link(scratch.path("here/back/link")).expect("a link");
    assert_eq!(link, Path::new("sub/large"));
}

#[test]
fn several_sources_need_a_directory() {
    let scratch = Scratch::new();
    for name in ["here/a", "here/b", "guest/c", "guest/d"] {
        scratch.write(name, name);
    }
    let fake = scratch.receiving("");
    scratch.cp(&fake, &["-r", "a", "b", "web:"]).ok();
    assert_eq!(scratch.names("guest"), ["a", "b", "c", "d"]);
    assert!(fake.requests()[0].contains(r#""copy-in","--directory","--",".""#));

    let fake = scratch.sending(&["c", "d"]);
    scratch.cp(&fake, &["web:c", "web:/x/d", "."]).ok();
    assert_eq!(scratch.names("here"), ["a", "b", "c", "d"]);
    assert_snapshot!(scratch.cp(&fake, &["web:c", "web:d", "a"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] 'a' is not a directory
            Hint: Copy to another path, or move the file away.
    ");
    assert_eq!(fake.requests().len(), 1, "the guest is not woken for it");
}

#[test]
fn errors_of_this_machine_are_found_before_the_guest_is_woken() {
    let scratch = Scratch::new();
    let fake = scratch.receiving("");
    assert_snapshot!(scratch.cp(&fake, &["missing", "web:"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] cannot read 'missing': No such file or directory (os error 2)
            Hint: Check the path on this machine. `mkdir -p` creates a missing directory.
    ");
    assert_snapshot!(scratch.cp(&fake, &["web:a", "missing/b"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] cannot write to the directory 'missing': No such file or directory (os error 2)
            Hint: Check the path on this machine. `mkdir -p` creates a missing directory.
    ");
    assert_snapshot!(scratch.cp(&fake, &["a", "b"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] neither the sources nor the target are in a guest
            Hint: Write NAME:PATH for the side in the guest, such as web:/home/agent.
    ");
    assert_eq!(scratch.cp(&fake, &["UPPER:a", "b"]).status, 1);
    assert_eq!(fake.requests(), [""; 0]);
}

#[test]
fn errors_of_the_guest_have_remedies() {
    let scratch = Scratch::new();
    scratch.write("here/a", "a");
    let fake = scratch.sending(&["missing"]);
    assert_snapshot!(scratch.cp(&fake, &["web:missing", "."]).transcript().replace(&scratch.path("guest").display().to_string(), "/guest"), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] in agent 'web': cannot read '/guest/missing': No such file or directory (os error 2)
            Hint: `agent exec web -- ls -a DIRECTORY` shows the files of a directory.
    ");
    let fake = scratch.receiving("missing/a");
    assert_snapshot!(scratch.cp(&fake, &["a", "web:/missing/a"]).transcript().replace(&scratch.path("guest").display().to_string(), "/guest"), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] in agent 'web': cannot write to the directory '/guest/missing': No such file or directory (os error 2)
            Hint: Create the directory first: `agent exec web -- mkdir -p DIRECTORY`.
    ");
    let full = "innkeeper-shim: cannot write '/a': No space left on device (os error 28)\n";
    assert_snapshot!(scratch.cp(&scripted(Vec::new(), full, 13), &["a", "web:/a"]).transcript(), @r"
    status: 5
    --- stdout
    --- stderr
    [ERROR] in agent 'web': cannot write '/a': No space left on device (os error 28)
            Hint: Free space in the guest (`agent exec web -- df -h`), then copy again.
    ");
    let older = "innkeeper-shim: unknown verb 'copy-in'\n";
    assert_snapshot!(scratch.cp(&scripted(Vec::new(), older, 125), &["a", "web:/a"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] agent 'web' was started by an earlier version, whose guests cannot copy files
            Hint: Start it again: `agent stop web`, then `agent start web`.
    ");
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1)]))
            .route("/v1/guests/wbe/exec", fail(missing)),
    );
    assert_snapshot!(scratch.cp(&fake, &["a", "wbe:"]).transcript(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no guest is named 'wbe'
            Hint: Did you mean 'web'?
    ");
}

#[test]
fn guest_cannot_write_what_was_not_requested() {
    let scratch = Scratch::new();
    scratch.write("guest/.bashrc", "hostile");
    let run = scratch.cp(&scratch.sending(&[".bashrc"]), &["web:notes", "."]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("a file that was not requested"),
        "{run:?}"
    );
    let run = scratch.cp(
        &scripted(begun("../notes", b"x"), "", 0),
        &["web:../notes", "."],
    );
    assert!(run.stderr.contains("a name that is a path"), "{run:?}");
    assert!(scratch.names("here").is_empty());
    assert_eq!(scratch.names(""), ["guest", "here"]);
}

#[test]
fn incomplete_file_replaces_nothing() {
    let scratch = Scratch::new();
    scratch.write("here/notes", "complete");
    let half = begun("notes", b"half");
    // The guest's side fails, exits without an error, or is lost.
    let read = "innkeeper-shim: cannot read '/notes': Input/output error (os error 5)\n";
    let run = scratch.cp(&scripted(half.clone(), read, 1), &["web:/notes", "."]);
    assert!(
        run.stderr.contains("in agent 'web': cannot read '/notes'"),
        "{run:?}"
    );
    let run = scratch.cp(&scripted(half.clone(), "", 0), &["web:/notes", "."]);
    assert!(run.stderr.contains("the copy was interrupted"), "{run:?}");
    let lost = daemon(move |mut connection| {
        let half = half.clone();
        async move { send_frame(&mut connection, STDOUT, &half).await }
    });
    assert_eq!(scratch.cp(&lost, &["web:/notes", "."]).status, 8);
    assert_eq!(scratch.read("here/notes"), b"complete");
    assert_eq!(scratch.names("here"), ["notes"]);
}

#[test]
fn interrupt_leaves_no_incomplete_file() {
    let scratch = Scratch::new();
    scratch.write("here/notes", "complete");
    let begun = begun("notes", b"half");
    let fake = daemon(move |mut connection| {
        let begun = begun.clone();
        async move {
            send_frame(&mut connection, STDOUT, &begun).await?;
            // Until the client closes the connection.
            while receive(&mut connection).await.is_some() {}
            Some(())
        }
    });
    let mut command = fake.command("agent", &["cp", "web:/notes", "."]);
    command.current_dir(scratch.path("here"));
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("it starts");
    while scratch.names("here").len() < 2 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130);
    assert!(run.stderr.contains("The copy was interrupted."), "{run:?}");
    assert_eq!(scratch.read("here/notes"), b"complete");
    assert_eq!(scratch.names("here"), ["notes"]);
}

#[test]
fn interrupt_ends_the_stream_to_the_guest() {
    let scratch = Scratch::new();
    // Far more than all buffers hold.
    scratch.write("here/notes", "");
    let notes = fs::File::options()
        .write(true)
        .open(scratch.path("here/notes"));
    notes.expect("open").set_len(256 << 20).expect("a hole");
    let target = scratch.path("guest/notes");
    let (reached, reader) = std::sync::mpsc::channel();
    let (go, wait) = tokio::sync::watch::channel(false);
    let fake = daemon(move |mut connection| {
        let (target, reached, mut wait) = (target.clone(), reached.clone(), wait.clone());
        async move {
            receive(&mut connection).await?;
            reached.send(()).ok()?;
            wait.wait_for(|go| *go).await.ok()?;
            receive_files(connection, target).await
        }
    });
    let mut command = fake.command("agent", &["cp", "notes", "web:/notes"]);
    command.current_dir(scratch.path("here"));
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("it starts");
    reader.recv().expect("a first frame");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    go.send(true).expect("the daemon waits");
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130);
    assert!(scratch.names("guest").is_empty());
}

#[test]
fn files_are_copied_over_tls() {
    let Some(authority) = Authority::new("files_are_copied_over_tls") else {
        return;
    };
    let scratch = Scratch::new();
    scratch.write("here/notes", vec![b'x'; 1_000_000]);
    let fake = scratch.receiving("");
    let front = Front::of(&fake, Some(&authority));
    let mut command = front.command(Some(&authority), "agent", &["cp", "notes", "web:/"]);
    command.current_dir(scratch.path("here"));
    fake::run(command).ok();
    assert_eq!(scratch.read("guest/notes").len(), 1_000_000);
}
