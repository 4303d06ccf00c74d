//! Logins of people: GitHub's authorization code flow with PKCE ("Authorizing OAuth apps"), and the account that logged in.

use std::collections::BTreeSet;

use hyper::Method;
use innkeeper_model::Secret;
use serde::{Deserialize, Serialize};

use super::call::{ApiCall, segment};
use super::transport::Transport;
use super::{Credentials, Github, GithubError, Settings};
use crate::{EnvironmentFiles, SecretFileError};

/// The permissions that a login requests: the account's profile, its organizations and teams.
const SCOPES: &str = "read:user read:org";

/// Maximum length of GitHub's response with the token, in bytes.
const MAX_TOKEN_RESPONSE: usize = 16 * 1024;

/// An OAuth app of GitHub.
#[derive(Clone, Debug)]
pub struct OauthApp {
    id: String,
    secret: Secret,
}

/// The account that logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// GitHub's number of it, which never changes.
    pub id: u64,
    /// Its login, which may change.
    pub login: String,
    /// Logins of its organizations, in lower case.
    pub organizations: BTreeSet<String>,
    /// Its teams, as `organization/slug` in lower case.
    pub teams: BTreeSet<String>,
}

/// The request for a token ("Users are redirected back to your site by GitHub").
#[derive(Serialize)]
struct TokenRequest<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    code: &'a str,
    redirect_uri: &'a str,
    code_verifier: &'a str,
}

/// The response: a token, or an error with status 200.
#[derive(Deserialize)]
struct TokenResponse {
    #[serde(default)]
    access_token: Option<Secret>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct UserView {
    id: u64,
    login: String,
}

#[derive(Deserialize)]
struct OrganizationView {
    login: String,
}

#[derive(Deserialize)]
struct TeamView {
    slug: String,
    organization: OrganizationView,
}

impl OauthApp {
    /// Creates the app with its client id and secret.
    #[must_use]
    pub fn new(id: &str, secret: Secret) -> Self {
        Self {
            id: id.to_owned(),
            secret,
        }
    }

    /// Reads `GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET` from environment files. `None` unless both are set.
    ///
    /// # Errors
    /// [`SecretFileError`] for a file that cannot be read, or a line that is invalid.
    pub fn from_files(files: &EnvironmentFiles) -> Result<Option<Self>, SecretFileError> {
        let id = files.get("GITHUB_CLIENT_ID")?;
        let secret = files.get("GITHUB_CLIENT_SECRET")?;
        let pair = id.zip(secret);
        Ok(pair.map(|(id, secret)| Self::new(id.expose(), secret.clone())))
    }

    /// Returns the address of GitHub's page for a login. `base_url` is GitHub's web address, `callback` the address that
    /// the browser returns to.
    #[must_use]
    pub fn page(&self, base_url: &str, callback: &str, state: &str, challenge: &str) -> String {
        format!(
            "{}/login/oauth/authorize?response_type=code&client_id={}&redirect_uri={}&scope={}&state={}&code_challenge={}&code_challenge_method=S256",
            base_url.trim_end_matches('/'),
            segment(&self.id),
            segment(callback),
            segment(SCOPES),
            segment(state),
            segment(challenge),
        )
    }

    /// Exchanges the code of a login for a token of the account. `web` has GitHub's web address as its base URL.
    ///
    /// # Errors
    /// [`GithubError::Refused`] for a code that is invalid, used or expired, or of another login; others of the call.
    pub async fn exchange(
        &self,
        web: Settings,
        callback: &str,
        code: &str,
        verifier: &str,
    ) -> Result<Secret, GithubError> {
        let request = TokenRequest {
            client_id: &self.id,
            client_secret: self.secret.expose(),
            code,
            redirect_uri: callback,
            code_verifier: verifier,
        };
        let path = "/login/oauth/access_token";
        let call = ApiCall::with_body(Method::POST, "complete a login", path, &request)?;
        let call = ApiCall {
            accept: "application/json",
            limit: MAX_TOKEN_RESPONSE,
            ..call
        };
        let response = Transport::new(web)?.send(&call, None).await?;
        let response: TokenResponse = response.success(&call)?.json(&call)?;
        match response {
            TokenResponse {
                access_token: Some(token),
                error: None,
            } => Ok(token),
            TokenResponse { error, .. } => Err(GithubError::Refused {
                call: call.name,
                status: 200,
                message: error.map(|error| {
                    error
                        .chars()
                        .filter(|c| !c.is_control())
                        .take(100)
                        .collect()
                }),
            }),
        }
    }
}

/// Returns the account of a token, with its organizations and teams. `api` has the API's address.
///
/// # Errors
/// [`GithubError`]. The account must not log in then: an incomplete list could hide its rights, or those that it lost.
pub async fn account(api: Settings, token: Secret) -> Result<Account, GithubError> {
    let github = Github::new(api, Credentials::Token(token))?;
    let call = ApiCall::get("look up the account that logs in", "/user");
    let user: UserView = github.json(&call).await?;
    let call = ApiCall::get("list its organizations", "/user/orgs?per_page=100");
    let organizations: Vec<OrganizationView> = github.list(call, |page| page).await?;
    let call = ApiCall::get("list its teams", "/user/teams?per_page=100");
    let teams: Vec<TeamView> = github.list(call, |page| page).await?;
    let lower = |text: &str| text.to_ascii_lowercase();
    Ok(Account {
        id: user.id,
        login: user.login,
        organizations: organizations.iter().map(|one| lower(&one.login)).collect(),
        teams: (teams.iter())
            .map(|team| lower(&format!("{}/{}", team.organization.login, team.slug)))
            .collect(),
    })
}
