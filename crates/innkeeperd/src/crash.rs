//! Dies on command, for the crash tests. Only in debug builds: a release has none of this.

use innkeeper_engine::Probe;

/// The probe that the environment asks for: `INNKEEPER_CRASH_LOG` names a file to which every point that
/// is reached is appended, `INNKEEPER_CRASH_AT` names the point at which the daemon is killed.
#[cfg(debug_assertions)]
pub(crate) fn probe() -> Option<Probe> {
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
    Some(std::sync::Arc::new(
        move |point: innkeeper_engine::Point| {
            let point = point.to_string();
            if let Some(mut file) = file.as_ref() {
                // One write, so that lines of steps that run at the same time do not mix.
                drop(file.write_all(format!("{point}\n").as_bytes()));
            }
            if fatal.as_ref() == Some(&point) {
                kill(Pid::this(), Signal::SIGKILL).ok();
                // The signal is on its way; nothing more must happen.
                loop {
                    std::thread::park();
                }
            }
        },
    ))
}

#[cfg(not(debug_assertions))]
pub(crate) fn probe() -> Option<Probe> {
    None
}
