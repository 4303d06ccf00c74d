//! What the engine asks of each resource.
//!
//! Each facility has a real driver in the module of its name, and a fake in the engine's tests. All
//! methods are idempotent: they can be called again after a crash at any point, and the absence of what
//! is to be removed is success.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Stream;
use innkeeper_model::api::{Check, ExecRequest, PoolReport};
use innkeeper_model::preview::Meta;
use innkeeper_model::{
    BuildProgress, Guest, GuestName, Installable, Ownership, RetainedId, SnapshotLabel, StorePath,
    Trust, UnitPhase,
};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::HostError;
use crate::database::{DatabaseAccess, DatabaseSpec};
use crate::evaluate::EvaluationKey;
use crate::route::RouteSpec;
use crate::unit::{ExecSession, Prepared};

/// Something on the host that has our naming.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// The guest that it belongs to by its naming. Nothing for remains of an interrupted removal or of a
    /// half-made thing, which never belong to a guest.
    pub guest: Option<GuestName>,
    /// What it is called on the host: a path, an interface, a unit. [`Resource::sweep`] takes it back.
    pub object: String,
    /// Whose it is.
    pub ownership: Ownership,
}

impl Found {
    /// Something of this daemon's.
    #[must_use]
    pub fn ours(guest: Option<GuestName>, object: String) -> Self {
        Self {
            guest,
            object,
            ownership: Ownership::Ours,
        }
    }
}

/// What all resources have in common: what is there can be listed, and what is not wanted can go.
#[async_trait]
pub trait Resource: Send + Sync {
    /// The resource's name, such as `rootfs`.
    fn kind(&self) -> &'static str;

    /// Everything on the host that has our naming, whether or not the store knows it, and whosever it is.
    ///
    /// # Errors
    /// When the host cannot be asked. An answer that cannot be had is never an empty list: orphans would
    /// be overlooked and records deleted too early.
    async fn observe(&self) -> Result<Vec<Found>, HostError>;

    /// Removes all that a guest has of this resource and returns when it is gone. Another daemon's objects of the same
    /// name stay.
    ///
    /// # Errors
    /// When something of it is left.
    async fn remove(&self, guest: &GuestName) -> Result<(), HostError>;

    /// Removes one thing that [`Self::observe`] found and that belongs to no guest. Does nothing when it is somebody
    /// else's by now.
    ///
    /// # Errors
    /// When it is left.
    async fn sweep(&self, found: &Found) -> Result<(), HostError>;

    /// Looks at what this resource needs of the host, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

/// Takes the news of a build, as often as there is some. Must not block.
pub type ProgressSink = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// A closure that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The closure.
    pub closure: StorePath,
    /// What it was built from; the same fingerprint means the same closure.
    pub fingerprint: String,
}

/// Closures, and the GC roots that keep them.
#[async_trait]
pub trait Closures: Resource {
    /// Builds a flake output unless what it is built from has `known.fingerprint` and `known.closure` is
    /// still there; the result is kept from Nix's garbage collection until the same output is built
    /// again. Builds of the same output at the same time become one.
    ///
    /// For a [`Trust::Member`], Nix fetches and evaluates as a user that owns nothing, and local references are refused.
    ///
    /// # Errors
    /// When Nix is missing, the flake does not exist or is refused, the build fails or the result has no `init`.
    async fn build(
        &self,
        installable: &Installable,
        trust: Trust,
        known: Option<&Built>,
        progress: ProgressSink,
    ) -> Result<Built, HostError>;

    /// Checks that a store path is there and that a guest can boot from it.
    ///
    /// # Errors
    /// When it is missing or has no `init` that can be executed.
    async fn verify(&self, closure: &StorePath) -> Result<(), HostError>;

    /// Checks that Nix's database lists a store path as valid: a path that is only being built, or that was left in the
    /// store directory by something else, is not.
    ///
    /// # Errors
    /// When it is not valid, or Nix cannot be run.
    async fn require_registered(&self, closure: &StorePath) -> Result<(), HostError>;

    /// Gives the guest a GC root for its closure, in place of any other that it has.
    ///
    /// # Errors
    /// When the root cannot be written.
    async fn ensure(&self, guest: &GuestName, closure: &StorePath) -> Result<(), HostError>;
}

/// A preview's closure, and what the preview says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// What it was made of; equal keys give equal closures.
    pub key: EvaluationKey,
    /// The closure.
    pub closure: StorePath,
    /// `system.build.previewMeta`, of which every field is right.
    pub meta: Meta,
}

/// Closures from `preview-config.nix`, which strangers wrote.
#[async_trait]
pub trait Evaluator: Send + Sync {
    /// What a preview-config.nix will be evaluated as. Evaluates nothing.
    ///
    /// # Errors
    /// When the host's nixpkgs or base module cannot be read.
    async fn key(&self, config: &str) -> Result<EvaluationKey, HostError>;

