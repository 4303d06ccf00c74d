//! What guests read their repository with, when the host is a GitHub App.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use innkeeper_github::fake::FailureKind;

use crate::support::wait_until;
use crate::town::Town;

/// A town whose host is an App, and looks after everything each second.
fn town() -> Town {
    let town = Town::watchful("");
    let key = town.root().join("app.pem");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM", "-f"])
        .arg(&key)
        .status()
        .expect("ssh-keygen runs");
    assert!(made.success());
    town.github.add_app("12345", 42, &key).expect("a key");
    let environment = format!(
        "GITHUB_APP_ID=12345\nGITHUB_APP_INSTALLATION_ID=42\nGITHUB_APP_PRIVATE_KEY_PATH={}\n",
        key.display()
    );
    fs::write(town.root().join("preview.env"), environment).expect("written");
    town
}

fn token(town: &Town) -> String {
    town.inside("web-7", &["cat", "/etc/preview-token"])
}

#[test]
fn a_guests_token_is_replaced_before_it_ends() {
    let mut town = town();
    // That is soon, whenever one looks.
    town.github.with(|world| {
        let app = world.app.as_mut().expect("an App");
        app.token_lifetime = Duration::from_secs(600);
    });
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let first = token(&town);
    assert!(first.starts_with("ghs_"), "{first}");
    wait_until("it has another", || token(&town) != first);
    let ls = town.inside("web-7", &["ls", "-ln", "/etc/preview-token"]);
    assert!(
        ls.starts_with("-rw-r----- ") && ls.contains(" 0 ") && ls.contains(" 100 "),
        "{ls}"
    );

    town.github.with(|world| {
        let app = world.app.as_mut().expect("an App");
        app.token_lifetime = Duration::from_secs(3600);
    });
    let last = || {
        let before = token(&town);
        std::thread::sleep(Duration::from_secs(2));
        before == token(&town)
    };
    wait_until("it keeps one that lasts", last);
    daemon.stop();
}

#[test]
fn previews_come_back_while_github_gives_no_token() {
    let mut town = town();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.live_sha.expect("live");
    let first = token(&town);
    daemon.stop();
    town.reboot();
    town.github.with(|world| {
        world.fail(
            "POST",
            "/access_tokens",
            1_000_000,
            FailureKind::Status(502),
        );
    });
    let daemon = town.start();
    wait_until("the app is back", || {
        let (_, page) = town.browse("web-7", "/", "text/html");
        page.contains(sha.as_str())
    });
    assert_eq!(token(&town), first);
    town.github.with(|world| world.failures.clear());
    wait_until("it has a new one", || token(&town) != first);
    daemon.stop();
}
