//! The client's errors.

use std::error::Error;
use std::time::Duration;

use innkeeper_model::preview::{BranchName, CommitSha, PullRequest, RepoName};
use innkeeper_model::{Code, Explain};
use jiff::Timestamp;

use super::credentials::CredentialsError;

/// A failed call of GitHub's API. `call` is the action and its object, such as `read preview-config.nix of octo/web at
/// 1d2e…`; it never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// The configured address is invalid.
    #[error("'{url}' is not a valid address of GitHub: {reason}")]
    Address {
        /// The address, without a possible password.
        url: String,
        /// The broken rule.
        reason: &'static str,
    },
    /// The trusted certificates cannot be loaded.
    #[error("cannot load the certificates for verifying GitHub's")]
    Certificates(#[source] Box<dyn Error + Send + Sync>),
    /// The credentials are missing or invalid.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No response, after all attempts.
    #[error("cannot {call}: GitHub is unreachable")]
    Unreachable {
        /// The action.
        call: String,
        /// The error of the last attempt.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Timeout, after all attempts.
    #[error("cannot {call}: GitHub did not respond within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The action.
        call: String,
        /// The timeout of each attempt.
        limit: Duration,
    },
    /// The rate limit is exhausted.
    #[error("cannot {call}: GitHub's rate limit is exhausted until {retry_at}")]
    RateLimited {
        /// The action.
        call: String,
        /// Time at which it resets.
        retry_at: Timestamp,
    },
    /// The token or the App's key is not valid, or not any more.
    #[error("cannot {call}: GitHub does not accept the credentials")]
    Unauthorized {
        /// The action.
        call: String,
    },
    /// The token lacks a permission.
    #[error("cannot {call}: GitHub does not allow it{}", detail(.message.as_deref()))]
    Forbidden {
        /// The action.
        call: String,
        /// GitHub's message.
        message: Option<String>,
        /// The permissions of which one is required, as GitHub lists them: `issues=write; pull_requests=write`.
        needs: Option<String>,
    },
    /// The conversation of the pull request is locked, and the token may not write in it.
    #[error("cannot comment on {0}: its conversation is locked")]
    Locked(PullRequest),
    /// The repository is archived.
    #[error("cannot report on {0}: the repository is archived, so it is read-only")]
    Archived(RepoName),
    /// Any other error status.
    #[error("cannot {call}: GitHub returned {status}{}", detail(.message.as_deref()))]
    Refused {
        /// The action.
        call: String,
        /// The HTTP status.
        status: u16,
        /// GitHub's message.
        message: Option<String>,
    },
    /// A response that is not of the documented form.
    #[error("cannot {call}: GitHub's response is invalid")]
    InvalidResponse {
        /// The action.
        call: String,
        /// The problem.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A response or file that is too long.
    #[error("cannot {call}: it is longer than {limit} bytes")]
    TooLong {
        /// The action.
        call: String,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The repository does not exist or is not visible with the credentials; GitHub does not distinguish these.
    #[error("repository {0} does not exist or is not accessible")]
    RepoNotAccessible(RepoName),
    /// No such branch.
    #[error("repository {repo} has no branch '{branch}'")]
    BranchNotFound {
        /// The repository.
        repo: RepoName,
        /// The branch.
        branch: BranchName,
    },
    /// No such commit.
    #[error("repository {repo} has no commit {sha}")]
    CommitNotFound {
        /// The repository.
        repo: RepoName,
        /// The commit.
        sha: CommitSha,
    },
}

/// Formats GitHub's list of sets of permissions for people: `issues=write; pull_requests=write` as `issues: write, or pull
/// requests: write`.
fn permissions(needs: &str) -> String {
    let one = |one: &str| one.trim().replace('_', " ").replace('=', ": ");
    let set = |set: &str| set.split(',').map(one).collect::<Vec<_>>().join(" and ");
    let sets: Vec<_> = needs.split(';').map(set).collect();
    sets.join(", or ")
}

/// Formats GitHub's message as the end of an error message.
fn detail(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}

impl GithubError {
    /// Reports whether a later retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::RateLimited { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Returns the earliest time for a retry, if GitHub specified one.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::RateLimited { retry_at, .. } => Some(*retry_at),
            _ => None,
        }
    }
}

impl Explain for GithubError {
    fn code(&self) -> Code {
        match self {
            Self::Address { .. } => Code::InvalidConfig,
            Self::Credentials(error) => error.code(),
            Self::RateLimited { .. } => Code::GithubRateLimited,
            Self::RepoNotAccessible(_) => Code::RepoNotAccessible,
            Self::BranchNotFound { .. } | Self::CommitNotFound { .. } => Code::BranchNotFound,
            _ => Code::GithubFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Address { .. } => {
                "Use https://api.github.com, or https://HOST/api/v3 for an Enterprise server."
                    .to_owned()
            }
            Self::Certificates(_) => "Install the system's certificates (on Debian: `apt-get install ca-certificates`).".to_owned(),
            Self::Credentials(error) => return error.remedy(),
            Self::Unauthorized { .. } => "Check GITHUB_TOKEN, or GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID and GITHUB_APP_PRIVATE_KEY_PATH in /var/secrets/preview.env, and this host's clock.".to_owned(),
            Self::Forbidden { needs: Some(needs), .. } => format!(
                "Give the App or token this permission: {}. A change of an App's permissions is in force once the owner of the installation has accepted it.",
                permissions(needs)
            ),
            Self::Forbidden { .. } => "Give the App or token these permissions: contents read; pull requests and deployments read and write; with previews.checks also checks (App) or commit statuses (token) read and write.".to_owned(),
            Self::Locked(pull_request) => format!(
                "Unlock the conversation of {pull_request}, or give the App or token write access. The deployment and the check show the state meanwhile."
            ),
            Self::Archived(repo) => format!(
                "Unarchive {repo}, or remove its previews: `preview list`."
            ),
            Self::RepoNotAccessible(repo) => format!(
                "Check the name, and give the App or token access to {repo} (the App's settings, Repository access)."
            ),
            Self::BranchNotFound { repo, .. } | Self::CommitNotFound { repo, .. } => {
                format!("Compare with https://github.com/{repo}/branches, and push the missing branch or commit.")
            }
            Self::TooLong { limit, .. } => format!("Keep it below {limit} bytes."),
            error if error.is_transient() => {
                "No action needed: it is retried automatically.".to_owned()
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_listed_in_words() {
        for (header, text) in [
            ("checks=write", "checks: write"),
            (
                "pull_requests=read,contents=read; issues=write",
                "pull requests: read and contents: read, or issues: write",
            ),
        ] {
            assert_eq!(permissions(header), text);
        }
    }
}
