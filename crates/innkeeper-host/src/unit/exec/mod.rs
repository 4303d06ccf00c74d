//! Commands run in a guest from outside, without the guest's help.
//!
//! The command enters the guest's namespaces and its cgroup with `nsenter`. Root of the host enters only namespaces that
//! are passed as descriptors and not as a process id: the id could be reused before nsenter opens it, and the command
//! would run on the host.
//!
//! Each command has its own cgroup. When its first process ends, or its session is dropped, every other process in the
//! cgroup is killed. The exception is a detached command, which ends with its guest.
//!
//! Entering a user namespace gives all capabilities in it (user_namespaces(7)), including those that the guest's own
//! processes lack. The command keeps those of the guest's first process, and the ones that nsenter needs.

mod namespaces;
mod output;
mod running;
mod session;
mod terminal;
mod tree;
mod user;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use innkeeper_facilities::{self as facilities, ExecSession, Input};
use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use namespaces::Namespaces;
use output::Output;
pub(super) use running::sweep;
use running::{Group, Running};
use session::{Command, End, Ended};
use terminal::Terminal;
use user::User;

use super::cgroup;
use super::error::UnitError;
use super::guests::Guests;
use super::process::{Process, find_program};
use super::supervisor::Groups;
use crate::features::UserIds;
use crate::{FileErrorExt, command};

/// The search path in a NixOS guest and in others; the closure's own programs come last.
const PATH: &str = "/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/bin:/sbin";

