//! The lifecycle of a preview: opened, pushed to, closed, restarted.

use innkeeper_model::Code;
use innkeeper_model::preview::PreviewState;

use crate::host::{PreviewHost, other_app};
use crate::support::wait_until;

#[test]
fn a_pull_request_becomes_a_page_and_leaves_nothing_behind() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let view = host.open(7, "feature/x");
    assert_eq!(view.url, "http://web-7.localhost:8080");
    let sha = view.preview.live_sha.expect("live");
    let page = host.page("web-7");
    assert!(page.contains("<h1>feature/x</h1>"), "{page}");
    assert!(
        page.contains(&format!("Commit {sha}, prepared 1 times")),
        "{page}"
    );
    wait_until("the comment is updated", || {
        let comments = host.comments(7);
        comments.len() == 1 && comments[0].contains("http://web-7.localhost:8080")
    });

    // The same closure: the guest keeps running, with its data.
    let before = host.client().guest("web-7");
    let pushed = host.push(7, "feature/x", &[("README", "two")]);
    host.wait_for_state(7, &pushed, PreviewState::Live);
    let page = host.page("web-7");
    assert!(
        page.contains(&format!("Commit {pushed}, prepared 2 times")),
        "{page}"
    );
    let after = host.client().guest("web-7");
    assert_eq!(before.guest.closure, after.guest.closure);
    assert_eq!(before.guest.slot, after.guest.slot);

    // Another closure: the guest is switched to it, and keeps its data and address.
    let pushed = host.push(
        7,
        "feature/x",
        &[("preview-config.nix", &other_app("three"))],
    );
    host.wait_for_state(7, &pushed, PreviewState::Live);
    let page = host.page("web-7");
    assert!(
        page.contains(&format!("Commit {pushed}, prepared 3 times")),
        "{page}"
    );
    let switched = host.client().guest("web-7");
    assert_ne!(switched.guest.closure, after.guest.closure);
    assert_eq!(switched.guest_address, after.guest_address);
    assert_eq!(host.exec("web-7", &["cat", "/etc/tag"]).trim(), "three");

    host.close(7);
    host.wait_until_gone(7);
    let (status, _) = host.browse("web-7", "/", "text/html");
    assert_eq!(status, 404);
    wait_until("the comment reports the removal", || {
        host.comments(7)[0].contains("removed")
    });
    daemon.stop();
}

#[test]
fn each_configuration_of_a_pull_request_has_a_preview_and_a_comment() {
    const SLUGS: [&str; 2] = ["web-7", "web-7-api"];
    let paths = "config_path = ['preview-config.nix', 'apps/api/preview.nix']";
    let mut host = PreviewHost::with_previews(paths);
    let daemon = host.start();
    host.start_webhook();
    let files = [
        ("preview-config.nix", other_app("web")),
        ("apps/api/preview.nix", other_app("api")),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let opened = host.commit("topic", &files);
    host.pull(7, "topic", &opened);
    host.deliver(7, "opened");
    let live = |sha| SLUGS.map(|slug| host.wait_for_state_of(slug, sha, PreviewState::Live));
    let views = live(&opened);
    for (slug, tag) in SLUGS.into_iter().zip(["web", "api"]) {
        assert!(host.page(slug).contains(opened.as_str()), "{slug}");
        assert_eq!(host.exec(slug, &["cat", "/etc/tag"]).trim(), tag);
    }
    wait_until("each has a comment with its URL", || {
        let comments = host.comments(7);
        let has = |url: &str| {
            let line = format!("**Preview:** {url}");
            let is_of_it = |comment: &&String| comment.lines().any(|one| one == line);
            comments.iter().filter(is_of_it).count() == 1
        };
        comments.len() == SLUGS.len() && views.iter().all(|view| has(&view.url))
    });

    let pushed = host.push(7, "topic", &[("README", "two")]);
    live(&pushed);
    for slug in SLUGS {
        assert!(host.page(slug).contains(pushed.as_str()), "{slug}");
    }

    host.close(7);
    for slug in SLUGS {
        host.wait_until_slug_is_gone(slug);
        assert_eq!(host.browse(slug, "/", "text/html").0, 404, "{slug}");
    }
    wait_until("each comment reports the removal", || {
        let comments = host.comments(7);
        comments.len() == SLUGS.len() && comments.iter().all(|one| one.contains("removed"))
    });
    daemon.stop();
}

#[test]
fn a_failing_commit_leaves_the_last_good_one_in_service() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let good = host.open(7, "topic").preview.live_sha.expect("live");

    // Invalid Nix: the running guest is not touched.
    let bad = host.push(7, "topic", &[("preview-config.nix", "{ this is not nix")]);
    let view = host.wait_for_state(7, &bad, PreviewState::Failed);
    assert_eq!(
        view.preview.fault.expect("a fault").code,
        Code::PreviewConfigInvalid
    );
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(host.page("web-7").contains(good.as_str()));

    // A last good commit that is down is started again.
    host.exec("web-7", &["systemctl", "stop", "preview-app"]);
    let bad = host.push(7, "topic", &[("preview-config.nix", "{ nor is this")]);
    host.wait_for_state(7, &bad, PreviewState::Failed);
    assert!(host.page("web-7").contains(good.as_str()));

    // The app does not start: the guest is rolled back.
    let silent = other_app("silent").replace("exec httpd -f -p 3000", "exec httpd -f -p 3001");
    let bad = host.push(7, "topic", &[("preview-config.nix", &silent)]);
    let view = host.wait_for_state(7, &bad, PreviewState::Failed);
    let fault = view.preview.fault.expect("a fault");
    assert_eq!(fault.code, Code::AppUnhealthy);
    assert!(
        fault.log.iter().any(|line| line.contains("serving")),
        "{fault:?}"
    );
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(host.page("web-7").contains(good.as_str()));
    wait_until("the comment reports the cause", || {
        host.comments(7)[0].contains("3000")
    });

    // A service with a start timeout is rolled back too, and is not a host failure.
    let slow = other_app("slow")
        .replace("Restart = \"always\";", "Type = \"oneshot\";")
        .replace("exec httpd -f -p 3000", "sleep 50 #");
    let bad = host.push(7, "topic", &[("preview-config.nix", &slow)]);
    let view = host.wait_for_state(7, &bad, PreviewState::Failed);
    let fault = view.preview.fault.expect("a fault");
    assert_eq!(
        fault.message,
        "the app service 'preview-app.service' did not start within 5 s"
    );
    assert!(host.page("web-7").contains(good.as_str()));

    let fixed = host.push(7, "topic", &[("preview-config.nix", &crate::host::app())]);
    host.wait_for_state(7, &fixed, PreviewState::Live);
    assert!(host.page("web-7").contains(fixed.as_str()));
    daemon.stop();
}

