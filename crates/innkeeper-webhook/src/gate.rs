//! Who may pass: the webhook's secrets and the list of repositories.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use innkeeper_github::signature::{SecretSet, SecretSources};
use innkeeper_model::preview::RepoName;

use crate::config::{ConfigError, Loaded};
use crate::error::WebhookError;

/// Who may pass.
#[derive(Debug)]
pub struct Gate {
    /// The secrets that deliveries are signed with.
    pub secrets: SecretSet,
    /// The repositories whose deliveries are taken; all when there is no list.
    allowed: Option<Vec<RepoName>>,
}

impl Gate {
    /// Reads the secrets and the list.
    ///
    /// # Errors
    /// When there is no secret, or when nothing says which repositories are allowed because the file that
    /// may say so cannot be read: to allow all then would be to let in whom somebody meant to keep out.
    pub fn load(loaded: &Loaded) -> Result<Self, WebhookError> {
        let webhook = &loaded.config.webhook;
        let secrets = SecretSet::load(&SecretSources {
            files: webhook.secret_files.clone(),
            credentials: loaded.credentials.clone(),
            environment_files: webhook.environment_files.clone(),
        })?;
        let listed = match &webhook.allowed_repos {
            Some(listed) => listed.clone(),
            None => {
                let files = loaded
                    .config
                    .contract()
                    .map_err(WebhookError::Repositories)?;
                let listed = files
                    .get("ALLOWED_REPOS")
                    .map_err(WebhookError::Repositories)?;
                parse_list(listed.map_or("", |list| list.expose()))?
            }
        };
        Ok(Self {
            secrets,
            allowed: (!listed.is_empty()).then_some(listed),
        })
    }

    /// Whether deliveries of a repository are taken.
    #[must_use]
    pub fn allows(&self, repo: &RepoName) -> bool {
        self.allowed.as_ref().is_none_or(|list| list.contains(repo))
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.allowed {
            None => f.write_str("deliveries of all repositories are taken"),
            Some(list) => {
                f.write_str("deliveries are taken of:")?;
                list.iter().try_for_each(|repo| write!(f, " {repo}"))
            }
        }
    }
}

/// A list with commas, as `ALLOWED_REPOS` has it.
fn parse_list(text: &str) -> Result<Vec<RepoName>, ConfigError> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            RepoName::parse(word).map_err(|error| ConfigError::Value {
                setting: "ALLOWED_REPOS",
                problem: error.to_string(),
            })
        })
        .collect()
}

/// The gate that is in force, which can be exchanged while requests pass.
#[derive(Clone, Debug)]
pub struct SharedGate(Arc<RwLock<Arc<Gate>>>);

impl SharedGate {
    /// Puts the first gate in force.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(gate))))
    }

    /// The gate in force. Whoever holds it has one and the same for all of a request.
    #[must_use]
    pub fn get(&self) -> Arc<Gate> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another one in force.
    pub fn replace(&self, gate: Gate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(text: &str) -> RepoName {
        RepoName::parse(text).expect("repository")
    }

    fn load(environment: &str, settings: &str) -> Result<Gate, WebhookError> {
        let directory = tempfile::tempdir().expect("directory");
        let [file, config] = ["preview.env", "config.toml"].map(|name| directory.path().join(name));
        std::fs::write(&file, environment).expect("written");
        let text = format!(
            "[webhook]\nenvironment_files = ['{}']\n{settings}",
            file.display()
        );
        std::fs::write(&config, text).expect("written");
        Gate::load(&Loaded::read(Some(&config), |_| None).expect("valid"))
    }

    #[test]
    fn the_list_is_the_contracts_unless_the_configuration_has_one() {
        let environment = "GITHUB_WEBHOOK_SECRET=s\nALLOWED_REPOS=octo/web, Octo/API ,\n";
        let gate = load(environment, "").expect("loads");
        assert!(gate.allows(&repo("OCTO/Web")) && gate.allows(&repo("octo/api")));
        assert!(!gate.allows(&repo("octo/other")));
        assert_eq!(
            gate.to_string(),
            "deliveries are taken of: octo/web Octo/API"
        );

        let gate = load(environment, "allowed_repos = ['a/b']").expect("loads");
        assert!(gate.allows(&repo("a/b")) && !gate.allows(&repo("octo/web")));
        let gate = load(environment, "allowed_repos = []").expect("loads");
        assert!(gate.allows(&repo("any/thing")));
    }

    #[test]
    fn a_list_that_cannot_be_read_allows_nothing() {
        for list in ["web", "octo/web;octo/api", "*"] {
            let environment = format!("WEBHOOK_SECRET=s\nALLOWED_REPOS='{list}'\n");
            assert!(load(&environment, "").is_err(), "{list:?} was accepted");
        }
    }

    #[test]
    fn without_a_secret_nothing_starts() {
        assert!(load("ALLOWED_REPOS=\n", "").is_err());
    }
}
