//! Sample values for the fake daemon's responses.

use std::net::Ipv4Addr;

use innkeeper_model::api::{GuestView, RetainedView};
use innkeeper_model::preview::{
    BranchName, CommitSha, Outlook, PreviewRecord, PreviewState, PreviewView, RepoName, Rollout,
};
use innkeeper_model::{
    Addresses, ClosureSource, Code, DesiredState, Event, EventKind, Failure, Guest, GuestKind,
    GuestName, GuestState, Limits, OperationId, Retained, RetainedId, Slot, SlotRange, StorePath,
    UnitPhase, UserIdCount, Verb,
};
use jiff::Timestamp;

pub(crate) const CLOSURE: &str = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest";
pub(crate) const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample";

pub(crate) fn time(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().expect("a time")
}

pub(crate) fn name(text: &str) -> GuestName {
    GuestName::parse(text).expect("a name")
}

/// A running agent.
pub(crate) fn guest(guest_name: &str, slot: u32) -> GuestView {
    let range: SlotRange = "10.100.0.0/16".parse().expect("a subnet");
    let slot = Slot::new(slot);
    let Addresses { host, guest } = range.addresses(slot).expect("a slot");
    let closure = StorePath::parse(CLOSURE).expect("a store path");
    GuestView {
        guest: Guest {
            name: name(guest_name),
            kind: GuestKind::Agent,
            slot,
            desired: DesiredState::Running,
            level: innkeeper_model::Level::Awake,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure),
            limits: Limits {
                memory: "4G".parse().expect("memory"),
                cpus: "0.5".parse().expect("processors"),
                tasks: 4096,
                user_ids: UserIdCount::default(),
                nesting: false,
            },
            ssh_host_key: Some(HOST_KEY.to_owned()),
            fault: None,
            wake_failure: None,
            file_work: None,
            retain: None,
            change: None,
            last_change: None,
            own_system: None,
            declared: false,
            idle_policy: None,
            owner: Some("uid:1000".to_owned()),
            created_at: time("10:00:00.25"),
        },
        state: GuestState::Running,
        unit: Some(UnitPhase::Running),
        host_address: Some(host),
        guest_address: Some(guest),
        interface: slot.interface(),
        oom_kills: 0,
        memory_bytes: None,
        owner_name: None,
    }
}

/// The retained files of a destroyed agent.
pub(crate) fn retained(id: i64, guest_name: &str, remaining_seconds: u64) -> RetainedView {
    let Guest {
        name,
        source,
        closure,
        limits,
        created_at,
        ..
    } = guest(guest_name, 1).guest;
    RetainedView {
        retained: Retained {
            id: RetainedId(id),
            name,
            source,
            closure,
            limits,
            created_at,
            destroyed_at: time("11:00:00"),
            bytes: Some(3 << 20),
            removing: false,
        },
        remaining_seconds,
    }
}

/// A running agent with the loopback address.
pub(crate) fn guest_here(guest_name: &str) -> GuestView {
    GuestView {
        guest_address: Some(Ipv4Addr::LOCALHOST),
        ..guest(guest_name, 1)
    }
}

pub(crate) fn event(seq: i64, kind: EventKind) -> Event {
    Event {
        seq,
        time: time("10:00:01"),
        operation: Some(OperationId(7)),
        guest: Some(name("web")),
        kind,
    }
}

pub(crate) fn accepted(seq: i64, verb: Verb) -> Event {
    event(seq, EventKind::Accepted { verb })
}

pub(crate) fn done(seq: i64, step: &str) -> Event {
    event(
        seq,
        EventKind::StepDone {
            step: step.to_owned(),
            micros: 1_234,
        },
    )
}

pub(crate) fn finished(seq: i64) -> Event {
    event(seq, EventKind::Finished)
}

/// The desired commit of previews.
pub(crate) const WANTED: &str = "2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b";

/// The former live commit.
const BEFORE: &str = "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a";

/// A preview of a pull request.
pub(crate) fn preview(slug: &str, state: PreviewState) -> PreviewView {
    let sha = |text| CommitSha::parse(text).expect("a commit");
    let repo = RepoName::parse("octo/web").expect("a repository");
    let failure = Failure {
        log: vec!["npm: \u{1b}[31mmissing script\u{1b}[0m".to_owned()],
        ..Failure::new(Code::AppUnhealthy, "no response on port 3000")
    };
    PreviewView {
        preview: PreviewRecord {
            slug: name(slug),
            pull_request: Some(7),
            branch: BranchName::parse("feature/x").expect("a branch"),
            head_repo: Some(repo.clone()),
            repo,
            wanted_sha: sha(WANTED),
            live_sha: match state {
                PreviewState::Live => Some(sha(WANTED)),
                PreviewState::Failed => Some(sha(BEFORE)),
                _ => None,
            },
            approved_sha: None,
            state,
            fault: (state == PreviewState::Failed).then_some(failure),
            last_delivery: None,
            created_at: time("10:00:00"),
            last_activity: time("10:00:00"),
            rollout: Rollout::default(),
            config_path: None,
            owner: None,
        },
        url: format!("https://{slug}.preview.example.com"),
        extra_urls: Vec::new(),
        database: None,
        repo_trouble: None,
        app_trouble: None,
        visibility: innkeeper_model::preview::Visibility::Public,
        outlook: Outlook {
            observed_at: Some(time("12:30:00")),
            ..Outlook::default()
        },
    }
}

/// A preview that waits for the approval of a fork's commit.
pub(crate) fn from_fork(slug: &str) -> PreviewView {
    let mut view = preview(slug, PreviewState::WaitingForApproval);
    view.preview.head_repo = Some(RepoName::parse("mallory/web").expect("a repository"));
    view
}

/// An event of the preview `web-7`, later than all requests of a test.
pub(crate) fn later(seq: i64, kind: EventKind) -> Event {
    Event {
        time: "2126-11-20T10:00:00Z".parse().expect("a time"),
        guest: Some(name("web-7")),
        operation: None,
        ..event(seq, kind)
    }
}

pub(crate) fn note(seq: i64, text: &str) -> Event {
    let text = text.to_owned();
    later(seq, EventKind::Note { text })
}

/// The daemon's failure for an unknown slug.
pub(crate) fn no_preview(slug: &str) -> Failure {
    Failure::new(
        Code::PreviewNotFound,
        format!("no preview is named '{slug}'"),
    )
}
