//! Reports the first packet to each guest that rests.
//!
//! A rule deletes the address of a paused guest from a set in the kernel and logs the packet: one message for each guest,
//! whatever it is sent. Messages can be lost, so the set is also compared with the watched guests at an interval: a guest that is
//! missing there has had its packet. That also covers a table that was replaced or removed.
//!
//! For a guest that is asleep, a rule adds the address to another set and logs the packet. That set is read at the same
//! interval: a packet is noticed although its message was lost, or no daemon ran. Without the table, a packet goes unnoticed:
//! it would be too much to wake all guests then, and TCP sends it again.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::log_group::LogGroup;
use super::ruleset::{PAUSED, REACHED};
use super::{elements, traffic};

/// The interval at which the set is compared.
const INTERVAL: Duration = Duration::from_secs(1);

/// The watched guests.
#[derive(Debug)]
pub(super) struct FirstPacketWatch {
    group: u16,
    /// The subscription, from the time at which the former daemon's guests were read.
    log: Mutex<Option<LogGroup>>,
    /// Held during changes of the kernel's set, so that both agree.
    watched: Mutex<BTreeSet<Ipv4Addr>>,
    /// The sleeping guests that were reported, and are still in their set.
    reported: Mutex<BTreeSet<Ipv4Addr>>,
}

impl FirstPacketWatch {
    pub(super) fn new(group: u16) -> Self {
        Self {
            group,
            log: Mutex::default(),
            watched: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    /// Watches a guest of a table.
    pub(super) fn watch(&self, table: &str, guest: Ipv4Addr) -> io::Result<()> {
        let mut watched = self.watched.lock();
        elements::add(table, PAUSED, guest)?;
        watched.insert(guest);
        Ok(())
    }

    /// Subscribes to the messages, which are kept until they are followed. Has no effect the second time.
    pub(super) fn subscribe(&self) {
        let mut log = self.log.lock();
        if log.is_none() {
            *log = LogGroup::bind(self.group)
                .inspect_err(|error| self.warn_of_delay(error))
                .ok();
        }
    }

    /// Watches a guest that the kernel's set has, unless it has received a packet.
    pub(super) fn resume(&self, guest: Ipv4Addr) {
        self.watched.lock().insert(guest);
    }

    /// Stops watching a guest. Has no effect on others.
    pub(super) fn unwatch(&self, table: &str, guest: Ipv4Addr) -> io::Result<()> {
        let mut watched = self.watched.lock();
        match watched.remove(&guest) {
            true => elements::remove(table, &[PAUSED], guest),
            false => Ok(()),
        }
    }

    /// Reports the next packet to a sleeping guest, also if one was reported before. Without the table, nothing was.
    pub(super) fn expect(&self, table: &str, guest: Ipv4Addr) -> io::Result<()> {
        let mut reported = self.reported.lock();
        elements::remove(table, &[REACHED], guest)?;
        reported.remove(&guest);
        Ok(())
    }

    /// Sends the guests that received a packet. They are no longer watched. Ends when they are not received.
    pub(super) async fn follow(&self, table: &str, reached: &UnboundedSender<BTreeSet<Ipv4Addr>>) {
        self.subscribe();
        let mut log = self.log.lock().take();
        let mut timer = tokio::time::interval(INTERVAL);
        loop {
            let guests = tokio::select! {
                logged = next(log.as_ref()) => match logged {
                    Ok(logged) => self.take(table, &logged),
                    Err(error) => {
                        self.warn_of_delay(&error);
                        log = None;
                        continue;
                    }
                },
                _ = timer.tick() => {
                    let compared = &self.missing(table) | &self.reached(table);
                    // Before a guest can be watched again: the message of its last packet would be taken for the next one.
                    let arrived = log.as_ref().map(LogGroup::arrived).unwrap_or_default();
                    &compared | &self.take(table, &arrived)
                }
            };
            if !guests.is_empty() && reached.send(guests).is_err() {
                return;
            }
        }
    }

    fn warn_of_delay(&self, error: &io::Error) {
        let (group, seconds) = (self.group, INTERVAL.as_secs());
        warn!(
            "guests that rest wake up to {seconds} s late: cannot receive the group {group} of the kernel's packet log: {error}. Another program may have it: set `rest.log_group` to a free number."
        );
    }

    fn take(&self, table: &str, logged: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
        let paused: BTreeSet<_> = {
            let mut watched = self.watched.lock();
            let guests = logged.iter().filter(|guest| watched.remove(guest));
            guests.copied().collect()
        };
        match logged.iter().all(|guest| paused.contains(guest)) {
            true => paused,
            false => &paused | &self.reached(table),
        }
    }

    /// Returns the sleeping guests that received a packet and were not reported. Empty if the set cannot be read.
    fn reached(&self, table: &str) -> BTreeSet<Ipv4Addr> {
        let mut reported = self.reported.lock();
        let reached = elements_of(table, REACHED);
        let new = &reached - &reported;
        *reported = reached;
        new
    }

    /// Removes the watched guests that the kernel's set no longer has, and returns them. All of them if it cannot be read.
    fn missing(&self, table: &str) -> BTreeSet<Ipv4Addr> {
        let mut watched = self.watched.lock();
        if watched.is_empty() {
            return BTreeSet::new();
        }
        let left = traffic::addresses(table, PAUSED).unwrap_or_else(|error| {
            warn!("paused guests are woken: packets to them cannot be noticed: {error}");
            BTreeSet::new()
        });
        let missing = watched.difference(&left).copied().collect();
        watched.retain(|guest| left.contains(guest));
        missing
    }
}

/// Returns the guests that a set of the kernel's has. Empty without a table.
pub(super) fn elements_of(table: &str, set: &str) -> BTreeSet<Ipv4Addr> {
    traffic::addresses(table, set).unwrap_or_default()
}

/// Waits for logged packets; for ever without a group.
async fn next(log: Option<&LogGroup>) -> io::Result<Vec<Ipv4Addr>> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}
