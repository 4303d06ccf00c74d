//! Deleted, renamed and replaced repositories.

use std::fs;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::api::{LinkKind, PreviewExplanation};
use innkeeper_model::preview::{PreviewState, PreviewView, RepoName};

use crate::github::payload::RawDelivery;
use crate::host::{PreviewHost, app};
use crate::support::wait_until;

/// Returns the number of queries for the repository, by name or by number.
fn queries(host: &PreviewHost) -> usize {
    host.github.with(|world| {
        let requests = world.requests.iter();
        let queries = requests.filter(|request| {
            request.method == "GET"
                && (request.path == "/repos/octo/web" || request.path.starts_with("/repositories/"))
        });
        queries.count()
    })
}

/// GitHub's number of the repository.
fn id(host: &PreviewHost) -> u64 {
    host.github.with(|world| world.repos[&host.repo].id)
}

fn deliver(host: &PreviewHost, name: &RepoName, id: u64, action: &str) {
    let deliver = host.github.deliver_repository(name, id, action);
    let attempt = host.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 202, "{action}");
}

/// The fixtures' app with a request for a secret.
fn with_secret() -> String {
    let database = "hostSecrets = [ \"STRIPE_KEY\" ];\n    database =";
    app().replacen("database =", database, 1)
}

#[test]
fn previews_of_a_missing_repository_are_reported_and_removable() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.wanted_sha;
    let repo = host.repo.clone();
    let gone = host.github.with(|world| world.repos.remove(&repo));
    wait_until("it is detected", || {
        host.preview(7)
            .is_some_and(|view| view.repo_trouble.is_some())
    });
    let before = queries(&host);
    wait_until("the repository was queried again", || {
        queries(&host) >= before + 3
    });
    let listed = host.sandbox.program("preview", &["list"], b"");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(
        listed.contains("GitHub does not show the repository"),
        "{listed}"
    );
    let client = host.client();
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
    let check = check.expect("a check of the repository");
    assert!(check.finding.contains("web-7"), "{check:?}");
    // It can reappear: the preview is kept.
    assert!(host.page("web-7").contains(sha.as_str()));
    host.github.with(|world| {
        world
            .repos
            .insert(repo.clone(), gone.expect("it was there"))
    });
    wait_until("it is detected", || {
        host.preview(7)
            .is_some_and(|view| view.repo_trouble.is_none())
    });
    host.github.with(|world| world.repos.remove(&repo));
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn a_preview_can_be_destroyed_while_github_is_down() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    host.github
        .with(|world| world.fail("", "", 10_000, FailureKind::Status(502)));
    let client = host.client();
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn previews_follow_a_renamed_repository() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.wanted_sha;
    host.open(8, "other");
    let former = host.repo.clone();
    let now = RepoName::parse("octo/new").expect("a name");
    host.github
        .with(|world| world.rename_repo(&former, now.clone()));
    host.repo = now.clone();
    wait_until("the previews are updated", || {
        let views: Vec<PreviewView> = host.client().get("/v1/previews");
        views.iter().all(|view| view.preview.repo == now)
    });
    assert!(host.page("web-7").contains(sha.as_str()));
    // It is not a fork of its former name, and no second preview is created.
    let pushed = host.push(7, "topic", &[("x", "y")]);
    let view = host.wait_for_state(7, &pushed, PreviewState::Live);
    assert!(!view.preview.is_from_fork());
    assert_eq!(view.repo_trouble, None);
    host.close(8);
    host.wait_until_gone(8);
    assert_eq!(host.comments(7).len(), 1);
    daemon.stop();
}

#[test]
fn a_rename_event_updates_previews_at_once() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.wanted_sha;
    let (former, number) = (host.repo.clone(), id(&host));
    for (now, action) in [("octo/new", "renamed"), ("acme/web", "transferred")] {
        let now = RepoName::parse(now).expect("a name");
        host.github
            .with(|world| world.rename_repo(&host.repo, now.clone()));
        host.repo = now.clone();
        deliver(&host, &now, number, action);
        wait_until("the preview is updated", || {
            host.preview(7).is_some_and(|view| view.preview.repo == now)
        });
    }
    // A delivery from before the rename belongs to the same pull request.
    let late = host.github.with(|world| {
        let mut late = world
            .payload(&host.repo, 7, "synchronize", "alice")
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
    let late = RawDelivery::signed("late", "pull_request", late);
    assert_eq!(host.send(&late), 202);
    host.wait_for_delivery("late");
    let view = host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(
        (view.preview.repo.clone(), view.preview.is_from_fork()),
        (host.repo.clone(), false)
    );
    let views: Vec<PreviewView> = host.client().get("/v1/previews");
    assert_eq!(views.len(), 1, "{views:?}");
    daemon.stop();
}

#[test]
fn a_new_repository_with_an_old_name_inherits_nothing() {
    let mut host = PreviewHost::new();
    let secrets = host.root().join("secrets");
    fs::create_dir_all(secrets.join("octo")).expect("made");
    fs::write(secrets.join("octo/web.env"), "STRIPE_KEY=sk_live\n").expect("written");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &with_secret())]);
    let action = host.pull(7, "topic", &sha);
    host.deliver(7, action);
    host.wait_for_state(7, &sha, PreviewState::Live);
    let environment = |slug: &str| host.exec(slug, &["cat", "/etc/preview.env"]);
    assert!(environment("web-7").contains("STRIPE_KEY='sk_live'"));

    // The repository is renamed and the delivery is lost; a new repository gets the old name.
    let former = host.repo.clone();
    let now = RepoName::parse("octo/new").expect("a name");
    host.github
        .with(|world| world.rename_repo(&former, now.clone()));
    host.add_repo(former.as_str());
    host.pull_in(&former, 7, "topic", &sha, &former);
    host.deliver(7, "opened");
    let theirs = wait_for_another(&host, "web-7");
    host.wait_for_state_of(&theirs, &sha, PreviewState::Live);
    let environment_of_theirs = environment(&theirs);
    assert!(
        !environment_of_theirs.contains("sk_live"),
        "{environment_of_theirs}"
    );
    wait_until("the renamed one is updated", || {
        host.preview(7).is_some_and(|view| view.preview.repo == now)
    });
    assert!(host.page("web-7").contains(sha.as_str()));

    // The file with its number contains its own secrets.
    let number = id(&host);
    fs::write(secrets.join(format!("{number}.env")), "STRIPE_KEY=theirs\n").expect("written");
    let update = format!("/v1/previews/{theirs}/update");
    assert_eq!(host.client().call("POST", &update, "").status, 202);
    wait_until("it has its secret", || {
        environment(&theirs).contains("STRIPE_KEY='theirs'")
    });

    // Deleting it removes only its own previews.
    host.github.with(|world| world.repos.remove(&former));
    deliver(&host, &former, number, "deleted");
    wait_until("its preview is gone", || {
        host.preview_named(&theirs).is_none()
    });
    assert!(host.page("web-7").contains(sha.as_str()));
    daemon.stop();
}

/// Waits for a second preview, and returns its name.
fn wait_for_another(host: &PreviewHost, slug: &str) -> String {
    let mut other = None;
    wait_until("a second preview exists", || {
        let views: Vec<PreviewView> = host.client().get("/v1/previews");
        let mut slugs = views.iter().map(|view| view.preview.slug.to_string());
        other = slugs.find(|other| other != slug);
        other.is_some()
    });
    other.expect("just seen")
}
