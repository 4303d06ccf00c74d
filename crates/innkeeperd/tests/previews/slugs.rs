//! Conflicts between the names of previews and their extra hosts.

use innkeeper_model::api::DoctorReport;
use innkeeper_model::preview::{BranchName, CommitSha, PreviewState, PreviewView, RepoName};
use innkeeper_model::{Code, GuestName};
use innkeeper_store::NewPreview;

use crate::host::{PreviewHost, app};
use crate::support::wait_until;

/// Opens a pull request of another repository.
fn open(host: &PreviewHost, repo: &RepoName, number: u64, branch: &str, sha: &CommitSha) -> String {
    host.pull_in(repo, number, branch, sha, repo);
    let deliver = host.github.deliver(repo, number, "opened", "alice");
    let attempt = host.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 202);
    attempt.guid
}

fn preview_of(host: &PreviewHost, repo: &RepoName) -> PreviewView {
    let views: Vec<PreviewView> = host.client().get("/v1/previews");
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
fn long_names_with_a_common_prefix_get_different_slugs() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let stem = "a-repository-whose-name-is-as-long-as-it-may-be";
    let first = host.add_repo(&format!("octo/{stem}-one"));
    let second = host.add_repo(&format!("octo/{stem}-two"));
    let sha = host.commit_app("topic");
    open(&host, &first, 7, "topic", &sha);
    open(&host, &second, 7, "topic", &sha);
    let slugs = [&first, &second].map(|repo| {
        let slug = preview_of(&host, repo).preview.slug;
        host.wait_for_state_of(slug.as_str(), &sha, PreviewState::Live);
        assert!(host.page(slug.as_str()).contains(sha.as_str()));
        slug
    });
    assert_ne!(slugs[0], slugs[1]);
    daemon.stop();
}

#[test]
fn a_slug_never_equals_another_previews_extra_host() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &with_admin())]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("admin-web-7").contains(sha.as_str()));

    let newcomer = host.add_repo("octo/admin-web");
    let theirs = host.commit("theirs", &[("preview-config.nix", &app())]);
    open(&host, &newcomer, 7, "theirs", &theirs);
    let slug = preview_of(&host, &newcomer).preview.slug;
    assert_ne!(slug.as_str(), "admin-web-7");
    host.wait_for_state_of(slug.as_str(), &theirs, PreviewState::Live);
    assert!(host.page(slug.as_str()).contains(theirs.as_str()));
    for name in ["web-7", "admin-web-7"] {
        assert!(host.page(name).contains(sha.as_str()), "{name}");
    }
    // Its removal does not affect the other preview.
    let path = format!("/v1/previews/{slug}");
    assert_eq!(host.client().call("DELETE", &path, "").status, 202);
    wait_until("it is gone", || host.preview_named(slug.as_str()).is_none());
    assert!(host.page("admin-web-7").contains(sha.as_str()));
    daemon.stop();
}

#[test]
fn an_extra_host_equal_to_another_slug_is_a_conflict() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let first = host.add_repo("octo/admin-web");
    let theirs = host.commit_app("theirs");
    open(&host, &first, 7, "theirs", &theirs);
    host.wait_for_state_of("admin-web-7", &theirs, PreviewState::Live);
    let good = host.open(7, "topic").preview.live_sha.expect("live");

    let conflicting = host.push(7, "topic", &[("preview-config.nix", &with_admin())]);
    let view = host.wait_for_state(7, &conflicting, PreviewState::Failed);
    assert_eq!(
        view.preview.fault.expect("a fault").code,
        Code::SlugConflict
    );
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(host.page("web-7").contains(good.as_str()));
    assert!(host.page("admin-web-7").contains(theirs.as_str()));

    host.close(7);
    host.wait_until_gone(7);
    assert!(host.page("admin-web-7").contains(theirs.as_str()));
    daemon.stop();
}

#[test]
fn a_conflicting_extra_host_is_released_by_the_next_commit() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let first = host.add_repo("octo/my-web");
    let theirs = host.commit("theirs", &[("preview-config.nix", &with_admin())]);
    open(&host, &first, 7, "theirs", &theirs);
    host.wait_for_state_of("my-web-7", &theirs, PreviewState::Live);

    // Also admin-my-web-7, with another prefix.
    let conflicting = host.commit("topic", &[("preview-config.nix", &with_host("admin-my"))]);
    host.pull(7, "topic", &conflicting);
    host.deliver(7, "opened");
    let view = host.wait_for_state(7, &conflicting, PreviewState::Failed);
    assert_eq!(
        view.preview.fault.expect("a fault").code,
        Code::SlugConflict
    );
    let without = host.push(7, "topic", &[("preview-config.nix", &app())]);
    host.wait_for_state(7, &without, PreviewState::Live);
    assert!(host.page("admin-my-web-7").contains(theirs.as_str()));
    daemon.stop();
}

#[test]
fn reserved_names_are_refused_and_older_ones_keep_their_hosts() {
    let mut host = PreviewHost::new();
    host.start().stop();
    // A preview of a former release, which has a reserved name.
    let first = host.add_repo("octo/dev");
    let sha = host.commit_app("topic");
    host.pull_in(&first, 7, "topic", &sha, &first);
    let older = NewPreview {
        repo: first.clone(),
        number: Some(7),
        branch: BranchName::parse("topic").expect("a branch"),
        head_repo: Some(first.clone()),
        wanted_sha: sha.clone(),
    };
    host.with_store(async |store| {
        let slugs = vec![GuestName::parse("dev-7").expect("a name")];
        store.claim_preview(older, slugs).await.expect("claimed");
    });
    let daemon = host.start();
    host.start_webhook();
    host.wait_for_state_of("dev-7", &sha, PreviewState::Live);
    assert!(host.page("dev-7").contains(sha.as_str()));
    let doctor: DoctorReport = host.client().get("/v1/doctor");
    let reported = doctor
        .checks
        .iter()
        .any(|check| check.subject == "preview dev-7" && check.finding.contains("'dev-…'"));
    assert!(reported, "{doctor:#?}");
    // A new one of the same repository gets another name.
    open(&host, &first, 8, "topic", &sha);
    host.wait_for_state_of("p-dev-8", &sha, PreviewState::Live);
    assert!(host.page("p-dev-8").contains(sha.as_str()));

    let bad = host.commit("bad", &[("preview-config.nix", &with_host("api"))]);
    host.pull(7, "bad", &bad);
    host.deliver(7, "opened");
    let fault = host
        .wait_for_state(7, &bad, PreviewState::Failed)
        .preview
        .fault;
    let fault = fault.expect("a fault");
    assert_eq!(fault.code, Code::PreviewConfigInvalid);
    assert!(fault.message.contains("the prefix 'api'"), "{fault:?}");
    for (program, arguments) in [
        (
            "preview",
            &["create", "octo/web", "topic", "--slug", "console"][..],
        ),
        (
            "agent",
            &[
                "create",
                "s-1",
                "--closure",
                "/nix/store/00000000000000000000000000000000-x",
            ],
        ),
    ] {
        let refused = host.sandbox.program(program, arguments, b"");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let text = String::from_utf8(refused.stderr).expect("text");
        assert!(text.contains("is reserved"), "{text}");
    }
    daemon.stop();
}
