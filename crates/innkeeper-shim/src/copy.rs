//! The guest's side of `agent cp`. It runs as a command in the guest, with the rights of its user there and no others.
//!
//! An error is one line on standard error, and its [reason](innkeeper_copy::Reason) is the exit status.

use std::fs::File;
use std::io::{self, BufWriter, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use innkeeper_copy::{
    CopyError, MAX_CHUNK, Owner, ProcessDir, Receiver, Target, Totals, skip_message,
};

use crate::print_error;

/// Receives files from standard input. Relative paths begin at the user's home directory.
///
/// Files of root belong to the owner of the directory that they are in.
pub(crate) fn receive(target: &Path, is_directory: bool) -> ExitCode {
    report(enter_home([target]).and_then(|()| {
        let target = Target::<ProcessDir>::resolve(target, is_directory)?;
        let owner = match is_root() {
            true => Owner::Directory,
            false => Owner::Process,
        };
        let mut input = io::stdin().lock();
        let received = Receiver::new(target, owner).receive(&mut input)?;
        // Reading to the end lets the other side end in its own time.
        drop(input.read(&mut [0]));
        Ok(received)
    }))
}

/// Sends files to standard output. Relative paths begin at the user's home directory.
pub(crate) fn send(sources: &[PathBuf]) -> ExitCode {
    report(enter_home(sources).and_then(|()| {
        // Not `Stdout`, which searches its data for line breaks.
        let output = io::stdout().as_fd().try_clone_to_owned();
        let output = File::from(output.map_err(CopyError::Gone)?);
        let output = BufWriter::with_capacity(MAX_CHUNK, output);
        innkeeper_copy::send::<ProcessDir>(output, sources, &mut |path| {
            print_error(&skip_message(path));
        })
    }))
}

/// Enters the home directory if one of the paths is relative.
fn enter_home(paths: impl IntoIterator<Item: AsRef<Path>>) -> Result<(), CopyError> {
    let is_needed = (paths.into_iter()).any(|path| path.as_ref().is_relative());
    let Some(home) = std::env::var_os("HOME").filter(|_| is_needed) else {
        return Ok(());
    };
    std::env::set_current_dir(&home).map_err(|source| CopyError::File {
        action: "enter the home directory",
        path: home.into(),
        source,
    })
}

/// Reports whether this process runs as root. Without `/proc`, it runs as another user.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn report(result: Result<Totals, CopyError>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::from(error.reason().status())
        }
    }
}
