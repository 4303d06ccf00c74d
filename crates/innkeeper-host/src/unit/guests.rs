//! The parts that both supervisors share: the state of a guest's processes, its arrival at the door, the opening of the
//! door.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use innkeeper_facilities::UnitSeen;
use innkeeper_model::{Guest, GuestName, StorePath, UnitPhase};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{OwnedMutexGuard, broadcast};

use super::bounds;
use super::cgroup;
use super::config::UnitConfig;
use super::door::{self, Message, Opened, Waiting};
use super::error::UnitError;
use super::filters::Filters;
use super::leader::{self, Leader};
use super::machine_id;
use super::nspawn;
use super::seats;
use super::shim::Shim;
use crate::features::UserIds;
use crate::tree::Owner;
use crate::{FileError, FileErrorExt};

/// The events of ended guests that a slow subscriber may be behind.
const ENDINGS: usize = 1024;

/// The lock of one guest, until it is dropped.
pub(super) type GuestLock = OwnedMutexGuard<()>;

/// The state that both supervisors share.
#[derive(Debug)]
pub(super) struct Guests {
    pub(super) config: UnitConfig,
    pub(super) shim: Shim,
    pub(super) filters: Filters,
    pub(super) endings: broadcast::Sender<GuestName>,
    pub(super) waiting: Waiting,
    locks: Mutex<HashMap<GuestName, Arc<tokio::sync::Mutex<()>>>>,
}

/// The result of the wait for a guest at its door.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Its first process waits and is connected.
    AtDoor(UnitSeen),
    /// All of its processes ended.
    Ended,
    /// It timed out.
    Late,
}

impl Guests {
    pub(super) fn new(config: UnitConfig) -> Result<Self, FileError> {
        // The runtime directory itself also holds the API's socket, which others may reach.
        make_private(&config.run_dirs())?;
        make_private(&config.filters_dir())?;
        Ok(Self {
            shim: Shim::install(&config.runtime_dir)?,
            filters: Filters::new(config.filters_dir()),
            config,
            endings: broadcast::channel(ENDINGS).0,
            waiting: Waiting::default(),
            locks: Mutex::default(),
        })
    }

