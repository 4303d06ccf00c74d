//! Derives from the record of a preview what it waits for.

use super::{Party, PreviewRecord, PreviewState, Wait};
use crate::{Code, Failure};

impl PreviewRecord {
    /// Returns the action that the preview waits for. `None` while it is live or being worked on.
    #[must_use]
    pub fn waits_for(&self) -> Option<Wait> {
        let wait = |party, action: String| Some(Wait { party, action });
        let sha = self.wanted_sha.short();
        match (self.state, &self.fault) {
            (_, Some(fault)) if fault.code == Code::NoAccess => {
                wait(Party::Administrator, format!("access to {}", self.repo))
            }
            (_, Some(fault)) if fault.code == Code::TooManyPreviews => wait(
                Party::Administrator,
                "room, which `preview destroy` or a higher limit gives".to_owned(),
            ),
            (_, Some(fault)) if fault.code.is_host_fault() => wait(
                Party::Administrator,
                format!("repair of the host ({})", fault.code),
            ),
            (PreviewState::WaitingForApproval, _) => {
                wait(Party::Maintainer, format!("approval of {sha}"))
            }
            (PreviewState::Failed, _) => wait(Party::Author, format!("fix of {sha}")),
            (PreviewState::Dropped, _) => {
                wait(Party::Author, "commit with preview-config.nix".to_owned())
            }
            (PreviewState::Stopped, _) => {
                wait(Party::Maintainer, "`/preview start` or a push".to_owned())
            }
            (PreviewState::Expired, _) => wait(Party::Visitor, "visit or push".to_owned()),
            (state, Some(Failure { code, .. })) if !state.is_settled() => {
                wait(Party::Innkeeper, format!("retry ({code})"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preview::state::tests::view;

    #[test]
    fn waits_name_the_party_and_the_action() {
        let waits = |state, code: Option<Code>| {
            let mut record = view(state).preview;
            record.fault = code.map(|code| Failure::new(code, "it failed"));
            record
                .waits_for()
                .map_or("-".to_owned(), |wait| wait.to_string())
        };
        let all: Vec<_> = PreviewState::ALL
            .iter()
            .map(|state| format!("{state}: {}", waits(*state, None)))
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        waiting-for-approval: maintainer: approval of 1a1a1a1
        queued: -
        evaluating: -
        building: -
        starting: -
        setting-up: -
        live: -
        failed: author: fix of 1a1a1a1
        updating: -
        expired: visitor: visit or push
        stopped: maintainer: `/preview start` or a push
        dropped: author: commit with preview-config.nix
        closing: -
        ");
        for (state, code, expected) in [
            (
                PreviewState::Queued,
                Code::NoAccess,
                "administrator: access to octo/web",
            ),
            (
                PreviewState::Failed,
                Code::DiskFull,
                "administrator: repair of the host (disk_full)",
            ),
            (
                PreviewState::Queued,
                Code::GithubFailed,
                "innkeeper: retry (github_failed)",
            ),
            (
                PreviewState::Closing,
                Code::GithubFailed,
                "innkeeper: retry (github_failed)",
            ),
            (
                PreviewState::Failed,
                Code::AppUnhealthy,
                "author: fix of 1a1a1a1",
            ),
        ] {
            assert_eq!(waits(state, Some(code)), expected);
        }
        assert!(waits(PreviewState::Queued, Some(Code::TooManyPreviews)).contains("room"));
    }
}
