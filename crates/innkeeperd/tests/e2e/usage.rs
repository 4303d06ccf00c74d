//! The use of guests, measured on a real kernel.

use std::net::{TcpStream, UdpSocket};

use innkeeper_model::api::{GuestView, Status};
use innkeeper_model::{Code, Failure, GuestState, GuestUsage, Level};

use crate::support::{Fixture, Sandbox, closure, wait_until};

const LOOP: &str = "while :; do :; done";

#[test]
fn connections_sessions_and_processor_time_are_uses() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let usage = || {
        let report: Vec<GuestUsage> = client.get("/v1/usage");
        report.into_iter().next()
    };
    let until = |description: &str, condition: fn(&GuestUsage) -> bool| {
        wait_until(description, || {
            usage().is_some_and(|usage| condition(&usage))
        });
    };
    until("it is measured twice", |usage| usage.cpu_percent.is_some());

    // The guest refuses the connection, which counts nevertheless.
    let address = guest.guest_address.expect("an address");
    TcpStream::connect((address, 9)).expect_err("no server");
    until("the connection is seen", |usage| {
        usage.last_use.as_deref() == Some("a new connection to it")
    });

    let mut session = sandbox.spawn_program("agent", &["exec", "web", "--", "sh", "-c", LOOP]);
    until("the session is seen", |usage| {
        usage.last_use.as_deref() == Some("an open session (exec)")
            && usage.sessions == 1
            && usage.cpu_percent.is_some_and(|percent| percent > 1.0)
    });
    session.kill().expect("killed");
    session.wait().expect("ended");
    until("the session is over", |usage| usage.sessions == 0);

    let detached = ["exec", "--detach", "web", "--", "sh", "-c", LOOP];
    assert!(sandbox.program("agent", &detached, b"").status.success());
    until("the processor time is seen", |usage| {
        let last_use = usage.last_use.as_deref().unwrap_or_default();
        usage.sessions == 0 && last_use.starts_with("processor time: ")
    });
    until("its files are measured", |usage| {
        usage.disk_bytes.is_some_and(|bytes| bytes > 0)
    });
    client.change("web", "sleep");
    until("it is shown asleep", |usage| {
        usage.level == Level::Asleep && usage.idle_seconds.is_none() && usage.disk_bytes.is_some()
    });
    client.change("web", "stop");
    wait_until("it is not measured any more", || usage().is_none());
}

#[test]
fn connections_through_the_api_reach_loopback_wake_the_guest_and_are_sessions() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    let program = |arguments: &[&str], input: &[u8]| sandbox.program("agent", arguments, input);
    let serve = |words: &str| {
        let serve = ["exec", "--detach", "web", "--", "sh", "-c", words];
        let served = program(&serve, b"");
        assert!(served.status.success(), "{served:?}");
    };

    let closed = program(&["connect", "web", "1234", "--json"], b"");
    let failure: Failure = serde_json::from_slice(&closed.stderr).expect("a failure");
    assert_eq!(failure.code, Code::PortClosed);

    // The response begins when the caller's data has ended.
    serve("nc -ll -p 1234 -e wc -c");
    let counted = program(
        &["connect", "web", "1234", "--wait", "60"],
        &[b'x'; 500_000],
    );
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "500000");

    serve("ip link set lo up; exec httpd -f -p 127.0.0.1:1236 -h /var/www");
    let request = b"GET / HTTP/1.0\r\n\r\n";
    let response = program(&["connect", "web", "1236", "--wait", "60"], request);
    assert!(response.stdout.starts_with(b"HTTP/1."), "{response:?}");

    let usage = || {
        let report: Vec<GuestUsage> = client.get("/v1/usage");
        report.into_iter().next()
    };
    serve("nc -ll -p 1235 -e cat");
    let arguments = ["connect", "web", "1235", "--wait", "60"];
    let mut open = sandbox.spawn_program("agent", &arguments);
    wait_until("the session is seen", || {
        usage().is_some_and(|usage| usage.sessions == 1)
    });
    open.kill().expect("killed");
    open.wait().expect("ended");
    wait_until("the session is over", || {
        usage().is_some_and(|usage| usage.sessions == 0)
    });

    client.change("web", "pause");
    let counted = program(&["connect", "web", "1234"], b"four");
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "4");
    assert_eq!(client.guest("web").guest.level, Level::Awake);
}

