//! The errors of the client.

use std::error::Error;
use std::time::Duration;

use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use innkeeper_model::{Code, Explain};
use jiff::Timestamp;

use super::credentials::CredentialsError;

/// Why a call to GitHub's API has no result. `call` says what was tried on which object, such as `read
/// preview-config.nix of octo/web at 1d2e…`; it never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// The configured address is none.
    #[error("'{url}' cannot be GitHub's address: {reason}")]
    Address {
        /// As configured, without what may be a password.
        url: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The certificates that GitHub's is checked with cannot be read.
    #[error("there are no certificates to check GitHub's with")]
    Certificates(#[source] Box<dyn Error + Send + Sync>),
    /// No token and no App, or one that cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No answer, after all attempts.
    #[error("cannot {call}: GitHub cannot be reached")]
    Unreachable {
        /// What was tried.
        call: String,
        /// What the last attempt met.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer in time, after all attempts.
    #[error("cannot {call}: GitHub did not answer in {} s", limit.as_secs_f32())]
    TimedOut {
        /// What was tried.
        call: String,
        /// How long each attempt waited.
        limit: Duration,
    },
    /// GitHub wants no requests until then.
    #[error("cannot {call}: GitHub's rate limit is used up until {retry_at}")]
    RateLimited {
        /// What was tried.
        call: String,
        /// When it makes sense to try again.
        retry_at: Timestamp,
    },
    /// The token is not valid (any more), or the App's key is not.
    #[error("cannot {call}: GitHub does not accept the credentials")]
    Unauthorized {
        /// What was tried.
        call: String,
    },
    /// The token may not do that.
    #[error("cannot {call}: GitHub does not allow it{}", said(.message.as_deref()))]
    Forbidden {
        /// What was tried.
        call: String,
        /// What GitHub said.
        message: Option<String>,
    },
    /// Any other refusal.
    #[error("cannot {call}: GitHub answered {status}{}", said(.message.as_deref()))]
    Refused {
        /// What was tried.
        call: String,
        /// The HTTP status.
        status: u16,
        /// What GitHub said.
        message: Option<String>,
    },
    /// An answer that is not of the documented form.
    #[error("cannot {call}: the answer is not understood")]
    NotUnderstood {
        /// What was tried.
        call: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer or file that is longer than it may be.
    #[error("cannot {call}: it has more than {limit} bytes")]
    TooLong {
        /// What was tried.
        call: String,
        /// The most bytes.
        limit: usize,
    },
    /// No such repository, or none that the credentials can see: GitHub does not say which.
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

/// What GitHub said, as the end of a message.
fn said(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}

impl GithubError {
    /// Whether the cause may pass by itself, so that trying later makes sense.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::RateLimited { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// When to try again, if GitHub said so.
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
                "Write https://api.github.com, or https://HOST/api/v3 for an Enterprise server."
                    .to_owned()
            }
            Self::Certificates(_) => "Install the system's certificates (on Debian: `apt-get install ca-certificates`).".to_owned(),
            Self::Credentials(error) => return error.remedy(),
            Self::Unauthorized { .. } => "Check GITHUB_TOKEN, or GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID and GITHUB_APP_PRIVATE_KEY_PATH in /var/secrets/preview.env, and this host's clock.".to_owned(),
            Self::Forbidden { .. } => "Give the App or token these permissions: contents read; pull requests and deployments read and write.".to_owned(),
            Self::RepoNotAccessible(repo) => format!(
                "Check the name, and give the App or token access to {repo} (the App's settings, Repository access)."
            ),
            Self::BranchNotFound { repo, .. } | Self::CommitNotFound { repo, .. } => {
                format!("Look at https://github.com/{repo}/branches, and push what is missing.")
            }
            Self::TooLong { limit, .. } => format!("Keep it below {limit} bytes."),
            error if error.is_transient() => {
                "Nothing is lost: it is tried again by itself.".to_owned()
            }
            _ => return None,
        })
    }
}
