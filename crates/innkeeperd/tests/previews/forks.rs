//! Pull requests from forks: their code runs only after approval by a user with write access, and never gets the host's
//! secrets.

use std::fs;

use innkeeper_model::api::GuestView;
use innkeeper_model::preview::{CommitSha, PreviewState, RepoName};
use innkeeper_model::{DesiredState, GuestName, GuestState};
use innkeeper_store::PreviewFact;

use crate::host::{PreviewHost, app};
use crate::support::wait_until;

/// The setting's default.
const LABEL: &str = "preview-approved";

fn fork() -> RepoName {
    RepoName::parse("mallory/web").expect("a name")
}

/// The app with requests for secrets.
fn app_with_secrets() -> String {
    app().replacen(
        "database =",
        "hostSecrets = [ \"STRIPE_KEY\" \"GITHUB_TOKEN\" ];\n    database =",
        1,
    )
}

fn open(host: &PreviewHost) -> CommitSha {
    let sha = host.commit("theirs", &[("preview-config.nix", &app_with_secrets())]);
    host.pull_from(7, "theirs", &sha, &fork());
    host.deliver_of(7, "opened", "mallory");
    wait_for_approval_request(host, &sha);
    sha
}

/// Waits until the pull request shows the commit as waiting for approval.
fn wait_for_approval_request(host: &PreviewHost, sha: &CommitSha) {
    host.wait_for_state(7, sha, PreviewState::WaitingForApproval);
    wait_until("the comment contains the commit", || {
        let comments = host.comments(7);
        comments
            .first()
            .is_some_and(|text| text.contains("Waiting for approval") && text.contains(sha.short()))
    });
}

fn label(host: &PreviewHost, sender: &str) {
    host.change(7, |pull| pull.labels = vec![LABEL.to_owned()]);
    deliver_label(host, "labeled", sender);
}

fn unlabel(host: &PreviewHost, sender: &str) {
    host.change(7, |pull| pull.labels.clear());
    deliver_label(host, "unlabeled", sender);
}

fn deliver_label(host: &PreviewHost, action: &str, sender: &str) {
    deliver_label_as(host, &format!("{action}-by-{sender}"), action, sender);
}

/// Sends a delivery of the label with this id.
fn deliver_label_as(host: &PreviewHost, id: &str, action: &str, sender: &str) {
    let payload = host
        .github
        .with(|world| world.payload(&host.repo, 7, action, sender));
    let mut payload = payload.expect("there");
    payload["label"] = serde_json::json!({ "name": LABEL });
    let sent = crate::github::payload::RawDelivery::signed(id, "pull_request", payload.to_string());
    assert_eq!(host.send(&sent), 202);
}

/// Waits until the preview waits for approval and its guest is stopped.
fn wait_for_withdrawal(host: &PreviewHost, sha: &CommitSha) {
    wait_until("the guest is stopped", || {
        let guest: GuestView = host.client().get("/v1/guests/web-7");
        guest.state == GuestState::Stopped
    });
    let view = host.wait_for_state(7, sha, PreviewState::WaitingForApproval);
    assert_eq!(
        (view.preview.approved_sha, view.preview.live_sha),
        (None, None)
    );
    wait_until("the page has taken the place of the app", || {
        let (status, page) = host.browse("web-7", "/", "text/html");
        status == 503 && page.contains("waiting-for-approval")
    });
    wait_until("the comment is updated", || {
        let comments = host.comments(7);
        comments
            .first()
            .is_some_and(|text| text.contains("its approval was withdrawn"))
    });
}

#[test]
fn a_forks_configuration_is_read_only_after_approval() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = open(&host);
    let read = |host: &PreviewHost| {
        host.github.with(|world| {
            let requests = &world.requests;
            requests
                .iter()
                .filter(|request| request.path.contains("/git/blobs/"))
                .count()
        })
    };
    label(&host, "mallory");
    host.wait_for_delivery("labeled-by-mallory");
    assert_eq!(read(&host), 0, "the configuration was read");
    host.wait_for_state(7, &sha, PreviewState::WaitingForApproval);

    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(read(&host), 1);
    // The next commit needs its own approval; the approved one stays in service.
    let next = host.push(7, "theirs", &[("x", "y")]);
    let view = host.wait_for_state(7, &next, PreviewState::WaitingForApproval);
    assert_eq!(view.preview.live_sha.as_ref(), Some(&sha));
    assert_eq!(read(&host), 1, "the configuration was read");
    daemon.stop();
    host.reboot();
    let daemon = host.start();
    wait_until("the approved commit is served again", || {
        let (_, page) = host.browse("web-7", "/", "text/html");
        page.contains(sha.as_str())
    });
    host.wait_for_state(7, &next, PreviewState::WaitingForApproval);
    daemon.stop();
}

