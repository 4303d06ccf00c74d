//! Tokens of other machines, and the socket of the gateway.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use innkeeper_model::access::{
    Amount, AuditEntry, QuotaReport, ReadyReport, TokenRecord, TokenText, TokensFile,
};

use crate::support::{Client, Fixture, Response, Sandbox, closure, create_body, flake, wait_until};

/// Creates a token with the program, and returns the only line that it prints.
fn create(sandbox: &Sandbox, arguments: &[&str]) -> TokenText {
    let arguments = [&["token", "create"], arguments].concat();
    let output = sandbox.program("innkeeper", &arguments, b"");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    TokenText::parse(text.trim_end_matches('\n')).expect("a token")
}

fn list(sandbox: &Sandbox) -> Vec<TokenRecord> {
    let output = sandbox.program("innkeeper", &["token", "list", "--all", "--json"], b"");
    serde_json::from_slice(&output.stdout).expect("a list")
}

/// Returns the digests in the file for the gateway.
fn published(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read(sandbox.path().join("run/gateway/tokens.json")).expect("the file");
    let file: TokensFile = serde_json::from_slice(&text).expect("parses");
    file.tokens.into_iter().map(|token| token.sha256).collect()
}

fn digest(token: &TokenText) -> String {
    let digest = token.digest();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports whether a file below a directory contains a text.
fn contains(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).expect("a directory").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return contains(&path, text);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

#[test]
fn tokens_are_published_as_digests_until_they_are_revoked() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[gateway]\nenabled = true\ngroup = 'root'");
    let daemon = sandbox.start();
    assert!(published(&sandbox).is_empty());
    let ci = create(&sandbox, &["ci", "--role", "viewer", "--repo", "octo/web"]);
    let alice = create(&sandbox, &["alice", "--expires", "30d"]);
    assert_eq!(published(&sandbox), [digest(&ci), digest(&alice)]);
    let file = sandbox.path().join("run/gateway/tokens.json");
    for (path, mode) in [
        (file.as_path(), 0o640),
        (file.parent().expect("a parent"), 0o750),
    ] {
        let found = fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{}", path.display());
    }
    for token in [&ci, &alice] {
        assert!(
            !contains(sandbox.path(), token.text().expose()),
            "a secret is on the disk"
        );
    }
    // A crash loses neither a token nor a revocation.
    daemon.kill();
    fs::remove_file(&file).expect("removes");
    let daemon = sandbox.start();
    assert_eq!(published(&sandbox), [digest(&ci), digest(&alice)]);
    let revoked = sandbox.program("innkeeper", &["token", "revoke", "ci"], b"");
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(published(&sandbox), [digest(&alice)]);
    daemon.kill();
    let _daemon = sandbox.start();
    assert_eq!(published(&sandbox), [digest(&alice)]);
    let states: Vec<_> = (list(&sandbox).into_iter())
        .map(|token| (token.name.to_string(), token.revoked_at.is_some()))
        .collect();
    assert_eq!(
        states,
        [("ci".to_owned(), true), ("alice".to_owned(), false)]
    );
}

#[test]
fn only_root_manages_tokens() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let socket = sandbox.path().join("run/api.sock");
    // As accessible as for members of the group.
    for path in [sandbox.path(), &sandbox.path().join("run"), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    create(&sandbox, &["ci"]);
    let refused = |arguments: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=64999", "--regid=64999", "--clear-groups"])
            .args(["curl", "--silent", "--unix-socket"])
            .arg(&socket)
            .args(arguments)
            .output()
            .expect("curl");
        let failure: innkeeper_model::Failure = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(failure.code.as_str(), "forbidden", "{arguments:?}");
    };
    refused(&["http://innkeeper/v1/tokens"]);
    refused(&[
        "--data",
        r#"{"name":"mine","role":"admin"}"#,
        "http://innkeeper/v1/tokens",
    ]);
    refused(&["--request", "DELETE", "http://innkeeper/v1/tokens/ci"]);
    let tokens = list(&sandbox);
    assert!(
        tokens.len() == 1 && tokens[0].revoked_at.is_none(),
        "{tokens:?}"
    );
}

