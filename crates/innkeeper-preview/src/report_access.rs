//! The part of `innkeeper doctor` about the permissions that reports on GitHub need.

use innkeeper_github::client::{Github, GithubError, InstallationView};
use innkeeper_github::report::{ReportSettings, ReportTarget};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain as _, chain};

/// The subject of the check.
const SUBJECT: &str = "permissions on github";

/// A permission that the settings require.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// GitHub's name in the API.
    permission: &'static str,
    /// GitHub's name on its pages.
    label: &'static str,
    /// True for "read and write".
    writing: bool,
    /// The reason, such as the setting.
    purpose: &'static str,
}

impl Need {
    fn on_page(self) -> String {
        let access = match self.writing {
            true => "read and write",
            false => "read-only",
        };
        format!("\"{}: {access}\"", self.label)
    }
}

/// Checks the permissions before the first report needs them: those of an App and the scopes of a classic token. GitHub does
/// not list the permissions of a fine-grained token, so the required ones are named.
pub(crate) async fn check(github: &Github, settings: &ReportSettings) -> Check {
    match github.installation().await {
        Ok(Some(installation)) => of_app(&installation, settings),
        Ok(None) => of_token(github.scopes().await, settings),
        Err(error) => check_with(Verdict::Warning, chain(&error), error.remedy()),
    }
}

/// Returns the required permissions. A check is a check run of an App, and a commit status of a token.
fn needs(settings: &ReportSettings, is_app: bool) -> Vec<Need> {
    let need = |permission, label, writing, purpose| Need {
        permission,
        label,
        writing,
        purpose,
    };
    let reports = settings.target != ReportTarget::Nowhere;
    let mut needs = vec![
        need("contents", "Contents", false, "the files of commits"),
        need("pull_requests", "Pull requests", reports, "previews.report"),
    ];
    if settings.deployments {
        needs.push(need(
            "deployments",
            "Deployments",
            true,
            "previews.deployments",
        ));
    }
    if settings.checks {
        needs.push(match is_app {
            true => need("checks", "Checks", true, "previews.checks"),
            false => need("statuses", "Commit statuses", true, "previews.checks"),
        });
    }
    needs
}

fn of_app(installation: &InstallationView, settings: &ReportSettings) -> Check {
    let needs = needs(settings, true);
    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|need| !installation.permits(need.permission, need.writing))
        .collect();
    if missing.is_empty() {
        let finding = format!("the App has those that it needs: {}", list(&needs));
        return check_with(Verdict::Ok, finding, None);
    }
    let lacks: Vec<String> = missing
        .iter()
        .map(|need| format!("{} for {}", need.on_page(), need.purpose))
        .collect();
    check_with(
        Verdict::Warning,
        format!("the App lacks {}", lacks.join(", ")),
        Some(format!(
            "Give the App {} in its settings on GitHub, and accept the change for the installation.",
            list(&missing)
        )),
    )
}

fn of_token(scopes: Result<Option<Vec<String>>, GithubError>, settings: &ReportSettings) -> Check {
    let scopes = match scopes {
        Ok(Some(scopes)) => scopes,
        Ok(None) => {
            let finding = format!(
                "GitHub does not list those of a fine-grained token, which needs {}",
                list(&needs(settings, false))
            );
            return check_with(Verdict::Ok, finding, None);
        }
        Err(error) => return check_with(Verdict::Warning, chain(&error), error.remedy()),
    };
    let has = |name: &str| scopes.iter().any(|scope| scope == name);
    if has("repo") {
        let finding = "the token has the scope 'repo', which includes them".to_owned();
        return check_with(Verdict::Ok, finding, None);
    }
    if has("public_repo") {
        let finding = "the token has the scope 'public_repo': it cannot read private repositories";
        return check_with(Verdict::Ok, finding.to_owned(), None);
    }
    check_with(
        Verdict::Warning,
        "the token has neither the scope 'repo' nor 'public_repo'".to_owned(),
        Some(
            "Give the token the scope `repo`, or for public repositories `public_repo`.".to_owned(),
        ),
    )
}

fn list(needs: &[Need]) -> String {
    let all: Vec<String> = needs.iter().map(|need| need.on_page()).collect();
    all.join(", ")
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
    use innkeeper_github::client::{Credentials, Settings};
    use innkeeper_github::fake::FakeGithub;
    use innkeeper_model::Secret;
    use innkeeper_model::preview::text::CommentStyle;

    use super::*;

    const TOKEN: &str = "ghp_test";

    fn settings(checks: bool) -> ReportSettings {
        ReportSettings {
            target: ReportTarget::Comment,
            deployments: true,
            checks,
            comment: CommentStyle::default(),
        }
    }

    fn app(permissions: &[(&str, &str)], checks: bool) -> Check {
        let owned = |(name, access): &(&str, &str)| (name.to_string(), access.to_string());
        let installation = InstallationView {
            permissions: permissions.iter().map(owned).collect(),
            events: Vec::new(),
        };
        of_app(&installation, &settings(checks))
    }

    #[test]
    fn missing_permissions_of_an_app_are_named() {
        let granted = [
            ("contents", "read"),
            ("pull_requests", "write"),
            ("deployments", "write"),
        ];
        assert_eq!(app(&granted, false).verdict, Verdict::Ok);
        let lacking = app(&granted, true);
        assert_eq!(lacking.verdict, Verdict::Warning);
        assert_eq!(
            lacking.finding,
            "the App lacks \"Checks: read and write\" for previews.checks"
        );
        let remedy = lacking.remedy.expect("a remedy");
        assert!(remedy.contains("\"Checks: read and write\""), "{remedy}");
        let reading = [("contents", "read"), ("pull_requests", "read")];
        let lacking = app(&reading, false).finding;
        for name in ["Pull requests: read and write", "previews.deployments"] {
            assert!(lacking.contains(name), "{lacking}");
        }
    }

    #[tokio::test]
    async fn scopes_of_a_token_are_checked() {
        let fake = FakeGithub::start().await.expect("listens");
        fake.with(|world| world.add_token(TOKEN, "innkeeper-bot"));
        let client = Settings {
            base_url: fake.base_url(),
            ..Settings::default()
        };
        let github = Github::new(client, Credentials::Token(Secret::new(TOKEN)));
        let github = github.expect("a client");
        for (scopes, verdict, text) in [
            (None, Verdict::Ok, "\"Commit statuses: read and write\""),
            (Some("gist, repo"), Verdict::Ok, "'repo'"),
            (Some("public_repo"), Verdict::Ok, "private repositories"),
            (Some("gist"), Verdict::Warning, "neither"),
            (Some(""), Verdict::Warning, "neither"),
        ] {
            fake.with(|world| {
                let rights = world.tokens.get_mut(TOKEN).expect("there");
                rights.scopes = scopes.map(str::to_owned);
            });
            let check = check(&github, &settings(true)).await;
            assert_eq!(check.verdict, verdict, "{scopes:?}");
            assert!(check.finding.contains(text), "{}", check.finding);
        }
    }
}