    /// Evaluates a preview-config.nix as untrusted code and builds it, unless `known` has the same key and is
    /// still there. The closure is kept from Nix's garbage collection until [`Self::forget`]. Evaluations of the same
    /// thing at the same time become one. When all who wait have dropped the future, everything that it
    /// started ends.
    ///
    /// # Errors
    /// When the file is wrong, takes more than its limits or does not build, or the host lacks something.
    async fn evaluate(
        &self,
        config: &str,
        known: Option<&Evaluated>,
        progress: ProgressSink,
    ) -> Result<Evaluated, HostError>;

    /// Gives an evaluation's closure free for Nix's garbage collection. Guests that have it keep it by their own
    /// roots.
    ///
    /// # Errors
    /// When its GC root cannot be removed.
    async fn forget(&self, key: &EvaluationKey) -> Result<(), HostError>;

    /// The evaluations whose closures are kept, without those that go on. One that was given up is among them
    /// and in no table: whoever collects garbage asks here first, then the table, and forgets the rest.
    ///
    /// # Errors
    /// When the GC roots cannot be listed.
    async fn kept(&self) -> Result<Vec<EvaluationKey>, HostError>;

    /// Looks at what this needs of the host, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

/// A snapshot on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundSnapshot {
    /// Whose files.
    pub guest: GuestName,
    /// What it is called.
    pub label: SnapshotLabel,
    /// What it is called on the host, for [`Resource::sweep`].
    pub object: String,
    /// Whose it is; another daemon's is not listed.
    pub ownership: Ownership,
}

/// The files of a destroyed agent on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundRetained {
    /// Their number.
    pub id: RetainedId,
    /// What they are called on the host, for [`Resource::sweep`].
    pub object: String,
}

/// File trees of guests, and snapshots of them. A guest's snapshots are part of what it has of this resource.
#[async_trait]
pub trait Rootfs: Resource {
    /// Makes the guest's file tree if there is none: as a copy or from retained files, if that is its [file work], and
    /// empty otherwise. A tree is there whole or not at all.
    ///
    /// [file work]: innkeeper_model::FileWork
    ///
    /// # Errors
    /// When it cannot be made, for lack of space above all; then nothing of it is left.
    async fn ensure(&self, guest: &Guest) -> Result<(), HostError>;

    /// Marks what the guest has if a former release made it without a mark.
    ///
    /// # Errors
    /// When the host cannot be asked, or refuses.
    async fn adopt(&self, _guest: &GuestName) -> Result<(), HostError> {
        Ok(())
    }

    /// Refuses while there is no room for another tree or snapshot.
    ///
    /// # Errors
    /// When there is none, or that cannot be found out.
    async fn require_room(&self) -> Result<(), HostError>;

    /// Whether a guest's files can be copied while it runs, as they are at one moment.
    ///
    /// # Errors
    /// When the host cannot be asked.
    async fn copies_while_running(&self, guest: &GuestName) -> Result<bool, HostError>;

    /// Takes a snapshot of the guest's files, in place of one of that label: nobody knows of it, or this was begun
    /// before.
    ///
    /// # Errors
    /// When it cannot be taken; then nothing of it is left.
    async fn snapshot(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), HostError>;

    /// The snapshots of all guests.
    ///
    /// # Errors
    /// When the host cannot be asked.
    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, HostError>;

    /// Makes the guest's files be as in a snapshot, which stays. The guest must not run. However it ends, there is
    /// one whole tree.
    ///
    /// # Errors
    /// When there is no such snapshot, or it cannot be done; then [`Self::ensure`] has the former files.
    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), HostError>;

    /// Deletes a snapshot, or what is left of one.
    ///
    /// # Errors
    /// When something of it is left.
    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), HostError>;

    /// Makes the guest's file tree accessible in its place, without starting anything. Says whether there is one.
    ///
    /// # Errors
    /// When it cannot be mounted.
    async fn open(&self, guest: &GuestName) -> Result<bool, HostError>;

    /// Keeps the guest's file tree under a number, with everything that is attached to it but without its snapshots, so
    /// that nothing is left under the guest's name. Needs no space. The guest must not run. Says whether there is
    /// a tree under that number now; if not, something may be left under the guest's name.
    ///
    /// # Errors
    /// When the tree cannot be moved.
    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, HostError>;

    /// The retained file trees. [`Resource::observe`] does not list them.
    ///
    /// # Errors
    /// When the host cannot be asked.
    async fn retained(&self) -> Result<Vec<FoundRetained>, HostError>;

    /// The space that a retained file tree takes, in bytes, as far as it can be counted soon.
    ///
    /// # Errors
    /// When there is no such tree, or it cannot be read.
    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, HostError>;

    /// Removes a retained file tree.
    ///
    /// # Errors
    /// When something of it is left.
    async fn remove_retained(&self, id: RetainedId) -> Result<(), HostError>;

    /// Where the files are and how full that is.
    ///
    /// # Errors
    /// When the host cannot be asked.
    async fn pool(&self) -> Result<PoolReport, HostError>;
}

