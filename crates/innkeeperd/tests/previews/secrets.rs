//! Secrets of repositories, set by command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use innkeeper_model::access::AuditEntry;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::secrets::{RepoSecrets, SecretChange, SecretChanged, SecretState};
use innkeeper_model::{Failure, GuestName};

use crate::access::client_for;
use crate::host::{PreviewHost, app};
use crate::support::{Client, Response, wait_until};

const PATH: &str = "/v1/secrets/octo/web/STRIPE_KEY";

fn set(client: &Client, value: &str) -> Response {
    let body = serde_json::json!({ "value": value }).to_string();
    client.call("POST", PATH, &body)
}

fn slugs(slugs: &[GuestName]) -> Vec<&str> {
    slugs.iter().map(GuestName::as_str).collect()
}

/// The app with a request for a secret.
fn app_with_secret() -> String {
    app().replacen(
        "database =",
        "hostSecrets = [ \"STRIPE_KEY\" ];\n    database =",
        1,
    )
}

#[test]
fn secret_reaches_the_guest_when_the_preview_is_updated() {
    let mut host = PreviewHost::with("[gateway]\nenabled = true\ngroup = 'root'");
    let daemon = host.start();
    host.start_webhook();
    // By a machine with a token for this repository.
    let operator = client_for(&host, "octo/web", "operator");
    let created: SecretChanged = set(&operator, "sk_live_1").read();
    assert_eq!(created.change, SecretChange::Created);
    let sha = host.commit("ours", &[("preview-config.nix", &app_with_secret())]);
    host.pull(7, "ours", &sha);
    host.deliver(7, "opened");
    let view = host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(view.outlook.stale_secrets, []);
    let environment = || host.exec("web-7", &["cat", "/etc/preview.env"]);
    assert!(environment().contains("STRIPE_KEY='sk_live_1'"));

    let replaced: SecretChanged = set(&operator, "sk_live\n2").read();
    assert_eq!(replaced.change, SecretChange::Replaced);
    assert_eq!(slugs(&replaced.needs_restart), ["web-7"]);
    let unchanged: SecretChanged = set(&operator, "sk_live\n2").read();
    assert_eq!(unchanged.change, SecretChange::Unchanged);
    assert_eq!(slugs(&unchanged.needs_restart), ["web-7"]);
    // The daemon remembers it.
    daemon.stop();
    let daemon = host.start();
    let view = host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(view.outlook.stale_secrets.len(), 1);
    let explained = host.client().call("GET", "/v1/previews/web-7/explain", "");
    let expected = "the app runs with a former value of STRIPE_KEY";
    assert!(explained.body.contains(expected), "{explained:?}");
    let log = host.client().call("GET", "/v1/previews/web-7/logs", "");
    assert!(
        log.body.contains("`preview update web-7` restarts it"),
        "{log:?}"
    );
    assert!(environment().contains("sk_live_1"));

    let updated = host.client().call("POST", "/v1/previews/web-7/update", "");
    assert_eq!(updated.status, 202, "{updated:?}");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(environment().contains("STRIPE_KEY='sk_live\n2'"));
    wait_until("no restart is needed any more", || {
        let view = host.preview(7).expect("there");
        view.outlook.stale_secrets.is_empty()
    });

    let removed: SecretChanged = operator.call("DELETE", PATH, "").read();
    assert_eq!(removed.change, SecretChange::Removed);
    let listed: RepoSecrets = operator.get("/v1/secrets/octo/web");
    let [secret] = &listed.secrets[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(
        (secret.name.as_str(), secret.state),
        ("STRIPE_KEY", SecretState::Missing)
    );
    assert_eq!(
        (slugs(&secret.used_by), slugs(&secret.needs_restart)),
        (vec!["web-7"], vec!["web-7"])
    );
    let absent = operator.call("DELETE", PATH, "");
    assert_eq!(absent.status, 404, "{absent:?}");

    let entries: Vec<AuditEntry> = host.client().get("/v1/audit");
    let entries: Vec<_> = (entries.iter())
        .filter(|entry| entry.verb.starts_with("secret-"))
        .map(|entry| {
            (
                entry.verb.as_str(),
                entry.object.as_deref(),
                entry.result.as_deref(),
            )
        })
        .collect();
    let object = Some("octo/web/STRIPE_KEY");
    assert_eq!(
        entries,
        [
            ("secret-set", object, Some("ok")),
            ("secret-set", object, Some("ok")),
            ("secret-set", object, Some("ok")),
            ("secret-remove", object, Some("ok")),
            ("secret-remove", object, Some("secret_not_found")),
        ]
    );
    daemon.stop();
}

#[test]
fn file_of_secrets_keeps_its_other_lines_and_is_for_root() {
    let host = PreviewHost::with("[gateway]\nenabled = true\ngroup = 'root'");
    let secrets = host.root().join("secrets/octo");
    fs::create_dir_all(&secrets).expect("made");
    let file = secrets.join("web.env");
    fs::write(&file, "# the shop's\nOTHER='1'\n").expect("written");
    let daemon = host.start();
    let client = host.client();
    let created: SecretChanged = set(&client, "it's").read();
    assert_eq!(created.needs_restart, []);
    let contents = fs::read_to_string(&file).expect("read");
    assert_eq!(contents, "# the shop's\nOTHER='1'\nSTRIPE_KEY=\"it's\"\n");
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    for (path, body) in [
        ("/v1/secrets/octo/web/A-B", r#"{"value":"x"}"#),
        ("/v1/secrets/octo/web/BASH_ENV", r#"{"value":"x"}"#),
        ("/v1/secrets/octo/..%2fweb/A", r#"{"value":"x"}"#),
        (PATH, r#"{"value":""}"#),
        (PATH, r#"{"value":"hunter2\u0000"}"#),
        (PATH, r#"{"value":"x","more":1}"#),
    ] {
        let refused = client.call("POST", path, body);
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
        assert!(!refused.body.contains("hunter2"), "{refused:?}");
    }
    let refused = set(&client, &"x".repeat(33_000));
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(fs::read_to_string(&file).expect("read"), contents);

    let developer = client_for(&host, "octo/web", "developer");
    let other = client_for(&host, "octo/shop", "admin");
    for client in [developer, other] {
        for (method, path) in [
            ("GET", "/v1/secrets/octo/web"),
            ("POST", PATH),
            ("DELETE", PATH),
        ] {
            let refused = client.call(method, path, r#"{"value":"x"}"#);
            let failure: Failure = refused.read();
            assert_eq!(failure.code.as_str(), "forbidden");
        }
    }
    // Another program manages the target of a link.
    fs::rename(&file, secrets.join("managed")).expect("renamed");
    std::os::unix::fs::symlink(secrets.join("managed"), &file).expect("linked");
    let refused = set(&client, "x");
    assert!(
        refused.body.contains("another program manages"),
        "{refused:?}"
    );
    daemon.stop();
}
