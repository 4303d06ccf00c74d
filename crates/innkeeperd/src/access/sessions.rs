//! Sessions of people: tokens whose actor is the person.

use innkeeper_model::access::{
    CreatedSession, Groups, Person, Role, SessionView, TokenKind, TokenName, TokenRecord, TokenText,
};
use innkeeper_model::{Code, Failure};
use innkeeper_store::{NewSession, StoredPerson, StoredToken};
use jiff::{SignedDuration, Timestamp};
use tracing::info;

use super::People;
use super::tokens::{Tokens, random_secret};
use crate::api::Caller;
use crate::api_error::ApiError;
use crate::error::DaemonError;

/// A session to be created.
pub(crate) struct Admission {
    pub(crate) person: StoredPerson,
    pub(crate) role: Role,
    pub(crate) kind: TokenKind,
    /// The machine of a session of the kind `device`, for its name.
    pub(crate) machine: Option<String>,
    pub(crate) lifetime: SignedDuration,
}

impl Tokens {
    /// Creates a session. It is recorded and published when this returns.
    pub(crate) async fn create_session(
        &self,
        admission: Admission,
    ) -> Result<CreatedSession, ApiError> {
        let secret = random_secret()?;
        let suffix = random_secret()?;
        let login = admission.person.person.login.as_str();
        let new = NewSession {
            name: name(login, admission.kind, admission.machine.as_deref(), &suffix)?,
            role: admission.role,
            person: admission.person,
            kind: admission.kind,
            expires_at: Timestamp::now() + admission.lifetime,
        };
        let _changing = self.changing.lock().await;
        let digest = move |id| TokenText::new(id, &secret).digest();
        let StoredToken { record, .. } = self.store.create_session(new, digest).await?;
        self.publish_new(&record).await?;
        let token = TokenText::new(record.id, &secret);
        let session = view(&record).ok_or_else(not_a_session)?;
        Ok(CreatedSession {
            session,
            token: token.text().expose().to_owned(),
        })
    }

    /// Returns the caller's session as its owner sees it. Fails for a token that is not a session.
    pub(crate) async fn session_of(&self, caller: &Caller) -> Result<SessionView, ApiError> {
        let tokens = self.list().await?;
        let id = caller.token();
        let record = tokens.iter().find(|record| Some(record.id) == id);
        record.and_then(view).ok_or_else(not_a_session)
    }

    /// Returns the person of a session with the groups of their last login, for a further session.
    pub(crate) async fn person(&self, person: &Person) -> Result<StoredPerson, ApiError> {
        let persons = self.store.persons().await?;
        let stored = persons
            .into_iter()
            .find(|stored| stored.person.id == person.id);
        Ok(stored.unwrap_or_else(|| StoredPerson {
            person: person.clone(),
            groups: Groups::default(),
        }))
    }

    /// Revokes the sessions of people whose role the configuration has changed: they log in again, or have no right to.
    pub(super) async fn revoke_changed_sessions(&self, people: &People) -> Result<(), DaemonError> {
        let persons = self.store.persons().await?;
        for StoredToken { record, .. } in self.store.tokens().await? {
            let Some(person) = record
                .person
                .as_ref()
                .filter(|_| record.revoked_at.is_none())
            else {
                continue;
            };
            let stored = persons.iter().find(|stored| stored.person.id == person.id);
            if stored.and_then(|stored| people.role(stored)) != Some(record.role) {
                info!(%person, session = %record.name, "ended a session: the role of its person has changed");
                self.store.revoke_token(&record.name).await?;
            }
        }
        Ok(())
    }
}

fn view(record: &TokenRecord) -> Option<SessionView> {
    Some(SessionView {
        person: record.person.clone()?,
        role: record.role,
        kind: record.kind,
        name: record.name.clone(),
        expires_at: record.expires_at,
    })
}

/// Returns a session's name: `octocat.browser.x3f9a1`, `octocat.laptop.x3f9a1`.
fn name(
    login: &str,
    kind: TokenKind,
    machine: Option<&str>,
    random: &[u8; 32],
) -> Result<TokenName, ApiError> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let machine: String = machine
        .unwrap_or_default()
        .chars()
        .filter(allowed)
        .take(24)
        .collect();
    let place = match machine.is_empty() {
        true => kind.as_str(),
        false => machine.as_str(),
    };
    let login: String = login.chars().take(30).collect();
    let suffix: String = random
        .iter()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Both parts consist of characters of a name: 30 + 1 + 24 + 1 + 6 of them at most.
    TokenName::parse(&format!("{login}.{place}.{suffix}")).map_err(|error| {
        let message = format!("cannot name the session: {error}");
        ApiError(Failure::new(Code::Internal, message))
    })
}

fn not_a_session() -> ApiError {
    let message = "the token is not the session of a person";
    let remedy = "Log in on the page /login of the gateway's host in a browser.";
    ApiError(Failure::new(Code::Forbidden, message).with_remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_shows_the_person_and_the_place() {
        let of = |login: &str, kind, machine| {
            let name = name(login, kind, machine, &[0xab; 32]).map_err(|error| error.0);
            name.expect("a name").to_string()
        };
        let device = TokenKind::Device;
        assert_eq!(
            of("octocat", TokenKind::Browser, None),
            "octocat.browser.ababab"
        );
        assert_eq!(
            of("octocat", device, Some("lap top;\n")),
            "octocat.laptop.ababab"
        );
        assert_eq!(
            of("octocat", device, Some("\u{e9}")),
            "octocat.device.ababab"
        );
        let long = "a".repeat(100);
        assert!(of(&long, device, Some(&long)).len() <= 64);
    }
}
