//! Previews that are managed with API calls.

use innkeeper_github::fake::FailureKind;
use innkeeper_model::api::GuestView;
use innkeeper_model::preview::api::{LinkKind, PreviewAccepted, PreviewExplanation};
use innkeeper_model::preview::{PreviewState, PreviewView};
use innkeeper_model::{Code, GuestState};

use crate::host::PreviewHost;
use crate::support::wait_until;

#[test]
fn a_preview_of_a_branch_lives_until_it_is_destroyed() {
    let host = PreviewHost::new();
    let daemon = host.start();
    let first = host.commit_app("topic");
    let client = host.client();
    let create = r#"{"repo":"octo/web","branch":"topic","slug":"mine"}"#;
    let accepted = client.call("POST", "/v1/previews", create);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(accepted.read::<PreviewAccepted>().slug.as_str(), "mine");
    let state = || {
        let view: PreviewView = client.get("/v1/previews/mine");
        (view.preview.state, view.preview.live_sha)
    };
    wait_until("it is live", || {
        state() == (PreviewState::Live, Some(first.clone()))
    });
    assert!(host.page("mine").contains(first.as_str()));

    let explained: PreviewExplanation = client.get("/v1/previews/mine/explain");
    assert_eq!(explained.first_broken(), None, "{explained:#?}");
    host.exec("mine", &["systemctl", "stop", "preview-app"]);
    let explained: PreviewExplanation = client.get("/v1/previews/mine/explain");
    assert_eq!(
        explained.first_broken().map(|link| link.link),
        Some(LinkKind::Address)
    );

    let second = host.commit("topic", &[("x", "y")]);
    let update = client.call("POST", "/v1/previews/mine/update", "");
    assert_eq!(update.status, 202, "{update:?}");
    wait_until("it is updated", || {
        state() == (PreviewState::Live, Some(second.clone()))
    });
    let log = client
        .call("GET", "/v1/previews/mine/logs?lines=50", "")
        .body;
    assert!(
        log.contains("is live at") && log.contains("serving on port 3000"),
        "{log}"
    );

    assert_eq!(client.call("DELETE", "/v1/previews/mine", "").status, 202);
    wait_until("it is gone", || {
        client.call("GET", "/v1/previews/mine", "").status == 404
    });
    daemon.stop();
}

#[test]
fn a_pull_request_takes_over_its_branchs_only_preview() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit_app("topic");
    let create = r#"{"repo":"octo/web","branch":"topic"}"#;
    let call = |body: &'static str| {
        let client = host.client();
        std::thread::spawn(move || client.call("POST", "/v1/previews", body))
    };
    let answers = [call(create), call(create)].map(|call| call.join().expect("an answer"));
    let (accepted, rejected): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 202);
    assert_eq!((accepted.len(), rejected.len()), (1, 1), "{answers:?}");
    let slug = accepted[0].read::<PreviewAccepted>().slug;
    let failure = rejected[0].failure();
    assert_eq!(failure.code.to_string(), "slug_conflict");
    assert!(
        failure.message.contains(&format!("'{slug}'")),
        "{failure:?}"
    );
    let slug = slug.to_string();
    host.wait_for_state_of(&slug, &sha, PreviewState::Live);
    let other = r#"{"repo":"octo/web","branch":"topic","slug":"other"}"#;
    let rejected = call(other).join().expect("an answer").failure();
    assert!(
        rejected.message.contains(&format!("'{slug}'")),
        "{rejected:?}"
    );

    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    let list = || host.client().get::<Vec<PreviewView>>("/v1/previews");
    wait_until("the comment contains the URL", || {
        let comments = host.comments(7);
        comments
            .first()
            .is_some_and(|text| text.contains(&format!("//{slug}.")))
    });
    let [view] = &list()[..] else {
        panic!("{:#?}", list());
    };
    assert_eq!(view.preview.pull_request, Some(7));
    let pushed = host.push(7, "topic", &[("x", "y")]);
    host.wait_for_state_of(&slug, &pushed, PreviewState::Live);
    host.close(7);
    wait_until("it is gone", || list().is_empty());
    daemon.stop();
}

