//! Guests across restarts of the daemon and reboots of the host.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use innkeeper_model::api::{GuestView, SlotReport};
use innkeeper_model::{EventKind, GuestState, UnitPhase};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Fixture, Sandbox, closure, wait_until};

/// The first processes of the sandbox's guests, with their PIDs on the host.
fn leaders(sandbox: &Sandbox) -> Vec<i32> {
    let mut leaders = Vec::new();
    for entry in fs::read_dir("/proc").expect("readable").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let ids = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if cgroup.contains(&sandbox.id) && ids.len() == 2 && ids[1] == "1" {
            leaders.push(pid);
        }
    }
    leaders.sort_unstable();
    leaders
}

fn send_request_line(stream: &mut TcpStream) {
    // The fixture's web server keeps the connection until the request is complete.
    stream.write_all(b"GET / HTTP/1.0\r\n").expect("sent");
}

#[test]
fn guests_and_their_connections_survive_daemon_restarts() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    let address = client
        .create("web", &closure)
        .guest_address
        .expect("an address");
    wait_until("it answers", || TcpStream::connect((address, 80)).is_ok());
    let mut stream = TcpStream::connect((address, 80)).expect("connected");
    send_request_line(&mut stream);
    let before = leaders(&sandbox);

    daemon.stop();
    let daemon = sandbox.start();
    assert_eq!(leaders(&sandbox), before, "after a stop");
    daemon.kill();
    let _daemon = sandbox.start();
    assert_eq!(leaders(&sandbox), before, "after kill -9");
    assert_eq!(client.guest("web").state, GuestState::Running);

    stream.write_all(b"\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    assert!(text.contains("Hello from web"), "{text}");
    client.destroy("web");
}

/// Simulates a reboot without a daemon: no processes, and an empty /run.
fn reboot(sandbox: &Sandbox) {
    for leader in leaders(sandbox) {
        kill(Pid::from_raw(leader), Signal::SIGKILL).expect("killed");
    }
    wait_until("all processes are gone", || leaders(sandbox).is_empty());
    // The supervisors of the killed guests may still record their end there.
    let run = sandbox.path().join("run");
    wait_until("the directory of a boot is removed", || {
        #[expect(clippy::disallowed_methods, reason = "no guest writes there")]
        let removed = fs::remove_dir_all(&run);
        removed.is_ok() || !run.exists()
    });
}

#[test]
fn a_reboot_of_the_host_restores_all_guests() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    let clean = sandbox.traces();
    for n in 0..6 {
        client.create(&format!("g{n}"), &closure);
    }
    client.change("g5", "stop");
    let before: Vec<GuestView> = client.get("/v1/guests");

    daemon.kill();
    reboot(&sandbox);
    let _daemon = sandbox.start();
    wait_until("all are restored", || {
        let now: Vec<GuestView> = client.get("/v1/guests");
        now.iter().zip(&before).all(|(now, before)| {
            (now.state, now.guest_address) == (before.state, before.guest_address)
        })
    });
    let counter = client.get::<SlotReport>("/v1/slots").counter;
    assert_eq!(counter, 6);
    for n in 0..6 {
        client.destroy(&format!("g{n}"));
    }
    clean.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn many_guests_come_back_after_a_reboot_although_the_daemon_is_killed() {
    const GUESTS: usize = 10;
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("[engine]\nconcurrent_starts = 2");
    let daemon = sandbox.start();
    let client = sandbox.client();
    let clean = sandbox.traces();
    let names: Vec<_> = (0..GUESTS).map(|n| format!("g{n}")).collect();
    let file = |name: &str| (sandbox.state().join("guests").join(name)).join("rootfs/root/mark");
    for name in &names {
        client.create(name, &closure);
        fs::write(file(name), name).expect("written");
    }
    client.change("g4", "stop");
    client.change("g5", "sleep");
    let states = || -> Vec<GuestState> {
        let views: Vec<GuestView> = client.get("/v1/guests");
        views.iter().map(|view| view.state).collect()
    };
    let before = states();
    daemon.kill();
    reboot(&sandbox);

    for started in [2, 5] {
        let daemon = sandbox.start();
        wait_until("some are restored", || leaders(&sandbox).len() >= started);
        daemon.kill();
    }
    let _daemon = sandbox.start();
    wait_until("all are restored", || states() == before);
    assert_eq!(leaders(&sandbox).len(), GUESTS - 2);
    for name in &names {
        assert_eq!(fs::read_to_string(file(name)).expect("kept"), *name);
    }
    let failed = client.events("limit=1000");
    let failed: Vec<_> = (failed.iter())
        .filter(|event| matches!(event.kind, EventKind::Failed { .. }))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    for name in &names {
        client.destroy(name);
    }
    clean.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn a_guest_that_dies_is_restarted() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    let first = leaders(&sandbox);
    kill(Pid::from_raw(first[0]), Signal::SIGKILL).expect("killed");
    wait_until("it runs again", || {
        let now = leaders(&sandbox);
        !now.is_empty() && now != first && client.guest("web").state == GuestState::Running
    });
    client.destroy("web");
}

#[test]
fn a_guest_that_powers_itself_off_stays_off() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    // Its init shuts down on SIGTERM, with status 0, once it has installed its trap.
    let leader = leaders(&sandbox)[0];
    wait_until("it stays off", || {
        kill(Pid::from_raw(leader), Signal::SIGTERM).ok();
        client.guest("web").state == GuestState::Stopped
    });
    assert_eq!(client.guest("web").unit, None::<UnitPhase>);
    client.destroy("web");
}

#[test]
fn addresses_of_a_legacy_installation_are_not_allocated() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let legacy = sandbox.path().join("legacy");
    fs::create_dir(&legacy).expect("made");
    fs::write(legacy.join(".next_slot"), "41\n").expect("written");
    fs::write(legacy.join("old-agent"), "42 10.100.0.84 10.100.0.85\n").expect("written");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let slots: Vec<u32> = ["a", "b"]
        .map(|name| client.create(name, &closure).guest.slot.number())
        .to_vec();
    assert_eq!(slots, [41, 43]);
    for name in ["a", "b"] {
        client.destroy(name);
    }
}
