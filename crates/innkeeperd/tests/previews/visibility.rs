//! Previews that are not public. No gateway runs here, so Caddy serves nothing of them.

use std::fs;

use innkeeper_model::access::AccessFile;
use innkeeper_model::preview::Visibility;
use innkeeper_model::preview::api::VisibilityReport;

use crate::host::{PreviewHost, app};
use crate::support::wait_until;

const GATEWAY: &str = "[gateway]\nenabled = true\ngroup = 'root'";

fn set(host: &PreviewHost, visibility: &str) -> VisibilityReport {
    let body = format!("{{\"visibility\":{visibility}}}");
    let path = "/v1/previews/web-7/visibility";
    host.client().call("POST", path, &body).read()
}

/// Reports whether a visitor gets nothing of the preview.
fn is_closed(host: &PreviewHost) -> bool {
    let (status, response) = host.browse("web-7", "/", "text/html");
    status == 503 && response.contains("X-Innkeeper-Page: closed")
}

fn is_open(host: &PreviewHost) -> bool {
    host.browse("web-7", "/", "text/html").0 == 200
}

fn listed(host: &PreviewHost) -> AccessFile {
    let text = fs::read(host.root().join("run/gateway/access.json")).expect("the list");
    serde_json::from_slice(&text).expect("a list")
}

#[test]
fn stricter_visibility_is_in_force_when_the_call_returns_and_after_a_crash() {
    let mut host = PreviewHost::with(GATEWAY);
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    assert!(is_open(&host));
    assert_eq!(listed(&host).previews, []);
    assert_eq!(set(&host, "\"team\"").visibility, Visibility::Team);
    assert!(is_closed(&host));
    let list = listed(&host);
    assert_eq!(list.previews[0].visibility, Visibility::Team);
    assert_eq!(list.previews[0].hosts, ["web-7.localhost"]);
    // A push with another version does not open it.
    let files = [("preview-config.nix", app()), ("x", "y".to_owned())];
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    let sha = host.push(7, "topic", &files);
    host.wait_for_state(7, &sha, innkeeper_model::preview::PreviewState::Live);
    assert!(is_closed(&host));
    set(&host, "null");
    wait_until("it is open", || is_open(&host));
    daemon.stop();

    for (point, recorded) in [
        ("preview:record-visibility:before", false),
        ("preview:record-visibility:after", true),
        ("preview:enforce-visibility:before", true),
        ("preview:enforce-visibility:after", true),
    ] {
        let crashing = host.sandbox.start_with(&[("INNKEEPER_CRASH_AT", point)]);
        let body = "{\"visibility\":\"private\"}";
        let path = "/v1/previews/web-7/visibility";
        assert!(
            host.client().try_call("POST", path, body).is_err(),
            "{point}"
        );
        assert!(!crashing.wait().success(), "{point}: it was not killed");
        let daemon = host.start();
        assert_eq!(is_closed(&host), recorded, "{point}");
        assert_eq!(
            listed(&host).previews.len(),
            usize::from(recorded),
            "{point}"
        );
        set(&host, "null");
        wait_until("it is open", || is_open(&host));
        daemon.stop();
    }
}
