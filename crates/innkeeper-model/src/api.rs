//! The API's requests and responses: JSON over HTTP/1.1 on the daemon's Unix socket.
//!
//! | call | request | response |
//! | --- | --- | --- |
//! | `GET /v1/ready` | | 200 or 503, [`ReadyReport`](crate::access::ReadyReport) |
//! | `GET /v1/openapi.json` | | the OpenAPI document of all calls |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/config` | | [`ConfigReport`] |
//! | `GET /v1/doctor` | | [`DoctorReport`] |
//! | `POST /v1/gc` | [`GcRequest`] | [`GcReport`] |
//! | `GET /v1/slots` | | [`SlotReport`] |
//! | `GET /v1/pool` | | [`PoolReport`] |
//! | `GET /v1/quotas` | | [`QuotaReport`](crate::access::QuotaReport) |
//! | `GET /v1/usage` | | list of [`GuestUsage`], the busiest first |
//! | `GET /v1/guests` | | list of [`GuestView`] |
//! | `POST /v1/guests` | [`CreateRequest`] | 202, [`Accepted`] |
//! | `GET /v1/guests/{name}` | | [`GuestView`] |
//! | `DELETE /v1/guests/{name}?now=BOOL` | | 202, [`Accepted`]; without `now=true`, an agent's files are kept for a while |
//! | `POST /v1/guests/{name}/start` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/stop` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/pause` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/sleep` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/wake` | | 202, [`Accepted`] |
//! | `GET /v1/guests/{name}/rest` | | [`RestReport`] |
//! | `POST /v1/guests/{name}/idle` | [`IdleRequest`] | [`RestReport`] |
//! | `POST /v1/guests/{name}/keepalive` | [`KeepaliveRequest`] | [`RestReport`], when the guest is awake |
//! | `POST /v1/guests/{name}/set` | [`SetRequest`] | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/fork` | [`ForkRequest`] | 202, [`Accepted`] |
//! | `GET /v1/guests/{name}/snapshots` | | list of [`Snapshot`], the oldest first |
//! | `POST /v1/guests/{name}/snapshots` | [`SnapshotRequest`] | 202, [`SnapshotAccepted`] |
//! | `DELETE /v1/guests/{name}/snapshots/{label}` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/snapshots/{label}/restore` | | 202, [`Accepted`] |
//! | `GET /v1/snapshots` | | list of [`Snapshot`], by guest |
//! | `GET /v1/retained` | | list of [`RetainedView`], the oldest first |
//! | `POST /v1/retained/{name}/undelete` | [`UndeleteRequest`] | 202, [`Accepted`] |
//! | `DELETE /v1/retained/{id}` | | 202, [`Accepted`] |
//! | `GET /v1/guests/{name}/logs?lines=N&follow=BOOL` | | the console's bytes, `text/plain` |
//! | `POST /v1/guests/{name}/exec` | [`ExecRequest`], `Upgrade: innkeeper-exec` | 101, then [frames](exec) |
//! | `POST /v1/guests/{name}/connect/{port}?wait=SECONDS` | `Upgrade: innkeeper-connect` | 101, then [frames](connect) |
//! | `POST /v1/backups` | [`BackupRequest`], from root | 202, [`Accepted`] |
//! | `POST /v1/backups/restore` | [`RestoreRequest`], from root | 202, [`Accepted`] |
//! | `POST /v1/builds` | [`BuildRequest`] | 202, [`Accepted`] |
//! | `POST /v1/prefetches` | from root | 202, [`Accepted`]; that of the prefetch in progress, if there is one |
//! | `GET /v1/previews` | | list of [`PreviewView`] |
//! | `POST /v1/previews` | [`CreatePreview`] | 202, [`PreviewAccepted`] |
//! | `GET /v1/previews/{slug}` | | [`PreviewView`] |
//! | `DELETE /v1/previews/{slug}` | | 202, [`PreviewAccepted`] |
//! | `POST /v1/previews/{slug}/update` | | 202, [`PreviewAccepted`] |
//! | `POST /v1/previews/{slug}/approve` | [`ApprovePreview`] | 202, [`PreviewAccepted`] |
//! | `POST /v1/previews/{slug}/database/reset` | | 202, [`PreviewAccepted`] |
//! | `GET /v1/previews/{slug}/guest` | | [`GuestView`] |
//! | `POST /v1/previews/{slug}/start` | | 202, [`Accepted`] |
//! | `POST /v1/previews/{slug}/stop` | | 202, [`Accepted`] |
//! | `POST /v1/previews/{slug}/pause` | | 202, [`Accepted`] |
//! | `POST /v1/previews/{slug}/sleep` | | 202, [`Accepted`] |
//! | `POST /v1/previews/{slug}/wake` | | 202, [`Accepted`] |
//! | `GET /v1/previews/{slug}/rest` | | [`RestReport`] |
//! | `POST /v1/previews/{slug}/idle` | [`IdleRequest`] | [`RestReport`] |
//! | `GET /v1/previews/{slug}/visibility` | | [`VisibilityReport`](crate::preview::api::VisibilityReport) |
//! | `POST /v1/previews/{slug}/visibility` | [`SetVisibility`](crate::preview::api::SetVisibility) | [`VisibilityReport`](crate::preview::api::VisibilityReport), when it is in force |
//! | `GET /v1/previews/{slug}/grants` | | list of [`GrantRecord`](crate::access::GrantRecord) that have not expired |
//! | `POST /v1/previews/{slug}/grants` | [`CreateGrant`](crate::access::CreateGrant) | [`CreatedGrant`](crate::access::CreatedGrant) |
//! | `DELETE /v1/previews/{slug}/grants/{id}` | | [`GrantRecord`](crate::access::GrantRecord) |
//! | `POST /v1/previews/{slug}/keepalive` | [`KeepaliveRequest`] | [`RestReport`], when the guest is awake |
//! | `POST /v1/previews/{slug}/exec` | [`ExecRequest`], `Upgrade: innkeeper-exec` | 101, then [frames](exec) |
//! | `POST /v1/previews/{slug}/connect/{port}?wait=SECONDS` | `Upgrade: innkeeper-connect` | 101, then [frames](connect) |
//! | `GET /v1/previews/{slug}/logs?lines=N&follow=BOOL&since=TIME&service=NAME&attempt=N` | | [`LogLine`](crate::preview::log::LogLine)s by time, `application/x-ndjson` |
//! | `GET /v1/previews/{slug}/explain` | | [`PreviewExplanation`] |
//! | `POST /v1/preview-builds` | [`BuildPreview`] | 202, [`Accepted`] |
//! | `GET /v1/preview-checks` | | [`CheckSettings`](crate::preview::check::CheckSettings) |
//! | `POST /v1/preview-checks` | [`CheckConfig`](crate::preview::check::CheckConfig) | [`CheckedConfig`](crate::preview::check::CheckedConfig) |
//! | `GET /v1/secrets/{owner}/{repo}` | | [`RepoSecrets`](crate::preview::secrets::RepoSecrets) |
//! | `POST /v1/secrets/{owner}/{repo}/{name}` | [`SetSecret`](crate::preview::secrets::SetSecret) | [`SecretChanged`](crate::preview::secrets::SecretChanged) |
//! | `DELETE /v1/secrets/{owner}/{repo}/{name}` | | [`SecretChanged`](crate::preview::secrets::SecretChanged) |
//! | `GET /v1/operations/{id}` | | [`crate::Operation`] |
//! | `GET /v1/events?operation=ID&guest=NAME&after=SEQ&follow=BOOL` | | [`crate::Event`]s, server-sent events |
//! | `GET /v1/audit?actor=ACTOR&since=TIME&limit=N` | from root | list of [`AuditEntry`](crate::access::AuditEntry), the oldest first |
//! | `GET /v1/tokens` | from root | list of [`TokenRecord`](crate::access::TokenRecord), also revoked ones |
//! | `POST /v1/tokens` | [`CreateToken`](crate::access::CreateToken), from root | [`CreatedToken`](crate::access::CreatedToken) |
//! | `GET /v1/session` | from a person | [`SessionView`](crate::access::SessionView) |
//! | `DELETE /v1/session` | from a person | [`TokenRecord`](crate::access::TokenRecord) |
//! | `POST /v1/sessions/device` | [`CreateDeviceSession`](crate::access::CreateDeviceSession), from a person in a browser | [`CreatedSession`](crate::access::CreatedSession) |
//! | `POST /v1/logins` | [`BeginLogin`](crate::access::BeginLogin), from the gateway | [`LoginPage`](crate::access::LoginPage) |
//! | `POST /v1/sessions` | [`FinishLogin`](crate::access::FinishLogin), from the gateway | [`CreatedSession`](crate::access::CreatedSession) |
//! | `DELETE /v1/tokens/{name}` | from root | [`TokenRecord`](crate::access::TokenRecord) |
//! | `GET /v1/deliveries?pull_request=OWNER/NAME%23N&limit=N` | | list of [`crate::preview::api::DeliveryView`], the newest first |
//! | `GET /v1/deliveries/{id}` | | [`crate::preview::api::DeliveryDetails`] |
//! | `POST /v1/deliveries/{id}/replay` | | 202, [`crate::preview::api::DeliveryView`] |
//!
//! A gateway passes on the same calls, on another socket, with the rights of its client's role ([`crate::access`]). Root has all
//! rights, and "from root" includes tokens of the role admin for tokens and the audit log.
//!
//! With `operation=ID` the stream of events ends after the operation's last one. `Last-Event-ID` counts as
//! `after`. An error has a [`crate::Failure`] as its body, and the status of its kind.
//!
//! `exec` and `connect` wake a guest that is paused or asleep, and begin when it is awake.
//!
//! All calls below `/v1/guests/{name}` except `GET /v1/guests/{name}` itself are for agents. For a preview's guest they
//! fail with `guest_is_preview`, and the remedy names the corresponding call for previews.
//!
//! A client that received [`PreviewAccepted`] polls the preview until its state [is settled], or until it is not found.
//! Therefore the state changes before the response is sent: a preview to be updated is no longer `live` by then.
//!
//! [`ApprovePreview`]: crate::preview::api::ApprovePreview
//! [`BuildPreview`]: crate::preview::api::BuildPreview
//! [`CreatePreview`]: crate::preview::api::CreatePreview
//! [`GuestUsage`]: crate::GuestUsage
//! [`PreviewAccepted`]: crate::preview::api::PreviewAccepted
//! [`PreviewExplanation`]: crate::preview::api::PreviewExplanation
//! [`PreviewView`]: crate::preview::PreviewView
//! [`IdleRequest`]: crate::IdleRequest
//! [`KeepaliveRequest`]: crate::KeepaliveRequest
//! [`RestReport`]: crate::RestReport
//! [`Snapshot`]: crate::Snapshot
//! [is settled]: crate::preview::PreviewState::is_settled

