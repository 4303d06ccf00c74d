//! Calls about logins and sessions of people.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use innkeeper_model::access::{
    BeginLogin, CreateDeviceSession, CreatedSession, FinishLogin, LoginPage, SessionView,
    TokenKind, TokenRecord,
};
use innkeeper_model::{Code, Failure};

use super::access::source;
use super::response::{ApiResult, body};
use super::{Caller, Context};
use crate::access::Admission;
use crate::api_error::ApiError;
use crate::audit::AuditObject;

/// The maximum length of a machine's name, in bytes.
const MAX_MACHINE: usize = 128;

pub(super) async fn begin(State(context): State<Context>, request: Bytes) -> ApiResult<LoginPage> {
    let request: BeginLogin = body(&request)?;
    Ok(Json(context.people.begin(&request)?))
}

/// Completes a login, and records it in the audit log before the session exists.
pub(super) async fn finish(
    State(context): State<Context>,
    headers: HeaderMap,
    request: Bytes,
) -> Result<Response, ApiError> {
    let request: FinishLogin = body(&request)?;
    let source = source(&headers)?;
    let (person, role) = context.people.finish(&request).await?;
    let actor = person.person.id.to_string();
    let login = Some(format!("{} ({role})", person.person.login));
    let recorded = context.audit.begin_by(actor, Some(source), "login", login);
    let recorded = recorded.await?;
    let created = context.tokens.create_session(Admission {
        person,
        role,
        kind: TokenKind::Browser,
        machine: None,
        lifetime: context.people.browser_lifetime(),
    });
    let response = created.await.map(Json).into_response();
    recorded.finish(&response).await;
    Ok(response)
}

pub(super) async fn create_for_device(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Result<(Extension<AuditObject>, Json<CreatedSession>), ApiError> {
    let CreateDeviceSession { machine } = body(&request)?;
    let (Some(person), true) = (caller.person(), machine.len() <= MAX_MACHINE) else {
        let message = "the name of the machine is longer than 128 bytes";
        return Err(ApiError(Failure::new(Code::InvalidRequest, message)));
    };
    let created = context.tokens.create_session(Admission {
        person: context.tokens.person(person).await?,
        role: caller.role(),
        kind: TokenKind::Device,
        machine: Some(machine),
        lifetime: context.people.device_lifetime(),
    });
    let created = created.await?;
    let object = AuditObject(created.session.name.to_string());
    Ok((Extension(object), Json(created)))
}

pub(super) async fn show(State(context): State<Context>, caller: Caller) -> ApiResult<SessionView> {
    Ok(Json(context.tokens.session_of(&caller).await?))
}

pub(super) async fn end(
    State(context): State<Context>,
    caller: Caller,
) -> Result<(Extension<AuditObject>, Json<TokenRecord>), ApiError> {
    let session = context.tokens.session_of(&caller).await?;
    let ended = context.tokens.revoke(&session.name).await?;
    Ok((
        Extension(AuditObject(session.name.to_string())),
        Json(ended),
    ))
}
