//! Human-readable descriptions of the model's values.

use innkeeper_model::api::GuestView;
use innkeeper_model::{BuildProgress, EventKind};
use jiff::{SignedDuration, Timestamp};

/// Describes an event in one line, without a full stop.
pub(crate) fn event(kind: &EventKind) -> String {
    let text = match kind {
        EventKind::Accepted { verb } => format!("{verb} accepted"),
        EventKind::StepStarted { step } => step_label(step),
        EventKind::StepDone { step, micros } => {
            format!("{} took {}", step_label(step), duration(*micros))
        }
        EventKind::StepFailed { step, failure } => {
            format!("{} failed: {failure}", step_label(step))
        }
        EventKind::Progress { progress } => build_progress(progress),
        EventKind::Built { what, closure } => format!("{what} is {closure}"),
        EventKind::Finished => "finished".to_owned(),
        EventKind::Failed { failure } => format!("failed: {failure}"),
        EventKind::Exited { status } => format!("the guest exited with status {status}"),
        EventKind::OomKilled { kills, memory } => format!(
            "the kernel killed {} of the guest, which had used all of its {memory} of memory",
            processes(*kills)
        ),
        EventKind::Attempt { number, commit } => {
            format!("attempt {number} of {commit:.7} begins")
        }
        EventKind::Note { text } => text.clone(),
    };
    plain(&text).replace('\n', " ")
}

fn processes(number: u64) -> String {
    match number {
        1 => "1 process".to_owned(),
        _ => format!("{number} processes"),
    }
}

/// Describes the processes of a guest that the kernel killed because the guest was out of memory, with a remedy.
pub(crate) fn oom_kills(view: &GuestView) -> Option<String> {
    let guest = &view.guest;
    (view.oom_kills > 0).then(|| {
        format!(
            "{}. {}",
            guest.oom_finding(view.oom_kills),
            guest.oom_remedy()
        )
    })
}

/// Describes why a guest did not come up with its own system, with a remedy.
pub(crate) fn own_system_failure(view: &GuestView) -> Option<String> {
    let failure = view.guest.own_system.as_ref()?.failure.as_ref()?;
    let remedy = failure.remedy.as_deref().unwrap_or_default();
    let text = format!("{}. {remedy}", failure.message);
    Some(plain(text.trim_end()))
}

/// Describes a step of an operation.
fn step_label(step: &str) -> String {
    let label = match step {
        "prefetch-closure" => "building a closure in advance",
        "resolve-closure" => "finding the closure",
        "ensure-closure" => "registering the closure",
        "ensure-rootfs" => "creating the file tree",
        "forget-identity" => "removing the copied identity",
        "adopt-files" => "adopting the retained files",
        "retain-rootfs" => "retaining the files",
        "remove-retained" => "removing the retained files",
        "take-snapshot" => "taking the snapshot",
        "delete-snapshot" => "deleting the snapshot",
        "restore-rootfs" => "restoring the file tree",
        "resolve-change" => "finding the new closure",
        "pin-closures" => "registering both closures",
        "begin-change" => "recording the new closure",
        "switch-guest" => "switching the running system",
        "switch-back" => "switching the running system back",
        "confirm-stop" => "recording the stop",
        "check-guest" => "checking the system",
        "settle-closure" => "releasing the other closure",
        "end-change" => "recording the result",
        "take-seat" => "taking over a guest that waits",
        "drop-seat" => "removing the guest that waits",
        "ensure-secrets" => "writing keys and credentials",
        "prepare-unit" => "preparing the unit",
        "ensure-unit" => "starting the unit",
        "ensure-network" => "setting up the network",
        "choose-system" => "choosing the system",
        "release" => "starting the init",
        "check-system" => "waiting for the agent's own system",
        "leave-system" => "leaving the agent's own system",
        "freeze" => "freezing the processes",
        "thaw" => "continuing the processes",
        "record-sleep" => "recording the sleep",
        "stop-unit" => "stopping the unit",
        "remove-unit" => "removing the unit",
        "remove-network" => "removing the network",
        "remove-rootfs" => "removing the file tree",
        "remove-closure" => "releasing the closure",
        "forget" => "deleting the record",
        // A step of a newer daemon.
        other => return other.replace('-', " "),
    };
    label.to_owned()
}

