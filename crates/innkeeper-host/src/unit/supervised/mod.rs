//! The life of guests under either supervisor.
//!
//! No process is kept in memory: the cgroups list the processes, and the supervisor returns the result of the last boot.
//! A daemon that was killed at any line therefore recovers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use innkeeper_facilities::{ExecSession, Found, UnitSeen};
use innkeeper_model::api::ExecRequest;
use innkeeper_model::{Guest, GuestName, Ownership, UnitPhase};
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::cgroup::{self, Suspension};
use super::config::UnitConfig;
use super::error::UnitError;
use super::exec;
use super::guests::{Arrival, Guests};
use super::leader::Leader;
use super::nspawn::{self, Boot};
use super::process::{Process, find_program};
use super::seats::remove_run_dir;
use super::supervisor::{End, Ended, Supervisor};
use super::waiting_shim::WaitingShim;
use super::{door, nspawn_cleanup};
use crate::FileErrorExt;
use crate::closure::shared;

mod facility;
mod filters;
mod seats;
mod starting;

use starting::{Mark, Starting};

/// The lines of the console in an error.
const ERROR_LINES: usize = 20;

/// The maximum length of such a line, in bytes.
const ERROR_LINE: usize = 1000;

/// The maximum size of the end of the console that these lines are taken from, in bytes.
const ERROR_BYTES: usize = 64 << 10;

/// The time that killed processes have to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The retries of a removal. A shim that an earlier daemon started just before its end may still write to its files.
const ATTEMPTS: u32 = 5;

/// The exit status of a guest whose status was not recorded: that of SIGKILL.
const UNKNOWN_STATUS: i32 = 137;

/// Guests under one of the two supervisors.
pub(super) struct SupervisedUnits<S> {
    guests: Guests,
    supervisor: S,
    starting: Arc<Starting>,
}

/// A unit that is ready to start. Dropping it ends the process that waits for the start.
#[derive(Debug)]
pub(super) struct Ready {
    listener: UnixListener,
    nspawn: nspawn::Command,
    waiting: Option<WaitingShim>,
    _starting: Mark,
}

impl<S: Supervisor> SupervisedUnits<S> {
    /// Finds the running guests and watches them.
    pub(super) async fn open(config: UnitConfig, supervisor: S) -> Result<Self, UnitError> {
        let units = Self {
            guests: Guests::new(config)?,
            supervisor,
            starting: Arc::default(),
        };
        for guest in units.all().await? {
            match units.is_alive(&guest) {
                Ok(true) => {
                    drop(units.watch(&guest, None));
                    if let Err(error) = exec::sweep(&units.supervisor.groups(&guest).exec) {
                        tracing::warn!(%guest, "{}", innkeeper_model::chain(&error));
                    }
                }
                Ok(false) => {}
                // A failure of one guest must not stop the others.
                Err(error) => tracing::warn!(%guest, "{}", innkeeper_model::chain(&error)),
            }
        }
        Ok(units)
    }

    fn config(&self) -> &UnitConfig {
        &self.guests.config
    }

