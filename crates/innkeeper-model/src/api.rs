//! The API's requests and answers: JSON over HTTP/1.1 on the daemon's Unix socket.
//!
//! | call | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/config` | | [`ConfigReport`] |
//! | `GET /v1/doctor` | | [`DoctorReport`] |
//! | `POST /v1/gc` | [`GcRequest`] | [`GcReport`] |
//! | `GET /v1/slots` | | [`SlotReport`] |
//! | `GET /v1/pool` | | [`PoolReport`] |
//! | `GET /v1/guests` | | list of [`GuestView`] |
//! | `POST /v1/guests` | [`CreateRequest`] | 202, [`Accepted`] |
//! | `GET /v1/guests/{name}` | | [`GuestView`] |
//! | `DELETE /v1/guests/{name}?now=BOOL` | | 202, [`Accepted`]; without `now=true`, an agent's files are kept for a while |
//! | `POST /v1/guests/{name}/start` | | 202, [`Accepted`] |
//! | `POST /v1/guests/{name}/stop` | | 202, [`Accepted`] |
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
//! | `POST /v1/builds` | [`BuildRequest`] | 202, [`Accepted`] |
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
//! | `POST /v1/previews/{slug}/exec` | [`ExecRequest`], `Upgrade: innkeeper-exec` | 101, then [frames](exec) |
//! | `GET /v1/previews/{slug}/logs?lines=N&follow=BOOL` | | the manager's lines, then the app's, `text/plain` |
//! | `GET /v1/previews/{slug}/explain` | | [`PreviewExplanation`] |
//! | `POST /v1/preview-builds` | [`BuildPreview`] | 202, [`Accepted`] |
//! | `GET /v1/operations/{id}` | | [`crate::Operation`] |
//! | `GET /v1/events?operation=ID&guest=NAME&after=SEQ&follow=BOOL` | | [`crate::Event`]s, server-sent events |
//! | `GET /v1/deliveries?pull_request=OWNER/NAME%23N&limit=N` | | list of [`crate::preview::api::DeliveryView`], the newest first |
//! | `GET /v1/deliveries/{id}` | | [`crate::preview::api::DeliveryDetails`] |
//! | `POST /v1/deliveries/{id}/replay` | | 202, [`crate::preview::api::DeliveryView`] |
//!
//! With `operation=ID` the stream of events ends after the operation's last one. `Last-Event-ID` counts as
//! `after`. Every failure is answered with a [`crate::Failure`] and the status of its kind.
//!
//! All calls below `/v1/guests/{name}` but `GET /v1/guests/{name}` itself are for agents: for a preview's guest they are
//! refused with `guest_is_preview`, and the remedy names the call's counterpart for previews.
//!
//! Who was told [`PreviewAccepted`] looks at the preview until its state [is settled], or until it is not found
//! any more. So what was accepted shows in the state before the answer is sent: a preview that is to be updated
//! is not `live` by then.
//!
//! [`ApprovePreview`]: crate::preview::api::ApprovePreview
//! [`BuildPreview`]: crate::preview::api::BuildPreview
//! [`CreatePreview`]: crate::preview::api::CreatePreview
//! [`PreviewAccepted`]: crate::preview::api::PreviewAccepted
//! [`PreviewExplanation`]: crate::preview::api::PreviewExplanation
//! [`PreviewView`]: crate::preview::PreviewView
//! [`Snapshot`]: crate::Snapshot
//! [is settled]: crate::preview::PreviewState::is_settled

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Cpus, Guest, GuestKind, GuestName, GuestState, MemorySize, Operation, OperationId, Ownership,
    Retained, RetainedId, Slot, SnapshotLabel, StorePath, UnitPhase,
};

/// How many deliveries are listed when no limit is given.
pub const DEFAULT_DELIVERIES: usize = 50;

