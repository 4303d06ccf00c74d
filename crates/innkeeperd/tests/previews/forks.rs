//! Pull requests of strangers: nothing of theirs runs before somebody who may write has looked, and nothing of ours is
//! given to them after.

use std::fs;

use innkeeper_model::api::GuestView;
use innkeeper_model::preview::{CommitSha, PreviewState, RepoName};
use innkeeper_model::{DesiredState, GuestName, GuestState};
use innkeeper_store::PreviewFact;

use crate::support::wait_until;
use crate::town::{Town, app};

/// The setting's default.
const LABEL: &str = "preview-approved";

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
    announced(town, &sha);
    sha
}

/// Waits until the pull request shows the commit as waiting for approval.
fn announced(town: &Town, sha: &CommitSha) {
    town.settled(7, sha, PreviewState::WaitingForApproval);
    wait_until("the comment shows the commit", || {
        let comments = town.comments(7);
        comments
            .first()
            .is_some_and(|text| text.contains("Waiting for approval") && text.contains(sha.short()))
    });
}

fn label(town: &Town, sender: &str) {
    town.change(7, |pull| pull.labels = vec![LABEL.to_owned()]);
    tell(town, "labeled", sender);
}

fn unlabel(town: &Town, sender: &str) {
    town.change(7, |pull| pull.labels.clear());
    tell(town, "unlabeled", sender);
}

fn tell(town: &Town, action: &str, sender: &str) {
    tell_as(town, &format!("{action}-by-{sender}"), action, sender);
}

/// Has GitHub tell of the label, in a delivery with this id.
fn tell_as(town: &Town, id: &str, action: &str, sender: &str) {
    let payload = town
        .github
        .with(|world| world.payload(&town.repo, 7, action, sender));
    let mut payload = payload.expect("there");
    payload["label"] = serde_json::json!({ "name": LABEL });
    let sent = crate::github::payload::Sent::signed(id, "pull_request", payload.to_string());
    assert_eq!(town.send(&sent), 202);
}

/// Waits until the preview waits for an approval, and nothing of it runs.
fn stopped(town: &Town, sha: &CommitSha) {
    wait_until("the guest is stopped", || {
        let guest: GuestView = town.client().get("/v1/guests/web-7");
        guest.state == GuestState::Stopped
    });
    let view = town.settled(7, sha, PreviewState::WaitingForApproval);
    assert_eq!(
        (view.preview.approved_sha, view.preview.live_sha),
        (None, None)
    );
    wait_until("the app is not there any more", || {
        !town
            .browse("web-7", "/", "text/html")
            .1
            .contains(sha.as_str())
    });
    wait_until("the pull request says so", || {
        let comments = town.comments(7);
        comments
            .first()
            .is_some_and(|text| text.contains("its approval was withdrawn"))
    });
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
    town.finished("labeled-by-mallory");
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
fn a_label_approves_only_the_commit_that_was_shown_before_it() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    open(&town);
    // The author pushes while somebody looks at the first commit: the label's event carries the second.
    let next = town.commit("theirs", &[("x", "y")]);
    town.change(7, |pull| pull.head_sha = next.clone());
    label(&town, "maintainer");
    town.finished("labeled-by-maintainer");
    assert_eq!(town.preview(7).expect("there").preview.approved_sha, None);
    let again = format!("label again for {next}");
    let is_refused = || town.comments(7)[0].contains(&again);
    wait_until("the comment replies", is_refused);
    // The push is reported after the label, and changes nothing.
    town.deliver_of(7, "synchronize", "mallory");
    announced(&town, &next);
    wait_until("the comment still replies", is_refused);
    assert_eq!(town.preview(7).expect("there").preview.approved_sha, None);
    // Given again, now that the commit is shown, the label approves it.
    unlabel(&town, "maintainer");
    town.finished("unlabeled-by-maintainer");
    town.change(7, |pull| pull.labels = vec![LABEL.to_owned()]);
    tell_as(&town, "again", "labeled", "maintainer");
    let view = town.settled(7, &next, PreviewState::Live);
    assert_eq!(view.preview.fault, None);
    daemon.stop();
}

#[test]
fn without_the_label_that_approved_it_a_commit_does_not_run() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = open(&town);
    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::Live);
    unlabel(&town, "mallory");
    stopped(&town, &sha);
    // What GitHub tells again does not approve anything.
    tell_as(&town, "late", "labeled", "maintainer");
    wait_until("GitHub was asked", || {
        town.delivery("late").is_some_and(|view| view.attempts > 0)
    });
    assert_eq!(town.preview(7).expect("there").preview.approved_sha, None);
    daemon.stop();
    let daemon = town.start();
    stopped(&town, &sha);
    town.github.with(|world| {
        let repo = world.repos.get_mut(&town.repo).expect("there");
        let may = &mut repo.permissions;
        may.insert("owner".to_owned(), "admin".to_owned());
    });
    label(&town, "owner");
    town.settled(7, &sha, PreviewState::Live);
    assert!(town.page("web-7").contains(sha.as_str()));
    assert!(!town.comments(7)[0].contains("withdrawn"));
    daemon.stop();
}

