//! GitHub's REST API, as far as previews need it.
//!
//! Every call has a time limit. What fails on the way (no connection, 5xx) is tried again with growing
//! waits; what GitHub refuses is not. Rate limits are kept: a client that was told to wait sends nothing
//! before, and answers with [`GithubError::RateLimited`] when that is longer than [`Settings::patience`].
//!
//! Calls that make something new are sent again only when GitHub certainly did not carry them out, so that
//! nothing is made twice.

mod call;
mod clock;
mod comments;
mod contents;
mod credentials;
mod deployments;
mod error;
mod hooks;
mod limit;
mod pulls;
mod repositories;
mod session;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::RepoName;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use call::{Answer, Call};
use session::Session;
use transport::Transport;

pub use comments::Comment;
pub use contents::PREVIEW_CONFIG;
pub use credentials::{App, Credentials, CredentialsError};
pub use deployments::{Deployment, DeploymentState, DeploymentStatus};
pub use error::GithubError;
pub use hooks::{FailedDelivery, Hook};
pub use pulls::PullRequestView;
pub use repositories::{Permission, RepoView};
pub use session::GuestToken;

/// The most pages of a list that are read; 100 things each.
const MAX_PAGES: usize = 100;

/// How to reach GitHub.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API's address: `https://api.github.com`, `https://HOST/api/v3` for an Enterprise server, or
    /// `http://` on the loopback.
    pub base_url: String,
    /// A PEM file with certificate authorities to trust beside the system's.
    pub extra_certificates: Option<PathBuf>,
    /// How long each attempt may take, with the whole answer.
    pub timeout: Duration,
    /// How often a call is tried, at least once.
    pub attempts: u32,
    /// The wait before the second attempt; twice as long before each further one, half of it by chance.
    pub first_wait: Duration,
    /// The longest that a call waits for the end of a rate limit.
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

/// A client of GitHub's API. Clones share connections, tokens and limits.
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
    /// A client; nothing is sent yet.
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

    /// A token with which a guest can read `repo`, and nothing else where GitHub lets us narrow it. Each call
    /// makes a new one, valid for an hour: before [`GuestToken::expires_at`], get another.
    ///
    /// # Errors
    /// [`GithubError`]; [`GithubError::RepoNotAccessible`] when the App is not installed on the repository.
    pub async fn guest_token(&self, repo: &RepoName) -> Result<GuestToken, GithubError> {
        self.session().guest_token(repo).await
    }

    fn session(&self) -> &Session {
        &self.inner.session
    }

    /// Any answer.
    async fn answer(&self, call: &Call) -> Result<Answer, GithubError> {
        self.session().send(call).await
    }

    /// The JSON of an answer that is no refusal.
    async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, GithubError> {
        self.answer(call).await?.success(call)?.json(call)
    }

    /// All things of a list, page by page. `page` takes them out of one answer.
    async fn list<T, P: DeserializeOwned>(
        &self,
        mut call: Call,
        page: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, GithubError> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.answer(&call).await?.success(&call)?;
            all.extend(page(answer.json(&call)?));
            match self.next(&answer, &call)? {
                Some(next) => call.path = next,
                None => return Ok(all),
            }
        }
        // Half a list must not look like a whole one: what is missing would count as gone.
        Err(GithubError::NotUnderstood {
            source: format!("it has more than {MAX_PAGES} pages").into(),
            call: call.name,
        })
    }

    fn next(&self, answer: &Answer, call: &Call) -> Result<Option<String>, GithubError> {
        let Some(link) = answer.next_page() else {
            return Ok(None);
        };
        match self.session().transport.own_path(link) {
            Some(path) => Ok(Some(path)),
            None => Err(GithubError::NotUnderstood {
                call: call.name.clone(),
                source: "its next page is on another server".into(),
            }),
        }
    }
}