/// Asks for a new guest. What is left out has the configured default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Its name; one is made up when none is given.
    #[serde(default)]
    pub name: Option<GuestName>,
    /// The flake output it boots from, `<flake>` or `<flake>#<attribute>`.
    #[serde(default)]
    pub flake: Option<String>,
    /// The store path it boots from. Not together with `flake`.
    #[serde(default)]
    pub closure: Option<StorePath>,
    /// The most memory it may use.
    #[serde(default)]
    pub memory: Option<MemorySize>,
    /// The most processor time it may use.
    #[serde(default)]
    pub cpus: Option<Cpus>,
    /// The most processes and threads it may have.
    #[serde(default)]
    pub tasks: Option<u32>,
}

/// Asks for a closure to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// The flake output (`<flake>` or `<flake>#<attribute>`); the configured one when left out.
    #[serde(default)]
    pub installable: Option<String>,
}

/// The intent is on disk and will be carried out, whatever happens to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The operation to follow.
    pub operation: OperationId,
    /// The guest it concerns.
    pub guest: Option<GuestName>,
}

/// Asks for a snapshot of a guest's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// What to call it; a label is made up from the time when none is given.
    #[serde(default)]
    pub label: Option<SnapshotLabel>,
}

/// A snapshot will be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAccepted {
    /// What is to be followed.
    #[serde(flatten)]
    pub accepted: Accepted,
    /// What it will be called.
    pub label: SnapshotLabel,
}

/// Asks for a guest that begins as a copy of this one: same closure, same limits, same files; another slot, host
/// key and machine id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// The new guest's name.
    pub name: GuestName,
    /// The snapshot to begin from; the files as they are now when left out.
    #[serde(default)]
    pub snapshot: Option<SnapshotLabel>,
}

/// Asks for an agent to be created again with the files that it left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndeleteRequest {
    /// The new agent's name; the former one when left out.
    #[serde(default, rename = "as")]
    pub new_name: Option<GuestName>,
    /// Which of several destroyed agents of the name; the one that was destroyed last when left out.
    #[serde(default)]
    pub id: Option<RetainedId>,
}

/// A destroyed agent as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedView {
    /// The record.
    #[serde(flatten)]
    pub retained: Retained,
    /// How long its files are still kept, in seconds. They go earlier when space is needed.
    pub remaining_seconds: u64,
}

/// How much of the space in use is taken by files of destroyed agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedSpace {
    /// How many destroyed agents have files.
    pub agents: usize,
    /// The space that these files take, as far as it was measured.
    pub bytes: u64,
}

/// A guest as lists show it: its record and what can be seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestView {
    /// The record.
    #[serde(flatten)]
    pub guest: Guest,
    /// Its state in one word.
    pub state: GuestState,
    /// What the supervisor sees of its processes.
    pub unit: Option<UnitPhase>,
    /// The gateway's address.
    pub host_address: Option<Ipv4Addr>,
    /// Its own address.
    pub guest_address: Option<Ipv4Addr>,
    /// Its interface on the host.
    pub interface: String,
    /// How many of its processes the kernel has killed since its start because it had used up its memory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The daemon in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Who keeps guests running: `systemd` or `direct`.
    pub supervisor: String,
    /// Whether guests have a user namespace of their own.
    pub user_namespaces: bool,
    /// How many guests there are, by state.
    pub guests: Vec<(GuestState, usize)>,
    /// Slots in use, and how many there are.
    pub slots_taken: usize,
    /// How many guests fit into the subnet.
    pub slots: usize,
    /// Files of destroyed agents.
    #[serde(default)]
    pub retained: RetainedSpace,
    /// Operations that have not ended.
    pub operations: Vec<Operation>,
    /// The daemon's resident memory, in bytes.
    pub resident_bytes: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// The file that was read, if there is one.
    pub file: Option<String>,
    /// Every setting.
    pub settings: Vec<Setting>,
}

/// One setting and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name with dots, such as `network.subnet`.
    pub name: String,
    /// Its value as TOML.
    pub value: String,
    /// `default`, `file`, or the name of the environment variable.
    pub origin: String,
}

/// How sure a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with less than it could have.
    Warning,
    /// Broken.
    Broken,
}

/// One link of the chain from the configuration to a guest's first packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, such as `nix` or `guest web-1: network`.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What `doctor` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Every check, in the order of the chain.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Whether nothing is broken.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|c| c.verdict != Verdict::Broken)
    }
}

