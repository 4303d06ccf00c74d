//! The life of a guest, from its start to its end.

use super::*;

#[tokio::test]
async fn guest_waits_runs_and_is_removed_without_a_trace() {
    let Some(host) = Host::new("guest_waits_runs_and_is_removed_without_a_trace").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "echo hello from init");
    let before = host.traces();
    assert_eq!(phase(&units, &guest).await, None);

    let seen = units.ensure(&guest, None).await.expect("at the door");
    let leader = seen.leader.expect("a first process");
    assert_eq!(seen.phase, UnitPhase::AtDoor);
    assert_eq!(units.ensure(&guest, None).await.expect("the same"), seen);
    assert!(
        !console(&units, &guest).await.contains("hello"),
        "init ran before the door was opened"
    );
    let refused = units
        .exec(&guest.name, &request(&["true"]))
        .await
        .expect_err("not running");
    assert_eq!(refused.code(), Code::GuestNotRunning);

    units.release(&guest.name, None).await.expect("released");
    let running = units
        .phase(&guest.name)
        .await
        .expect("a look")
        .expect("there");
    assert_eq!(
        (running.phase, running.leader),
        (UnitPhase::Running, Some(leader))
    );
    assert!(
        !host.config.run_dir(&guest.name).socket().exists(),
        "the socket is still there"
    );
    units
        .release(&guest.name, None)
        .await
        .expect("released again");
    assert_eq!(
        units.ensure(&guest, None).await.expect("nothing to do"),
        running
    );
    await_line(&units, &guest, "hello from init").await;
    assert_eq!(units.phases().await.expect("a look"), [running]);
    let observed = units.observe().await.expect("a look");
    assert!(
        observed.len() > 1
            && observed
                .iter()
                .all(|found| found.guest.as_ref() == Some(&guest.name))
    );

    let mut endings = units.endings();
    units.stop(&guest.name).await.expect("stopped");
    ended(&mut endings, &guest).await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(0)));
    assert!(
        console(&units, &guest).await.contains("shutting down"),
        "it was not shut down"
    );
    units.stop(&guest.name).await.expect("stopped again");

    units.remove(&guest.name).await.expect("removed");
    assert_eq!(phase(&units, &guest).await, None);
    assert_eq!(host.traces().difference(&before).next(), None);
    assert_eq!(units.observe().await.expect("a look"), []);
    units.remove(&guest.name).await.expect("removed again");
}

#[tokio::test]
async fn running_guest_is_removed_without_a_trace() {
    let Some(host) = Host::new("running_guest_is_removed_without_a_trace").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "trap '' 37; sleep 1000 & sleep 1000 &");
    let before = host.traces();
    boot(&units, &guest).await;
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
    // Killed processes do not lock the tree.
    boot(&units, &guest).await;
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

/// A second daemon with the same names, which running daemons never share: neither touches the objects of the other.
#[tokio::test]
async fn guest_of_another_daemon_is_left_alone() {
    let test = "guest_of_another_daemon_is_left_alone";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let guest = host.guest("web", "");
    let theirs = host.units().await;
    boot(&theirs, &guest).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let ours = host
        .units_with(UnitConfig {
            identity: Identity::of('b'),
            guests_dir: elsewhere.path().join("guests"),
            runtime_dir: elsewhere.path().join("run"),
            ..host.config.clone()
        })
        .await;
    let found = ours.observe().await.expect("a look");
    assert!(!found.is_empty());
    for found in &found {
        assert_eq!(found.ownership, Ownership::Other, "{found:?}");
    }
    assert_eq!(phase(&ours, &guest).await, None);
    assert_eq!(ours.phases().await.expect("a look"), []);
    let refused = ours.ensure(&guest, None).await.expect_err("another's");
    assert_eq!(refused.code(), Code::DaemonConflict);
    let refused = ours.exec(&guest.name, &request(&["true"])).await;
    assert_eq!(refused.expect_err("another's").code(), Code::DaemonConflict);
    ours.stop(&guest.name).await.expect("another daemon's");
    ours.remove(&guest.name).await.expect("another daemon's");
    let mistaken = Found {
        ownership: Ownership::Unmarked,
        ..found[0].clone()
    };
    for found in [&found[0], &mistaken] {
        ours.sweep(found).await.expect("another daemon's");
    }
    assert_eq!(phase(&theirs, &guest).await, Some(UnitPhase::Running));
    theirs.remove(&guest.name).await.expect("removed");
}

