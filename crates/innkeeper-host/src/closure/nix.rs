//! Running Nix: its answer, its progress, its last lines.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use innkeeper_model::{BuildProgress, StorePath};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::ClosureError;
use super::cause::Cause;
use super::flight::REPORT_INTERVAL;
use super::log::Log;
use crate::CommandError;
use crate::command::{command, start_error};

/// Where Nix is, and where its roots and links are.
#[derive(Clone, Debug)]
pub struct NixConfig {
    /// The program `nix`: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// The directory of our GC roots, `/nix/var/nix/gcroots/innkeeper`.
    pub gcroots: PathBuf,
    /// The directory of the links to what was built, `<state>/closures`.
    pub links: PathBuf,
    /// Nix settings for every call, as `--option <name> <value>`. Visible to all users of the host, so
    /// access tokens do not belong here but into Nix's own configuration.
    pub options: BTreeMap<String, String>,
    /// The user that fetches and evaluates flakes for callers who are not root: a name or a number. It owns nothing.
    pub user: String,
    /// The socket of the Nix daemon, through which that user reaches the store.
    pub daemon_socket: PathBuf,
}

impl NixConfig {
    /// The socket of the host's Nix daemon.
    #[must_use]
    pub fn default_daemon_socket() -> PathBuf {
        std::env::var_os("NIX_DAEMON_SOCKET_PATH")
            .map_or_else(|| "/nix/var/nix/daemon-socket/socket".into(), PathBuf::from)
    }
}

/// Nix did not do as asked.
#[derive(Debug)]
pub(crate) enum NixError {
    /// It cannot be run.
    Run(CommandError),
    /// It ended with an error.
    Failed {
        /// Its last error in one line.
        summary: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// Who is at fault.
        cause: Cause,
    },
}

/// Has a Nix that knows this (2.26 does, 2.8 does not) write what it adds to the store to the disk before it enters it in
/// its database. Otherwise a loss of power can leave paths that Nix believes in and that are empty, and no build would make
/// them again.
pub(crate) const DURABLE: [&str; 3] = ["--option", "fsync-store-paths", "true"];

/// The longest line that is read at once, in bytes; the rest of a longer one is taken as another line.
const LINE_LIMIT: u64 = 1 << 20;

/// How many lines are read before other tasks get their turn.
const LINES_AT_ONCE: u32 = 64;

/// Runs Nix and ends it; its head documents the arguments.
const SUPERVISOR: &str = include_str!("supervise.sh");

/// The place of the program among the supervisor's arguments.
const PROGRAM_ARGUMENT: usize = 6;

/// How long Nix has to end its builders before it is killed.
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

    /// Runs `nix <arguments>` and returns what it prints. Dropping the future ends Nix and its builders.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<u8>, NixError> {
        let mut command = supervised(&self.program);
        command.args(arguments);
        self.attend(command, report).await
    }

    /// Runs one of Nix's programs, a [`supervised`] command, adds our settings, and returns what it prints. Dropping the future ends
    /// it and its builders.
    pub(crate) async fn attend(
        &self,
        mut command: Command,
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<u8>, NixError> {
        command.args(self.settings());
        if std::env::var_os("HOME").is_none_or(|home| home.is_empty()) {
            // Nix keeps caches there and refuses to run without.
            command.env("HOME", self.links.with_file_name("nix-home"));
        }
        follow(command, report).await
    }

    /// Our settings as arguments, which all of Nix's programs take.
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

/// The cgroups that a program is started in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups {
    /// Those with limits, one in each hierarchy.
    pub(crate) limits: Vec<PathBuf>,
    /// The one of version 2 below which the program gets its own; without, the daemon's.
    pub(crate) unified: Option<PathBuf>,
}

/// A command that runs a program and ends everything that the program started: when it ends, when the handle is dropped,
/// and when the daemon is killed. Where version 2 of cgroups is mounted, the program has a cgroup, and no process can
/// escape that; elsewhere the program itself is ended. For [`follow`] only.
pub(crate) fn supervised(program: impl AsRef<OsStr>) -> Command {
    supervised_in(&Cgroups::default(), program)
}

/// A [`supervised`] command in cgroups with limits. The program does not run when it cannot be put there.
pub(crate) fn supervised_in(cgroups: &Cgroups, program: impl AsRef<OsStr>) -> Command {
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
        .arg(program);
    command
}

/// This process' cgroup of version 2, if the hierarchy is mounted.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let mount = words.next()?;
        (words.next()? == "cgroup2").then_some(mount)
    })?;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(own))
}

/// Finds out before the shell does that a program is not installed.
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

/// Runs a [`supervised`] program of Nix, whose log is JSON, and returns its output. Dropping the future ends it and all
/// that it started.
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
        alive: child.stdin.take(),
        child: Some(child),
    };
    let (log, stdout, status) = nix.attend(report).await.map_err(failed)?;
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

/// Another of Nix's programs: they are in the same folder.
pub(crate) fn sibling(nix: &Path, name: &str) -> PathBuf {
    match nix.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.join(name),
        _ => name.into(),
    }
}