/// Keys and credentials in the guest's file tree.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Writes what the guest needs to be reached and to do its work: SSH host key (made once), authorised
    /// keys, credentials, name resolution. The guest must not run. Returns the public half of the host
    /// key in OpenSSH format.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn ensure(&self, guest: &Guest) -> Result<String, HostError>;

    /// Removes from a file tree that was copied what made it `former`: host keys, machine id, host name. The guest
    /// must not run.
    ///
    /// # Errors
    /// When something of it is left.
    async fn forget_identity(&self, guest: &Guest, former: &GuestName) -> Result<(), HostError>;

    /// Removes from a guest's file tree what must not outlive the guest: host keys, authorised keys, credentials. The
    /// guest must not run.
    ///
    /// # Errors
    /// When something of it is left.
    async fn withdraw(&self, guest: &Guest) -> Result<(), HostError>;

    /// Gives a running guest what [`Self::ensure`] took from the host and has changed there: name servers. What the
    /// guest has replaced by its own stays.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn follow_host(&self, _guest: &Guest) -> Result<(), HostError> {
        Ok(())
    }

    /// Looks at what this needs of the host, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

/// What guests and the firewall take over from the host, such as its name servers.
#[async_trait]
pub trait HostFacts: Send + Sync {
    /// Waits until some of it is not as it was when this returned the last time. Returns at once the first time.
    async fn changed(&self);
}

/// Veth pairs with their addresses and routes.
#[async_trait]
pub trait Network: Resource {
    /// Gives the guest a network that is complete when this returns: veth pair, both addresses, both
    /// routes. What the guest had before is replaced. `leader` is the guest's first process.
    ///
    /// # Errors
    /// When the kernel refuses, or something that is not ours has the interface's name.
    async fn ensure(&self, guest: &Guest, leader: u32) -> Result<(), HostError>;

    /// Gives a running guest the MTU of the host's route to the internet, without interrupting its network.
    ///
    /// # Errors
    /// When the kernel refuses. The next call tries again.
    async fn follow_uplink(&self, _guest: &Guest, _leader: u32) -> Result<(), HostError> {
        Ok(())
    }

    /// Marks the guest's interface if a former release made it without a mark.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn adopt(&self, _guest: &Guest) -> Result<(), HostError> {
        Ok(())
    }

    /// Whether the guest's network is as [`Self::ensure`] leaves it, as far as the host's side shows: link,
    /// address, route.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    async fn is_complete(&self, guest: &Guest) -> Result<bool, HostError>;
}

/// The host's own rules: NAT, the filter between guests and everything else, IP forwarding.
#[async_trait]
pub trait Firewall: Send + Sync {
    /// Replaces our table as a whole if it is not as it should be, and switches forwarding on. Name servers are those of
    /// this moment.
    ///
    /// # Errors
    /// When the kernel refuses the rules; then the former ones are still in force.
    async fn ensure(&self) -> Result<(), HostError>;

    /// Waits until somebody else has removed our table, as a firewall that is restarted does. A driver that is not told
    /// waits for ever.
    async fn disturbed(&self) {
        std::future::pending::<()>().await;
    }

    /// Looks whether the rules in force are ours, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

/// The users that Nix builds as, as the kernel knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builders {
    /// Members of a group, by its number.
    Group(u32),
    /// Users of a range from which Nix allocates them.
    Allocated(std::ops::RangeInclusive<u32>),
}

/// Keeps builds from the host's own services and from private networks.
#[async_trait]
pub trait BuildNetwork: Send + Sync {
    /// Makes sure that builds of these users are filtered.
    ///
    /// # Errors
    /// When the kernel refuses the rules; then nothing may be built.
    async fn ensure(&self, builders: &Builders) -> Result<(), HostError>;
}

/// What the supervisor sees of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSeen {
    /// The guest.
    pub guest: GuestName,
    /// How far it is.
    pub phase: UnitPhase,
    /// Its first process, as the host counts processes; there while the guest is alive.
    pub leader: Option<u32>,
}

/// A guest's console, in pieces, as it is written.
pub type Console = Pin<Box<dyn Stream<Item = std::io::Result<Vec<u8>>> + Send>>;

/// The processes of guests.
#[async_trait]
pub trait Units: Resource {
    /// `systemd` or `direct`.
    fn supervisor(&self) -> &'static str;

    /// What can be seen of each guest's processes.
    ///
    /// # Errors
    /// When the kernel or systemd cannot be asked.
    async fn phases(&self) -> Result<Vec<UnitSeen>, HostError>;

