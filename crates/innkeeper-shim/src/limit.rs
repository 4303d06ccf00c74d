//! Limits the use of a user namespace's kernel tables.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::arguments::UserLimits;
use crate::{USAGE, kernel, print_error};

/// The limits of the user namespace of the process that opens them: namespaces(7).
const DIR: &str = "/proc/sys/user";

/// Enters the user namespace, and writes its limits. Older kernels lack some, which are left out.
pub(crate) fn run(limits: &UserLimits) -> ExitCode {
    match enter_and_write(limits) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(USAGE)
        }
    }
}

fn enter_and_write(limits: &UserLimits) -> Result<(), String> {
    // The host's user namespace owns the mount namespace, so it is entered first.
    for namespace in limits.mounts.iter().chain([&limits.user]) {
        File::open(namespace)
            .and_then(|namespace| kernel::enter_namespace(&namespace))
            .map_err(|error| format!("cannot enter {}: {error}", namespace.display()))?;
    }
    for (name, limit) in &limits.limits {
        let file = Path::new(DIR).join(name);
        match write(&file, limit.as_encoded_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot write {}: {error}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(text)
}