    /// Locks the guest against concurrent starts, stops and removals.
    pub(super) async fn lock(&self, guest: &GuestName) -> GuestLock {
        let lock = {
            let mut locks = self.locks.lock();
            // Evicts the locks that no task holds or waits for.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(guest.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// Finds the guest's first process.
    pub(super) fn leader(&self, cgroup: &Path) -> Result<Option<Leader>, FileError> {
        leader::find(cgroup).on("find the first process in", cgroup)
    }

    /// Reports whether the closure's init has not taken over yet.
    ///
    /// The socket exists from before the start until just before the door is opened. When the daemon is
    /// killed in between, the first process still executes the shim.
    fn is_at_door(&self, guest: &GuestName, leader: Option<Leader>) -> bool {
        self.config.run_dir(guest).socket().exists()
            || leader.is_some_and(|leader| leader.is_shim(&self.shim))
    }

    /// Returns the state of a guest with processes. Without a first process, it is starting or shutting down.
    pub(super) fn seen(&self, guest: &GuestName, leader: Option<Leader>) -> UnitSeen {
        UnitSeen {
            guest: guest.clone(),
            phase: if self.is_at_door(guest, leader) {
                UnitPhase::AtDoor
            } else {
                UnitPhase::Running
            },
            leader: leader.map(|leader| leader.pid),
            frozen: false,
            freezing: false,
        }
    }

    /// Reports whether the guest's first process is connected.
    pub(super) fn is_connected(&self, seen: &UnitSeen) -> bool {
        seen.leader
            .is_some_and(|leader| self.waiting.has(&seen.guest, leader))
    }

    /// Creates an empty run directory with the filters that the door installs, and listens at its door.
    pub(super) fn prepare(
        &self,
        guest: &Guest,
        filters: Option<&[u8]>,
    ) -> Result<UnixListener, UnitError> {
        let run = self.config.run_dir(&guest.name);
        seats::remove_run_dir(&run)?;
        make_private(run.path())?;
        let door = run.door();
        fs::create_dir(&door).on("create", &door)?;
        // The guest's root is another user and must reach the socket.
        fs::set_permissions(&door, fs::Permissions::from_mode(0o711)).on("open up", &door)?;
        if let Some(closure) = &guest.closure {
            seats::link(closure.as_path(), &run.closure())?;
        }
        if guest.name.is_seat() {
            seats::link(&self.config.home(&guest.name), &run.home())?;
        }
        if let Some(filters) = filters {
            // The daemon that opens the door may be another one, with other filters in store.
            let path = run.filters();
            let file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            file.and_then(|mut file| file.write_all(filters))
                .on("write", &path)?;
        }
        Ok(door::listen(&run)?)
    }

    /// Replaces files in the guest's tree that could delay its start, or stand in for its first process. The tree exists at
    /// the start, and not yet in [`Self::prepare`].
    pub(super) fn settle_tree(&self, guest: &Guest) -> Result<(), FileError> {
        let root_id = self.config.user_ids.on_disk(guest.slot, 0);
        let owner = Owner {
            uid: root_id,
            gid: root_id,
        };
        let root = self.config.root(&guest.name);
        // nspawn reports a tree that is missing.
        match root.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => {
                nspawn::settle_mount_point(&root, owner)?;
                machine_id::settle(&root, owner)
            }
        }
    }

    /// Waits for the first process of the guest in `cgroup`. `ended` completes with the guest's last process.
    pub(super) async fn await_door(
        &self,
        guest: &GuestName,
        listener: &UnixListener,
        cgroup: &Path,
        ended: impl Future<Output = Result<(), UnitError>> + Send,
    ) -> Result<Arrival, UnitError> {
        // Another program would run before its filters are in force.
        let leader = || {
            let leader = leader::find(cgroup).ok().flatten();
            leader.filter(|leader| leader.is_shim(&self.shim))
        };
        tokio::select! {
            accepted = door::accept(listener, leader) => {
                let (connection, leader) =
                    accepted.on("accept a connection of", self.config.run_dir(guest).socket())?;
                self.waiting.put(guest, leader.pid, connection);
                Ok(Arrival::AtDoor(self.seen(guest, Some(leader))))
            }
            ended = ended => ended.map(|()| Arrival::Ended),
            () = tokio::time::sleep(self.config.door_timeout) => Ok(Arrival::Late),
        }
    }

    /// Limits the guest's use of shared kernel resources, then opens the door. Has no effect on a guest whose init has
    /// taken over. `own` is the system of the guest's own to boot. `mounts` comes from [`Supervisor::mounts`](super::supervisor::Supervisor::mounts).
    pub(super) async fn release(
        &self,
        guest: &GuestName,
        own: Option<&StorePath>,
        cgroup: &Path,
        mounts: Option<&Path>,
    ) -> Result<(), UnitError> {
        let not_at_door = || UnitError::NotAtDoor {
            guest: guest.clone(),
        };
        let _lock = self.lock(guest).await;
        let leader = self.leader(cgroup)?.ok_or_else(not_at_door)?;
        if !self.is_at_door(guest, Some(leader)) {
            return Ok(());
        }
        let run = self.config.run_dir(guest);
        if !run.limited().exists() {
            self.limit(guest, leader, cgroup, mounts).await?;
        }
        let connection = self
            .waiting
            .take(guest, leader.pid)
            .ok_or_else(not_at_door)?;
        let filters = match fs::read(run.filters()) {
            // nspawn has installed them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            filters => Some(filters.on("read", run.filters())?),
        };
        let named = seats::closure_at_seat(&run);
        let message = Message {
            named: named.as_ref().map(|closure| (guest, closure)),
            own,
            filters: filters.as_deref(),
        };
        // Removed before init runs; the open connection does not need it.
        door::close(&run)?;
        let is_unfiltered = || leader.is_unfiltered_shim(&self.shim);
        match door::open(connection, message, is_unfiltered)
            .await
            .on("open the door", run.door())?
        {
            // Otherwise its end would be blamed on its own system.
            Opened::Killed if own.is_some() => Err(not_at_door()),
            Opened::Killed | Opened::Gone => Ok(()),
            Opened::Refused(message) => Err(UnitError::Init {
                guest: guest.clone(),
                message,
            }),
            Opened::Unfiltered { message, is_proven } => {
                // One guest decides for all others here, so the kernel is asked, and not the guest's first process.
                if is_proven {
                    self.filters.distrust(&message);
                } else {
                    tracing::warn!(%guest, %message, "a guest's first process is not in the state that it reports");
                }
                Err(UnitError::Init {
                    guest: guest.clone(),
                    message,
                })
            }
        }
    }

    /// Limits the guest's use of shared kernel resources while it waits at the door. `mounts` comes from
    /// [`Supervisor::mounts`](super::supervisor::Supervisor::mounts).
    pub(super) async fn limit(
        &self,
        guest: &GuestName,
        leader: Leader,
        cgroup: &Path,
        mounts: Option<&Path>,
    ) -> Result<(), UnitError> {
        if self.config.user_ids != UserIds::Host {
            let limits = &self.config.user_limits;
            let shim = self.shim.path();
            bounds::limit_users(guest, leader.pid, cgroup, mounts, shim, limits).await?;
        }
        if let Err(error) = bounds::limit_terminals(leader.pid) {
            tracing::warn!(%guest, %error, "the guest's pseudo-terminals are not limited");
        }
        Ok(())
    }

    /// Drops the connection of a guest that is being stopped.
    pub(super) fn forget(&self, guest: &GuestName) {
        self.waiting.forget(guest);
    }

    /// Lists the guests that have a run directory.
    pub(super) fn with_run_dir(&self) -> Result<Vec<GuestName>, FileError> {
        let dir = self.config.run_dirs();
        let mut guests = Vec::new();
        for entry in fs::read_dir(&dir).on("list", &dir)? {
            let name = entry.on("list", &dir)?.file_name();
            let name = name.to_str().and_then(|name| GuestName::parse(name).ok());
            // The directory of a seat that was taken is found under the guest's name.
            guests.extend(name.filter(|name| self.config.guest_named(name.clone()) == *name));
        }
        Ok(guests)
    }

    /// Completes when the cgroup has no process.
    pub(super) async fn emptied(cgroup: &Path) -> Result<(), UnitError> {
        Ok(cgroup::emptied(cgroup).await?)
    }
}

/// Creates a directory that only root may enter.
pub(super) fn make_private(dir: &Path) -> Result<(), FileError> {
    fs::create_dir_all(dir).on("create", dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).on("close", dir)
}