fn build_progress(progress: &BuildProgress) -> String {
    let mut text = match progress.activity.as_str() {
        "" => "building".to_owned(),
        activity => activity.to_owned(),
    };
    let mut counts = Vec::new();
    if progress.to_build > 0 {
        counts.push(format!("{} of {} built", progress.built, progress.to_build));
    }
    if progress.to_fetch_bytes > 0 {
        let mebibyte = 1 << 20;
        let (fetched, all) = (progress.fetched_bytes, progress.to_fetch_bytes);
        counts.push(format!(
            "{} of {} MiB fetched",
            fetched / mebibyte,
            all.div_ceil(mebibyte)
        ));
    }
    if !counts.is_empty() {
        text.push_str(&format!(" ({})", counts.join(", ")));
    }
    text
}

/// Adds a full stop to a text without end punctuation.
pub(crate) fn sentence(text: &str) -> String {
    let stop = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{text}{stop}")
}

/// Formats microseconds with a suitable unit.
fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// Formats bytes in MiB, rounded.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes.saturating_add(1 << 19) >> 20;
    match mebibytes {
        0 if bytes > 0 => "less than 1 MiB".to_owned(),
        _ => format!("{mebibytes} MiB"),
    }
}

/// Formats an elapsed time in its largest unit: `45s`, `12m`, `5h`, `3d`.
pub(crate) fn elapsed(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a time in UTC, in seconds.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Removes control characters and escape sequences from text of a guest or of Nix, except line breaks and tabs.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// Formats a number with its noun: `1 orphan`, `2 orphans`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_suitable_units() {
        assert_eq!(duration(640), "640 µs");
        assert_eq!(duration(1_234), "1.2 ms");
        assert_eq!(duration(61_500_000), "61.5 s");
        assert_eq!(mebibytes(12_900_000), "12 MiB");
        assert_eq!(mebibytes(4 << 30), "4096 MiB");
        assert_eq!(mebibytes(1), "less than 1 MiB");
        assert_eq!(mebibytes(0), "0 MiB");
        assert_eq!(mebibytes(u64::MAX), "17592186044415 MiB");
    }

    #[test]
    fn steps_have_readable_labels() {
        let started = |step: &str| event(&EventKind::StepStarted { step: step.into() });
        assert_eq!(started("ensure-network"), "setting up the network");
        assert_eq!(started("adopt-volume"), "adopt volume");
        let done = EventKind::StepDone {
            step: "ensure-unit".into(),
            micros: 1_234,
        };
        assert_eq!(event(&done), "starting the unit took 1.2 ms");
    }

    #[test]
    fn build_progress_omits_counts_of_zero() {
        let mut progress = BuildProgress {
            activity: "building guest".to_owned(),
            ..BuildProgress::default()
        };
        assert_eq!(build_progress(&progress), "building guest");
        (progress.built, progress.to_build) = (3, 17);
        progress.to_fetch_bytes = 1 << 20;
        assert_eq!(
            build_progress(&progress),
            "building guest (3 of 17 built, 0 of 1 MiB fetched)"
        );
    }

    #[test]
    fn elapsed_time_has_one_unit() {
        let all = [-5, 0, 59, 60, 3_599, 3_600, 86_399, 86_400, 900_000];
        let shown = all.map(|seconds| elapsed(SignedDuration::from_secs(seconds)));
        assert_eq!(
            shown,
            ["0s", "0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d"]
        );
    }

    #[test]
    fn plain_removes_control_sequences() {
        assert_eq!(
            plain("\u{1b}[31mred\u{1b}[0m\u{7}\tx\r\n\u{1b}]0;title\u{7}y"),
            "red\tx\ny"
        );
    }
}
