//! Authentication: fetches, caches and renews the token for calls.

use std::time::Duration;

use innkeeper_model::Secret;
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::GithubError;
use super::call::{ApiCall, ApiResponse};
use super::clock::Skew;
use super::credentials::{App, Credentials};
use super::transport::Transport;
use crate::wire::Repository;

/// An installation's token is valid for an hour and renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// A token for a guest.
#[derive(Clone, Debug)]
pub struct GuestToken {
    /// The token.
    pub secret: Secret,
    /// Time at which it expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// True if it is restricted to reading one repository. A configured token cannot be restricted: it is the host's own,
    /// with all its permissions.
    pub narrowed: bool,
}

/// Sends authenticated calls.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) transport: Transport,
    credentials: Credentials,
    /// Locked while a token is fetched, so that concurrent calls share one.
    installation_token: Mutex<Option<InstallationToken>>,
    skew: Skew,
}

/// The response to "Create an installation access token for an app".
#[derive(Clone, Debug, Deserialize)]
struct InstallationToken {
    token: Secret,
    expires_at: Timestamp,
    /// The repositories that it is restricted to, if requested.
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

    /// Sends a call as the App's installation, or with the token.
    pub(crate) async fn send(&self, call: &ApiCall) -> Result<ApiResponse, GithubError> {
        let app = match &self.credentials {
            Credentials::Token(token) => return self.transport.send(call, Some(token)).await,
            Credentials::App(app) => app,
        };
        let token = self.token(app).await?;
        let response = self.transport.send(call, Some(&token)).await?;
        if response.status != hyper::StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // The token was revoked, or the clock is wrong: one retry with a new token.
        self.forget(&token).await;
        let token = self.token(app).await?;
        self.transport.send(call, Some(&token)).await
    }

    /// Sends a call as the App itself, rather than as its installation.
    pub(crate) async fn send_as_app(
        &self,
        app: &App,
        call: &ApiCall,
    ) -> Result<ApiResponse, GithubError> {
        let response = self
            .transport
            .send(call, Some(&app.token(self.skew.now())?))
            .await?;
        if response.status == hyper::StatusCode::UNAUTHORIZED && self.skew.update(&response) {
            return self
                .transport
                .send(call, Some(&app.token(self.skew.now())?))
                .await;
        }
        Ok(response)
    }

    /// Returns a new token that can read the contents of one repository.
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
                let name = format!("get a token for reading {repo}");
                let fresh = self.fetch(app, name, &body).await;
                let fresh = fresh.map_err(|error| match error {
                    // The installation has no such repository.
                    GithubError::Refused { status: 422, .. } => {
                        GithubError::RepoNotAccessible(repo.clone())
                    }
                    error => error,
                })?;
                // GitHub ignores the owner: it looks the name up in the account of the installation.
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
        let mut cached = self.installation_token.lock().await;
        let now = Timestamp::now();
        if let Some(cached) = cached.as_ref()
            && now
                .checked_add(RENEW_BEFORE)
                .is_ok_and(|soon| soon < cached.expires_at)
        {
            return Ok(cached.token.clone());
        }
        let fresh = self
            .fetch(app, "authenticate as a GitHub App", &json!({}))
            .await?;
        let token = fresh.token.clone();
        *cached = Some(fresh);
        Ok(token)
    }

    async fn forget(&self, token: &Secret) {
        let mut cached = self.installation_token.lock().await;
        // Another call may have renewed the token already.
        if cached
            .as_ref()
            .is_some_and(|cached| cached.token.expose() == token.expose())
        {
            *cached = None;
        }
    }

    async fn fetch(
        &self,
        app: &App,
        name: impl Into<String>,
        body: &serde_json::Value,
    ) -> Result<InstallationToken, GithubError> {
        let path = format!("/app/installations/{}/access_tokens", app.installation());
        let call = ApiCall::with_body(hyper::Method::POST, name, path, body)?.idempotent();
        let response = self.send_as_app(app, &call).await?.success(&call)?;
        response.json(&call)
    }
}
