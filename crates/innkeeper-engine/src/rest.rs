//! Lets guests rest: freezes and continues their processes, and continues paused guests at their first packet.
//!
//! A packet to a paused guest that should be paused again soon opens a *peek*: its processes run, and its record stays paused.
//! So keep-alives write nothing to the store. A use ends the peek with a wake; otherwise the guest is frozen again once it has
//! responded ([`Tracker::peeks`](crate::activity::Tracker::peeks)).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use innkeeper_model::{Explain, Guest, GuestName, Level, Operation, UnitPhase, chain};
use innkeeper_store::StoreError;
use tokio::sync::mpsc;
use tracing::warn;

use crate::EngineError;
use crate::activity::{Peek, Reading};
use crate::engine::Engine;
use crate::idle::ACTOR;
use crate::inner::Inner;

/// The longest delay before a wake by a packet is retried.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The time without a packet that precedes every pause, and the longest wait for it.
const CALM: Duration = Duration::from_millis(250);
const CALM_LIMIT: Duration = Duration::from_secs(5);

/// The interval of readings of a guest with a peek.
const PEEK_INTERVAL: Duration = Duration::from_millis(250);

impl Inner {
    /// Suspends a guest's processes. Packets are watched before that: one that arrives while the processes stop wakes them.
    ///
    /// # Errors
    /// When packets cannot be watched, or the processes not suspended, and when a session was opened since the daemon
    /// decided to pause the guest. The guest runs then.
    pub(crate) async fn freeze(&self, guest: &Guest) -> Result<(), EngineError> {
        self.refuse_in_session(&guest.name)?;
        self.await_calm(guest).await;
        self.suspend(guest).await
    }

    /// Suspends the processes of a guest that is to be paused. Its uses until then are read first, so that those of later packets
    /// are distinguished from them.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub(crate) async fn pause(&self, guest: &Guest) -> Result<(), EngineError> {
        self.refuse_in_session(&guest.name)?;
        self.await_calm(guest).await;
        self.note_pause(guest).await;
        self.suspend(guest).await
    }

    async fn suspend(&self, guest: &Guest) -> Result<(), EngineError> {
        self.watch_packets(guest).await?;
        match self.host.units.freeze(&guest.name).await {
            Ok(true) => {
                self.uses.lock().end_peek(&guest.name);
                Ok(())
            }
            result => {
                self.unwatch_packets(guest).await?;
                result?;
                self.no_freezer.store(true, Ordering::Relaxed);
                Err(EngineError::NoFreezer(guest.name.clone()))
            }
        }
    }

    /// Waits until a guest that received packets a moment ago has responded: none reports these any more. At most a few
    /// seconds.
    async fn await_calm(&self, guest: &Guest) {
        let Some(address) = self.address(guest) else {
            return;
        };
        let count = async || {
            let traffic = self.host.traffic.traffic().await.ok()?;
            let counted = traffic.get(&address).copied().unwrap_or_default();
            Some(counted.to.packets)
        };
        let Some(mut last) = count().await else {
            return;
        };
        if self.uses.lock().is_settled(&guest.name, last) {
            return;
        }
        let limit = Instant::now() + CALM_LIMIT;
        while Instant::now() < limit {
            tokio::time::sleep(CALM).await;
            match count().await {
                Some(now) if now != last => last = now,
                _ => return,
            }
        }
    }

    /// Continues a guest's processes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn thaw(&self, guest: &Guest) -> Result<(), EngineError> {
        self.host.units.thaw(&guest.name).await?;
        self.unwatch_packets(guest).await
    }

    async fn watch_packets(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(address) = self.address(guest) {
            self.watched.lock().insert(address, guest.name.clone());
            self.host.packets.watch(address).await?;
        }
        Ok(())
    }

    /// Stops watching for packets to a guest, and ends its peek. Has no effect on a guest that is not paused.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn unwatch_packets(&self, guest: &Guest) -> Result<(), EngineError> {
        self.uses.lock().end_peek(&guest.name);
        if let Some(address) = self.address(guest) {
            // Its address is parked.
            if guest.rests() != Some(Level::Asleep) {
                self.watched.lock().remove(&address);
            }
            self.host.packets.unwatch(address).await?;
        }
        Ok(())
    }

    /// Reports whether a paused guest's processes run because of a packet.
    pub(crate) fn is_peeking(&self, guest: &Guest) -> bool {
        guest.rests() == Some(Level::Paused) && self.uses.lock().is_peeking(&guest.name)
    }

    async fn note_pause(&self, guest: &Guest) {
        match self.read_uses(std::slice::from_ref(&guest.name)).await {
            Ok(()) => {
                let now = self.started.elapsed();
                self.uses.lock().paused(&guest.name, now);
            }
            Err(error) => {
                warn!(guest = %guest.name, code = %error.code(), "its use is unknown: {}", chain(&error));
            }
        }
    }

    /// Reads the counters of some guests.
    async fn read_uses(&self, names: &[GuestName]) -> Result<(), EngineError> {
        let _measuring = self.measuring.lock().await;
        let traffic = self.host.traffic.traffic().await?;
        let mut readings = BTreeMap::new();
        for name in names {
            let Some(guest) = self.store.guest(name).await? else {
                self.uses.lock().end_peek(name);
                continue;
            };
            let counted = self
                .address(&guest)
                .and_then(|address| traffic.get(&address));
            let reading = Reading {
                traffic: counted.copied().unwrap_or_default(),
                cpu_time: self.host.units.cpu_time(name),
                sessions: self.sessions.count(name),
                in_operation: false,
            };
            readings.insert(guest.name, reading);
        }
        let now = self.started.elapsed();
        self.uses.lock().read_some(now, readings);
        Ok(())
    }

    pub(crate) fn address(&self, guest: &Guest) -> Option<Ipv4Addr> {
        Some(self.config.range.addresses(guest.slot)?.guest)
    }
}

