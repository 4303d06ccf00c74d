//! Words for people about the model's values.

use innkeeper_model::api::GuestView;
use innkeeper_model::{BuildProgress, EventKind};
use jiff::Timestamp;

/// What happened, in one line without a full stop.
pub(crate) fn event(kind: &EventKind) -> String {
    let text = match kind {
        EventKind::Accepted { verb } => format!("{verb} accepted"),
        EventKind::StepStarted { step } => activity(step),
        EventKind::StepDone { step, micros } => {
            format!("{} took {}", activity(step), duration(*micros))
        }
        EventKind::StepFailed { step, failure } => format!("{} failed: {failure}", activity(step)),
        EventKind::Progress { progress } => build(progress),
        EventKind::Built { what, closure } => format!("{what} is {closure}"),
        EventKind::Finished => "finished".to_owned(),
        EventKind::Failed { failure } => format!("failed: {failure}"),
        EventKind::Exited { status } => format!("the guest ended by itself with status {status}"),
        EventKind::OomKilled { kills, memory } => format!(
            "the kernel killed {} of the guest, which had used all of its {memory} of memory",
            processes(*kills)
        ),
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

/// What people should know of a guest whose processes the kernel killed for want of memory.
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

/// A step of an operation in words.
fn activity(step: &str) -> String {
    let words = match step {
        "resolve-closure" => "finding the closure",
        "ensure-closure" => "registering the closure",
        "ensure-rootfs" => "making the file tree",
        "forget-identity" => "removing the copied identity",
        "adopt-files" => "taking over the files",
        "retain-rootfs" => "keeping the files",
        "remove-retained" => "removing the files",
        "take-snapshot" => "taking the snapshot",
        "delete-snapshot" => "deleting the snapshot",
        "restore-rootfs" => "restoring the file tree",
        "ensure-secrets" => "writing keys and credentials",
        "prepare-unit" => "preparing the unit",
        "ensure-unit" => "starting the unit",
        "ensure-network" => "setting up the network",
        "release" => "starting the init",
        "stop-unit" => "stopping the unit",
        "remove-unit" => "removing the unit",
        "remove-network" => "removing the network",
        "remove-rootfs" => "removing the file tree",
        "remove-closure" => "releasing the closure",
        "forget" => "deleting the record",
        // A newer daemon's: its name reads well enough without the hyphens.
        other => return other.replace('-', " "),
    };
    words.to_owned()
}

fn build(progress: &BuildProgress) -> String {
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

/// The text with a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let stop = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{text}{stop}")
}

/// A span of microseconds with the unit that suits it.
fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// An amount of bytes in whole MiB, rounded.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes.saturating_add(1 << 19) >> 20;
    match mebibytes {
        0 if bytes > 0 => "less than 1 MiB".to_owned(),
        _ => format!("{mebibytes} MiB"),
    }
}

/// A time in UTC, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Text from a guest or from Nix without what would move a terminal's cursor or change its state.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// `1 orphan`, `2 orphans`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_suits_them() {
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
    fn steps_are_shown_in_words() {
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
    fn a_builds_counts_are_shown_when_there_are_some() {
        let mut progress = BuildProgress {
            activity: "building guest".to_owned(),
            ..BuildProgress::default()
        };
        assert_eq!(build(&progress), "building guest");
        (progress.built, progress.to_build) = (3, 17);
        progress.to_fetch_bytes = 1 << 20;
        assert_eq!(
            build(&progress),
            "building guest (3 of 17 built, 0 of 1 MiB fetched)"
        );
    }

    #[test]
    fn nobody_moves_the_callers_cursor() {
        assert_eq!(
            plain("\u{1b}[31mred\u{1b}[0m\u{7}\tx\r\n\u{1b}]0;title\u{7}y"),
            "red\tx\ny"
        );
    }
}
