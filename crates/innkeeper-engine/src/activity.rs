//! Decides from successive readings whether guests are in use, and by which use. Pure: times come from the caller.
//!
//! A guest is in use while one of these holds, in the order in which they are named:
//!
//! - a session is open: a command that a user runs in it through the API,
//! - an operation on it is in progress,
//! - a connection to it was opened since the last reading,
//! - its traffic in both directions exceeds [`ActivityConfig::bytes_per_second`], on average over a [`WINDOW`],
//! - its processor time exceeds [`ActivityConfig::cpu_percent`], on average over a window.
//!
//! Traffic and processor time below their thresholds are keep-alives and timers: they are no use. A window ends early when
//! the amount for all of it is reached.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use innkeeper_facilities::{GuestTraffic, PacketCount};
use innkeeper_model::{GuestName, Verb};

/// The time over which traffic and processor time are averaged.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The time without a packet to a guest that precedes a pause: time for the response to the last one.
const QUIET: Duration = Duration::from_millis(750);

/// The maximum time that a pause waits for a guest's response to data.
const RESPONSE: Duration = Duration::from_secs(30);

/// The most bytes of a keep-alive, in both directions with IP headers: two pings of 125 bytes each way and their answers. More is
/// a request, whose response may have pauses.
const KEEP_ALIVE: u64 = 1000;

/// A use this short before a peek is that of the packet which caused the peek: it was measured first.
const RECENT: Duration = Duration::from_secs(3);

/// The interval of reports of uses.
const REPORT: Duration = Duration::from_secs(60);

/// The size of a TCP segment without data, in bytes with its headers and the usual options. Longer packets carry data.
const BARE_SEGMENT: u64 = 52;

/// The thresholds of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivityConfig {
    /// Traffic of a guest in both directions together, in bytes per second with IP headers.
    pub bytes_per_second: u64,
    /// Processor time of a guest, in percent of one processor.
    pub cpu_percent: u32,
}

impl Default for ActivityConfig {
    fn default() -> Self {
        Self {
            bytes_per_second: 1000,
            cpu_percent: 5,
        }
    }
}

/// The counters of a running guest at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Its packets.
    pub(crate) traffic: GuestTraffic,
    /// Its processor time. `None` where it cannot be read: the guest then counts as busy, rather than idle during a compile.
    pub(crate) cpu_time: Option<Duration>,
    /// The number of open sessions.
    pub(crate) sessions: usize,
    /// An operation on it is in progress.
    pub(crate) in_operation: bool,
}

/// A use of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It has just been found, or was not measured for a while: uses before that are unknown.
    Found,
    /// Open sessions.
    Sessions(usize),
    /// An operation.
    Operation,
    /// Connections opened to it.
    Connections(u64),
    /// Bytes in both directions, per second.
    Traffic(u64),
    /// Processor time in percent of one processor.
    Cpu(u64),
    /// Its processor time cannot be read.
    UnknownCpu,
    /// Open SSH sessions.
    Ssh(usize),
    /// A user keeps it awake.
    Kept,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found => {
                f.write_str("its start, that of innkeeperd, or a gap in the measurement")
            }
            Self::Sessions(1) => f.write_str("an open session (exec)"),
            Self::Sessions(number) => write!(f, "{number} open sessions (exec)"),
            Self::Operation => f.write_str("an operation in progress"),
            Self::Connections(1) => f.write_str("a new connection to it"),
            Self::Connections(number) => write!(f, "{number} new connections to it"),
            Self::Traffic(bytes @ ..1000) => write!(f, "traffic of {bytes} bytes a second"),
            Self::Traffic(bytes) => write!(f, "traffic of {} kB a second", bytes / 1000),
            Self::Cpu(percent) => write!(f, "processor time: {percent} % of one processor"),
            Self::Ssh(1) => f.write_str("an open SSH session"),
            Self::Ssh(number) => write!(f, "{number} open SSH sessions"),
            Self::Kept => f.write_str("a keepalive"),
            Self::UnknownCpu => f.write_str("processor time that cannot be read on this host"),
        }
    }
}

/// The time between two readings of a guest after which its uses in between are unknown: measurements failed.
const GAP: Duration = Duration::from_secs(30);

/// Reports whether an operation is a use of its guest. A change of the level alone is none, and neither is the daemon's own work.
pub(crate) fn is_use(verb: Verb) -> bool {
    !matches!(verb, Verb::Pause | Verb::Sleep | Verb::Wake | Verb::Restore)
}

