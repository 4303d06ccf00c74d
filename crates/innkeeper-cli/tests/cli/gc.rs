use axum::Router;
use innkeeper_model::api::{GcReport, Orphan};
use innkeeper_model::{Code, Failure, Ownership};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

fn orphan(resource: &str, object: &str, removed: bool) -> Orphan {
    Orphan {
        resource: resource.to_owned(),
        object: object.to_owned(),
        removed,
        ownership: Ownership::Ours,
        failure: None,
    }
}

fn fake(report: &GcReport) -> Fake {
    Fake::new(Router::new().route("/v1/gc", respond(report)))
}

fn partial_report() -> GcReport {
    let mut stuck = orphan("network", "ve-9", false);
    let failure = Failure::new(
        Code::NetworkFailed,
        "cannot remove ve-9: Device or resource busy",
    );
    stuck.failure = Some(failure.with_remedy("`ip link show ve-9` tells who uses it."));
    GcReport {
        dry_run: false,
        orphans: vec![
            orphan("rootfs", "/var/lib/innkeeper/guests/old", true),
            stuck,
        ],
        failures: Vec::new(),
    }
}

#[test]
fn remaining_orphan_is_a_failure() {
    let fake = fake(&partial_report());
    assert_snapshot!(fake.innkeeper(&["gc"]).transcript(), @r"
    status: 7
    --- stdout
    Removed rootfs /var/lib/innkeeper/guests/old
    [OK] 1 of 2 orphans removed.
    --- stderr
    [ERROR] cannot remove ve-9: Device or resource busy
            Hint: `ip link show ve-9` tells who uses it.
    ");
    assert_eq!(fake.requests(), [r#"POST /v1/gc {"dry_run":false}"#]);
}

#[test]
fn dry_run_removes_nothing() {
    let report = GcReport {
        dry_run: true,
        orphans: vec![orphan("rootfs", "/var/lib/innkeeper/guests/old", false)],
        failures: Vec::new(),
    };
    let fake = fake(&report);
    assert_snapshot!(fake.innkeeper(&["gc", "--dry-run"]).transcript(), @r"
    status: 0
    --- stdout
    Would remove rootfs /var/lib/innkeeper/guests/old
    [OK] 1 orphan found, nothing removed.
    --- stderr
    ");
    assert_eq!(fake.requests(), [r#"POST /v1/gc {"dry_run":true}"#]);
}

#[test]
fn foreign_and_unmarked_objects_are_kept() {
    let owned = |object, removed, ownership| Orphan {
        ownership,
        ..orphan("network", object, removed)
    };
    let report = |removed| GcReport {
        dry_run: false,
        orphans: vec![
            owned("ve-3", false, Ownership::Other),
            owned("ve-4", removed, Ownership::Unmarked),
        ],
        failures: Vec::new(),
    };
    let cautious = fake(&report(false));
    assert_snapshot!(cautious.innkeeper(&["gc"]).transcript(), @r"
    status: 0
    --- stdout
    Kept network ve-3: it belongs to another daemon on this host
    Kept network ve-4: it has no daemon's mark; --unmarked removes it too
    [OK] 0 of 1 orphan removed.
    --- stderr
    ");
    let with_unmarked = fake(&report(true));
    assert_snapshot!(with_unmarked.innkeeper(&["gc", "--unmarked"]).transcript(), @r"
    status: 0
    --- stdout
    Kept network ve-3: it belongs to another daemon on this host
    Removed network ve-4
    [OK] 1 of 1 orphan removed.
    --- stderr
    ");
    assert_eq!(
        with_unmarked.requests(),
        [r#"POST /v1/gc {"dry_run":false,"unmarked":true}"#]
    );
}

#[test]
fn empty_report_has_a_note() {
    let report = GcReport {
        dry_run: false,
        orphans: Vec::new(),
        failures: Vec::new(),
    };
    assert_eq!(fake(&report).innkeeper(&["gc"]).ok(), "(no orphans)\n");
}

#[test]
fn json_has_the_report_and_the_same_status() {
    let run = fake(&partial_report()).innkeeper(&["gc", "--json"]);
    assert_eq!((run.status, run.stderr.as_str()), (7, ""));
    assert_eq!(
        serde_json::from_str::<GcReport>(&run.stdout).expect("one value"),
        partial_report()
    );
}

#[test]
fn failed_check_is_reported_with_the_rest() {
    let failure = Failure::new(Code::DatabaseFailed, "PostgreSQL does not respond");
    let mut report = partial_report();
    report.orphans.truncate(1);
    report.failures = vec![failure.with_remedy("Start it.")];
    assert_snapshot!(fake(&report).innkeeper(&["gc"]).transcript(), @r"
    status: 7
    --- stdout
    Removed rootfs /var/lib/innkeeper/guests/old
    [OK] 1 of 1 orphan removed.
    --- stderr
    [ERROR] PostgreSQL does not respond
            Hint: Start it.
    ");
    report.orphans.clear();
    assert_snapshot!(fake(&report).innkeeper(&["gc"]).transcript(), @r"
    status: 7
    --- stdout
    (no orphans; some checks failed)
    --- stderr
    [ERROR] PostgreSQL does not respond
            Hint: Start it.
    ");
}
