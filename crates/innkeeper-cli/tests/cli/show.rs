use axum::Router;
use innkeeper_model::{
    ChangeOutcome, Code, Failure, LastChange, OperationId, OwnSystem, OwnSystemState, StorePath,
};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::{CLOSURE, guest, time};

#[test]
fn own_system_has_its_state_and_its_failure() {
    let mut view = guest("web", 1);
    let mut failure = Failure::new(Code::GuestUnhealthy, "agent 'web' did not come up");
    failure.remedy = Some("Correct it.".to_owned());
    failure.log = vec!["\u{1b}[31mno system here\u{1b}[0m".to_owned()];
    view.guest.own_system = Some(Box::new(OwnSystem {
        system: StorePath::parse(CLOSURE).expect("valid"),
        state: OwnSystemState::Failed,
        failure: Some(failure),
        since: time("11:00:00"),
        at: time("12:00:00"),
    }));
    let routes = Router::new()
        .route("/v1/guests/web", respond(&view))
        .route("/v1/guests", respond(&[&view]));
    let fake = Fake::new(routes);
    let shown = fake.agent(&["show", "web"]).ok();
    let line = format!("Own system:  {CLOSURE} (did not come up at 2026-11-20T12:00:00Z)\n");
    assert!(shown.contains(&line), "{shown}");
    let report = "agent 'web' did not come up. Correct it.\n";
    assert!(
        shown.contains(&format!("{report}  no system here\n")),
        "{shown}"
    );
    assert!(fake.agent(&["list"]).ok().contains(report));
    let json = fake.agent(&["show", "web", "--json"]).ok();
    let value: serde_json::Value = serde_json::from_str(&json).expect("one value");
    assert_eq!(value["own_system"]["state"], "failed");
}

#[test]
fn agent_has_its_closure_and_its_last_change() {
    let mut view = guest("web", 1);
    let mut failure = Failure::new(Code::SwitchFailed, "guest 'web' cannot switch");
    failure.log = vec!["\u{1b}[31mthe activation failed\u{1b}[0m".to_owned()];
    view.guest.last_change = Some(LastChange {
        operation: OperationId(7),
        closure: Some(StorePath::parse(CLOSURE).expect("valid")),
        outcome: ChangeOutcome::RolledBack,
        failure: Some(failure),
        at: time("12:00:00"),
    });
    let fake = Fake::new(Router::new().route("/v1/guests/web", respond(&view)));
    assert_snapshot!(fake.agent(&["show", "web"]).transcript(), @r"
    status: 0
    --- stdout
    Name:        web
    Status:      running
    Address:     10.100.0.3
    Slot:        1
    Source:      /nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest
    Closure:     /nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest
    Memory:      4G
    CPUs:        0.5
    Tasks:       4096
    Created:     2026-11-20T10:00:00Z
    Owner:       uid:1000
    Last change: rolled back at 2026-11-20T12:00:00Z

    The last change failed (switch_failed): guest 'web' cannot switch
    The requested closure was /nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest.
      the activation failed
    --- stderr
    ");
    let json = fake.agent(&["show", "web", "--json"]).ok();
    let value: serde_json::Value = serde_json::from_str(&json).expect("one value");
    assert_eq!(value["last_change"]["outcome"], "rolled_back");
}
