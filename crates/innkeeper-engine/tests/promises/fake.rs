//! A fake host in memory, with injected failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use innkeeper_facilities::{
    Built, Closures, Console, ExecSession, Facilities, FacilityError, FilesMissing, Firewall,
    Found, FoundRetained, FoundSnapshot, HostFacts, HostFeatures, Network, Prepared, ProgressSink,
    Resource, Rootfs, Secrets, UnitSeen, Units,
};
use innkeeper_model::api::{Check, ExecRequest, PoolReport};
use innkeeper_model::{
    Code, Explain, FileWork, Guest, GuestName, Installable, Origin, Ownership, RetainedId,
    SnapshotLabel, StorePath, Trust, UnitPhase,
};
use tokio::sync::{Notify, RwLock, broadcast};

/// The objects of the fake host, and the injected failures.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) roots: BTreeSet<GuestName>,
    pub(crate) trees: BTreeMap<GuestName, String>,
    pub(crate) snapshots: BTreeMap<(GuestName, SnapshotLabel), String>,
    /// Files of destroyed agents.
    pub(crate) retained: BTreeMap<RetainedId, String>,
    /// Limit of trees, retained ones included.
    pub(crate) room: Option<usize>,
    /// Trees can be copied only while the guest is stopped.
    pub(crate) plain: bool,
    /// `require_room` fails.
    pub(crate) full: bool,
    pub(crate) links: BTreeSet<GuestName>,
    /// Interfaces without this daemon's mark.
    pub(crate) foreign: Vec<Found>,
    pub(crate) units: BTreeMap<GuestName, UnitPhase>,
    /// Remaining failures by call, such as `rootfs.ensure`.
    pub(crate) failures: BTreeMap<&'static str, u32>,
    /// Trust of each build.
    pub(crate) builds: Vec<Trust>,
    /// Every call, in order.
    pub(crate) calls: Vec<String>,
}

impl World {
    /// Returns the guests with a tree or a snapshot.
    fn owners_of_files(&self) -> Vec<GuestName> {
        let snapshots = self.snapshots.keys().map(|(guest, _)| guest);
        let all: BTreeSet<_> = self.trees.keys().chain(snapshots).cloned().collect();
        all.into_iter().collect()
    }

    fn is_crowded(&self) -> bool {
        let used = self.trees.len() + self.retained.len();
        self.room.is_some_and(|room| used >= room)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
            && self.trees.is_empty()
            && self.snapshots.is_empty()
            && self.retained.is_empty()
            && self.links.is_empty()
            && self.units.is_empty()
    }
}

#[derive(Clone)]
pub(crate) struct FakeHost {
    world: Arc<Mutex<World>>,
    endings: broadcast::Sender<GuestName>,
    /// Releases a waiting build.
    pub(crate) builds: Arc<Notify>,
    /// Removals of retained files wait while a test holds this for writing.
    pub(crate) removals: Arc<RwLock<()>>,
    /// Signals a change of the host's facts.
    pub(crate) facts: Arc<Notify>,
}

#[derive(Clone)]
struct Part {
    host: FakeHost,
    kind: &'static str,
}

