use axum::Router;
use innkeeper_model::api::{Check, DoctorReport, Verdict};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

fn check(subject: &str, verdict: Verdict, finding: &str, remedy: Option<&str>) -> Check {
    Check {
        subject: subject.to_owned(),
        verdict,
        finding: finding.to_owned(),
        remedy: remedy.map(str::to_owned),
    }
}

fn healthy() -> DoctorReport {
    let checks = vec![
        check("nix", Verdict::Ok, "version 2.8.0", None),
        check(
            "cgroups",
            Verdict::Warning,
            "the pids controller is missing, so --tasks has no effect",
            Some("Mount it: `mount -t cgroup -o pids pids /sys/fs/cgroup/pids`."),
        ),
    ];
    DoctorReport { checks }
}

fn broken() -> DoctorReport {
    let mut report = healthy();
    report.checks.push(check(
        "guest web: network",
        Verdict::Broken,
        "ve-1 is missing",
        Some("`agent stop web`, then `agent start web`."),
    ));
    report
}

fn fake(report: &DoctorReport) -> Fake {
    Fake::new(Router::new().route("/v1/doctor", respond(report)))
}

#[test]
fn broken_checks_have_remedies() {
    assert_snapshot!(fake(&broken()).innkeeper(&["doctor"]).transcript(), @r"
    status: 7
    --- stdout
    [OK] nix: version 2.8.0
    [WARN] cgroups: the pids controller is missing, so --tasks has no effect
            Hint: Mount it: `mount -t cgroup -o pids pids /sys/fs/cgroup/pids`.
    [BROKEN] guest web: network: ve-1 is missing
            Hint: `agent stop web`, then `agent start web`.
    3 links checked: 1 broken, 1 warning.
    --- stderr
    ");
}

#[test]
fn healthy_host_exits_with_0() {
    assert_snapshot!(fake(&healthy()).innkeeper(&["doctor"]).transcript(), @r"
    status: 0
    --- stdout
    [OK] nix: version 2.8.0
    [WARN] cgroups: the pids controller is missing, so --tasks has no effect
            Hint: Mount it: `mount -t cgroup -o pids pids /sys/fs/cgroup/pids`.
    2 links checked: nothing is broken, 1 warning.
    --- stderr
    ");
}

#[test]
fn quiet_prints_problems_only() {
    let run = fake(&broken()).innkeeper(&["doctor", "--quiet"]);
    assert_eq!(run.status, 7);
    assert!(
        !run.stdout.contains("[OK]") && run.stdout.contains("[BROKEN]"),
        "{run:?}"
    );
}

#[test]
fn json_has_the_report_and_the_same_status() {
    let run = fake(&broken()).innkeeper(&["doctor", "--json"]);
    assert_eq!((run.status, run.stderr.as_str()), (7, ""));
    assert_eq!(
        serde_json::from_str::<DoctorReport>(&run.stdout).expect("one value"),
        broken()
    );
}