/// Asks for orphans to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
    /// Also remove orphans that no daemon has marked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmarked: bool,
}

/// What `gc` removed, or would remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether it only looked.
    pub dry_run: bool,
    /// The orphans.
    pub orphans: Vec<Orphan>,
    /// What could not be looked at, such as databases while PostgreSQL is down: there may be more orphans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<crate::Failure>,
}

/// Something that has our naming and belongs to no guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The kind of resource, such as `rootfs`.
    pub resource: String,
    /// Its name on the host: a path, an interface, a unit.
    pub object: String,
    /// Whether it is gone now.
    pub removed: bool,
    /// Whose it is. What belongs to another daemon is never removed.
    #[serde(default, skip_serializing_if = "Ownership::is_ours")]
    pub ownership: Ownership,
    /// Why it could not be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::Failure>,
}

/// The slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The subnet.
    pub subnet: String,
    /// The highest slot given out so far.
    pub counter: u32,
    /// How many guests fit.
    pub capacity: usize,
    /// The slots in use.
    pub taken: Vec<TakenSlot>,
}

/// A slot in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSlot {
    /// The slot.
    pub slot: Slot,
    /// Who has it: a guest's name, or the file of an older installation.
    pub owner: String,
    /// The kind of guest; nothing for an older installation's.
    pub kind: Option<GuestKind>,
    /// The guest's address.
    pub guest_address: Option<Ipv4Addr>,
}

/// Where guests keep their files, and how full it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// `dir` or `lvm-thin`.
    pub driver: String,
    /// The directory of the trees, or volume group and thin pool.
    pub place: String,
    /// How many bytes of files there is room for, those that are there included.
    pub size_bytes: u64,
    /// How much of that is in use, in percent.
    pub data_percent: f64,
    /// How much of a pool's room for its own tables is in use, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_percent: Option<f64>,
    /// From how many percent on, of data or metadata, nothing is added to a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_percent: Option<u8>,
    /// How many bytes must be free for something to be added to a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free_bytes: Option<u64>,
    /// How much of the space in use belongs to destroyed agents. It is freed when it is needed.
    #[serde(default)]
    pub retained: RetainedSpace,
    /// What to do, when nothing is added any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The volumes in a pool.
    pub volumes: Vec<PoolVolume>,
}

/// A volume in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolVolume {
    /// Its name.
    pub name: String,
    /// The guest that it belongs to.
    pub guest: Option<GuestName>,
    /// The snapshot that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotLabel>,
    /// The most that it can hold.
    pub size_bytes: u64,
    /// How much of that it holds, shared or not, in percent; nothing while it is not active.
    pub data_percent: Option<f64>,
}

/// A closure that `agent build` made, as kept for the next guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedClosure {
    /// The flake output.
    pub installable: String,
    /// The store path.
    pub closure: StorePath,
    /// What it was built from: Nix's hash of the locked flake.
    pub fingerprint: String,
    /// When it was built.
    pub built_at: Timestamp,
}

/// Asks for a command to be run in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments; the program is looked up in the guest's `PATH`.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// The terminal's size in rows and columns.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// Additional environment variables.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// The guest's user to run it as, by name or number; root when left out.
    #[serde(default)]
    pub user: Option<String>,
    /// Whether it goes on after the connection's end, without input and with its output discarded. The exit
    /// status of the connection is 0 once the command runs.
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
    /// Daemon to caller, before the exit status: a note for the person, in UTF-8, such as that the kernel killed the
    /// command for want of memory.
    pub const NOTE: u8 = 6;
    /// Daemon to caller, last: the exit status, a big-endian `i32`; 128 + n for signal n.
    pub const EXIT: u8 = 3;
    /// Caller to daemon: the terminal's new size, rows and columns, two big-endian `u16`.
    pub const RESIZE: u8 = 4;
    /// Daemon to caller, last: a [`crate::Failure`] as JSON; the command did not run.
    pub const FAILURE: u8 = 5;
    /// The longest body either side accepts.
    pub const MAX_BODY: usize = 64 * 1024;
    /// The protocol's name in the `Upgrade` header.
    pub const PROTOCOL: &str = "innkeeper-exec";
}
