//! Guests, whoever keeps their processes.
//!
//! Nothing here remembers a process: cgroups tell which processes there are, and the keeper tells how the
//! last boot ended. That is why a daemon that was killed at any line finds its way.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use innkeeper_facilities::{
    Console, ExecSession, FacilityError, Found, Prepared, Resource, UnitSeen, Units,
};
use innkeeper_model::api::{Check, ExecRequest};
use innkeeper_model::{Guest, GuestName, Ownership, UnitPhase};
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::sync::{broadcast, oneshot};

use super::config::UnitConfig;
use super::error::UnitError;
use super::exec;
use super::guests::{Arrival, Guests, remove_run_dir};
use super::keeper::{End, Ended, Keeper};
use super::leader::Leader;
use super::nspawn::{self, Boot};
use super::process::{Process, find_program};
use super::{cgroup, checks, door, journal, litter};
use crate::FileErrorExt;

/// How many lines of the console go into an error.
const ERROR_LINES: usize = 20;

/// How long killed processes may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How often removal is tried again. A shim that an earlier daemon started just before its end may still
/// write its last words.
const ATTEMPTS: u32 = 5;

/// The exit status of a guest when nobody could write one down: that of SIGKILL.
const UNKNOWN_STATUS: i32 = 137;

/// Guests, kept by one of the two supervisors.
pub(super) struct SupervisedUnits<K> {
    guests: Guests,
    keeper: K,
    starting: Arc<Starting>,
}

/// A unit that is ready to start. Dropping it ends the process that waits for the start.
#[derive(Debug)]
pub(super) struct Ready {
    listener: UnixListener,
    nspawn: Vec<OsString>,
    waiting: Option<Child>,
    _starting: Mark,
}

impl<K: Keeper> SupervisedUnits<K> {
    /// Finds the guests that run already and watches them.
    pub(super) async fn open(config: UnitConfig, keeper: K) -> Result<Self, UnitError> {
        let units = Self {
            guests: Guests::new(config)?,
            keeper,
            starting: Arc::default(),
        };
        for guest in units.all().await? {
            match units.is_alive(&guest) {
                Ok(true) => {
                    drop(units.watch(&guest, None));
                    if let Err(error) = exec::sweep(&units.keeper.groups(&guest).exec) {
                        tracing::warn!(%guest, "{}", innkeeper_model::chain(&error));
                    }
                }
                Ok(false) => {}
                // One guest does not keep us from looking after the others.
                Err(error) => tracing::warn!(%guest, "{}", innkeeper_model::chain(&error)),
            }
        }
        Ok(units)
    }

    fn config(&self) -> &UnitConfig {
        &self.guests.config
    }

