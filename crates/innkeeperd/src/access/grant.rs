//! The rights of an actor, until they end.

use std::time::Duration;

use innkeeper_model::access::{Person, Role, TokenKind, TokenName, TokenRecord};
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// The interval at which an expiry is compared with the wall clock, which may jump.
const COMPARE_EVERY: Duration = Duration::from_secs(30);

/// The rights of an actor.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    role: Role,
    repo: Option<RepoName>,
    expires_at: Option<Timestamp>,
    /// The name of a token that is no session.
    name: Option<TokenName>,
    /// The person of a session, and the session's kind.
    session: Option<(Person, TokenKind)>,
    revoked: CancellationToken,
}

impl Grant {
    /// Creates a grant.
    pub(crate) fn new(role: Role, repo: Option<RepoName>, expires_at: Option<Timestamp>) -> Self {
        Self {
            role,
            repo,
            expires_at,
            name: None,
            session: None,
            revoked: CancellationToken::new(),
        }
    }

    /// Creates the grant of a token.
    pub(crate) fn of_token(record: &TokenRecord) -> Self {
        let grant = Self::new(record.role, record.repo.clone(), record.expires_at);
        match &record.person {
            Some(person) => grant.of_person(person.clone(), record.kind),
            None => Self {
                name: Some(record.name.clone()),
                ..grant
            },
        }
    }

    /// Returns the name of a token that is no session.
    pub(crate) fn name(&self) -> Option<&TokenName> {
        self.name.as_ref()
    }

    /// Makes it that of a person's session.
    pub(crate) fn of_person(self, person: Person, kind: TokenKind) -> Self {
        let session = Some((person, kind));
        Self { session, ..self }
    }

    /// Returns the person whose session it is, and the session's kind.
    pub(crate) fn session(&self) -> Option<&(Person, TokenKind)> {
        self.session.as_ref()
    }

    /// Returns the role.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Returns the only repository whose previews the actor may see.
    pub(crate) fn repo(&self) -> Option<&RepoName> {
        self.repo.as_ref()
    }

    /// Replaces the name of the only repository, after a rename.
    pub(crate) fn renamed(self, repo: RepoName) -> Self {
        let repo = Some(repo);
        Self { repo, ..self }
    }

    /// Reports whether the lifetime is over.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Ends the grant, with all its clones.
    pub(crate) fn end(&self) {
        self.revoked.cancel();
    }

    /// Waits until the grant has ended: after an [`Self::end`] at once, after an expiry within half a minute.
    pub(crate) async fn ended(&self) {
        while !self.has_expired(Timestamp::now()) {
            let revoked = self.revoked.cancelled();
            if tokio::time::timeout(COMPARE_EVERY, revoked).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use jiff::SignedDuration;

    use super::*;

    #[tokio::test]
    async fn grant_ends_with_a_revocation_or_its_lifetime() {
        Grant::new(Role::Viewer, None, Some(Timestamp::UNIX_EPOCH))
            .ended()
            .await;
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        let grant = Grant::new(Role::Viewer, None, Some(later));
        assert!(!grant.has_expired(Timestamp::now()) && grant.has_expired(later));
        assert!(grant.ended().now_or_never().is_none(), "it ended early");
        grant.clone().end();
        grant.ended().await;
    }
}
