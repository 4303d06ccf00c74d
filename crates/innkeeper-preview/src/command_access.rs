//! The part of `innkeeper doctor` about commands in comments: the event and the permissions that they need.

use innkeeper_github::client::{Github, GithubError, InstallationView};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain as _, chain};

/// The subject of the check.
const SUBJECT: &str = "commands in comments";

/// GitHub's event of comments.
const EVENT: &str = "issue_comment";

/// Checks the App's event and permissions. With a token, the requirements are listed: GitHub shows them only to
/// administrators of the repository. Commands are optional, so a missing event is no fault.
pub(crate) async fn check(github: &Github) -> Check {
    of(github.installation().await)
}

fn of(installation: Result<Option<InstallationView>, GithubError>) -> Check {
    let installation = match installation {
        Ok(Some(installation)) => installation,
        Ok(None) => {
            let finding = format!(
                "they need the webhook's event '{EVENT}' (\"Issue comments\"), and for the reaction the token's \
                 permission \"Pull requests: read and write\""
            );
            return check_with(Verdict::Ok, finding, None);
        }
        Err(error) => return check_with(Verdict::Warning, chain(&error), error.remedy()),
    };
    if !installation.delivers(EVENT) {
        let finding = format!(
            "not available: the App does not receive the event '{EVENT}' (\"Issue comment\"), which needs the \
             permission \"Issues: read-only\""
        );
        return check_with(Verdict::Ok, finding, None);
    }
    let reacts = ["pull_requests", "issues"];
    if !reacts.iter().any(|name| installation.permits(name, true)) {
        return check_with(
            Verdict::Warning,
            "the App may not react to comments, so nobody sees that a command is executed".to_owned(),
            Some(
                "Give the App the permission \"Pull requests: read and write\", and accept it for the installation."
                    .to_owned(),
            ),
        );
    }
    let finding = "the App has the event and the permissions for them".to_owned();
    check_with(Verdict::Ok, finding, None)
}

fn check_with(verdict: Verdict, finding: String, remedy: Option<String>) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict,
        finding,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(permissions: &[(&str, &str)], events: &[&str]) -> Check {
        let owned = |(name, access): &(&str, &str)| (name.to_string(), access.to_string());
        of(Ok(Some(InstallationView {
            permissions: permissions.iter().map(owned).collect(),
            events: events.iter().map(ToString::to_string).collect(),
        })))
    }

    #[test]
    fn missing_event_and_permission_are_named() {
        let all = ["pull_request", "issue_comment"];
        let works = app(&[("pull_requests", "write"), ("issues", "read")], &all);
        assert_eq!(works.verdict, Verdict::Ok);
        assert!(works.finding.contains("has the event"), "{works:?}");
        let issues = app(&[("pull_requests", "read"), ("issues", "write")], &all);
        assert_eq!(issues.finding, works.finding);
        let mute = app(&[("pull_requests", "read"), ("issues", "read")], &all);
        assert_eq!(mute.verdict, Verdict::Warning);
        assert!(
            mute.remedy
                .is_some_and(|remedy| remedy.contains("Pull requests"))
        );
        let deaf = app(&[("pull_requests", "write")], &all[..1]);
        assert_eq!(deaf.verdict, Verdict::Ok, "commands are optional");
        assert!(deaf.finding.contains("issue_comment"), "{deaf:?}");
        let token = of(Ok(None));
        assert!(token.finding.contains("issue_comment"), "{token:?}");
    }
}
