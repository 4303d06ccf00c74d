//! Reads the system call filters that nspawn installs, from a guest that is started for this only.
//!
//! ```text
//! DIR/door/socket   the socket that the guest's first process connects to
//! DIR/programs      result: the encoded filters
//! DIR/files         result: the program files from which they were made, with a null byte after each path
//! DIR/error         the reason for a failure
//! ```
//!
//! The guest's first process is this program with the verb `park`: by then, nspawn has installed the filters, and nobody else
//! has added any. It ends when its connection does, so that nothing outlives this process.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Program;
use crate::kernel::{self, Filter};
use crate::{USAGE, filters, print_error};

/// The time that the guest has until its first process is connected, and nspawn until it has ended.
const LIMIT: Duration = Duration::from_secs(10);

/// Interval of polls for changes that the kernel does not announce.
const PAUSE: Duration = Duration::from_millis(2);

/// The more filters a process has, the less likely they are nspawn's.
const MAX_FILTERS: usize = 64;

/// CAP_SYS_ADMIN as a bit of a set of capabilities.
const SYS_ADMIN: u64 = 1 << 21;

/// Connects, and returns when the connection ends: the first process of the guest whose filters are read.
pub(crate) fn park(socket: &Path) -> ExitCode {
    match UnixStream::connect(socket).and_then(|mut connection| connection.read(&mut [0])) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(USAGE),
    }
}

/// Prints the encoded filters of a process.
pub(crate) fn print(pid: u32) -> ExitCode {
    let filters = stopped(pid, || filters_of(pid));
    let printed = filters.and_then(|filters| {
        let printed = io::stdout().write_all(&filters::encode(&filters));
        printed.map_err(|error| format!("cannot print them: {error}"))
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_error(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Starts the guest, reads its filters and writes the results.
pub(crate) fn run(dir: &Path, nspawn: &Program) -> ExitCode {
    match read(dir, nspawn) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_error(&reason);
            if let Err(error) = fs::write(dir.join("error"), &reason) {
                print_error(&format!("cannot write the reason: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn read(dir: &Path, nspawn: &Program) -> Result<(), String> {
    let listener = listen(&dir.join("door")).map_err(|error| format!("cannot listen: {error}"))?;
    let log = dir.join("log");
    let mut guest = Guest::start(nspawn, &log)?;
    let connection = guest.accept(&listener)?;
    let leader = guest.leader()?;
    let read = stopped(leader, || filters_of(leader))?;
    let files = program_files(guest.nspawn.id())?;
    drop(connection);
    guest.end()?;
    let list = filters::encode(&read);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).map_err(|error| format!("cannot write {name}: {error}"))
    };
    write("files", &files)?;
    write("programs", &list)?;
    // As the door will do it. This process needs no call that a guest's processes may not make.
    filters::install(&list)
}

/// Listens in a directory. The path of a socket has at most 107 bytes; a relative one is short.
fn listen(door: &Path) -> io::Result<UnixListener> {
    std::env::set_current_dir(door)?;
    let listener = UnixListener::bind("socket")?;
    std::env::set_current_dir("/")?;
    // The guest's root is another user here.
    fs::set_permissions(door.join("socket"), Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The guest whose filters are read.
struct Guest<'a> {
    nspawn: Child,
    log: &'a Path,
}

impl<'a> Guest<'a> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this program holds no secrets, and has no crate::command"
    )]
    fn start(program: &Program, log: &'a Path) -> Result<Self, String> {
        let spawn = || {
            let output = File::create(log)?;
            Command::new(&program.path)
                .args(&program.arguments)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
        };
        let nspawn =
            spawn().map_err(|error| format!("cannot run {}: {error}", program.path.display()))?;
        Ok(Self { nspawn, log })
    }

    /// Waits for the first process: it is connected once it executes this program.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, String> {
        self.poll("does not reach its first process", || {
            match listener.accept() {
                Ok((connection, _)) => Ok(Some(connection)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(format!("cannot accept a connection: {error}")),
            }
        })
    }

    /// Returns the guest's first process: nspawn's child with the id 1 in a namespace of its own.
    fn leader(&self) -> Result<u32, String> {
        let nspawn = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))
            .map_err(|error| format!("cannot list the children of nspawn: {error}"))?;
        children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .find(|pid| {
                field(*pid, "NSpid").is_some_and(|ids| {
                    matches!(
                        ids.split_ascii_whitespace().collect::<Vec<_>>()[..],
                        [_, "1"]
                    )
                })
            })
            .ok_or_else(|| "the guest's first process is not found".to_owned())
    }

    /// Waits for the guest's end.
    fn end(mut self) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if self.status()?.is_some() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Err("nspawn does not end".to_owned())
    }

    /// Returns the description of nspawn's end; `None` while it runs.
    fn status(&mut self) -> Result<Option<String>, String> {
        let status = self.nspawn.try_wait();
        let status = status.map_err(|error| format!("cannot wait for nspawn: {error}"))?;
        Ok(status.map(|status| {
            let log = fs::read_to_string(self.log).unwrap_or_default();
            let last = log.lines().rfind(|line| !line.trim().is_empty());
            format!(
                "nspawn ended with {status}: {}",
                last.unwrap_or_default().trim()
            )
        }))
    }

    fn poll<T>(
        &mut self,
        problem: &str,
        mut attempt: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(value) = attempt()? {
                return Ok(value);
            }
            if let Some(end) = self.status()? {
                return Err(end);
            }
            thread::sleep(PAUSE);
        }
        Err(format!("nspawn {problem}"))
    }
}

