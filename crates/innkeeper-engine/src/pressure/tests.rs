use super::*;

const GIB: u64 = 1 << 30;

/// A host of 100 GiB.
fn reading(available_gib: u64) -> MemoryReading {
    MemoryReading {
        total: 100 * GIB,
        available: available_gib * GIB,
        swap_total: 0,
        swap_free: 0,
        stalled_percent: None,
    }
}

fn name(text: &str) -> GuestName {
    GuestName::parse(text).expect("valid")
}

/// A guest that runs, has been idle for some minutes and has some GiB.
fn resident(text: &str, idle: u64, gib: u64) -> Resident {
    Resident {
        name: name(text),
        is_paused: false,
        idle: Duration::from_secs(60 * idle),
        memory: Some(gib * GIB),
        is_exempt: false,
        is_leaving: false,
        is_reclaimed: false,
    }
}

fn names(list: &[&str]) -> Vec<GuestName> {
    list.iter().map(|text| name(text)).collect()
}

#[test]
fn band_follows_available_memory_and_stalls() {
    let config = PressureConfig {
        emergency_below_percent: 2,
        ..PressureConfig::default()
    };
    let cases = [
        (100, MemoryBand::Normal),
        (15, MemoryBand::Normal),
        (14, MemoryBand::Pause),
        (10, MemoryBand::Pause),
        (9, MemoryBand::Sleep),
        (5, MemoryBand::Sleep),
        (4, MemoryBand::Refuse),
        (2, MemoryBand::Refuse),
        (1, MemoryBand::Emergency),
    ];
    for (available, band) in cases {
        assert_eq!(config.band(&reading(available)), band, "{available}");
    }
    // Off by default.
    let default = PressureConfig::default();
    assert_eq!(default.band(&reading(0)), MemoryBand::Refuse);
    let stalled = |percent| MemoryReading {
        stalled_percent: Some(percent),
        ..reading(100)
    };
    assert_eq!(config.band(&stalled(19.9)), MemoryBand::Normal);
    // Stalls alone end no process.
    assert_eq!(config.band(&stalled(99.0)), MemoryBand::Pause);
    let off = PressureConfig {
        stalled_percent: 0,
        pause_below_percent: 0,
        ..config
    };
    assert_eq!(off.band(&stalled(99.0)), MemoryBand::Normal);
    assert_eq!(off.band(&reading(14)), MemoryBand::Normal);
}

#[test]
fn nothing_is_done_with_enough_memory() {
    let residents = [resident("web", 600, 50)];
    let actions = decide(&PressureConfig::default(), &reading(15), &residents);
    assert_eq!(actions, Actions::default());
}

#[test]
fn idle_guests_are_paused_then_reclaimed_once() {
    let paused = Resident {
        is_paused: true,
        ..resident("paused", 600, 1)
    };
    let small = Resident {
        name: name("small"),
        memory: Some(WORTHWHILE - 1),
        ..paused.clone()
    };
    let done = Resident {
        name: name("done"),
        is_reclaimed: true,
        ..paused.clone()
    };
    let always_on = Resident {
        is_exempt: true,
        ..resident("always-on", 600, 1)
    };
    let leaving = Resident {
        is_leaving: true,
        ..resident("leaving", 600, 1)
    };
    let residents = [
        resident("used", 0, 50),
        resident("idle", 1, 1),
        paused,
        small,
        done,
        always_on,
        leaving,
    ];
    let config = PressureConfig::default();
    let actions = decide(&config, &reading(14), &residents);
    assert_eq!(
        (actions.pause, actions.reclaim, actions.sleep),
        (names(&["idle"]), names(&["paused"]), Vec::new())
    );
    let config = PressureConfig {
        reclaim: false,
        ..config
    };
    assert_eq!(decide(&config, &reading(14), &residents).reclaim, []);
}

#[test]
fn as_many_guests_sleep_as_are_needed() {
    let residents = [
        resident("used", 0, 50),
        resident("newer", 10, 3),
        resident("oldest", 30, 2),
        resident("older", 20, 2),
    ];
    let config = PressureConfig::default();
    let sleep = |available| decide(&config, &reading(available), &residents).sleep;
    assert_eq!(sleep(10), []);
    assert_eq!(sleep(9), names(&["oldest"]));
    assert_eq!(sleep(8), names(&["oldest"]));
    assert_eq!(sleep(7), names(&["oldest", "older"]));
    assert_eq!(sleep(1), names(&["oldest", "older", "newer"]));
    // The others are paused.
    let actions = decide(&config, &reading(9), &residents);
    assert_eq!(actions.pause, names(&["newer", "older"]));
}

#[test]
fn guests_that_are_being_put_to_sleep_count() {
    let mut residents = [resident("oldest", 30, 2), resident("older", 20, 2)];
    residents[0].is_leaving = true;
    let config = PressureConfig::default();
    assert_eq!(decide(&config, &reading(8), &residents).sleep, []);
    assert_eq!(
        decide(&config, &reading(7), &residents).sleep,
        names(&["older"])
    );
    // One at a time where their memory is unknown.
    for resident in &mut residents {
        resident.memory = None;
    }
    assert_eq!(decide(&config, &reading(1), &residents).sleep, []);
    residents[0].is_leaving = false;
    assert_eq!(
        decide(&config, &reading(1), &residents).sleep,
        names(&["oldest"])
    );
}

#[test]
fn guests_in_use_sleep_in_an_emergency_only() {
    let always_on = Resident {
        is_exempt: true,
        ..resident("always-on", 600, 50)
    };
    let residents = [
        resident("small", 0, 1),
        resident("large", 0, 20),
        resident("idle", 5, 1),
        always_on,
    ];
    let config = PressureConfig::default();
    let sleep = |config: &PressureConfig| decide(config, &reading(0), &residents).sleep;
    assert_eq!(sleep(&config), names(&["idle"]));
    let emergency = PressureConfig {
        emergency_below_percent: 2,
        ..config
    };
    assert_eq!(sleep(&emergency), names(&["idle", "large"]));
}

#[test]
fn guests_with_little_memory_sleep_last() {
    let reclaimed = Resident {
        memory: Some(WORTHWHILE - 1),
        is_paused: true,
        ..resident("reclaimed", 600, 1)
    };
    let residents = [reclaimed, resident("large", 5, 1)];
    let sleep =
        |available| decide(&PressureConfig::default(), &reading(available), &residents).sleep;
    assert_eq!(sleep(6), names(&["large"]));
    assert_eq!(sleep(4), names(&["large", "reclaimed"]));
}
