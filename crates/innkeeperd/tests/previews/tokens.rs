//! Tokens in guests on a host that is a GitHub App.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use innkeeper_github::fake::FailureKind;

use crate::host::PreviewHost;
use crate::support::wait_until;

/// A host that is a GitHub App, with a resync every second.
fn host() -> PreviewHost {
    let host = PreviewHost::resyncing("");
    let key = host.root().join("app.pem");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM", "-f"])
        .arg(&key)
        .status()
        .expect("ssh-keygen runs");
    assert!(made.success());
    host.github.add_app("12345", 42, &key).expect("a key");
    let environment = format!(
        "GITHUB_APP_ID=12345\nGITHUB_APP_INSTALLATION_ID=42\nGITHUB_APP_PRIVATE_KEY_PATH={}\n",
        key.display()
    );
    fs::write(host.root().join("preview.env"), environment).expect("written");
    host
}

fn token(host: &PreviewHost) -> String {
    host.exec("web-7", &["cat", "/etc/preview-token"])
}

#[test]
fn a_guests_token_is_replaced_before_it_expires() {
    let mut host = host();
    // So short that the token is always about to expire.
    host.github.with(|world| {
        let app = world.app.as_mut().expect("an App");
        app.token_lifetime = Duration::from_secs(600);
    });
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let first = token(&host);
    assert!(first.starts_with("ghs_"), "{first}");
    wait_until("the token is replaced", || token(&host) != first);
    let ls = host.exec("web-7", &["ls", "-ln", "/etc/preview-token"]);
    assert!(
        ls.starts_with("-rw-r----- ") && ls.contains(" 0 ") && ls.contains(" 100 "),
        "{ls}"
    );

    host.github.with(|world| {
        let app = world.app.as_mut().expect("an App");
        app.token_lifetime = Duration::from_secs(3600);
    });
    let last = || {
        let before = token(&host);
        std::thread::sleep(Duration::from_secs(2));
        before == token(&host)
    };
    wait_until("a valid token is kept", last);
    daemon.stop();
}

#[test]
fn previews_restart_while_github_issues_no_token() {
    let mut host = host();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.live_sha.expect("live");
    let first = token(&host);
    daemon.stop();
    host.reboot();
    host.github.with(|world| {
        world.fail(
            "POST",
            "/access_tokens",
            1_000_000,
            FailureKind::Status(502),
        );
    });
    let daemon = host.start();
    wait_until("the app is served again", || {
        let (_, page) = host.browse("web-7", "/", "text/html");
        page.contains(sha.as_str())
    });
    assert_eq!(token(&host), first);
    host.github.with(|world| world.failures.clear());
    wait_until("the token is replaced", || token(&host) != first);
    daemon.stop();
}