/// Runs `work` while a process is stopped.
fn stopped<T>(pid: u32, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let failed = |error| format!("cannot trace the guest's first process: {error}");
    kernel::seize(pid).map_err(failed)?;
    kernel::interrupt(pid).map_err(failed)?;
    let deadline = Instant::now() + LIMIT;
    // "t (tracing stop)" (proc_pid_status(5)).
    while !field(pid, "State").is_some_and(|state| state.starts_with('t')) {
        if Instant::now() > deadline {
            return Err("the guest's first process does not stop".to_owned());
        }
        thread::sleep(PAUSE);
    }
    let result = work();
    kernel::detach(pid).map_err(failed)?;
    result
}

fn filters_of(pid: u32) -> Result<Vec<Filter>, String> {
    if field(pid, "Seccomp").as_deref() != Some("2") {
        return Err("nspawn installs none".to_owned());
    }
    let effective = field(pid, "CapEff").and_then(|set| u64::from_str_radix(&set, 16).ok());
    if effective.is_none_or(|set| set & SYS_ADMIN == 0) {
        return Err("the guest has no CAP_SYS_ADMIN to install them".to_owned());
    }
    let mut found = Vec::new();
    while let Some(filter) = kernel::filter(pid, found.len()).map_err(|error| refused(&error))? {
        if kernel::flags(pid, found.len()).map_err(|error| refused(&error))? != 0 {
            return Err("nspawn installs them with a flag (SECCOMP_FILTER_FLAG_LOG)".to_owned());
        }
        found.push(filter);
        if found.len() > MAX_FILTERS {
            return Err(format!("there are more than {MAX_FILTERS}"));
        }
    }
    Ok(found)
}

fn refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the kernel does not show them to a process that has a filter itself".to_owned()
        }
        _ => format!("the kernel does not show them (CONFIG_CHECKPOINT_RESTORE): {error}"),
    }
}

/// Returns a field of `/proc/<pid>/status`.
fn field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Returns the program of a process and its libraries, with a null byte after each path.
fn program_files(pid: u32) -> Result<Vec<u8>, String> {
    let maps = fs::read(format!("/proc/{pid}/maps"))
        .map_err(|error| format!("cannot list the files of nspawn: {error}"))?;
    let mut found: Vec<&[u8]> = Vec::new();
    for line in maps.split(|byte| *byte == b'\n') {
        // Five fields, separated by one space each, then spaces and the path (proc_pid_maps(5)).
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let is_executable = fields.nth(1).is_some_and(|mode| mode.get(2) == Some(&b'x'));
        let path = fields.nth(3).map_or(&b""[..], <[u8]>::trim_ascii_start);
        if is_executable && path.starts_with(b"/") && !found.contains(&path) {
            found.push(path);
        }
    }
    if let Some(gone) = found.iter().find(|path| path.ends_with(b" (deleted)")) {
        let gone = OsString::from_vec(gone.to_vec());
        return Err(format!("{} was just replaced", gone.display()));
    }
    Ok(found
        .iter()
        .flat_map(|path| [path, &b"\0"[..]])
        .flatten()
        .copied()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_files_are_those_that_are_executed() {
        let files = program_files(std::process::id()).expect("a list");
        let own = std::env::current_exe().expect("a path");
        let files: Vec<_> = files.split(|byte| *byte == 0).collect();
        assert!(files.contains(&own.as_os_str().as_encoded_bytes()));
        assert!(
            files
                .iter()
                .all(|file| file.is_empty() || file.starts_with(b"/"))
        );
    }

    #[test]
    fn failure_is_recorded_with_its_reason() {
        let dir = std::env::temp_dir().join(format!("shim-read-filters-{}", std::process::id()));
        fs::create_dir_all(dir.join("door")).expect("made");
        let program = |path: &str, arguments: &[&str]| Program {
            path: path.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
        };
        let reason = read(&dir, &program("/no/such/nspawn", &[])).expect_err("no program");
        assert!(reason.contains("/no/such/nspawn"), "{reason}");
        fs::remove_file(dir.join("door/socket")).expect("removed");
        let script = ["-c", "echo no such tree; exit 3"];
        let reason = read(&dir, &program("/bin/sh", &script)).expect_err("it ended");
        assert!(reason.contains("exit status: 3: no such tree"), "{reason}");
        for file in ["door/socket", "log"] {
            fs::remove_file(dir.join(file)).expect("removed");
        }
        fs::remove_dir(dir.join("door")).expect("removed");
        fs::remove_dir(dir).expect("removed");
    }
}
