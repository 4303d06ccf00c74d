//! Descriptions of the calls about previews.

use innkeeper_model::access::{CreateGrant, CreatedGrant, GrantRecord};
use innkeeper_model::api::{Accepted, ExecRequest, GuestView, connect as connect_protocol, exec};
use innkeeper_model::preview::PreviewView;
use innkeeper_model::preview::api::{
    ApprovePreview, BuildPreview, CreatePreview, PreviewAccepted, PreviewExplanation,
    SetVisibility, VisibilityReport,
};
use innkeeper_model::preview::check::{CheckConfig, CheckSettings, CheckedConfig};
use innkeeper_model::preview::log::LogLine;
use innkeeper_model::preview::secrets::{RepoSecrets, SecretChanged, SetSecret};
use innkeeper_model::{Code, IdleRequest, KeepaliveRequest, RestReport};

use super::super::response::LogQuery;
use super::super::{connect, previews};
use super::describe::{Description, delete, get, post};
use super::guests::{AWAKEN, OPERATION};

/// Failures to find the preview that a path names.
const PREVIEW: &[Code] = &[
    Code::InvalidConfig,
    Code::InvalidSlug,
    Code::SlugTooLong,
    Code::PreviewNotFound,
];

/// Failures to find the guest of a preview.
const GUEST: &[Code] = &[Code::GuestNotFound];

/// Failures to read a repository.
const REPOSITORY: &[Code] = &[
    Code::BranchNotFound,
    Code::ConfigMissing,
    Code::GithubFailed,
    Code::GithubRateLimited,
    Code::InvalidConfig,
    Code::NoAccess,
    Code::RepoNotAccessible,
    Code::RepoNotAllowed,
];

/// Failures to evaluate a configuration.
const EVALUATION: &[Code] = &[
    Code::BuildFailed,
    Code::BuildHostFailed,
    Code::BuildUsersMissing,
    Code::InvalidClosure,
    Code::NixMissing,
    Code::PreviewConfigInvalid,
    Code::TimedOut,
];

fn on_preview(description: Description) -> Description {
    description.fails(PREVIEW)
}

/// A change of a preview's guest, as an operation.
fn on_guest(path: &'static str, id: &'static str, summary: &'static str) -> Description {
    let operation = on_preview(post(path, id, summary)).accepts::<Accepted>();
    operation.fails(GUEST).fails(OPERATION).fails(AWAKEN)
}

