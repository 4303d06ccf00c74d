//! A sandbox for one test: network namespace, directories and configuration.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::fixtures::nix_options;
use super::traces::Traces;

/// The variable for the retention of destroyed agents' files.
pub(crate) const RETENTION: &str = "INNKEEPER_GUEST_RETENTION_SECONDS";

/// A sandbox for one test. Programs that the test's thread starts run in it.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
    /// The registry of daemons.
    daemons: PathBuf,
    /// Unique on the machine: the name of the cgroup and the prefix of machine names.
    pub(crate) id: String,
    extra_config: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("needs root");
        // Mounts must not propagate to the host.
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private");
        run("ip", &["link", "set", "lo", "up"]);
        let dir = temporary_directory();
        Self {
            daemons: dir.path().join("daemons"),
            dir,
            id: unique_id(),
            extra_config: String::new(),
        }
    }

    /// Creates a second sandbox on the same host: in the same network, with the same registry of daemons.
    pub(crate) fn beside(first: &Self) -> Self {
        Self {
            dir: temporary_directory(),
            daemons: first.daemons.clone(),
            id: unique_id(),
            extra_config: String::new(),
        }
    }

    /// Adds lines to the configuration. A section that is there already must not be repeated.
    pub(crate) fn configure(&mut self, toml: &str) {
        self.extra_config.push_str(toml);
        self.extra_config.push('\n');
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.path().join("run/api.sock"))
    }

    /// Lists the objects on the machine that this sandbox could leak.
    pub(crate) fn traces(&self) -> Traces {
        Traces::of(self)
    }

    pub(crate) fn config(&self) -> PathBuf {
        let mut text = format!(
            "state_dir = '{root}/state'\nruntime_dir = '{root}/run'\ndaemons_dir = '{daemons}'\n\
             [supervisor]\nkind = 'direct'\ncgroup = '{id}'\nmachine_prefix = '{id}-'\n\
             [credentials]\ndirectory = '{root}/credentials'\n\
             [legacy]\ndirectories = ['{root}/legacy']\n\
             [nix]\ngcroots_dir = '{root}/gcroots'\n",
            root = self.path().display(),
            daemons = self.daemons.display(),
            id = self.id,
        );
        let options: Vec<_> = nix_options()
            .iter()
            .map(|(name, value)| format!("{name} = '{value}'"))
            .collect();
        writeln!(text, "options = {{ {} }}", options.join(", ")).expect("a string");
        text.push_str(&self.extra_config);
        let file = self.path().join("config.toml");
        fs::write(&file, text).expect("written");
        file
    }

    /// Starts a daemon and waits until it responds.
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Daemon {
        self.wait_until_ready(self.spawn(variables))
    }

    /// Starts a daemon from a shell after these commands, and waits until it responds.
    pub(crate) fn start_after(&self, commands: &str) -> Daemon {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{commands}; exec \"$@\""), "sh"])
            .arg(env!("CARGO_BIN_EXE_innkeeperd"));
        self.wait_until_ready(self.run_daemon(shell))
    }

    fn wait_until_ready(&self, mut daemon: Daemon) -> Daemon {
        wait_until("the daemon responds", || {
            if let Some(status) = daemon.child.try_wait().expect("waited") {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            self.client().try_call("GET", "/v1/status", "").is_ok()
        });
        daemon
    }

    /// Starts a daemon and does not wait for it.
    pub(crate) fn spawn(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeperd"));
        // Variables of the test run must not override settings.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"INNKEEPER_") {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        self.run_daemon(command)
    }

    fn run_daemon(&self, mut command: Command) -> Daemon {
        // No retention of destroyed agents' files, unless a test sets it.
        if command.get_envs().all(|(name, _)| name != RETENTION) {
            command.env(RETENTION, "0");
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join("log"))
            .expect("log");
        let child = command
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("innkeeperd starts");
        Daemon { child }
    }

    /// Returns the log of all daemons of this sandbox.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Starts a client program with the sandbox's daemon and pipes.
    pub(crate) fn spawn_program(&self, name: &str, arguments: &[&str]) -> Child {
        let program = Path::new(env!("CARGO_BIN_EXE_innkeeperd")).with_file_name(name);
        assert!(
            program.exists(),
            "{} is not built: cargo build --workspace",
            program.display()
        );
        Command::new(program)
            .args(arguments)
            .env("INNKEEPER_SOCKET", self.path().join("run/api.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts")
    }

    /// Runs a client program until it exits, with the sandbox's daemon.
    pub(crate) fn program(&self, name: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn_program(name, arguments);
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input)
            .expect("written");
        child.wait_with_output().expect("ended")
    }

    /// Runs a program until it exits, in the sandbox's network.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(program, arguments)
    }
}

fn temporary_directory() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("innkeeper-").tempdir().expect("tempdir")
}

/// Returns a name that no other sandbox has. A process id would be one of a former run's, whose cgroups may be left.
fn unique_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    static STARTED: LazyLock<u128> = LazyLock::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        since_1970.expect("a clock").as_nanos() % (1 << 44)
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{:x}x{count}", *STARTED)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the daemon's log ----\n{}", self.log());
        }
        // A failed test must not leak guests.
        self.traces().kill_everything();
        super::traces::remove_cgroups(Path::new("/sys/fs/cgroup"), &self.id, 2);
    }
}

/// A running daemon. It is killed on drop; its guests are not.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Sends SIGTERM and waits for a successful exit.
    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("sent");
        let status = self.child.wait().expect("reaped");
        assert!(status.success(), "the daemon ended with {status}");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_some()
    }

    /// Waits until it exits.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_until("the daemon ends", || {
            status = self.child.try_wait().expect("asked");
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a condition, and fails the test after a timeout.
pub(crate) fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "timeout: waited until {description}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
