//! `agent exec`.

use std::io::{self, IsTerminal as _};

use clap::Args;
use innkeeper_model::api::{ExecRequest, exec};
use innkeeper_model::{Code, Failure, GuestName};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::arguments::Variable;
use crate::client::{Upgraded, guest_path};
use crate::describe::plain;
use crate::escape::Escaper;
use crate::failure::{CommandError, Status, not_understood};
use crate::frames;
use crate::suggest::suggest;
use crate::terminal::{self, Endings, RawMode};

/// Run a command in an agent, without SSH
///
/// Standard input, output and error are passed on, and the exit status is the command's (128 + n for signal n).
///
/// It ends when the command exits. Processes that the command has left in the background are killed then, and also when
/// this program is interrupted. Use `--detach` for work that goes on until it is done or the agent stops.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    options: ExecOptions,

    /// The agent
    name: GuestName,

    /// The command and its arguments, best after `--`
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How a command runs in a guest.
#[derive(Args, Debug)]
pub(crate) struct ExecOptions {
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,

    /// Return once the command runs; it goes on without input, its output is discarded
    #[arg(long, short, conflicts_with = "tty")]
    detach: bool,

    /// Pass on standard input, which is always done: accepted so that `-it` works
    #[arg(long, short)]
    interactive: bool,

    /// The guest's user to run it as, by name or number; root when left out
    #[arg(long, short)]
    user: Option<String>,

    /// An additional environment variable; NAME alone passes on the caller's own
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = Variable::parse)]
    env: Vec<Variable>,
}

/// The longest piece of standard input that is sent at once.
const PIECE: usize = 32 * 1024;

impl Exec {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = guest_path(&self.name, "/exec");
        self.options.run(cx, &self.name, &path, self.command).await
    }
}

impl ExecOptions {
    /// Runs a command through the `exec` call at `path`, in the guest called `name`.
    pub(crate) async fn run(
        self,
        cx: &Context,
        name: &GuestName,
        path: &str,
        command: Vec<String>,
    ) -> Status {
        let tty = self.tty;
        let request = self.request(command);
        let answer = cx.client.upgrade(path, exec::PROTOCOL, &request).await;
        let connection = suggest(&cx.client, name, answer).await?;
        let (reader, writer) = tokio::io::split(connection);
        if !tty {
            return session(reader, writer, false).await;
        }
        let mut endings = Endings::catch().map_err(|error| terminal_error(&error))?;
        // It lives until this function returns, and so ends on every way out.
        let _raw = RawMode::enter().map_err(|error| terminal_error(&error))?;
        tokio::select! {
            status = session(reader, writer, true) => status,
            code = endings.next() => Ok(code),
        }
    }

    fn request(self, command: Vec<String>) -> ExecRequest {
        let mut environment: Vec<_> = self.env.into_iter().map(|Variable(n, v)| (n, v)).collect();
        // Programs in the guest need to know which terminal they draw on.
        if self.tty
            && !environment.iter().any(|(name, _)| name == "TERM")
            && let Ok(term) = std::env::var("TERM")
        {
            environment.push(("TERM".to_owned(), term));
        }
        ExecRequest {
            command,
            tty: self.tty,
            size: self.tty.then(terminal::size).flatten(),
            environment,
            user: self.user,
            detached: self.detach,
        }
    }
}

/// Passes everything on in both directions until the command ends.
async fn session(reader: ReadHalf<Upgraded>, writer: WriteHalf<Upgraded>, tty: bool) -> Status {
    tokio::select! {
        status = receive(reader, tty) => status,
        never = send(writer, tty) => match never {},
    }
}

/// Passes on the command's output and returns its exit status.
///
/// A command that was given the caller's terminal draws on it; the output of any other is escaped on a terminal.
async fn receive(mut reader: ReadHalf<Upgraded>, tty: bool) -> Status {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    let mut escape_output = Escaper::new(!tty && io::stdout().is_terminal());
    let mut escape_errors = Escaper::new(!tty && io::stderr().is_terminal());
    let mut body = Vec::new();
    loop {
        match frames::read(&mut reader, &mut body)
            .await
            .map_err(|error| cut_off(&error))?
        {
            exec::STDOUT => {
                write_all(&mut stdout, &escape_output.piece(&body))
                    .await
                    .map_err(CommandError::Output)?;
            }
            // Nobody may read it; the command goes on.
            exec::STDERR => drop(write_all(&mut stderr, &escape_errors.piece(&body)).await),
            exec::NOTE => {
                // A terminal in raw mode needs the carriage returns.
                let (before, after) = if tty { ("\r\n", "\r\n") } else { ("", "\n") };
                let note = plain(&String::from_utf8_lossy(&body));
                let note = format!("{before}[INFO] {note}{after}");
                drop(write_all(&mut stderr, note.as_bytes()).await);
            }
            exec::EXIT => {
                let rest = write_all(&mut stdout, &escape_output.end()).await;
                rest.map_err(CommandError::Output)?;
                drop(write_all(&mut stderr, &escape_errors.end()).await);
                let status = <[u8; 4]>::try_from(body.as_slice()).map(i32::from_be_bytes);
                let status =
                    status.map_err(|_| not_understood("an exit status of another size"))?;
                return Ok(u8::try_from(status).unwrap_or(u8::MAX));
            }
            exec::FAILURE => {
                let failure: Failure = serde_json::from_slice(&body)
                    .map_err(|error| not_understood(&format!("a failure: {error}")))?;
                return Err(failure.into());
            }
            kind => return Err(not_understood(&format!("a frame of kind {kind}")).into()),
        }
    }
}

async fn write_all(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Passes on standard input and the terminal's size for as long as the session lasts. When the connection
/// does not take any more, its other direction tells why.
async fn send(mut writer: WriteHalf<Upgraded>, tty: bool) -> std::convert::Infallible {
    // The error is of no use here, as the session's end comes from `receive`.
    drop(send_until_broken(&mut writer, tty).await);
    std::future::pending().await
}

async fn send_until_broken(writer: &mut WriteHalf<Upgraded>, tty: bool) -> io::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut resized = signal(SignalKind::window_change())?;
    let mut piece = vec![0; PIECE];
    let mut open = true;
    loop {
        tokio::select! {
            read = stdin.read(&mut piece), if open => {
                // What cannot be read is at its end.
                let length = read.unwrap_or(0);
                open = length > 0;
                frames::write(writer, exec::STDIN, &piece[..length]).await?;
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

fn cut_off(error: &io::Error) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!("innkeeperd ended the connection before the command ended: {error}"),
    )
    .with_remedy("`systemctl status innkeeper` tells whether it runs; the command may still run in the agent.")
}

fn terminal_error(error: &io::Error) -> CommandError {
    Failure::new(
        Code::Internal,
        format!("cannot set up the terminal: {error}"),
    )
    .into()
}
