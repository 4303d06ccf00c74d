//! `agent ssh`.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{Code, Failure, GuestKind, GuestName, GuestState};

use crate::context::Context;
use crate::failure::{CommandError, Status, not_running};
use crate::follow::{complete, until_interrupted};
use crate::known_hosts::KnownHosts;
use crate::tunnel::Guest;
use crate::wait::accepts_connections;

/// The port of the SSH server.
const PORT: u16 = 22;

/// Timeout for the SSH server of a guest that was asleep. ssh is tried after it, too.
const WAKE_LIMIT: Duration = Duration::from_secs(60);

/// Pause between attempts to wake a guest on which another operation works.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Open an SSH session in an agent
///
/// An agent that is paused or asleep is woken first.
///
/// Only the host key that innkeeperd generated for the agent is accepted. The exit status is ssh's.
#[derive(Args, Debug)]
#[command(mut_arg("user", |user| user.default_value("agent").required(false)))]
pub(crate) struct Ssh {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    arguments: SshArguments,
}

/// Arguments of `agent ssh` and `preview ssh`. Each command sets its own default user.
#[derive(Args, Debug)]
pub(super) struct SshArguments {
    /// User to log in as
    #[arg(long, short)]
    user: String,

    /// Command to run, or after `--` additional options of ssh
    #[arg(trailing_var_arg = true, value_name = "SSH ARGS")]
    arguments: Vec<OsString>,
}

impl Ssh {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let view = cx.guest(&self.name).await?;
        let name = &self.name;
        if view.guest.kind == GuestKind::Preview {
            let message = format!("'{name}' is a preview, not an agent");
            return Err(Failure::new(Code::GuestIsPreview, message)
                .with_remedy(format!("Use `preview ssh {name}`."))
                .into());
        }
        let wake = async || cx.change_guest(name, "/wake").await;
        let view = Box::pin(awake(cx, view, wake, async || cx.guest(name).await)).await?;
        let guest = Guest::agent(self.name.clone());
        self.arguments.open_session(cx, &guest, &view)
    }
}

/// Wakes a guest that is paused or asleep, or about to be, and returns it. One that is being woken or started is waited for.
/// After a start, waits for its SSH server.
pub(super) async fn awake(
    cx: &Context,
    mut view: GuestView,
    wake: impl AsyncFn() -> Result<Accepted, CommandError>,
    again: impl AsyncFn() -> Result<GuestView, CommandError>,
) -> Result<GuestView, CommandError> {
    let deadline = Instant::now() + WAKE_LIMIT;
    let mut is_started = false;
    while view.guest.rests().is_some() || view.state == GuestState::Starting {
        is_started |= view.state != GuestState::Paused;
        let woken = match view.guest.rests() {
            Some(_) => wake().await.map(Some),
            // Another request, or the daemon, starts it.
            None => Ok(None),
        };
        match woken {
            Ok(Some(accepted)) => {
                view = complete(&cx.silent(), &accepted, "", again()).await?;
                continue;
            }
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) => break,
            // Another request works on it.
            Err(error) if is_busy(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(BUSY_PAUSE).await;
        view = again().await?;
    }
    // Through a gateway, the daemon waits for the server.
    let address = view.guest_address.filter(|_| cx.client.gateway().is_none());
    if is_started && let Some(address) = address {
        let server = SocketAddr::from((address, PORT));
        let awaited = async {
            accepts_connections(server, WAKE_LIMIT).await;
            Ok(())
        };
        let note = || "The guest is awake.".to_owned();
        until_interrupted(note, awaited).await?;
    }
    Ok(view)
}

fn is_busy(error: &CommandError) -> bool {
    matches!(error, CommandError::Failure(failure) if failure.code == Code::GuestBusy)
}

impl SshArguments {
    /// Opens an SSH session in a guest and returns ssh's exit status.
    pub(super) fn open_session(&self, cx: &Context, guest: &Guest, view: &GuestView) -> Status {
        let (address, key) = ssh_target(view)?;
        let failed = |error| cannot_run(&error);
        let host = host_alias(&view.guest.name);
        let known_hosts = KnownHosts::new(&host, key).map_err(failed)?;
        let session = Session {
            host: &host,
            user: &self.user,
            arguments: &self.arguments,
            known_hosts: known_hosts.path(),
        };
        let mut command = match cx.client.gateway() {
            None => session.direct(address),
            Some(_) => session.through_gateway(cx, guest)?,
        };
        let status = command.status().map_err(failed)?;
        drop(known_hosts);
        Ok(exit_code(status))
    }
}

/// Returns the address and the host key of a running guest.
fn ssh_target(view: &GuestView) -> Result<(Ipv4Addr, &str), Failure> {
    let name = &view.guest.name;
    if view.state != GuestState::Running {
        return Err(not_running(&view.guest, &format!("it is {}", view.state)));
    }
    let address = view
        .guest_address
        .ok_or_else(|| not_running(&view.guest, "it has no address"))?;
    let key = view.guest.ssh_host_key.as_deref();
    let key = key.ok_or_else(|| not_running(&view.guest, "it has no SSH host key yet"))?;
    // ssh would trust a key on a second line.
    if key.is_empty() || key.chars().any(char::is_control) {
        let message = format!("innkeeperd has an invalid SSH host key for guest '{name}'");
        return Err(Failure::new(Code::Internal, message));
    }
    Ok((address, key))
}

/// Returns the name of a guest for ssh. Addresses are unsuitable: other guests reuse them.
fn host_alias(name: &GuestName) -> String {
    format!("innkeeper-{name}")
}

/// An ssh on the caller's terminal.
struct Session<'a> {
    host: &'a str,
    user: &'a str,
    arguments: &'a [OsString],
    /// Path of the file of known hosts.
    known_hosts: String,
}