impl Engine {
    /// Continues paused guests at their first packet, until the engine stops.
    pub async fn follow_packets(&self) {
        let (sender, mut reached) = mpsc::unbounded_channel();
        let follow = self.inner.host.packets.follow(sender);
        let wake = async {
            while let Some(guests) = reached.recv().await {
                self.spawn_wakes(&guests);
            }
        };
        tokio::select! {
            () = self.inner.stopping.cancelled() => {}
            ((), (), ()) = async { tokio::join!(follow, wake, self.measure_peeks()) } => {}
        }
    }

    /// Reads the counters of guests with a peek at short intervals, and ends their peeks.
    async fn measure_peeks(&self) {
        loop {
            let names = self.inner.uses.lock().peeking();
            if names.is_empty() {
                self.inner.peeked.notified().await;
                continue;
            }
            tokio::time::sleep(PEEK_INTERVAL).await;
            match self.inner.read_uses(&names).await {
                Ok(()) => self.follow_peeks().await,
                Err(error) => {
                    warn!(code = %error.code(), "the use of guests is unknown: {}", chain(&error));
                }
            }
        }
    }

    fn spawn_wakes(&self, reached: &BTreeSet<Ipv4Addr>) {
        for address in reached.iter().copied() {
            let engine = self.clone();
            self.spawn(async move { engine.wake_reached(address).await });
        }
    }

    /// Wakes the guest at an address that received a packet.
    async fn wake_reached(&self, address: Ipv4Addr) {
        let name = self.inner.watched.lock().get(&address).cloned();
        let guest = match &name {
            Some(name) => self.guest(name).await.ok(),
            None => None,
        };
        match guest {
            Some(guest) if guest.rests() == Some(Level::Asleep) => {
                self.wake_sleeper(&guest).await;
            }
            Some(guest) => self.wake_by_packet_or_retry(&guest.name).await,
            None => {}
        }
        // Also if it was not asleep any more: a wake in progress may fail. The next daemon finds what this one leaves.
        if !self.inner.stopping.is_cancelled() {
            self.expect_packet(address).await;
        }
    }

    /// Continues a paused guest that received a packet. Its next packet is not reported before it continues, so a failure is
    /// retried until then.
    async fn wake_by_packet_or_retry(&self, name: &GuestName) {
        let mut delay = PEEK_INTERVAL;
        while let Err(error) = self.wake_by_packet(name).await {
            if matches!(error, EngineError::GuestNotFound(_)) {
                return;
            }
            warn!(guest = %name, code = %error.code(), "a packet did not wake it: {}", chain(&error));
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (2 * delay).min(LONGEST_RETRY);
        }
    }

    /// Continues a paused guest that received a packet: at once, because the sender waits. A guest that is paused when it is
    /// idle gets a peek; the wake of another one is recorded.
    pub(crate) async fn wake_by_packet(&self, name: &GuestName) -> Result<(), EngineError> {
        {
            // A pause in progress ends first.
            let _guest = self.inner.guest_locks.lock(name).await;
            let unit = self.inner.host.units.phase(name).await?;
            let guest = self.guest(name).await?;
            // One without processes falls asleep, as after a reboot of the host.
            let has_processes = unit.is_some_and(|unit| unit.phase == UnitPhase::Running);
            if guest.rests() != Some(Level::Paused) || !has_processes {
                return Ok(());
            }
            self.inner.host.units.thaw(name).await?;
            if self.pauses_when_idle(&guest) {
                let now = self.inner.started.elapsed();
                self.inner.uses.lock().begin_peek(name, now);
                self.inner.peeked.notify_one();
                return Ok(());
            }
        }
        match self.wake(name, ACTOR).await {
            // Such as a snapshot, which leaves the guest as it is.
            Err(EngineError::Store(StoreError::GuestBusy { .. })) => {
                self.awaken(name, ACTOR).await.map(drop)
            }
            woken => woken.map(drop),
        }
    }

