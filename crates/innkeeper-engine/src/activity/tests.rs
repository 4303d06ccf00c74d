//! Guests over simulated hours.

use innkeeper_facilities::PacketCount;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);

/// A guest whose counters a test increases.
struct Guest {
    tracker: Tracker,
    name: GuestName,
    now: Duration,
    reading: Reading,
}

impl Guest {
    fn new() -> Self {
        let mut guest = Self {
            tracker: Tracker::new(ActivityConfig::default()),
            name: GuestName::parse("web").expect("a name"),
            now: SECOND,
            reading: Reading {
                cpu_time: Some(SECOND),
                ..Reading::default()
            },
        };
        guest.read();
        guest
    }

    fn read(&mut self) -> Usage {
        let readings = BTreeMap::from([(self.name.clone(), self.reading)]);
        self.tracker.read(self.now, readings);
        self.tracker.usage(&self.name).expect("read")
    }

    /// Lets a time pass in which `each` changes the counters before each reading, and returns the longest time without use.
    fn over(&mut self, time: Duration, mut each: impl FnMut(Duration, &mut Reading)) -> Duration {
        let (start, mut idle) = (self.now, Duration::ZERO);
        while self.now < start + time {
            self.now += INTERVAL;
            each(self.now - start, &mut self.reading);
            let usage = self.read();
            idle = idle.max(self.now - usage.used_at);
        }
        idle
    }
}

fn bytes(count: &mut PacketCount, bytes: u64) {
    count.packets += bytes.div_ceil(1500);
    count.bytes += bytes;
}

fn cpu(reading: &mut Reading, time: Duration) {
    reading.cpu_time = reading.cpu_time.map(|used| used + time);
}

#[test]
fn guest_without_activity_is_idle_since_it_was_found() {
    let mut guest = Guest::new();
    assert_eq!(guest.over(HOUR, |_, _| {}), HOUR);
    let usage = guest.read();
    assert_eq!((usage.used_at, usage.by), (SECOND, Use::Found));
    assert_eq!(usage.cpu_percent, Some(0.0));
}

/// Measurements failed for an hour, in which the guest may have been used.
#[test]
fn time_without_measurements_is_not_idle() {
    let mut guest = Guest::new();
    guest.over(100 * SECOND, |_, _| {});
    let before = guest.read();
    assert_eq!(before.idle(), before.read_at - SECOND);
    guest.now += HOUR;
    assert_eq!(
        guest.tracker.usage(&guest.name).expect("read").idle(),
        before.idle()
    );
    let after = guest.read();
    assert_eq!((after.idle(), after.by), (Duration::ZERO, Use::Found));
}

/// A WebSocket ping of 125 bytes each way every 25 s: the frame, and TCP's and IP's headers of both packets.
#[test]
fn keep_alive_is_no_use() {
    let mut guest = Guest::new();
    let idle = guest.over(HOUR, |time, reading| {
        if time.as_secs() % 25 <= 1 {
            bytes(&mut reading.traffic.to, 125 + 6 + 52 + 52);
            bytes(&mut reading.traffic.from, 125 + 2 + 52 + 52);
            cpu(reading, Duration::from_millis(3));
        }
    });
    assert_eq!(idle, HOUR);
}

/// Timers of a system at rest.
#[test]
fn little_processor_time_is_no_use() {
    let mut guest = Guest::new();
    let idle = guest.over(HOUR, |_, reading| cpu(reading, Duration::from_millis(20)));
    assert_eq!(idle, HOUR);
}

/// The interval of readings during a peek.
const STEP: Duration = Duration::from_millis(250);
const PAUSE_AFTER: Duration = Duration::from_secs(300);