impl FakeHost {
    pub(crate) fn new() -> Self {
        Self {
            world: Arc::default(),
            endings: broadcast::Sender::new(16),
            builds: Arc::default(),
            removals: Arc::default(),
            facts: Arc::default(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }

    pub(crate) fn fail(&self, call: &'static str, times: u32) {
        self.world().failures.insert(call, times);
    }

    /// Ends a guest without a notification.
    pub(crate) fn end_quietly(&self, guest: &GuestName, status: i32) {
        self.world()
            .units
            .insert(guest.clone(), UnitPhase::Exited(status));
    }

    pub(crate) fn end(&self, guest: &GuestName, status: i32) {
        self.world()
            .units
            .insert(guest.clone(), UnitPhase::Exited(status));
        self.endings
            .send(guest.clone())
            .expect("the engine watches");
    }

    pub(crate) fn facilities(&self) -> Facilities {
        let part = |kind| {
            Arc::new(Part {
                host: self.clone(),
                kind,
            })
        };
        Facilities {
            closures: part("closure"),
            rootfs: part("rootfs"),
            secrets: part("secrets"),
            facts: part("facts"),
            features: part("features"),
            network: part("network"),
            firewall: part("firewall"),
            units: part("unit"),
        }
    }
}

impl Part {
    fn call(&self, call: &'static str, guest: Option<&GuestName>) -> Result<(), FacilityError> {
        let mut world = self.host.world();
        let guest = guest.map(|name| format!(" {name}")).unwrap_or_default();
        world.calls.push(format!("{call}{guest}"));
        match world.failures.get_mut(call) {
            Some(times @ 1..) => {
                *times -= 1;
                Err(injected(call))
            }
            _ => Ok(()),
        }
    }
}

/// An error of a fake.
#[derive(Debug, thiserror::Error)]
#[error("{call} fails: injected")]
struct Injected {
    call: String,
    code: Code,
}

impl Explain for Injected {
    fn code(&self) -> Code {
        self.code
    }
}

fn injected(call: &str) -> FacilityError {
    FacilityError::new(Injected {
        call: call.to_owned(),
        code: Code::RootfsFailed,
    })
}

fn full() -> FacilityError {
    FacilityError::new(Injected {
        call: "rootfs.require_room".to_owned(),
        code: Code::DiskFull,
    })
}

#[async_trait]
impl Resource for Part {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        let world = self.host.world();
        let names: Vec<GuestName> = match self.kind {
            "closure" => world.roots.iter().cloned().collect(),
            "rootfs" => world.owners_of_files(),
            "network" => world.links.iter().cloned().collect(),
            _ => world.units.keys().cloned().collect(),
        };
        Ok(names
            .into_iter()
            .map(|name| Found::ours(Some(name.clone()), name.to_string()))
            .chain(
                world
                    .foreign
                    .iter()
                    .filter(|_| self.kind == "network")
                    .cloned(),
            )
            .collect())
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        match self.kind {
            "closure" => {
                self.call("closure.remove", Some(guest))?;
                self.host.world().roots.remove(guest);
            }
            "rootfs" => {
                self.call("rootfs.remove", Some(guest))?;
                let mut world = self.host.world();
                world.trees.remove(guest);
                world.snapshots.retain(|(of, _), _| of != guest);
            }
            "network" => {
                self.call("network.remove", Some(guest))?;
                self.host.world().links.remove(guest);
            }
            _ => {
                self.call("unit.remove", Some(guest))?;
                self.host.world().units.remove(guest);
            }
        }
        Ok(())
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        self.host.world().foreign.retain(|foreign| foreign != found);
        match &found.guest {
            Some(guest) => self.remove(guest).await,
            None => {
                let mut world = self.host.world();
                world
                    .snapshots
                    .retain(|(guest, label), _| format!("{guest}.{label}") != found.object);
                world
                    .retained
                    .retain(|id, _| format!("retained-{id}") != found.object);
                Ok(())
            }
        }
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl Closures for Part {
    async fn build(
        &self,
        _installable: &Installable,
        trust: Trust,
        _known: Option<&Built>,
        _progress: ProgressSink,
    ) -> Result<Built, FacilityError> {
        self.host.builds.notified().await;
        self.call("closure.build", None)?;
        self.host.world().builds.push(trust);
        Ok(Built {
            closure: a_closure(),
            fingerprint: "f".to_owned(),
        })
    }

    async fn verify(&self, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.verify", None)
    }

    async fn require_registered(&self, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.require_registered", None)
    }

    async fn ensure(&self, guest: &GuestName, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.ensure", Some(guest))?;
        self.host.world().roots.insert(guest.clone());
        Ok(())
    }
}

#[async_trait]
impl Rootfs for Part {
    async fn ensure(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("rootfs.ensure", Some(&guest.name))?;
        let mut world = self.host.world();
        if world.trees.contains_key(&guest.name) {
            return Ok(());
        }
        if let Some(FileWork::Adopt(id)) = &guest.file_work {
            let files = world.retained.remove(id);
            let files = files.ok_or(FilesMissing { id: *id })?;
            world.trees.insert(guest.name.clone(), files);
            return Ok(());
        }
        if world.is_crowded() {
            return Err(full());
        }
        let files = match &guest.file_work {
            Some(FileWork::CopyOf(Origin { guest, snapshot })) => match snapshot {
                None => world.trees.get(guest).cloned(),
                Some(label) => world
                    .snapshots
                    .get(&(guest.clone(), label.clone()))
                    .cloned(),
            },
            _ => Some(String::new()),
        };
        let files = files.ok_or_else(|| injected("rootfs.ensure of nothing"))?;
        world.trees.entry(guest.name.clone()).or_insert(files);
        Ok(())
    }

    async fn require_room(&self) -> Result<(), FacilityError> {
        let world = self.host.world();
        match world.full {
            true => Err(injected("rootfs.require_room")),
            false if world.is_crowded() => Err(full()),
            false => Ok(()),
        }
    }

    async fn open(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        self.call("rootfs.open", Some(guest))?;
        Ok(self.host.world().trees.contains_key(guest))
    }

    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError> {
        self.call("rootfs.retain", Some(guest))?;
        let mut world = self.host.world();
        world.snapshots.retain(|(of, _), _| of != guest);
        if let Some(files) = world.trees.remove(guest) {
            world.retained.insert(id, files);
        }
        Ok(world.retained.contains_key(&id))
    }

    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError> {
        let world = self.host.world();
        let found = world.retained.keys().map(|id| FoundRetained {
            id: *id,
            object: format!("retained-{id}"),
        });
        Ok(found.collect())
    }

    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError> {
        let world = self.host.world();
        let files = world.retained.get(&id);
        let files = files.ok_or(FilesMissing { id })?;
        Ok(files.len() as u64)
    }

    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError> {
        self.call("rootfs.remove_retained", None)?;
        let _open = self.host.removals.read().await;
        self.host.world().retained.remove(&id);
        Ok(())
    }

    async fn copies_while_running(&self, _: &GuestName) -> Result<bool, FacilityError> {
        Ok(!self.host.world().plain)
    }

    async fn snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.call("rootfs.snapshot", Some(guest))?;
        let mut world = self.host.world();
        let files = world.trees.get(guest).cloned().unwrap_or_default();
        world
            .snapshots
            .insert((guest.clone(), label.clone()), files);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, FacilityError> {
        let world = self.host.world();
        let found = world.snapshots.keys().map(|(guest, label)| FoundSnapshot {
            guest: guest.clone(),
            label: label.clone(),
            object: format!("{guest}.{label}"),
            ownership: Ownership::Ours,
        });
        Ok(found.collect())
    }

    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), FacilityError> {
        self.call("rootfs.restore", Some(guest))?;
        let mut world = self.host.world();
        let key = (guest.clone(), label.clone());
        let files = world.snapshots.get(&key).cloned();
        let files = files.ok_or_else(|| injected("rootfs.restore of nothing"))?;
        world.trees.insert(guest.clone(), files);
        Ok(())
    }

    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.call("rootfs.delete_snapshot", Some(guest))?;
        let key = (guest.clone(), label.clone());
        self.host.world().snapshots.remove(&key);
        Ok(())
    }

    async fn pool(&self) -> Result<PoolReport, FacilityError> {
        Err(injected("rootfs.pool"))
    }
}

#[async_trait]
impl Secrets for Part {
    async fn ensure(&self, guest: &Guest) -> Result<String, FacilityError> {
        self.call("secrets.ensure", Some(&guest.name))?;
        Ok("ssh-ed25519 AAAA".to_owned())
    }

