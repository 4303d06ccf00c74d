//! Pull requests of strangers: nothing of theirs runs before somebody who may write has looked, and nothing of ours is
//! given to them after.

use std::fs;

use innkeeper_model::preview::{CommitSha, PreviewState, RepoName};

use crate::support::wait_until;
use crate::town::{Town, app};

fn fork() -> RepoName {
    RepoName::parse("mallory/web").expect("a name")
}

/// The app, wanting a secret.
fn greedy() -> String {
    app().replacen(
        "database =",
        "hostSecrets = [ \"STRIPE_KEY\" \"GITHUB_TOKEN\" ];\n    database =",
        1,
    )
}

fn open(town: &Town) -> CommitSha {
    let sha = town.commit("theirs", &[("preview-config.nix", &greedy())]);
    town.pull_from(7, "theirs", &sha, &fork());
    town.deliver_of(7, "opened", "mallory");
    town.settled(7, &sha, PreviewState::WaitingForApproval);
    sha
}

fn label(town: &Town, sender: &str) {
    let deliver = || {
        let mut payload = town
            .github
            .with(|world| world.payload(&town.repo, 7, "labeled", sender))
            .expect("there");
        payload["label"] = serde_json::json!({ "name": "preview-approved" });
        payload
    };
    let id = format!("label-by-{sender}");
    let sent = crate::github::payload::Sent::signed(&id, "pull_request", deliver().to_string());
    assert_eq!(town.send(&sent), 202);
}

#[test]
fn nothing_of_a_fork_is_read_until_somebody_who_may_write_approves_that_commit() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = open(&town);
    let read = |town: &Town| {
        town.github.with(|world| {
            let requests = &world.requests;
            requests
                .iter()
                .filter(|request| request.path.contains("/contents/"))
                .count()
        })
    };
    label(&town, "mallory");
    town.finished("label-by-mallory");
    assert_eq!(read(&town), 0, "the configuration was read");
    town.settled(7, &sha, PreviewState::WaitingForApproval);

    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::Live);
    assert_eq!(read(&town), 1);
    // The next commit needs its own approval; what was approved goes on.
    let next = town.push(7, "theirs", &[("x", "y")]);
    let view = town.settled(7, &next, PreviewState::WaitingForApproval);
    assert_eq!(view.preview.live_sha.as_ref(), Some(&sha));
    assert_eq!(read(&town), 1, "the configuration was read");
    daemon.stop();
    town.reboot();
    let daemon = town.start();
    wait_until("what was approved is back", || {
        let (_, page) = town.browse("web-7", "/", "text/html");
        page.contains(sha.as_str())
    });
    town.settled(7, &next, PreviewState::WaitingForApproval);
    daemon.stop();
}

#[test]
fn an_approval_that_arrives_before_its_commit_is_kept() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    open(&town);
    let next = town.commit("theirs", &[("x", "y")]);
    town.change(7, |pull| pull.head_sha = next.clone());
    label(&town, "maintainer");
    town.finished("label-by-maintainer");
    town.deliver_of(7, "synchronize", "mallory");
    town.settled(7, &next, PreviewState::Live);
    daemon.stop();
}

#[test]
fn a_commit_that_was_approved_is_overtaken_like_any_other() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let slow = app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = town.commit("theirs", &[("preview-config.nix", &slow)]);
    town.pull_from(7, "theirs", &sha, &fork());
    town.deliver_of(7, "opened", "mallory");
    town.settled(7, &sha, PreviewState::WaitingForApproval);
    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::SettingUp);
    let next = town.push(7, "theirs", &[("x", "y")]);
    let view = town.settled(7, &next, PreviewState::WaitingForApproval);
    assert_eq!(view.preview.live_sha, None, "it was built to its end");
    daemon.stop();
}

#[test]
fn a_fork_gets_no_secret_and_a_repository_only_its_own() {
    let mut town = Town::new();
    let secrets = town.root().join("secrets/octo");
    fs::create_dir_all(&secrets).expect("made");
    fs::write(secrets.join("web.env"), "STRIPE_KEY=sk_live\n").expect("written");
    let daemon = town.start();
    town.start_webhook();
    let sha = open(&town);
    let approve = serde_json::json!({ "sha": sha }).to_string();
    let answer = town
        .client()
        .call("POST", "/v1/previews/web-7/approve", &approve);
    assert_eq!(answer.status, 202, "{answer:?}");
    town.settled(7, &sha, PreviewState::Live);
    let environment = town.inside("web-7", &["cat", "/etc/preview.env"]);
    assert!(
        !environment.contains("sk_live") && !environment.contains("ghp_"),
        "{environment}"
    );
    assert!(
        !town
            .inside("web-7", &["ls", "/etc"])
            .contains("preview-token")
    );

    let own = town.commit("ours", &[("preview-config.nix", &greedy())]);
    town.pull(8, "ours", &own);
    town.deliver(8, "opened");
    town.settled(8, &own, PreviewState::Live);
    let environment = town.inside("web-8", &["cat", "/etc/preview.env"]);
    assert!(
        environment.contains("STRIPE_KEY='sk_live'"),
        "{environment}"
    );
    // The host's own token was asked for as well, and is in another file.
    assert!(environment.contains("GITHUB_TOKEN=''"), "{environment}");
    assert!(
        !town
            .inside("web-8", &["ls", "/etc"])
            .contains("preview-token"),
        "a token that can write"
    );
    let ls = town.inside("web-8", &["ls", "-ln", "/etc/preview.env"]);
    assert!(
        ls.starts_with("-rw-r----- ") && ls.contains(" 0 ") && ls.contains(" 100 "),
        "{ls}"
    );
    daemon.stop();
}
