//! Descriptions of the calls about the host, tokens and deliveries.

use innkeeper_model::access::{
    AuditEntry, BeginLogin, CreateDeviceSession, CreateToken, CreatedSession, CreatedToken,
    FinishLogin, LoginPage, QuotaReport, ReadyReport, SessionView, TokenRecord,
};
use innkeeper_model::api::{
    Accepted, BackupRequest, BuildRequest, ConfigReport, DoctorReport, GcReport, GcRequest,
    PoolReport, RestoreRequest, SlotReport, Status,
};
use innkeeper_model::preview::api::{DeliveryDetails, DeliveryView};
use innkeeper_model::{Code, Event, GuestUsage, Operation};

use super::super::{audit, deliveries, events};
use super::describe::{Description, delete, get, post};

#[rustfmt::skip]
pub(super) fn all() -> Vec<Description> {
    use Code::{BackupFailed, BackupInvalid, BuildUsersMissing, DeliveryNotFound, FlakeRefused, FlakeUnset, GuestBusy, GuestExists, GuestNotFound, HostInUse, InvalidName, KernelFeatureMissing, LoginDisabled, LoginRefused, NixMissing, OperationNotFound, TokenExists, TokenNotFound, TooManyRequests};
    vec![
        get("/v1/ready", "ready", "Reports whether the parts of the host work that every guest needs.")
            .returns::<ReadyReport>()
            .responds::<ReadyReport>(503, "Parts do not work: the report lists them."),
        get("/v1/openapi.json", "openapi", "Returns this document.")
            .returns_object("The document, OpenAPI 3.1."),
        get("/v1/status", "status", "Returns an overview of the daemon.").returns::<Status>(),
        get("/v1/usage", "usage", "Lists the resource usage of the guests, the busiest first.").returns_list::<GuestUsage>(),
        get("/v1/quotas", "quotas", "Returns the use of the owners of agents, with their quotas.").returns::<QuotaReport>(),
        get("/v1/operations/{id}", "operation-show", "Returns an operation.")
            .returns::<Operation>().fails(&[OperationNotFound]),
        get("/v1/events", "events", "Streams events: the recorded ones, then with `follow` new ones. `Last-Event-ID` resumes a stream.")
            .query::<events::EventQuery>()
            .sends_events_of::<Event>("Server-sent events, each with an `Event` as JSON.")
            .fails(&[OperationNotFound, InvalidName]),
        post("/v1/builds", "build", "Builds a closure.")
            .takes::<BuildRequest>().accepts::<Accepted>()
            .fails(&[FlakeRefused, FlakeUnset, NixMissing, BuildUsersMissing]),
        get("/v1/slots", "slots", "Lists the slots in use.").returns::<SlotReport>(),
        get("/v1/pool", "pool", "Returns the use of the storage of guests' files.").returns::<PoolReport>(),
        get("/v1/deliveries", "delivery-list", "Lists deliveries of GitHub, the newest first.")
            .query::<deliveries::Filter>().returns_list::<DeliveryView>(),
        get("/v1/deliveries/{id}", "delivery-show", "Returns a delivery with its event.")
            .returns::<DeliveryDetails>().fails(&[DeliveryNotFound]),
        get("/v1/doctor", "doctor", "Checks the host.").returns::<DoctorReport>(),
        post("/v1/gc", "gc", "Removes objects that belong to no guest.").takes::<GcRequest>().returns::<GcReport>(),
        get("/v1/tokens", "token-list", "Lists tokens, also expired and revoked ones.").returns_list::<TokenRecord>(),
        post("/v1/tokens", "token-create", "Creates a token. The response is the only one with its secret.")
            .takes::<CreateToken>().returns::<CreatedToken>().fails(&[TokenExists]),
        delete("/v1/tokens/{token}", "token-revoke", "Revokes a token.")
            .returns::<TokenRecord>().fails(&[TokenNotFound]),
        post("/v1/logins", "login-begin", "Returns the address of GitHub's page for a login.")
            .takes::<BeginLogin>().returns::<LoginPage>().fails(&[LoginDisabled]),
        post("/v1/sessions", "login", "Completes a login. The audit log has it as `login`, with the person.")
            .takes::<FinishLogin>().returns::<CreatedSession>().fails(&[LoginDisabled, LoginRefused, TooManyRequests]),
        post("/v1/sessions/device", "login-device", "Creates a session of the same person on another machine.")
            .takes::<CreateDeviceSession>().returns::<CreatedSession>(),
        get("/v1/session", "session-show", "Returns the session.").returns::<SessionView>(),
        delete("/v1/session", "logout", "Ends the session.").returns::<TokenRecord>(),
        get("/v1/audit", "audit", "Lists changes, the oldest first.")
            .query::<audit::Filter>().returns_list::<AuditEntry>(),
        get("/v1/config", "config", "Returns the effective configuration.").returns::<ConfigReport>(),
        post("/v1/prefetches", "prefetch", "Builds closures before somebody requests them.").accepts::<Accepted>(),
        post("/v1/backups", "backup", "Makes a backup set.")
            .takes::<BackupRequest>().accepts::<Accepted>().fails(&[BackupFailed, GuestBusy, KernelFeatureMissing]),
        post("/v1/backups/restore", "restore", "Restores guests from a backup set.")
            .takes::<RestoreRequest>().accepts::<Accepted>()
            .fails(&[BackupInvalid, GuestBusy, GuestExists, GuestNotFound, HostInUse]),
        post("/v1/deliveries/{id}/replay", "delivery-replay", "Processes a delivery again.")
            .accepts::<DeliveryView>().fails(&[DeliveryNotFound]),
    ]
}
