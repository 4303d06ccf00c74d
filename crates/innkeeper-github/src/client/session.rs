//! Signing in: the token for each call, fetched and renewed when it has to be.

use std::time::Duration;

use innkeeper_model::Secret;
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::GithubError;
use super::call::{Answer, Call};
use super::clock::Skew;
use super::credentials::{App, Credentials};
use super::transport::Transport;
use crate::wire::Repository;

/// A token of an installation is valid for an hour and renewed this long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(5 * 60);

/// A token for somebody else.
#[derive(Clone, Debug)]
pub struct GuestToken {
    /// The token.
    pub secret: Secret,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// Whether it can read one repository and nothing else. A token that was configured as such cannot be
    /// narrowed: it is the host's own, with all that it may do.
    pub narrowed: bool,
}

/// Sends calls in our name.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) transport: Transport,
    credentials: Credentials,
    /// Held while a token is fetched, so that many calls at once fetch one.
    installation_token: Mutex<Option<InstallationToken>>,
    skew: Skew,
}

/// An answer to "Create an installation access token for an app".
#[derive(Clone, Debug, Deserialize)]
struct InstallationToken {
    token: Secret,
    expires_at: Timestamp,
    /// What it is for, if it was asked for repositories by name.
    #[serde(default)]
    repositories: Vec<Repository>,
}

impl Session {
    pub(crate) fn new(transport: Transport, credentials: Credentials) -> Self {
        Self {
            transport,
            credentials,
            installation_token: Mutex::default(),
            skew: Skew::default(),
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Sends a call as the installation, or with the token.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, GithubError> {
        let app = match &self.credentials {
            Credentials::Token(token) => return self.transport.send(call, token).await,
            Credentials::App(app) => app,
        };
        let token = self.token(app).await?;
        let answer = self.transport.send(call, &token).await?;
        if answer.status != hyper::StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // It was revoked, or our clock is wrong: one more try with a fresh one.
        self.forget(&token).await;
        let token = self.token(app).await?;
        self.transport.send(call, &token).await
    }

    /// Sends a call as the App itself, not as an installation of it.
    pub(crate) async fn send_as_app(&self, app: &App, call: &Call) -> Result<Answer, GithubError> {
        let answer = self
            .transport
            .send(call, &app.token(self.skew.now())?)
            .await?;
        if answer.status == hyper::StatusCode::UNAUTHORIZED && self.skew.learn(&answer) {
            return self
                .transport
                .send(call, &app.token(self.skew.now())?)
                .await;
        }
        Ok(answer)
    }

    /// A token that can read the contents of one repository, for a guest; a new one each time.
    pub(crate) async fn guest_token(&self, repo: &RepoName) -> Result<GuestToken, GithubError> {
        match &self.credentials {
            Credentials::Token(token) => Ok(GuestToken {
                secret: token.clone(),
                expires_at: None,
                narrowed: false,
            }),
            Credentials::App(app) => {
                let body = json!({
                    "repositories": [repo.name()],
                    "permissions": { "contents": "read" },
                });
                let name = format!("get a token that can read {repo}");
                let fresh = self.fetch(app, name, &body).await;
                let fresh = fresh.map_err(|error| match error {
                    // The installation has no such repository.
                    GithubError::Refused { status: 422, .. } => {
                        GithubError::RepoNotAccessible(repo.clone())
                    }
                    error => error,
                })?;
                // GitHub looks for the name at the account that the App is installed at, whoever we mean.
                if !fresh.repositories.iter().map(|is| &is.full_name).eq([repo]) {
                    return Err(GithubError::RepoNotAccessible(repo.clone()));
                }
                Ok(GuestToken {
                    secret: fresh.token,
                    expires_at: Some(fresh.expires_at),
                    narrowed: true,
                })
            }
        }
    }

    async fn token(&self, app: &App) -> Result<Secret, GithubError> {
        let mut kept = self.installation_token.lock().await;
        let now = Timestamp::now();
        if let Some(kept) = kept.as_ref()
            && now
                .checked_add(RENEWED_BEFORE)
                .is_ok_and(|soon| soon < kept.expires_at)
        {
            return Ok(kept.token.clone());
        }
        let fresh = self
            .fetch(app, "sign in to GitHub as its App", &json!({}))
            .await?;
        let token = fresh.token.clone();
        *kept = Some(fresh);
        Ok(token)
    }

    async fn forget(&self, token: &Secret) {
        let mut kept = self.installation_token.lock().await;
        // Another call may have renewed it already.
        if kept
            .as_ref()
            .is_some_and(|kept| kept.token.expose() == token.expose())
        {
            *kept = None;
        }
    }

    async fn fetch(
        &self,
        app: &App,
        name: impl Into<String>,
        body: &serde_json::Value,
    ) -> Result<InstallationToken, GithubError> {
        let path = format!("/app/installations/{}/access_tokens", app.installation());
        let call = Call::send(hyper::Method::POST, name, path, body)?.repeatable();
        let answer = self.send_as_app(app, &call).await?.success(&call)?;
        answer.json(&call)
    }
}
