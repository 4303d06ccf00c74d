//! Records that the unit tests share.

use innkeeper_model::preview::{
    BranchName, CommitSha, Meta, PrAction, PreviewRecord, PreviewState, PullRequest,
    PullRequestEvent, RepoName,
};
use innkeeper_model::{GuestName, StorePath};
use innkeeper_store::{NewDelivery, Presence, Preview, RunningTime};
use jiff::Timestamp;

pub(crate) fn slug() -> GuestName {
    GuestName::parse("web-7").expect("a name")
}

pub(crate) fn repo() -> RepoName {
    RepoName::parse("octo/web").expect("a name")
}

pub(crate) fn branch() -> BranchName {
    BranchName::parse("topic").expect("a branch")
}

/// Returns the commit that consists of one hexadecimal digit.
pub(crate) fn sha(digit: char) -> CommitSha {
    CommitSha::parse(&digit.to_string().repeat(40)).expect("a commit")
}

pub(crate) fn closure() -> StorePath {
    StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest").expect("a path")
}

pub(crate) fn meta() -> Meta {
    Meta::parse(
        r#"{"setupService":"setup","appServices":["app"],"database":"host",
            "routes":[{"path":"/","port":3000}]}"#,
    )
    .expect("valid")
}

/// Returns the record of a pull request's preview whose commit 'a' waits to be brought up.
pub(crate) fn preview() -> Preview {
    let time = Timestamp::UNIX_EPOCH;
    Preview {
        record: PreviewRecord {
            slug: slug(),
            repo: repo(),
            pull_request: Some(7),
            branch: branch(),
            head_repo: Some(repo()),
            wanted_sha: sha('a'),
            live_sha: None,
            approved_sha: None,
            state: PreviewState::Queued,
            fault: None,
            last_delivery: None,
            created_at: time,
            last_activity: time,
        },
        desired: Presence::Present,
        evaluation: None,
        closure: None,
        meta: None,
        live_closure: None,
        live_meta: None,
        dirty: false,
        approved_by_label: false,
        announced_sha: None,
        announced_after: 0,
        active_running: RunningTime::default(),
        comment_id: None,
        deployment_id: None,
    }
}

/// Has a version be live.
pub(crate) fn with_live(mut preview: Preview, sha: CommitSha) -> Preview {
    preview.record.live_sha = Some(sha);
    preview.live_closure = Some(closure());
    preview.live_meta = Some(meta());
    preview
}

pub(crate) fn pull_request() -> PullRequest {
    PullRequest {
        repo: repo(),
        number: 7,
    }
}

/// Returns a delivery about the pull request, with the slug that it claims.
pub(crate) fn delivery(id: &str, action: PrAction, sha: CommitSha) -> NewDelivery {
    NewDelivery {
        event: PullRequestEvent {
            delivery: id.to_owned(),
            action,
            pull_request: pull_request(),
            repo_id: None,
            head_repo: Some(repo()),
            head_sha: sha,
            head_branch: branch(),
            base_branch: BranchName::parse("main").expect("a branch"),
            is_fork: false,
            author: "alice".to_owned(),
            sender: "alice".to_owned(),
            title_changed: false,
            body_changed: false,
            base_changed: false,
            merged: false,
            updated_at: None,
        },
        received_at: Timestamp::now(),
        slugs: vec![slug()],
    }
}