pub mod connect;
mod pool;
mod status;

pub use pool::{PoolReport, PoolVolume};
pub use status::{AuditRetention, Status};

use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Cpus, Guest, GuestKind, GuestName, GuestState, IdlePolicy, MemorySize, OperationId, Ownership,
    Retained, RetainedId, Slot, SnapshotLabel, StorePath, UnitPhase, UserIdCount,
};

/// Default limit of a list of deliveries.
pub const DEFAULT_DELIVERIES: usize = 50;

/// Creates a guest. Omitted fields use the configured defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Its name; generated when omitted.
    #[serde(default)]
    pub name: Option<GuestName>,
    /// The flake output it boots from, `<flake>` or `<flake>#<attribute>`.
    #[serde(default)]
    pub flake: Option<String>,
    /// The store path it boots from. Excludes `flake`.
    #[serde(default)]
    pub closure: Option<StorePath>,
    /// Memory limit.
    #[serde(default)]
    pub memory: Option<MemorySize>,
    /// CPU limit.
    #[serde(default)]
    pub cpus: Option<Cpus>,
    /// Maximum number of processes and threads.
    #[serde(default)]
    pub tasks: Option<u32>,
    /// Number of user ids. With `nesting`, at least 131072 when omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<UserIdCount>,
    /// Whether container engines can run in it. The host's configuration must allow that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
    /// True if the host's configuration declares it. For root only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// The use of its idle time; that of agents in the configuration when omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_policy: Option<IdlePolicy>,
}

