//! Runs Nix: its output, progress and last log lines.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use innkeeper_facilities::Effort;
use innkeeper_model::{BuildProgress, StorePath};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::ClosureError;
use super::cause::Cause;
use super::log::Log;
use super::singleflight::REPORT_INTERVAL;
use crate::CommandError;
use crate::command::{command, start_error};

/// Paths, settings and the unprivileged user of Nix.
#[derive(Clone, Debug)]
pub struct NixConfig {
    /// The program `nix`: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Directory of the guests' GC roots, `/nix/var/nix/gcroots/innkeeper`.
    pub gcroots: PathBuf,
    /// Nix's state directory, `/nix/var/nix`.
    pub state: PathBuf,
    /// Directory of the links to builds, `<state>/closures`.
    pub links: PathBuf,
    /// Nix settings for every call, as `--option <name> <value>`. Must not contain access tokens, which belong into Nix's own
    /// configuration: all users of the host can see arguments.
    pub options: BTreeMap<String, String>,
    /// The user that fetches and evaluates flakes for callers who are not root: a name or a UID. It owns no files.
    pub user: String,
    /// Socket of the Nix daemon, through which that user accesses the store.
    pub daemon_socket: PathBuf,
}

impl NixConfig {
    /// Returns the state directory of the host's Nix.
    #[must_use]
    pub fn default_state() -> PathBuf {
        std::env::var_os("NIX_STATE_DIR").map_or_else(|| "/nix/var/nix".into(), PathBuf::from)
    }

    /// Returns the socket of the host's Nix daemon.
    #[must_use]
    pub fn default_daemon_socket() -> PathBuf {
        std::env::var_os("NIX_DAEMON_SOCKET_PATH")
            .map_or_else(|| "/nix/var/nix/daemon-socket/socket".into(), PathBuf::from)
    }
}

/// A failed call of Nix.
#[derive(Debug)]
pub(crate) enum NixError {
    /// Nix cannot be started.
    Run(CommandError),
    /// Nix exited with an error.
    Failed {
        /// Its last error in one line.
        summary: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// The party at fault.
        cause: Cause,
    },
}

/// Makes Nix flush new store paths to disk before it registers them in its database. Nix 2.26 supports this, 2.8 does not.
/// Otherwise a power loss can leave registered but empty paths, which Nix would not build again.
pub(crate) const DURABLE: [&str; 3] = ["--option", "fsync-store-paths", "true"];

/// Maximum length of a line, in bytes. Longer lines are split.
const LINE_LIMIT: u64 = 1 << 20;

/// Number of lines to read before yielding to other tasks.
const LINES_PER_YIELD: u32 = 64;

/// Script that runs and ends Nix. Its head documents the arguments.
const SUPERVISOR: &str = include_str!("supervise.sh");

/// Index of the program among the supervisor's arguments.
const PROGRAM_ARGUMENT: usize = 7;

/// Grace period for Nix to end its builders before it is killed.
const GRACE: Duration = Duration::from_secs(5);

impl NixConfig {
    /// Checks that Nix's database lists a store path.
    pub(super) async fn require_valid(&self, closure: &StorePath) -> Result<(), ClosureError> {
        let program = sibling(&self.program, "nix-store");
        let arguments = ["--check-validity", "--print-invalid", closure.as_str()];
        match crate::command::run(program, arguments, b"").await {
            Ok(invalid) if invalid.is_empty() => Ok(()),
            Ok(_) => Err(ClosureError::Unregistered(closure.clone())),
            Err(source) => Err(ClosureError::Query {
                closure: closure.clone(),
                source,
            }),
        }
    }

    /// Runs `nix <arguments>` and returns its output. Dropping the future ends Nix and its builders.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        effort: Effort,
        arguments: &[A],
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<u8>, NixError> {
        let mut command = supervised_in(&Cgroups::default(), effort, &self.program);
        command.args(arguments);
        self.at(effort).run_supervised(command, report).await
    }

