use axum::Router;
use innkeeper_model::api::{AuditRetention, Check, RetainedSpace, Status, Verdict};
use innkeeper_model::{
    GuestState, HostMemory, MemoryBand, Operation, OperationId, OperationState, Verb,
};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::{name, time};

fn sample() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        started_at: time("09:00:00"),
        supervisor: "direct".to_owned(),
        user_namespaces: true,
        guests: vec![
            (GuestState::Running, 2),
            (GuestState::Stopped, 0),
            (GuestState::Failed, 1),
        ],
        slots_taken: 3,
        slots: 32_512,
        retained: RetainedSpace {
            agents: 2,
            bytes: 3 << 20,
        },
        pools: vec![Check {
            subject: "warm pool".to_owned(),
            verdict: Verdict::Ok,
            finding: "1 of 2 guests of /fleet#agent wait booted: the host is busy".to_owned(),
            remedy: None,
        }],
        operations: vec![Operation {
            id: OperationId(17),
            guest: Some(name("web")),
            verb: Verb::Create,
            state: OperationState::Running,
            actor: "uid:1000".to_owned(),
            started_at: time("10:00:00"),
            finished_at: None,
            failure: None,
        }],
        memory: Some(HostMemory {
            total_bytes: 24 << 30,
            available_bytes: 12 << 30,
            available_percent: 50,
            swap_total_bytes: 0,
            swap_free_bytes: 0,
            stalled_percent: Some(0),
            band: MemoryBand::Normal,
        }),
        audit: Some(AuditRetention {
            days: 400,
            entries: 200_000,
        }),
        resident_bytes: 12_900_000,
    }
}

fn fake(status: &Status) -> Fake {
    Fake::new(Router::new().route("/v1/status", respond(status)))
}

#[test]
fn status_prints_counts_and_operations() {
    assert_snapshot!(fake(&sample()).innkeeper(&["status"]).ok(), @r"
    Daemon:          innkeeperd 0.1.0, process 4242
    Started:         2026-11-20T09:00:00Z
    Memory:          12 MiB resident
    Supervisor:      direct
    User namespaces: one per guest
    Guests:          2 running, 1 failed
    Slots:           3 of 32512 in use
    Operations:      1 in progress
    Host memory:     50 % of 24576 MiB available
    Audit log:       kept for 400 days, 200000 entries at most
    Destroyed:       2 with retained files (3 MiB)
    Waiting:         1 of 2 guests of /fleet#agent wait booted: the host is busy

    OPERATION  VERB    GUEST  ACTOR     STARTED
    17         create  web    uid:1000  2026-11-20T10:00:00Z
    ");
}

#[test]
fn status_without_guests_has_no_table() {
    let status = Status {
        guests: Vec::new(),
        pools: Vec::new(),
        operations: Vec::new(),
        retained: RetainedSpace::default(),
        user_namespaces: false,
        memory: sample().memory.map(|memory| HostMemory {
            available_bytes: 1 << 30,
            available_percent: 4,
            band: MemoryBand::Refuse,
            ..memory
        }),
        ..sample()
    };
    assert_snapshot!(fake(&status).innkeeper(&["status"]).ok(), @r"
    Daemon:          innkeeperd 0.1.0, process 4242
    Started:         2026-11-20T09:00:00Z
    Memory:          12 MiB resident
    Supervisor:      direct
    User namespaces: none
    Guests:          none
    Slots:           3 of 32512 in use
    Operations:      none in progress
    Host memory:     4 % of 24576 MiB available: no guest is started, and idle guests are put to sleep
    Audit log:       kept for 400 days, 200000 entries at most
    ");
}

#[test]
fn json_has_the_models_value() {
    let stdout = fake(&sample()).innkeeper(&["status", "--json"]).ok();
    assert_eq!(
        serde_json::from_str::<Status>(&stdout).expect("one value"),
        sample()
    );
}
