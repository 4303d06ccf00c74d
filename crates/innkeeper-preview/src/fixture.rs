//! Records, and previews over fakes, that the unit tests share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use innkeeper_engine::{ActivityConfig, Engine, EngineConfig, PressureConfig, RestConfig};
use innkeeper_facilities::fake::{FakeHost, a_closure};
use innkeeper_github::client::{Credentials, Github, Settings};
use innkeeper_github::fake::{FakeGithub, Pull, Repo};
use innkeeper_github::report::{ReportSettings, ReportTarget};
use innkeeper_model::preview::sources::{FileTypes, SourcePath, SourceTree};
use innkeeper_model::preview::text::CommentStyle;
use innkeeper_model::preview::{
    BranchName, CommitSha, Meta, PrAction, PreviewRecord, PreviewState, PullDetails, PullRequest,
    PullRequestEvent, RepoName, Rollout,
};
use innkeeper_model::{
    Code, Cpus, Failure, GuestName, Limits, MemorySize, Secret, SlotRange, StorePath, UserIdCount,
};
use innkeeper_store::{
    AdditionalConfig, Delivery, NewDelivery, NewPreview, NextDelivery, Presence, Preview,
    PreviewFact, RunningTime, Store,
};
use jiff::Timestamp;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use tempfile::TempDir;

use crate::wiring::ToStart;
use crate::{Admission, ConfigPaths, Parts, Previews, PreviewsConfig, Visibilities};

/// URL to which the fake GitHub delivers. The port is closed.
pub(crate) const WEBHOOK: &str = "http://127.0.0.1:9/webhook/github";

pub(crate) const TOKEN: &str = "ghp_test";

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
    a_closure()
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
            rollout: Rollout::default(),
            config_path: None,
            owner: None,
        },
        desired: Presence::Present,
        evaluation: None,
        closure: None,
        meta: None,
        live_closure: None,
        live_meta: None,
        dirty: false,
        request: None,
        reset_database: false,
        approved_by_label: false,
        announced_sha: None,
        announced_after: 0,
        visited_at: None,
        config_seen: true,
        removal_running: None,
        active_running: RunningTime::default(),
        comment_id: None,
        deployment_id: None,
        details: PullDetails::default(),
        visibility: None,
    }
}

/// Has a version be live.
pub(crate) fn with_live(mut preview: Preview, sha: CommitSha) -> Preview {
    preview.record.live_sha = Some(sha);
    preview.live_closure = Some(closure());
    preview.live_meta = Some(meta());
    preview
}

/// One of two commits.
fn any_sha() -> impl Strategy<Value = CommitSha> {
    prop_oneof![Just(sha('a')), Just(sha('b'))]
}

fn any_state() -> impl Strategy<Value = PreviewState> {
    prop::sample::select(PreviewState::ALL.to_vec())
}

/// Any record: of a fork or not, approved or not, with and without a live version.
pub(crate) fn any_preview() -> impl Strategy<Value = Preview> {
    (
        any::<bool>(),
        any::<bool>(),
        any_sha(),
        prop::option::of(any_sha()),
        prop::option::of(any_sha()),
        any_state(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(is_present, is_fork, wanted, live, approved, state, dirty, has_fault, is_seen)| {
                let mut preview = preview();
                preview.config_seen = is_seen || live.is_some();
                if let Some(live) = live {
                    preview = with_live(preview, live);
                }
                if !is_present {
                    preview.desired = Presence::Absent;
                }
                if is_fork {
                    preview.record.head_repo = RepoName::parse("fork/web").ok();
                }
                preview.record.wanted_sha = wanted;
                preview.record.approved_sha = approved;
                preview.record.state = state;
                preview.record.fault =
                    has_fault.then(|| Failure::new(Code::AppUnhealthy, "it failed"));
                preview.dirty = dirty;
                preview
            },
        )
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
            draft: false,
            updated_at: None,
            details: PullDetails::default(),
        }
        .into(),
        received_at: Timestamp::now(),
        slugs: vec![slug()],
    }
}

