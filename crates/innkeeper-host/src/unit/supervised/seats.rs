//! Seats under either supervisor: see [`super::super::seats`].

use std::fs;

use innkeeper_facilities::UnitSeen;
use innkeeper_model::{Guest, GuestName, UnitPhase};

use super::super::error::UnitError;
use super::super::supervisor::Supervisor;
use super::super::{host_name, seats};
use super::SupervisedUnits;
use crate::FileErrorExt;

impl<S: Supervisor> SupervisedUnits<S> {
    /// Reports whether it is the name of a seat whose unit belongs to another guest.
    pub(super) fn is_taken(&self, name: &GuestName) -> bool {
        self.guests.config.guest_named(name.clone()) != *name
    }

    /// Limits a seat's users, which takes longer than everything that is left to do when a guest takes it.
    pub(super) async fn limit_seat(&self, seen: &UnitSeen) -> Result<(), UnitError> {
        let seat = &seen.guest;
        let Some(leader) = self.leader(seat)? else {
            return Ok(());
        };
        let cgroup = self.supervisor.groups(seat).guest;
        let mounts = self.supervisor.mounts();
        self.guests.limit(seat, leader, &cgroup, mounts).await?;
        let limited = self.guests.config.run_dir(seat).limited();
        Ok(fs::write(&limited, "").on("write", &limited)?)
    }

    /// Gives a guest what its seat had otherwise: limits, the machine's name, and a host name if it runs.
    async fn complete(&self, guest: &Guest) -> Result<(), UnitError> {
        let name = &guest.name;
        let seen = self.look(name).await?;
        let (Some(seen), Some(leader)) = (seen, self.leader(name)?) else {
            return Ok(());
        };
        let is_running = match seen.phase {
            UnitPhase::AtDoor => false,
            UnitPhase::Running => true,
            UnitPhase::Exited(_) => return Ok(()),
        };
        let (limited, registered) = tokio::join!(
            self.supervisor.limit(guest),
            self.supervisor.register(name, leader.pid)
        );
        limited?;
        if let Err(error) = registered {
            // Nothing of the guest depends on it.
            tracing::warn!(guest = %name, "{}", innkeeper_model::chain(&error));
        }
        if is_running {
            let cgroup = self.supervisor.groups(name).guest;
            host_name::set(name, leader, &cgroup).await?;
        }
        Ok(())
    }

    pub(super) async fn take_seat(&self, seat: &GuestName, guest: &Guest) -> Result<(), UnitError> {
        let name = &guest.name;
        let closure = guest.closure.as_ref().ok_or_else(|| UnitError::NoClosure {
            guest: name.clone(),
        })?;
        let config = &self.guests.config;
        {
            let _seat = self.guests.lock(seat).await;
            let _guest = self.guests.lock(name).await;
            if !config.run_dir(seat).path().is_dir() {
                return Ok(());
            }
            let own = config.run_dir(name);
            let is_taken = own.path().is_symlink() || !own.path().exists();
            if is_taken {
                seats::rename(config, seat, name, closure)?;
                self.guests.waiting.rename(seat, name);
                return self.complete(guest).await;
            }
        }
        // The guest was started without its seat meanwhile.
        self.remove(seat).await
    }
}
