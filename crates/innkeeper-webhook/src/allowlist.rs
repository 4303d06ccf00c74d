//! The webhook's secrets and the list of allowed repositories.

use std::fmt;
use std::path::PathBuf;

use innkeeper_github::signature::{SecretSet, SecretSources};
use innkeeper_model::preview::RepoName;
use innkeeper_service::parse_allowed_repos;

use crate::config::Config;
use crate::error::WebhookError;

/// Decides which deliveries are accepted: those with a valid signature, from an allowed repository.
#[derive(Debug)]
pub struct Allowlist {
    /// The secrets that deliveries are signed with.
    pub(crate) secrets: SecretSet,
    /// The allowed repositories. `None` allows all.
    repositories: Option<Vec<RepoName>>,
}

impl Allowlist {
    /// Reads the secrets and the list.
    ///
    /// # Errors
    /// Without a secret. Also when the list may be in an environment file that cannot be read: allowing all repositories
    /// then would admit those that the file excludes.
    pub fn load(config: &Config) -> Result<Self, WebhookError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_with(config, credentials)
    }

    /// As [`Self::load`]. `credentials` is the directory of systemd's credentials (systemd.exec(5), "Credentials").
    fn load_with(config: &Config, credentials: Option<PathBuf>) -> Result<Self, WebhookError> {
        let webhook = &config.webhook;
        let secrets = SecretSet::load(&SecretSources {
            files: webhook.secret_files.clone(),
            credentials,
            environment_files: webhook.environment_files.clone(),
        })?;
        let listed = match &webhook.allowed_repos {
            Some(listed) => listed.clone(),
            None => {
                let files = config.contract().map_err(WebhookError::Repositories)?;
                let listed = files
                    .get("ALLOWED_REPOS")
                    .map_err(WebhookError::Repositories)?;
                parse_allowed_repos(listed.map_or("", |list| list.expose()))?
            }
        };
        Ok(Self {
            secrets,
            repositories: (!listed.is_empty()).then_some(listed),
        })
    }

    /// Reports whether deliveries of a repository are accepted.
    pub(crate) fn allows(&self, repo: &RepoName) -> bool {
        let listed = self.repositories.as_ref();
        listed.is_none_or(|list| list.contains(repo))
    }
}

impl fmt::Display for Allowlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repositories {
            None => f.write_str("deliveries of all repositories are accepted"),
            Some(list) => {
                f.write_str("deliveries of these repositories are accepted:")?;
                list.iter().try_for_each(|repo| write!(f, " {repo}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(text: &str) -> RepoName {
        RepoName::parse(text).expect("repository")
    }

    fn load(environment: &str, settings: &str) -> Result<Allowlist, WebhookError> {
        let directory = tempfile::tempdir().expect("directory");
        let [file, config] = ["preview.env", "config.toml"].map(|name| directory.path().join(name));
        std::fs::write(&file, environment).expect("written");
        let text = format!(
            "[webhook]\nenvironment_files = ['{}']\n{settings}",
            file.display()
        );
        std::fs::write(&config, text).expect("written");
        let loaded = innkeeper_service::load::<Config>(Some(&config), |_| None).expect("valid");
        Allowlist::load_with(&loaded.config, None)
    }

    #[test]
    fn the_configured_list_overrides_the_contracts() {
        let environment = "GITHUB_WEBHOOK_SECRET=s\nALLOWED_REPOS=octo/web, Octo/API ,\n";
        let list = load(environment, "").expect("loads");
        assert!(list.allows(&repo("OCTO/Web")) && list.allows(&repo("octo/api")));
        assert!(!list.allows(&repo("octo/other")));
        assert_eq!(
            list.to_string(),
            "deliveries of these repositories are accepted: octo/web Octo/API"
        );

        let list = load(environment, "allowed_repos = ['a/b']").expect("loads");
        assert!(list.allows(&repo("a/b")) && !list.allows(&repo("octo/web")));
        let list = load(environment, "allowed_repos = []").expect("loads");
        assert!(list.allows(&repo("any/thing")));
    }

    #[test]
    fn an_invalid_list_is_rejected() {
        for list in ["web", "octo/web;octo/api", "*"] {
            let environment = format!("WEBHOOK_SECRET=s\nALLOWED_REPOS='{list}'\n");
            assert!(load(&environment, "").is_err(), "{list:?} was accepted");
        }
    }

    #[test]
    fn a_missing_secret_is_rejected() {
        assert!(load("ALLOWED_REPOS=\n", "").is_err());
    }
}
