//! Resets ignored signals, so that programs in guests do not inherit them from the daemon's parent.
//!
//! An ignored signal stays ignored across execve(2), and a handled one is reset to its default. A shell that starts the
//! daemon in the background may make it ignore SIGINT and SIGQUIT; Ctrl-C in a guest's terminal would then have no effect.
//! So each ignored signal gets an empty handler. The standard library resets the signal mask and SIGPIPE for every child.

use std::fs;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Signals that stay ignored. With a handler for SIGTTIN and SIGTTOU, background access to a terminal would be retried
/// forever. The C library reserves the other two and refuses handlers for them.
const LEFT_ALONE: [i32; 4] = [21, 22, 32, 33];

/// Gives each ignored signal an empty handler, for the life of this process.
///
/// # Errors
/// When the ignored signals cannot be read, or the kernel refuses a handler.
pub(super) fn hand_down_defaults() -> io::Result<()> {
    for number in ignored(&fs::read_to_string("/proc/self/status")?) {
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

/// Parses the ignored signals of a process from its `status` (proc(5)).
fn ignored(status: &str) -> Vec<i32> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    (1..=64)
        .filter(|number| mask >> (number - 1) & 1 == 1 && !LEFT_ALONE.contains(number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_parsed_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t8000000180300006\n";
        assert_eq!(ignored(status), [2, 3, 64]);
        assert_eq!(ignored("Name:\tx\n"), [0; 0]);
    }
}
