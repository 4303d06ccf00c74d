//! Failures of GitHub and of the host, and changes on GitHub by others.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::Code;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::{DeliveryState, DeliveryView};

use crate::host::{PreviewHost, run};
use crate::support::wait_until;

/// Attempts of the client before a delivery is deferred.
const ATTEMPTS: u32 = 4;

/// Waits until processing a delivery has failed once.
fn wait_for_failure(host: &PreviewHost, id: &str) -> DeliveryView {
    let mut seen = None;
    wait_until("the delivery has failed once", || {
        seen = host.delivery(id).filter(|view| view.failure.is_some());
        seen.is_some()
    });
    seen.expect("just seen")
}

#[test]
fn a_delivery_is_retried_while_github_fails() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit_app("topic");
    host.pull(7, "topic", &sha);
    host.github
        .with(|world| world.fail("GET", "/git/trees/", ATTEMPTS, FailureKind::Status(502)));
    host.deliver(7, "opened");
    let id = host.last_delivery();
    let waiting = wait_for_failure(&host, &id);
    assert_eq!(waiting.state, DeliveryState::Pending);
    assert!(waiting.retry_at.is_some(), "{waiting:?}");
    let shown = host
        .sandbox
        .program("innkeeper", &["deliveries", "show", &id], b"");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("502"), "{shown}");
    host.wait_for_state(7, &sha, PreviewState::Live);
    host.wait_for_delivery(&id);
    let done = host.delivery(&id).expect("kept");
    assert_eq!((done.state, done.attempts), (DeliveryState::Done, 2));
    daemon.stop();
}

#[test]
fn truncated_responses_of_github_are_retried() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    // The first response of each kind is truncated.
    let sha = host.commit_app("topic");
    host.pull(7, "topic", &sha);
    host.github.with(|world| {
        for path in ["/git/trees/", "/comments", "/deployments", "/statuses"] {
            world.fail("", path, 1, FailureKind::CutOff);
        }
    });
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    wait_until("the comment is updated", || {
        let comments = host.comments(7);
        comments
            .iter()
            .any(|comment| comment.contains("http://web-7.localhost:8080"))
    });
    assert_eq!(host.comments(7).len(), 1, "a second comment");
    daemon.stop();
}

#[test]
fn a_close_takes_effect_while_github_is_down() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    wait_until("the comment is updated", || {
        host.comments(7)
            .first()
            .is_some_and(|comment| comment.contains("http://web-7"))
    });
    host.github.with(|world| {
        world.failures.clear();
        world.fail("", "/repos/", 2 * ATTEMPTS, FailureKind::Status(502));
    });
    host.close(7);
    wait_until("the page is removed", || {
        host.browse("web-7", "/", "text/html").0 == 404
    });
    host.wait_until_gone(7);
    wait_until("the comment is updated", || {
        host.comments(7)[0].contains("removed")
    });
    daemon.stop();
}

#[test]
fn an_edited_event_restores_the_comment() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let has_comment = |host: &PreviewHost| {
        let comments = host.comments(7);
        comments.len() == 1 && comments[0].contains("http://web-7.localhost:8080")
    };
    wait_until("the comment is updated", || has_comment(&host));
    host.github.with(|world| {
        let repo = world.repos.get_mut(&host.repo).expect("there");
        repo.comments.clear();
    });
    host.deliver(7, "edited");
    wait_until("the comment is back", || has_comment(&host));
    host.wait_for_delivery(&host.last_delivery());
    daemon.stop();
}

#[test]
fn an_edited_event_restores_links_in_the_text() {
    let mut host = PreviewHost::resyncing("report = 'text'");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let text = |host: &PreviewHost| {
        host.github
            .with(|world| world.repos[&host.repo].pulls[&7].body.clone())
    };
    wait_until("the text has the links", || {
        text(&host).contains("http://web-7.localhost:8080")
    });
    host.change(7, |pull| pull.body = "What it is about.".to_owned());
    host.deliver(7, "edited");
    wait_until("the links are back", || {
        text(&host).contains("http://web-7.localhost:8080")
    });
    assert!(text(&host).contains("What it is about."), "{}", text(&host));
    daemon.stop();
}

/// A fake of Nix whose store is full while a file exists.
fn full_nix(root: &Path, full: &Path) -> String {
    let real = run(root, "sh", &["-c", "command -v nix"]);
    let real = Path::new(real.trim());
    let bin = root.join("bin");
    fs::create_dir(&bin).expect("made");
    for name in ["nix", "nix-instantiate"] {
        symlink(real.with_file_name(name), bin.join(name)).expect("linked");
    }
    let error =
        r#"{"action":"msg","level":0,"msg":"error: writing to file: No space left on device"}"#;
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' --realise '*)\n\
         [ ! -e {full} ] || {{ echo '@nix {error}' >&2; exit 1; }};; esac\nexec {store} \"$@\"\n",
        full = full.display(),
        store = real.with_file_name("nix-store").display(),
    );
    let store = bin.join("nix-store");
    fs::write(&store, script).expect("written");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).expect("set");
    bin.join("nix").display().to_string()
}

#[test]
fn a_host_failure_is_retried_and_not_blamed_on_the_pull_request() {
    let mut host = PreviewHost::new();
    let full = host.root().join("full");
    fs::write(&full, "").expect("written");
    let nix = full_nix(host.root(), &full);
    let daemon = host.sandbox.start_with(&[("INNKEEPER_NIX_PROGRAM", &nix)]);
    host.start_webhook();
    let sha = host.commit_app("topic");
    let action = host.pull(7, "topic", &sha);
    host.deliver(7, action);
    wait_until("the cause is recorded", || {
        let fault = host.preview(7).and_then(|view| view.preview.fault);
        fault.is_some_and(|fault| fault.code == Code::DiskFull)
    });
    wait_until("the comment is updated", || {
        host.comments(7).iter().any(|comment| {
            assert!(!comment.contains("push again"), "{comment}");
            assert!(
                !comment.contains(&host.root().display().to_string()),
                "{comment}"
            );
            comment.contains("problem of the host, not of this pull request")
        })
    });
    let listed = host.sandbox.program("preview", &["list"], b"");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(
        listed.contains("web-7 has a host problem, retrying: "),
        "{listed}"
    );
    let report: DoctorReport = host.client().get("/v1/doctor");
    let check = report
        .checks
        .iter()
        .find(|check| check.subject == "preview web-7");
    let check = check.expect("a check of the preview");
    assert_eq!(check.verdict, Verdict::Broken);
    let remedy = check.remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains("free space"), "{check:?}");

    fs::remove_file(&full).expect("removed");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("web-7").contains(sha.as_str()));
    daemon.stop();
}
