//! The progress of a copy on a terminal.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;
use crate::tunnel::Guest;

/// A display of the bytes that were copied, and of their rate. Without a terminal, nothing is shown. Cleared on drop.
#[derive(Debug)]
pub(super) struct Meter(Option<ProgressBar>);

impl Meter {
    pub(super) fn start(output: &Output, guest: &Guest) -> Self {
        if output.is_silent() || !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = "{spinner} {msg}: {binary_bytes} ({binary_bytes_per_sec})";
        let bar = ProgressBar::new_spinner().with_message(format!(
            "Copying, {} {}",
            guest.program(),
            guest.name()
        ));
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// Counts bytes of the stream.
    pub(super) fn count(&self, bytes: usize) {
        if let Self(Some(bar)) = self {
            bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Self(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
