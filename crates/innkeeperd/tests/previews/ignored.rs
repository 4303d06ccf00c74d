//! Repositories without a `preview-config.nix`, commits that drop it, and commits that the token cannot read.

use std::time::Duration;

use innkeeper_model::Code;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::api::{DeliveryState, LinkKind, PreviewExplanation};
use innkeeper_model::preview::{CommitSha, PreviewState, RepoName};

use crate::host::{PreviewHost, TOKEN, app};
use crate::support::wait_until;

/// Returns the requests that changed anything on GitHub.
fn publications(host: &PreviewHost) -> Vec<String> {
    host.github.with(|world| {
        let changes = world.requests.iter().filter(|request| {
            !matches!(request.method.as_str(), "GET" | "HEAD") && request.path.contains("/repos/")
        });
        changes
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    })
}

/// Reports whether the preview ever had a page.
fn has_page(host: &PreviewHost) -> bool {
    host.root().join("previews/web-7.caddy").exists()
}

/// Waits until the last delivery is ignored because the commit has no file.
fn wait_until_ignored(host: &PreviewHost, sha: &CommitSha) {
    let id = host.last_delivery();
    host.wait_for_delivery(&id);
    let delivery = host.delivery(&id).expect("kept");
    assert_eq!(delivery.state, DeliveryState::Ignored);
    let reason = format!("ignored: no preview-config.nix at {sha}");
    assert_eq!(delivery.explanation, Some(reason.clone()));
    let listed = host.sandbox.program("innkeeper", &["deliveries"], b"");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains(&reason), "{listed}");
    wait_until("the record is gone", || host.preview(7).is_none());
}

#[test]
fn a_repository_without_a_configuration_is_left_alone() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("README", "one")]);
    let action = host.pull(7, "topic", &sha);
    host.deliver(7, action);
    wait_until_ignored(&host, &sha);
    host.deliver(7, "edited");
    host.wait_for_delivery(&host.last_delivery());

    // A fork's pull request is not asked to wait for an approval either.
    let fork = RepoName::parse("mallory/web").expect("a name");
    host.pull_from(7, "topic", &sha, &fork);
    host.deliver_of(7, "synchronize", "mallory");
    wait_until_ignored(&host, &sha);
    host.pull(7, "topic", &sha);
    host.close(7);
    host.wait_for_delivery(&host.last_delivery());
    assert_eq!(publications(&host), Vec::<String>::new());
    assert!(!has_page(&host));

    // The first commit with the file gets the preview.
    let sha = host.commit_app("topic");
    let action = host.pull(7, "topic", &sha);
    host.deliver(7, action);
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(
        host.preview(7).expect("live").preview.slug.as_str(),
        "web-7"
    );
    wait_until("the comment is written", || host.comments(7).len() == 1);
    daemon.stop();
}

#[test]
fn a_dropped_file_stops_the_preview_and_its_return_restores_the_data() {
    let mut host = PreviewHost::without_grace_at_start("");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    host.exec("web-7", &["sh", "-c", "echo kept > /root/kept"]);
    let drop_file = || {
        let sha = host.remove("topic", "preview-config.nix");
        host.change(7, |pull| pull.head_sha = sha.clone());
        host.deliver(7, "synchronize");
        let view = host.wait_for_state(7, &sha, PreviewState::Dropped);
        assert_eq!(view.preview.live_sha, None);
        let fault = view.preview.fault.expect("the reason");
        assert_eq!(fault.code, Code::ConfigMissing);
        wait_until("the guest is stopped", || {
            let guest = host.client().call("GET", "/v1/guests/web-7", "");
            guest.status == 200 && guest.body.contains("\"state\":\"stopped\"")
        });
        sha
    };
    let dropped = drop_file();
    wait_until("the comment reports it", || {
        let comments = host.comments(7);
        comments.len() == 1 && comments[0].contains("no `preview-config.nix`")
    });
    assert_eq!(host.browse("web-7", "/", "text/html").0, 503);
    let refused = host.sandbox.program("preview", &["start", "web-7"], b"");
    assert!(!refused.status.success());
    let refused = String::from_utf8(refused.stderr).expect("text");
    assert!(refused.contains("Push a commit with the file"), "{refused}");
    let failed_status = host.github.with(|world| {
        let mut statuses = world.repos[&host.repo].deployments.iter();
        statuses.any(|deployment| {
            let mut statuses = deployment.statuses.iter();
            deployment.sha == dropped
                || statuses
                    .any(|status| matches!(status["state"].as_str(), Some("failure" | "error")))
        })
    });
    assert!(!failed_status, "a failed status");

    let restored = host.push(7, "topic", &[("preview-config.nix", &app())]);
    host.wait_for_state(7, &restored, PreviewState::Live);
    assert_eq!(host.exec("web-7", &["cat", "/root/kept"]), "kept\n");
    assert_eq!(host.comments(7).len(), 1);

    drop_file();
    daemon.stop();
    host.advance_running_time(Duration::from_secs(23 * 3_600));
    let daemon = host.start();
    let lists = || {
        host.github
            .with(|world| world.count("GET", "/repos/octo/web/pulls"))
    };
    let before = lists();
    wait_until("some resyncs have run", || lists() >= before + 3);
    let view = host.preview(7).expect("it stays");
    assert_eq!(view.preview.state, PreviewState::Dropped);
    daemon.stop();
    host.advance_running_time(Duration::from_secs(2 * 3_600));
    let daemon = host.start();
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn a_commit_that_the_token_cannot_read_is_no_missing_file() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let set_access = |access: bool| {
        host.github.with(|world| {
            let rights = world.tokens.get_mut(TOKEN).expect("there");
            rights.repos = (!access).then(Default::default);
        });
    };
    set_access(false);
    let sha = host.commit_app("topic");
    let action = host.pull(7, "topic", &sha);
    host.deliver(7, action);
    wait_until("the fault is recorded", || {
        let fault = host.preview(7).and_then(|view| view.preview.fault);
        fault.is_some_and(|fault| fault.code == Code::NoAccess)
    });
    let doctor: DoctorReport = host.client().get("/v1/doctor");
    let named = doctor.checks.iter().any(|check| {
        check.verdict == Verdict::Broken && check.finding.contains("no access to octo/web")
    });
    assert!(named, "{doctor:#?}");
    let explained: PreviewExplanation = host.client().get("/v1/previews/web-7/explain");
    let mut links = explained.chain.iter();
    let commit = links.find(|link| link.link == LinkKind::Commit);
    let commit = commit.expect("one");
    assert!(
        commit.finding.contains("no access to octo/web"),
        "{commit:?}"
    );
    assert_eq!(publications(&host), Vec::<String>::new());
    assert!(!has_page(&host));
    assert!(
        host.delivery(&host.last_delivery())
            .is_some_and(|delivery| delivery.retry_at.is_some())
    );

    set_access(true);
    let updated = host.sandbox.program("preview", &["update", "web-7"], b"");
    assert!(updated.status.success(), "{updated:?}");
    host.wait_for_state(7, &sha, PreviewState::Live);
    daemon.stop();
}