#[test]
fn what_came_up_at_the_moment_of_a_withdrawal_is_stopped() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = open(&town);
    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::Live);
    unlabel(&town, "mallory");
    stopped(&town, &sha);
    daemon.stop();
    // What the worker had recorded if it had been slower by a hair.
    let slug = GuestName::parse("web-7").expect("a name");
    town.with_store(async |store| {
        let preview = store.preview(&slug).await.expect("read").expect("there");
        let live = PreviewFact::Live {
            sha: sha.clone(),
            closure: preview.closure.expect("evaluated"),
            meta: Box::new(preview.meta.expect("evaluated")),
        };
        let facts = vec![live, PreviewFact::State(PreviewState::Live)];
        store.set_preview(&slug, facts).await.expect("recorded");
        let running = store.set_desired_state(&slug, DesiredState::Running).await;
        running.expect("recorded");
    });
    let daemon = town.start();
    stopped(&town, &sha);
    daemon.stop();
}

#[test]
fn an_approval_that_is_withdrawn_without_a_word_is_missed_soon() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    let slow = app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = town.commit("theirs", &[("preview-config.nix", &slow)]);
    town.pull_from(7, "theirs", &sha, &fork());
    town.deliver_of(7, "opened", "mallory");
    announced(&town, &sha);
    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::SettingUp);
    town.change(7, |pull| pull.labels.clear());
    stopped(&town, &sha);
    daemon.stop();
}

#[test]
fn what_the_host_approved_needs_no_label() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    let sha = open(&town);
    label(&town, "maintainer");
    town.settled(7, &sha, PreviewState::Live);
    let approve = serde_json::json!({ "sha": sha }).to_string();
    let client = town.client();
    let answer = client.call("POST", "/v1/previews/web-7/approve", &approve);
    assert_eq!(answer.status, 202, "{answer:?}");
    unlabel(&town, "maintainer");
    town.finished("unlabeled-by-maintainer");
    let lists = || {
        town.github
            .with(|world| world.count("GET", "/repos/octo/web/pulls"))
    };
    let before = lists();
    wait_until("it was compared", || lists() >= before + 3);
    let view = town.settled(7, &sha, PreviewState::Live);
    assert_eq!(view.preview.approved_sha, Some(sha));
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
    announced(&town, &sha);
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
    // A mistake in one line concerns nobody who does not ask for that variable.
    let file = "OTHER='open\nno assignment\nSTRIPE_KEY=\"sk_live\nsecond line\"\n";
    fs::write(secrets.join("web.env"), file).expect("written");
    // Those of agents are for no preview at all.
    let credentials = town.root().join("credentials");
    fs::create_dir_all(&credentials).expect("made");
    fs::write(credentials.join("oauth_token"), "sesame").expect("written");
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
        environment.contains("STRIPE_KEY='sk_live\nsecond line'"),
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
    for slug in ["web-7", "web-8"] {
        let mnt = town.inside(slug, &["sh", "-c", "ls -a /mnt 2>&1 || true"]);
        assert!(!mnt.contains("claude-creds"), "{mnt}");
    }
    let ls = town.inside("web-8", &["ls", "-ln", "/etc/preview.env"]);
    assert!(
        ls.starts_with("-rw-r----- ") && ls.contains(" 0 ") && ls.contains(" 100 "),
        "{ls}"
    );

    // Whoever asks for the variable of the bad line reads which line it is, and not where on the host.
    let text = greedy().replace("GITHUB_TOKEN", "OTHER");
    let other = town.commit("other", &[("preview-config.nix", &text)]);
    town.pull(9, "other", &other);
    town.deliver(9, "opened");
    wait_until("the pull request says so", || {
        town.comments(9).iter().any(|comment| {
            let cause = "the secret OTHER of octo/web cannot be used: line 1 has a quote that is not closed";
            assert!(!comment.contains("/secrets/"), "{comment}");
            comment.contains(cause)
        })
    });
    fs::write(secrets.join("web.env"), "OTHER='closed'\n").expect("written");
    let answer = town.client().call("POST", "/v1/previews/web-9/update", "");
    assert_eq!(answer.status, 202, "{answer:?}");
    town.settled(9, &other, PreviewState::Live);
    let environment = town.inside("web-9", &["cat", "/etc/preview.env"]);
    assert!(environment.contains("OTHER='closed'"), "{environment}");
    daemon.stop();
}