/// The hour of the issue: a ping and its answer every 25 s, and a pause whenever that is allowed.
#[test]
fn keep_alive_leaves_a_guest_paused_for_most_of_an_hour() {
    let mut guest = Guest::new();
    let name = guest.name.clone();
    let (mut is_paused, mut woken_at) = (false, None);
    let (mut paused, mut wakes) = (Duration::ZERO, 0);
    let mut steps = 0;
    while guest.now < PAUSE_AFTER + HOUR {
        guest.now += STEP;
        steps += 1;
        if steps % 100 == 0 {
            bytes(&mut guest.reading.traffic.to, 235);
            if is_paused {
                guest.tracker.begin_peek(&name, guest.now);
                (is_paused, woken_at) = (false, Some(guest.now));
                wakes += 1;
            }
        }
        // The answer comes a little later.
        if steps % 100 == 1 {
            bytes(&mut guest.reading.traffic.from, 231);
            cpu(&mut guest.reading, Duration::from_millis(3));
        }
        guest.read();
        if is_paused {
            paused += STEP;
            continue;
        }
        let ends = match guest.tracker.peeks(guest.now)[..] {
            [] => guest
                .tracker
                .can_pause(&name, guest.now, PAUSE_AFTER)
                .is_some(),
            [(_, peek)] => matches!(peek, Peek::Over(_)),
            _ => panic!("one guest"),
        };
        if ends {
            is_paused = true;
            guest.tracker.end_peek(&name);
            if let Some(woken_at) = woken_at {
                assert!(guest.now - woken_at <= 2 * SECOND);
            }
        }
    }
    assert!(paused >= HOUR * 9 / 10, "{paused:?}");
    assert!(wakes >= 140, "{wakes}");
    // The connection lives on: the guest does not sleep. Without keep-alives, it does.
    let sleep_after = 7 * PAUSE_AFTER;
    assert_eq!(guest.tracker.can_sleep(&name, guest.now, sleep_after), None);
    guest.over(sleep_after, |_, _| {});
    assert!(
        guest
            .tracker
            .can_sleep(&name, guest.now, sleep_after)
            .is_some()
    );
}

#[test]
fn request_to_a_paused_guest_is_use() {
    let mut guest = Guest::new();
    let name = guest.name.clone();
    guest.over(PAUSE_AFTER, |_, _| {});
    guest.reading.traffic.opened += 1;
    guest.tracker.begin_peek(&name, guest.now);
    guest.now += STEP;
    guest.read();
    assert_eq!(guest.tracker.peeks(guest.now), [(name.clone(), Peek::Used)]);
    guest.tracker.end_peek(&name);
    guest.over(PAUSE_AFTER - 2 * INTERVAL, |_, _| {});
    assert_eq!(guest.tracker.can_pause(&name, guest.now, PAUSE_AFTER), None);
    // The periodic reading was first: the use precedes the peek.
    guest.over(PAUSE_AFTER, |_, _| {});
    guest.reading.traffic.opened += 1;
    guest.now += STEP;
    guest.read();
    guest.tracker.begin_peek(&name, guest.now);
    assert_eq!(guest.tracker.peeks(guest.now), [(name, Peek::Used)]);
    // No reading of this one precedes its packet.
    let shop = GuestName::parse("shop").expect("a name");
    let mut tracker = Tracker::new(ActivityConfig::default());
    tracker.begin_peek(&shop, guest.now);
    assert_eq!(tracker.peeks(guest.now), [(shop, Peek::Used)]);
}

/// A request on an open connection whose response takes a while, without processor time.
#[test]
fn guest_is_not_paused_before_it_has_responded() {
    let mut guest = Guest::new();
    let name = guest.name.clone();
    guest.over(PAUSE_AFTER, |_, _| {});
    let until = |guest: &mut Guest, responds_after: Option<Duration>| {
        guest.tracker.begin_peek(&name, guest.now);
        bytes(&mut guest.reading.traffic.to, 300);
        let start = guest.now;
        loop {
            guest.now += STEP;
            if responds_after == Some(guest.now - start) {
                bytes(&mut guest.reading.traffic.from, 300);
            }
            guest.read();
            match guest.tracker.peeks(guest.now)[..] {
                [(_, Peek::Over(_))] => break,
                [(_, Peek::Open)] => {}
                ref peeks => panic!("{peeks:?}"),
            }
        }
        guest.tracker.end_peek(&name);
        guest.now - start
    };
    assert!(until(&mut guest, Some(STEP)) <= 2 * SECOND);
    let slow = 8 * SECOND;
    assert_eq!(until(&mut guest, Some(slow)), slow);
    // No response at all.
    let never = until(&mut guest, None);
    assert!(never >= RESPONSE && never < 2 * RESPONSE);
}

type Change = fn(&mut Reading);