impl Session<'_> {
    /// Connects to the guest's address, which is one hop away from the host.
    fn direct(&self, address: Ipv4Addr) -> Command {
        self.command([("ConnectTimeout", "10")], &address.to_string())
    }

    /// Connects through `agent connect`, which uses the same gateway and token.
    fn through_gateway(&self, cx: &Context, guest: &Guest) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|error| cannot_run(&error))?;
        let program = program.with_file_name(guest.program());
        let wait = WAKE_LIMIT.as_secs();
        // ssh adds `exec`.
        let proxy = format!(
            "{} connect {} {PORT} --wait {wait}",
            for_shell(&program.to_string_lossy()),
            guest.name()
        );
        let options = [("ConnectTimeout", "90"), ("ProxyCommand", &proxy)];
        let mut command = self.command(options, self.host);
        cx.client.selection()?.export(&mut command);
        Ok(command)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "runs as the caller on the caller's terminal, without secrets in its arguments"
    )]
    fn command<const N: usize>(&self, options: [(&str, &str); N], target: &str) -> Command {
        let option = |name: &str, value: &str| ["-o".to_owned(), format!("{name}={value}")];
        let mut command = Command::new("ssh");
        command
            .args(option("HostKeyAlias", self.host))
            .args(option("UserKnownHostsFile", &self.known_hosts))
            .args(option("GlobalKnownHostsFile", "/dev/null"))
            .args(option("StrictHostKeyChecking", "yes"));
        for (name, value) in options {
            command.args(option(name, value));
        }
        // As the value of an option, the user cannot be parsed as an option.
        command.args(option("User", self.user));
        command.arg(target).args(self.arguments);
        command
    }
}

/// Quotes a word for the shell that runs ssh's ProxyCommand, in which `%` begins a token of ssh.
fn for_shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

/// Returns the exit code for the status of ssh; 128 + n for signal n.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

fn cannot_run(error: &io::Error) -> Failure {
    let failure = Failure::new(Code::ProgramMissing, format!("cannot run 'ssh': {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => failure.with_remedy(
            "Install it (on Debian: `apt-get install openssh-client`). `agent exec` works without it.",
        ),
        _ => Failure {
            code: Code::Internal,
            ..failure
        },
    }
}