#[test]
fn a_superseded_half_finished_setup_is_rolled_back() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let slow = "test ! -e ../slow || { rm ../slow; sleep 50; }; echo \"prepared";
    let app = crate::host::app().replace("echo \"prepared", slow);
    let good = host.commit("topic", &[("preview-config.nix", &app)]);
    host.pull(7, "topic", &good);
    host.deliver(7, "opened");
    host.wait_for_state(7, &good, PreviewState::Live);

    // The same closure, so the app keeps running and serves its directory.
    host.exec("web-7", &["touch", "/home/preview/slow"]);
    let half = host.push(7, "topic", &[("README", "two")]);
    wait_until("the new commit is partly served", || {
        let (_, page) = host.browse("web-7", "/", "text/html");
        page.contains(half.as_str())
    });
    let bad = host.push(7, "topic", &[("preview-config.nix", "{ this is not nix")]);
    host.wait_for_state(7, &bad, PreviewState::Failed);
    assert!(host.page("web-7").contains(good.as_str()));
    daemon.stop();
}

#[test]
fn a_push_supersedes_a_running_setup() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let slow = crate::host::app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let slow = host.push(7, "topic", &[("preview-config.nix", &slow)]);
    host.wait_for_state(7, &slow, PreviewState::Updating);
    let newest = host.push(7, "topic", &[("preview-config.nix", &crate::host::app())]);
    host.wait_for_state(7, &newest, PreviewState::Live);
    assert!(host.page("web-7").contains(newest.as_str()));
    daemon.stop();
}

#[test]
fn a_close_during_the_setup_removes_the_preview() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let slow = crate::host::app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = host.commit("topic", &[("preview-config.nix", &slow)]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::SettingUp);
    // Until the app responds, browsers get a progress page, and programs 503.
    wait_until("the page reports the progress", || {
        let (_, page) = host.browse("web-7", "/", "text/html");
        page.contains("Setting up the app")
    });
    assert_eq!(host.browse("web-7", "/", "application/json").0, 503);
    host.close(7);
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn events_of_the_same_second_are_resolved_by_githubs_state() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.wanted_sha;
    // Closed and reopened; the deliveries arrive in reverse order.
    host.deliver(7, "reopened");
    host.deliver(7, "closed");
    host.wait_for_delivery(&host.last_delivery());
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("web-7").contains(sha.as_str()));

    // Reopened and closed: the preview stays removed.
    host.close(7);
    host.wait_until_gone(7);
    host.deliver(7, "reopened");
    host.wait_for_delivery(&host.last_delivery());
    host.wait_until_gone(7);

    // Two pushes; the first one arrives last.
    let first = host.commit("topic", &[("README", "first")]);
    host.pull(7, "topic", &first);
    host.deliver(7, "reopened");
    let newest = host.push(7, "topic", &[("README", "second")]);
    host.change(7, |pull| pull.head_sha = first.clone());
    let late = host
        .github
        .with(|world| world.payload(&host.repo, 7, "synchronize", "alice"));
    host.change(7, |pull| pull.head_sha = newest.clone());
    let late = late.expect("there").to_string();
    let sent = crate::github::payload::RawDelivery::signed("late-push", "pull_request", late);
    assert_eq!(host.send(&sent), 202);
    host.wait_for_delivery("late-push");
    let view = host.wait_for_state(7, &newest, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(newest));
    daemon.stop();
}

#[test]
fn a_reboot_restores_the_page_with_its_data() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.live_sha.expect("live");
    let guest = host.client().guest("web-7");
    daemon.stop();
    host.reboot();
    let daemon = host.start();
    wait_until("the page is served again", || {
        host.browse("web-7", "/", "text/html")
            .1
            .contains("prepared 2 times")
    });
    let view = host.preview(7).expect("there");
    assert_eq!(view.preview.state, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(sha));
    assert_eq!(
        host.client().guest("web-7").guest_address,
        guest.guest_address
    );
    daemon.stop();
}

#[test]
fn daemon_restarts_do_not_restart_the_app() {
    let mut host = PreviewHost::new();
    let mut daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    for turn in 0..12 {
        if turn % 2 == 0 {
            daemon.stop();
        } else {
            daemon.kill();
        }
        daemon = host.start();
        let page = host.page("web-7");
        assert!(page.contains("prepared 1 times"), "{turn}: {page}");
    }
    let log = host
        .client()
        .call("GET", "/v1/previews/web-7/logs?lines=100", "")
        .body;
    assert!(!log.contains("Starting again"), "{log}");
    daemon.stop();
}
