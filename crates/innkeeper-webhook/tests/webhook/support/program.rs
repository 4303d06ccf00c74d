//! The program, without privileges.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::payload::SECRET;
use super::{NOBODY, command};

/// Timeout for a notification of the program.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running program, which is killed on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    manager: UnixDatagram,
}

/// Returns a command that runs the program without privileges.
pub(crate) fn without_rights(directory: &Path) -> Command {
    built_without_rights(directory, &super::program_file())
}

/// As [`without_rights`], for a program built elsewhere. It runs as `nobody` and cannot gain privileges.
pub(crate) fn built_without_rights(directory: &Path, built: &Path) -> Command {
    // The build's directory may be inaccessible for `nobody`.
    let program = directory.join("innkeeper-webhook");
    // By a program: another thread can fork while a copy by this process is open for writing, and then it cannot run.
    let copied = command("cp").arg(built).arg(&program).status();
    assert!(copied.expect("runs").success());
    let mut command = command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(program);
    command
}

/// Writes a file that only the user `nobody` may read.
pub(crate) fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writes");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).expect("permissions");
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
}

/// Writes a configuration for a directory with an intake. `settings` are further lines of `[webhook]`.
pub(crate) fn configure(directory: &Path, settings: &str) -> PathBuf {
    let config = directory.join("config.toml");
    let secret = directory.join("secret");
    write_secret(&secret, SECRET);
    let text = format!(
        "runtime_dir = '{}'\n[log]\nlevel = 'warn'\n[webhook]\nlisten = '127.0.0.1:0'\nallowed_repos = []\nsecret_files = ['{}']\n{settings}",
        directory.display(),
        secret.display()
    );
    std::fs::write(&config, text).expect("writes");
    config
}

impl Program {
    /// Starts the program on a free port, with the intake of this directory.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "")
    }

    pub(crate) fn start_with(directory: &Path, settings: &str) -> Self {
        let config = configure(directory, settings);
        let mut command = without_rights(directory);
        command.arg("--config").arg(config);
        Self::run(directory, command)
    }

    /// Runs a command that executes the program, and waits until it is ready.
    pub(crate) fn run(directory: &Path, mut command: Command) -> Self {
        let path = directory.join("notify.sock");
        let manager = UnixDatagram::bind(&path).expect("listens");
        manager
            .set_read_timeout(Some(NOTIFY_TIMEOUT))
            .expect("socket option");
        let everybody = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&path, everybody).expect("permissions");
        let child = command
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let mut program = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            manager,
        };
        program.address = program
            .wait_for("X_INNKEEPER_LISTEN=")
            .parse()
            .expect("an address");
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
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
