//! The fake host, and its facilities.

use std::net::Ipv4Addr;
use std::sync::Arc;

use innkeeper_model::{Code, GuestName, UnitPhase};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, RwLock, broadcast, watch};

use super::error::injected;
use super::world::{Failing, World};
use crate::access_list::AccessList;
use crate::databases::Databases;
use crate::error::FacilityError;
use crate::evaluator::Evaluator;
use crate::guest_files::GuestFiles;
use crate::host::Facilities;
use crate::pages::Pages;
use crate::routes::Routes;

/// A host in memory. Clones share its objects.
#[derive(Clone)]
pub struct FakeHost {
    world: Arc<Mutex<World>>,
    pub(super) endings: broadcast::Sender<GuestName>,
    /// Each build of an agent's closure waits for one notification.
    pub builds: Arc<Notify>,
    /// Removals of retained files wait while a test holds this for writing.
    pub removals: Arc<RwLock<()>>,
    /// Copies of files for backups wait while a test holds this for writing.
    pub exports: Arc<RwLock<()>>,
    /// Notifies of a packet to a watched guest.
    pub packets: Arc<Notify>,
    /// Notifies of a changed host fact.
    pub facts: Arc<Notify>,
    /// `true` while evaluations wait.
    pub(super) evaluations_held: watch::Sender<bool>,
}

/// One facility of the fake host.
pub(super) struct Part {
    pub(super) host: FakeHost,
    pub(super) kind: &'static str,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// A host without objects, on which all calls succeed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            world: Arc::default(),
            endings: broadcast::Sender::new(16),
            builds: Arc::default(),
            removals: Arc::default(),
            exports: Arc::default(),
            packets: Arc::default(),
            facts: Arc::default(),
            evaluations_held: watch::Sender::new(false),
        }
    }

    /// Locks the host's objects, to read or change them. No facility makes progress meanwhile.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Lets the next calls fail with [`Code::RootfsFailed`], such as `rootfs.ensure`.
    pub fn fail(&self, call: &'static str, times: u32) {
        self.fail_with(call, times, Code::RootfsFailed);
    }

    /// Lets the next calls fail with a code.
    pub fn fail_with(&self, call: &'static str, times: u32, code: Code) {
        let failing = Failing {
            times,
            code,
            inconclusive: false,
        };
        self.world().failures.insert(call, failing);
    }

    /// Lets the next calls fail with [`Code::BuildFailed`], inconclusively.
    pub fn fail_inconclusively(&self, call: &'static str, times: u32) {
        let failing = Failing {
            times,
            code: Code::BuildFailed,
            inconclusive: true,
        };
        self.world().failures.insert(call, failing);
    }

    /// Makes evaluations wait, or lets them continue.
    pub fn hold_evaluations(&self, held: bool) {
        self.evaluations_held.send_replace(held);
    }

    /// Ends a guest's processes without an event.
    pub fn end_quietly(&self, guest: &GuestName, status: i32) {
        let mut world = self.world();
        world.frozen.remove(guest);
        world.freezing.remove(guest);
        world.units.insert(guest.clone(), UnitPhase::Exited(status));
    }

    /// Ends a guest's processes and sends the event.
    pub fn end(&self, guest: &GuestName, status: i32) {
        self.end_quietly(guest, status);
        self.endings
            .send(guest.clone())
            .expect("the engine watches");
    }

    /// Lets a packet reach a guest, which is reported if the guest is watched, or asleep and not reported already.
    pub fn reach(&self, guest: Ipv4Addr) {
        let mut world = self.world();
        let is_parked = world.parked.contains(&guest);
        if world.watched.remove(&guest) || is_parked && world.reached_asleep.insert(guest) {
            world.reached.insert(guest);
            self.packets.notify_one();
        }
    }

    /// Returns the facilities of the engine.
    #[must_use]
    pub fn facilities(&self) -> Facilities {
        Facilities {
            closures: self.part("closure"),
            rootfs: self.part("rootfs"),
            secrets: self.part("secrets"),
            facts: self.part("facts"),
            features: self.part("features"),
            memory: self.part("memory"),
            load: self.part("load"),
            network: self.part("network"),
            firewall: self.part("firewall"),
            traffic: self.part("traffic"),
            packets: self.part("packets"),
            units: self.part("unit"),
        }
    }

    /// Returns the routes of previews.
    #[must_use]
    pub fn routes(&self) -> Arc<dyn Routes> {
        self.part("route")
    }

    /// Returns the databases of previews.
    #[must_use]
    pub fn databases(&self) -> Arc<dyn Databases> {
        self.part("database")
    }

    /// Returns the list of previews that are not public.
    #[must_use]
    pub fn access_list(&self) -> Arc<dyn AccessList> {
        self.part("access")
    }

    /// Returns the status files of previews.
    #[must_use]
    pub fn pages(&self) -> Arc<dyn Pages> {
        self.part("page")
    }

    /// Returns the evaluator of previews.
    #[must_use]
    pub fn evaluator(&self) -> Arc<dyn Evaluator> {
        self.part("evaluator")
    }

    /// Returns the writer of files for guests.
    #[must_use]
    pub fn guest_files(&self) -> Arc<dyn GuestFiles> {
        self.part("files")
    }

    fn part(&self, kind: &'static str) -> Arc<Part> {
        Arc::new(Part {
            host: self.clone(),
            kind,
        })
    }
}

impl Part {
    /// Records a call. Fails if a failure was injected.
    pub(super) fn call(
        &self,
        call: &'static str,
        guest: Option<&GuestName>,
    ) -> Result<(), FacilityError> {
        let mut world = self.host.world();
        let guest = guest.map(|name| format!(" {name}")).unwrap_or_default();
        world.calls.push(format!("{call}{guest}"));
        drop(world);
        self.query(call)
    }

    /// Fails if a failure was injected. Queries are not recorded.
    pub(super) fn query(&self, call: &str) -> Result<(), FacilityError> {
        let mut world = self.host.world();
        match world.failures.get_mut(call) {
            Some(failing) if failing.times > 0 => {
                failing.times -= 1;
                let error = injected(call, failing.code);
                Err(if failing.inconclusive {
                    error.inconclusive()
                } else {
                    error
                })
            }
            _ => Ok(()),
        }
    }
}