/// Changes the closure or the limits of an agent. Omitted fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// The flake output to boot from, `<flake>` or `<flake>#<attribute>`.
    #[serde(default)]
    pub flake: Option<String>,
    /// The store path to boot from. Excludes `flake`.
    #[serde(default)]
    pub closure: Option<StorePath>,
    /// Memory limit.
    #[serde(default)]
    pub memory: Option<MemorySize>,
    /// CPU limit.
    #[serde(default)]
    pub cpus: Option<Cpus>,
    /// Maximum number of processes and threads.
    #[serde(default)]
    pub tasks: Option<u32>,
    /// Record that the host's configuration declares the agent. For root only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// Restart the agent, also where its running system could switch.
    #[serde(default)]
    pub restart: bool,
}

/// Makes a backup set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The directory of the set, an absolute path. The set replaces the former one there.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub directory: PathBuf,
    /// Copies the guests' closures too.
    #[serde(default)]
    pub closures: bool,
    /// Whether a set without some of the guests is a success.
    #[serde(default)]
    pub allow_incomplete: bool,
}

/// Restores guests from a backup set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// The directory of the set, an absolute path.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub directory: PathBuf,
    /// The guests to restore, none of which may exist; empty for everything, on a host without guests.
    #[serde(default)]
    pub guests: Vec<GuestName>,
}

