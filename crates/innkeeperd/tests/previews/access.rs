//! Tokens of one repository.

use innkeeper_model::access::CreatedToken;
use innkeeper_model::preview::PreviewView;

use crate::host::PreviewHost;
use crate::support::Client;

/// Creates a token for the previews of a repository, and returns a client with it.
pub(crate) fn client_for(host: &PreviewHost, repo: &str, role: &str) -> Client {
    let name = repo.replace('/', "-");
    let request = serde_json::json!({ "name": name, "role": role, "repo": repo }).to_string();
    let created: CreatedToken = host.client().call("POST", "/v1/tokens", &request).read();
    let headers = format!(
        "innkeeper-actor: token:{}\r\ninnkeeper-source: 192.0.2.7\r\n",
        created.record.id
    );
    let socket = host.root().join("run/gateway.sock");
    Client::new(socket).with_headers(&headers)
}

#[test]
fn token_of_a_repository_sees_its_previews_and_no_trace_of_others() {
    let mut host = PreviewHost::with("[gateway]\nenabled = true\ngroup = 'root'");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "feature/x");
    // As GitHub, names are compared without their case.
    let own = client_for(&host, "Octo/Web", "developer");
    let other = client_for(&host, "octo/shop", "admin");

    let previews: Vec<PreviewView> = own.get("/v1/previews");
    assert_eq!(previews.len(), 1);
    assert_eq!(
        own.call("GET", "/v1/previews/web-7/explain", "").status,
        200
    );
    assert_eq!(own.guest("web-7").guest.name.as_str(), "web-7");
    let events = own.events("follow=false");
    assert!(!events.is_empty());
    let operation = events
        .iter()
        .find_map(|event| event.operation)
        .expect("one")
        .to_string();
    assert_eq!(
        own.call("GET", &format!("/v1/operations/{operation}"), "")
            .status,
        200
    );
    own.finish(&own.call("POST", "/v1/previews/web-7/stop", ""));

    assert_eq!(other.call("GET", "/v1/previews", "").body, "[]");
    assert_eq!(other.call("GET", "/v1/guests", "").body, "[]");
    assert!(other.events("follow=false").is_empty());
    assert!(other.events("follow=false&guest=web-7").is_empty());
    for (method, path) in [
        ("GET", "/v1/guests/SLUG"),
        ("GET", "/v1/previews/SLUG"),
        ("GET", "/v1/previews/SLUG/guest"),
        ("GET", "/v1/previews/SLUG/rest"),
        ("GET", "/v1/previews/SLUG/logs"),
        ("GET", "/v1/previews/SLUG/explain"),
        ("POST", "/v1/previews/SLUG/update"),
        ("POST", "/v1/previews/SLUG/start"),
        ("POST", "/v1/previews/SLUG/exec"),
        ("POST", "/v1/previews/SLUG/connect/80"),
        ("POST", "/v1/previews/SLUG/approve"),
        ("POST", "/v1/previews/SLUG/database/reset"),
        ("DELETE", "/v1/previews/SLUG"),
    ] {
        let call = |slug: &str| other.call(method, &path.replace("SLUG", slug), "");
        let (hidden, absent) = (call("web-7"), call("web-8"));
        assert_eq!(hidden.status, 404, "{method} {path}: {hidden:?}");
        let expected = (absent.status, absent.body.replace("web-8", "web-7"));
        assert_eq!((hidden.status, hidden.body), expected, "{method} {path}");
    }
    let (hidden, absent) = (operation.as_str(), "999999");
    let of_operation = |id: &str| other.call("GET", &format!("/v1/operations/{id}"), "").body;
    assert_eq!(
        of_operation(hidden),
        of_operation(absent).replace(absent, hidden)
    );
    let create = r#"{"repo":"octo/web","branch":"main"}"#;
    for path in ["/v1/previews", "/v1/preview-builds"] {
        assert_eq!(other.call("POST", path, create).status, 403, "{path}");
    }
    // The preview still exists.
    assert_eq!(
        host.client().call("GET", "/v1/previews/web-7", "").status,
        200
    );
    daemon.stop();
}
