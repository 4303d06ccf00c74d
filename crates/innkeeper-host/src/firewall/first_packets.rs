//! Reports the first packet to each guest that is paused.
//!
//! A rule deletes the guest's address from a set in the kernel and logs the packet: one message for each guest, whatever
//! it is sent. Messages can be lost, so the set is also compared with the watched guests at an interval: a guest that is
//! missing there has had its packet. That also covers a table that was replaced or removed.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::log_group::LogGroup;
use super::ruleset::PAUSED;
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
}

impl FirstPacketWatch {
    pub(super) fn new(group: u16) -> Self {
        Self {
            group,
            log: Mutex::default(),
            watched: Mutex::default(),
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

    /// Returns the guests that the kernel's set has. Empty without a table.
    pub(super) fn left(table: &str) -> BTreeSet<Ipv4Addr> {
        traffic::addresses(table, PAUSED).unwrap_or_default()
    }

    /// Stops watching a guest. Has no effect on others.
    pub(super) fn unwatch(&self, table: &str, guest: Ipv4Addr) -> io::Result<()> {
        let mut watched = self.watched.lock();
        match watched.remove(&guest) {
            true => elements::remove(table, &[PAUSED], guest),
            false => Ok(()),
        }
    }

    /// Sends the watched guests that received a packet. They are no longer watched. Ends when they are not received.
    pub(super) async fn follow(&self, table: &str, reached: &UnboundedSender<BTreeSet<Ipv4Addr>>) {
        self.subscribe();
        let mut log = self.log.lock().take();
        let mut timer = tokio::time::interval(INTERVAL);
        loop {
            let guests = tokio::select! {
                logged = next(log.as_ref()) => match logged {
                    Ok(logged) => self.take(&logged),
                    Err(error) => {
                        self.warn_of_delay(&error);
                        log = None;
                        continue;
                    }
                },
                _ = timer.tick() => self.missing(table),
            };
            if !guests.is_empty() && reached.send(guests).is_err() {
                return;
            }
        }
    }

    fn warn_of_delay(&self, error: &io::Error) {
        let (group, seconds) = (self.group, INTERVAL.as_secs());
        warn!(
            "paused guests wake up to {seconds} s late: cannot receive the group {group} of the kernel's packet log: {error}. Another program may have it: set `rest.log_group` to a free number."
        );
    }

    fn take(&self, logged: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
        let mut watched = self.watched.lock();
        let guests = logged.iter().filter(|guest| watched.remove(guest));
        guests.copied().collect()
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

/// Waits for logged packets; for ever without a group.
async fn next(log: Option<&LogGroup>) -> io::Result<Vec<Ipv4Addr>> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}
