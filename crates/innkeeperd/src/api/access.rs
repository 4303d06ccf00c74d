//! The access that each call requires, and its check before the call's handler.

use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

use innkeeper_model::access::{ACTOR_HEADER, Actor, Role, SOURCE_HEADER, TokenKind};
use innkeeper_model::{Code, Failure};

use tracing::info;

use super::Peer;
use super::caller::Caller;
use crate::access::Tokens;
use crate::api_error::ApiError;
use crate::audit::AuditLog;

/// The least that a call requires of its caller.
///
/// Root may make all calls. Members of the group may make all but those for [`Role::Admin`]; handlers refuse them the rest of
/// what is root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing, not even a token.
    Nothing,
    /// The gateway itself, without an actor: the begin and the end of a login. The API's own socket refuses the call, and so
    /// does this one if the gateway passes it on for a client.
    Gateway,
    /// A person's session, in a browser or on a machine.
    Session,
    /// A person's session in a browser.
    Browser,
    /// A role.
    Role(Role),
    /// The role admin, or a member of the group: upkeep of the host.
    Upkeep,
    /// A caller on the host. The gateway's socket refuses the call.
    Host,
}

/// The objects that a call concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The host as a whole. Tokens of one repository are refused.
    Host,
    /// One agent, which a developer must have created to change it.
    Own,
    /// Guests, previews, operations and events. The handler leaves out or refuses those that a token of one repository may
    /// not see, in the same way as those that do not exist.
    Visible,
}

/// The access that a call requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) needs: Needs,
    pub(super) scope: Scope,
    /// The call's name in the audit log; `None` for a call that changes nothing.
    pub(super) audit: Option<&'static str>,
}

/// The state of [`authorize`] for one call.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) access: Access,
    pub(super) tokens: Tokens,
    pub(super) audit: AuditLog,
}

/// Determines the caller and refuses those without the access that the call requires. The handler finds [`Caller`] and
/// [`Access`] in the request's extensions. A call that changes something is recorded in the audit log before it begins.
pub(super) async fn authorize(
    State(gate): State<Gate>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Gate { access, .. } = gate;
    let has_actor = request.headers().contains_key(ACTOR_HEADER);
    match (access.needs, peer) {
        (Needs::Nothing, _) => return Ok(next.run(request).await),
        (Needs::Gateway, Peer::Gateway) if !has_actor => return Ok(next.run(request).await),
        (Needs::Gateway, _) => return Err(for_the_gateway()),
        _ => {}
    }
    let caller = match peer {
        Peer::Local(uid) => Caller::local(uid),
        Peer::Gateway => remote(&gate.tokens, request.headers()).await?,
    };
    if let Err(refused) = access.check(&caller) {
        let (actor, path) = (caller.actor(), request.uri().path());
        info!(actor, path, "refused a call: {}", refused.0);
        return Err(refused);
    }
    let recorded = match access.audit {
        Some(verb) => Some(gate.audit.begin(&caller, verb, object(&parameters)).await?),
        None => None,
    };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(access);
    let response = next.run(request).await;
    if let Some(recorded) = recorded {
        recorded.finish(&response).await;
    }
    Ok(response)
}

/// Returns the object that a call's path names, such as `web` or `web/before`.
fn object(parameters: &RawPathParams) -> Option<String> {
    let values: Vec<&str> = parameters.iter().map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join("/"))
}

/// Returns the caller that the gateway has authenticated.
async fn remote(tokens: &Tokens, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let actor: Actor = single(headers, ACTOR_HEADER)
        .and_then(|text| text.parse().ok())
        .ok_or_else(unauthorized)?;
    let source = source(headers)?;
    let grant = tokens.present_grant(&actor).await?;
    let grant = grant.ok_or_else(unauthorized)?;
    Ok(Caller::remote(actor, source, grant))
}

/// Returns the address of the gateway's client.
pub(super) fn source(headers: &HeaderMap) -> Result<IpAddr, ApiError> {
    single(headers, SOURCE_HEADER)
        .and_then(|text| text.parse().ok())
        .ok_or_else(unauthorized)
}

/// Returns the value of a header that the request has exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn unauthorized() -> ApiError {
    let failure = Failure::new(Code::Unauthorized, "the request has no valid token");
    ApiError(failure.with_remedy(
        "The token may be revoked or expired: `innkeeper token create` on the host creates a new one.",
    ))
}

impl Access {
    /// Refuses a caller without this access.
    fn check(self, caller: &Caller) -> Result<(), ApiError> {
        match self.needs {
            Needs::Nothing | Needs::Gateway => return Ok(()),
            Needs::Session if caller.session().is_some() => return Ok(()),
            Needs::Browser if is_browser(caller) => return Ok(()),
            Needs::Session | Needs::Browser => return Err(for_people()),
            Needs::Host if caller.is_remote() => return Err(on_the_host()),
            Needs::Host => return Ok(()),
            Needs::Upkeep if !caller.is_remote() => return Ok(()),
            Needs::Upkeep => require(caller, Role::Admin)?,
            Needs::Role(role) => require(caller, role)?,
        }
        match (self.scope, caller.repo()) {
            (Scope::Host | Scope::Own, Some(repo)) => {
                let message = format!("this token is for the previews of {repo} only");
                let remedy =
                    "Use a token without --repo: `innkeeper token create` on the host creates one.";
                Err(ApiError(
                    Failure::new(Code::Forbidden, message).with_remedy(remedy),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a caller with a lesser role.
pub(super) fn require(caller: &Caller, role: Role) -> Result<(), ApiError> {
    if caller.role() >= role {
        return Ok(());
    }
    let (message, remedy) = match (caller.is_remote(), caller.person()) {
        (true, Some(person)) => (
            format!("this needs the role {role}, and {} has the role {}", person.login, caller.role()),
            "Ask the host's administrator: [people] in its configuration gives roles to people and teams.".to_owned(),
        ),
        (true, None) => (
            format!(
                "this needs the role {role}, and the token has the role {}",
                caller.role()
            ),
            format!(
                "Use a token with that role: `innkeeper token create NAME --role {role}` on the host creates one."
            ),
        ),
        (false, _) => (
            "only root may do this".to_owned(),
            "Run the command as root, with `sudo`.".to_owned(),
        ),
    };
    Err(ApiError(
        Failure::new(Code::Forbidden, message).with_remedy(remedy),
    ))
}

fn is_browser(caller: &Caller) -> bool {
    matches!(caller.session(), Some((_, TokenKind::Browser)))
}

fn for_people() -> ApiError {
    let failure = Failure::new(Code::Forbidden, "this is for people who have logged in");
    ApiError(failure.with_remedy("Log in on the page /login of the gateway's host in a browser."))
}

fn for_the_gateway() -> ApiError {
    let failure = Failure::new(Code::Forbidden, "this is for innkeeper-gateway only");
    ApiError(failure.with_remedy("Log in on the page /login of the gateway's host in a browser."))
}

fn on_the_host() -> ApiError {
    let failure = Failure::new(
        Code::Forbidden,
        "this works on the host only, not with a token",
    );
    ApiError(failure.with_remedy("Log in to the host and run the command there."))
}
