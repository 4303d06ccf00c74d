//! The one place that runs other programs.
//!
//! Arguments are visible to every user of the host, so secrets travel on standard input only.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};

use innkeeper_model::{Code, Explain};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

/// A program that could not be run or that ended badly.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("the program '{program}' is not installed")]
    Missing {
        /// The program's name or path.
        program: String,
    },
    /// It could not be started, or talking to it failed.
    #[error("cannot run '{program}'")]
    Run {
        /// The program's name or path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("'{program}' ended with {status}: {stderr}")]
    Failed {
        /// The program's name or path.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

impl CommandError {
    /// The code of a missing program, or `otherwise`.
    #[must_use]
    pub fn code_or(&self, otherwise: Code) -> Code {
        match self {
            Self::Missing { .. } => Code::ProgramMissing,
            Self::Run { .. } | Self::Failed { .. } => otherwise,
        }
    }
}

impl Explain for CommandError {
    fn code(&self) -> Code {
        self.code_or(Code::Internal)
    }

    fn remedy(&self) -> Option<String> {
        let Self::Missing { program } = self else {
            return None;
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

/// The longest piece of a program's complaint that goes into an error.
const STDERR_LIMIT: usize = 2000;

/// A command that does not outlive its handle and reads nothing from our standard input.
///
/// Every command of this crate starts here; clippy refuses `Command::new` anywhere else.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
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

/// Runs a program to its end with `input` on its standard input and returns its standard output.
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
    run_command(command, input).await
}

/// Writes a program's input and ends it.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    match stdin.write_all(input).await {
        // A program that does not read all of its input says why on its standard error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// As [`run`], with a command that is set up in other ways too.
pub(crate) async fn run_command(
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
    // At the same time: a program may print before it has read everything.
    let (written, output) = tokio::join!(feed(stdin, input), child.wait_with_output());
    written.map_err(failed)?;
    let output = output.map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let start = said.len().saturating_sub(STDERR_LIMIT);
        let start = (start..=said.len())
            .find(|at| said.is_char_boundary(*at))
            .unwrap_or(0);
        return Err(CommandError::Failed {
            program: program.to_string_lossy().into_owned(),
            status: output.status,
            stderr: said[start..].to_owned(),
        });
    }
    Ok(output.stdout)
}
