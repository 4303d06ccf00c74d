//! Descriptions of the calls about agents.

use innkeeper_model::api::{
    Accepted, CreateRequest, ExecRequest, ForkRequest, GuestView, RetainedView, SetRequest,
    SnapshotAccepted, SnapshotRequest, UndeleteRequest, connect as connect_protocol, exec,
};
use innkeeper_model::{Code, IdleRequest, KeepaliveRequest, RestReport, Snapshot};

use super::super::response::LogQuery;
use super::super::{connect, guests};
use super::describe::{Description, delete, get, post};

/// Failures to find the agent that a path names.
const AGENT: &[Code] = &[Code::InvalidName, Code::GuestNotFound, Code::GuestIsPreview];

/// Failures to begin an operation on a guest.
pub(super) const OPERATION: &[Code] = &[Code::GuestBusy, Code::StateLocked];

/// Failures to give a guest its resources.
const RESOURCES: &[Code] = &[
    Code::DiskFull,
    Code::MemoryLow,
    Code::NoSlotLeft,
    Code::NoSlotRun,
    Code::QuotaExceeded,
];

/// Failures to choose the closure or the limits of a guest.
const CHOICE: &[Code] = &[
    Code::ClosureNotFound,
    Code::FlakeRefused,
    Code::FlakeUnset,
    Code::InvalidClosure,
    Code::NestingRefused,
    Code::NixMissing,
    Code::UserIdsUnsupported,
];

/// Failures to wake a guest that a command or a connection needs.
pub(super) const AWAKEN: &[Code] = &[
    Code::GuestBusy,
    Code::GuestDied,
    Code::GuestNotRunning,
    Code::GuestUnhealthy,
    Code::KernelFeatureMissing,
    Code::MemoryLow,
    Code::PermissionDenied,
    Code::TimedOut,
    Code::UnitFailed,
];

fn on_agent(description: Description) -> Description {
    description.fails(AGENT)
}

/// A change of an agent, as an operation.
fn operation(path: &'static str, id: &'static str, summary: &'static str) -> Description {
    on_agent(post(path, id, summary)).fails(OPERATION)
}

#[rustfmt::skip]
pub(super) fn all() -> Vec<Description> {
    use Code::{AgentNotDeclared, GuestExists, GuestNotFound, GuestNotRunning, GuestRunning, InvalidName, KernelFeatureMissing, PortClosed, RetainedNotFound, SnapshotExists, SnapshotNotFound};
    vec![
        get("/v1/guests", "guest-list", "Lists guests: agents and those of previews.").returns_list::<GuestView>(),
        get("/v1/guests/{name}", "guest-show", "Returns a guest, also that of a preview.")
            .returns::<GuestView>().fails(&[InvalidName, GuestNotFound]),
        on_agent(get("/v1/guests/{name}/rest", "guest-rest", "Returns the uses that keep an agent awake."))
            .returns::<RestReport>(),
        on_agent(get("/v1/guests/{name}/logs", "guest-logs", "Returns the end of an agent's log, with `follow` new lines too."))
            .query::<LogQuery>().streams("text/plain", "The log.").fails(&[Code::UnitFailed]),
        on_agent(get("/v1/guests/{name}/snapshots", "snapshot-list", "Lists the snapshots of an agent, the oldest first."))
            .returns_list::<Snapshot>(),
        get("/v1/snapshots", "snapshot-list-all", "Lists all snapshots, by agent.").returns_list::<Snapshot>(),
        post("/v1/guests", "guest-create", "Creates an agent and starts it.")
            .takes::<CreateRequest>().accepts::<Accepted>()
            .fails(&[InvalidName, GuestExists, AgentNotDeclared]).fails(OPERATION).fails(RESOURCES).fails(CHOICE),
        on_agent(delete("/v1/guests/{name}", "guest-destroy", "Destroys an agent. Its files are retained for a while."))
            .query::<guests::DestroyQuery>().accepts::<Accepted>().fails(OPERATION),
        operation("/v1/guests/{name}/start", "guest-start", "Starts a stopped agent.")
            .accepts::<Accepted>().fails(RESOURCES),
        operation("/v1/guests/{name}/stop", "guest-stop", "Stops an agent and keeps its files.").accepts::<Accepted>(),
        operation("/v1/guests/{name}/pause", "guest-pause", "Freezes the processes of an agent.")
            .accepts::<Accepted>().fails(&[GuestNotRunning, KernelFeatureMissing]),
        operation("/v1/guests/{name}/sleep", "guest-sleep", "Ends the processes of an agent until it is woken.")
            .accepts::<Accepted>().fails(&[GuestNotRunning, KernelFeatureMissing]),
        operation("/v1/guests/{name}/wake", "guest-wake", "Wakes an agent that is paused or asleep.")
            .accepts::<Accepted>().fails(&[GuestNotRunning]).fails(RESOURCES),
        on_agent(post("/v1/guests/{name}/idle", "guest-idle", "Sets the use of an agent's idle time."))
            .takes::<IdleRequest>().returns::<RestReport>(),
        on_agent(post("/v1/guests/{name}/keepalive", "guest-keepalive", "Keeps an agent awake for a time."))
            .takes::<KeepaliveRequest>().returns::<RestReport>().fails(AWAKEN),
        operation("/v1/guests/{name}/set", "guest-set", "Changes the closure or the limits of an agent.")
            .takes::<SetRequest>().accepts::<Accepted>().fails(RESOURCES).fails(CHOICE).fails(&[AgentNotDeclared]),
        operation("/v1/guests/{name}/fork", "guest-fork", "Creates an agent as a copy of another one.")
            .takes::<ForkRequest>().accepts::<Accepted>()
            .fails(&[GuestExists, GuestRunning, SnapshotNotFound]).fails(RESOURCES),
        operation("/v1/guests/{name}/snapshots", "snapshot-take", "Takes a snapshot of an agent's files.")
            .takes::<SnapshotRequest>().accepts::<SnapshotAccepted>()
            .fails(&[GuestRunning, SnapshotExists]).fails(RESOURCES),
        on_agent(delete("/v1/guests/{name}/snapshots/{label}", "snapshot-delete", "Deletes a snapshot."))
            .accepts::<Accepted>().fails(&[SnapshotNotFound]).fails(OPERATION),
        operation("/v1/guests/{name}/snapshots/{label}/restore", "snapshot-restore", "Restores an agent's files from a snapshot.")
            .accepts::<Accepted>().fails(&[SnapshotNotFound, GuestRunning]).fails(RESOURCES),
        on_agent(post("/v1/guests/{name}/exec", "guest-exec", "Runs a command in an agent, which is woken first."))
            .takes::<ExecRequest>().switches_to(exec::PROTOCOL).fails(AWAKEN),
        on_agent(post("/v1/guests/{name}/connect/{port}", "guest-connect", "Connects to a port of an agent, which is woken first."))
            .query::<connect::Wait>().switches_to(connect_protocol::PROTOCOL).fails(AWAKEN).fails(&[PortClosed]),
        get("/v1/retained", "retained-list", "Lists retained files of destroyed agents, the oldest first.").returns_list::<RetainedView>(),
        delete("/v1/retained/{name}", "retained-purge", "Removes retained files.")
            .accepts::<Accepted>().fails(&[RetainedNotFound]).fails(OPERATION),
        post("/v1/retained/{name}/undelete", "guest-undelete", "Creates an agent again with its retained files.")
            .takes::<UndeleteRequest>().accepts::<Accepted>()
            .fails(&[InvalidName, RetainedNotFound, GuestExists]).fails(OPERATION).fails(RESOURCES),
    ]
}
