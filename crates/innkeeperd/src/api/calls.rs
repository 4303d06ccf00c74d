//! The table of all calls, with the access that each requires. Both sockets serve it.

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodRouter};
use innkeeper_model::access::Role;
use innkeeper_model::preview::check::CheckConfig;
use innkeeper_model::preview::secrets::MAX_SECRET_REQUEST;

use super::access::{Access, Gate, Needs, Scope, authorize};
use super::openapi::Gated;
use super::private::{Named, Sight};
use super::{
    Context, audit, connect, deliveries, events, exec, grants, guests, host, openapi, previews,
    private, quotas, rest, retained, secrets, sessions, snapshots, tokens,
};
use crate::access::Tokens;
use crate::audit::AuditLog;

/// One call of the API.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
    handler: MethodRouter<Context>,
}

impl Call {
    /// Adds the call to a router, behind the check of its access.
    pub(super) fn serve(self, router: Router<Context>, context: &Context) -> Router<Context> {
        let (tokens, audit) = (context.tokens.clone(), context.audit.clone());
        let named = Named::of(self.method, self.path);
        let private = from_fn_with_state((Sight::of(context), named), private::check);
        let handler = self.handler.route_layer(private);
        router.route(self.path, gated(handler, self.access, tokens, audit))
    }

    /// Returns the call's method, path and access.
    pub(super) fn gated(&self) -> Gated {
        (self.method, self.path, self.access)
    }

    /// Leaves a call without an effect out of the audit log.
    fn without_effect(mut self) -> Self {
        self.access.audit = None;
        self
    }

    /// Replaces the limit of the request's body.
    fn limited_to(self, bytes: usize) -> Self {
        Self {
            handler: self.handler.layer(DefaultBodyLimit::max(bytes)),
            ..self
        }
    }
}

/// Returns a handler behind the check of a call's access.
fn gated<S: Clone + Send + Sync + 'static>(
    handler: MethodRouter<S>,
    access: Access,
    tokens: Tokens,
    audit: AuditLog,
) -> MethodRouter<S> {
    let gate = Gate {
        access,
        tokens,
        audit,
    };
    handler.route_layer(from_fn_with_state(gate, authorize))
}

const NOTHING: Needs = Needs::Nothing;
const GATEWAY: Needs = Needs::Gateway;
const SESSION: Needs = Needs::Session;
const BROWSER: Needs = Needs::Browser;
const VIEWER: Needs = Needs::Role(Role::Viewer);
const DEVELOPER: Needs = Needs::Role(Role::Developer);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);
const UPKEEP: Needs = Needs::Upkeep;
const LOCAL: Needs = Needs::Host;

/// A call that changes nothing.
fn get<T: 'static>(
    path: &'static str,
    needs: Needs,
    scope: Scope,
    handler: impl Handler<T, Context>,
) -> Call {
    Call {
        method: "GET",
        path,
        access: Access {
            needs,
            scope,
            audit: None,
        },
        handler: routing::get(handler),
    }
}

/// A call that changes something. `audit` is its name in the audit log.
fn post<T: 'static>(
    path: &'static str,
    audit: &'static str,
    needs: Needs,
    scope: Scope,
    handler: impl Handler<T, Context>,
) -> Call {
    Call {
        method: "POST",
        path,
        access: Access {
            needs,
            scope,
            audit: Some(audit),
        },
        handler: routing::post(handler),
    }
}

/// A call that removes something; see [`post`].
fn delete<T: 'static>(
    path: &'static str,
    audit: &'static str,
    needs: Needs,
    scope: Scope,
    handler: impl Handler<T, Context>,
) -> Call {
    Call {
        method: "DELETE",
        path,
        access: Access {
            needs,
            scope,
            audit: Some(audit),
        },
        handler: routing::delete(handler),
    }
}

/// Returns all calls of the API.
pub(super) fn all() -> Vec<Call> {
    let mut calls = of_host();
    calls.extend(of_guests());
    calls.extend(of_previews());
    calls
}

