//! What the credentials may do: the permissions and events of the App's installation, and the scopes of a token.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::call::ApiCall;
use super::{Credentials, Github, GithubError};

/// The granted permissions and events of the App's installation ("Get an installation for the authenticated app").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InstallationView {
    /// Access by permission: `read`, `write` or `admin`.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
    /// The events that are delivered.
    #[serde(default)]
    pub events: Vec<String>,
}

impl InstallationView {
    /// Reports whether a permission is granted, for writing or for reading only.
    #[must_use]
    pub fn permits(&self, permission: &str, writing: bool) -> bool {
        let access = self.permissions.get(permission);
        access.is_some_and(|access| !writing || access != "read")
    }

    /// Reports whether an event is delivered.
    #[must_use]
    pub fn delivers(&self, event: &str) -> bool {
        self.events.iter().any(|name| name == event)
    }
}

impl Github {
    /// Returns the App's installation. `None` for a token.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn installation(&self) -> Result<Option<InstallationView>, GithubError> {
        let Credentials::App(app) = self.session().credentials() else {
            return Ok(None);
        };
        let call = ApiCall::get(
            "look up the App's installation",
            format!("/app/installations/{}", app.installation()),
        );
        let response = self.session().send_as_app(app, &call).await?;
        response.success(&call)?.json(&call).map(Some)
    }

    /// Returns the scopes of a classic token. `None` for an App, and for a fine-grained token: GitHub does not list its
    /// permissions.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn scopes(&self) -> Result<Option<Vec<String>>, GithubError> {
        let Credentials::Token(_) = self.session().credentials() else {
            return Ok(None);
        };
        let call = ApiCall::get("look up the token's scopes", "/user");
        let response = self.send(&call).await?.success(&call)?;
        let scopes = response.header("x-oauth-scopes").map(|scopes| {
            let scopes = scopes.split(',').map(|scope| scope.trim().to_owned());
            scopes.filter(|scope| !scope.is_empty()).collect()
        });
        Ok(scopes)
    }
}
