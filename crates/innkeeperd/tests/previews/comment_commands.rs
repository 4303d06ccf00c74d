//! Commands in comments on pull requests.

use innkeeper_model::api::GuestView;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{PreviewState, RepoName};
use innkeeper_model::{Code, GuestState};

use crate::host::{PreviewHost, app};
use crate::support::wait_until;

fn setups(host: &PreviewHost) -> usize {
    let log = host
        .client()
        .call("GET", "/v1/previews/web-7/logs?lines=200", "");
    log.body.matches(": setting up.").count()
}

#[test]
fn commands_need_write_access() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let view = host.open(7, "topic");
    let sha = view.preview.wanted_sha;
    host.github.with(|world| {
        let repo = world.repos.get_mut(&host.repo).expect("there");
        let read = "read".to_owned();
        repo.permissions.insert("reader".to_owned(), read);
    });
    for author in ["reader", "stranger"] {
        for command in ["stop", "reset-db", "rebuild"] {
            let ignored = host.command(7, author, &format!("/preview {command}"));
            assert_eq!(ignored.state, DeliveryState::Ignored, "{ignored:?}");
            let failure = ignored.failure.expect("a reason");
            assert_eq!(failure.code, Code::CommandRefused, "{failure:?}");
        }
        assert_eq!(host.reactions(7, author), Vec::<String>::new());
    }
    // A bot's comment, another text and a comment on a closed pull request are no commands.
    assert_eq!(host.comment(7, "helper[bot]", "/preview stop").1, 200);
    assert_eq!(host.comment(7, "maintainer", "Use /preview stop").1, 200);
    host.change(7, |pull| pull.open = false);
    assert_eq!(host.comment(7, "maintainer", "/preview stop").1, 200);
    host.change(7, |pull| pull.open = true);
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("web-7").contains(sha.as_str()));

    let stopped = host.command(7, "maintainer", "/preview stop\r\nUntil Monday.");
    assert_eq!(stopped.state, DeliveryState::Done, "{stopped:?}");
    assert_eq!(stopped.action.as_deref(), Some("/preview stop"));
    host.wait_for_state(7, &sha, PreviewState::Stopped);
    wait_until("the guest is stopped", || {
        let guest: GuestView = host.client().get("/v1/guests/web-7");
        guest.state == GuestState::Stopped
    });
    wait_until("the comment reports it", || {
        host.comments(7)
            .iter()
            .any(|text| text.contains("**Stopped.**"))
    });
    assert_eq!(host.reactions(7, "maintainer"), ["+1"]);

    let before = setups(&host);
    host.command(7, "maintainer", "/preview start");
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert!(host.page("web-7").contains(sha.as_str()));
    host.command(7, "maintainer", "/preview rebuild");
    wait_until("it was set up again", || setups(&host) == before + 2);
    host.wait_for_state(7, &sha, PreviewState::Live);
    let refused = host.command(7, "maintainer", "/preview reset-db");
    assert_eq!(refused.state, DeliveryState::Ignored, "{refused:?}");
    assert_eq!(
        host.reactions(7, "maintainer"),
        ["+1", "+1", "+1", "confused"]
    );
    daemon.stop();
}

#[test]
fn approval_by_comment_is_for_one_commit() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let fork = RepoName::parse("mallory/web").expect("a name");
    let first = host.commit("theirs", &[("preview-config.nix", &app())]);
    host.pull_from(7, "theirs", &first, &fork);
    host.deliver_of(7, "opened", "mallory");
    host.wait_for_state(7, &first, PreviewState::WaitingForApproval);
    let approve = format!("/preview approve {first}");
    for (author, body) in [
        ("mallory", approve.as_str()),
        ("maintainer", "/preview start"),
        ("maintainer", "/preview rebuild"),
    ] {
        let ignored = host.command(7, author, body);
        assert_eq!(ignored.state, DeliveryState::Ignored, "{body}: {ignored:?}");
    }
    let short = format!("/preview approve {}", first.short());
    assert_eq!(host.comment(7, "maintainer", &short).1, 200);
    let view = host.wait_for_state(7, &first, PreviewState::WaitingForApproval);
    assert_eq!(view.preview.approved_sha, None);

    let approved = host.command(7, "maintainer", &approve);
    assert_eq!(approved.state, DeliveryState::Done, "{approved:?}");
    host.wait_for_state(7, &first, PreviewState::Live);
    let next = host.push(7, "theirs", &[("x", "y")]);
    host.wait_for_state(7, &next, PreviewState::WaitingForApproval);
    let again = host.command(7, "maintainer", &approve);
    assert_eq!(again.state, DeliveryState::Ignored, "{again:?}");

    // The approved commit is set up again; the newer one still waits.
    let before = setups(&host);
    host.command(7, "maintainer", "/preview rebuild");
    wait_until("it goes back to the approved commit", || {
        let log = host
            .client()
            .call("GET", "/v1/previews/web-7/logs?lines=50", "");
        log.body
            .contains(&format!("Going back to {}.", first.short()))
    });
    wait_until("the approved commit is served", || {
        host.browse("web-7", "/", "text/html")
            .1
            .contains(first.as_str())
    });
    let view = host.wait_for_state(7, &next, PreviewState::WaitingForApproval);
    assert_eq!(view.preview.live_sha, Some(first));
    assert_eq!(setups(&host), before, "the newer commit was set up");
    daemon.stop();
}
