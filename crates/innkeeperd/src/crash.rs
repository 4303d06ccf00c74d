//! Dies on command, for the crash tests. Only in debug builds: a release has none of this.

use std::sync::Arc;

use innkeeper_engine::Probe;

/// The engine's probe, if the environment asks for one; see [`point`].
pub(crate) fn probe() -> Option<Probe> {
    let point = point()?;
    Some(Arc::new(move |reached: innkeeper_engine::Point| {
        point(&reached.to_string());
    }))
}

/// The previews' probe.
pub(crate) fn preview_probe() -> Option<innkeeper_preview::Probe> {
    point()
}

/// What the environment asks for: `INNKEEPER_CRASH_LOG` names a file to which every point that is reached is
/// appended, `INNKEEPER_CRASH_AT` names the point at which the daemon is killed.
#[cfg(debug_assertions)]
fn point() -> Option<innkeeper_preview::Probe> {
    use std::io::Write;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let fatal = std::env::var("INNKEEPER_CRASH_AT").ok();
    let log = std::env::var_os("INNKEEPER_CRASH_LOG");
    if fatal.is_none() && log.is_none() {
        return None;
    }
    let file = log.and_then(|path| {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .ok()
    });
    Some(Arc::new(move |point: &str| {
        if let Some(mut file) = file.as_ref() {
            // One write, so that lines of steps that run at the same time do not mix.
            drop(file.write_all(format!("{point}\n").as_bytes()));
        }
        if fatal.as_deref() == Some(point) {
            kill(Pid::this(), Signal::SIGKILL).ok();
            // The signal is on its way; nothing more must happen.
            loop {
                std::thread::park();
            }
        }
    }))
}

#[cfg(not(debug_assertions))]
fn point() -> Option<innkeeper_preview::Probe> {
    None
}