/// A Nix that may still run.
struct Running {
    child: Option<Child>,
    /// Its supervisor ends Nix when this is closed.
    alive: Option<ChildStdin>,
}

impl Running {
    /// Reads all of Nix's output and waits for its end. Reports the progress at most once per [`REPORT_INTERVAL`].
    async fn attend(
        &mut self,
        report: impl Fn(BuildProgress),
    ) -> io::Result<(Log, Vec<u8>, ExitStatus)> {
        let gone = || io::Error::other("its output is not there");
        let child = self.child.as_mut().ok_or_else(gone)?;
        let mut stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let mut answer = Vec::new();
        let (log, news) = (Mutex::new(Log::default()), Notify::new());
        let progress = || {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .progress()
        };
        let output = async {
            tokio::try_join!(
                stdout.read_to_end(&mut answer),
                for_each_line(stderr, |line| {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(line);
                    news.notify_one();
                })
            )
        };
        let reports = async {
            loop {
                news.notified().await;
                report(progress());
                tokio::time::sleep(REPORT_INTERVAL).await;
            }
        };
        tokio::select! {
            // A builder decides how much output there is: that must not delay reports.
            biased;
            () = reports => {}
            read = output => drop(read?),
        }
        report(progress());
        let status = child.wait().await?;
        self.child = None;
        let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((log, answer, status))
    }
}

impl Drop for Running {
    /// Has the supervisor end Nix and all that it started. Nix is asked first, so that it removes its temporary files.
    fn drop(&mut self) {
        // Also when the daemon itself ends.
        self.alive = None;
        let (Some(mut child), Ok(runtime)) = (self.child.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            // Dropping the child afterwards kills the supervisor; its watcher still ends Nix.
            tokio::time::timeout(2 * GRACE, child.wait()).await.ok();
        });
    }
}

/// Reads lines to the end, whatever bytes are in them.
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

/// Reads lines until one is not wanted or there are no more, whatever bytes are in them.
pub(crate) async fn while_lines(
    source: impl AsyncRead + Unpin,
    mut take: impl FnMut(&str) -> bool,
) -> io::Result<()> {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    let mut until_yield = LINES_AT_ONCE;
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
            // Output that never pauses must not keep the thread from other work.
            tokio::task::yield_now().await;
            until_yield = LINES_AT_ONCE;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_may_be_long_broken_or_unfinished() {
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

    /// A program that starts another in a session of its own, which holds the output open, and notes its pid.
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
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while runs() {
            assert!(std::time::Instant::now() < end, "it still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn no_cgroups(test: &str) -> bool {
        let own = own_cgroup().filter(|own| {
            let probe = own.join(format!("innkeeper-{test}-{}", std::process::id()));
            std::fs::create_dir(&probe).is_ok() && std::fs::remove_dir(&probe).is_ok()
        });
        if own.is_none() {
            eprintln!("INNKEEPER-NOT-RUN: {test}: it needs cgroups of version 2 and root");
        }
        own.is_none()
    }

    #[tokio::test]
    async fn what_a_build_leaves_behind_ends_with_it() {
        if no_cgroups("what_a_build_leaves_behind_ends_with_it") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let answer = follow(escaping(dir.path(), "echo done"), |_| {}).await;
        assert_eq!(answer.expect("ends"), b"done\n");
        until_gone(dir.path()).await;
    }

    #[tokio::test]
    async fn all_of_a_build_ends_when_nobody_waits_for_it() {
        if no_cgroups("all_of_a_build_ends_when_nobody_waits_for_it") {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let then = "trap '' TERM; while :; do sleep 1; done";
        let there = async {
            while !dir.path().join("pid").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = follow(escaping(dir.path(), then), |_| {}) => panic!("{answer:?}"),
            () = there => {}
        }
        until_gone(dir.path()).await;
    }

    /// The kernel closes the pipe of a daemon that is killed.
    #[tokio::test]
    async fn all_of_a_build_ends_with_a_daemon_that_is_killed() {
        if no_cgroups("all_of_a_build_ends_with_a_daemon_that_is_killed") {
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
    async fn endless_output_leaves_time_for_others_and_is_reported_ten_times_a_second() {
        let line = r#"@nix {"action":"start","fields":["https://a/b"],"id":2,"level":3,"parent":1,"text":"","type":101}"#;
        let mut command = supervised("/bin/sh");
        command.args(["-c", &format!("exec yes '{line}' >&2")]);
        let reports = AtomicU64::new(0);
        let started = std::time::Instant::now();
        tokio::select! {
            // As a worker that looks for commands after its work.
            biased;
            answer = follow(command, |_| { reports.fetch_add(1, Ordering::Relaxed); }) => panic!("{answer:?}"),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        let most = u64::try_from(started.elapsed().as_millis() / 100 + 2).expect("small");
        let reports = reports.into_inner();
        assert!((1..=most).contains(&reports), "{reports} of {most}");
    }
}