    async fn withdraw(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("secrets.withdraw", Some(&guest.name))
    }

    async fn forget_identity(&self, guest: &Guest, _: &GuestName) -> Result<(), FacilityError> {
        self.call("secrets.forget_identity", Some(&guest.name))
    }

    async fn follow_host(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("secrets.follow_host", Some(&guest.name))
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl HostFacts for Part {
    async fn changed(&self) {
        self.host.facts.notified().await;
    }
}

#[async_trait]
impl HostFeatures for Part {
    fn user_namespaces(&self) -> bool {
        true
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl Network for Part {
    async fn ensure(&self, guest: &Guest, _leader: u32) -> Result<(), FacilityError> {
        self.call("network.ensure", Some(&guest.name))?;
        self.host.world().links.insert(guest.name.clone());
        Ok(())
    }

    async fn follow_uplink(&self, guest: &Guest, _leader: u32) -> Result<(), FacilityError> {
        self.call("network.follow_uplink", Some(&guest.name))
    }

    async fn is_complete(&self, guest: &Guest) -> Result<bool, FacilityError> {
        Ok(self.host.world().links.contains(&guest.name))
    }
}

#[async_trait]
impl Firewall for Part {
    async fn ensure(&self) -> Result<(), FacilityError> {
        self.call("firewall.ensure", None)
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl Units for Part {
    fn supervisor(&self) -> &'static str {
        "fake"
    }

    async fn phases(&self) -> Result<Vec<UnitSeen>, FacilityError> {
        let world = self.host.world();
        let seen = world.units.iter().map(|(guest, phase)| UnitSeen {
            guest: guest.clone(),
            phase: *phase,
            leader: phase.is_alive().then_some(1),
        });
        Ok(seen.collect())
    }

    async fn phase(&self, guest: &GuestName) -> Result<Option<UnitSeen>, FacilityError> {
        Ok(self
            .phases()
            .await?
            .into_iter()
            .find(|seen| seen.guest == *guest))
    }

    async fn prepare(&self, guest: &Guest) -> Result<Option<Prepared>, FacilityError> {
        self.call("unit.prepare", Some(&guest.name))?;
        Ok(None)
    }

    async fn ensure(&self, guest: &Guest, _: Option<Prepared>) -> Result<UnitSeen, FacilityError> {
        self.call("unit.ensure", Some(&guest.name))?;
        self.host
            .world()
            .units
            .insert(guest.name.clone(), UnitPhase::AtDoor);
        Ok(UnitSeen {
            guest: guest.name.clone(),
            phase: UnitPhase::AtDoor,
            leader: Some(1),
        })
    }

    async fn release(&self, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("unit.release", Some(guest))?;
        self.host
            .world()
            .units
            .insert(guest.clone(), UnitPhase::Running);
        Ok(())
    }

    async fn stop(&self, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("unit.stop", Some(guest))?;
        self.host
            .world()
            .units
            .insert(guest.clone(), UnitPhase::Exited(0));
        Ok(())
    }

    fn endings(&self) -> broadcast::Receiver<GuestName> {
        self.host.endings.subscribe()
    }

    fn oom_kills(&self, _: &GuestName) -> u64 {
        0
    }

    async fn console(&self, _: &Guest, _: usize, _: bool) -> Result<Console, FacilityError> {
        Err(injected("console"))
    }

    async fn exec(&self, _: &GuestName, _: &ExecRequest) -> Result<ExecSession, FacilityError> {
        Err(injected("exec"))
    }
}

pub(crate) fn a_closure() -> StorePath {
    StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest").expect("valid")
}
