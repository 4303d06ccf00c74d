//! The words for each situation of a preview: in the comment, in the check, and in `preview explain`.
//!
//! [`Situation::words`] is the table. A new situation is a variant, its row, and a line of [`Situation::of`].

use serde::{Deserialize, Serialize};

use super::{CommitSha, PreviewRecord, PreviewState};
use crate::{Code, Kind};

/// The situation of a pull request's preview, as people are told about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Situation {
    /// A fork's commit waits for its approval.
    WaitingForApproval,
    /// The commit waits to be processed.
    Queued,
    /// `preview-config.nix` is being evaluated.
    Evaluating,
    /// The closure is being built.
    Building,
    /// The guest is being created or switched.
    Starting,
    /// The setup service runs.
    SettingUp,
    /// A newer commit is being deployed while another one is live.
    Updating,
    /// The commit is live.
    Live,
    /// The commit failed because of the repository.
    Failed,
    /// The commit is not live because of the host or of GitHub.
    HostProblem,
    /// The app is down and is being started again.
    AppDown,
    /// The app ends again and again.
    CrashLoop,
    /// The preview was not used and is stopped.
    Expired,
    /// A command stopped the preview.
    Stopped,
    /// The preview is being removed.
    Closing,
    /// The preview was removed.
    Removed,
    /// Another commit has replaced this one before it was live.
    Superseded,
    /// The commit has no `preview-config.nix`: no preview is wanted.
    NoConfig,
    /// The commit of a preview no longer has a `preview-config.nix`.
    ConfigDropped,
    /// Innkeeper's token cannot read the repository.
    NoAccess,
    /// The preview's branch was deleted.
    BranchGone,
    /// The pull request is a draft, and drafts have no previews.
    Draft,
    /// A preview was not requested.
    NotRequested,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckResult {
    /// It has not ended.
    Pending,
    /// It succeeded.
    Success,
    /// It ended without a verdict on the commit, and does not block a merge.
    Neutral,
    /// The commit failed.
    Failure,
}

/// The words for a situation. `{sha}` stands for the commit's short name, `{approve}` for the instruction for approving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The result of the check.
    pub check: CheckResult,
    /// A few words: the check's title.
    pub title: &'static str,
    /// One line for the check and `preview explain`, at most 100 characters.
    pub line: &'static str,
    /// The beginning of the comment, in Markdown.
    pub comment: &'static str,
    /// The next step of a person, or an empty text.
    pub next: &'static str,
}

impl Situation {
    /// All situations, in the order of the table.
    pub const ALL: [Self; 23] = [
        Self::WaitingForApproval,
        Self::Queued,
        Self::Evaluating,
        Self::Building,
        Self::Starting,
        Self::SettingUp,
        Self::Updating,
        Self::Live,
        Self::Failed,
        Self::HostProblem,
        Self::AppDown,
        Self::CrashLoop,
        Self::Expired,
        Self::Stopped,
        Self::Closing,
        Self::Removed,
        Self::Superseded,
        Self::NoConfig,
        Self::ConfigDropped,
        Self::NoAccess,
        Self::BranchGone,
        Self::Draft,
        Self::NotRequested,
    ];

    /// Returns the situation of a preview.
    #[must_use]
    pub fn of(record: &PreviewRecord) -> Self {
        let fault = record.fault.as_ref().map(|fault| fault.code);
        match (record.state, fault) {
            (PreviewState::WaitingForApproval, _) => Self::WaitingForApproval,
            (PreviewState::Expired, _) => Self::Expired,
            (PreviewState::Stopped, _) => Self::Stopped,
            (PreviewState::Dropped, _) => Self::ConfigDropped,
            (_, Some(Code::NoAccess)) => Self::NoAccess,
            (PreviewState::Closing, _) => Self::Closing,
            (PreviewState::Failed, Some(code)) if !is_fault_of_repository(code) => {
                Self::HostProblem
            }
            (PreviewState::Failed, _) => Self::Failed,
            (_, Some(code)) if code.is_host_fault() => Self::HostProblem,
            (PreviewState::Live, Some(Code::AppUnhealthy | Code::GuestDied)) => Self::AppDown,
            (PreviewState::Live, _) => Self::Live,
            (PreviewState::Queued, _) => Self::Queued,
            (PreviewState::Evaluating, _) => Self::Evaluating,
            (PreviewState::Building, _) => Self::Building,
            (PreviewState::Starting, _) => Self::Starting,
            (PreviewState::SettingUp, _) => Self::SettingUp,
            (PreviewState::Updating, _) => Self::Updating,
        }
    }

