//! The objects on the fake host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::access::AccessFile;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::page::PageStatus;
use innkeeper_model::{Code, GuestName, RetainedId, SnapshotLabel, StorePath, Trust, UnitPhase};
use jiff::Timestamp;

use crate::databases::DatabaseSpec;
use crate::evaluator::EvaluationKey;
use crate::host::GuestUserIds;
use crate::memory::MemoryReading;
use crate::resource::Found;
use crate::routes::RouteSpec;
use crate::traffic::GuestTraffic;

/// The next failures of a call.
#[derive(Clone, Debug)]
pub struct Failing {
    /// The number of failures left.
    pub times: u32,
    /// The code of the errors.
    pub code: Code,
    /// `true` for [inconclusive](crate::FacilityError::is_inconclusive) errors.
    pub inconclusive: bool,
}

/// The result of a command in a guest.
#[derive(Clone, Debug, Default)]
pub struct ExecResult {
    /// The exit status.
    pub status: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

/// Runs a command in a guest.
pub type ExecHandler = Arc<dyn Fn(&GuestName, &ExecRequest) -> ExecResult + Send + Sync>;

/// The objects on the fake host, its injected failures, and a record of all calls.
#[derive(Default)]
pub struct World {
    /// The user ids that guests can have; `None` for those of several slots.
    pub guest_user_ids: Option<GuestUserIds>,
    /// Guests with a GC root.
    pub roots: BTreeSet<GuestName>,
    /// Guests with a GC root for their former closure.
    pub former_roots: BTreeSet<GuestName>,
    /// The programs of every closure, by their paths in it.
    pub programs: BTreeSet<&'static str>,
    /// The closures whose guests build with Nix.
    pub with_nix: BTreeSet<StorePath>,
    /// The closure of the next builds. [`a_closure`] if it is `None`.
    pub next_build: Option<StorePath>,
    /// File trees, each with its contents.
    pub trees: BTreeMap<GuestName, String>,
    /// Snapshots, each with its contents.
    pub snapshots: BTreeMap<(GuestName, SnapshotLabel), String>,
    /// Retained files of destroyed agents.
    pub retained: BTreeMap<RetainedId, String>,
    /// The number of trees that fit, including retained ones; `None` for any number.
    pub room: Option<usize>,
    /// `true` if trees can be copied only while their guest does not run.
    pub plain: bool,
    /// `true` if the free space cannot be determined.
    pub full: bool,
    /// Guests with a network.
    pub links: BTreeSet<GuestName>,
    /// Interfaces without this daemon's mark.
    pub foreign: Vec<Found>,
    /// Counters of guests' packets.
    pub traffic: BTreeMap<Ipv4Addr, GuestTraffic>,
    /// Guests with an open SSH session.
    pub with_ssh: BTreeSet<GuestName>,
    /// Guests whose first packet is watched.
    pub watched: BTreeSet<Ipv4Addr>,
    /// Guests that received it, and are not reported yet.
    pub reached: BTreeSet<Ipv4Addr>,
    /// Parked addresses.
    pub parked: BTreeSet<Ipv4Addr>,
    /// Those that received a packet, until the next one is expected.
    pub reached_asleep: BTreeSet<Ipv4Addr>,
    /// Guests whose refusals of connections are dropped.
    pub starting: BTreeSet<Ipv4Addr>,
    /// Processor time of guests.
    pub cpu_time: BTreeMap<GuestName, Duration>,
    /// The number of units that were started, which is the process id of the last one's leader.
    pub starts: u32,
    /// `true` while the host shuts down.
    pub host_is_stopping: bool,
    /// The number of queries whether it does.
    pub host_state_queries: usize,
    /// The own systems that guests' profiles name.
    pub profiles: BTreeMap<GuestName, StorePath>,
    /// Own systems whose init exits at once.
    pub broken_systems: BTreeSet<StorePath>,
    /// The system that an own system's init lets the profile name.
    pub profile_writers: BTreeMap<StorePath, StorePath>,
    /// The own system of each release of a guest; `None` for the closure from the host.
    pub booted: Vec<Option<StorePath>>,
    /// The time in which processes waited for a processor, in percent.
    pub waiting_percent: f64,
    /// Host names of guests that were set while they ran.
    pub host_names: BTreeSet<GuestName>,
    /// The host's memory; `None` for plenty.
    pub memory: Option<MemoryReading>,
    /// Memory of guests; 64 MiB for others.
    pub guest_memory: BTreeMap<GuestName, u64>,
    /// Units.
    pub units: BTreeMap<GuestName, UnitPhase>,
    /// Guests whose processes are suspended.
    pub frozen: BTreeSet<GuestName>,
    /// Guests whose processes are to be suspended, and some still run.
    pub freezing: BTreeSet<GuestName>,
    /// `true` if the host cannot suspend processes.
    pub without_freezer: bool,
    /// Consoles of guests. Other guests have none.
    pub consoles: BTreeMap<GuestName, String>,
    /// Runs commands in guests. Without it, they fail.
    pub exec: Option<ExecHandler>,
    /// Store paths of closures, without themselves.
    pub requisites: BTreeMap<StorePath, Vec<StorePath>>,
    /// Files that were written into guests' trees.
    pub guest_files: BTreeMap<(GuestName, &'static str), Vec<u8>>,
    /// Routes in force.
    pub routes: BTreeMap<GuestName, RouteSpec>,
    /// The list of previews that are not public.
    pub access: AccessFile,
    /// Requests through URLs since the last [`visits`](crate::Routes::visits).
    pub visits: Vec<(GuestName, Timestamp)>,
    /// Databases.
    pub databases: BTreeMap<GuestName, DatabaseSpec>,
    /// Status files.
    pub pages: BTreeMap<GuestName, PageStatus>,
    /// The metadata of each `preview-config.nix`. Others have one route to port 3000.
    pub metas: BTreeMap<String, Meta>,
    /// Evaluations whose closures are kept.
    pub evaluations: BTreeSet<EvaluationKey>,
    /// The number of evaluations that were canceled.
    pub canceled_evaluations: usize,
    /// Failures to come by call, such as `rootfs.ensure`.
    pub failures: BTreeMap<&'static str, Failing>,
    /// The trust in the requester of each build.
    pub builds: Vec<Trust>,
    /// The flake outputs that were built in the background.
    pub background_builds: Vec<String>,
    /// Every call in order, such as `rootfs.ensure web`.
    pub calls: Vec<String>,
}

impl World {
    /// The guests that have a tree or a snapshot.
    pub(super) fn owners_of_files(&self) -> Vec<GuestName> {
        let snapshots = self.snapshots.keys().map(|(guest, _)| guest);
        let all: BTreeSet<_> = self.trees.keys().chain(snapshots).cloned().collect();
        all.into_iter().collect()
    }

    /// Reports whether no further tree fits.
    pub(super) fn is_crowded(&self) -> bool {
        let used = self.trees.len() + self.retained.len();
        self.room.is_some_and(|room| used >= room)
    }

    /// Reports whether no object of any guest or preview is left. Kept evaluations do not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
            && self.former_roots.is_empty()
            && self.trees.is_empty()
            && self.snapshots.is_empty()
            && self.retained.is_empty()
            && self.links.is_empty()
            && self.units.is_empty()
            && self.routes.is_empty()
            && self.databases.is_empty()
            && self.pages.is_empty()
    }
}

/// The closure of all agents.
#[must_use]
pub fn a_closure() -> StorePath {
    StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest").expect("valid")
}
