//! The daemon as a service: notifications, and access to its API.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::Sandbox;

/// Receives notifications up to and including `last`.
fn receive(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != last) {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a notification in time");
        lines.extend(
            String::from_utf8_lossy(&buffer[..length])
                .lines()
                .map(str::to_owned),
        );
    }
    lines
}

#[test]
fn systemd_is_notified_of_start_watchdog_and_stop() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("set");
    let daemon = sandbox.start_with(&[
        ("NOTIFY_SOCKET", &path.display().to_string()),
        ("WATCHDOG_USEC", "200000"),
    ]);
    assert!(receive(&socket, "READY=1").contains(&"READY=1".to_owned()));
    receive(&socket, "WATCHDOG=1");
    daemon.stop();
    receive(&socket, "STOPPING=1");
}

#[test]
fn the_api_is_open_to_root_and_the_group_only() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[api]\ngroup = 'no-such-group'");
    let socket = sandbox.path().join("run/api.sock");
    let mode = || {
        std::fs::metadata(&socket)
            .expect("there")
            .permissions()
            .mode()
            & 0o777
    };
    let daemon = sandbox.start();
    assert_eq!(mode(), 0o600, "without the group, root only");
    daemon.stop();
    let _daemon = sandbox.start_with(&[("INNKEEPER_API_GROUP", "root")]);
    assert_eq!(mode(), 0o660, "with the group, also its members");
    assert!(!sandbox.path().join("run/api.new").exists());
    assert_eq!(
        sandbox
            .state()
            .metadata()
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}