#[test]
fn a_label_approves_only_the_commit_shown_before_it() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    open(&host);
    // The author pushes during the review of the first commit, so the label's event contains the second one.
    let next = host.commit("theirs", &[("x", "y")]);
    host.change(7, |pull| pull.head_sha = next.clone());
    label(&host, "maintainer");
    host.wait_for_delivery("labeled-by-maintainer");
    assert_eq!(host.preview(7).expect("there").preview.approved_sha, None);
    let again = format!("label again for {next}");
    let is_rejected = || host.comments(7)[0].contains(&again);
    wait_until("the comment replies", is_rejected);
    // The late delivery of the push changes nothing.
    host.deliver_of(7, "synchronize", "mallory");
    wait_for_approval_request(&host, &next);
    wait_until("the comment still replies", is_rejected);
    assert_eq!(host.preview(7).expect("there").preview.approved_sha, None);
    // Added again after the commit is shown, the label approves it.
    unlabel(&host, "maintainer");
    host.wait_for_delivery("unlabeled-by-maintainer");
    host.change(7, |pull| pull.labels = vec![LABEL.to_owned()]);
    deliver_label_as(&host, "again", "labeled", "maintainer");
    let view = host.wait_for_state(7, &next, PreviewState::Live);
    assert_eq!(view.preview.fault, None);
    daemon.stop();
}

#[test]
fn removing_the_approving_label_stops_the_commit() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = open(&host);
    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::Live);
    unlabel(&host, "mallory");
    wait_for_withdrawal(&host, &sha);
    // A redelivered event does not approve anything.
    deliver_label_as(&host, "late", "labeled", "maintainer");
    wait_until("the delivery was processed", || {
        host.delivery("late").is_some_and(|view| view.attempts > 0)
    });
    assert_eq!(host.preview(7).expect("there").preview.approved_sha, None);
    daemon.stop();
    let daemon = host.start();
    wait_for_withdrawal(&host, &sha);
    host.github.with(|world| {
        let repo = world.repos.get_mut(&host.repo).expect("there");
        let may = &mut repo.permissions;
        may.insert("owner".to_owned(), "admin".to_owned());
    });
    label(&host, "owner");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("web-7").contains(sha.as_str()));
    assert!(!host.comments(7)[0].contains("withdrawn"));
    daemon.stop();
}

#[test]
fn a_guest_started_during_a_withdrawal_is_stopped() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = open(&host);
    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::Live);
    unlabel(&host, "mallory");
    wait_for_withdrawal(&host, &sha);
    daemon.stop();
    // The records of a worker that lost the race with the withdrawal.
    let slug = GuestName::parse("web-7").expect("a name");
    host.with_store(async |store| {
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
    let daemon = host.start();
    wait_for_withdrawal(&host, &sha);
    daemon.stop();
}

#[test]
fn a_withdrawal_without_a_delivery_is_detected_by_the_resync() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    let slow = app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = host.commit("theirs", &[("preview-config.nix", &slow)]);
    host.pull_from(7, "theirs", &sha, &fork());
    host.deliver_of(7, "opened", "mallory");
    wait_for_approval_request(&host, &sha);
    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::SettingUp);
    host.change(7, |pull| pull.labels.clear());
    wait_for_withdrawal(&host, &sha);
    daemon.stop();
}

#[test]
fn an_approval_by_command_needs_no_label() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    let sha = open(&host);
    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::Live);
    let approve = serde_json::json!({ "sha": sha }).to_string();
    let client = host.client();
    let answer = client.call("POST", "/v1/previews/web-7/approve", &approve);
    assert_eq!(answer.status, 202, "{answer:?}");
    unlabel(&host, "maintainer");
    host.wait_for_delivery("unlabeled-by-maintainer");
    let lists = || {
        host.github
            .with(|world| world.count("GET", "/repos/octo/web/pulls"))
    };
    let before = lists();
    wait_until("resyncs have run", || lists() >= before + 3);
    let view = host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(view.preview.approved_sha, Some(sha));
    daemon.stop();
}

