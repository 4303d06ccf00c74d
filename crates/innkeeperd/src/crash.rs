//! Crash probe for the crash tests. Only in debug builds.

use std::sync::Arc;

use innkeeper_engine::Probe;

/// Returns the engine's probe, if the environment configures one; see [`point`].
pub(crate) fn probe() -> Option<Probe> {
    let point = point()?;
    Some(Arc::new(move |reached: innkeeper_engine::Point| {
        point(&reached.to_string());
    }))
}

/// Returns the previews' probe, if the environment configures one.
pub(crate) fn preview_probe() -> Option<innkeeper_preview::Probe> {
    point()
}

/// Returns the configured probe. It appends each point that is reached to the file `INNKEEPER_CRASH_LOG`, and kills the
/// daemon at the point `INNKEEPER_CRASH_AT`.
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
            // One write, so that lines of concurrent steps do not mix.
            drop(file.write_all(format!("{point}\n").as_bytes()));
        }
        if fatal.as_deref() == Some(point) {
            kill(Pid::this(), Signal::SIGKILL).ok();
            // Blocks until the signal arrives: no further step may run.
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