    /// All guests of which there is something.
    async fn all(&self) -> Result<BTreeSet<GuestName>, UnitError> {
        let (mut guests, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        for found in self.found().await? {
            let of = match found.ownership {
                Ownership::Ours => &mut guests,
                Ownership::Unmarked | Ownership::Other => &mut foreign,
            };
            of.extend(found.guest);
        }
        // Our run directory does not make another daemon's processes ours.
        Ok(guests.difference(&foreign).cloned().collect())
    }

    /// What of the guest's is not this daemon's: its unit or cgroup, by name. The run directory, which lies in a directory
    /// of ours and is made first, tells for units of former releases, which have no mark.
    async fn foreign(&self, guest: &GuestName) -> Result<Option<String>, UnitError> {
        Ok(match self.keeper.owner(guest).await? {
            None | Some((Ownership::Ours, _)) => None,
            Some((Ownership::Unmarked, _)) if self.has_run_dir(guest) => None,
            Some((_, object)) => Some(object),
        })
    }

    fn has_run_dir(&self, guest: &GuestName) -> bool {
        self.config().run_dir(guest).path().exists()
    }

    async fn require_ours(&self, guest: &GuestName) -> Result<(), UnitError> {
        let guest = guest.clone();
        match self.foreign(&guest).await? {
            None => Ok(()),
            Some(object) => Err(UnitError::Foreign { guest, object }),
        }
    }

    /// Whether any process is there, of the guest or its supervisor.
    fn is_alive(&self, guest: &GuestName) -> Result<bool, UnitError> {
        let all = self.keeper.groups(guest).all;
        Ok(!cgroup::pids(&all).on("list", &all)?.is_empty())
    }

    fn leader(&self, guest: &GuestName) -> Result<Option<Leader>, UnitError> {
        Ok(self.guests.leader(&self.keeper.groups(guest).guest)?)
    }

    async fn look(&self, guest: &GuestName) -> Result<Option<UnitSeen>, UnitError> {
        let leader = self.leader(guest)?;
        if leader.is_some() || self.is_alive(guest)? {
            return Ok(Some(self.guests.seen(guest, leader)));
        }
        // The status is there before the last process goes, so this comes after the look for processes.
        let status = match self.keeper.ended(guest).await? {
            _ if self.starting.has(guest) => {
                return Ok(Some(self.guests.seen(guest, None)));
            }
            Ended::With(status) => status,
            Ended::Unknown => UNKNOWN_STATUS,
            Ended::Nothing if self.config().run_dir(guest).path().exists() => UNKNOWN_STATUS,
            Ended::Nothing => return Ok(None),
        };
        Ok(Some(UnitSeen {
            guest: guest.clone(),
            phase: UnitPhase::Exited(status),
            leader: None,
        }))
    }

    /// Announces the end of a guest's processes when it comes.
    fn watch(&self, guest: &GuestName, supervisor: Option<Child>) -> oneshot::Receiver<()> {
        let (ended, receiver) = oneshot::channel();
        let (guest, all) = (guest.clone(), self.keeper.groups(guest).all);
        let endings = self.guests.endings.clone();
        tokio::spawn(async move {
            if let Some(mut supervisor) = supervisor
                && let Err(error) = supervisor.wait().await
            {
                tracing::warn!(%guest, %error, "cannot wait for the guest's supervisor");
            }
            if let Err(error) = cgroup::emptied(&all).await {
                tracing::warn!(%guest, %error, "cannot watch the guest's processes");
            }
            // Nobody may be interested.
            let (_told, _announced) = (ended.send(()), endings.send(guest));
        });
        receiver
    }

    /// Completes when the guest has no process, and none is about to be started.
    fn end(&self, guest: &GuestName) -> End {
        let (guest, starting) = (guest.clone(), Arc::clone(&self.starting));
        let all = self.keeper.groups(&guest).all;
        Box::pin(async move {
            while starting.has(&guest) {
                tokio::time::sleep(cgroup::PAUSE).await;
            }
            if let Err(error) = cgroup::emptied(&all).await {
                tracing::warn!(%guest, %error, "cannot watch the guest's processes");
            }
        })
    }

    /// Takes up the connection of a guest that has processes. `None` when they end instead.
    async fn adopt(&self, guest: &GuestName) -> Result<Option<UnitSeen>, UnitError> {
        let seen = self.guests.seen(guest, self.leader(guest)?);
        if seen.leader.is_some()
            && (seen.phase == UnitPhase::Running || self.guests.is_connected(&seen))
        {
            return Ok(Some(seen));
        }
        let groups = self.keeper.groups(guest);
        let ended = Guests::emptied(&groups.all);
        if seen.phase == UnitPhase::Running {
            // Its door was opened and its first process is gone: it is on its way down.
            return match tokio::time::timeout(KILL_PATIENCE, ended).await {
                Ok(ended) => ended.map(|()| None),
                Err(_) => Err(self.left(guest)),
            };
        }
        let listener = door::listen(&self.config().run_dir(guest))?;
        let arrival = self
            .guests
            .await_door(guest, &listener, &groups.guest, ended);
        match arrival.await? {
            Arrival::AtDoor(seen) => Ok(Some(seen)),
            Arrival::Ended => Ok(None),
            Arrival::Late => Err(self.late(guest).await),
        }
    }

    /// Gets a guest ready of which there is nothing.
    async fn make_ready(&self, guest: &Guest) -> Result<Ready, UnitError> {
        let name = &guest.name;
        let no_closure = || UnitError::NoClosure {
            guest: name.clone(),
        };
        let closure = guest.closure.as_ref().ok_or_else(no_closure)?;
        let nspawn = find_program(&self.config().nspawn)?;
        let starting = Starting::mark(&self.starting, name);
        let listener = self.guests.prepare(guest, closure)?;
        let nspawn = nspawn::command(&Boot {
            config: self.config(),
            nspawn: &nspawn,
            guest,
            closure,
            shim: self.guests.shim.path(),
            door: &self.config().run_dir(name).door(),
            register: self.keeper.registers(),
        });
        Ok(Ready {
            listener,
            waiting: self.keeper.prepare(guest, &nspawn).await?,
            nspawn,
            _starting: starting,
        })
    }

    async fn start(&self, guest: &Guest, ready: Ready) -> Result<UnitSeen, UnitError> {
        let name = &guest.name;
        let Ready {
            listener,
            nspawn,
            waiting,
            _starting,
        } = ready;
        self.guests.settle_tree(guest)?;
        let supervisor = self.keeper.start(guest, &nspawn, waiting).await?;
        let ended = self.watch(name, supervisor);
        let ended = async {
            // The sender cannot go before it sends, unless the whole daemon stops.
            let _ended = ended.await;
            Ok(())
        };
        let cgroup = self.keeper.groups(name).guest;
        match self
            .guests
            .await_door(name, &listener, &cgroup, ended)
            .await?
        {
            Arrival::AtDoor(seen) => Ok(seen),
            Arrival::Ended => Err(self.died(name).await),
            Arrival::Late => {
                let error = self.late(name).await;
                self.kill(name).await?;
                Err(error)
            }
        }
    }

    async fn died(&self, guest: &GuestName) -> UnitError {
        let status = match self.keeper.ended(guest).await {
            Ok(Ended::With(status)) => status,
            _ => UNKNOWN_STATUS,
        };
        UnitError::Died {
            guest: guest.clone(),
            status,
            log: tail(&self.keeper, guest).await,
        }
    }

    async fn late(&self, guest: &GuestName) -> UnitError {
        UnitError::Late {
            guest: guest.clone(),
            seconds: self.config().door_timeout.as_secs(),
            log: tail(&self.keeper, guest).await,
        }
    }

    fn left(&self, guest: &GuestName) -> UnitError {
        let pids = cgroup::pids(&self.keeper.groups(guest).all).unwrap_or_default();
        UnitError::Left {
            guest: guest.clone(),
            count: pids.len(),
        }
    }

    /// Asks the guest to shut down, as soon as its init listens, and waits until it has. Nothing happens to
    /// a guest that has not got that far.
    async fn shut_down(&self, guest: &GuestName) -> Result<(), UnitError> {
        while let Some(leader) = self.leader(guest)? {
            if self.guests.seen(guest, Some(leader)).phase != UnitPhase::Running {
                return Ok(());
            }
            if !leader.listens() {
                tokio::time::sleep(cgroup::PAUSE).await;
            } else if self.ask(guest, leader)? {
                return Guests::emptied(&self.keeper.groups(guest).all).await;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes the wish on through nspawn. `false` when there is nobody to ask.
    fn ask(&self, guest: &GuestName, leader: Leader) -> Result<bool, UnitError> {
        let cgroup = self.keeper.groups(guest).guest;
        let nspawn = Process::in_cgroup(leader.parent, &cgroup).on("look into", &cgroup)?;
        let Some(nspawn) = nspawn else {
            return Ok(false);
        };
        nspawn
            .signal(Signal::TERM)
            .on("signal nspawn in", &cgroup)?;
        Ok(true)
    }

    /// Kills the guest, then its supervisor if that does not end by itself, and waits until both are gone.
    async fn kill(&self, guest: &GuestName) -> Result<(), UnitError> {
        self.guests.forget(guest);
        let groups = self.keeper.groups(guest);
        // The shim still has the exit status to write down, and ends after that.
        for group in [&groups.guest, &groups.all] {
            cgroup::kill(group)?;
            if within(KILL_PATIENCE, Guests::emptied(&groups.all)).await? {
                return Ok(());
            }
        }
        Err(self.left(guest))
    }

    /// Removes all that a guest without processes has left. The keeper goes first: a shim that an earlier
    /// daemon started and that has not entered its cgroups yet cannot do so any more, and gives up.
    async fn clear(&self, guest: &GuestName) -> Result<(), UnitError> {
        let mut errors = self.keeper.clear(guest).await;
        if !errors.is_empty() && self.is_alive(guest)? {
            // That shim was faster, and the guest needs the rest.
            return UnitError::all(errors);
        }
        let config = self.config();
        errors.extend(litter::remove(&config.machine(guest), &config.root(guest)).await);
        // Last: as long as it is there, the guest is found.
        if let Err(error) = remove_run_dir(&config.run_dir(guest)) {
            errors.push(error.into());
        }
        UnitError::all(errors)
    }

    /// What stands in the way is [`Self::ensure`]'s business.
    async fn prepare(&self, guest: &Guest) -> Result<Option<Ready>, UnitError> {
        let _turn = self.guests.turn(&guest.name).await;
        self.require_ours(&guest.name).await?;
        if self.is_alive(&guest.name)? || self.clear(&guest.name).await.is_err() {
            return Ok(None);
        }
        self.make_ready(guest).await.map(Some)
    }

    async fn ensure(&self, guest: &Guest, ready: Option<Ready>) -> Result<UnitSeen, UnitError> {
        let name = &guest.name;
        let _turn = self.guests.turn(name).await;
        if let Some(ready) = ready {
            return self.start(guest, ready).await;
        }
        self.require_ours(name).await?;
        let mut attempts = ATTEMPTS;
        loop {
            if self.is_alive(name)?
                && let Some(seen) = self.adopt(name).await?
            {
                return Ok(seen);
            }
            match self.clear(name).await {
                Ok(()) => return self.start(guest, self.make_ready(guest).await?).await,
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => attempts -= 1,
            }
        }
    }

    async fn stop(&self, guest: &GuestName) -> Result<(), UnitError> {
        let _turn = self.guests.turn(guest).await;
        if self.foreign(guest).await?.is_some() {
            return Ok(());
        }
        // What is left after that has had its time.
        within(self.config().stop_timeout, self.shut_down(guest)).await?;
        self.kill(guest).await
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), UnitError> {
        let _turn = self.guests.turn(guest).await;
        if self.foreign(guest).await?.is_some() {
            return Ok(remove_run_dir(&self.config().run_dir(guest))?);
        }
        let mut attempts = ATTEMPTS;
        loop {
            self.kill(guest).await?;
            match self.clear(guest).await {
                Ok(()) => return Ok(()),
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => attempts -= 1,
            }
        }
    }

    /// Removes what has no mark, on request.
    async fn remove_unmarked(&self, guest: &GuestName) -> Result<(), UnitError> {
        let _turn = self.guests.turn(guest).await;
        match self.keeper.owner(guest).await? {
            Some((Ownership::Unmarked, _)) => {
                self.kill(guest).await?;
                self.clear(guest).await
            }
            _ => Ok(()),
        }
    }

    async fn found(&self) -> Result<Vec<Found>, UnitError> {
        let mut found = self.keeper.found().await?;
        for found in &mut found {
            let has_run_dir = |guest: &GuestName| self.has_run_dir(guest);
            if found.ownership == Ownership::Unmarked
                && found.guest.as_ref().is_some_and(has_run_dir)
            {
                found.ownership = Ownership::Ours;
            }
        }
        for guest in self.guests.with_run_dir()? {
            let object = self.config().run_dir(&guest).path().display().to_string();
            found.push(Found::ours(Some(guest), object));
        }
        Ok(found)
    }

    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, UnitError> {
        self.require_ours(guest).await?;
        let seen = self.guests.seen(guest, self.leader(guest)?);
        match (seen.phase, seen.leader) {
            (UnitPhase::Running, Some(leader)) => {
                exec::start(
                    &self.guests,
                    guest,
                    leader,
                    &self.keeper.groups(guest),
                    request,
                )
                .await
            }
            _ => Err(UnitError::NotRunning {
                guest: guest.clone(),
            }),
        }
    }
}

/// The end of a guest's console, as far as it can be had.
pub(super) async fn tail(keeper: &impl Keeper, guest: &GuestName) -> Vec<String> {
    let Ok(mut pieces) = keeper.console(guest, None, ERROR_LINES, None).await else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        bytes.extend(piece);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Whether something ended in time.
async fn within(
    time: Duration,
    end: impl Future<Output = Result<(), UnitError>>,
) -> Result<bool, UnitError> {
    match tokio::time::timeout(time, end).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Guests that are being started and may have no process yet.
#[derive(Debug, Default)]
struct Starting(Mutex<HashSet<GuestName>>);

impl Starting {
    /// Nothing panics while it is held.
    fn guests(&self) -> MutexGuard<'_, HashSet<GuestName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, guest: &GuestName) -> bool {
        self.guests().contains(guest)
    }

    fn mark(self: &Arc<Self>, guest: &GuestName) -> Mark {
        self.guests().insert(guest.clone());
        Mark {
            starting: Arc::clone(self),
            guest: guest.clone(),
        }
    }
}

/// Says that a guest is being started, for as long as it lives.
#[derive(Debug)]
struct Mark {
    starting: Arc<Starting>,
    guest: GuestName,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.starting.guests().remove(&self.guest);
    }
}

#[async_trait]
impl<K: Keeper> Resource for SupervisedUnits<K> {
    fn kind(&self) -> &'static str {
        "unit"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.found().await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(Self::remove(self, guest).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        match &found.guest {
            Some(guest) if found.ownership == Ownership::Unmarked => {
                Ok(self.remove_unmarked(guest).await?)
            }
            Some(guest) => Ok(Self::remove(self, guest).await?),
            // Everything that is observed has a guest's name.
            None => Ok(()),
        }
    }

    async fn check(&self) -> Vec<Check> {
        let config = self.config();
        let programs = [
            &*config.nspawn,
            "nsenter".as_ref(),
            "setpriv".as_ref(),
            "setsid".as_ref(),
        ];
        let mut found = checks::programs(&programs);
        found.extend(self.keeper.check());
        found
    }
}

#[async_trait]
impl<K: Keeper> Units for SupervisedUnits<K> {
    fn supervisor(&self) -> &'static str {
        self.keeper.name()
    }

    async fn phases(&self) -> Result<Vec<UnitSeen>, FacilityError> {
        let mut seen = Vec::new();
        for guest in self.all().await? {
            match self.look(&guest).await {
                Ok(unit) => seen.extend(unit),
                // One guest does not keep us from telling of the others.
                Err(error) => tracing::warn!(%guest, "{}", innkeeper_model::chain(&error)),
            }
        }
        Ok(seen)
    }

    async fn phase(&self, guest: &GuestName) -> Result<Option<UnitSeen>, FacilityError> {
        match self.foreign(guest).await? {
            None => Ok(self.look(guest).await?),
            Some(_) => Ok(None),
        }
    }

    async fn prepare(&self, guest: &Guest) -> Result<Option<Prepared>, FacilityError> {
        Ok(Self::prepare(self, guest).await?.map(Prepared::new))
    }

    async fn ensure(
        &self,
        guest: &Guest,
        prepared: Option<Prepared>,
    ) -> Result<UnitSeen, FacilityError> {
        let ready = prepared.and_then(Prepared::downcast);
        Ok(Self::ensure(self, guest, ready).await?)
    }

    async fn release(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let cgroup = self.keeper.groups(guest).guest;
        self.keeper.confine(guest)?;
        let mounts = self.keeper.mounts();
        Ok(self.guests.release(guest, &cgroup, mounts).await?)
    }

    async fn stop(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(Self::stop(self, guest).await?)
    }

    fn oom_kills(&self, guest: &GuestName) -> u64 {
        cgroup::oom_kills(&self.keeper.groups(guest).memory)
    }

    fn endings(&self) -> broadcast::Receiver<GuestName> {
        self.guests.endings.subscribe()
    }

    async fn console(
        &self,
        guest: &Guest,
        lines: usize,
        follow: bool,
    ) -> Result<Console, FacilityError> {
        let end = follow.then(|| self.end(&guest.name));
        let lifetime = journal::lifetime(guest);
        let console = self
            .keeper
            .console(&guest.name, Some(&lifetime), lines, end);
        Ok(console.await?)
    }

    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, FacilityError> {
        Ok(Self::exec(self, guest, request).await?)
    }
}