/// Builds a closure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// The flake output (`<flake>` or `<flake>#<attribute>`); the configured one when omitted.
    #[serde(default)]
    pub installable: Option<String>,
}

/// The request is recorded on disk and will be carried out, even if the daemon crashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// The operation to follow.
    pub operation: OperationId,
    /// The guest it concerns.
    pub guest: Option<GuestName>,
}

/// Takes a snapshot of a guest's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// Its label; generated from the time when omitted.
    #[serde(default)]
    pub label: Option<SnapshotLabel>,
}

/// A snapshot is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotAccepted {
    /// The operation to follow.
    #[serde(flatten)]
    pub accepted: Accepted,
    /// The snapshot's label.
    pub label: SnapshotLabel,
}

/// Creates a guest as a copy of another one: same closure, limits and files; its own slot, host key and machine
/// id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// The new guest's name.
    pub name: GuestName,
    /// The snapshot to copy; the current files when omitted.
    #[serde(default)]
    pub snapshot: Option<SnapshotLabel>,
}

/// Creates an agent again with its retained files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UndeleteRequest {
    /// The new agent's name; the former one when omitted.
    #[serde(default, rename = "as")]
    pub new_name: Option<GuestName>,
    /// The number of the retained files; those of the agent destroyed last when omitted.
    #[serde(default)]
    pub id: Option<RetainedId>,
}

/// A destroyed agent in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetainedView {
    /// The record.
    #[serde(flatten)]
    pub retained: Retained,
    /// Remaining retention of its files, in seconds. They are evicted earlier when space is needed.
    pub remaining_seconds: u64,
}

/// The space that retained files use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetainedSpace {
    /// Number of destroyed agents with retained files.
    pub agents: usize,
    /// Bytes used, as far as measured.
    pub bytes: u64,
}

/// A guest in a list: its record and its observed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestView {
    /// The record.
    #[serde(flatten)]
    pub guest: Guest,
    /// Its state.
    pub state: GuestState,
    /// The state of its unit, as the supervisor reports it.
    pub unit: Option<UnitPhase>,
    /// The gateway's address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub host_address: Option<Ipv4Addr>,
    /// Its own address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub guest_address: Option<Ipv4Addr>,
    /// Its interface on the host.
    pub interface: String,
    /// Number of its processes that the kernel killed for lack of memory since its start.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// Memory that it uses, without the part of the file cache that the kernel can free at once, in bytes. `None` while it
    /// does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The login of its owner, or the name of the owner's token. `None` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_name: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigReport {
    /// The configuration file, if one was read.
    pub file: Option<String>,
    /// Every setting.
    pub settings: Vec<Setting>,
}

/// A setting and the origin of its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setting {
    /// Its dotted name, such as `network.subnet`.
    pub name: String,
    /// Its value as TOML.
    pub value: String,
    /// `default`, `file`, or the name of the environment variable.
    pub origin: String,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No problem found.
    Ok,
    /// It works, but is degraded.
    Warning,
    /// It does not work.
    Broken,
}