#[test]
fn use_is_seen_within_a_window() {
    let uses: [(&str, Change); 7] = [
        ("download", |reading| {
            bytes(&mut reading.traffic.from, 1_000);
            bytes(&mut reading.traffic.to, 20_000);
        }),
        ("upload", |reading| {
            bytes(&mut reading.traffic.from, 20_000);
        }),
        ("compile", |reading| cpu(reading, INTERVAL)),
        ("slow compile", |reading| {
            cpu(reading, Duration::from_millis(120));
        }),
        ("requests", |reading| reading.traffic.opened += 1),
        ("session", |reading| reading.sessions = 1),
        ("operation", |reading| reading.in_operation = true),
    ];
    for (name, change) in uses {
        let mut guest = Guest::new();
        let idle = guest.over(HOUR, |_, reading| change(reading));
        assert!(idle <= WINDOW, "{name}: idle for {idle:?}");
    }
}

/// A host that counts no processor time must not pause a compile.
#[test]
fn guest_without_readable_processor_time_is_in_use() {
    let mut guest = Guest::new();
    let idle = guest.over(HOUR, |_, reading| reading.cpu_time = None);
    assert_eq!(idle, Duration::ZERO);
    assert_eq!(guest.read().by, Use::UnknownCpu);
}

#[test]
fn one_request_ends_the_idle_time() {
    let mut guest = Guest::new();
    assert_eq!(guest.over(HOUR, |_, _| {}), HOUR);
    guest.reading.traffic.opened += 1;
    guest.now += INTERVAL;
    let usage = guest.read();
    assert_eq!((usage.used_at, usage.by), (guest.now, Use::Connections(1)));
    assert_eq!(guest.over(HOUR, |_, _| {}), HOUR);
}

/// The counters start again when the firewall's table is replaced, and the processor time with the guest.
#[test]
fn counters_that_start_again_are_no_use() {
    let mut guest = Guest::new();
    bytes(&mut guest.reading.traffic.to, 5_000_000);
    cpu(&mut guest.reading, HOUR);
    guest.over(HOUR, |_, _| {});
    guest.reading.traffic = GuestTraffic::default();
    guest.reading.cpu_time = Some(Duration::ZERO);
    let begun = guest.now;
    guest.over(HOUR, |_, _| {});
    assert!(guest.read().used_at < begun);
}

#[test]
fn guest_that_ended_is_found_again() {
    let mut guest = Guest::new();
    guest.over(HOUR, |_, _| {});
    guest.tracker.read(guest.now, BTreeMap::new());
    assert_eq!(guest.tracker.usage(&guest.name), None);
    let usage = guest.read();
    assert_eq!((usage.used_at, usage.by), (guest.now, Use::Found));
}

#[test]
fn rates_are_those_between_the_last_two_readings() {
    let mut guest = Guest::new();
    bytes(&mut guest.reading.traffic.to, 3_000);
    bytes(&mut guest.reading.traffic.from, 500);
    cpu(&mut guest.reading, SECOND);
    guest.now += INTERVAL;
    let usage = guest.read();
    assert_eq!((usage.bytes_to, usage.bytes_from), (1500.0, 250.0));
    assert_eq!(usage.cpu_percent, Some(50.0));
    guest.now += INTERVAL;
    assert_eq!(guest.read().bytes_to, 0.0);
}

proptest! {
    /// Readings at any times: what stays below half of both thresholds is no use, and what exceeds twice one of them is.
    #[test]
    fn thresholds_hold_for_any_interval_of_readings(
        intervals in proptest::collection::vec(100u64..8_000, 50..200),
        is_traffic: bool,
        is_use: bool,
    ) {
        let mut guest = Guest::new();
        let start = guest.now;
        for millis in intervals {
            guest.now += Duration::from_millis(millis);
            let amount = if is_use { 4 } else { 1 };
            if is_traffic {
                bytes(&mut guest.reading.traffic.to, amount * millis / 2);
            } else {
                cpu(&mut guest.reading, Duration::from_micros(25 * amount * millis));
            }
            let usage = guest.read();
            if is_use {
                prop_assert!(guest.now - usage.used_at < WINDOW + 8 * SECOND);
            } else {
                prop_assert_eq!(usage.used_at, start);
            }
        }
    }
}

/// Without readings, no guest becomes idle.
#[test]
fn idle_time_does_not_grow_without_readings() {
    let mut guest = Guest::new();
    guest.over(WINDOW, |_, _| {});
    let usage = guest.tracker.usage(&guest.name).expect("read");
    assert_eq!(usage.idle(), WINDOW);
    assert!(usage.is_known(guest.now + WINDOW));
    let later = guest.tracker.usage(&guest.name).expect("read");
    assert_eq!(later.idle(), WINDOW);
    assert!(!later.is_known(guest.now + WINDOW + SECOND));
}
