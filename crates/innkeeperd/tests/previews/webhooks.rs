//! `innkeeper doctor` about the webhooks of repositories.

use innkeeper_model::api::{Check, DoctorReport, Verdict};
use serde_json::json;

use crate::github::payload::RawDelivery;
use crate::host::PreviewHost;

#[test]
fn doctor_shows_pings_and_deliveries_after_a_restart() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let ping = json!({
        "hook": { "active": true, "events": ["pull_request"], "config": { "content_type": "json" } },
        "repository": { "full_name": "octo/new" },
    });
    let ping = RawDelivery::signed("p-1", "ping", ping.to_string());
    assert_eq!(host.send(&ping), 200);
    daemon.stop();

    let daemon = host.start();
    let check = |host: &PreviewHost| -> Check {
        let report: DoctorReport = host.client().get("/v1/doctor");
        let mut checks = report.checks.into_iter();
        let found = checks.find(|check| check.subject == "webhook octo/new");
        found.expect("a check of the webhook")
    };
    let found = check(&host);
    assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
    assert!(
        found.finding.contains("'repository' is not selected"),
        "{found:?}"
    );
    assert!(found.finding.contains("no delivery on record"), "{found:?}");
    daemon.stop();
    // The response does not depend on the daemon.
    assert_eq!(host.send(&ping), 200);
}