#[rustfmt::skip]
fn of_host() -> Vec<Call> {
    use Scope::{Host, Visible};
    vec![
        get("/v1/ready", NOTHING, Host, host::ready),
        get("/v1/openapi.json", VIEWER, Visible, openapi::show),
        get("/v1/status", VIEWER, Host, host::status),
        get("/v1/usage", VIEWER, Host, host::usage),
        get("/v1/quotas", VIEWER, Host, quotas::show),
        get("/v1/operations/{id}", VIEWER, Visible, host::operation),
        get("/v1/events", VIEWER, Visible, events::events),
        post("/v1/builds", "build", DEVELOPER, Host, host::build),
        get("/v1/slots", OPERATOR, Host, host::slots),
        get("/v1/pool", OPERATOR, Host, host::pool),
        get("/v1/deliveries", OPERATOR, Host, deliveries::list),
        get("/v1/deliveries/{id}", OPERATOR, Host, deliveries::show),
        get("/v1/doctor", UPKEEP, Host, host::doctor),
        post("/v1/gc", "gc", UPKEEP, Host, host::gc),
        get("/v1/tokens", ADMIN, Host, tokens::list),
        post("/v1/tokens", "token-create", ADMIN, Host, tokens::create),
        delete("/v1/tokens/{token}", "token-revoke", ADMIN, Host, tokens::revoke),
        get("/v1/audit", ADMIN, Host, audit::list),
        post("/v1/logins", "login-begin", GATEWAY, Host, sessions::begin).without_effect(),
        // Its handler writes the audit log: the call has no actor before it has an effect.
        post("/v1/sessions", "login", GATEWAY, Host, sessions::finish).without_effect(),
        post("/v1/sessions/device", "login-device", BROWSER, Host, sessions::create_for_device),
        get("/v1/session", SESSION, Host, sessions::show),
        delete("/v1/session", "logout", SESSION, Host, sessions::end),
        get("/v1/config", LOCAL, Host, host::config),
        post("/v1/prefetches", "prefetch", LOCAL, Host, host::prefetch),
        post("/v1/backups", "backup", LOCAL, Host, host::back_up),
        post("/v1/backups/restore", "restore", LOCAL, Host, host::restore),
        post("/v1/deliveries/{id}/replay", "delivery-replay", LOCAL, Host, deliveries::replay),
    ]
}

#[rustfmt::skip]
fn of_guests() -> Vec<Call> {
    use Scope::{Host, Own, Visible};
    vec![
        get("/v1/guests", VIEWER, Visible, guests::list),
        get("/v1/guests/{name}", VIEWER, Visible, guests::show),
        get("/v1/guests/{name}/rest", VIEWER, Host, rest::show),
        get("/v1/guests/{name}/logs", VIEWER, Host, guests::logs),
        get("/v1/guests/{name}/snapshots", VIEWER, Host, snapshots::list),
        get("/v1/snapshots", VIEWER, Host, snapshots::all),
        post("/v1/guests", "guest-create", DEVELOPER, Host, guests::create),
        delete("/v1/guests/{name}", "guest-destroy", DEVELOPER, Own, guests::destroy),
        post("/v1/guests/{name}/start", "guest-start", DEVELOPER, Own, guests::start),
        post("/v1/guests/{name}/stop", "guest-stop", DEVELOPER, Own, guests::stop),
        post("/v1/guests/{name}/pause", "guest-pause", DEVELOPER, Own, guests::pause),
        post("/v1/guests/{name}/sleep", "guest-sleep", DEVELOPER, Own, guests::sleep),
        post("/v1/guests/{name}/wake", "guest-wake", DEVELOPER, Own, guests::wake),
        post("/v1/guests/{name}/idle", "guest-idle", DEVELOPER, Own, rest::set_idle),
        post("/v1/guests/{name}/keepalive", "guest-keepalive", DEVELOPER, Own, rest::keep_awake),
        post("/v1/guests/{name}/set", "guest-set", DEVELOPER, Own, guests::set),
        post("/v1/guests/{name}/fork", "guest-fork", DEVELOPER, Own, snapshots::fork),
        post("/v1/guests/{name}/snapshots", "snapshot-take", DEVELOPER, Own, snapshots::take),
        delete("/v1/guests/{name}/snapshots/{label}", "snapshot-delete", DEVELOPER, Own, snapshots::delete),
        post("/v1/guests/{name}/snapshots/{label}/restore", "snapshot-restore", DEVELOPER, Own, snapshots::restore),
        post("/v1/guests/{name}/exec", "guest-exec", DEVELOPER, Own, exec::exec),
        post("/v1/guests/{name}/connect/{port}", "guest-connect", DEVELOPER, Own, connect::connect),
        get("/v1/retained", OPERATOR, Host, retained::list),
        delete("/v1/retained/{name}", "retained-purge", OPERATOR, Host, retained::purge),
        post("/v1/retained/{name}/undelete", "guest-undelete", OPERATOR, Host, retained::undelete),
    ]
}

