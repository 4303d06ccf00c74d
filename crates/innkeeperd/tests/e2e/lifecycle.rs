//! The lifecycle of a guest.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use innkeeper_model::api::{DoctorReport, SlotReport, Verdict};
use innkeeper_model::{EventKind, GuestState, OperationState, UnitPhase};

use crate::support::{Fixture, Sandbox, closure, flake, wait_until};

fn page(address: std::net::Ipv4Addr) -> Option<String> {
    let mut stream = TcpStream::connect((address, 80)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn create_and_destroy_leave_no_traces() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();

    let guest = client.create("web", &closure);
    assert_eq!(guest.state, GuestState::Running);
    assert_eq!(guest.guest.slot.number(), 1);
    let address = guest.guest_address.expect("an address");
    assert_eq!(address.to_string(), "10.100.0.3");
    wait_until("the guest serves its page", || {
        page(address).is_some_and(|text| text.contains("Hello from web"))
    });

    client.destroy("web");
    assert_eq!(
        client
            .call("GET", "/v1/guests/web", "")
            .failure()
            .code
            .as_str(),
        "guest_not_found"
    );
    before.assert_same(&sandbox.traces(), "after the guest was destroyed");
    let slots: SlotReport = client.get("/v1/slots");
    assert_eq!(
        (slots.counter, slots.taken.len()),
        (1, 0),
        "the address is not reused at once"
    );
}

#[test]
fn a_stopped_guest_keeps_its_files_and_its_address() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let mark = sandbox.state().join("guests/web/rootfs/root/mark");
    std::fs::write(&mark, "kept").expect("written");

    client.change("web", "stop");
    let stopped = client.guest("web");
    assert_eq!((stopped.state, stopped.unit), (GuestState::Stopped, None));
    assert!(
        !sandbox.run("ip", &["-o", "link"]).contains("ve-1"),
        "the interface is gone"
    );

    client.change("web", "start");
    let started = client.guest("web");
    assert_eq!(started.unit, Some(UnitPhase::Running));
    assert_eq!(started.guest_address, guest.guest_address);
    assert_eq!(
        started.guest.ssh_host_key, guest.guest.ssh_host_key,
        "the host key is generated once"
    );
    assert_eq!(std::fs::read_to_string(&mark).expect("there"), "kept");
    client.destroy("web");
}

#[test]
fn only_the_first_create_builds_the_closure() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(
        "flake = 'FLAKE'"
            .replace("FLAKE", &flake(Fixture::Agent))
            .as_str(),
    );
    let _daemon = sandbox.start();
    let client = sandbox.client();

    let steps = |name: &str| -> Vec<String> {
        let operation =
            client.finish(&client.call("POST", "/v1/guests", &format!("{{\"name\":\"{name}\"}}")));
        assert_eq!(operation.state, OperationState::Done, "{operation:?}");
        let events = client.events(&format!("operation={}", operation.id));
        events
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::StepDone { step, .. } => Some(step),
                _ => None,
            })
            .collect()
    };
    assert!(steps("first").contains(&"resolve-closure".to_owned()));
    assert!(!steps("second").contains(&"resolve-closure".to_owned()));
    for name in ["first", "second"] {
        client.destroy(name);
    }
}

#[test]
fn a_guest_with_systemd_boots_and_shuts_down() {
    let closure = closure(Fixture::Systemd);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("big", &closure);
    let address = guest.guest_address.expect("an address");
    wait_until("a service of its systemd answers", || {
        page(address).is_some()
    });
    client.change("big", "stop");
    let console = client.call("GET", "/v1/guests/big/logs?lines=200", "").body;
    assert!(
        console.contains("Reached target"),
        "no output of systemd:\n{console}"
    );
    client.destroy("big");
}

#[test]
fn doctor_reports_no_errors_on_a_healthy_host() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    let report: DoctorReport = client.get("/v1/doctor");
    let broken: Vec<_> = report
        .checks
        .iter()
        .filter(|c| c.verdict == Verdict::Broken)
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(
        report
            .checks
            .iter()
            .any(|c| c.subject == "guest web" && c.verdict == Verdict::Ok)
    );
    client.destroy("web");
}

#[test]
fn removed_interfaces_and_rules_are_restored() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("[engine]\ninterval_seconds = 1");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let address = client
        .create("web", &closure)
        .guest_address
        .expect("an address");
    wait_until("it answers", || page(address).is_some());
    sandbox.run("ip", &["link", "del", "ve-1"]);
    let tables = || {
        let tables = sandbox.run("nft", &["list", "tables"]);
        ["table inet innkeeper", "table inet innkeeper_builds"]
            .iter()
            .all(|name| tables.lines().any(|table| table == *name))
    };
    assert!(tables(), "rules for guests and for builds");
    sandbox.run("nft", &["flush", "ruleset"]);
    wait_until("it answers again", || page(address).is_some());
    wait_until("the rules are back", tables);
    client.destroy("web");
}
