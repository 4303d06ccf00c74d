//! Closures to boot from, built by Nix from the flake in `tests/fixtures`.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A closure of the fixtures' flake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fixture {
    /// A small static program as init, a web server on port 80.
    Agent,
    /// The same, with another text in it.
    AgentNext,
    /// Like `Agent`, with a program that switches a running system.
    Switch,
    /// Like `Switch`, with another text in it.
    SwitchNext,
    /// Like `Switch`; the program fails.
    SwitchRefused,
    /// Like `Agent`, with the program that boots a system of the guest's own.
    BootOwn,
    /// Like `Agent`; its init exits at once.
    AgentBroken,
    /// systemd as init.
    Systemd,
    /// A small init that starts the real sshd, and `/etc/boot` of the guest's own files.
    Ssh,
    /// No init.
    NoInit,
}

/// Nix settings to build without a network and without a sandbox.
pub(crate) fn nix_options() -> [(&'static str, &'static str); 2] {
    [("substituters", ""), ("sandbox", "false")]
}

/// The staged flake, with the attribute of a fixture.
pub(crate) fn flake(fixture: Fixture) -> String {
    let (kind, attribute) = match fixture {
        Fixture::Agent => ("guest", "agent"),
        Fixture::AgentNext => ("guest", "agent-next"),
        Fixture::Switch => ("guest", "switch"),
        Fixture::SwitchNext => ("guest", "switch-next"),
        Fixture::SwitchRefused => ("guest", "switch-refused"),
        Fixture::BootOwn => ("guest", "boot-own"),
        Fixture::AgentBroken => ("guest", "agent-broken"),
        Fixture::NoInit => ("guest", "no-init"),
        Fixture::Systemd => ("debian", "systemd"),
        Fixture::Ssh => ("debian", "ssh"),
    };
    let folder = staged(kind);
    format!("path:{}#{attribute}", folder.display())
}

fn staged(kind: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let prepare = repository.join("tests/fixtures/prepare");
    let output = Command::new(&prepare)
        .arg(kind)
        .output()
        .expect("prepare runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("a path")
        .trim()
        .into()
}

/// The store path of a fixture, built if it is missing.
pub(crate) fn closure(fixture: Fixture) -> String {
    // Concurrent processes of Nix 2.8 fail to initialize the same store.
    static BUILT: Mutex<BTreeMap<Fixture, String>> = Mutex::new(BTreeMap::new());
    let mut built_before = BUILT.lock().expect("unpoisoned");
    if let Some(closure) = built_before.get(&fixture) {
        return closure.clone();
    }
    let mut nix = Command::new("nix");
    nix.args([
        "build",
        "--json",
        "--no-link",
        "--extra-experimental-features",
        "nix-command flakes",
    ]);
    for (name, value) in nix_options() {
        nix.args(["--option", name, value]);
    }
    let output = nix.arg(flake(fixture)).output().expect("nix runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let closure = built[0]["outputs"]["out"].as_str().expect("a path");
    built_before.insert(fixture, closure.to_owned());
    closure.to_owned()
}