    /// Returns the words for the situation.
    #[must_use]
    pub fn words(self) -> Words {
        use CheckResult::{Failure, Neutral, Pending, Success};
        let row = |check, title, line, comment, next| Words {
            check,
            title,
            line,
            comment,
            next,
        };
        match self {
            Self::WaitingForApproval => row(
                Neutral,
                "Waiting for approval",
                "{sha} comes from a fork and waits for its approval",
                "**Waiting for approval.** This pull request comes from a fork. A person with write access reviews {sha} \
                 and then approves it: {approve}. Every new commit needs its own approval.",
                "A person with write access reviews {sha} and approves it: {approve}.",
            ),
            Self::Queued => row(
                Pending,
                "Queued",
                "{sha} is next",
                "**Queued.** {sha} is next.",
                "",
            ),
            Self::Evaluating => row(
                Pending,
                "Evaluating",
                "evaluating preview-config.nix of {sha}",
                "**Evaluating** `preview-config.nix` of {sha}.",
                "",
            ),
            Self::Building => row(
                Pending,
                "Building",
                "building the system for {sha}",
                "**Building** the system for {sha}.",
                "",
            ),
            Self::Starting => row(
                Pending,
                "Starting",
                "starting the guest for {sha}",
                "**Starting** the guest for {sha}.",
                "",
            ),
            Self::SettingUp => row(
                Pending,
                "Setting up",
                "the setup service of {sha} runs",
                "**Setting up** {sha}.",
                "",
            ),
            Self::Updating => row(
                Pending,
                "Updating",
                "updating to {sha}",
                "**Updating** to {sha}.",
                "",
            ),
            Self::Live => row(Success, "Live", "{sha} is live", "**Live** with {sha}.", ""),
            Self::Failed => row(
                Failure,
                "Failed",
                "{sha} failed",
                "**Failed** with {sha}.",
                "Push a fix.",
            ),
            Self::HostProblem => row(
                Neutral,
                "A problem of the host",
                "{sha} is not live because of the host or GitHub, not because of the commit",
                "**Not live yet:** the host or GitHub has a problem with {sha}.",
                "An administrator of the host reads `innkeeper doctor`.",
            ),
            Self::AppDown => row(
                Neutral,
                "Starting again",
                "the app of {sha} ended and is being started again",
                "**Starting again.** The app of {sha} ended.",
                "",
            ),
            Self::CrashLoop => row(
                Failure,
                "The app keeps ending",
                "the app of {sha} ends again and again",
                "**The app keeps ending.** It was started several times with {sha}.",
                "Push a fix.",
            ),
            Self::Expired => row(
                Neutral,
                "Expired",
                "the preview was not used and is stopped; a push or a visit starts it",
                "**Expired.** The preview was not used for too long and is stopped. A push or a visit starts it again with \
                 its files and database. After the same time again they are removed. The commit is {sha}.",
                "A push or a visit starts it again.",
            ),
            Self::Stopped => row(
                Neutral,
                "Stopped by a command",
                "the preview is stopped; `/preview start` or a push starts it",
                "**Stopped.** Its files and database are kept. The comment `/preview start` by a person with write access, \
                 or a push, starts it again. The commit is {sha}.",
                "The comment `/preview start` by a person with write access, or a push, starts it again.",
            ),
            Self::Closing => row(
                Neutral,
                "Closing",
                "the preview is being removed",
                "**Closing.** The preview is being removed.",
                "",
            ),
            Self::Removed => row(
                Neutral,
                "Removed",
                "the preview was removed",
                "The preview of this pull request was removed.",
                "",
            ),
            Self::Superseded => row(
                Neutral,
                "Superseded",
                "a newer commit has replaced {sha}",
                "**Superseded.** A newer commit has replaced {sha}.",
                "",
            ),
            Self::NoConfig => row(
                Success,
                "No preview",
                "{sha} has no preview-config.nix: nothing to do",
                "**No preview.** {sha} has no `preview-config.nix`.",
                "",
            ),
            Self::ConfigDropped => row(
                Neutral,
                "Stopped",
                "{sha} no longer has a preview-config.nix",
                "**Stopped.** {sha} has no `preview-config.nix`. A commit with the file starts the preview again with its files \
                 and database, which are removed after a grace period.",
                "Push a commit with `preview-config.nix` to start it again.",
            ),
            Self::NoAccess => row(
                Neutral,
                "No access",
                "the host's token cannot read {sha}",
                "**No access.** The host's token cannot read {sha}.",
                "Give the App or token access to the repository.",
            ),
            Self::BranchGone => row(
                Neutral,
                "Branch deleted",
                "the branch of the preview was deleted",
                "**Branch deleted.** The preview is removed after some time.",
                "",
            ),
            Self::Draft => row(
                Neutral,
                "Draft",
                "drafts have no preview; \"Ready for review\" creates one",
                "**Draft.** The preview is created when the pull request is ready for review.",
                "Mark the pull request as ready for review.",
            ),
            Self::NotRequested => row(
                Neutral,
                "Not requested",
                "previews are created on request in this repository",
                "**Not requested.** Previews are created on request in this repository.",
                "Request a preview.",
            ),
        }
    }
}