#[rustfmt::skip]
fn of_previews() -> Vec<Call> {
    use Scope::Visible;
    vec![
        get("/v1/previews", VIEWER, Visible, previews::list),
        get("/v1/previews/{slug}", VIEWER, Visible, previews::show),
        get("/v1/previews/{slug}/guest", VIEWER, Visible, previews::guest),
        get("/v1/previews/{slug}/rest", VIEWER, Visible, rest::show_preview),
        get("/v1/previews/{slug}/logs", VIEWER, Visible, previews::logs),
        get("/v1/previews/{slug}/explain", VIEWER, Visible, previews::explain),
        post("/v1/previews/{slug}/update", "preview-update", DEVELOPER, Visible, previews::update),
        post("/v1/previews/{slug}/database/reset", "preview-reset_database", DEVELOPER, Visible, previews::reset_database),
        post("/v1/previews/{slug}/start", "preview-start", DEVELOPER, Visible, previews::start),
        post("/v1/previews/{slug}/stop", "preview-stop", DEVELOPER, Visible, previews::stop),
        post("/v1/previews/{slug}/pause", "preview-pause", DEVELOPER, Visible, previews::pause),
        post("/v1/previews/{slug}/sleep", "preview-sleep", DEVELOPER, Visible, previews::sleep),
        post("/v1/previews/{slug}/wake", "preview-wake", DEVELOPER, Visible, previews::wake),
        get("/v1/previews/{slug}/visibility", VIEWER, Visible, previews::visibility),
        post("/v1/previews/{slug}/visibility", "preview-visibility", DEVELOPER, Visible, previews::set_visibility),
        get("/v1/previews/{slug}/grants", DEVELOPER, Visible, grants::list),
        post("/v1/previews/{slug}/grants", "preview-share", DEVELOPER, Visible, grants::create),
        delete("/v1/previews/{slug}/grants/{id}", "preview-unshare", DEVELOPER, Visible, grants::delete),
        post("/v1/previews/{slug}/idle", "preview-idle", DEVELOPER, Visible, rest::set_idle_of_preview),
        post("/v1/previews/{slug}/keepalive", "preview-keepalive", DEVELOPER, Visible, rest::keep_preview_awake),
        post("/v1/previews/{slug}/exec", "preview-exec", DEVELOPER, Visible, exec::exec_in_preview),
        post("/v1/previews/{slug}/connect/{port}", "preview-connect", DEVELOPER, Visible, connect::connect_to_preview),
        post("/v1/preview-builds", "preview-build", DEVELOPER, Visible, previews::build),
        get("/v1/preview-checks", DEVELOPER, Visible, previews::check_settings),
        post("/v1/preview-checks", "preview-check", DEVELOPER, Visible, previews::check)
            .without_effect()
            .limited_to(CheckConfig::MAX_BYTES),
        post("/v1/previews", "preview-create", OPERATOR, Visible, previews::create),
        delete("/v1/previews/{slug}", "preview-destroy", OPERATOR, Visible, previews::destroy),
        post("/v1/previews/{slug}/approve", "preview-approve", OPERATOR, Visible, previews::approve),
        get("/v1/secrets/{owner}/{repo}", OPERATOR, Visible, secrets::list),
        post("/v1/secrets/{owner}/{repo}/{name}", "secret-set", OPERATOR, Visible, secrets::set)
            .limited_to(MAX_SECRET_REQUEST),
        delete("/v1/secrets/{owner}/{repo}/{name}", "secret-remove", OPERATOR, Visible, secrets::remove),
    ]
}