    /// Returns the settings for an effort. Builders of a Nix daemon have its priority, so their processors are limited, too.
    pub(crate) fn at(&self, effort: Effort) -> Self {
        let mut config = self.clone();
        if effort == Effort::Background {
            config.options.insert("cores".to_owned(), "1".to_owned());
        }
        config
    }

    /// Runs one of Nix's programs, given as a [`supervised`] command, with the configured settings. Returns its output.
    /// Dropping the future ends it and its builders.
    pub(crate) async fn run_supervised(
        &self,
        mut command: Command,
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<u8>, NixError> {
        command.args(self.settings());
        if std::env::var_os("HOME").is_none_or(|home| home.is_empty()) {
            // Nix keeps its caches there and does not run without it.
            command.env("HOME", self.links.with_file_name("nix-home"));
        }
        follow(command, report).await
    }

    /// Returns the settings as arguments, which all of Nix's programs accept.
    fn settings(&self) -> Vec<OsString> {
        let mut settings: Vec<OsString> = [
            "--extra-experimental-features",
            "nix-command flakes",
            "--log-format",
            "internal-json",
        ]
        .map(Into::into)
        .into();
        settings.extend(DURABLE.map(Into::into));
        for (name, value) in &self.options {
            settings.extend(["--option", name, value].map(Into::into));
        }
        settings
    }
}

/// The cgroups of a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups {
    /// Cgroups with limits, one per hierarchy.
    pub(crate) limits: Vec<PathBuf>,
    /// The cgroup v2 parent of the program's own cgroup. The daemon's cgroup if `None`.
    pub(crate) unified: Option<PathBuf>,
}

/// Returns a command that runs a program and kills all its descendants when the program ends, when the handle is dropped,
/// or when the daemon dies. With cgroup v2, the program has its own cgroup, which no process can leave; elsewhere only the
/// program itself is killed. For [`follow`] only.
pub(crate) fn supervised(program: impl AsRef<OsStr>) -> Command {
    supervised_in(&Cgroups::default(), Effort::Normal, program)
}

/// Returns a [`supervised`] command with a priority, in cgroups with limits. The program does not run if it cannot join them.
pub(crate) fn supervised_in(
    cgroups: &Cgroups,
    effort: Effort,
    program: impl AsRef<OsStr>,
) -> Command {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let limits: Vec<_> = cgroups.limits.iter().map(|path| path.as_os_str()).collect();
    let cgroup = cgroups
        .unified
        .clone()
        .or_else(own_cgroup)
        .map(|own| own.join(format!("innkeeper-build-{}-{number}", std::process::id())))
        .unwrap_or_default();
    let mut command = command("/bin/sh");
    command
        .args(["-c", SUPERVISOR, "innkeeper-build"])
        .arg(cgroup)
        .arg(GRACE.as_secs().to_string())
        .arg(limits.join(OsStr::new("\n")))
        .arg(match effort {
            Effort::Normal => "0",
            Effort::Background => "19",
        })
        .arg(program);
    command
}

/// Returns the v2 cgroup of this process, if the hierarchy is mounted.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let mount = fields.next()?;
        (fields.next()? == "cgroup2").then_some(mount)
    })?;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(own))
}

/// Checks that the program is installed, for a better error than the shell's.
fn require_program(command: &Command) -> Result<(), CommandError> {
    let Some(program) = command.as_std().get_args().nth(PROGRAM_ARGUMENT) else {
        return Ok(());
    };
    let path = Path::new(program);
    let exists = if path.components().count() > 1 {
        path.exists()
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(path).exists())
    };
    if exists {
        return Ok(());
    }
    Err(CommandError::Missing {
        program: program.to_string_lossy().into_owned(),
    })
}

