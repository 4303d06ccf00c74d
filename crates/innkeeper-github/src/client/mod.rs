//! A client of GitHub's REST API, with the calls that previews need.
//!
//! Every attempt has a timeout. Transient failures (no connection, 5xx) are retried with exponential backoff; other errors
//! are not. The client obeys rate limits: it sends nothing until a limit resets, and fails with
//! [`GithubError::RateLimited`] if that takes longer than [`Settings::patience`].
//!
//! Calls that create an object are retried only if GitHub certainly did not carry them out, so that no object is created
//! twice.

mod call;
mod checks;
mod clock;
mod comments;
mod contents;
mod credentials;
mod deployments;
mod error;
mod hooks;
mod installation;
mod limit;
mod oauth;
mod pulls;
mod reactions;
mod repositories;
mod session;
mod transport;
mod trees;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::RepoName;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use call::{ApiCall, ApiResponse};
use session::Session;
use transport::Transport;

pub use checks::{Check, PublishedCheck};
pub use comments::{Comment, ShownComment};
pub use contents::PREVIEW_CONFIG;
pub use credentials::{App, Credentials, CredentialsError};
pub use deployments::{Deployment, DeploymentState, DeploymentStatus};
pub use error::GithubError;
pub use hooks::{FailedDelivery, Hook};
pub use installation::InstallationView;
pub use oauth::{Account, OauthApp, account};
pub use pulls::PullRequestView;
pub use reactions::Reaction;
pub use repositories::{Permission, RepoView};
pub use session::GuestToken;
pub use trees::{GitEntry, GitKind, GitTree, ObjectId};

/// Maximum number of pages of a list, with 100 items each.
const MAX_PAGES: usize = 100;

/// The client's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API's address: `https://api.github.com`, `https://HOST/api/v3` for an Enterprise server, or
    /// `http://` on the loopback.
    pub base_url: String,
    /// A PEM file with certificate authorities to trust in addition to the system's.
    pub extra_certificates: Option<PathBuf>,
    /// Timeout of an attempt, including the response's body.
    pub timeout: Duration,
    /// Maximum number of attempts, at least one.
    pub attempts: u32,
    /// Backoff before the second attempt. It doubles for each further attempt, and half of it is random.
    pub first_wait: Duration,
    /// Maximum time for which a call waits for a rate limit to reset.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_url: "https://api.github.com".to_owned(),
            extra_certificates: None,
            timeout: Duration::from_secs(20),
            attempts: 4,
            first_wait: Duration::from_millis(500),
            patience: Duration::from_secs(20),
        }
    }
}

/// A client of GitHub's API. Clones share connections, tokens and rate limits.
#[derive(Clone, Debug)]
pub struct Github {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    login: OnceCell<String>,
}

impl Github {
    /// Creates a client without sending a request.
    ///
    /// # Errors
    /// [`GithubError::Address`] and [`GithubError::Certificates`].
    pub fn new(settings: Settings, credentials: Credentials) -> Result<Self, GithubError> {
        let session = Session::new(Transport::new(settings)?, credentials);
        Ok(Self {
            inner: Arc::new(Inner {
                session,
                login: OnceCell::new(),
            }),
        })
    }

    /// Returns a token with which a guest can read `repo`. An App's token is restricted to that; it is new for each call
    /// and expires at [`GuestToken::expires_at`].
    ///
    /// # Errors
    /// [`GithubError`]; [`GithubError::RepoNotAccessible`] when the App is not installed on the repository.
    pub async fn guest_token(&self, repo: &RepoName) -> Result<GuestToken, GithubError> {
        self.session().guest_token(repo).await
    }

    fn session(&self) -> &Session {
        &self.inner.session
    }

    /// Sends a call and returns a response with any status.
    async fn send(&self, call: &ApiCall) -> Result<ApiResponse, GithubError> {
        self.session().send(call).await
    }

    /// Sends a call and parses the JSON of a successful response.
    async fn json<T: DeserializeOwned>(&self, call: &ApiCall) -> Result<T, GithubError> {
        self.send(call).await?.success(call)?.json(call)
    }

    /// Returns all items of a list, page by page. `page` extracts the items of one page.
    async fn list<T, P: DeserializeOwned>(
        &self,
        mut call: ApiCall,
        page: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, GithubError> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.send(&call).await?.success(&call)?;
            all.extend(page(response.json(&call)?));
            match self.next(&response, &call)? {
                Some(next) => call.path = next,
                None => return Ok(all),
            }
        }
        // Fails rather than returning an incomplete list: missing items would count as deleted.
        Err(GithubError::InvalidResponse {
            source: format!("it has more than {MAX_PAGES} pages").into(),
            call: call.name,
        })
    }

    fn next(&self, response: &ApiResponse, call: &ApiCall) -> Result<Option<String>, GithubError> {
        let Some(link) = response.next_page() else {
            return Ok(None);
        };
        match self.session().transport.own_path(link) {
            Some(path) => Ok(Some(path)),
            None => Err(GithubError::InvalidResponse {
                call: call.name.clone(),
                source: "the next page is on another server".into(),
            }),
        }
    }
}