#[rustfmt::skip]
pub(super) fn all() -> Vec<Description> {
    use Code::{ApprovalNeeded, CommandRefused, DatabaseFailed, DiskFull, GrantNotFound, InvalidConfig, InvalidSlug, PermissionDenied, PortClosed, QuotaExceeded, RepoNotAccessible, RepoNotAllowed, RouteFailed, SecretNotFound, SlugConflict, SlugTooLong, TooManyPreviews, VisibilityTooOpen, VisitorsUnchecked};
    vec![
        get("/v1/previews", "preview-list", "Lists previews.").returns_list::<PreviewView>().fails(&[InvalidConfig]),
        on_preview(get("/v1/previews/{slug}", "preview-show", "Returns a preview.")).returns::<PreviewView>(),
        on_preview(get("/v1/previews/{slug}/guest", "preview-guest", "Returns the guest of a preview."))
            .returns::<GuestView>().fails(GUEST),
        on_preview(get("/v1/previews/{slug}/rest", "preview-rest", "Returns the uses that keep a preview awake."))
            .returns::<RestReport>().fails(GUEST),
        on_preview(get("/v1/previews/{slug}/logs", "preview-logs", "Returns the end of a preview's log, with `follow` new lines too."))
            .query::<LogQuery>().query::<previews::LogSelection>()
            .streams_lines_of::<LogLine>("A `LogLine` as JSON on each line, by time.").fails(GUEST).fails(&[Code::UnitFailed]),
        on_preview(get("/v1/previews/{slug}/explain", "preview-explain", "Diagnoses a preview."))
            .returns::<PreviewExplanation>(),
        on_preview(post("/v1/previews/{slug}/update", "preview-update", "Builds a preview's branch again."))
            .accepts::<PreviewAccepted>().fails(REPOSITORY).fails(OPERATION).fails(&[ApprovalNeeded]),
        on_preview(post("/v1/previews/{slug}/database/reset", "preview-reset_database", "Replaces a preview's database by an empty one."))
            .accepts::<PreviewAccepted>().fails(OPERATION).fails(&[DatabaseFailed, CommandRefused]),
        on_guest("/v1/previews/{slug}/start", "preview-start", "Starts a preview's guest."),
        on_guest("/v1/previews/{slug}/stop", "preview-stop", "Stops a preview's guest."),
        on_guest("/v1/previews/{slug}/pause", "preview-pause", "Freezes the processes of a preview."),
        on_guest("/v1/previews/{slug}/sleep", "preview-sleep", "Ends the processes of a preview until it is woken."),
        on_guest("/v1/previews/{slug}/wake", "preview-wake", "Wakes a preview that is paused or asleep."),
        on_preview(get("/v1/previews/{slug}/visibility", "preview-show-visibility", "Returns the visitors of a preview, and where they are set."))
            .returns::<VisibilityReport>(),
        on_preview(post("/v1/previews/{slug}/visibility", "preview-visibility", "Sets the visitors of a preview."))
            .takes::<SetVisibility>().returns::<VisibilityReport>().fails(&[VisitorsUnchecked, VisibilityTooOpen, RouteFailed]),
        on_preview(get("/v1/previews/{slug}/grants", "preview-shares", "Lists the share links and tokens of a preview."))
            .returns_list::<GrantRecord>(),
        on_preview(post("/v1/previews/{slug}/grants", "preview-share", "Creates a share link or a token of a preview."))
            .takes::<CreateGrant>().returns::<CreatedGrant>().fails(&[VisitorsUnchecked]),
        on_preview(delete("/v1/previews/{slug}/grants/{id}", "preview-unshare", "Revokes a share link or a token of a preview."))
            .returns::<GrantRecord>().fails(&[GrantNotFound]),
        on_preview(post("/v1/previews/{slug}/idle", "preview-idle", "Sets the use of a preview's idle time."))
            .takes::<IdleRequest>().returns::<RestReport>().fails(GUEST),
        on_preview(post("/v1/previews/{slug}/keepalive", "preview-keepalive", "Keeps a preview awake for a time."))
            .takes::<KeepaliveRequest>().returns::<RestReport>().fails(GUEST).fails(AWAKEN),
        on_preview(post("/v1/previews/{slug}/exec", "preview-exec", "Runs a command in a preview's guest, which is woken first."))
            .takes::<ExecRequest>().switches_to(exec::PROTOCOL).fails(GUEST).fails(AWAKEN),
        on_preview(post("/v1/previews/{slug}/connect/{port}", "preview-connect", "Connects to a port of a preview's guest, which is woken first."))
            .query::<connect::Wait>().switches_to(connect_protocol::PROTOCOL).fails(GUEST).fails(AWAKEN).fails(&[PortClosed]),
        post("/v1/preview-builds", "preview-build", "Builds the closure of a branch.")
            .takes::<BuildPreview>().accepts::<Accepted>().fails(REPOSITORY).fails(EVALUATION),
        get("/v1/preview-checks", "preview-check-settings", "Returns the settings that affect a check.")
            .returns::<CheckSettings>().fails(&[InvalidConfig]),
        post("/v1/preview-checks", "preview-check", "Checks a configuration without a build.")
            .takes::<CheckConfig>().returns::<CheckedConfig>().fails(&[InvalidConfig]).fails(EVALUATION),
        post("/v1/previews", "preview-create", "Creates a preview of a branch.")
            .takes::<CreatePreview>().accepts::<PreviewAccepted>().fails(REPOSITORY)
            .fails(&[InvalidSlug, SlugTooLong, SlugConflict, TooManyPreviews, QuotaExceeded, DiskFull]).fails(OPERATION),
        on_preview(delete("/v1/previews/{slug}", "preview-destroy", "Destroys a preview with its database."))
            .accepts::<PreviewAccepted>().fails(OPERATION),
        on_preview(post("/v1/previews/{slug}/approve", "preview-approve", "Approves a commit of a fork."))
            .takes::<ApprovePreview>().accepts::<PreviewAccepted>().fails(OPERATION).fails(&[CommandRefused]),
        get("/v1/secrets/{owner}/{repo}", "secret-list", "Lists the secrets of a repository, without their values.")
            .returns::<RepoSecrets>().fails(&[InvalidConfig, PermissionDenied, RepoNotAccessible]),
        post("/v1/secrets/{owner}/{repo}/{name}", "secret-set", "Sets a secret of a repository.")
            .takes::<SetSecret>().returns::<SecretChanged>()
            .fails(&[DiskFull, GrantNotFound, InvalidConfig, PermissionDenied, RepoNotAccessible, RepoNotAllowed]),
        delete("/v1/secrets/{owner}/{repo}/{name}", "secret-remove", "Removes a secret of a repository.")
            .returns::<SecretChanged>().fails(&[DiskFull, GrantNotFound, InvalidConfig, PermissionDenied, RepoNotAccessible, SecretNotFound]),
    ]
}
