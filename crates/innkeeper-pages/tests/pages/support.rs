//! The running program, and requests as Caddy sends them.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Timeout for the program's notification and for responses.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running program on a directory of its own, killed on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    directory: tempfile::TempDir,
}

impl Program {
    /// Starts the program as the user `nobody`. `settings` are further lines of `[pages]`.
    pub(crate) fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path();
        allow(place, 0o777);
        let statuses = place.join("statuses");
        std::fs::create_dir(&statuses).expect("a directory");
        allow(&statuses, 0o755);
        let config = place.join("config.toml");
        let text = format!(
            "state_dir = '/nowhere'\nruntime_dir = '{}'\n[log]\nlevel = 'warn'\n[pages]\ndirectory = '{}'\nsocket = '{}'\n{settings}",
            place.display(),
            statuses.display(),
            place.join("pages.sock").display(),
        );
        std::fs::write(&config, text).expect("written");
        allow(&config, 0o644);
        let notifications = place.join("notify.sock");
        let manager = UnixDatagram::bind(&notifications).expect("listens");
        manager.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        allow(&notifications, 0o666);
        // The build's directory may be inaccessible for `nobody`.
        let program = place.join("innkeeper-pages");
        // By a program: another thread can fork while a copy by this process is open for writing, and then it cannot run.
        let copied = command("cp")
            .arg(env!("CARGO_BIN_EXE_innkeeper-pages"))
            .arg(&program)
            .status();
        assert!(copied.expect("runs").success());
        let child = command("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
            .arg(&program)
            .arg("--config")
            .arg(config)
            .env("NOTIFY_SOCKET", &notifications)
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let program = Self { child, directory };
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).expect("a notification");
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                return program;
            }
        }
    }

    /// Replaces the status of a preview, as the daemon does.
    pub(crate) fn put(&self, slug: &str, status: &str) {
        let statuses = self.directory.path().join("statuses");
        let temporary = statuses.join(".new");
        std::fs::write(&temporary, status).expect("written");
        allow(&temporary, 0o644);
        std::fs::rename(&temporary, statuses.join(format!("{slug}.json"))).expect("renamed");
    }

    /// Removes the status of a preview.
    pub(crate) fn remove(&self, slug: &str) {
        let path = self.directory.path().join(format!("statuses/{slug}.json"));
        std::fs::remove_file(path).expect("removed");
    }

    /// Opens the daemon's socket for wakes.
    pub(crate) fn daemon(&self) -> UnixDatagram {
        let path = self.directory.path().join("wake.sock");
        let socket = UnixDatagram::bind(&path).expect("listens");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        allow(&path, 0o666);
        socket
    }

    /// Sends a request and returns the connection.
    pub(crate) fn send(&self, path: &str, headers: &[&str]) -> UnixStream {
        let socket = self.directory.path().join("pages.sock");
        let mut stream = UnixStream::connect(socket).expect("connected");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut request =
            format!("GET {path} HTTP/1.1\r\nHost: web-7.example.org\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    /// Returns the whole response to a request.
    pub(crate) fn get(&self, path: &str, headers: &[&str]) -> Response {
        let mut text = String::new();
        self.send(path, headers)
            .read_to_string(&mut text)
            .expect("a response");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        Response {
            status: head[9..12].parse().expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill_process(Pid::from_raw(id).expect("a process id"), Signal::TERM).expect("signaled");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A response. The head is in lower case.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        values.next()
    }
}

/// Reads from a stream until a text appears, and returns everything read.
pub(crate) fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).expect("no timeout");
        seen.extend_from_slice(&piece[..length]);
        let shown = String::from_utf8_lossy(&seen);
        if shown.contains(text) {
            return shown.into_owned();
        }
        assert!(length > 0, "the stream ended without {text:?}: {shown}");
    }
}

/// Returns the slug in the next datagram.
pub(crate) fn asked(daemon: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = daemon.recv(&mut buffer).expect("a datagram");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Returns the status of a preview that is asleep. `wake` is the wake, as JSON.
pub(crate) fn asleep(wake: &str) -> String {
    status("live", &[]).replacen(
        "{",
        &format!(r#"{{"interruption":"asleep","wake":{wake},"#),
        1,
    )
}

/// Returns a status in a state, with one line of the log for each text.
pub(crate) fn status(state: &str, lines: &[&str]) -> String {
    let log: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(number, text)| {
            format!(
                r#"{{"number":{},"at":"2026-11-20T10:00:00Z","text":"{text}"}}"#,
                number + 1
            )
        })
        .collect();
    format!(
        r#"{{"slug":"web-7","state":"{state}","since":"2026-11-20T10:00:00Z","started_at":"2026-11-20T10:00:00Z",
            "details":{{"repo":"octo/web","web_url":"https://github.com","branch":"main","head_repo":"octo/web",
            "commit":"1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a","log":[{}]}}}}"#,
        log.join(",")
    )
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
}

/// Tests start programs directly.
#[expect(
    clippy::disallowed_methods,
    reason = "the rule is for the daemon's programs"
)]
fn command(program: &str) -> Command {
    Command::new(PathBuf::from(program))
}