/// The use of a guest until its last reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// The time of the last reading.
    pub(crate) read_at: Duration,
    /// The time of the last use.
    pub(crate) used_at: Duration,
    /// The last use.
    pub(crate) by: Use,
    /// Processor time in percent of one processor between the last two readings; `None` before the second.
    pub(crate) cpu_percent: Option<f64>,
    /// Bytes to the guest in each second between the last two readings.
    pub(crate) bytes_to: f64,
    /// Bytes from the guest, likewise.
    pub(crate) bytes_from: f64,
    /// The number of open sessions.
    pub(crate) sessions: usize,
}

impl Usage {
    /// Returns the time without use until the last reading. It does not grow while readings fail.
    pub(crate) fn idle(&self) -> Duration {
        self.read_at.saturating_sub(self.used_at)
    }

    /// Reports whether the last reading is recent enough to decide by it.
    pub(crate) fn is_known(&self, now: Duration) -> bool {
        now.saturating_sub(self.read_at) <= WINDOW
    }
}

/// The amounts in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    time: Duration,
    bytes: u64,
    cpu_time: Duration,
}

#[derive(Debug)]
struct Tracked {
    read_at: Duration,
    last: Reading,
    window: Spent,
    usage: Usage,
    /// The first reading since which no packet arrived.
    quiet_since: Duration,
    /// The guest has received data and has sent none since.
    owes_response: bool,
    /// The time of the last use that shows somebody: not that it was found, nor that its processor time is unknown.
    known_use_at: Option<Duration>,
    /// The time of the last packet that reached it while it was paused.
    reached_at: Option<Duration>,
    /// The time of the last pause, before which uses were read.
    paused_at: Option<Duration>,
}

/// The progress of a peek: a paused guest's processes run because of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    /// The packet may be a use, or its response is in progress.
    Open,
    /// The guest is in use: it is to be awake.
    Used,
    /// The packet was a keep-alive, and has its response. The guest had received this number of packets.
    Over(u64),
}

/// The events of a peek so far.
#[derive(Clone, Copy, Debug, Default)]
struct OpenPeek {
    /// The guest was in use.
    used: bool,
    /// The bytes in both directions.
    bytes: u64,
}

/// The uses of all guests.
#[derive(Debug)]
pub(crate) struct Tracker {
    config: ActivityConfig,
    guests: BTreeMap<GuestName, Tracked>,
    /// Paused guests whose processes run because of a packet.
    peeks: BTreeMap<GuestName, OpenPeek>,
    /// The time of the last report of uses.
    reported_at: Duration,
}

impl Tracker {
    pub(crate) fn new(config: ActivityConfig) -> Self {
        Self {
            config,
            guests: BTreeMap::new(),
            peeks: BTreeMap::new(),
            reported_at: Duration::ZERO,
        }
    }

    /// Adds readings of all running guests at a time that never decreases. Forgets all others.
    pub(crate) fn read(&mut self, now: Duration, readings: BTreeMap<GuestName, Reading>) {
        self.guests.retain(|guest, _| readings.contains_key(guest));
        self.peeks.retain(|guest, _| readings.contains_key(guest));
        self.read_some(now, readings);
    }

    /// Adds readings of some running guests. The others keep theirs.
    pub(crate) fn read_some(&mut self, now: Duration, readings: BTreeMap<GuestName, Reading>) {
        for (guest, reading) in readings {
            let Some(tracked) = self.guests.get_mut(&guest) else {
                self.guests.insert(guest, Tracked::found(now, reading));
                continue;
            };
            let last = tracked.last.traffic;
            let found = tracked.read(self.config, now, reading);
            if let Some(peek) = self.peeks.get_mut(&guest) {
                let (to, from) = (reading.traffic.to.bytes, reading.traffic.from.bytes);
                let bytes = since(last.to.bytes, to).saturating_add(since(last.from.bytes, from));
                peek.bytes = peek.bytes.saturating_add(bytes);
                // An operation on a paused guest, such as a snapshot, does not wake it.
                peek.used |= found.is_some_and(|by| by != Use::Operation);
                peek.used |= peek.bytes > KEEP_ALIVE;
            }
        }
    }

    /// Notes that the processes of a paused guest run because of a packet.
    pub(crate) fn begin_peek(&mut self, guest: &GuestName, now: Duration) {
        // Without a reading from before the packet, a use cannot be distinguished.
        let mut used = true;
        if let Some(tracked) = self.guests.get_mut(guest) {
            tracked.quiet_since = now;
            tracked.reached_at = Some(now);
            let (found, used_at) = (tracked.usage.by == Use::Found, tracked.usage.used_at);
            let is_before = tracked.paused_at.is_some_and(|at| used_at <= at);
            used = !found && !is_before && now.saturating_sub(used_at) < RECENT;
        }
        let bytes = 0;
        self.peeks.insert(guest.clone(), OpenPeek { used, bytes });
    }

