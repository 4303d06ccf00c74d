//! Repositories that are not there any more, or not under their name.

use innkeeper_github::fake::FailureKind;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::api::{LinkKind, PreviewExplanation};
use innkeeper_model::preview::{PreviewState, PreviewView, RepoName};

use crate::support::wait_until;
use crate::town::Town;

/// How often GitHub was asked for a repository.
fn looks(town: &Town) -> usize {
    town.github
        .with(|world| world.count("GET", "/repos/octo/web"))
}

#[test]
fn what_a_repository_that_is_gone_leaves_behind_is_named_and_can_be_removed() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.wanted_sha;
    let repo = town.repo.clone();
    let gone = town.github.with(|world| world.repos.remove(&repo));
    wait_until("it is noticed", || {
        town.preview(7)
            .is_some_and(|view| view.repo_trouble.is_some())
    });
    let before = looks(&town);
    wait_until("GitHub was asked again", || looks(&town) >= before + 3);
    let listed = town.sandbox.program("preview", &["list"], b"");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(
        listed.contains("GitHub does not show the repository"),
        "{listed}"
    );
    let client = town.client();
    let explained: PreviewExplanation = client.get("/v1/previews/web-7/explain");
    let link = explained.chain.last().expect("the delivery");
    assert_eq!(
        (link.link, link.verdict),
        (LinkKind::Delivery, Verdict::Warning)
    );
    let report: DoctorReport = client.get("/v1/doctor");
    let check = report
        .checks
        .iter()
        .find(|check| check.subject == "repository octo/web");
    let check = check.expect("it is named");
    assert!(check.finding.contains("web-7"), "{check:?}");
    // It may come back, and nothing was lost.
    assert!(town.page("web-7").contains(sha.as_str()));
    town.github.with(|world| {
        world
            .repos
            .insert(repo.clone(), gone.expect("it was there"))
    });
    wait_until("it is noticed", || {
        town.preview(7)
            .is_some_and(|view| view.repo_trouble.is_none())
    });
    town.github.with(|world| world.repos.remove(&repo));
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    town.gone(7);
    daemon.stop();
}

#[test]
fn a_preview_is_destroyed_while_github_is_away() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    town.github
        .with(|world| world.fail("", "", 10_000, FailureKind::Status(502)));
    let client = town.client();
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    town.gone(7);
    daemon.stop();
}

#[test]
fn previews_follow_a_repository_that_is_renamed() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.wanted_sha;
    town.open(8, "other");
    let former = town.repo.clone();
    let now = RepoName::parse("octo/new").expect("a name");
    town.github
        .with(|world| world.rename_repo(&former, now.clone()));
    town.repo = now.clone();
    wait_until("they follow", || {
        let views: Vec<PreviewView> = town.client().get("/v1/previews");
        views.iter().all(|view| view.preview.repo == now)
    });
    assert!(town.page("web-7").contains(sha.as_str()));
    // It is no fork of what it was, and no other preview is made.
    let pushed = town.push(7, "topic", &[("x", "y")]);
    let view = town.settled(7, &pushed, PreviewState::Live);
    assert!(!view.preview.is_from_fork());
    assert_eq!(view.repo_trouble, None);
    town.close(8);
    town.gone(8);
    assert_eq!(town.comments(7).len(), 1);
    daemon.stop();
}
