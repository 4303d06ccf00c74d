//! Running Nix: its answer, its progress, its last lines.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use innkeeper_model::{BuildProgress, StorePath};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::ClosureError;
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
    },
}

/// Has a Nix that knows this (2.26 does, 2.8 does not) write what it adds to the store to the disk before it enters it in
/// its database. Otherwise a loss of power can leave paths that Nix believes in and that are empty, and no build would make
/// them again.
pub(crate) const DURABLE: [&str; 3] = ["--option", "fsync-store-paths", "true"];

/// The longest line that is read at once, in bytes; the rest of a longer one is taken as another line.
const LINE_LIMIT: u64 = 1 << 20;

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
        let mut command = command(&self.program);
        command.args(arguments);
        self.attend(command, report).await
    }

    /// Runs one of Nix's programs, adds our settings, and returns what it prints. Dropping the future ends
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

/// Runs one of Nix's programs, whose log is JSON, and returns its output. Dropping the future ends it and its builders.
pub(crate) async fn follow(
    mut command: Command,
    report: impl Fn(BuildProgress),
) -> Result<Vec<u8>, NixError> {
    let program = command.as_std().get_program().to_owned();
    let failed = |source| NixError::Run(start_error(&program, source));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut nix = Running(Some(command.spawn().map_err(failed)?));
    let mut log = Log::default();
    let (stdout, status) = nix.attend(&mut log, report).await.map_err(failed)?;
    if status.success() {
        return Ok(stdout);
    }
    let (summary, log) = log.into_failure();
    Err(NixError::Failed { summary, log })
}

/// Another of Nix's programs: they are in the same folder.
pub(crate) fn sibling(nix: &Path, name: &str) -> PathBuf {
    match nix.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.join(name),
        _ => name.into(),
    }
}

/// A Nix that may still run.
struct Running(Option<Child>);

impl Running {
    /// Reads all that Nix says and waits for its end.
    async fn attend(
        &mut self,
        log: &mut Log,
        report: impl Fn(BuildProgress),
    ) -> io::Result<(Vec<u8>, ExitStatus)> {
        let gone = || io::Error::other("its output is not there");
        let child = self.0.as_mut().ok_or_else(gone)?;
        let mut stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let mut answer = Vec::new();
        let (read, told) = tokio::join!(
            stdout.read_to_end(&mut answer),
            for_each_line(stderr, |line| {
                log.take(line);
                report(log.progress());
            })
        );
        read?;
        told?;
        let status = child.wait().await?;
        self.0 = None;
        Ok((answer, status))
    }
}

impl Drop for Running {
    /// Asks Nix to end. Killed at once, it would leave behind what its builders have started; asked, it
    /// ends their process groups. When there is no time left for that (the daemon itself ends), or Nix
    /// does not answer, it is killed.
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(pid), Ok(runtime)) = (pid, Handle::try_current()) else {
            return;
        };
        // The child was not waited for, so the number is still its own.
        kill_process(pid, Signal::TERM).ok();
        runtime.spawn(async move {
            // After the time is over the child is dropped, and killed by that.
            tokio::time::timeout(GRACE, child.wait()).await.ok();
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
}
