//! The caller of a call.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use innkeeper_model::access::{Actor, Person, Role, TokenId, TokenKind};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Failure, Trust};

use crate::access::Grant;
use crate::api_error::ApiError;

/// The caller of a call, with the rights that the daemon has determined.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Who);

#[derive(Clone, Debug)]
enum Who {
    /// A user of the host, as reported by the kernel.
    Local(Option<u32>),
    /// A client of the gateway.
    Remote {
        actor: Actor,
        source: IpAddr,
        grant: Grant,
    },
}

impl Caller {
    /// Creates the caller of a user of the host.
    pub(super) fn local(uid: Option<u32>) -> Self {
        Self(Who::Local(uid))
    }

    /// Creates the caller that the gateway has authenticated.
    pub(super) fn remote(actor: Actor, source: IpAddr, grant: Grant) -> Self {
        Self(Who::Remote {
            actor,
            source,
            grant,
        })
    }

    /// Returns the caller as it is recorded with operations and as the owner of agents. All sessions of a person are one.
    pub(crate) fn actor(&self) -> String {
        match (&self.0, self.person()) {
            (_, Some(person)) => person.id.to_string(),
            (Who::Local(Some(uid)), _) => format!("uid:{uid}"),
            (Who::Local(None), _) => "unknown".to_owned(),
            (Who::Remote { actor, .. }, _) => actor.to_string(),
        }
    }

    /// Returns the caller for messages: with the login of a person.
    pub(crate) fn label(&self) -> String {
        self.person()
            .map_or_else(|| self.actor(), Person::to_string)
    }

    /// Returns the login of a person, or the name of a token.
    pub(crate) fn name(&self) -> Option<String> {
        match &self.0 {
            Who::Local(_) => None,
            Who::Remote { actor, grant, .. } => {
                let name = match actor {
                    Actor::File(name) => Some(name),
                    Actor::Token(_) => grant.name(),
                };
                let login = self.person().map(|person| person.login.to_string());
                login.or_else(|| name.map(ToString::to_string))
            }
        }
    }

    /// Returns the person whose session it is.
    pub(crate) fn person(&self) -> Option<&Person> {
        self.session().map(|(person, _)| person)
    }

    /// Returns the person whose session it is, and the session's kind.
    pub(crate) fn session(&self) -> Option<&(Person, TokenKind)> {
        match &self.0 {
            Who::Remote { grant, .. } => grant.session(),
            Who::Local(_) => None,
        }
    }

    /// Returns the number of the caller's token.
    pub(crate) fn token(&self) -> Option<TokenId> {
        match &self.0 {
            Who::Remote {
                actor: Actor::Token(id),
                ..
            } => Some(*id),
            _ => None,
        }
    }

    /// Returns the trust in the caller's flakes: root and the daemon's own user may use any, all others only remote ones.
    pub(crate) fn trust(&self) -> Trust {
        let own = nix::unistd::geteuid().as_raw();
        match self.0 {
            Who::Local(Some(uid)) if uid == 0 || uid == own => Trust::Host,
            Who::Local(_) | Who::Remote { .. } => Trust::Member,
        }
    }

    /// Returns the caller's role. Members of the group are operators.
    pub(crate) fn role(&self) -> Role {
        match (&self.0, self.trust()) {
            (Who::Remote { grant, .. }, _) => grant.role(),
            (Who::Local(_), Trust::Host) => Role::Admin,
            (Who::Local(_), Trust::Member) => Role::Operator,
        }
    }

    /// Reports whether the request came through the gateway.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.0, Who::Remote { .. })
    }

    /// Returns the address of a client of the gateway.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        match &self.0 {
            Who::Remote { source, .. } => Some(*source),
            Who::Local(_) => None,
        }
    }

    /// Waits until the caller's rights have ended: its token was revoked, or has expired. Streams end then.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let grant = match &self.0 {
            Who::Remote { grant, .. } => Some(grant.clone()),
            Who::Local(_) => None,
        };
        async move {
            match grant {
                Some(grant) => grant.ended().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Returns the only repository whose previews the caller may see; `None` for all of the host.
    pub(crate) fn repo(&self) -> Option<&RepoName> {
        match &self.0 {
            Who::Remote { grant, .. } => grant.repo(),
            Who::Local(_) => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| {
            let message = "the call has no caller";
            ApiError(Failure::new(Code::Internal, message))
        })
    }
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::Login;

    use super::*;

    #[test]
    fn trust_includes_root_and_the_daemons_user_only() {
        let own = nix::unistd::geteuid().as_raw();
        let trust = |uid| Caller::local(uid).trust();
        assert_eq!(trust(Some(0)), Trust::Host);
        assert_eq!(trust(Some(own)), Trust::Host);
        assert_eq!(trust(Some(own + 1)), Trust::Member);
        assert_eq!(trust(None), Trust::Member);
        let grant = Grant::new(Role::Admin, None, None);
        let actor = "token:1".parse().expect("an actor");
        let remote = Caller::remote(actor, [192, 0, 2, 7].into(), grant);
        assert_eq!(remote.trust(), Trust::Member, "also with the highest role");
    }

    #[test]
    fn person_is_the_actor_of_each_session() {
        let person = Person {
            id: "github:583231".parse().expect("a person"),
            login: Login::parse("octocat").expect("a login"),
        };
        for token in ["token:1", "token:2"] {
            let grant = Grant::new(Role::Viewer, None, None);
            let grant = grant.of_person(person.clone(), TokenKind::Device);
            let actor = token.parse().expect("an actor");
            let caller = Caller::remote(actor, [192, 0, 2, 7].into(), grant);
            assert_eq!(caller.actor(), "github:583231");
            assert_eq!(caller.label(), "octocat (github:583231)");
        }
    }
}