/// Runs a [`supervised`] program of Nix that logs JSON, and returns its output. Dropping the future kills it and all its
/// descendants.
pub(crate) async fn follow(
    mut command: Command,
    report: impl Fn(BuildProgress),
) -> Result<Vec<u8>, NixError> {
    require_program(&command).map_err(NixError::Run)?;
    let program = command.as_std().get_program().to_owned();
    let failed = |source| NixError::Run(start_error(&program, source));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut nix = Running {
        keepalive: child.stdin.take(),
        child: Some(child),
    };
    let (log, stdout, status) = nix.finish(report).await.map_err(failed)?;
    if status.success() {
        return Ok(stdout);
    }
    let cause = log.cause(status);
    let (summary, log) = log.into_failure();
    Err(NixError::Failed {
        summary,
        log,
        cause,
    })
}

/// Returns the path of another program of Nix, in the same folder.
pub(crate) fn sibling(nix: &Path, name: &str) -> PathBuf {
    match nix.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.join(name),
        _ => name.into(),
    }
}

/// A Nix that may still run.
struct Running {
    child: Option<Child>,
    /// Pipe to the supervisor, which ends Nix when the pipe closes.
    keepalive: Option<ChildStdin>,
}

impl Running {
    /// Reads all output and waits for Nix to exit. Reports the progress at most once per [`REPORT_INTERVAL`].
    async fn finish(
        &mut self,
        report: impl Fn(BuildProgress),
    ) -> io::Result<(Log, Vec<u8>, ExitStatus)> {
        let no_pipe = || io::Error::other("its output is not a pipe");
        let child = self.child.as_mut().ok_or_else(no_pipe)?;
        let mut stdout = child.stdout.take().ok_or_else(no_pipe)?;
        let stderr = child.stderr.take().ok_or_else(no_pipe)?;
        let mut output = Vec::new();
        let (log, updated) = (Mutex::new(Log::default()), Notify::new());
        let read = async {
            tokio::try_join!(
                stdout.read_to_end(&mut output),
                for_each_line(stderr, |line| {
                    log.lock().take(line);
                    updated.notify_one();
                })
            )
        };
        let reports = async {
            loop {
                updated.notified().await;
                report(log.lock().progress());
                tokio::time::sleep(REPORT_INTERVAL).await;
            }
        };
        tokio::select! {
            // Reports first: a builder that floods its output must not delay them.
            biased;
            () = reports => {}
            done = read => drop(done?),
        }
        report(log.lock().progress());
        let status = child.wait().await?;
        self.child = None;
        Ok((log.into_inner(), output, status))
    }
}

impl Drop for Running {
    /// Makes the supervisor terminate Nix, so that Nix removes its temporary files, and then kill all descendants.
    fn drop(&mut self) {
        // Closed by the kernel if the daemon dies.
        self.keepalive = None;
        let (Some(mut child), Ok(runtime)) = (self.child.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            // Dropping the child afterwards kills the supervisor, but its watcher still ends Nix.
            tokio::time::timeout(2 * GRACE, child.wait()).await.ok();
        });
    }
}

/// Calls `take` for each line. Accepts any bytes.
async fn for_each_line(
    source: impl AsyncRead + Unpin,
    mut take: impl FnMut(&str),
) -> io::Result<()> {
    while_lines(source, |line| {
        take(line);
        true
    })
    .await
}