    /// What can be seen of one guest's processes; `None` when there is nothing of its unit.
    ///
    /// # Errors
    /// As [`Self::phases`].
    async fn phase(&self, guest: &GuestName) -> Result<Option<UnitSeen>, HostError>;

    /// Does what takes its time before the guest's unit can start, while the guest's file tree is still being made.
    /// `None` when there is something of the unit already.
    ///
    /// # Errors
    /// When something of the host that the unit needs is missing.
    async fn prepare(&self, guest: &Guest) -> Result<Option<Prepared>, HostError>;

    /// Starts the guest's unit, if it is not alive, and returns when its first process waits at the door.
    /// For a guest that waits there already, it takes up the connection again. For a guest that runs, it
    /// does nothing. What was prepared is used up.
    ///
    /// # Errors
    /// When the unit does not start, or ends before it reaches the door; the error holds the end of the
    /// guest's log.
    async fn ensure(
        &self,
        guest: &Guest,
        prepared: Option<Prepared>,
    ) -> Result<UnitSeen, HostError>;

    /// Opens the door: the closure's init takes over.
    ///
    /// # Errors
    /// When the guest does not wait at the door, or ends before its init takes over.
    async fn release(&self, guest: &GuestName) -> Result<(), HostError>;

    /// Asks the guest's init to shut down, and ends it by force when it does not within the configured
    /// time. Returns when no process is left. The unit's remains are [`Resource::remove`]'s.
    ///
    /// # Errors
    /// When a process is left.
    async fn stop(&self, guest: &GuestName) -> Result<(), HostError>;

    /// How many processes of the guest the kernel has killed since its start because the guest had used up its memory;
    /// 0 when that cannot be read, as after its end.
    fn oom_kills(&self, guest: &GuestName) -> u64;

    /// The names of guests whose processes ended, as it happens.
    fn endings(&self) -> broadcast::Receiver<GuestName>;

    /// The last `lines` lines of the guest's console, of no other guest that had its name, and with `follow`
    /// what comes after them. A followed console ends when the guest stops.
    ///
    /// # Errors
    /// When there is no log.
    async fn console(
        &self,
        guest: &Guest,
        lines: usize,
        follow: bool,
    ) -> Result<Console, HostError>;

    /// Runs a command in the guest, under the guest's limits.
    ///
    /// # Errors
    /// When the guest does not run or the command cannot be started.
    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, HostError>;
}

/// Routes from a preview's hosts to its guest.
#[async_trait]
pub trait Routes: Resource {
    /// Makes the route as the specification says and returns when requests take it. What the preview had
    /// before is replaced at once: no request sees a half of each. Other previews' connections stay open.
    ///
    /// # Errors
    /// When a host belongs to another preview, or the proxy does not take the route; then the former route
    /// is still in force.
    async fn ensure(&self, spec: &RouteSpec) -> Result<(), HostError>;

    /// Marks what the preview has if a former release made it without a mark.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn adopt(&self, preview: &GuestName) -> Result<(), HostError>;

    /// Whether the preview's route is in force as [`Self::ensure`] leaves it, without changing anything.
    ///
    /// # Errors
    /// When that cannot be found out, or a host belongs to another preview.
    async fn is_complete(&self, spec: &RouteSpec) -> Result<bool, HostError>;

    /// The previews that were requested through their URLs since the last call, each with the time of one of these
    /// requests. Empty where the file system records no access times (`noatime`).
    ///
    /// # Errors
    /// When the files of the routes cannot be read.
    async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, HostError>;
}

/// Databases of previews on the host's PostgreSQL.
#[async_trait]
pub trait Databases: Resource {
    /// Gives the preview a database of its own and a role that can reach no other. What is in a database
    /// that is there already stays, and so does its password.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses, or a name is taken by something that is not ours.
    async fn ensure(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, HostError>;

    /// Marks what the preview has if a former release made it without a mark.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    async fn adopt(&self, preview: &GuestName) -> Result<(), HostError>;

    /// Drops the preview's database with all that is in it and makes it anew, with the same password.
    /// Connections to it are ended.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    async fn reset(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, HostError>;
}

/// All facilities of a host.
#[derive(Clone)]
pub struct Facilities {
    /// Closures and their GC roots.
    pub closures: Arc<dyn Closures>,
    /// File trees.
    pub rootfs: Arc<dyn Rootfs>,
    /// Keys and credentials.
    pub secrets: Arc<dyn Secrets>,
    /// What guests and the firewall take over from the host.
    pub facts: Arc<dyn HostFacts>,
    /// Veth pairs.
    pub network: Arc<dyn Network>,
    /// NAT and filter.
    pub firewall: Arc<dyn Firewall>,
    /// Processes.
    pub units: Arc<dyn Units>,
}
