//! Guests that wait at their doors until another one takes their place.

use super::*;

/// Makes a seat, as the engine does, and returns it with the guest that is to take it.
async fn seat(host: &Host, units: &Arc<dyn Units>, script: &str) -> (Guest, Guest, UnitSeen) {
    let web = host.guest("web", "");
    let name = GuestName::of_seat(web.slot);
    let seat = Guest {
        closure: None,
        ..host.guest(name.as_str(), script)
    };
    #[expect(clippy::disallowed_methods, reason = "no guest wrote this tree")]
    fs::remove_dir_all(host.config.home(&web.name)).expect("not made yet");
    let prepared = units.prepare(&seat).await.expect("prepared");
    let seen = units.ensure(&seat, prepared).await.expect("at the door");
    (seat, web, seen)
}

/// Gives the tree, then the unit, to the guest.
async fn take(host: &Host, units: &Arc<dyn Units>, seat: &Guest, guest: &Guest) {
    let config = &host.config;
    if config.home(&seat.name).exists() {
        fs::rename(config.home(&seat.name), config.home(&guest.name)).expect("renamed");
    }
    units.take_seat(&seat.name, guest).await.expect("taken");
}

/// The limit of the guest's memory, as the kernel has it; `None` where no controller limits it.
async fn memory_limit(host: &Host, guest: &Guest) -> Option<String> {
    let group = host.groups(guest).await.memory;
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
    limit.map(|limit| limit.trim().to_owned())
}

#[tokio::test]
async fn guest_takes_a_seat_with_its_name_limits_and_init() {
    let test = "guest_takes_a_seat_with_its_name_limits_and_init";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let (seat, mut guest, waiting) = seat(&host, &units, "echo $(hostname) boots").await;
    assert_eq!(phase(&units, &seat).await, Some(UnitPhase::AtDoor));
    guest.limits.memory = MemorySize::from_bytes(128 << 20);
    take(&host, &units, &seat, &guest).await;
    // A daemon that is killed before it has recorded this takes the seat again.
    take(&host, &units, &seat, &guest).await;
    assert_eq!(phase(&units, &seat).await, None, "the name is free");
    let seen = units.ensure(&guest, None).await.expect("at the door");
    assert_eq!(
        (seen.phase, seen.leader),
        (UnitPhase::AtDoor, waiting.leader)
    );
    assert_eq!(units.phases().await.expect("a look").len(), 1);
    match memory_limit(&host, &guest).await {
        Some(limit) => assert_eq!(limit, (128 << 20).to_string()),
        None => assert!(host.cgroups().missing().contains(&"memory")),
    }

    units.release(&guest.name, None).await.expect("released");
    await_line(&units, &guest, "web boots").await;
    assert_eq!(shell(&units, &guest, "hostname").await, "web");
    let observed = units.observe().await.expect("a look");
    let is_web = |found: &Found| found.guest.as_ref() == Some(&guest.name);
    assert!(observed.iter().all(is_web), "{observed:?}");
    let leader = seen.leader.expect("alive");
    assert_eq!(proc_status(leader, "Seccomp"), "2");

    // Its end is the guest's, and the next start has the guest's own names.
    let mut endings = units.endings();
    units.stop(&guest.name).await.expect("stopped");
    ended(&mut endings, &guest).await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(0)));
    assert!(console(&units, &guest).await.contains("shutting down"));
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
    boot(&units, &guest).await;
    assert_eq!(host.config.unit_name(&guest.name), guest.name);
    assert_eq!(shell(&units, &guest, "hostname").await, "web");
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn guest_at_a_seat_survives_the_daemon() {
    let Some(host) = Host::new("guest_at_a_seat_survives_the_daemon").await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let (seat, guest, _) = seat(&host, &units, "echo released").await;
    drop(units);
    // Another daemon, which is not connected to the seat.
    let units = host.units().await;
    take(&host, &units, &seat, &guest).await;
    drop(units);
    let units = host.units().await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::AtDoor));
    units.ensure(&guest, None).await.expect("at the door");
    units.release(&guest.name, None).await.expect("released");
    await_line(&units, &guest, "released").await;
    drop(units);
    let units = host.units().await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Running));
    let mut endings = units.endings();
    units.stop(&guest.name).await.expect("stopped");
    ended(&mut endings, &guest).await;
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

