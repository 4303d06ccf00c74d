//! The one place that runs other programs.
//!
//! Arguments are visible to every user of the host, so secrets travel on standard input only.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use innkeeper_model::{Code, Explain};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

/// A program that could not run, failed, or exceeded its time limit.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("the program '{program}' is not installed")]
    Missing {
        /// The program's name or path.
        program: String,
    },
    /// The program could not be started, or its pipes failed.
    #[error("cannot run '{program}'")]
    Run {
        /// The program's name or path.
        program: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The program ended with a nonzero status.
    #[error("'{program}' ended with {status}: {stderr}")]
    Failed {
        /// The program's name or path.
        program: String,
        /// The exit status.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program exceeded its time limit.
    #[error("'{program}' did not end within {} s", limit.as_secs())]
    TimedOut {
        /// The program's name or path.
        program: String,
        /// The time limit.
        limit: Duration,
    },
}

impl CommandError {
    /// Returns the code of a missing program or a timeout, or `otherwise`.
    #[must_use]
    pub fn code_or(&self, otherwise: Code) -> Code {
        match self {
            Self::Missing { .. } => Code::ProgramMissing,
            Self::TimedOut { .. } => Code::TimedOut,
            Self::Run { .. } | Self::Failed { .. } => otherwise,
        }
    }
}

impl Explain for CommandError {
    fn code(&self) -> Code {
        self.code_or(Code::Internal)
    }

    fn remedy(&self) -> Option<String> {
        let program = match self {
            Self::Missing { program } => program,
            Self::TimedOut { program, .. } => {
                return Some(format!(
                    "Run {program} by hand, as root, to see what it waits for: a lock, a server or a disk that does not respond."
                ));
            }
            Self::Run { .. } | Self::Failed { .. } => return None,
        };
        let package = match program.rsplit('/').next().unwrap_or(program) {
            "systemd-nspawn" => "systemd-container",
            "nft" => "nftables",
            "ssh-keygen" => "openssh-client",
            "nsenter" | "prlimit" | "setpriv" | "unshare" => "util-linux",
            "umount" => "mount",
            "lvs" | "lvcreate" | "lvchange" | "lvremove" | "lvrename" => "lvm2",
            "mke2fs" => "e2fsprogs",
            "nix" | "nix-instantiate" | "nix-store" => "nix-bin",
            other => other,
        };
        Some(format!(
            "Install it (on Debian: `apt-get install {package}`), or put its directory into innkeeperd's PATH."
        ))
    }
}

/// Time limit of a program that queries or changes a setting.
pub(crate) const QUICK: Duration = Duration::from_secs(60);

/// Time limit of a program that copies files.
pub(crate) const COPY: Duration = Duration::from_secs(60 * 60);

/// Maximum length of a program's standard error in an error, in bytes.
const STDERR_LIMIT: usize = 2000;

/// Creates a command that is killed with its handle and has an empty standard input.
///
/// The only constructor of commands; clippy rejects `Command::new` elsewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "the only constructor of commands"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Adds the program's name to an [`io::Error`] from starting it.
pub(crate) fn start_error(program: &OsStr, source: io::Error) -> CommandError {
    let program = program.to_string_lossy().into_owned();
    if source.kind() == io::ErrorKind::NotFound {
        CommandError::Missing { program }
    } else {
        CommandError::Run { program, source }
    }
}

/// Runs a program within [`QUICK`], with `input` on its standard input, and returns its standard output.
pub(crate) async fn run<I, S>(
    program: impl AsRef<OsStr>,
    arguments: I,
    input: &[u8],
) -> Result<Vec<u8>, CommandError>
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    let mut command = command(program);
    command.args(arguments.into_iter().map(Into::into));
    run_command(command, input, QUICK).await
}

/// Writes a program's input and closes the pipe.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    match stdin.write_all(input).await {
        // A program that does not read all of its input reports the reason on its standard error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Runs a prepared command within a time limit and returns its standard output. Kills a program that exceeds the limit.
pub(crate) async fn run_command(
    command: tokio::process::Command,
    input: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, CommandError> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let ended = tokio::time::timeout(limit, run_to_end(command, input)).await;
    ended.unwrap_or(Err(CommandError::TimedOut { program, limit }))
}

/// Runs a prepared command without a time limit, for callers that have a limit of their own and must not kill the program.
pub(crate) async fn run_to_end(
    mut command: tokio::process::Command,
    input: &[u8],
) -> Result<Vec<u8>, CommandError> {
    let program = command.as_std().get_program().to_owned();
    let failed = |source| start_error(&program, source);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    // Concurrently: a program may print before it has read all of its input.
    let (written, output) = tokio::join!(feed(stdin, input), child.wait_with_output());
    written.map_err(failed)?;
    let output = output.map_err(failed)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.trim();
        let start = stderr.len().saturating_sub(STDERR_LIMIT);
        let start = (start..=stderr.len())
            .find(|at| stderr.is_char_boundary(*at))
            .unwrap_or(0);
        return Err(CommandError::Failed {
            program: program.to_string_lossy().into_owned(),
            status: output.status,
            stderr: stderr[start..].to_owned(),
        });
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn program_that_exceeds_its_limit_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let mut endless = command("sh");
        endless.args([
            "-c",
            "echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 1000",
            "sh",
        ]);
        endless.arg(&pid);
        let limit = Duration::from_secs(2);
        let error = run_command(endless, b"", limit).await.expect_err("endless");
        assert_eq!(error.to_string(), "'sh' did not end within 2 s");
        assert_eq!(error.code_or(Code::NetworkFailed), Code::TimedOut);
        assert!(error.remedy().expect("a remedy").contains("Run sh by hand"));
        let pid = std::fs::read_to_string(pid).expect("it began");
        let process = std::path::PathBuf::from(format!("/proc/{}/comm", pid.trim()));
        // Killed at once, and reaped by the runtime soon after.
        while std::fs::read_to_string(&process).is_ok_and(|name| name.trim() == "sleep") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