/// Starts a command in the guest with this first process.
pub(super) async fn start(
    guests: &Guests,
    guest: &GuestName,
    leader: u32,
    groups: &Groups,
    request: &ExecRequest,
) -> Result<ExecSession, UnitError> {
    let not_running = || UnitError::NotRunning {
        guest: guest.clone(),
    };
    if request.command.is_empty() {
        return Err(UnitError::NoCommand {
            guest: guest.clone(),
        });
    }
    let process = Process::in_cgroup(leader, &groups.guest)
        .on("look into", &groups.guest)?
        .ok_or_else(not_running)?;
    let has_users = guests.config.user_ids != UserIds::Host;
    let namespaces =
        Namespaces::of(leader, has_users).on("open the namespaces of", guest.as_str())?;
    // Still the same process, so the namespaces are its own.
    if !process
        .is_alive()
        .on("check the first process of", guest.as_str())?
    {
        return Err(not_running());
    }
    let (user, terminal) = user_and_terminal(guest, &namespaces, request).await?;
    let environment = environment(guests, guest, &user, request)?;
    let group = Group::make(&groups.exec, request.detached)?;
    let oom_kills = cgroup::oom_kills(&groups.memory);
    let arguments = arguments(&namespaces, group.dirs(), &user, request)?;

    let mut command = command::command(guests.shim.path());
    command
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .kill_on_drop(!request.detached);
    match &terminal {
        Some((_, slave)) => {
            let slave = || {
                slave
                    .try_clone()
                    .on("hand over the terminal of", guest.as_str())
            };
            command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
        }
        None if request.detached => {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // An interrupt from the daemon's terminal must not reach it.
                .process_group(0);
        }
        None => {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
    }
    let child = command
        .spawn()
        .map_err(|source| command::start_error(guests.shim.path().as_os_str(), source))?;
    // The command holds the terminal's other end; while it is open here, its output cannot end.
    drop(command);
    let mut running = Running {
        child,
        group,
        detached: request.detached,
        _namespaces: namespaces,
    };
    let pid = running.child.id();
    if request.detached {
        let ended = running.started().await.on("start", guest.as_str())?;
        return Ok(session::detached(pid, ended));
    }
    let terminal = terminal.map(|(terminal, _)| terminal);
    let (sender, end) = watch::channel(None);
    let (stdin, stdout, stderr) = streams(&mut running.child, terminal.as_ref(), &end)
        .on("read the output of a command in", guest.as_str())?;
    let (alive, dropped) = oneshot::channel();
    tokio::spawn(wait(
        running,
        groups.memory.clone(),
        oom_kills,
        sender,
        dropped,
    ));
    let command = Command {
        pid,
        terminal,
        end,
        _alive: Some(alive),
    };
    Ok(ExecSession {
        stdin,
        stdout,
        stderr,
        command: Box::new(command),
    })
}

/// Waits for the end of the command or of its session, then kills the rest of the command's processes.
async fn wait(
    mut running: Running,
    memory: PathBuf,
    oom_kills_before: u64,
    end: watch::Sender<Option<Ended>>,
    dropped: oneshot::Receiver<Infallible>,
) {
    let status = tokio::select! {
        status = running.child.wait() => status,
        _ = dropped => return,
    };
    // With version 1, the count is lost with the command's cgroup.
    let oom_kills = cgroup::oom_kills(&memory);
    drop(running);
    match status {
        Ok(ended) => drop(end.send(Some(Ended {
            status: session::status(ended),
            oom_kills,
            new_oom_kills: oom_kills.saturating_sub(oom_kills_before),
        }))),
        // Dropping the sender ends the wait too.
        Err(error) => tracing::warn!(%error, "cannot wait for a command in a guest"),
    }
}

/// Completes when the command has ended.
async fn ended(mut end: End) {
    drop(end.wait_for(Option::is_some).await);
}

fn streams(
    child: &mut Child,
    terminal: Option<&Terminal>,
    end: &End,
) -> io::Result<(
    Option<Input>,
    facilities::Output,
    Option<facilities::Output>,
)> {
    if let Some(terminal) = terminal {
        let output = Output::new(terminal.descriptor(), ended(end.clone()));
        return Ok((Some(Box::pin(terminal.clone())), Box::pin(output), None));
    }
    let pipe = |pipe: OwnedFd| {
        Output::pipe(pipe, ended(end.clone())).map(|output| Box::pin(output) as facilities::Output)
    };
    let stdin = child.stdin.take().map(|stdin| Box::pin(stdin) as Input);
    let stdout = match child.stdout.take() {
        Some(stdout) => pipe(stdout.into_owned_fd()?)?,
        None => Box::pin(tokio::io::empty()),
    };
    let stderr = child
        .stderr
        .take()
        .map(|stderr| pipe(stderr.into_owned_fd()?))
        .transpose()?;
    Ok((stdin, stdout, stderr))
}

/// Reads the user and opens a terminal in the guest's file tree, on another thread: a guest can make its file system
/// slow, and must not block the daemon.
async fn user_and_terminal(
    guest: &GuestName,
    namespaces: &Namespaces,
    request: &ExecRequest,
) -> Result<(User, Option<(Terminal, OwnedFd)>), UnitError> {
    let (name, user) = (guest.clone(), request.user.clone());
    let (root, first_id) = (Arc::clone(&namespaces.root), namespaces.first_id);
    let (tty, size) = (request.tty, request.size);
    let found = tokio::task::spawn_blocking(move || {
        let user = User::find(&name, &root, user.as_deref())?;
        let pair = tty
            .then(|| terminal::open(&root, &user, first_id))
            .transpose();
        Ok::<_, UnitError>((user, pair.on("open a terminal of", name.as_str())?))
    });
    let (user, pair) = found
        .await
        .map_err(io::Error::other)
        .on("look into", guest.as_str())??;
    let terminal = pair
        .map(|(master, slave)| Ok::<_, io::Error>((Terminal::watch(master)?, slave)))
        .transpose()
        .on("open a terminal of", guest.as_str())?;
    if let (Some((terminal, _)), Some((rows, cols))) = (&terminal, size) {
        terminal.resize(rows, cols);
    }
    Ok((user, terminal))
}

/// Returns the shim's arguments: enter the cgroups, with a terminal start a session, enter the namespaces.
fn arguments(
    namespaces: &Namespaces,
    cgroups: &[PathBuf],
    user: &User,
    request: &ExecRequest,
) -> Result<Vec<OsString>, UnitError> {
    let mut arguments: Vec<OsString> = vec!["join".into()];
    for dir in cgroups {
        arguments.extend(["--cgroup".into(), dir.into()]);
    }
    arguments.push("--".into());
    if request.tty {
        arguments.extend([find_program("setsid".as_ref())?.into(), "--ctty".into()]);
    }
    let nsenter = find_program("nsenter".as_ref())?;
    let setpriv = find_program("setpriv".as_ref())?;
    arguments.extend(namespaces.arguments(&nsenter, &setpriv, user));
    arguments.extend(request.command.iter().map(OsString::from));
    Ok(arguments)
}

/// Returns the command's environment, without the daemon's.
fn environment(
    guests: &Guests,
    guest: &GuestName,
    user: &User,
    request: &ExecRequest,
) -> Result<Vec<(OsString, OsString)>, UnitError> {
    let mut path = OsString::from(PATH);
    if let Ok(closure) = std::fs::read_link(guests.config.run_dir(guest).closure()) {
        path.push(":");
        path.push(closure.join("bin"));
    }
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), path),
        ("HOME".into(), user.home.clone().into()),
        ("USER".into(), user.name.clone().into()),
        ("LOGNAME".into(), user.name.clone().into()),
    ];
    if request.tty {
        variables.push(("TERM".into(), "xterm-256color".into()));
    }
    for (name, value) in &request.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(UnitError::BadVariable { name: name.clone() });
        }
        if acts_on_host(name) {
            return Err(UnitError::HostVariable { name: name.clone() });
        }
        variables.push((name.into(), value.into()));
    }
    Ok(variables)
}

/// Reports whether the C library or the dynamic loader would act on a variable in nsenter and the other programs of
/// the host that enter the guest. They run as the host's root: `LD_PRELOAD` alone would give the caller that user.
///
/// The names are those that glibc ignores in set-user-id programs (its `unsecvars.h`), and NixOS' for locales.
fn acts_on_host(name: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "LD_",
        "LIBMOUNT_",
        "LIBSMARTCOLS_",
        "LOCALE_ARCHIVE",
        "MALLOC_",
        "SEGFAULT_",
    ];
    const NAMES: [&str; 14] = [
        "GCONV_PATH",
        "GETCONF_DIR",
        "GLIBC_TUNABLES",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_ADD_TRIM_DOMAINS",
        "RESOLV_HOST_CONF",
        "RESOLV_MULTI",
        "RESOLV_OVERRIDE_TRIM_DOMAINS",
        "RESOLV_SPOOF_CHECK",
        "RES_OPTIONS",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}
