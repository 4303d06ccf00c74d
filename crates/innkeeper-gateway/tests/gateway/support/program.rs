//! The program, without privileges.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{SECRET, command};

/// Timeout for a notification of the program.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// The user and the group `nobody`.
const NOBODY: u32 = 65_534;

/// A running program, which is killed on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
    /// The socket for Caddy's requests about visitors.
    pub(crate) access: PathBuf,
    /// The address of the metrics.
    pub(crate) metrics: String,
    manager: UnixDatagram,
}

/// Returns a command that runs the program as `nobody`, without a way to gain privileges.
pub(crate) fn without_rights(directory: &Path) -> Command {
    // The build's directory may be inaccessible for `nobody`.
    let program = directory.join("innkeeper-gateway");
    // By a program: another thread can fork while a copy by this process is open for writing, and then it cannot run.
    let built = env!("CARGO_BIN_EXE_innkeeper-gateway");
    let copied = command("cp").arg(built).arg(&program).status();
    assert!(copied.expect("runs").success());
    let mut command = command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(program);
    command
}

/// Writes a configuration, and the file of tokens. `settings` are further lines of `[gateway]`.
pub(crate) fn configure(directory: &Path, settings: &str) -> PathBuf {
    let own = directory.join("own");
    if !own.exists() {
        std::fs::create_dir(&own).expect("makes");
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
    let tokens = directory.join("tokens.env");
    if !tokens.exists() {
        std::fs::write(&tokens, format!("INNKEEPER_API_TOKENS=ci:{SECRET}\n")).expect("writes");
    }
    let config = directory.join("config.toml");
    let text = format!(
        "runtime_dir = '{}'\n[log]\nlevel = 'warn'\n[gateway]\nenabled = true\nsocket = '{}'\nsocket_group = 'nogroup'\n\
         access_socket = '{}'\nstate_dir = '{}'\nhost = 'api.example.org'\ntokens_file = '{}'\nmetrics_listen = '127.0.0.1:0'\n{settings}\n",
        directory.display(),
        own.join("http.sock").display(),
        own.join("access.sock").display(),
        own.display(),
        tokens.display(),
    );
    std::fs::write(&config, text).expect("writes");
    config
}

impl Program {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "")
    }

    /// Starts the program, and waits until it is ready.
    pub(crate) fn start_with(directory: &Path, settings: &str) -> Self {
        let config = configure(directory, settings);
        let mut command = without_rights(directory);
        command.arg("--config").arg(config);
        let path = directory.join("notify.sock");
        drop(std::fs::remove_file(&path));
        let manager = UnixDatagram::bind(&path).expect("listens");
        manager
            .set_read_timeout(Some(NOTIFY_TIMEOUT))
            .expect("socket option");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, everybody).expect("permissions");
        let child = command
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let mut program = Self {
            child,
            socket: directory.join("own/http.sock"),
            access: directory.join("own/access.sock"),
            metrics: String::new(),
            manager,
        };
        program.metrics = program.wait_for("X_INNKEEPER_LISTEN=");
        program
    }

    /// Waits for a notification with this prefix, and returns the rest of the line.
    pub(crate) fn wait_for(&self, prefix: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.manager.recv(&mut buffer).expect("a notification");
            let text = String::from_utf8_lossy(&buffer[..length]);
            if let Some(rest) = text.lines().find_map(|line| line.strip_prefix(prefix)) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("signals");
    }

    /// Waits for the program's end. Reports whether it was a success.
    pub(crate) async fn ended(mut self) -> bool {
        let ended = tokio::task::spawn_blocking(move || self.child.wait().expect("ends"));
        ended.await.expect("joins").success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
