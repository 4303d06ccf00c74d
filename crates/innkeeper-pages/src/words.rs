//! States and durations in words.

use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::page::{Interruption, PageStatus};
use jiff::{SignedDuration, Timestamp};

/// The mood of a state, which determines its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Work is in progress.
    Busy,
    /// Somebody has to do something.
    Waiting,
    /// The commit failed.
    Failed,
    /// The preview is out of use.
    Idle,
}

impl Mood {
    /// Returns the class in the style sheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Idle => "idle",
        }
    }
}

/// The wake of a sleeping preview.
enum Wake {
    InProgress,
    Failed,
}

fn wake(status: &PageStatus) -> Option<Wake> {
    Some(match status.wake?.retry_at {
        None => Wake::InProgress,
        Some(_) => Wake::Failed,
    })
}

/// Returns the mood of a status.
pub(crate) fn mood(status: &PageStatus) -> Mood {
    match wake(status) {
        Some(Wake::InProgress) => return Mood::Busy,
        Some(Wake::Failed) => return Mood::Failed,
        None => {}
    }
    match status.interruption {
        Some(Interruption::Stopped | Interruption::Asleep) => Mood::Idle,
        Some(Interruption::Restarting) => Mood::Busy,
        None => mood_of_state(status.state),
    }
}

/// Returns the headline of a status.
pub(crate) fn headline(status: &PageStatus) -> &'static str {
    match wake(status) {
        Some(Wake::InProgress) => return "Waking up",
        Some(Wake::Failed) => return "It does not wake",
        None => {}
    }
    match status.interruption {
        Some(Interruption::Stopped) => "Stopped",
        Some(Interruption::Asleep) => "Asleep",
        Some(Interruption::Restarting) => "Restarting",
        None => headline_of_state(status.state),
    }
}

/// Returns a sentence about a status.
pub(crate) fn sentence(status: &PageStatus) -> &'static str {
    match wake(status) {
        Some(Wake::InProgress) => {
            return "The preview was asleep. It starts, and this page shows it once it answers.";
        }
        Some(Wake::Failed) => {
            return "The preview is asleep and could not be woken. Its data is kept.";
        }
        None => {}
    }
    match status.interruption {
        Some(Interruption::Stopped) => "A user stopped the preview. Its data is kept.",
        Some(Interruption::Asleep) => "The preview is asleep. Its data is kept.",
        Some(Interruption::Restarting) => "The app restarts and answers again in a moment.",
        None => sentence_of_state(status.state),
    }
}

/// Returns the next action in general; the daemon's advice is more specific where it may be shown.
pub(crate) fn advice(status: &PageStatus) -> Option<&'static str> {
    match wake(status) {
        Some(Wake::InProgress) => return None,
        Some(Wake::Failed) => {
            return Some(
                "Load this page again later: a visit tries again after some minutes. A pushed commit does at once.",
            );
        }
        None => {}
    }
    match status.interruption {
        Some(Interruption::Stopped) => Some("Push a commit to start it again."),
        Some(Interruption::Asleep) => {
            Some("A visit wakes it, such as this one. Load the page again if nothing happens.")
        }
        Some(Interruption::Restarting) => None,
        None => advice_of_state(status.state),
    }
}

fn mood_of_state(state: PreviewState) -> Mood {
    use PreviewState as S;
    match state {
        S::WaitingForApproval => Mood::Waiting,
        S::Queued | S::Evaluating | S::Building | S::Starting | S::SettingUp | S::Updating => {
            Mood::Busy
        }
        S::Failed => Mood::Failed,
        S::Expired | S::Stopped | S::Dropped | S::Closing => Mood::Idle,
        S::Live => Mood::Busy,
    }
}

fn headline_of_state(state: PreviewState) -> &'static str {
    use PreviewState as S;
    match state {
        S::WaitingForApproval => "Waiting for approval",
        S::Queued => "Queued",
        S::Evaluating => "Reading the configuration",
        S::Building => "Building",
        S::Starting => "Starting",
        S::SettingUp => "Setting up the app",
        S::Updating => "Updating",
        S::Live => "The app does not answer",
        S::Failed => "This commit failed",
        S::Expired => "Expired",
        S::Stopped => "Stopped",
        S::Dropped => "Without a configuration",
        S::Closing => "Being removed",
    }
}

fn sentence_of_state(state: PreviewState) -> &'static str {
    use PreviewState as S;
    match state {
        S::WaitingForApproval => {
            "The commit comes from a fork. It runs once a maintainer has looked at it."
        }
        S::Queued => "The commit has arrived and is next in line.",
        S::Evaluating => "The repository's preview-config.nix is evaluated.",
        S::Building => "Everything that the preview needs is built.",
        S::Starting => "The preview's container starts.",
        S::SettingUp => "The app is fetched, built and set up in its container.",
        S::Updating => "A newer commit replaces the present one.",
        S::Live => "It was live a moment ago. This page shows it once it answers again.",
        S::Failed => "The preview shows the app as soon as a commit works.",
        S::Expired => {
            "The preview was not used for some time, so it was stopped. Its data is kept."
        }
        S::Stopped => "A maintainer stopped the preview. Its data is kept.",
        S::Dropped => {
            "The newest commit has no preview-config.nix, so the preview was stopped. Its data is kept for some time."
        }
        S::Closing => "The preview and its data are deleted.",
    }
}

fn advice_of_state(state: PreviewState) -> Option<&'static str> {
    use PreviewState as S;
    match state {
        S::WaitingForApproval => {
            Some("A maintainer of the repository approves the commit on the pull request.")
        }
        S::Failed => Some("Push a commit that fixes it. The preview updates by itself."),
        S::Expired => Some("It starts again after a visit, such as this one, or a push."),
        S::Stopped => Some(
            "Push a commit, or have a maintainer comment `/preview start` on the pull request.",
        ),
        S::Dropped => Some("Push a commit with preview-config.nix to start it again."),
        S::Queued
        | S::Evaluating
        | S::Building
        | S::Starting
        | S::SettingUp
        | S::Updating
        | S::Live
        | S::Closing => None,
    }
}

/// The stages that every commit passes, with their names.
pub(crate) const STAGES: [(PreviewState, &str); 5] = [
    (PreviewState::Evaluating, "Configuration"),
    (PreviewState::Building, "Build"),
    (PreviewState::Starting, "Start"),
    (PreviewState::SettingUp, "Setup"),
    (PreviewState::Live, "Live"),
];

/// Returns a duration such as `1 min 12 s`.
pub(crate) fn duration(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).max(SignedDuration::ZERO).as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
        let shown = |seconds| duration(start, start + SignedDuration::from_secs(seconds));
        let all: Vec<_> = [-5, 0, 59, 60, 3599, 3600, 90_061].map(shown).to_vec();
        assert_eq!(
            all,
            [
                "0 s",
                "0 s",
                "59 s",
                "1 min 0 s",
                "59 min 59 s",
                "1 h 0 min",
                "25 h 1 min"
            ]
        );
    }
}