#[test]
fn an_approved_commit_can_be_superseded() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let slow = app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = host.commit("theirs", &[("preview-config.nix", &slow)]);
    host.pull_from(7, "theirs", &sha, &fork());
    host.deliver_of(7, "opened", "mallory");
    wait_for_approval_request(&host, &sha);
    label(&host, "maintainer");
    host.wait_for_state(7, &sha, PreviewState::SettingUp);
    let next = host.push(7, "theirs", &[("x", "y")]);
    let view = host.wait_for_state(7, &next, PreviewState::WaitingForApproval);
    assert_eq!(
        view.preview.live_sha, None,
        "the superseded commit went live"
    );
    daemon.stop();
}

#[test]
fn a_fork_gets_no_secrets_and_a_repository_only_its_own() {
    let mut host = PreviewHost::new();
    let secrets = host.root().join("secrets/octo");
    fs::create_dir_all(&secrets).expect("made");
    // A malformed line affects only previews that request its variable.
    let file = "OTHER='open\nno assignment\nSTRIPE_KEY=\"sk_live\nsecond line\"\n";
    fs::write(secrets.join("web.env"), file).expect("written");
    // Agents' credentials must not reach any preview.
    let credentials = host.root().join("credentials");
    fs::create_dir_all(&credentials).expect("made");
    fs::write(credentials.join("oauth_token"), "sesame").expect("written");
    let daemon = host.start();
    host.start_webhook();
    let sha = open(&host);
    let approve = serde_json::json!({ "sha": sha }).to_string();
    let answer = host
        .client()
        .call("POST", "/v1/previews/web-7/approve", &approve);
    assert_eq!(answer.status, 202, "{answer:?}");
    host.wait_for_state(7, &sha, PreviewState::Live);
    let environment = host.exec("web-7", &["cat", "/etc/preview.env"]);
    assert!(
        !environment.contains("sk_live") && !environment.contains("ghp_"),
        "{environment}"
    );
    assert!(
        !host
            .exec("web-7", &["ls", "/etc"])
            .contains("preview-token")
    );

    let own = host.commit("ours", &[("preview-config.nix", &app_with_secrets())]);
    host.pull(8, "ours", &own);
    host.deliver(8, "opened");
    host.wait_for_state(8, &own, PreviewState::Live);
    let environment = host.exec("web-8", &["cat", "/etc/preview.env"]);
    assert!(
        environment.contains("STRIPE_KEY='sk_live\nsecond line'"),
        "{environment}"
    );
    // The host's own token was requested as well, and is in another file.
    assert!(environment.contains("GITHUB_TOKEN=''"), "{environment}");
    assert!(
        !host
            .exec("web-8", &["ls", "/etc"])
            .contains("preview-token"),
        "a token with write access"
    );
    for slug in ["web-7", "web-8"] {
        let mnt = host.exec(slug, &["sh", "-c", "ls -a /mnt 2>&1 || true"]);
        assert!(!mnt.contains("claude-creds"), "{mnt}");
    }
    let ls = host.exec("web-8", &["ls", "-ln", "/etc/preview.env"]);
    assert!(
        ls.starts_with("-rw-r----- ") && ls.contains(" 0 ") && ls.contains(" 100 "),
        "{ls}"
    );

    // A preview that requests the malformed variable fails with the line number, without the path on the host.
    let text = app_with_secrets().replace("GITHUB_TOKEN", "OTHER");
    let other = host.commit("other", &[("preview-config.nix", &text)]);
    host.pull(9, "other", &other);
    host.deliver(9, "opened");
    wait_until("the comment is updated", || {
        host.comments(9).iter().any(|comment| {
            let cause = "the secret OTHER of octo/web cannot be used: line 1 has a quote that is not closed";
            assert!(!comment.contains("/secrets/"), "{comment}");
            comment.contains(cause)
        })
    });
    fs::write(secrets.join("web.env"), "OTHER='closed'\n").expect("written");
    let answer = host.client().call("POST", "/v1/previews/web-9/update", "");
    assert_eq!(answer.status, 202, "{answer:?}");
    host.wait_for_state(9, &other, PreviewState::Live);
    let environment = host.exec("web-9", &["cat", "/etc/preview.env"]);
    assert!(environment.contains("OTHER='closed'"), "{environment}");
    daemon.stop();
}
