use axum::Router;
use innkeeper_model::GuestState;
use innkeeper_model::preview::{
    AppTrouble, BranchName, PendingRemoval, PreviewState, PreviewView, RemovalReason,
};
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::{from_fork, guest, preview, time};

fn daemon_with(previews: &[PreviewView]) -> Fake {
    Fake::new(Router::new().route("/v1/previews", respond(&previews)))
}

#[test]
fn list_prints_a_table() {
    let mut of_branch = preview("web-main", PreviewState::SettingUp);
    of_branch.preview.pull_request = None;
    // A control character that Git accepts in the name of a branch.
    of_branch.preview.branch = BranchName::parse("ma\u{9b}in").expect("a branch");
    let mut lost = preview("web-8", PreviewState::Live);
    lost.repo_trouble = Some("the repository is octo/new now".to_owned());
    of_branch.outlook.removal = Some(PendingRemoval {
        reason: RemovalReason::BranchGone,
        in_seconds: 23 * 3_600,
    });
    let mut used = preview("web-7", PreviewState::Live);
    used.outlook.visited_at = Some(time("11:50:00"));
    used.outlook.memory_bytes = Some(312 << 20);
    used.outlook.disk_bytes = Some(1500 << 20);
    let mut fork = from_fork("web-9");
    fork.outlook.waits_for = fork.preview.waits_for();
    let previews = [used, of_branch, lost, fork];
    assert_snapshot!(daemon_with(&previews).preview(&["list"]).ok(), @r"
    SLUG      STATUS                BRANCH     URL                                   COMMIT   REPOSITORY                                   AGE  VISITED  MEMORY   DISK      WAITING FOR
    web-7     live                  feature/x  https://web-7.preview.example.com     2b2b2b2  octo/web#7                                   2h   40m      312 MiB  1500 MiB  -
    web-main  setting-up            main       https://web-main.preview.example.com  -        octo/web                                     2h   -        -        -         its branch is gone, removed in 23 h 0 min
    web-8     live                  feature/x  https://web-8.preview.example.com     2b2b2b2  octo/web#7 (the repository is octo/new now)  2h   -        -        -         -
    web-9     waiting-for-approval  feature/x  https://web-9.preview.example.com     -        octo/web#7                                   2h   -        -        -         maintainer: approval of 2b2b2b2
    ");
}

#[test]
fn guest_that_does_not_run_is_shown() {
    for state in [GuestState::Stopped, GuestState::Paused, GuestState::Asleep] {
        let mut guest = guest("web-7", 1);
        guest.state = state;
        let previews = [preview("web-7", PreviewState::Live)];
        let router = Router::new()
            .route("/v1/previews", respond(&previews))
            .route("/v1/guests", respond(&[guest]));
        let list = Fake::new(router).preview(&["list"]).ok();
        assert!(list.contains(&format!("web-7  {state}")), "{list}");
    }
}

#[test]
fn app_that_is_down_is_shown_with_its_reason() {
    let mut down = preview("web-7", PreviewState::Live);
    down.app_trouble = Some(AppTrouble {
        since: "2026-11-20T10:05:00Z".parse().expect("a time"),
        reason: "port 3000 refuses connections".to_owned(),
    });
    let mut looping = preview("web-8", PreviewState::Failed);
    looping.preview.live_sha = Some(looping.preview.wanted_sha.clone());
    let cause = "the app ended 5 times within 9 s";
    looping.preview.fault = Some(Failure::new(Code::AppUnhealthy, cause));
    let list = daemon_with(&[down, looping]).preview(&["list"]).ok();
    assert!(list.contains("web-7  restarting"), "{list}");
    let end: Vec<_> = list.lines().skip(3).collect();
    assert_eq!(
        end,
        [
            "web-7: the app is down and is being started again: port 3000 refuses connections",
            "web-8: the app has failed: the app ended 5 times within 9 s",
        ]
    );
}

#[test]
fn json_has_the_views() {
    let previews = [preview("web-7", PreviewState::Failed)];
    let stdout = daemon_with(&previews).preview(&["list", "--json"]).ok();
    let views: Vec<PreviewView> = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(views, previews);
}

#[test]
fn empty_list_has_a_note() {
    assert_eq!(daemon_with(&[]).preview(&["list"]).ok(), "(no previews)\n");
    assert_eq!(daemon_with(&[]).preview(&["list", "--json"]).ok(), "[]\n");
}

#[test]
fn failed_removal_has_its_cause() {
    let mut closing = preview("web-7", PreviewState::Closing);
    let cause = "cannot drop database 'preview_web_7'";
    closing.preview.fault = Some(Failure::new(Code::DatabaseFailed, cause));
    let stdout = daemon_with(&[closing]).preview(&["list"]).ok();
    let last = stdout.lines().last();
    assert_eq!(
        last,
        Some("web-7 cannot be removed yet, retrying: cannot drop database 'preview_web_7'")
    );
}

#[test]
fn host_problem_has_its_remedy() {
    let mut waiting = preview("web-7", PreviewState::Building);
    let cause = Failure::new(Code::DiskFull, "the disk is full").with_remedy("Free space.");
    waiting.preview.fault = Some(cause);
    let mut failed = preview("web-8", PreviewState::Failed);
    failed.preview.fault = Some(Failure::new(Code::BuildFailed, "it does not build"));
    let stdout = daemon_with(&[waiting, failed]).preview(&["list"]).ok();
    let end: Vec<_> = stdout.lines().skip(3).collect();
    let expected = [
        "web-7 has a host problem, retrying: the disk is full",
        "  Free space.",
    ];
    assert_eq!(end, expected);
}