/// The guest has no server: its kernel refuses the connection, and its processes continue nevertheless.
fn connect(guest: &GuestView) {
    let address = guest.guest_address.expect("an address");
    TcpStream::connect((address, 9)).expect_err("no server");
}

#[test]
fn first_packet_wakes_a_paused_guest_also_without_a_daemon_meanwhile() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let state = || client.guest("web").state;
    let until_awake = || {
        wait_until("the packet wakes it", || state() == GuestState::Running);
        wait_until("the wake is recorded", || {
            // The record changes with the begin of the operation, so its end is queried last.
            let is_awake = client.guest("web").guest.rests().is_none();
            let status: Status = client.get("/v1/status");
            is_awake && status.operations.is_empty()
        });
    };
    for _ in 0..3 {
        client.change("web", "pause");
        assert_eq!(state(), GuestState::Paused);
        connect(&guest);
        until_awake();
    }
    client.change("web", "pause");
    daemon.kill();
    let daemon = sandbox.start();
    assert_eq!(state(), GuestState::Paused);
    connect(&guest);
    until_awake();

    client.change("web", "pause");
    daemon.kill();
    connect(&guest);
    let _daemon = sandbox.start();
    wait_until("the former packet wakes it", || {
        state() == GuestState::Running
    });
}

/// Connections wait for a guest that is asleep, and its server answers the one that woke it.
#[test]
fn first_packet_wakes_a_sleeping_guest_also_without_a_daemon_meanwhile() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let address = guest.guest_address.expect("an address");
    let datagram = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let until_awake = || {
        wait_until("the packet wakes it", || {
            let is_awake = client.guest("web").state == GuestState::Running;
            // The end of the wake is queried last.
            let status: Status = client.get("/v1/status");
            is_awake && status.operations.is_empty()
        });
    };
    for _ in 0..2 {
        client.change("web", "sleep");
        assert_eq!(client.guest("web").state, GuestState::Asleep);
        TcpStream::connect((address, 80)).expect("it waits for the guest");
        assert_eq!(client.guest("web").guest.level, Level::Awake);
        until_awake();
    }
    client.change("web", "sleep");
    // A scan.
    for port in 1..100 {
        datagram.send_to(b"x", (address, port)).expect("sent");
    }
    until_awake();

    client.change("web", "sleep");
    daemon.kill();
    let daemon = sandbox.start();
    assert_eq!(client.guest("web").state, GuestState::Asleep);
    datagram.send_to(b"x", (address, 9)).expect("sent");
    until_awake();

    client.change("web", "sleep");
    daemon.kill();
    datagram.send_to(b"x", (address, 9)).expect("sent");
    let _daemon = sandbox.start();
    until_awake();
}

#[test]
fn idle_agent_is_paused_and_wakes_for_a_packet() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("[rest.agents]\nidle = \"pause\"\npause_after_seconds = 3");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let state = || client.guest("web").state;
    for _ in 0..2 {
        wait_until("it is paused", || state() == GuestState::Paused);
        connect(&guest);
        wait_until("the packet wakes it", || state() == GuestState::Running);
    }
    let mut session = sandbox.spawn_program("agent", &["exec", "web", "--", "sleep", "1000"]);
    let usage = || client.get::<Vec<GuestUsage>>("/v1/usage");
    // Longer than the idle time: a session keeps it awake.
    wait_until("it is measured", || {
        let [usage] = &usage()[..] else { return false };
        usage.sessions == 1 && usage.last_use.as_deref() == Some("an open session (exec)")
    });
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(state(), GuestState::Running);
    session.kill().expect("killed");
    session.wait().expect("ended");
    wait_until("it is paused again", || state() == GuestState::Paused);
}