/// Previews over a store of their own, a fake host and a fake GitHub. They are not started: tests drive their components.
pub(crate) struct Harness {
    pub(crate) previews: Previews,
    pub(crate) parts: ToStart,
    pub(crate) store: Store,
    pub(crate) host: FakeHost,
    pub(crate) github: FakeGithub,
    _directory: TempDir,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut PreviewsConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let range: SlotRange = "127.100.0.0/16".parse().expect("a range");
        let path = directory.path().join("innkeeper.db");
        let store = Store::open(&path, range).expect("opens");
        let host = FakeHost::new();
        let github = FakeGithub::start().await.expect("listens");
        github.with(|world| {
            world.add_token(TOKEN, "innkeeper-bot");
            world.add_repo(repo(), directory.path().join("web.git"));
        });
        let mut config = config(directory.path(), range);
        change(&mut config);
        let parts = Parts {
            config,
            engine: engine(&store, &host, range),
            github: Some(client(&github)),
            evaluator: host.evaluator(),
            routes: host.routes(),
            databases: Some(host.databases()),
            access: host.access_list(),
            pages: host.pages(),
            files: host.guest_files(),
            probe: None,
        };
        let previews = Previews::new(parts);
        let parts = previews.to_start.lock().take().expect("not started");
        Self {
            previews,
            parts,
            store,
            host,
            github,
            _directory: directory,
        }
    }

    /// Opens the pull request on GitHub with a commit, without a delivery.
    pub(crate) fn open_pull(&self, sha: CommitSha) {
        let pull = Pull {
            title: "Change 7".to_owned(),
            body: String::new(),
            open: true,
            merged: false,
            author: "alice".to_owned(),
            head_repo: Some(repo()),
            head_branch: branch(),
            head_sha: sha,
            base_branch: BranchName::parse("main").expect("a branch"),
            labels: Vec::new(),
            draft: false,
        };
        self.change_repo(|repo| drop(repo.pulls.insert(7, pull)));
    }

    pub(crate) fn change_pull(&self, change: impl FnOnce(&mut Pull)) {
        self.change_repo(|repo| change(repo.pulls.get_mut(&7).expect("opened")));
    }

    pub(crate) fn change_repo<T>(&self, change: impl FnOnce(&mut Repo) -> T) -> T {
        self.github
            .with(|world| change(world.repos.get_mut(&repo()).expect("added")))
    }

    /// Grants a user a permission for the repository.
    pub(crate) fn permit(&self, login: &str, permission: &str) {
        self.change_repo(|repo| {
            repo.permissions
                .insert(login.to_owned(), permission.to_owned())
        });
    }

    /// Has a user comment on the pull request, and records the delivery of the comment, which has a command.
    pub(crate) async fn comment(&self, id: &str, author: &str, body: &str) {
        let payload = self
            .github
            .with(|world| world.add_comment(&repo(), 7, author, body));
        let payload = payload.expect("opened").to_string();
        let parsed = innkeeper_github::event::parse("issue_comment", id, payload.as_bytes());
        let Ok(innkeeper_github::event::Delivery::Command(event)) = parsed else {
            panic!("{parsed:?}");
        };
        let new = NewDelivery {
            event: event.into(),
            received_at: Timestamp::now(),
            slugs: Vec::new(),
        };
        self.store.record_delivery(new).await.expect("recorded");
    }

    /// Returns the reactions to all comments, the oldest first.
    pub(crate) fn reactions(&self) -> Vec<String> {
        self.change_repo(|repo| {
            let reactions = repo.comments.iter().flat_map(|comment| &comment.reactions);
            reactions.map(|(_, content)| content.clone()).collect()
        })
    }

    /// Returns the context, state and description of each commit status, the oldest first.
    pub(crate) fn statuses(&self) -> Vec<[String; 3]> {
        self.change_repo(|repo| {
            let all = repo.statuses.iter().map(|one| &one.status);
            all.map(|status| {
                ["context", "state", "description"]
                    .map(|field| status[field].as_str().expect("a text").to_owned())
            })
            .collect()
        })
    }

    /// Waits for commit statuses, and returns them as [`Self::statuses`] does.
    pub(crate) async fn wait_for_statuses(&self, count: usize) -> Vec<[String; 3]> {
        loop {
            let statuses = self.statuses();
            if statuses.len() >= count {
                return statuses;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the delivery of the pull request to act on now.
    pub(crate) async fn next(&self) -> Box<Delivery> {
        let next = self.store.next_delivery(&pull_request()).await;
        let NextDelivery::Process(delivery) = next.expect("read") else {
            panic!("no delivery is pending");
        };
        delivery
    }

    /// The bodies of the comments on the pull request.
    pub(crate) fn comments(&self) -> Vec<String> {
        self.change_repo(|repo| repo.comments.iter().map(|c| c.body.clone()).collect())
    }

    /// Records a delivery, and with it the pull request's preview if there is none.
    pub(crate) async fn deliver(&self, id: &str, action: PrAction, sha: CommitSha) {
        let new = delivery(id, action, sha);
        self.store.record_delivery(new).await.expect("recorded");
    }

    /// Records the pull request's preview with commit 'a' as its wanted commit, which has a configuration, and no pending
    /// delivery.
    pub(crate) async fn claim(&self) -> Preview {
        self.claim_unseen().await;
        self.set(vec![PreviewFact::ConfigFound]).await
    }

    /// As [`Self::claim`], before a configuration was found.
    pub(crate) async fn claim_unseen(&self) -> Preview {
        let event = delivery("claim", PrAction::Opened, sha('a')).event;
        let new = NewPreview::of(event.as_pull_request().expect("of a pull request"));
        let claimed = self.store.claim_preview(new, vec![slug()]).await;
        claimed.expect("claimed")
    }

    /// Records an additional preview of the pull request, whose commit has a configuration.
    pub(crate) async fn claim_additional(&self, path: &str, slug: &str) -> GuestName {
        let slug = GuestName::parse(slug).expect("a name");
        let config = AdditionalConfig {
            path: SourcePath::parse(path).expect("a path"),
            slugs: vec![slug.clone()],
            exists: true,
        };
        let created = self
            .store
            .follow_first_preview(&self::slug(), vec![config])
            .await;
        assert_eq!(created.expect("recorded"), std::slice::from_ref(&slug));
        let found = vec![PreviewFact::ConfigFound];
        self.store
            .set_preview(&slug, found)
            .await
            .expect("recorded");
        slug
    }

    pub(crate) async fn set(&self, facts: Vec<PreviewFact>) -> Preview {
        self.store
            .set_preview(&slug(), facts)
            .await
            .expect("recorded")
    }

    /// Records that a commit is live.
    pub(crate) async fn set_live(&self, sha: CommitSha) -> Preview {
        self.set(live_facts(sha)).await
    }

    pub(crate) async fn preview(&self) -> Option<Preview> {
        self.store.preview(&slug()).await.expect("read")
    }

    /// The record of the preview, which exists.
    pub(crate) async fn record(&self) -> PreviewRecord {
        self.preview().await.expect("exists").record
    }

    /// Reports whether a worker was to be woken since the last call, and forgets it.
    pub(crate) fn was_woken(&mut self) -> bool {
        self.parts.workers.try_recv().is_ok()
    }
}

/// Returns the facts of a commit that is live.
pub(crate) fn live_facts(sha: CommitSha) -> Vec<PreviewFact> {
    vec![
        PreviewFact::Live {
            sha,
            closure: closure(),
            meta: Box::new(meta()),
        },
        PreviewFact::State(PreviewState::Live),
        PreviewFact::Fault(None),
    ]
}

fn engine(store: &Store, host: &FakeHost, range: SlotRange) -> Engine {
    let config = EngineConfig {
        nesting: false,
        installable: None,
        attribute: "agent".to_owned(),
        limits: Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
            user_ids: UserIdCount::default(),
            nesting: false,
        },
        concurrent_starts: 2,
        range,
        retention: Duration::ZERO,
        activity: ActivityConfig::default(),
        boot_timeout: EngineConfig::BOOT_TIMEOUT,
        rest: RestConfig::default(),
        seats: 0,
        warm: innkeeper_engine::WarmConfig::default(),
        pressure: PressureConfig::default(),
    };
    Engine::new(config, store.clone(), host.facilities(), None)
}

pub(crate) fn client(github: &FakeGithub) -> Github {
    let settings = Settings {
        base_url: github.base_url(),
        attempts: 1,
        ..Settings::default()
    };
    let credentials = Credentials::Token(Secret::new(TOKEN));
    Github::new(settings, credentials).expect("a client")
}

fn config(directory: &Path, range: SlotRange) -> PreviewsConfig {
    PreviewsConfig {
        domain: "preview.test".to_owned(),
        scheme: "https",
        port: None,
        listen_port: 443,
        clone_url: "https://github.test".to_owned(),
        repositories: Vec::new(),
        webhook_url: WEBHOOK.to_owned(),
        admission: Admission::default(),
        approval_label: "preview".to_owned(),
        style: ReportSettings {
            target: ReportTarget::Comment,
            deployments: false,
            checks: false,
            comment: CommentStyle {
                approve: "add the label `preview`".to_owned(),
                ttl: None,
            },
        },
        limit: 0,
        repo_limits: BTreeMap::new(),
        ttl: None,
        dropped_grace: Duration::from_secs(24 * 3_600),
        boot_timeout: Duration::from_secs(5),
        setup_timeout: Duration::from_secs(5),
        health_timeout: Duration::from_secs(5),
        secrets: directory.join("secrets"),
        group: 1000,
        share_token: false,
        database_template: None,
        database_port: 5432,
        interval: Duration::from_secs(300),
        page: crate::PageContents::State,
        range,
        visibilities: Visibilities::default(),
        checks_visitors: true,
        config_paths: ConfigPaths {
            default: SourcePath::parse(SourceTree::MAIN).into_iter().collect(),
            repositories: BTreeMap::new(),
        },
        file_types: FileTypes::default(),
    }
}
