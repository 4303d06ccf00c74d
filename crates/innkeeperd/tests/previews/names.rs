//! Two pull requests whose previews would have the same name.

use innkeeper_model::Code;
use innkeeper_model::preview::{CommitSha, PreviewState, PreviewView, RepoName};

use crate::support::wait_until;
use crate::town::{Town, app};

/// Opens a pull request of another repository.
fn open(town: &Town, repo: &RepoName, number: u64, branch: &str, sha: &CommitSha) -> String {
    town.pull_in(repo, number, branch, sha, repo);
    let deliver = town.github.deliver(repo, number, "opened", "alice");
    let attempt = town.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 202);
    attempt.guid
}

fn of(town: &Town, repo: &RepoName) -> PreviewView {
    let views: Vec<PreviewView> = town.client().get("/v1/previews");
    let mut own = views.into_iter().filter(|view| view.preview.repo == *repo);
    own.next().expect("it has a preview")
}

/// The app with one more host.
fn with_admin() -> String {
    with_host("admin")
}

fn with_host(prefix: &str) -> String {
    let hosts = format!(
        "extraHosts = [ {{ prefix = \"{prefix}\"; routes = [ {{ path = \"/\"; port = 3000; }} ]; }} ];"
    );
    app().replacen("database =", &format!("{hosts}\n    database ="), 1)
}

#[test]
fn long_names_that_begin_alike_are_told_apart() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let stem = "a-repository-whose-name-is-as-long-as-it-may-be";
    let first = town.add_repo(&format!("octo/{stem}-one"));
    let second = town.add_repo(&format!("octo/{stem}-two"));
    let sha = town.commit_app("topic");
    open(&town, &first, 7, "topic", &sha);
    open(&town, &second, 7, "topic", &sha);
    let slugs = [&first, &second].map(|repo| {
        let slug = of(&town, repo).preview.slug;
        town.settled_named(slug.as_str(), &sha, PreviewState::Live);
        assert!(town.page(slug.as_str()).contains(sha.as_str()));
        slug
    });
    assert_ne!(slugs[0], slugs[1]);
    daemon.stop();
}

#[test]
fn a_name_that_is_another_previews_extra_host_is_not_given_away() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.commit("topic", &[("preview-config.nix", &with_admin())]);
    town.pull(7, "topic", &sha);
    town.deliver(7, "opened");
    town.settled(7, &sha, PreviewState::Live);
    assert!(town.page("admin-web-7").contains(sha.as_str()));

    let newcomer = town.add_repo("octo/admin-web");
    let theirs = town.commit("theirs", &[("preview-config.nix", &app())]);
    open(&town, &newcomer, 7, "theirs", &theirs);
    let slug = of(&town, &newcomer).preview.slug;
    assert_ne!(slug.as_str(), "admin-web-7");
    town.settled_named(slug.as_str(), &theirs, PreviewState::Live);
    assert!(town.page(slug.as_str()).contains(theirs.as_str()));
    for host in ["web-7", "admin-web-7"] {
        assert!(town.page(host).contains(sha.as_str()), "{host}");
    }
    // It can go, and takes nothing with it.
    let path = format!("/v1/previews/{slug}");
    assert_eq!(town.client().call("DELETE", &path, "").status, 202);
    wait_until("it is gone", || town.preview_named(slug.as_str()).is_none());
    assert!(town.page("admin-web-7").contains(sha.as_str()));
    daemon.stop();
}

#[test]
fn an_extra_host_that_is_another_previews_name_is_a_conflict() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let first = town.add_repo("octo/admin-web");
    let theirs = town.commit_app("theirs");
    open(&town, &first, 7, "theirs", &theirs);
    town.settled_named("admin-web-7", &theirs, PreviewState::Live);
    let good = town.open(7, "topic").preview.live_sha.expect("live");

    let greedy = town.push(7, "topic", &[("preview-config.nix", &with_admin())]);
    let view = town.settled(7, &greedy, PreviewState::Failed);
    assert_eq!(view.preview.fault.expect("why").code, Code::SlugConflict);
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(town.page("web-7").contains(good.as_str()));
    assert!(town.page("admin-web-7").contains(theirs.as_str()));

    town.close(7);
    town.gone(7);
    assert!(town.page("admin-web-7").contains(theirs.as_str()));
    daemon.stop();
}

#[test]
fn an_extra_host_that_is_taken_can_be_given_up_by_the_next_commit() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let first = town.add_repo("octo/my-web");
    let theirs = town.commit("theirs", &[("preview-config.nix", &with_admin())]);
    open(&town, &first, 7, "theirs", &theirs);
    town.settled_named("my-web-7", &theirs, PreviewState::Live);

    // admin-my-web-7 as well, in another way.
    let greedy = town.commit("topic", &[("preview-config.nix", &with_host("admin-my"))]);
    town.pull(7, "topic", &greedy);
    town.deliver(7, "opened");
    let view = town.settled(7, &greedy, PreviewState::Failed);
    assert_eq!(view.preview.fault.expect("why").code, Code::SlugConflict);
    let modest = town.push(7, "topic", &[("preview-config.nix", &app())]);
    town.settled(7, &modest, PreviewState::Live);
    assert!(town.page("admin-my-web-7").contains(theirs.as_str()));
    daemon.stop();
}