    /// Returns all guests of this daemon that have a unit, cgroup or run directory.
    async fn all(&self) -> Result<BTreeSet<GuestName>, UnitError> {
        let (mut guests, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        for found in self.found().await? {
            let of = match found.ownership {
                Ownership::Ours => &mut guests,
                Ownership::Unmarked | Ownership::Other => &mut foreign,
            };
            of.extend(found.guest);
        }
        // Another daemon's processes are not this one's because of a run directory.
        Ok(guests.difference(&foreign).cloned().collect())
    }

    /// Returns the name of the guest's unit or cgroup if it is not this daemon's. Units of former releases have no mark:
    /// they are this daemon's if the run directory exists, which lies in the daemon's own directory and is created first.
    async fn foreign(&self, guest: &GuestName) -> Result<Option<String>, UnitError> {
        Ok(match self.supervisor.owner(guest).await? {
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

    /// Reports whether the guest or its supervisor has a process.
    fn is_alive(&self, guest: &GuestName) -> Result<bool, UnitError> {
        let all = self.supervisor.groups(guest).all;
        Ok(!cgroup::pids(&all).on("list", &all)?.is_empty())
    }

    fn leader(&self, guest: &GuestName) -> Result<Option<Leader>, UnitError> {
        Ok(self.guests.leader(&self.supervisor.groups(guest).guest)?)
    }

    async fn look(&self, guest: &GuestName) -> Result<Option<UnitSeen>, UnitError> {
        let leader = self.leader(guest)?;
        if leader.is_some() || self.is_alive(guest)? {
            let suspension = cgroup::suspension(&self.supervisor.groups(guest).freezer);
            return Ok(Some(UnitSeen {
                frozen: suspension == Suspension::Complete,
                freezing: suspension == Suspension::Begun,
                ..self.guests.seen(guest, leader)
            }));
        }
        // The status is written before the last process ends, so it is read after the processes.
        let status = match self.supervisor.ended(guest).await? {
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
            frozen: false,
            freezing: false,
        }))
    }

    /// Sends an event when the last of the guest's processes ends.
    fn watch(
        &self,
        guest: &GuestName,
        process: Option<oneshot::Receiver<()>>,
    ) -> oneshot::Receiver<()> {
        let (ended, receiver) = oneshot::channel();
        let (guest, all) = (guest.clone(), self.supervisor.groups(guest).all);
        let endings = self.guests.endings.clone();
        let config = self.config().clone();
        tokio::spawn(async move {
            if let Some(process) = process {
                // The sender sends before it is dropped, unless the daemon stops.
                let _ended = process.await;
            }
            if let Err(error) = cgroup::emptied(&all).await {
                tracing::warn!(%guest, %error, "cannot watch the guest's processes");
            }
            // Another guest may have taken the seat. Both channels may have no receiver.
            let guest = config.guest_named(guest);
            let (_waiter, _subscribers) = (ended.send(()), endings.send(guest));
        });
        receiver
    }

    /// Completes when the guest has no process and is not being started.
    fn end(&self, guest: &GuestName) -> End {
        let (guest, starting) = (guest.clone(), Arc::clone(&self.starting));
        let all = self.supervisor.groups(&guest).all;
        Box::pin(async move {
            while starting.has(&guest) {
                tokio::time::sleep(cgroup::PAUSE).await;
            }
            if let Err(error) = cgroup::emptied(&all).await {
                tracing::warn!(%guest, %error, "cannot watch the guest's processes");
            }
        })
    }

    /// Accepts the connection of a guest that has processes. `None` when they end first.
    async fn adopt(&self, guest: &GuestName) -> Result<Option<UnitSeen>, UnitError> {
        let seen = self.guests.seen(guest, self.leader(guest)?);
        if seen.leader.is_some()
            && (seen.phase == UnitPhase::Running || self.guests.is_connected(&seen))
        {
            return Ok(Some(seen));
        }
        let groups = self.supervisor.groups(guest);
        let ended = Guests::emptied(&groups.all);
        if seen.phase == UnitPhase::Running {
            // Its door was opened and its first process is gone: it is shutting down.
            return match tokio::time::timeout(KILL_TIMEOUT, ended).await {
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

    /// Prepares the start of a guest that has no unit.
    async fn make_ready(&self, guest: &Guest) -> Result<Ready, UnitError> {
        let name = &guest.name;
        let closure = guest.closure.as_ref();
        if closure.is_none() && !name.is_seat() {
            return Err(UnitError::NoClosure {
                guest: name.clone(),
            });
        }
        let nspawn = find_program(&self.config().nspawn)?;
        let nix = closure
            .filter(|closure| shared::is_requested(guest.kind, closure))
            .map(|_| shared::state_dir(&self.config().gcroots, name));
        let starting = Starting::mark(&self.starting, name);
        let devices: Vec<_> = nspawn::NESTING_DEVICES
            .map(PathBuf::from)
            .into_iter()
            .filter(|device| device.exists())
            .collect();
        let filters = self.filters(guest, &nspawn).await;
        let listener = self.guests.prepare(guest, filters.as_deref())?;
        let nspawn = nspawn::command(&Boot {
            config: self.config(),
            nspawn: &nspawn,
            guest,
            closure,
            shim: self.guests.shim.path(),
            door: &self.config().run_dir(name).door(),
            nix: nix.as_deref(),
            devices: &devices,
            // machined cannot rename a machine.
            register: self.supervisor.registers() && !name.is_seat(),
            filters_at_door: filters.is_some(),
        });
        Ok(Ready {
            listener,
            waiting: self.supervisor.prepare(guest, &nspawn).await?,
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
        let process = self.supervisor.start(guest, &nspawn, waiting).await?;
        let ended = self.watch(name, process);
        let ended = async {
            // The sender sends before it is dropped, unless the daemon stops.
            let _ended = ended.await;
            Ok(())
        };
        let cgroup = self.supervisor.groups(name).guest;
        match self
            .guests
            .await_door(name, &listener, &cgroup, ended)
            .await?
        {
            Arrival::AtDoor(seen) => {
                if guest.closure.is_none() {
                    self.limit_seat(&seen).await?;
                }
                Ok(seen)
            }
            Arrival::Ended => Err(self.died(name).await),
            Arrival::Late => {
                let error = self.late(name).await;
                self.kill(name).await?;
                Err(error)
            }
        }
    }

    async fn died(&self, guest: &GuestName) -> UnitError {
        let status = match self.supervisor.ended(guest).await {
            Ok(Ended::With(status)) => status,
            _ => UNKNOWN_STATUS,
        };
        UnitError::Died {
            guest: guest.clone(),
            status,
            log: tail(&self.supervisor, guest).await,
        }
    }

    async fn late(&self, guest: &GuestName) -> UnitError {
        UnitError::Late {
            guest: guest.clone(),
            seconds: self.config().door_timeout.as_secs(),
            log: tail(&self.supervisor, guest).await,
        }
    }

    fn left(&self, guest: &GuestName) -> UnitError {
        let pids = cgroup::pids(&self.supervisor.groups(guest).all).unwrap_or_default();
        UnitError::Left {
            guest: guest.clone(),
            count: pids.len(),
        }
    }

    /// Signals the guest to shut down, as soon as its init handles the signal, and waits for its end. Has no effect on a
    /// guest whose door is closed.
    async fn shut_down(&self, guest: &GuestName) -> Result<(), UnitError> {
        while let Some(leader) = self.leader(guest)? {
            if self.guests.seen(guest, Some(leader)).phase != UnitPhase::Running {
                return Ok(());
            }
            if !leader.handles_shutdown() {
                tokio::time::sleep(cgroup::PAUSE).await;
            } else if self.signal_nspawn(guest, leader)? {
                return Guests::emptied(&self.supervisor.groups(guest).all).await;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends SIGTERM to nspawn, which signals the guest's init. Returns `false` when nspawn is gone.
    fn signal_nspawn(&self, guest: &GuestName, leader: Leader) -> Result<bool, UnitError> {
        let cgroup = self.supervisor.groups(guest).guest;
        let nspawn = Process::in_cgroup(leader.parent, &cgroup).on("look into", &cgroup)?;
        let Some(nspawn) = nspawn else {
            return Ok(false);
        };
        nspawn
            .signal(Signal::TERM)
            .on("signal nspawn in", &cgroup)?;
        Ok(true)
    }

    /// Kills the guest, then its supervisor if that does not end by itself, and waits for the end of both.
    async fn kill(&self, guest: &GuestName) -> Result<(), UnitError> {
        self.guests.forget(guest);
        let groups = self.supervisor.groups(guest);
        // The shim still writes the exit status, and ends after that.
        for group in [&groups.guest, &groups.all] {
            cgroup::kill(group)?;
            // Only now: processes of a paused guest end without doing anything more.
            cgroup::thaw(&groups.freezer)?;
            if within(KILL_TIMEOUT, Guests::emptied(&groups.all)).await? {
                return Ok(());
            }
        }
        Err(self.left(guest))
    }

    /// Removes the remains of a guest without processes. The cgroups go first: a shim that an earlier daemon started and
    /// that has not entered them yet then fails and ends.
    async fn clear(&self, guest: &GuestName) -> Result<(), UnitError> {
        let mut errors = self.supervisor.clear(guest).await;
        if !errors.is_empty() && self.is_alive(guest)? {
            // That shim entered them first, and the guest needs the rest.
            return UnitError::all(errors);
        }
        let config = self.config();
        if config.unit_name(guest) != *guest {
            errors.extend(self.supervisor.unregister(guest).await.err());
        }
        errors.extend(nspawn_cleanup::remove(&config.machine(guest), &config.root(guest)).await);
        if !errors.is_empty() && config.unit_name(guest) != *guest {
            // The run directory leads to the names of what is left.
            return UnitError::all(errors);
        }
        // Last: while it exists, the guest is found.
        if let Err(error) = remove_run_dir(&config.run_dir(guest)) {
            errors.push(error.into());
        }
        UnitError::all(errors)
    }

    /// Returns `None` if remains of the guest cannot be removed: [`Self::ensure`] retries.
    async fn prepare(&self, guest: &Guest) -> Result<Option<Ready>, UnitError> {
        let _lock = self.guests.lock(&guest.name).await;
        self.require_ours(&guest.name).await?;
        if self.is_alive(&guest.name)? || self.clear(&guest.name).await.is_err() {
            return Ok(None);
        }
        self.make_ready(guest).await.map(Some)
    }

    async fn ensure(&self, guest: &Guest, ready: Option<Ready>) -> Result<UnitSeen, UnitError> {
        let name = &guest.name;
        let _lock = self.guests.lock(name).await;
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
        let _lock = self.guests.lock(guest).await;
        if self.foreign(guest).await?.is_some() {
            return Ok(());
        }
        // A suspended init handles no signal.
        cgroup::thaw(&self.supervisor.groups(guest).freezer)?;
        // The kill below ends what is left after the timeout.
        within(self.config().stop_timeout, self.shut_down(guest)).await?;
        self.kill(guest).await
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), UnitError> {
        let _lock = self.guests.lock(guest).await;
        if self.is_taken(guest) {
            return Ok(());
        }
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

    /// Removes a unit or cgroup without a mark, on request.
    async fn remove_unmarked(&self, guest: &GuestName) -> Result<(), UnitError> {
        let _lock = self.guests.lock(guest).await;
        match self.supervisor.owner(guest).await? {
            Some((Ownership::Unmarked, _)) => {
                self.kill(guest).await?;
                self.clear(guest).await
            }
            _ => Ok(()),
        }
    }

    async fn found(&self) -> Result<Vec<Found>, UnitError> {
        let mut found = self.supervisor.found().await?;
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
                    &self.supervisor.groups(guest),
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

/// Returns the end of a guest's console; empty when it cannot be read. The guest determines its contents, so lines are cut.
pub(super) async fn tail(supervisor: &impl Supervisor, guest: &GuestName) -> Vec<String> {
    let Ok(mut pieces) = supervisor.console(guest, None, ERROR_LINES, None).await else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        bytes.extend(piece);
        if bytes.len() > 2 * ERROR_BYTES {
            bytes.drain(..bytes.len() - ERROR_BYTES);
        }
    }
    bytes.drain(..bytes.len().saturating_sub(ERROR_BYTES));
    let lines = bytes.split(|&byte| byte == b'\n').map(|line| {
        let line = String::from_utf8_lossy(&line[..line.len().min(ERROR_LINE)]);
        line.trim_end().to_owned()
    });
    let mut lines: Vec<_> = lines.collect();
    // The text after the last line break is empty, as a rule.
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Reports whether `end` completed within the timeout.
async fn within(
    time: Duration,
    end: impl Future<Output = Result<(), UnitError>>,
) -> Result<bool, UnitError> {
    match tokio::time::timeout(time, end).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}