/// Returns a client of the gateway's socket, for an actor.
fn gateway(sandbox: &Sandbox, actor: Option<&TokenText>) -> Client {
    let client = Client::new(sandbox.path().join("run/gateway.sock"));
    match actor {
        Some(token) => client.with_headers(&format!(
            "innkeeper-actor: token:{}\r\ninnkeeper-source: 192.0.2.7\r\n",
            token.id()
        )),
        None => client,
    }
}

/// Requires that two responses are the same refusal, apart from the names of their objects.
fn require_same(hidden: &Response, hidden_name: &str, absent: &Response, absent_name: &str) {
    assert_eq!(hidden.status, 404, "{hidden:?}");
    let expected = (absent.status, absent.body.replace(absent_name, hidden_name));
    assert_eq!((hidden.status, hidden.body.clone()), expected);
}

#[test]
fn actors_have_the_rights_of_their_roles() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("[gateway]\nenabled = true\ngroup = 'root'");
    let _daemon = sandbox.start();
    let before = sandbox.traces();
    let create = |arguments: &[&str]| create(&sandbox, arguments);
    let viewer = create(&["viewer", "--role", "viewer"]);
    let alice = create(&["alice"]);
    let bob = create(&["bob"]);
    let operator = create(&["operator", "--role", "operator"]);
    let admin = create(&["admin", "--role", "admin"]);
    let of_repo = create(&["of-repo", "--role", "operator", "--repo", "octo/web"]);
    let client = |token| gateway(&sandbox, Some(token));

    let nobody = gateway(&sandbox, None);
    let ready = nobody.call("GET", "/v1/ready", "");
    let report: ReadyReport = ready.read();
    assert_eq!(
        (ready.status == 200, report.failing.is_empty()),
        (report.ready, report.ready)
    );
    let refused = nobody.call("GET", "/v1/guests", "");
    assert_eq!(refused.status, 401);
    assert!(
        refused.body.contains(r#""error":"unauthorized""#),
        "{refused:?}"
    );

    let body = create_body("web", &closure);
    let forbidden = |client: &Client, method: &str, path: &str, body: &str| {
        let response = client.call(method, path, body);
        assert_eq!(response.status, 403, "{method} {path}: {response:?}");
        assert_eq!(response.failure().code.as_str(), "forbidden");
    };
    forbidden(&client(&viewer), "POST", "/v1/guests", &body);
    let created = client(&alice).call("POST", "/v1/guests", &body);
    let operation = client(&alice).finish(&created);
    assert_eq!(operation.failure, None, "{operation:?}");
    let owner = format!("token:{}", alice.id());
    assert_eq!(
        client(&viewer).guest("web").guest.owner,
        Some(owner.clone())
    );

    // Another developer sees the agent, and changes nothing.
    assert_eq!(
        client(&bob).call("GET", "/v1/guests/web/logs", "").status,
        200
    );
    for (method, path, body) in [
        ("DELETE", "/v1/guests/web", ""),
        ("POST", "/v1/guests/web/stop", ""),
        ("POST", "/v1/guests/web/set", r#"{"memory":"256M"}"#),
        ("POST", "/v1/guests/web/exec", r#"{"command":["id"]}"#),
        ("POST", "/v1/guests/web/connect/80", ""),
        ("POST", "/v1/guests/web/fork", r#"{"name":"copy"}"#),
    ] {
        forbidden(&client(&bob), method, path, body);
    }
    client(&operator).change("web", "stop");
    client(&alice).change("web", "start");

    // A token of one repository sees no agent, and no trace of one.
    let limited = client(&of_repo);
    assert_eq!(limited.call("GET", "/v1/guests", "").body, "[]");
    let call = |path: &str| limited.call("GET", path, "");
    require_same(
        &call("/v1/guests/web"),
        "web",
        &call("/v1/guests/nix"),
        "nix",
    );
    let id = operation.id.to_string();
    let operations = |id: &str| call(&format!("/v1/operations/{id}"));
    require_same(&operations(&id), &id, &operations("999999"), "999999");
    assert!(limited.events("follow=false").is_empty());
    assert!(!client(&viewer).events("follow=false").is_empty());
    forbidden(&limited, "GET", "/v1/status", "");
    forbidden(&limited, "GET", "/v1/guests/web/logs", "");

    // No role has root's rights.
    let local = format!(r#"{{"name":"x","flake":"{}"}}"#, flake(Fixture::Agent));
    let refused = client(&admin).call("POST", "/v1/guests", &local);
    assert_eq!(refused.failure().code.as_str(), "flake_refused");
    for (method, path) in [
        ("GET", "/v1/config"),
        ("POST", "/v1/prefetches"),
        ("POST", "/v1/backups"),
        ("POST", "/v1/backups/restore"),
    ] {
        forbidden(&client(&admin), method, path, "");
    }

    client(&alice).destroy("web");
    before.assert_same(&sandbox.traces(), "after the destroy");
    let output = sandbox.program("innkeeper", &["audit", "--actor", "alice", "--json"], b"");
    let entries: Vec<AuditEntry> = serde_json::from_slice(&output.stdout).expect("a list");
    let found: Vec<_> = (entries.iter())
        .map(|entry| {
            let object = entry.object.as_deref().unwrap_or_default();
            assert_eq!(entry.source.as_deref(), Some("192.0.2.7"));
            assert_eq!(entry.actor, owner);
            format!(
                "{} {object} {}",
                entry.verb,
                entry.result.as_deref().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "guest-create web ok",
            "guest-start web ok",
            "guest-destroy web ok"
        ]
    );
    let local = sandbox.program("innkeeper", &["audit", "--actor", "uid:0", "--json"], b"");
    let local: Vec<AuditEntry> = serde_json::from_slice(&local.stdout).expect("a list");
    let created = local.iter().filter(|entry| entry.verb == "token-create");
    assert_eq!(created.count(), 6);
    assert!(
        local
            .iter()
            .any(|entry| entry.object.as_deref() == Some("admin (admin)"))
    );
}

#[test]
fn revocation_ends_requests_and_streams_at_once() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[gateway]\nenabled = true\ngroup = 'root'");
    let _daemon = sandbox.start();
    let token = create(&sandbox, &["ci"]);
    let client = gateway(&sandbox, Some(&token));
    assert_eq!(client.call("GET", "/v1/status", "").status, 200);
    assert!(list(&sandbox)[0].last_used_at.is_some());
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| client.call("GET", "/v1/events?follow=true", ""));
        // The stream holds until the revocation.
        wait_until("the stream is open", || connections(&sandbox) > 0);
        assert!(!stream.is_finished());
        let revoked = sandbox.program("innkeeper", &["token", "revoke", "ci"], b"");
        assert!(revoked.status.success(), "{revoked:?}");
        assert_eq!(stream.join().expect("ends").status, 200);
    });
    assert_eq!(client.call("GET", "/v1/status", "").status, 401);
}

/// Returns the number of established connections on the gateway's socket.
fn connections(sandbox: &Sandbox) -> usize {
    let path = sandbox
        .path()
        .join("run/gateway.sock")
        .display()
        .to_string();
    let sockets = fs::read_to_string("/proc/thread-self/net/unix").expect("reads");
    // Columns: Num RefCount Protocol Flags Type St Inode Path; state 3 is connected (net/unix/af_unix.c). A renamed socket
    // keeps the name that it was bound to.
    let bound = path.replace(".sock", ".new");
    let rows = sockets
        .lines()
        .filter(|line| line.ends_with(&bound) || line.ends_with(&path));
    rows.filter(|line| line.split_whitespace().nth(5) == Some("03"))
        .count()
}

#[test]
fn only_the_gateway_may_use_its_socket() {
    let mut sandbox = Sandbox::new();
    // A group without members: only its own processes and root may connect.
    sandbox.configure("[gateway]\nenabled = true\ngroup = 'daemon'");
    let _daemon = sandbox.start();
    let socket = sandbox.path().join("run/gateway.sock");
    let mode = fs::metadata(&socket).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    for path in [sandbox.path(), &sandbox.path().join("run"), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let ready = |user: &[&str]| {
        let output = Command::new("setpriv")
            .args(user)
            .args(["curl", "--silent", "--unix-socket"])
            .arg(&socket)
            .arg("http://innkeeper/v1/ready")
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).contains("ready")
    };
    assert!(ready(&[
        "--reuid=64999",
        "--regid=daemon",
        "--clear-groups"
    ]));
    assert!(!ready(&[
        "--reuid=64999",
        "--regid=64999",
        "--clear-groups"
    ]));
    assert!(
        !ready(&["--reuid=64999", "--regid=64999", "--groups=daemon"]),
        "a member is not the gateway"
    );
}

#[test]
fn there_is_no_gateway_socket_unless_it_is_enabled() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    assert!(!sandbox.path().join("run/gateway.sock").exists());
}

