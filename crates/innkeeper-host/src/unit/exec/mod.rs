//! Commands run in a guest from outside, without the guest's help.
//!
//! The command enters the guest's namespaces and its cgroup with `nsenter`. The namespaces are handed over
//! as descriptors of ours and not as a process id: by the time nsenter looks, the id could belong to
//! somebody else, and the command would run on the host.
//!
//! Entering a user namespace gives all capabilities in it (user_namespaces(7)), also those that the guest's
//! own processes were denied; they reach no further than the guest's namespaces. Where guests have no user
//! namespace, the command gets those of the guest's first process and no others.

mod namespaces;
mod terminal;
mod tree;
mod user;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use namespaces::Namespaces;
use terminal::Terminal;
use user::User;

use super::cgroup;
use super::error::UnitError;
use super::guests::Guests;
use super::keeper::Groups;
use super::leader;
use super::process::{Process, find_program};
use crate::features::UserIds;
use crate::{FileErrorExt, command};

/// Where programs are in a NixOS guest, and in others; the closure's own programs come last.
const PATH: &str = "/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/bin:/sbin";

/// A command that runs in a guest. It is killed when this is dropped before it ended.
pub struct ExecSession {
    /// The command's standard input; with a terminal, what is typed. Dropping it ends the input, except
    /// with a terminal.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send + Sync>>>,
    /// The command's standard output; with a terminal, all that it shows.
    pub stdout: Pin<Box<dyn AsyncRead + Send + Sync>>,
    /// The command's standard error; nothing with a terminal.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send + Sync>>>,
    child: Child,
    terminal: Option<Terminal>,
    /// The cgroup with nsenter and the command.
    cgroup: PathBuf,
    /// nsenter opens these through us.
    _namespaces: Namespaces,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession")
            .field("pid", &self.child.id())
            .field("terminal", &self.terminal.is_some())
            .finish_non_exhaustive()
    }
}

impl ExecSession {
    /// Tells the terminal its new size. Without a terminal, nothing happens.
    pub fn resize(&self, rows: u16, cols: u16) {
        if let Some(terminal) = &self.terminal {
            terminal.resize(rows, cols);
        }
    }

    /// Waits for the command's end and returns its exit status, 128 + n for signal n; 127 when the guest
    /// has no such program.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub async fn wait(&mut self) -> io::Result<i32> {
        Ok(status(self.child.wait().await?))
    }
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        // It is there until it has been waited for, so the number is still its own.
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return;
        };
        // nsenter only waits for the command, which would outlive it. Stopped, it can make no new one.
        let killed = kill_process(pid, Signal::STOP)
            .map_err(io::Error::from)
            .and_then(|()| kill_children(pid, &self.cgroup))
            .and_then(|()| self.child.start_kill());
        if let Err(error) = killed {
            tracing::warn!(%error, "cannot kill a command in a guest");
        }
    }
}

fn kill_children(parent: Pid, cgroup: &Path) -> io::Result<()> {
    let parent = u32::try_from(parent.as_raw_nonzero().get()).map_err(io::Error::other)?;
    for pid in cgroup::pids(cgroup)? {
        if leader::parent(pid) == Some(parent)
            && let Some(process) = Process::in_cgroup(pid, cgroup)?
        {
            process.signal(Signal::KILL)?;
        }
    }
    Ok(())
}

fn status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

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
    // Still the same process, so these were its own.
    if !process.is_alive().on("look at", guest.as_str())? {
        return Err(not_running());
    }
    let (user, terminal) = ask_guest(guest, &namespaces, request).await?;
    let environment = environment(guests, guest, &user, request)?;
    for dir in &groups.exec {
        cgroup::make(dir)?;
    }
    let words = words(&namespaces, &groups.exec, &user, request)?;

    let mut command = command::command(guests.shim.path());
    command
        .args(words)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .kill_on_drop(true);
    match &terminal {
        Some((_, slave)) => {
            let slave = || {
                slave
                    .try_clone()
                    .on("hand over the terminal of", guest.as_str())
            };
            command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
        }
        None => {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
    }
    let mut child = command
        .spawn()
        .map_err(|source| command::start_error(guests.shim.path().as_os_str(), source))?;
    // The command holds the terminal's other end; as long as it is open here, no end can come.
    drop(command);
    let terminal = terminal.map(|(terminal, _)| terminal);
    let (stdin, stdout, stderr) = streams(&mut child, terminal.as_ref());
    Ok(ExecSession {
        stdin,
        stdout,
        stderr,
        child,
        terminal,
        cgroup: groups.exec.first().cloned().unwrap_or_default(),
        _namespaces: namespaces,
    })
}

type Input = Pin<Box<dyn AsyncWrite + Send + Sync>>;
type Output = Pin<Box<dyn AsyncRead + Send + Sync>>;

fn streams(
    child: &mut Child,
    terminal: Option<&Terminal>,
) -> (Option<Input>, Output, Option<Output>) {
    if let Some(terminal) = terminal {
        return (
            Some(Box::pin(terminal.clone())),
            Box::pin(terminal.clone()),
            None,
        );
    }
    let stdin = child.stdin.take().map(|stdin| Box::pin(stdin) as Input);
    let stdout = child.stdout.take().map_or_else(
        || Box::pin(tokio::io::empty()) as Output,
        |stdout| Box::pin(stdout),
    );
    let stderr = child.stderr.take().map(|stderr| Box::pin(stderr) as Output);
    (stdin, stdout, stderr)
}

/// What is asked of the guest's file tree. A guest that makes its own file system slow must not stop us.
async fn ask_guest(
    guest: &GuestName,
    namespaces: &Namespaces,
    request: &ExecRequest,
) -> Result<(User, Option<(Terminal, OwnedFd)>), UnitError> {
    let (name, wanted) = (guest.clone(), request.user.clone());
    let (root, first_id) = (Arc::clone(&namespaces.root), namespaces.first_id);
    let (tty, size) = (request.tty, request.size);
    let asked = tokio::task::spawn_blocking(move || {
        let user = User::find(&name, &root, wanted.as_deref())?;
        let pair = tty
            .then(|| terminal::open(&root, &user, first_id))
            .transpose();
        Ok::<_, UnitError>((user, pair.on("open a terminal of", name.as_str())?))
    });
    let (user, pair) = asked
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

/// The shim's words: into the cgroups, with a terminal into a session of its own, into the namespaces.
fn words(
    namespaces: &Namespaces,
    cgroups: &[PathBuf],
    user: &User,
    request: &ExecRequest,
) -> Result<Vec<OsString>, UnitError> {
    let mut words: Vec<OsString> = vec!["join".into()];
    for dir in cgroups {
        words.extend(["--cgroup".into(), dir.into()]);
    }
    words.push("--".into());
    if request.tty {
        words.extend([find_program("setsid".as_ref())?.into(), "--ctty".into()]);
    }
    if let Some(capabilities) = &namespaces.capabilities {
        words.push(find_program("setpriv".as_ref())?.into());
        words.push(format!("--bounding-set={capabilities}").into());
    }
    words.push(find_program("nsenter".as_ref())?.into());
    words.extend(namespaces.words());
    words.push(format!("--setuid={}", user.uid).into());
    words.push(format!("--setgid={}", user.gid).into());
    words.push("--".into());
    words.extend(request.command.iter().map(OsString::from));
    Ok(words)
}

/// A clean environment: nothing of the daemon's.
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
        variables.push((name.into(), value.into()));
    }
    Ok(variables)
}