/// The guest's drive falls back to an ordinary start.
#[tokio::test]
async fn seat_that_has_ended_gives_the_guest_nothing_but_its_remains() {
    let test = "seat_that_has_ended_gives_the_guest_nothing_but_its_remains";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let (seat, guest, _) = seat(&host, &units, "").await;
    let mut endings = units.endings();
    units.stop(&seat.name).await.expect("killed");
    ended(&mut endings, &seat).await;
    take(&host, &units, &seat, &guest).await;
    let found = phase(&units, &guest).await;
    assert!(matches!(found, Some(UnitPhase::Exited(_))), "{found:?}");
    units.remove(&guest.name).await.expect("removed");
    boot(&units, &guest).await;
    assert_eq!(shell(&units, &guest, "hostname").await, "web");

    // A seat whose guest was started without it is removed.
    let seat = Guest {
        closure: None,
        ..host.guest("0-door-1", "")
    };
    units.ensure(&seat, None).await.expect("at the door");
    units.take_seat(&seat.name, &guest).await.expect("removed");
    assert_eq!(phase(&units, &seat).await, None);
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Running));
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn seat_is_removed_without_a_trace() {
    let Some(host) = Host::new("seat_is_removed_without_a_trace").await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let (seat, ..) = seat(&host, &units, "").await;
    units.remove(&seat.name).await.expect("removed");
    assert_eq!(phase(&units, &seat).await, None);
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn guests_with_more_than_a_seat_has_do_not_fit() {
    let Some(host) = Host::new("guests_with_more_than_a_seat_has_do_not_fit").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let fits = |limits: &Limits| units.fits_seat(guest.kind, &host.closure, limits);
    assert!(fits(&guest.limits));
    assert!(!fits(&Limits {
        nesting: true,
        ..guest.limits
    }));
    let user_ids = "131072".parse().expect("a number of ids");
    assert!(!fits(&Limits {
        user_ids,
        ..guest.limits
    }));
}

/// The run directory leads to the names of what is left.
#[tokio::test]
async fn removal_of_a_guest_at_a_seat_can_be_repeated_after_a_failure() {
    let test = "removal_of_a_guest_at_a_seat_can_be_repeated_after_a_failure";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let (seat, guest, _) = seat(&host, &units, "").await;
    take(&host, &units, &seat, &guest).await;
    // A file in a directory that nspawn left, which must be empty.
    let machine = host.config.machine(&guest.name);
    let left = Path::new("/run/systemd/nspawn/propagate").join(machine);
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("in-the-way"), "").expect("written");
    units
        .remove(&guest.name)
        .await
        .expect_err("something is left");
    fs::remove_file(left.join("in-the-way")).expect("removed");
    units.remove(&guest.name).await.expect("removed");
    assert!(!left.exists());
    assert_eq!(host.traces().difference(&before).next(), None);
}

/// The console and the limits of a warm guest follow it as those of one that waits at its door.
#[tokio::test]
async fn guest_takes_a_seat_that_has_booted_and_is_paused() {
    let test = "guest_takes_a_seat_that_has_booted_and_is_paused";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let web = host.guest("web", "");
    let name = GuestName::of_seat(web.slot);
    let warm = host.guest(name.as_str(), "echo $(hostname) boots");
    #[expect(clippy::disallowed_methods, reason = "no guest wrote this tree")]
    fs::remove_dir_all(host.config.home(&web.name)).expect("not made yet");
    let waiting = boot(&units, &warm).await;
    await_line(&units, &warm, &format!("{name} boots")).await;
    if !units.freeze(&warm.name).await.expect("asked") {
        units.remove(&warm.name).await.expect("removed");
        eprintln!("INNKEEPER-NOT-RUN: {test}: no freezer for guests");
        return;
    }
    let mut guest = web;
    guest.limits.memory = MemorySize::from_bytes(128 << 20);
    // A daemon that is killed before it has recorded this takes the seat again.
    for _ in 0..2 {
        take(&host, &units, &warm, &guest).await;
        let seen = units.phase(&guest.name).await.expect("a look");
        let seen = seen.expect("there");
        assert_eq!(
            (seen.phase, seen.leader, seen.frozen),
            (UnitPhase::Running, waiting.leader, true)
        );
    }
    assert_eq!(phase(&units, &warm).await, None, "the name is free");
    if let Some(limit) = memory_limit(&host, &guest).await {
        assert_eq!(limit, (128 << 20).to_string());
    }
    // Another daemon continues it.
    drop(units);
    let units = host.units().await;
    units.thaw(&guest.name).await.expect("continued");
    assert_eq!(shell(&units, &guest, "hostname").await, "web");
    assert!(console(&units, &guest).await.contains("boots"));
    let mut endings = units.endings();
    units.stop(&guest.name).await.expect("stopped");
    ended(&mut endings, &guest).await;
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
    boot(&units, &guest).await;
    assert_eq!(host.config.unit_name(&guest.name), guest.name);
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}