#[test]
fn invalid_creates_are_rejected_at_once() {
    let host = PreviewHost::new();
    let daemon = host.start();
    host.commit_app("topic");
    let client = host.client();
    let rejected = |body: &str| {
        client
            .call("POST", "/v1/previews", body)
            .failure()
            .code
            .to_string()
    };
    let create = |repo: &str, branch: &str, slug: &str| {
        format!(r#"{{"repo":"{repo}","branch":"{branch}","slug":"{slug}"}}"#)
    };
    assert_eq!(
        rejected(&create("octo/web", "nowhere", "a")),
        "branch_not_found"
    );
    assert_eq!(
        rejected(&create("octo/other", "topic", "a")),
        "repo_not_accessible"
    );
    assert_eq!(
        rejected(&create("octo/web", "topic", "A_b")),
        "invalid_slug"
    );
    assert_eq!(
        rejected(&create("octo/web", "topic", &"a".repeat(41))),
        "slug_too_long"
    );
    assert_eq!(
        rejected(&create("octo/web", "topic", "webhook")),
        "invalid_slug"
    );
    assert_eq!(
        client
            .call("POST", "/v1/previews", &create("octo/web", "topic", "a"))
            .status,
        202
    );
    let taken = client.call("POST", "/v1/previews", &create("octo/web", "topic", "a"));
    assert_eq!(taken.failure().code.to_string(), "slug_conflict");
    let unknown = client.call("POST", "/v1/previews/b/update", "");
    assert_eq!(unknown.failure().code.to_string(), "preview_not_found");
    assert_eq!(client.call("DELETE", "/v1/previews/a", "").status, 202);
    wait_until("it is gone", || {
        client.call("GET", "/v1/previews/a", "").status == 404
    });
    daemon.stop();
}

#[test]
fn a_preview_can_be_destroyed_during_its_setup() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let slow = crate::host::app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = host.commit("topic", &[("preview-config.nix", &slow)]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::SettingUp);
    // The unfinished delivery must not recreate the removed preview.
    let client = host.client();
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn a_preview_waiting_for_github_can_be_destroyed() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let down = FailureKind::Status(502);
    host.github
        .with(|world| world.fail("GET", "/git/trees/", 1_000, down));
    let sha = host.commit_app("topic");
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    let fault = || host.preview(7).and_then(|view| view.preview.fault);
    wait_until("a request to GitHub failed", || fault().is_some());
    let client = host.client();
    assert_eq!(client.call("DELETE", "/v1/previews/web-7", "").status, 202);
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn agent_calls_reject_a_previews_guest() {
    let host = PreviewHost::new();
    let daemon = host.start();
    let sha = host.commit_app("topic");
    let client = host.client();
    let create = r#"{"repo":"octo/web","branch":"topic","slug":"mine"}"#;
    assert_eq!(client.call("POST", "/v1/previews", create).status, 202);
    host.wait_for_state_of("mine", &sha, PreviewState::Live);

    let calls = [
        ("DELETE", "", "Use `preview destroy mine`."),
        ("POST", "/start", "Use `preview start mine`."),
        ("POST", "/stop", "Use `preview stop mine`."),
        ("GET", "/logs", "Use `preview logs mine`."),
        ("POST", "/exec", "Use `preview exec mine`."),
        ("POST", "/fork", "Previews have no snapshots or copies"),
        ("GET", "/snapshots", "Previews have no snapshots or copies"),
        ("POST", "/snapshots", "Previews have no snapshots or copies"),
        (
            "DELETE",
            "/snapshots/a",
            "Previews have no snapshots or copies",
        ),
        (
            "POST",
            "/snapshots/a/restore",
            "Previews have no snapshots or copies",
        ),
    ];
    for (method, call, remedy) in calls {
        let failure = client
            .call(method, &format!("/v1/guests/mine{call}"), "")
            .failure();
        assert_eq!(failure.code, Code::GuestIsPreview, "{method} {call}");
        assert_eq!(failure.message, "'mine' is a preview, not an agent");
        let hint = failure.remedy.unwrap_or_default();
        assert!(hint.starts_with(remedy), "{method} {call}: {hint}");
    }
    let taken = client.call(
        "POST",
        "/v1/guests",
        r#"{"name":"mine","closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}"#,
    );
    let hint = taken.failure().remedy.unwrap_or_default();
    assert!(!hint.contains("destroy"), "{hint}");
    assert!(host.page("mine").contains(sha.as_str()));

    // A preview stopped by command stays stopped, also after its worker ran, until it is started.
    let run = |arguments: &[&str]| {
        let output = host.sandbox.program("preview", arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    run(&["stop", "mine"]);
    let guest = || client.get::<GuestView>("/v1/previews/mine/guest").state;
    assert_eq!(guest(), GuestState::Stopped);
    daemon.stop();
    let daemon = host.start();
    let reported = || {
        client
            .call("GET", "/v1/previews/mine/logs?lines=50", "")
            .body
    };
    wait_until("its worker has run", || {
        reported().contains("is stopped; `preview start mine` starts it")
    });
    assert_eq!(guest(), GuestState::Stopped);
    run(&["start", "mine"]);
    assert_eq!(guest(), GuestState::Running);
    wait_until("the app answers", || {
        host.browse("mine", "/", "text/html").0 == 200
    });
    daemon.stop();
}
