use std::net::Ipv4Addr;

use axum::Router;
use innkeeper_model::api::{SlotReport, TakenSlot};
use innkeeper_model::{GuestKind, Slot};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

fn report() -> SlotReport {
    let taken = |slot, count, owner: &str, kind, last| TakenSlot {
        slot: Slot::new(slot),
        count,
        owner: owner.to_owned(),
        kind,
        guest_address: Some(Ipv4Addr::new(10, 100, 0, last)),
    };
    SlotReport {
        subnet: "10.100.0.0/16".to_owned(),
        counter: 7,
        capacity: 32_512,
        taken: vec![
            taken(1, 1, "web", Some(GuestKind::Agent), 3),
            taken(3, 4, "wide", Some(GuestKind::Agent), 7),
            taken(7, 1, "/var/lib/claude-agents/old", None, 15),
        ],
    }
}

fn fake(report: &SlotReport) -> Fake {
    Fake::new(Router::new().route("/v1/slots", respond(report)))
}

#[test]
fn report_has_a_table_of_owners() {
    assert_snapshot!(fake(&report()).innkeeper(&["slots"]).ok(), @r"
    10.100.0.0/16: 6 of 32512 slots in use; the highest assigned so far is 7.

    SLOT  OWNER                       KIND                ADDRESS
    1     web                         agent               10.100.0.3
    3-6   wide                        agent               10.100.0.7
    7     /var/lib/claude-agents/old  older installation  10.100.0.15
    ");
}

#[test]
fn report_without_slots_has_no_table() {
    let report = SlotReport {
        taken: Vec::new(),
        ..report()
    };
    assert_snapshot!(fake(&report).innkeeper(&["slots"]).ok(), @r"
    10.100.0.0/16: 0 of 32512 slots in use; the highest assigned so far is 7.
    ");
}

#[test]
fn json_has_the_report() {
    let stdout = fake(&report()).innkeeper(&["slots", "--json"]).ok();
    assert_eq!(
        serde_json::from_str::<SlotReport>(&stdout).expect("one value"),
        report()
    );
}
