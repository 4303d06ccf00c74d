//! Processes in memory.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::{Code, Guest, GuestKind, GuestName, Limits, StorePath, UnitPhase};
use tokio::sync::broadcast;

use super::error::injected;
use super::part::Part;
use crate::error::FacilityError;
use crate::units::{Console, ExecCommand, ExecSession, Prepared, UnitSeen, Units};

/// The memory of guests, in bytes, unless a test sets another one.
const GUEST_MEMORY: u64 = 64 << 20;

/// A command that has ended, with its exit status.
#[derive(Debug)]
struct EndedCommand(i32);

#[async_trait]
impl ExecCommand for EndedCommand {
    fn resize(&self, _rows: u16, _cols: u16) {}

    async fn wait(&self) -> io::Result<i32> {
        Ok(self.0)
    }

    fn oom_kills(&self) -> (u64, u64) {
        (0, 0)
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
            leader: phase.is_alive().then_some(world.starts),
            frozen: world.frozen.contains(guest) && !world.freezing.contains(guest),
            freezing: world.freezing.contains(guest),
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
        let mut world = self.host.world();
        world.starts += 1;
        world.units.insert(guest.name.clone(), UnitPhase::AtDoor);
        Ok(UnitSeen {
            guest: guest.name.clone(),
            phase: UnitPhase::AtDoor,
            leader: Some(world.starts),
            frozen: false,
            freezing: false,
        })
    }

    fn fits_seat(&self, _: GuestKind, closure: &StorePath, limits: &Limits) -> bool {
        !limits.nesting && !self.host.world().with_nix.contains(closure)
    }

    async fn take_seat(&self, seat: &GuestName, guest: &Guest) -> Result<(), FacilityError> {
        self.call("unit.take_seat", Some(&guest.name))?;
        let mut world = self.host.world();
        if let Some(phase) = world.units.remove(seat) {
            let name = guest.name.clone();
            if world.frozen.remove(seat) {
                world.frozen.insert(name.clone());
            }
            if phase == UnitPhase::Running {
                world.host_names.insert(name.clone());
            }
            world.units.entry(name).or_insert(phase);
        }
        Ok(())
    }

    async fn release(
        &self,
        guest: &GuestName,
        own: Option<&StorePath>,
    ) -> Result<(), FacilityError> {
        self.call("unit.release", Some(guest))?;
        let mut world = self.host.world();
        let is_broken = own.is_some_and(|own| world.broken_systems.contains(own));
        let phase = match is_broken {
            true => UnitPhase::Exited(1),
            false => UnitPhase::Running,
        };
        if let Some(next) = own.and_then(|own| world.profile_writers.get(own).cloned()) {
            world.profiles.insert(guest.clone(), next);
        }
        world.booted.push(own.cloned());
        world.units.insert(guest.clone(), phase);
        Ok(())
    }

    async fn stop(&self, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("unit.stop", Some(guest))?;
        self.host.end_quietly(guest, 0);
        Ok(())
    }

    async fn freeze(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        self.call("unit.freeze", Some(guest))?;
        let mut world = self.host.world();
        if world.without_freezer {
            return Ok(false);
        }
        world.frozen.insert(guest.clone());
        world.freezing.remove(guest);
        Ok(true)
    }

    async fn thaw(&self, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("unit.thaw", Some(guest))?;
        let mut world = self.host.world();
        world.frozen.remove(guest);
        world.freezing.remove(guest);
        Ok(())
    }

    async fn host_is_stopping(&self) -> bool {
        let mut world = self.host.world();
        world.host_state_queries += 1;
        world.host_is_stopping
    }

    async fn reclaim(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError> {
        self.call("unit.reclaim", Some(guest))?;
        let mut world = self.host.world();
        let can_swap = world.memory.is_some_and(|memory| memory.swap_free > 0);
        if !can_swap || !world.frozen.contains(guest) {
            return Ok(None);
        }
        let used = world.guest_memory.insert(guest.clone(), 0);
        Ok(Some(used.unwrap_or(GUEST_MEMORY)))
    }

    fn endings(&self) -> broadcast::Receiver<GuestName> {
        self.host.endings.subscribe()
    }

    fn oom_kills(&self, _: &GuestName) -> u64 {
        0
    }

    fn memory(&self, guest: &GuestName) -> Option<u64> {
        let world = self.host.world();
        let used = world
            .guest_memory
            .get(guest)
            .copied()
            .unwrap_or(GUEST_MEMORY);
        world.units.contains_key(guest).then_some(used)
    }

    fn cpu_time(&self, guest: &GuestName) -> Option<Duration> {
        self.host.world().cpu_time.get(guest).copied()
    }

    async fn console(&self, guest: &Guest, _: usize, _: bool) -> Result<Console, FacilityError> {
        let console = self.host.world().consoles.get(&guest.name).cloned();
        let console = console.ok_or_else(|| injected("unit.console", Code::Internal))?;
        let chunk = Ok(console.into_bytes());
        Ok(Box::pin(futures_util::stream::iter([chunk])))
    }

    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, FacilityError> {
        self.query("unit.exec")?;
        let handler = self.host.world().exec.clone();
        let handler = handler.ok_or_else(|| injected("unit.exec", Code::Internal))?;
        let result = handler(guest, request);
        Ok(ExecSession {
            stdin: Some(Box::pin(tokio::io::sink())),
            stdout: Box::pin(io::Cursor::new(result.stdout.into_bytes())),
            stderr: Some(Box::pin(io::Cursor::new(result.stderr.into_bytes()))),
            command: Box::new(EndedCommand(result.status)),
        })
    }
}
