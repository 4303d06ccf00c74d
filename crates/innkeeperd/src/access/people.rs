//! Logins of people with GitHub.
//!
//! The daemon completes a login itself: the gateway has neither the OAuth app's secret nor a network, so it cannot claim that
//! a person has logged in.

use std::path::PathBuf;
use std::sync::Arc;

use innkeeper_github::EnvironmentFiles;
use innkeeper_github::client::{Account, GithubError, OauthApp, Settings, account};
use innkeeper_model::access::{BeginLogin, FinishLogin, Login, LoginPage, Person, PersonId, Role};
use innkeeper_model::{Code, Explain as _, Failure, chain};
use innkeeper_store::StoredPerson;
use jiff::SignedDuration;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::api_error::ApiError;
use crate::config::{Config, PeopleSettings};

/// The maximum number of logins that are completed at a time. Others are refused: anybody may begin one.
const MAX_LOGINS: usize = 8;

/// Logins, and the rights of people by the configuration.
#[derive(Clone)]
pub(crate) struct People {
    settings: Arc<PeopleSettings>,
    /// The address that GitHub returns to. `None` if the gateway has no host name.
    callback: Option<String>,
    /// The settings of calls of GitHub's API and web server.
    api: Settings,
    web: Settings,
    logins: Arc<Semaphore>,
}

impl People {
    /// Creates the logins of a configuration. `host` is the gateway's name.
    pub(crate) fn new(config: &Config, host: Option<String>) -> Self {
        let settings = config.people.clone();
        let callback = match settings.callback_url.as_str() {
            "" => host.map(|host| format!("https://{host}/login/callback")),
            url => Some(url.to_owned()),
        };
        let certificates = config.github.extra_certificates.as_str();
        let calls = |base_url: &str| Settings {
            base_url: base_url.to_owned(),
            extra_certificates: (!certificates.is_empty()).then(|| PathBuf::from(certificates)),
            attempts: 2,
            patience: std::time::Duration::from_secs(5),
            ..Settings::default()
        };
        Self {
            api: calls(&config.github.api_url),
            web: calls(&settings.github_url),
            settings: Arc::new(settings),
            callback,
            logins: Arc::new(Semaphore::new(MAX_LOGINS)),
        }
    }

    /// Returns the role of a person who has logged in. `None` if the configuration does not allow them any more.
    pub(crate) fn role(&self, stored: &StoredPerson) -> Option<Role> {
        self.settings.role(&stored.person, &stored.groups)
    }

    /// Returns the lifetime of a session in a browser.
    pub(crate) fn browser_lifetime(&self) -> SignedDuration {
        self.settings.browser_lifetime()
    }

    /// Returns the lifetime of a session on a machine.
    pub(crate) fn device_lifetime(&self) -> SignedDuration {
        self.settings.device_lifetime()
    }

    /// Returns the address of GitHub's page for a login.
    pub(crate) fn begin(&self, request: &BeginLogin) -> Result<LoginPage, ApiError> {
        let (app, callback) = self.app()?;
        if !is_unreserved(&request.state) || !is_unreserved(&request.challenge) {
            return Err(invalid(
                "the state or the challenge of the login is invalid",
            ));
        }
        let BeginLogin { state, challenge } = request;
        let url = app.page(&self.settings.github_url, callback, state, challenge);
        Ok(LoginPage { url })
    }

    /// Completes a login. Returns the person and their role.
    ///
    /// # Errors
    /// [`Code::LoginRefused`] for a person who may not log in, or if GitHub does not confirm the login.
    pub(crate) async fn finish(
        &self,
        request: &FinishLogin,
    ) -> Result<(StoredPerson, Role), ApiError> {
        let (app, callback) = self.app()?;
        let FinishLogin { code, verifier } = request;
        let is_code = (1..=512).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_graphic());
        if !is_code || !is_unreserved(verifier) {
            return Err(invalid("the code or the verifier of the login is invalid"));
        }
        let Ok(_slot) = self.logins.try_acquire() else {
            let failure = Failure::new(Code::TooManyRequests, "too many people log in at present");
            return Err(ApiError(failure.with_remedy("Try again in a moment.")));
        };
        let token = app.exchange(self.web.clone(), callback, code, verifier);
        let token = token.await.map_err(|error| unconfirmed(&error))?;
        let found = account(self.api.clone(), token).await;
        self.admit(&found.map_err(|error| unconfirmed(&error))?)
    }

    /// Returns the person of an account, with the role that the configuration gives them.
    fn admit(&self, account: &Account) -> Result<(StoredPerson, Role), ApiError> {
        let login = Login::parse(&account.login)
            .map_err(|_| refused("this account is not that of a person".to_owned()))?;
        let stored = StoredPerson {
            person: Person {
                id: PersonId(account.id),
                login,
            },
            groups: self
                .settings
                .relevant(&account.organizations, &account.teams),
        };
        match self.role(&stored) {
            Some(role) => Ok((stored, role)),
            None => {
                let person = &stored.person;
                info!(%person, "refused a login: [people] of the configuration gives no role");
                Err(refused(format!("{} may not use this host", person.login)))
            }
        }
    }

    /// Returns the OAuth app and the callback's address.
    fn app(&self) -> Result<(OauthApp, &str), ApiError> {
        let disabled = || {
            let message = "people cannot log in to this host: it has no OAuth app of GitHub";
            let remedy = "Set people.oauth_file in innkeeperd's configuration (docs/remote.md), or use a token.";
            ApiError(Failure::new(Code::LoginDisabled, message).with_remedy(remedy))
        };
        let callback = self.callback.as_deref().ok_or_else(disabled)?;
        if self.settings.oauth_file.is_empty() {
            return Err(disabled());
        }
        let app = EnvironmentFiles::read([&self.settings.oauth_file])
            .and_then(|files| OauthApp::from_files(&files));
        match app {
            Ok(Some(app)) => Ok((app, callback)),
            Ok(None) => {
                let file = &self.settings.oauth_file;
                warn!(
                    file,
                    "GITHUB_CLIENT_ID or GITHUB_CLIENT_SECRET is missing: nobody can log in"
                );
                Err(disabled())
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot read people.oauth_file: nobody can log in"
                );
                Err(disabled())
            }
        }
    }
}

/// Reports whether a text has 43 to 128 unreserved characters of URLs, as PKCE's (RFC 7636, section 4.1).
fn is_unreserved(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (43..=128).contains(&text.len()) && text.bytes().all(valid)
}

fn invalid(message: &str) -> ApiError {
    ApiError(Failure::new(Code::InvalidRequest, message).with_remedy("Begin the login again."))
}

fn refused(message: String) -> ApiError {
    let failure = Failure::new(Code::LoginRefused, message);
    ApiError(failure.with_remedy(
        "Ask the host's administrator: [people] in its configuration lists organizations, teams and users. An organization with restricted OAuth apps must approve this host's app first.",
    ))
}

/// Returns the failure for a login that GitHub does not confirm. The cause is for the log.
fn unconfirmed(error: &GithubError) -> ApiError {
    warn!(
        error = chain(error),
        remedy = error.remedy(),
        "a login failed"
    );
    let failure = Failure::new(Code::LoginRefused, "GitHub did not confirm the login");
    ApiError(failure.with_remedy(
        "Log in again. If it fails again, the journal of innkeeperd on the host has the reason.",
    ))
}