/// One link of the chain from the configuration to a guest's first packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// The object checked, such as `nix` or `guest web-1: network`.
    pub subject: String,
    /// The result.
    pub verdict: Verdict,
    /// The finding, as a sentence.
    pub finding: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The findings of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DoctorReport {
    /// All checks, in the order of the chain.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Reports whether no check is [`Verdict::Broken`].
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|c| c.verdict != Verdict::Broken)
    }
}

/// Removes orphans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Only list the orphans.
    #[serde(default)]
    pub dry_run: bool,
    /// Also remove orphans without a daemon's mark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmarked: bool,
}

/// The orphans that `gc` removed, or would remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcReport {
    /// True if nothing was removed.
    pub dry_run: bool,
    /// The orphans.
    pub orphans: Vec<Orphan>,
    /// Resources that could not be listed, such as databases while PostgreSQL is down: they may have more orphans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<crate::Failure>,
}

/// An object with Innkeeper's naming that belongs to no guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Orphan {
    /// The kind of resource, such as `rootfs`.
    pub resource: String,
    /// Its name on the host: a path, an interface, a unit.
    pub object: String,
    /// True if it was removed.
    pub removed: bool,
    /// Its owner. Objects of another daemon are never removed.
    #[serde(default, skip_serializing_if = "Ownership::is_ours")]
    pub ownership: Ownership,
    /// The reason that it could not be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::Failure>,
}

/// The slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotReport {
    /// The subnet.
    pub subnet: String,
    /// The slot counter: the highest slot assigned so far, until it wraps.
    pub counter: u32,
    /// Number of slots in the subnet.
    pub capacity: usize,
    /// The slots in use.
    pub taken: Vec<TakenSlot>,
}

impl SlotReport {
    /// Returns the number of slots in use.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.taken.iter().map(|taken| taken.count).sum()
    }
}

/// A slot in use, or a guest's run of consecutive ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TakenSlot {
    /// The slot; the first one of a run.
    pub slot: Slot,
    /// The number of consecutive slots: one for each 65536 user ids of the guest.
    #[serde(default = "one")]
    pub count: u32,
    /// Its owner: a guest's name, the name of one that waits at its door to become a guest, or the file of an older installation.
    pub owner: String,
    /// The kind of guest; `None` for the others.
    pub kind: Option<GuestKind>,
    /// The guest's address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub guest_address: Option<Ipv4Addr>,
}

fn one() -> u32 {
    1
}

/// A closure that `agent build` made, cached for the next guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedClosure {
    /// The flake output.
    pub installable: String,
    /// The store path.
    pub closure: StorePath,
    /// Its source: Nix's hash of the locked flake.
    pub fingerprint: String,
    /// When it was built.
    pub built_at: Timestamp,
}

/// Runs a command in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments; the program is looked up in the guest's `PATH`.
    pub command: Vec<String>,
    /// True if it gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// The terminal's size in rows and columns.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// Additional environment variables.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// The guest's user to run it as, by name or number; root when omitted.
    #[serde(default)]
    pub user: Option<String>,
    /// True if it continues after the connection ends, without input and with its output discarded. The exit status of
    /// the connection is 0 once the command runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

/// The frames of an upgraded `exec` connection: one byte for the kind, four bytes for the length of the
/// body (big endian), the body.
pub mod exec {
    /// Caller to daemon: bytes for the command's standard input. An empty body ends the input.
    pub const STDIN: u8 = 0;
    /// Daemon to caller: bytes of the command's standard output (or of its terminal).
    pub const STDOUT: u8 = 1;
    /// Daemon to caller: bytes of the command's standard error.
    pub const STDERR: u8 = 2;
    /// Daemon to caller, before the exit status: a note for the user in UTF-8, such as that the kernel killed the command
    /// for lack of memory.
    pub const NOTE: u8 = 6;
    /// Daemon to caller, last: the exit status, a big-endian `i32`; 128 + n for signal n.
    pub const EXIT: u8 = 3;
    /// Caller to daemon: the terminal's new size, rows and columns, two big-endian `u16`.
    pub const RESIZE: u8 = 4;
    /// Daemon to caller, last: a [`crate::Failure`] as JSON; the command did not run.
    pub const FAILURE: u8 = 5;
    /// Maximum length of a body, for both sides.
    pub const MAX_BODY: usize = 64 * 1024;
    /// The protocol's name in the `Upgrade` header.
    pub const PROTOCOL: &str = "innkeeper-exec";
}