/// Former releases marked neither units nor cgroups. The run directory identifies their owner.
#[tokio::test]
async fn former_releases_guest_is_owned_by_its_run_directory() {
    let test = "former_releases_guest_is_owned_by_its_run_directory";
    let Some(host) = Host::new(test).await.filter(|_| !has_systemd()) else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let cgroup = host.direct(&host.config).groups(&guest.name).all;
    rustix::fs::removexattr(&cgroup, "trusted.innkeeper.daemon").expect("it was marked");
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Running));

    let elsewhere = tempfile::tempdir().expect("a directory");
    let other = host
        .units_with(UnitConfig {
            runtime_dir: elsewhere.path().join("run"),
            ..host.config.clone()
        })
        .await;
    let found = other.observe().await.expect("a look");
    let unmarked = |found: &&Found| found.ownership == Ownership::Unmarked;
    let unmarked: Vec<_> = found.iter().filter(unmarked).collect();
    assert!(!unmarked.is_empty(), "{found:?}");
    other.remove(&guest.name).await.expect("another daemon's");
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Running));
    // It is removed on request.
    other.sweep(unmarked[0]).await.expect("swept");
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn guest_at_the_door_survives_the_daemon() {
    let Some(host) = Host::new("guest_at_the_door_survives_the_daemon").await else {
        return;
    };
    let guest = host.guest("web", "echo released");
    let units = host.units().await;
    let seen = units.ensure(&guest, None).await.expect("at the door");
    drop(units);

    let units = host.units().await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::AtDoor));
    let error = units
        .release(&guest.name, None)
        .await
        .expect_err("not connected");
    assert_eq!(error.code(), Code::GuestNotRunning);
    assert_eq!(
        units.ensure(&guest, None).await.expect("connected again"),
        seen
    );
    units.release(&guest.name, None).await.expect("released");
    await_line(&units, &guest, "released").await;
    drop(units);

    // A running guest is found, keeps running, and its end is noticed.
    let units = host.units().await;
    let mut endings = units.endings();
    let again = units.ensure(&guest, None).await.expect("left alone");
    assert_eq!(
        (again.phase, again.leader),
        (UnitPhase::Running, seen.leader)
    );
    units.stop(&guest.name).await.expect("stopped");
    ended(&mut endings, &guest).await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(0)));
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn exit_status_is_reported() {
    let Some(host) = Host::new("exit_status_is_reported").await else {
        return;
    };
    let units = host.units().await;
    for (name, script, status) in [
        ("three", "exit 3", 3),
        ("reboot", "sleep 0.2; reboot -f", UnitPhase::REBOOT),
    ] {
        let guest = host.guest(name, script);
        let mut endings = units.endings();
        boot(&units, &guest).await;
        ended(&mut endings, &guest).await;
        assert_eq!(
            phase(&units, &guest).await,
            Some(UnitPhase::Exited(status)),
            "{name}"
        );
        // It starts again without a removal.
        let mut endings = units.endings();
        boot(&units, &guest).await;
        ended(&mut endings, &guest).await;
        units.remove(&guest.name).await.expect("removed");
    }
}

