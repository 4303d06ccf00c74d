//! Invalid requests are rejected with a stable code, the object's name and a remedy, and leave nothing behind.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use innkeeper_model::{Failure, Operation};

use crate::support::{Client, Fixture, Sandbox, closure, flake};

fn rejection(client: &Client, body: &str) -> Failure {
    client.call("POST", "/v1/guests", body).failure()
}

/// Creates a guest that fails, at once or as an operation, and returns the failure.
pub(crate) fn create_failure(client: &Client, body: &str) -> Failure {
    let answer = client.call("POST", "/v1/guests", body);
    if answer.status != 202 {
        return answer.failure();
    }
    let operation: Operation = client.finish(&answer);
    operation.failure.expect("the operation failed")
}

pub(crate) fn assert_failure(failure: &Failure, code: &str, object: &str) {
    assert_eq!(failure.code.as_str(), code, "{failure:?}");
    assert!(
        failure.message.contains(object),
        "does not name {object}: {failure:?}"
    );
    assert!(failure.remedy.is_some(), "no remedy: {failure:?}");
}

#[test]
fn invalid_requests_are_rejected_without_effects() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();

    for (body, code) in [
        (r#"{"name":"../../etc"}"#, "invalid_request"),
        (r#"{"name":"Web"}"#, "invalid_request"),
        (r#"{"memory":"lots"}"#, "invalid_request"),
        (r#"{"cpus":"0"}"#, "invalid_request"),
        (r#"{"tasks":0,"flake":"/x"}"#, "invalid_request"),
        (r#"{"closure":"/etc/passwd"}"#, "invalid_request"),
        (r#"{"flake":"--impure"}"#, "invalid_request"),
        (r#"{"nmae":"web"}"#, "invalid_request"),
        (r#"{"name":"web"}"#, "flake_unset"),
        (r#"not json"#, "invalid_request"),
    ] {
        assert_eq!(rejection(&client, body).code.as_str(), code, "{body}");
    }
    let both = format!(
        r#"{{"flake":"/x","closure":"{}"}}"#,
        closure(Fixture::Agent)
    );
    assert_eq!(rejection(&client, &both).code.as_str(), "invalid_request");
    for (method, path, code) in [
        ("GET", "/v1/guests/nobody", "guest_not_found"),
        ("DELETE", "/v1/guests/nobody", "guest_not_found"),
        ("POST", "/v1/guests/nobody/start", "guest_not_found"),
        ("GET", "/v1/guests/nobody/logs", "guest_not_found"),
        ("GET", "/v1/guests/No.Body", "invalid_name"),
        ("GET", "/v1/operations/99", "operation_not_found"),
        ("GET", "/v1/nothing", "invalid_request"),
    ] {
        assert_eq!(
            client.call(method, path, "").failure().code.as_str(),
            code,
            "{method} {path}"
        );
    }
    before.assert_same(&sandbox.traces(), "after refusals");
}

#[test]
fn preview_calls_fail_without_a_domain() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    for (method, path) in [
        ("GET", "previews"),
        ("POST", "previews"),
        ("GET", "previews/web-7"),
        ("DELETE", "previews/web-7"),
        ("POST", "previews/web-7/update"),
        ("POST", "previews/web-7/approve"),
        ("POST", "previews/web-7/database/reset"),
        ("GET", "previews/web-7/logs"),
        ("GET", "previews/web-7/explain"),
        ("POST", "preview-builds"),
        ("GET", "preview-checks"),
        ("POST", "preview-checks"),
    ] {
        let path = format!("/v1/{path}");
        let failure = client.call(method, &path, "").failure();
        assert_failure(&failure, "invalid_config", "previews");
        let remedy = failure.remedy.expect("a remedy");
        assert!(
            remedy.contains("previews.domain"),
            "{method} {path}: {remedy}"
        );
    }
}

#[test]
fn closures_that_cannot_boot_are_rejected() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let empty = closure(Fixture::NoInit);
    assert_failure(
        &rejection(&client, &format!(r#"{{"name":"web","closure":"{empty}"}}"#)),
        "invalid_closure",
        &empty,
    );
    let absent = "/nix/store/00000000000000000000000000000000-nothing";
    assert_failure(
        &rejection(
            &client,
            &format!(r#"{{"name":"web","closure":"{absent}"}}"#),
        ),
        "closure_not_found",
        absent,
    );
    // Built first, then rejected and rolled back.
    let failure = create_failure(
        &client,
        &format!(r#"{{"name":"web","flake":"{}"}}"#, flake(Fixture::NoInit)),
    );
    assert_failure(&failure, "invalid_closure", "init");
    let failure = create_failure(&client, r#"{"name":"web","flake":"/nowhere/at/all"}"#);
    assert_failure(&failure, "flake_not_found", "/nowhere/at/all");
    let broken = flake(Fixture::Agent).replace("#agent", "#failing");
    let failure = create_failure(&client, &format!(r#"{{"name":"web","flake":"{broken}"}}"#));
    assert_failure(&failure, "build_failed", "failing");
    assert!(
        failure
            .log
            .iter()
            .any(|line| line.contains("line 50 of a build")),
        "{failure:?}"
    );
    before.assert_same(&sandbox.traces(), "after refusals");
}

#[test]
fn without_nix_a_build_fails_and_a_registered_closure_boots() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("program = '/nowhere/nix'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let body = format!(r#"{{"name":"web","flake":"{}"}}"#, flake(Fixture::Agent));
    assert_failure(
        &create_failure(&client, &body),
        "nix_missing",
        "/nowhere/nix",
    );
    // Nix's database lists the path.
    client.create("web", &closure);
    client.destroy("web");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn only_root_may_use_local_flakes() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let socket = sandbox.path().join("run/api.sock");
    // As accessible as for members of the group.
    for path in [sandbox.path(), &sandbox.path().join("run"), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let before = sandbox.traces();
    let rejection = |path: &str, body: &str| -> Failure {
        let answer = Command::new("setpriv")
            .args(["--reuid=64999", "--regid=64999", "--clear-groups"])
            .args(["curl", "--silent", "--unix-socket"])
            .arg(&socket)
            .args(["--data", body, &format!("http://innkeeper{path}")])
            .output()
            .expect("curl");
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    };
    let local = flake(Fixture::Agent);
    let calls = [
        (
            "/v1/guests",
            format!(r#"{{"name":"web","flake":"{local}"}}"#),
        ),
        ("/v1/builds", format!(r#"{{"installable":"{local}"}}"#)),
    ];
    for (path, body) in calls {
        let failure = rejection(path, &body);
        let reference = local.split('#').next().expect("a reference");
        assert_failure(&failure, "flake_refused", reference);
    }
    before.assert_same(&sandbox.traces(), "after refusals");
}

#[test]
fn a_missing_nspawn_rolls_the_create_back() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).expect("made");
    // A variable, because the sandbox writes the section itself.
    sandbox.configure("");
    let _daemon = sandbox.start_with(&[("INNKEEPER_SUPERVISOR_NSPAWN", "/nowhere/systemd-nspawn")]);
    let client = sandbox.client();
    let before = sandbox.traces();
    let failure = create_failure(
        &client,
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert_failure(&failure, "program_missing", "/nowhere/systemd-nspawn");
    before.assert_same(&sandbox.traces(), "after the rollback");
}
