//! The daemon as a service: what it tells whoever started it, and who may speak to it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::Sandbox;

/// What arrives on a notification socket, up to and including `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().is_none_or(|line| line != last) {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a notification in time");
        told.extend(
            String::from_utf8_lossy(&buffer[..length])
                .lines()
                .map(str::to_owned),
        );
    }
    told
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_stopping() {
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
    assert!(told(&socket, "READY=1").contains(&"READY=1".to_owned()));
    told(&socket, "WATCHDOG=1");
    daemon.stop();
    told(&socket, "STOPPING=1");
}

#[test]
fn only_root_and_the_group_may_speak_to_it() {
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
    assert_eq!(mode(), 0o600, "without the group, root alone");
    daemon.stop();
    let _daemon = sandbox.start_with(&[("INNKEEPER_API_GROUP", "root")]);
    assert_eq!(mode(), 0o660, "with the group, its members too");
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