    /// Notes that a guest is paused now, and its uses were read until now: later packets are no part of them.
    pub(crate) fn paused(&mut self, guest: &GuestName, now: Duration) {
        if let Some(tracked) = self.guests.get_mut(guest) {
            tracked.paused_at = Some(now);
        }
    }

    /// Notes that a guest is awake, or paused again. Has no effect without a peek.
    pub(crate) fn end_peek(&mut self, guest: &GuestName) {
        self.peeks.remove(guest);
    }

    /// Reports whether a guest's processes run because of a packet.
    pub(crate) fn is_peeking(&self, guest: &GuestName) -> bool {
        self.peeks.contains_key(guest)
    }

    /// Returns the guests whose processes run because of a packet.
    pub(crate) fn peeking(&self) -> Vec<GuestName> {
        self.peeks.keys().cloned().collect()
    }

    /// Returns all peeks by the last readings.
    pub(crate) fn peeks(&self, now: Duration) -> Vec<(GuestName, Peek)> {
        let peek = |guest: &GuestName, open: &OpenPeek| match self.guests.get(guest) {
            _ if open.used => Peek::Used,
            Some(tracked) if tracked.can_pause(self.config, now) => {
                Peek::Over(tracked.last.traffic.to.packets)
            }
            _ => Peek::Open,
        };
        (self.peeks.iter())
            .map(|(guest, open)| (guest.clone(), peek(guest, open)))
            .collect()
    }

    /// Notes a use that readings do not show.
    pub(crate) fn used(&mut self, guest: &GuestName, now: Duration, by: Use) {
        if let Some(tracked) = self.guests.get_mut(guest) {
            (tracked.usage.used_at, tracked.usage.by) = (now, by);
        }
    }

    /// Returns the number of packets to a guest that has been idle for `after` and may be put to sleep; `None` for others. A
    /// packet that reaches a paused guest keeps it from sleep for as long, so that connections with keep-alives live on.
    pub(crate) fn can_sleep(
        &self,
        guest: &GuestName,
        now: Duration,
        after: Duration,
    ) -> Option<u64> {
        let is_unreached = self.unreached(guest, now)? >= after;
        let may = is_unreached && !self.is_peeking(guest);
        self.can_pause(guest, now, after).filter(|_| may)
    }

    /// Returns the time since a packet reached a guest that was paused, or the maximum; `None` before its first reading.
    pub(crate) fn unreached(&self, guest: &GuestName, now: Duration) -> Option<Duration> {
        let reached_at = self.guests.get(guest)?.reached_at;
        Some(reached_at.map_or(Duration::MAX, |at| now.saturating_sub(at)))
    }

    /// Starts the idle time of a guest again, which could not be paused.
    pub(crate) fn postpone(&mut self, guest: &GuestName, now: Duration) {
        if let Some(tracked) = self.guests.get_mut(guest) {
            tracked.usage.used_at = now;
        }
    }

    /// Reports whether a guest has received no packets since its last reading, and has responded to those before.
    pub(crate) fn is_settled(&self, guest: &GuestName, packets: u64) -> bool {
        let tracked = self.guests.get(guest);
        tracked.is_some_and(|tracked| {
            tracked.last.traffic.to.packets == packets && !tracked.owes_response
        })
    }

    /// Returns the number of packets to a guest that has been idle for `after` and may be paused; `None` for others.
    pub(crate) fn can_pause(
        &self,
        guest: &GuestName,
        now: Duration,
        after: Duration,
    ) -> Option<u64> {
        let tracked = self.guests.get(guest)?;
        let is_idle = now.saturating_sub(tracked.usage.used_at) >= after;
        (is_idle && tracked.can_pause(self.config, now)).then_some(tracked.last.traffic.to.packets)
    }

    /// Returns the guests that were in use since the last call, once in [`REPORT`]. The start of the daemon is no use.
    pub(crate) fn used_since_report(&mut self, now: Duration) -> Vec<GuestName> {
        if now.saturating_sub(self.reported_at) < REPORT {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.reported_at, now);
        let is_used = |tracked: &Tracked| tracked.known_use_at.is_some_and(|at| at >= since);
        (self.guests.iter())
            .filter(|(_, tracked)| is_used(tracked))
            .map(|(guest, _)| guest.clone())
            .collect()
    }

    /// Returns the use of a guest; `None` before its first reading.
    pub(crate) fn usage(&self, guest: &GuestName) -> Option<Usage> {
        Some(self.guests.get(guest)?.usage)
    }
}

