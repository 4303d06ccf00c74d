//! The errors of previews.

use innkeeper_engine::EngineError;
use innkeeper_facilities::FacilityError;
use innkeeper_github::client::GithubError;
use innkeeper_model::preview::{CommitSha, InvalidSlug, RepoName};
use innkeeper_model::{Code, Explain, Failure, GuestName};
use innkeeper_store::StoreError;
use jiff::Timestamp;

/// Number of retries of a request that GitHub denies.
const DENIALS: u32 = 3;

/// Number of retries of a build that failed for an inconclusive cause: within about three minutes.
const INCONCLUSIVE: u32 = 5;

/// Error of a request, or of a preview that is not as desired.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host refused or failed.
    #[error(transparent)]
    Host(#[from] FacilityError),
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// GitHub refused or did not answer.
    #[error(transparent)]
    Github(#[from] GithubError),
    /// A name that cannot be a slug.
    #[error(transparent)]
    Slug(#[from] InvalidSlug),
    /// The preview does not exist.
    #[error("there is no preview named '{0}'")]
    NotFound(GuestName),
    /// The host does not allow it.
    #[error("this host allows no previews of {0}")]
    NotAllowed(RepoName),
    /// The host has no token for GitHub.
    #[error("this host has no credentials for GitHub")]
    NoCredentials,
    /// The commit has no configuration.
    #[error("no preview-config.nix at {sha}")]
    ConfigMissing {
        /// The commit.
        sha: CommitSha,
    },
    /// The commit cannot be read with the host's credentials, so that its files are unknown.
    #[error("no access to {repo} at {sha}")]
    NoAccess {
        /// The repository.
        repo: RepoName,
        /// The commit.
        sha: CommitSha,
        /// GitHub's response.
        #[source]
        source: Box<GithubError>,
    },
    /// Another failure, with its code and remedy.
    #[error("{0}")]
    Failed(Box<Failure>),
}

impl PreviewError {
    /// Creates an error with its remedy.
    pub(crate) fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure::new(code, message).with_remedy(remedy).into()
    }

    /// Converts the error of reading a commit: without access to it, any file of it may exist.
    pub(crate) fn without_access(self, repo: &RepoName, sha: &CommitSha) -> Self {
        match self {
            Self::Github(
                error @ (GithubError::RepoNotAccessible(_)
                | GithubError::CommitNotFound { .. }
                | GithubError::Forbidden { .. }
                | GithubError::Unauthorized { .. }),
            ) => Self::NoAccess {
                repo: repo.clone(),
                sha: sha.clone(),
                source: Box::new(error),
            },
            error => error,
        }
    }

    /// Reports whether a retry makes sense because the cause is outside of the repository.
    pub(crate) fn is_transient(&self) -> bool {
        if let Self::Github(error) = self {
            return error.is_transient();
        }
        !matches!(
            self.code(),
            Code::ConfigMissing
                | Code::PreviewConfigInvalid
                | Code::BuildFailed
                | Code::InvalidClosure
                | Code::GuestDied
                | Code::AppUnhealthy
                | Code::SlugConflict
                | Code::RepoNotAllowed
                | Code::RepoNotAccessible
                | Code::PreviewNotFound
                | Code::InvalidRequest
        )
    }

    /// Reports whether it is retried after so many failed attempts before this one. GitHub's API lags: for a moment it
    /// does not find a new commit and refuses a new token, so only a repeated denial is final.
    pub(crate) fn may_pass(&self, failed_before: u32) -> bool {
        let may_be_too_early = matches!(
            self,
            Self::Github(
                GithubError::CommitNotFound { .. }
                    | GithubError::Unauthorized { .. }
                    | GithubError::Forbidden { .. }
            )
        );
        self.is_transient()
            || may_be_too_early && failed_before < DENIALS
            || self.is_inconclusive() && failed_before < INCONCLUSIVE
    }

    /// Reports whether the cause may be the host as well as the repository.
    pub(crate) fn is_inconclusive(&self) -> bool {
        matches!(self, Self::Host(error) if error.is_inconclusive())
    }

    /// Returns the earliest time of a retry, if GitHub's rate limit sets one.
    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::Github(error) => error.retry_at(),
            _ => None,
        }
    }
}

impl From<Failure> for PreviewError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Explain for PreviewError {
    fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Host(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Github(error) => error.code(),
            Self::Slug(error) => error.code(),
            Self::NotFound(_) => Code::PreviewNotFound,
            Self::NotAllowed(_) => Code::RepoNotAllowed,
            Self::NoCredentials => Code::InvalidConfig,
            Self::ConfigMissing { .. } => Code::ConfigMissing,
            Self::NoAccess { .. } => Code::NoAccess,
            Self::Failed(failure) => failure.code,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.remedy(),
            Self::Host(error) => return error.remedy(),
            Self::Engine(error) => return error.remedy(),
            Self::Github(error) => return error.remedy(),
            Self::Slug(error) => return error.remedy(),
            Self::Failed(failure) => return failure.remedy.clone(),
            Self::NotFound(_) => "`preview list` shows the previews.".to_owned(),
            Self::NotAllowed(repo) => format!(
                "Add {repo} to webhook.allowed_repos in innkeeperd's configuration, or to ALLOWED_REPOS."
            ),
            Self::NoCredentials => "Put GITHUB_TOKEN, or the three settings of a GitHub App, into /var/secrets/preview.env and restart innkeeperd.".to_owned(),
            Self::ConfigMissing { .. } => "Add a preview-config.nix to the root of the repository; docs/previews.md of Innkeeper describes it.".to_owned(),
            Self::NoAccess { repo, .. } => format!(
                "Give the token or App read access to the contents of {repo}. It is retried automatically; `preview update` retries at once."
            ),
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Store(error) => error.log(),
            Self::Host(error) => error.log(),
            Self::Engine(error) => error.log(),
            Self::Failed(failure) => &failure.log,
            _ => &[],
        }
    }

    fn mem_available_percent(&self) -> Option<u64> {
        match self {
            Self::Engine(error) => error.mem_available_percent(),
            Self::Failed(failure) => failure.mem_available_percent,
            _ => None,
        }
    }
}
