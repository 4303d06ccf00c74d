//! What programs in guests do on signals does not depend on who started the daemon.
//!
//! A signal that is ignored stays so in programs that are executed, and one that is handled has its default there
//! (execve(2)). A shell that starts the daemon in the background may have it ignore SIGINT and SIGQUIT; Ctrl-C in a
//! guest's terminal would do nothing then. So what is ignored gets a handler that does nothing either. For the signal
//! mask and SIGPIPE, the standard library does the same whenever it starts a program.

use std::fs;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// With a handler for SIGTTIN and SIGTTOU, what uses a terminal from the background would be tried again without end.
/// The next two are the C library's own, which takes no handler for them.
const LEFT_ALONE: [i32; 4] = [21, 22, 32, 33];

/// Sees to it that no program inherits an ignored signal. It holds for as long as this process is there.
///
/// # Errors
/// When the kernel does not say what is ignored, or refuses a handler.
pub(super) fn hand_down_defaults() -> io::Result<()> {
    for number in ignored(&fs::read_to_string("/proc/self/status")?) {
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

/// The signals that a process ignores, from its `status` (proc(5)).
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
    fn the_mask_names_signals_by_their_bits() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t8000000180300006\n";
        assert_eq!(ignored(status), [2, 3, 64]);
        assert_eq!(ignored("Name:\tx\n"), [0; 0]);
    }
}
