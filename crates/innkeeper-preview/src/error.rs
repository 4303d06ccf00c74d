//! The errors of previews.

use innkeeper_engine::EngineError;
use innkeeper_facilities::FacilityError;
use innkeeper_github::client::GithubError;
use innkeeper_model::preview::{CommitSha, InvalidSlug, RepoName};
use innkeeper_model::{Code, Explain, Failure, GuestName};
use innkeeper_store::StoreError;
use jiff::Timestamp;

/// How often what GitHub denies is asked for again.
const DENIALS: u32 = 3;

/// How often a build that failed for an unclear cause is tried again: within about three minutes.
const UNCLEAR: u32 = 5;

/// Why something that was asked for is refused, or why a preview is not as wanted.
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
    /// No such preview.
    #[error("there is no preview named '{0}'")]
    NotFound(GuestName),
    /// The host does not allow it.
    #[error("this host makes no previews of {0}")]
    NotAllowed(RepoName),
    /// The host has no token for GitHub.
    #[error("this host has no credentials for GitHub")]
    NoCredentials,
    /// There is no configuration at this commit.
    #[error("{repo} has no preview-config.nix at {sha}")]
    ConfigMissing {
        /// The repository.
        repo: RepoName,
        /// The commit.
        sha: CommitSha,
    },
    /// Something that has all that there is to say of it.
    #[error("{0}")]
    Failed(Box<Failure>),
}

impl PreviewError {
    /// A failure with its remedy.
    pub(crate) fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure::new(code, message).with_remedy(remedy).into()
    }

    /// Whether trying again later makes sense, because the cause is outside of the repository.
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

    /// Whether it is tried again after so many attempts that failed before this one. GitHub answers for a moment
    /// as if it had never heard of what was just pushed, and refuses tokens that are too new: what it denies is
    /// final when it denies it again.
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
            || self.is_unclear() && failed_before < UNCLEAR
    }

    /// Whether it may be the host that is at fault, or the repository.
    pub(crate) fn is_unclear(&self) -> bool {
        matches!(self, Self::Host(error) if error.is_inconclusive())
    }

    /// When to try again, if somebody said so.
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
            Self::NotFound(_) => "`preview list` shows the previews there are.".to_owned(),
            Self::NotAllowed(repo) => format!(
                "Add {repo} to webhook.allowed_repos in innkeeperd's configuration, or to ALLOWED_REPOS."
            ),
            Self::NoCredentials => "Put GITHUB_TOKEN, or the three settings of a GitHub App, into /var/secrets/preview.env and restart innkeeperd.".to_owned(),
            Self::ConfigMissing { .. } => "Add a preview-config.nix to the root of the repository; docs/previews.md of Innkeeper describes it.".to_owned(),
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
}