impl Tracked {
    fn found(now: Duration, reading: Reading) -> Self {
        Self {
            read_at: now,
            last: reading,
            window: Spent::default(),
            quiet_since: now,
            owes_response: false,
            known_use_at: None,
            reached_at: None,
            paused_at: None,
            usage: Usage {
                read_at: now,
                used_at: now,
                by: Use::Found,
                cpu_percent: None,
                bytes_to: 0.0,
                bytes_from: 0.0,
                sessions: reading.sessions,
            },
        }
    }

    /// Adds a reading. Returns the use since the last one.
    fn read(&mut self, config: ActivityConfig, now: Duration, reading: Reading) -> Option<Use> {
        let time = now.saturating_sub(self.read_at);
        if time.is_zero() {
            return None;
        }
        let (last, seconds) = (self.last, time.as_secs_f64());
        let to = since(last.traffic.to.bytes, reading.traffic.to.bytes);
        let from = since(last.traffic.from.bytes, reading.traffic.from.bytes);
        let opened = since(last.traffic.opened, reading.traffic.opened);
        let cpu_time = reading.cpu_time.map(|now| {
            let last = last.cpu_time.unwrap_or(now);
            // It starts again with the guest.
            now.checked_sub(last).unwrap_or(now)
        });
        self.window.time += time;
        self.window.bytes = self.window.bytes.saturating_add(to.saturating_add(from));
        self.window.cpu_time += cpu_time.unwrap_or_default();
        let found = if time > GAP {
            Some(Use::Found)
        } else if reading.sessions > 0 {
            Some(Use::Sessions(reading.sessions))
        } else if reading.in_operation {
            Some(Use::Operation)
        } else if opened > 0 {
            Some(Use::Connections(opened))
        } else if cpu_time.is_none() {
            Some(Use::UnknownCpu)
        } else {
            self.window.exceeds(config)
        };
        if let Some(by) = found {
            (self.usage.used_at, self.usage.by) = (now, by);
            if by != Use::UnknownCpu {
                self.known_use_at = Some(now);
            }
        }
        if reading.traffic.to.packets != last.traffic.to.packets {
            self.quiet_since = now;
        }
        if has_data(last.traffic.from, reading.traffic.from) {
            self.owes_response = false;
        } else if has_data(last.traffic.to, reading.traffic.to) {
            self.owes_response = true;
        }
        if self.window.time >= WINDOW || found.is_some() {
            self.window = Spent::default();
        }
        self.usage.cpu_percent = cpu_time.map(|used| 100.0 * used.as_secs_f64() / seconds);
        self.usage.bytes_to = rate(to, seconds);
        self.usage.bytes_from = rate(from, seconds);
        self.usage.sessions = reading.sessions;
        self.usage.read_at = now;
        (self.read_at, self.last) = (now, reading);
        found
    }

    /// Reports whether a pause interrupts no response.
    fn can_pause(&self, config: ActivityConfig, now: Duration) -> bool {
        let quiet = now.saturating_sub(self.quiet_since);
        let percent = self.usage.cpu_percent;
        let is_busy = percent.is_none_or(|percent| percent >= f64::from(config.cpu_percent));
        quiet >= QUIET && !is_busy && (!self.owes_response || quiet >= RESPONSE)
    }
}

impl Spent {
    /// Returns the use that exceeds its threshold for a whole window, or for the time so far if that is longer.
    fn exceeds(&self, config: ActivityConfig) -> Option<Use> {
        let time = self.time.max(WINDOW);
        let seconds = time.as_secs_f64();
        let bytes = rate(self.bytes, seconds);
        if bytes >= rate(config.bytes_per_second, 1.0) {
            return Some(Use::Traffic(whole(bytes)));
        }
        let percent = 100.0 * self.cpu_time.as_secs_f64() / seconds;
        (percent >= f64::from(config.cpu_percent)).then(|| Use::Cpu(whole(percent)))
    }
}

/// Reports whether packets since the last reading carried data.
fn has_data(last: PacketCount, now: PacketCount) -> bool {
    let bare = BARE_SEGMENT.saturating_mul(since(last.packets, now.packets));
    since(last.bytes, now.bytes) > bare
}

/// Returns the increase of a counter, which may have started again.
fn since(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

/// Returns an amount per second. The amounts of a few seconds are far below 2^53.
fn rate(amount: u64, seconds: f64) -> f64 {
    amount as f64 / seconds
}

/// Rounds a number that is not negative. Greater numbers than the maximum become that.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests;
