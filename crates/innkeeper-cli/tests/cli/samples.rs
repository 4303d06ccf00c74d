//! Values of the model that the fake daemon answers with.

use std::net::Ipv4Addr;

use innkeeper_model::api::GuestView;
use innkeeper_model::{
    Addresses, ClosureSource, Event, EventKind, Guest, GuestKind, GuestName, GuestState, Limits,
    OperationId, Slot, SlotRange, StorePath, UnitPhase, Verb, Want,
};
use jiff::Timestamp;

pub(crate) const CLOSURE: &str = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest";
pub(crate) const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample";

pub(crate) fn time(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().expect("a time")
}

pub(crate) fn name(text: &str) -> GuestName {
    GuestName::parse(text).expect("a name")
}

/// An agent that runs.
pub(crate) fn guest(guest_name: &str, slot: u32) -> GuestView {
    let range: SlotRange = "10.100.0.0/16".parse().expect("a subnet");
    let slot = Slot::new(slot);
    let Addresses { host, guest } = range.addresses(slot).expect("a slot");
    let closure = StorePath::parse(CLOSURE).expect("a store path");
    GuestView {
        guest: Guest {
            name: name(guest_name),
            kind: GuestKind::Agent,
            slot,
            want: Want::Running,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure),
            limits: Limits {
                memory: "4G".parse().expect("memory"),
                cpus: "0.5".parse().expect("processors"),
                tasks: 4096,
            },
            ssh_host_key: Some(HOST_KEY.to_owned()),
            fault: None,
            created_at: time("10:00:00.25"),
        },
        state: GuestState::Running,
        unit: Some(UnitPhase::Running),
        host_address: Some(host),
        guest_address: Some(guest),
        interface: slot.interface(),
    }
}

/// An agent that runs on this machine's own address.
pub(crate) fn guest_here(guest_name: &str) -> GuestView {
    GuestView {
        guest_address: Some(Ipv4Addr::LOCALHOST),
        ..guest(guest_name, 1)
    }
}

pub(crate) fn event(seq: i64, kind: EventKind) -> Event {
    Event {
        seq,
        time: time("10:00:01"),
        operation: Some(OperationId(7)),
        guest: Some(name("web")),
        kind,
    }
}

pub(crate) fn accepted(seq: i64, verb: Verb) -> Event {
    event(seq, EventKind::Accepted { verb })
}

pub(crate) fn done(seq: i64, step: &str) -> Event {
    event(
        seq,
        EventKind::StepDone {
            step: step.to_owned(),
            micros: 1_234,
        },
    )
}

pub(crate) fn finished(seq: i64) -> Event {
    event(seq, EventKind::Finished)
}
