//! `agent ssh`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use clap::Args;
use innkeeper_model::api::GuestView;
use innkeeper_model::{Code, Failure, GuestKind, GuestName, GuestState};
use rustix::fs::MemfdFlags;

use super::Context;
use crate::failure::{Status, not_running};

/// Open an SSH session in an agent
///
/// The agent's host key is the one that innkeeperd made for it; any other is refused. The exit status is ssh's.
#[derive(Args, Debug)]
pub(crate) struct Ssh {
    /// The agent
    name: GuestName,

    /// The user to log in as
    #[arg(long, short, default_value = "agent")]
    user: String,

    /// A command to run, or after `--` further options of ssh
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
        log_in(&view, &self.user, &self.arguments)
    }
}

/// Opens an SSH session in a guest and returns ssh's exit status.
pub(crate) fn log_in(view: &GuestView, user: &str, arguments: &[OsString]) -> Status {
    let (address, key) = way_in(view)?;
    let failed = |error| cannot_run(&error);
    let host = host_alias(&view.guest.name);
    let known_hosts = KnownHosts::new(&host, key).map_err(failed)?;
    let status = run_ssh(&host, user, arguments, address, &known_hosts).map_err(failed)?;
    Ok(status_code(status))
}

/// The address and the host key of a guest that runs.
fn way_in(view: &GuestView) -> Result<(Ipv4Addr, &str), Failure> {
    let name = &view.guest.name;
    if view.state != GuestState::Running {
        return Err(not_running(&view.guest, &format!("it is {}", view.state)));
    }
    let address = view
        .guest_address
        .ok_or_else(|| not_running(&view.guest, "it has no address"))?;
    let key = view.guest.ssh_host_key.as_deref();
    let key = key.ok_or_else(|| not_running(&view.guest, "it has no SSH host key yet"))?;
    // A second line would be a second key that ssh believes.
    if key.is_empty() || key.chars().any(char::is_control) {
        let message = format!("the SSH host key that innkeeperd has for guest '{name}' is not one");
        return Err(Failure::new(Code::Internal, message));
    }
    Ok((address, key))
}

/// The name under which ssh knows a guest: addresses are given to other guests later.
fn host_alias(name: &GuestName) -> String {
    format!("innkeeper-{name}")
}

/// A `known_hosts` file with one key (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). It lives in memory, so nothing
/// can be left behind. ssh closes all descriptors that it inherits, so it is reached through ours.
struct KnownHosts {
    file: std::fs::File,
}

impl KnownHosts {
    fn new(host: &str, key: &str) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("innkeeper-known-hosts", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        writeln!(file, "{host} {key}")?;
        Ok(Self { file })
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// Runs ssh on the caller's terminal and waits for it.
#[expect(
    clippy::disallowed_methods,
    reason = "the only program that these programs run; it takes over the terminal, and no secret is in its arguments"
)]
fn run_ssh(
    host: &str,
    user: &str,
    arguments: &[OsString],
    address: Ipv4Addr,
    known_hosts: &KnownHosts,
) -> io::Result<ExitStatus> {
    let option = |name: &str, value: &str| ["-o".to_owned(), format!("{name}={value}")];
    std::process::Command::new("ssh")
        .args(option("HostKeyAlias", host))
        .args(option("UserKnownHostsFile", &known_hosts.path()))
        .args(option("GlobalKnownHostsFile", "/dev/null"))
        .args(option("StrictHostKeyChecking", "yes"))
        // The guest is one hop away.
        .args(option("ConnectTimeout", "10"))
        // The user may hold options, so it must not stand where ssh looks for them.
        .args(option("User", user))
        .arg(address.to_string())
        .args(arguments)
        .status()
}

/// The exit code for how ssh ended; 128 + n for signal n.
fn status_code(status: ExitStatus) -> u8 {
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