    /// Ends peeks by the last readings: with a wake if the guest is in use, with a pause if it has responded.
    pub(crate) async fn follow_peeks(&self) {
        let now = self.inner.started.elapsed();
        let peeks = self.inner.uses.lock().peeks(now);
        let followed = peeks.into_iter().map(|(name, peek)| async move {
            let followed = match peek {
                Peek::Open => Ok(()),
                Peek::Used => self.end_peek_awake(&name).await,
                Peek::Over(packets) => self.pause_again(&name, packets).await,
            };
            if let Err(error) = followed {
                warn!(guest = %name, code = %error.code(), "after a packet: {}", chain(&error));
            }
        });
        join_all(followed).await;
    }

    /// Records that a guest with a peek is awake. It is not waited for: a user may pause the guest again meanwhile.
    async fn end_peek_awake(&self, name: &GuestName) -> Result<(), EngineError> {
        let woken = self.wake(name, ACTOR).await;
        if let Err(EngineError::Store(StoreError::GuestBusy { .. })) = woken {
            // The next reading tries again.
            return Ok(());
        }
        self.inner.uses.lock().end_peek(name);
        woken.map(drop)
    }

    /// Freezes a guest again that had received `packets` by its last reading. A guest that has received more by the time it is
    /// frozen runs on: a process may have stopped in the middle of a response.
    async fn pause_again(&self, name: &GuestName, packets: u64) -> Result<(), EngineError> {
        // During an operation, the next reading decides.
        let Some(locked) = self.inner.guest_locks.try_lock(name) else {
            return Ok(());
        };
        let guest = self.guest(name).await?;
        let unit = self.inner.host.units.phase(name).await?;
        let runs = unit.is_some_and(|unit| unit.phase == UnitPhase::Running);
        if guest.rests() != Some(Level::Paused) || !runs {
            self.inner.uses.lock().end_peek(name);
            return Ok(());
        }
        // A user waits for a command in it, which may be silent.
        if self.ssh_sessions(&guest).await? > 0 {
            drop(locked);
            return self.end_peek_awake(name).await;
        }
        let frozen = self.inner.freeze(&guest).await;
        drop(locked);
        if let Err(error) = frozen {
            self.end_peek_awake(name).await?;
            return Err(error);
        }
        self.continue_if_reached(&guest, packets).await
    }

    /// Continues a guest that was frozen if it had received more than `packets` by then.
    pub(crate) async fn continue_if_reached(
        &self,
        guest: &Guest,
        packets: u64,
    ) -> Result<(), EngineError> {
        let address = self.inner.address(guest);
        let traffic = self.inner.host.traffic.traffic().await;
        // Rather a wake too many than a request that waits.
        let counted = traffic.map(|traffic| {
            let counted = address.and_then(|address| traffic.get(&address).copied());
            counted.unwrap_or_default().to.packets
        });
        match counted {
            Ok(counted) if counted == packets => Ok(()),
            _ => self.wake_by_packet(&guest.name).await,
        }
    }

    /// Watches the paused guests again after a start of the daemon. `unreached` are those that the former daemon watched
    /// and that received no packet since. Wakes all other paused guests, except those whose `unfinished` pause had not frozen
    /// them yet.
    pub(crate) async fn resume_packets(
        &self,
        guests: &[Guest],
        unreached: &BTreeSet<Ipv4Addr>,
        unfinished: &HashMap<GuestName, Operation>,
    ) {
        let is_paused = |guest: &&Guest| guest.rests() == Some(Level::Paused);
        let mut others = unreached.clone();
        for guest in guests.iter().filter(is_paused) {
            let Some(address) = self.inner.address(guest) else {
                continue;
            };
            let unit = self.inner.host.units.phase(&guest.name).await;
            let is_frozen = matches!(unit, Ok(Some(unit)) if unit.frozen);
            if unfinished.contains_key(&guest.name) && !is_frozen {
                continue;
            }
            self.inner
                .watched
                .lock()
                .insert(address, guest.name.clone());
            match others.remove(&address) {
                true => self.inner.host.packets.resume(address).await,
                false => self.spawn_wakes(&BTreeSet::from([address])),
            }
        }
        self.unwatch_others(&others).await;
    }

    /// Stops watching addresses that an earlier daemon watched, whose guests are not paused any more: it ended in the middle
    /// of a wake, a sleep or a removal.
    async fn unwatch_others(&self, addresses: &BTreeSet<Ipv4Addr>) {
        let packets = &self.inner.host.packets;
        for address in addresses {
            packets.resume(*address).await;
            if let Err(error) = packets.unwatch(*address).await {
                warn!(%address, code = %error.code(), "still watched for packets: {}", chain(&error));
            }
        }
    }
}