/// Calls `take` for each line until it returns false. Accepts any bytes.
pub(crate) async fn while_lines(
    source: impl AsyncRead + Unpin,
    mut take: impl FnMut(&str) -> bool,
) -> io::Result<()> {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    let mut until_yield = LINES_PER_YIELD;
    while (&mut source)
        .take(LINE_LIMIT)
        .read_until(b'\n', &mut line)
        .await?
        > 0
    {
        if !take(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            break;
        }
        line.clear();
        until_yield -= 1;
        if until_yield == 0 {
            // Continuous output must not block the thread for other tasks.
            tokio::task::yield_now().await;
            until_yield = LINES_PER_YIELD;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_can_be_long_invalid_or_unfinished() {
        let long = "x".repeat(usize::try_from(LINE_LIMIT).expect("small") + 5);
        let text = [b"one\n\xff\n\n".as_slice(), long.as_bytes(), b"\nend"].concat();
        let mut lines = Vec::new();
        for_each_line(text.as_slice(), |line| lines.push(line.to_owned()))
            .await
            .expect("reads");
        assert_eq!(lines[..3], ["one", "\u{fffd}", ""]);
        assert_eq!(lines[3].len() + lines[4].len(), long.len());
        assert_eq!(lines[5..], ["end"]);
    }

    /// Returns a program that starts another one in its own session, which holds the output open, and writes its PID to a
    /// file.
    fn escaping(dir: &Path, then: &str) -> Command {
        let pid = dir.join("pid");
        let mut command = supervised("/bin/sh");
        command.arg("-c").arg(format!(
            "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & \
             while [ ! -e {0} ]; do sleep 0.01; done; {then}",
            pid.display()
        ));
        command
    }

    async fn until_gone(dir: &Path) {
        let pid = std::fs::read_to_string(dir.join("pid")).expect("pid");
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while runs() {
            assert!(std::time::Instant::now() < deadline, "it still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn no_cgroups(test: &str) -> bool {
        let own = own_cgroup().filter(|own| {
            let probe = own.join(format!("innkeeper-{test}-{}", std::process::id()));
            std::fs::create_dir(&probe).is_ok() && std::fs::remove_dir(&probe).is_ok()
        });
        if own.is_none() {
            eprintln!("INNKEEPER-NOT-RUN: {test}: it needs cgroup v2 and root");
        }
        own.is_none()
    }

    #[tokio::test]
    async fn processes_that_a_build_leaves_are_killed() {
        if no_cgroups("processes_that_a_build_leaves_are_killed") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let output = follow(escaping(dir.path(), "echo done"), |_| {}).await;
        assert_eq!(output.expect("ends"), b"done\n");
        until_gone(dir.path()).await;
    }

    #[tokio::test]
    async fn canceled_build_ends_with_all_its_processes() {
        if no_cgroups("canceled_build_ends_with_all_its_processes") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let then = "trap '' TERM; while :; do sleep 1; done";
        let started = async {
            while !dir.path().join("pid").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            output = follow(escaping(dir.path(), then), |_| {}) => panic!("{output:?}"),
            () = started => {}
        }
        until_gone(dir.path()).await;
    }

    /// The kernel closes the pipe of a daemon that is killed.
    #[tokio::test]
    async fn build_ends_when_the_daemon_is_killed() {
        if no_cgroups("build_ends_when_the_daemon_is_killed") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = escaping(dir.path(), "sleep 1000")
            .stdin(Stdio::piped())
            .spawn()
            .expect("starts");
        while !dir.path().join("pid").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(child.stdin.take());
        until_gone(dir.path()).await;
        child.wait().await.expect("ends");
    }

    #[tokio::test]
    async fn endless_output_yields_to_other_tasks_and_is_throttled() {
        let line = r#"@nix {"action":"start","fields":["https://a/b"],"id":2,"level":3,"parent":1,"text":"","type":101}"#;
        let mut command = supervised("/bin/sh");
        command.args(["-c", &format!("exec yes '{line}' >&2")]);
        let reports = AtomicU64::new(0);
        let started = std::time::Instant::now();
        tokio::select! {
            // Polls the build first, as a busy worker does.
            biased;
            output = follow(command, |_| { reports.fetch_add(1, Ordering::Relaxed); }) => panic!("{output:?}"),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        let limit = u64::try_from(started.elapsed().as_millis() / 100 + 2).expect("small");
        let reports = reports.into_inner();
        assert!((1..=limit).contains(&reports), "{reports} of {limit}");
    }
}
