//! Tokens of other machines.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use innkeeper_model::access::{TokenRecord, TokenText, TokensFile};

use crate::support::Sandbox;

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
