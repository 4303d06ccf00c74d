//! Previews of branches without a pull request: a branch that is gone, and one that returns. `preview list` shows it, and
//! more about each preview.

use std::time::Duration;

use innkeeper_model::api::{DoctorReport, GuestView};
use innkeeper_model::preview::{PreviewState, PreviewView, RemovalReason};
use innkeeper_model::{EventKind, OperationState};

use crate::host::{PreviewHost, other_app, run};
use crate::support::wait_until;

const SLUG: &str = "web-topic";

fn view(host: &PreviewHost) -> PreviewView {
    host.preview_named(SLUG).expect("there")
}

/// Deletes the branch on GitHub.
fn delete_branch(host: &PreviewHost) {
    let git = host.root().join("web.git");
    run(&git, "git", &["update-ref", "-d", "refs/heads/topic"]);
}

#[test]
fn a_preview_whose_branch_is_gone_is_reported_and_removed_later() {
    let mut host = PreviewHost::without_grace_at_start("");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit_app("topic");
    let created = host
        .sandbox
        .program("preview", &["create", "octo/web", "topic"], b"");
    assert!(created.status.success(), "{created:?}");
    assert_eq!(view(&host).outlook.removal, None);

    delete_branch(&host);
    wait_until("the missing branch is noticed", || {
        let removal = view(&host).outlook.removal;
        removal.is_some_and(|removal| removal.reason == RemovalReason::BranchGone)
    });
    // Meanwhile it stays live.
    assert!(host.page(SLUG).contains(sha.as_str()));
    let doctor: DoctorReport = host.client().get("/v1/doctor");
    let is_reported = |check: &innkeeper_model::api::Check| {
        check.subject == "preview web-topic" && check.finding.contains("its branch is gone")
    };
    assert!(doctor.checks.iter().any(is_reported), "{doctor:#?}");
    let explained = host.sandbox.program("preview", &["explain", SLUG], b"");
    let explained = String::from_utf8(explained.stdout).expect("text");
    assert!(explained.contains("its branch is gone"), "{explained}");

    // The branch returns.
    host.commit_app("topic");
    wait_until("the branch is noticed", || {
        view(&host).outlook.removal.is_none()
    });
    delete_branch(&host);
    wait_until("the missing branch is noticed", || {
        view(&host).outlook.removal.is_some()
    });
    daemon.stop();
    host.advance_running_time(Duration::from_secs(25 * 3_600));
    let daemon = host.start();
    wait_until("it is removed", || host.preview_named(SLUG).is_none());
    daemon.stop();
}

#[test]
fn the_list_shows_use_and_what_waits_for_whom() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let bad = host.commit("bad", &[("preview-config.nix", "{ this is not nix")]);
    let action = host.pull(8, "bad", &bad);
    host.deliver(8, action);
    host.wait_for_state(8, &bad, PreviewState::Failed);
    let outlook = || host.preview(7).expect("there").outlook;
    host.page("web-7");
    wait_until("the visit is recorded", || outlook().visited_at.is_some());
    wait_until("the disk usage is measured", || {
        outlook().disk_bytes.is_some()
    });
    assert!(outlook().memory_bytes.is_some_and(|bytes| bytes > 0));
    let list = host.sandbox.program("preview", &["list"], b"");
    let list = String::from_utf8(list.stdout).expect("text");
    let mut lines = list.lines();
    let header = lines.next().expect("a header");
    assert!(header.starts_with("SLUG"), "{header}");
    let columns: Vec<_> = header.split_whitespace().collect();
    let expected = [
        "SLUG",
        "STATUS",
        "BRANCH",
        "URL",
        "COMMIT",
        "REPOSITORY",
        "AGE",
        "VISITED",
        "MEMORY",
        "DISK",
        "WAITING",
        "FOR",
    ];
    assert_eq!(columns, expected);
    let failed = lines.find(|line| line.starts_with("web-8")).expect("there");
    assert!(failed.contains("author: fix of"), "{failed}");
    daemon.stop();
}

#[test]
fn prefetch_builds_the_default_branch_for_the_next_pull_request() {
    let mut host = PreviewHost::new();
    let _daemon = host.start();
    host.start_webhook();
    // Repositories are known by their previews.
    host.open(1, "topic");
    let config = [("preview-config.nix", &*other_app("base"))];
    host.commit("main", &config);
    let client = host.client();
    let prefetched = client.finish(&client.call("POST", "/v1/prefetches", ""));
    assert_eq!(prefetched.state, OperationState::Done, "{prefetched:?}");
    let events = client.events(&format!("operation={}&follow=true", prefetched.id));
    let built = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Built { closure, what } => Some((closure, what)),
        _ => None,
    });
    let built: Vec<_> = built.collect();
    let [(closure, what)] = &built[..] else {
        panic!("{built:?}");
    };
    assert_eq!(what, "preview-config.nix on the default branch of octo/web");

    let sha = host.commit("next", &config);
    let action = host.pull(2, "next", &sha);
    host.deliver(2, action);
    host.wait_for_state(2, &sha, PreviewState::Live);
    let slug = PreviewHost::slug(2);
    let view: GuestView = client.get(&format!("/v1/previews/{slug}/guest"));
    assert_eq!(view.guest.closure.as_ref(), Some(closure));
}