impl Words {
    /// Returns the line for the check and `preview explain`.
    #[must_use]
    pub fn line_for(&self, sha: &CommitSha) -> String {
        self.line.replace("{sha}", sha.short())
    }

    /// Returns the beginning of the comment.
    #[must_use]
    pub fn comment_for(&self, sha: &CommitSha, approve: &str) -> String {
        fill(self.comment, sha, approve)
    }

    /// Returns the next step of a person, if the situation has one.
    #[must_use]
    pub fn next_for(&self, sha: &CommitSha, approve: &str) -> Option<String> {
        (!self.next.is_empty()).then(|| fill(self.next, sha, approve))
    }
}

fn fill(text: &str, sha: &CommitSha, approve: &str) -> String {
    let sha = format!("`{}`", sha.short());
    text.replace("{sha}", &sha).replace("{approve}", approve)
}

/// Reports whether a commit's failure is the repository's, rather than the host's or GitHub's.
#[must_use]
pub fn is_fault_of_repository(code: Code) -> bool {
    match code {
        Code::InvalidConfig => false,
        Code::AppUnhealthy | Code::GuestDied | Code::SlugConflict => true,
        code => matches!(code.kind(), Kind::Build | Kind::Invalid | Kind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Failure;
    use crate::preview::state::tests::view;

    #[test]
    fn every_situation_has_its_own_words() {
        let mut titles = HashSet::new();
        for situation in Situation::ALL {
            let words = situation.words();
            assert!(titles.insert(words.title), "{situation:?}");
            assert!(words.line.chars().count() <= 100, "{situation:?}");
            assert!(!words.comment.is_empty(), "{situation:?}");
        }
        assert_eq!(titles.len(), Situation::ALL.len());
    }

    /// A required check must not block a merge for ever: a state that lasts has a result.
    #[test]
    fn check_is_pending_only_while_work_is_done() {
        for state in PreviewState::ALL {
            let check = Situation::of(&view(state).preview).words().check;
            let is_pending = check == CheckResult::Pending;
            let ends = state.is_settled() || state == PreviewState::Closing;
            assert_eq!(is_pending, !ends, "{state}");
        }
        for situation in [
            Situation::NoConfig,
            Situation::Draft,
            Situation::NotRequested,
            Situation::Superseded,
            Situation::HostProblem,
        ] {
            let check = situation.words().check;
            assert!(
                matches!(check, CheckResult::Success | CheckResult::Neutral),
                "{situation:?}"
            );
        }
    }

    #[test]
    fn situation_distinguishes_the_party_at_fault() {
        let with = |state, code| {
            let mut record = view(state).preview;
            record.fault = Some(Failure::new(code, "it failed"));
            Situation::of(&record)
        };
        let failed = PreviewState::Failed;
        assert_eq!(with(failed, Code::BuildFailed), Situation::Failed);
        assert_eq!(with(failed, Code::ConfigMissing), Situation::Failed);
        assert_eq!(with(failed, Code::GithubFailed), Situation::HostProblem);
        let building = PreviewState::Building;
        assert_eq!(with(building, Code::DiskFull), Situation::HostProblem);
        assert_eq!(with(building, Code::GithubFailed), Situation::Building);
        let live = PreviewState::Live;
        assert_eq!(with(live, Code::AppUnhealthy), Situation::AppDown);
    }

    #[test]
    fn words_are_filled_in() {
        let sha = view(PreviewState::Live).preview.wanted_sha;
        let words = Situation::WaitingForApproval.words();
        let next = words.next_for(&sha, "add the label `ok`").expect("a step");
        assert_eq!(
            next,
            "A person with write access reviews `1a1a1a1` and approves it: add the label `ok`."
        );
        assert_eq!(Situation::Live.words().line_for(&sha), "1a1a1a1 is live");
        assert_eq!(Situation::Live.words().next_for(&sha, ""), None);
    }
}
