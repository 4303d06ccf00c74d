//! `agent exec`.

use std::io::{self, IsTerminal as _};

use clap::Args;
use innkeeper_model::api::{ExecRequest, exec};
use innkeeper_model::{Code, Failure, GuestName};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Variable;
use crate::client::{Upgraded, guest_path};
use crate::context::Context;
use crate::describe::plain;
use crate::escape::Escaper;
use crate::failure::{CommandError, Status, unexpected_response};
use crate::frames;
use crate::suggest::suggest;
use crate::terminal::{self, RawMode, TerminationSignals};

/// Run a command in an agent, without SSH
///
/// Forwards standard input, output and error. The exit status is the command's (128 + n for signal n). An agent that is
/// paused or asleep is woken first.
///
/// When the command exits or this program is interrupted, background processes of the command are killed. Use `--detach`
/// for a command that runs until it exits or the agent stops.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    arguments: ExecArguments,
}

/// Arguments of `agent exec` and `preview exec`.
#[derive(Args, Debug)]
pub(super) struct ExecArguments {
    /// Allocate a terminal for the command
    #[arg(long, short)]
    tty: bool,

    /// Return once the command runs; it has no input, and its output is discarded
    #[arg(long, short, conflicts_with = "tty")]
    detach: bool,

    /// No effect: standard input is always forwarded (accepted for `-it`)
    #[arg(long, short)]
    interactive: bool,

    /// User to run the command as, by name or number [default: root]
    #[arg(long, short)]
    user: Option<String>,

    /// Set an environment variable; NAME alone passes on the caller's value
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = Variable::parse)]
    env: Vec<Variable>,

    /// Command and its arguments, preferably after `--`
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Maximum size of a chunk of standard input, in bytes.
const STDIN_CHUNK: usize = 32 * 1024;

impl Exec {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = guest_path(&self.name, "/exec");
        self.arguments.run(cx, &self.name, &path).await
    }
}

impl ExecArguments {
    /// Runs the command in the guest `name` through the API path `path`.
    pub(super) async fn run(self, cx: &Context, name: &GuestName, path: &str) -> Status {
        let tty = self.tty;
        let request = self.request();
        let response = cx.client.upgrade(path, exec::PROTOCOL, &request).await;
        let connection = suggest(&cx.client, name, response).await?;
        let (reader, writer) = tokio::io::split(connection);
        if !tty {
            return session(cx, reader, writer, false).await;
        }
        let mut signals = TerminationSignals::register().map_err(|error| terminal_error(&error))?;
        // Dropped on every return of this function.
        let _raw = RawMode::enter().map_err(|error| terminal_error(&error))?;
        tokio::select! {
            status = session(cx, reader, writer, true) => status,
            code = signals.next() => Ok(code),
        }
    }

    fn request(self) -> ExecRequest {
        let mut environment: Vec<_> = self.env.into_iter().map(|Variable(n, v)| (n, v)).collect();
        // Programs in the guest need the type of the terminal.
        if self.tty
            && !environment.iter().any(|(name, _)| name == "TERM")
            && let Ok(term) = std::env::var("TERM")
        {
            environment.push(("TERM".to_owned(), term));
        }
        ExecRequest {
            command: self.command,
            tty: self.tty,
            size: self.tty.then(terminal::size).flatten(),
            environment,
            user: self.user,
            detached: self.detach,
        }
    }
}

/// Forwards input and output until the command exits.
async fn session(
    cx: &Context,
    reader: ReadHalf<Upgraded>,
    writer: WriteHalf<Upgraded>,
    tty: bool,
) -> Status {
    tokio::select! {
        status = receive(cx, reader, tty) => status,
        never = send(writer, tty) => match never {},
    }
}

/// Forwards the command's output and returns its exit status.
///
/// A command with a terminal controls the caller's terminal. All other output is escaped on a terminal.
async fn receive(cx: &Context, mut reader: ReadHalf<Upgraded>, tty: bool) -> Status {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    let mut stdout_escaper = Escaper::new(!tty && io::stdout().is_terminal());
    let mut stderr_escaper = Escaper::new(!tty && io::stderr().is_terminal());
    let mut body = Vec::new();
    loop {
        match frames::read(&mut reader, &mut body)
            .await
            .map_err(|error| connection_lost(cx, &error))?
        {
            exec::STDOUT => {
                write_all(&mut stdout, &stdout_escaper.push(&body))
                    .await
                    .map_err(CommandError::Output)?;
            }
            // Write errors are ignored: standard error may be closed while the command runs.
            exec::STDERR => drop(write_all(&mut stderr, &stderr_escaper.push(&body)).await),
            exec::NOTE => {
                // A terminal in raw mode needs carriage returns.
                let (before, after) = if tty { ("\r\n", "\r\n") } else { ("", "\n") };
                let note = plain(&String::from_utf8_lossy(&body));
                let note = format!("{before}[INFO] {note}{after}");
                drop(write_all(&mut stderr, note.as_bytes()).await);
            }
            exec::EXIT => {
                let rest = write_all(&mut stdout, &stdout_escaper.finish()).await;
                rest.map_err(CommandError::Output)?;
                drop(write_all(&mut stderr, &stderr_escaper.finish()).await);
                let status = <[u8; 4]>::try_from(body.as_slice()).map(i32::from_be_bytes);
                let status =
                    status.map_err(|_| unexpected_response("exit status of wrong size"))?;
                return Ok(u8::try_from(status).unwrap_or(u8::MAX));
            }
            exec::FAILURE => {
                let failure: Failure = serde_json::from_slice(&body)
                    .map_err(|error| unexpected_response(&format!("invalid failure: {error}")))?;
                return Err(failure.into());
            }
            kind => return Err(unexpected_response(&format!("unknown frame kind {kind}")).into()),
        }
    }
}

async fn write_all(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Forwards standard input and the terminal's size until the session ends.
async fn send(mut writer: WriteHalf<Upgraded>, tty: bool) -> std::convert::Infallible {
    // Errors are ignored here: `receive` returns the cause.
    drop(forward_input(&mut writer, tty).await);
    std::future::pending().await
}

async fn forward_input(writer: &mut WriteHalf<Upgraded>, tty: bool) -> io::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut resized = signal(SignalKind::window_change())?;
    let mut chunk = vec![0; STDIN_CHUNK];
    let mut open = true;
    loop {
        tokio::select! {
            read = stdin.read(&mut chunk), if open => {
                // A read error counts as end of input.
                let length = read.unwrap_or(0);
                open = length > 0;
                frames::write(writer, exec::STDIN, &chunk[..length]).await?;
            }
            _ = resized.recv(), if tty => {
                if let Some((rows, columns)) = terminal::size() {
                    let [a, b] = rows.to_be_bytes();
                    let [c, d] = columns.to_be_bytes();
                    frames::write(writer, exec::RESIZE, &[a, b, c, d]).await?;
                }
            }
            else => return Ok(()),
        }
    }
}

fn connection_lost(cx: &Context, error: &io::Error) -> Failure {
    let remedy = format!(
        "{} The command may still run in the guest.",
        cx.client.check_remedy()
    );
    Failure::new(
        Code::DaemonUnreachable,
        format!("lost the connection to innkeeperd before the command exited: {error}"),
    )
    .with_remedy(remedy)
}

fn terminal_error(error: &io::Error) -> CommandError {
    Failure::new(
        Code::Internal,
        format!("cannot set up the terminal: {error}"),
    )
    .into()
}
