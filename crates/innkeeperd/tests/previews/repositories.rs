//! Repositories that are not there any more, or not under their name.

use std::fs;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::api::{LinkKind, PreviewExplanation};
use innkeeper_model::preview::{PreviewState, PreviewView, RepoName};

use crate::github::payload::Sent;
use crate::support::wait_until;
use crate::town::{Town, app};

/// How often GitHub was queried for the repository, by name or by number.
fn looks(town: &Town) -> usize {
    town.github.with(|world| {
        let requests = world.requests.iter();
        let looks = requests.filter(|request| {
            request.method == "GET"
                && (request.path == "/repos/octo/web" || request.path.starts_with("/repositories/"))
        });
        looks.count()
    })
}

/// GitHub's number of the repository.
fn id(town: &Town) -> u64 {
    town.github.with(|world| world.repos[&town.repo].id)
}

fn deliver(town: &Town, name: &RepoName, id: u64, action: &str) {
    let deliver = town.github.deliver_repository(name, id, action);
    let attempt = town.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 202, "{action}");
}

/// The fixtures' app, wanting a secret.
fn with_secret() -> String {
    let database = "hostSecrets = [ \"STRIPE_KEY\" ];\n    database =";
    app().replacen("database =", database, 1)
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

#[test]
fn a_repository_that_is_renamed_is_followed_at_once() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.wanted_sha;
    let (former, number) = (town.repo.clone(), id(&town));
    for (now, action) in [("octo/new", "renamed"), ("acme/web", "transferred")] {
        let now = RepoName::parse(now).expect("a name");
        town.github
            .with(|world| world.rename_repo(&town.repo, now.clone()));
        town.repo = now.clone();
        deliver(&town, &now, number, action);
        wait_until("it is followed", || {
            town.preview(7).is_some_and(|view| view.preview.repo == now)
        });
    }
    // A delivery from before the change is about the same pull request.
    let late = town.github.with(|world| {
        let mut late = world
            .payload(&town.repo, 7, "synchronize", "alice")
            .expect("there");
        for side in ["repository", "head", "base"] {
            let repo = match side {
                "repository" => &mut late["repository"],
                side => &mut late["pull_request"][side]["repo"],
            };
            repo["full_name"] = serde_json::json!(former);
        }
        late.to_string()
    });
    let late = Sent::signed("late", "pull_request", late);
    assert_eq!(town.send(&late), 202);
    town.finished("late");
    let view = town.settled(7, &sha, PreviewState::Live);
    assert_eq!(
        (view.preview.repo.clone(), view.preview.is_from_fork()),
        (town.repo.clone(), false)
    );
    let views: Vec<PreviewView> = town.client().get("/v1/previews");
    assert_eq!(views.len(), 1, "{views:?}");
    daemon.stop();
}

#[test]
fn another_repository_that_takes_over_a_name_inherits_nothing() {
    let mut town = Town::new();
    let secrets = town.root().join("secrets");
    fs::create_dir_all(secrets.join("octo")).expect("made");
    fs::write(secrets.join("octo/web.env"), "STRIPE_KEY=sk_live\n").expect("written");
    let daemon = town.start();
    town.start_webhook();
    let sha = town.commit("topic", &[("preview-config.nix", &with_secret())]);
    let action = town.pull(7, "topic", &sha);
    town.deliver(7, action);
    town.settled(7, &sha, PreviewState::Live);
    let environment = |slug: &str| town.inside(slug, &["cat", "/etc/preview.env"]);
    assert!(environment("web-7").contains("STRIPE_KEY='sk_live'"));

    // The repository is renamed, and GitHub's word of it is lost; another one is made under its name.
    let former = town.repo.clone();
    let now = RepoName::parse("octo/new").expect("a name");
    town.github
        .with(|world| world.rename_repo(&former, now.clone()));
    town.add_repo(former.as_str());
    town.pull_in(&former, 7, "topic", &sha, &former);
    town.deliver(7, "opened");
    let theirs = wait_for_another(&town, "web-7");
    town.settled_named(&theirs, &sha, PreviewState::Live);
    let environment_of_theirs = environment(&theirs);
    assert!(
        !environment_of_theirs.contains("sk_live"),
        "{environment_of_theirs}"
    );
    wait_until("the former one is followed", || {
        town.preview(7).is_some_and(|view| view.preview.repo == now)
    });
    assert!(town.page("web-7").contains(sha.as_str()));

    // What is filed under its number is its own.
    let number = id(&town);
    fs::write(secrets.join(format!("{number}.env")), "STRIPE_KEY=theirs\n").expect("written");
    let update = format!("/v1/previews/{theirs}/update");
    assert_eq!(town.client().call("POST", &update, "").status, 202);
    wait_until("it has its secret", || {
        environment(&theirs).contains("STRIPE_KEY='theirs'")
    });

    // One that is deleted takes its own previews with it, and no others.
    town.github.with(|world| world.repos.remove(&former));
    deliver(&town, &former, number, "deleted");
    wait_until("its preview is gone", || {
        town.preview_named(&theirs).is_none()
    });
    assert!(town.page("web-7").contains(sha.as_str()));
    daemon.stop();
}

/// Waits until there is a second preview, and returns its name.
fn wait_for_another(town: &Town, slug: &str) -> String {
    let mut other = None;
    wait_until("there is another preview", || {
        let views: Vec<PreviewView> = town.client().get("/v1/previews");
        let mut slugs = views.iter().map(|view| view.preview.slug.to_string());
        other = slugs.find(|other| other != slug);
        other.is_some()
    });
    other.expect("just seen")
}