#[test]
fn quota_of_a_role_limits_the_agents_of_each_token() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure(
        "[gateway]\nenabled = true\ngroup = 'root'\n\
         [quotas.developer]\nagents = 1\n\
         [quotas.actors.Bob]\nmemory_gib = 1",
    );
    let _daemon = sandbox.start();
    let alice = gateway(&sandbox, Some(&create(&sandbox, &["alice"])));
    let bob = gateway(&sandbox, Some(&create(&sandbox, &["bob"])));
    let body = |name: &str| create_body(name, &closure);
    alice.create("a", &closure);
    let refused = alice.call("POST", "/v1/guests", &body("b")).failure();
    assert_eq!(refused.code.as_str(), "quota_exceeded");
    let remedy = refused.remedy.expect("a remedy");
    assert!(remedy.contains("quotas.developer.agents"), "{remedy}");
    let refused = alice
        .call("POST", "/v1/guests/a/fork", r#"{"name":"c"}"#)
        .failure();
    assert_eq!(refused.code.as_str(), "quota_exceeded");
    // A quota of its own replaces that of the role.
    bob.create("d", &closure);
    bob.create("e", &closure);
    let refused = bob
        .call("POST", "/v1/guests/d/set", r#"{"memory":"1G"}"#)
        .failure();
    assert_eq!(refused.code.as_str(), "quota_exceeded");
    let remedy = refused.remedy.expect("a remedy");
    assert!(
        remedy.contains("quotas.actors.\"Bob\".memory_gib"),
        "{remedy}"
    );
    // Each sees itself, and root all.
    let own: QuotaReport = alice.get("/v1/quotas");
    let [one] = &own.actors[..] else {
        panic!("{own:?}");
    };
    assert_eq!(
        (one.actor.as_str(), one.name.as_deref()),
        ("token:1", Some("alice"))
    );
    assert_eq!(one.table.as_deref(), Some("quotas.developer"));
    let amount = |used, limit| Amount { used, limit };
    assert_eq!(one.agents, amount(1, Some(1)));
    assert_eq!(one.memory_bytes, amount(128 << 20, None));
    // Root has no quota.
    sandbox.client().create("f", &closure);
    let all: QuotaReport = sandbox.client().get("/v1/quotas");
    let seen: Vec<_> = (all.actors.iter())
        .map(|one| (one.name.as_deref(), one.agents, one.memory_bytes.limit))
        .collect();
    let expected = [
        (Some("alice"), amount(1, Some(1)), None),
        (Some("bob"), amount(2, None), Some(1 << 30)),
        (None, amount(1, None), None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        sandbox.client().guest("d").owner_name.as_deref(),
        Some("bob")
    );
    // A removed agent makes room.
    alice.destroy("a");
    alice.create("b", &closure);
    for (client, name) in [(&alice, "b"), (&bob, "d"), (&bob, "e")] {
        client.destroy(name);
    }
    sandbox.client().destroy("f");
}