#[tokio::test]
async fn killed_guest_is_reported_as_exited() {
    let Some(host) = Host::new("killed_guest_is_reported_as_exited").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let mut endings = units.endings();
    let all = host.groups(&guest).await.all;
    cgroup::kill(&all).expect("killed");
    ended(&mut endings, &guest).await;
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(137)));
    boot(&units, &guest).await;
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn failed_start_reports_its_cause() {
    let Some(host) = Host::new("failed_start_reports_its_cause").await else {
        return;
    };
    let units = host.units().await;

    let mut guest = host.guest("no-tree", "");
    fs::rename(
        host.config.root(&guest.name),
        host.config.root(&guest.name).with_extension("away"),
    )
    .expect("moved");
    let error = units.ensure(&guest, None).await.expect_err("no file tree");
    assert_eq!(error.code(), Code::GuestDied);
    assert!(
        error.log().iter().any(|line| line.contains("rootfs")),
        "{:?}",
        error.log()
    );
    assert!(matches!(
        phase(&units, &guest).await,
        Some(UnitPhase::Exited(_))
    ));

    guest.name = host.guest("no-init", "").name;
    guest.closure =
        Some(StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-none").expect("a path"));
    units.ensure(&guest, None).await.expect("at the door");
    let error = units.release(&guest.name, None).await.expect_err("no init");
    assert_eq!(error.code(), Code::GuestDied);
    assert!(error.to_string().contains("/init: No such file"), "{error}");

    guest.name = host.guest("no-closure", "").name;
    guest.closure = None;
    let error = units.ensure(&guest, None).await.expect_err("no closure");
    assert_eq!(error.code(), Code::InvalidClosure);

    let config = UnitConfig {
        nspawn: "/no/such/nspawn".into(),
        ..host.config.clone()
    };
    let broken = host.units_with(config).await;
    let error = broken
        .ensure(&host.guest("no-nspawn", ""), None)
        .await
        .expect_err("no nspawn");
    assert_eq!(error.code(), Code::ProgramMissing);
    assert!(
        broken
            .check()
            .await
            .iter()
            .any(|check| check.finding.contains("/no/such/nspawn"))
    );
    for name in ["no-tree", "no-init", "no-nspawn"] {
        units
            .remove(&GuestName::parse(name).expect("a name"))
            .await
            .expect("removed");
    }
}

#[tokio::test]
async fn console_log_is_bounded() {
    let Some(host) = Host::new("console_log_is_bounded").await else {
        return;
    };
    if has_systemd() {
        eprintln!("INNKEEPER-NOT-RUN: console_log_is_bounded: the journal has its own bounds");
        return;
    }
    let units = host.units().await;
    let guest = host.guest("web", "seq 1 20000; echo the last line");
    boot(&units, &guest).await;
    await_line(&units, &guest, "the last line").await;
    let path = host.config.console_log(&guest.name);
    for path in [path.clone(), path.with_extension("log.1")] {
        let length = fs::metadata(&path).expect("a log").len();
        assert!(
            length <= host.config.log_limit,
            "{}: {length} bytes",
            path.display()
        );
    }
    units.remove(&guest.name).await.expect("removed");
    assert!(
        console(&units, &guest).await.contains("the last line"),
        "the log went with the unit"
    );
}

#[tokio::test]
async fn init_that_ignores_the_shutdown_is_killed() {
    let Some(mut host) = Host::new("init_that_ignores_the_shutdown_is_killed").await else {
        return;
    };
    host.config.stop_timeout = Duration::from_millis(300);
    let units = host.units().await;
    let guest = host.guest("deaf", "trap '' 37; echo deaf");
    boot(&units, &guest).await;
    await_line(&units, &guest, "deaf").await;
    units.stop(&guest.name).await.expect("stopped");
    assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(137)));
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn guests_start_and_stop_concurrently() {
    let Some(host) = Host::new("guests_start_and_stop_concurrently").await else {
        return;
    };
    let units = host.units().await;
    let before = host.traces();
    let guests: Vec<_> = (0..8).map(|n| host.guest(&format!("g{n}"), "")).collect();
    let tasks: Vec<_> = guests
        .iter()
        .cloned()
        .map(|guest| {
            let units = Arc::clone(&units);
            tokio::spawn(async move {
                // Two calls at once for each guest: one of them has no work left.
                let (one, two) =
                    tokio::join!(units.ensure(&guest, None), units.ensure(&guest, None));
                assert_eq!(one.expect("at the door"), two.expect("at the door"));
                units.release(&guest.name, None).await.expect("released");
                units.remove(&guest.name).await.expect("removed");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("done");
    }
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn prepared_unit_runs_nothing_and_ends_when_dropped() {
    let Some(host) = Host::new("prepared_unit_runs_nothing_and_ends_when_dropped").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let before = host.traces();
    let prepared = units.prepare(&guest).await.expect("prepared");
    assert!(prepared.is_some(), "there was nothing of it");
    let seen = units.phase(&guest.name).await.expect("a look");
    let seen = seen.expect("on its way");
    assert_eq!((seen.phase, seen.leader), (UnitPhase::AtDoor, None));
    drop(prepared);
    while phase(&units, &guest).await != Some(UnitPhase::Exited(125)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    await_line(&units, &guest, "the daemon exited before").await;
    boot(&units, &guest).await;
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn interrupted_start_is_resumed_or_repeated() {
    let Some(host) = Host::new("interrupted_start_is_resumed_or_repeated").await else {
        return;
    };
    let guest = host.guest("web", "");
    let before = host.traces();
    // A daemon that is killed during a start: the future is dropped at some await.
    for moment in [0, 1, 5, 20, 60] {
        let units = host.units().await;
        let started =
            tokio::time::timeout(Duration::from_millis(moment), units.ensure(&guest, None)).await;
        drop(started);
        drop(units);
        let units = host.units().await;
        boot(&units, &guest).await;
        units.remove(&guest.name).await.expect("removed");
        assert_eq!(
            host.traces().difference(&before).next(),
            None,
            "interrupted after {moment} ms"
        );
    }
}
