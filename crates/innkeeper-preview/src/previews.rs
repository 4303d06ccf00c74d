//! What can be asked for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use innkeeper_engine::Engine;
use innkeeper_facilities::{Console, Databases, Evaluator, GuestFiles, Routes};
use innkeeper_github::client::Github;
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::preview::api::{
    ApprovePreview, CreatePreview, PreviewAccepted, PreviewExplanation,
};
use innkeeper_model::preview::{
    PreviewState, PreviewView, PullRequest, PullRequestEvent, default_slug, parse_slug,
    slug_candidates, webhook_slug,
};
use innkeeper_model::{Code, Failure, GuestKind, GuestName};
use innkeeper_store::{Approval, NewPreview, Presence, Preview, PreviewFact, Store};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::absence::Absences;
use crate::desk::{Desk, Why};
use crate::furnish::Tokens;
use crate::report::Told;
use crate::{PreviewError, PreviewsConfig, Probe};

/// Who asks the engine for guests of previews.
pub(crate) const ACTOR: &str = "previews";

/// What previews are made with.
pub struct Parts {
    /// The settings.
    pub config: PreviewsConfig,
    /// Guests.
    pub engine: Engine,
    /// GitHub, if the host has credentials for it.
    pub github: Option<Github>,
    /// Configurations.
    pub evaluator: Arc<dyn Evaluator>,
    /// URLs.
    pub routes: Arc<dyn Routes>,
    /// Databases, if the host has a server for them.
    pub databases: Option<Arc<dyn Databases>>,
    /// What guests are told.
    pub files: Arc<dyn GuestFiles>,
    /// For the crash tests.
    pub probe: Option<Probe>,
}

/// The previews of this host. Clones are the same.
#[derive(Clone)]
pub struct Previews {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: PreviewsConfig,
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) databases: Option<Arc<dyn Databases>>,
    pub(crate) files: Arc<dyn GuestFiles>,
    pub(crate) desk: Desk,
    pub(crate) told: Told,
    /// Repositories that GitHub does not show.
    pub(crate) absences: Absences,
    /// Previews that somebody on the host destroyed: GitHub need not hear of it.
    pub(crate) given_up: Mutex<HashSet<GuestName>>,
    /// Held while renamed repositories are looked for.
    pub(crate) renaming: tokio::sync::Mutex<()>,
    /// Held while room is made for a preview.
    pub(crate) room: tokio::sync::Mutex<()>,
    pub(crate) tokens: Tokens,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) probe: Option<Probe>,
}

impl Previews {
    /// Previews with these parts. Nothing happens until [`Previews::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: parts.config,
                store: parts.engine.store().clone(),
                engine: parts.engine,
                github: parts.github,
                evaluator: parts.evaluator,
                routes: parts.routes,
                databases: parts.databases,
                files: parts.files,
                desk: Desk::default(),
                told: Told::default(),
                absences: Absences::default(),
                given_up: Mutex::default(),
                renaming: tokio::sync::Mutex::default(),
                room: tokio::sync::Mutex::default(),
                tokens: Tokens::default(),
                stopping: CancellationToken::new(),
                tasks: TaskTracker::new(),
                probe: parts.probe,
            }),
        }
    }

    /// Takes up where the last daemon left off, and listens from now on: `rings` changes when deliveries have
    /// arrived.
    pub fn start(&self, mut rings: watch::Receiver<()>) {
        let inner = Arc::clone(&self.inner);
        let watch = Arc::clone(&self.inner).watch();
        let stopping = self.inner.stopping.clone();
        self.inner.tasks.spawn(async move {
            stopping.run_until_cancelled(watch).await;
        });
        self.inner.tasks.spawn(async move {
            rings.mark_changed();
            loop {
                tokio::select! {
                    () = inner.stopping.cancelled() => return,
                    heard = rings.changed() => if heard.is_err() { return },
                }
                if let Err(error) = inner.hear().await {
                    warn!("deliveries wait: {}", innkeeper_model::chain(&error));
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    rings.mark_changed();
                }
            }
        });
    }

    /// Takes no new work and drops what is under way: it goes on at the next start.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Every preview, by slug.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self) -> Result<Vec<PreviewView>, PreviewError> {
        let previews = self.inner.store.previews().await?;
        Ok(previews
            .into_iter()
            .map(|preview| self.inner.view(preview))
            .collect())
    }

    /// One preview.
    ///
    /// # Errors
    /// When there is none.
    pub async fn show(&self, slug: &GuestName) -> Result<PreviewView, PreviewError> {
        Ok(self.inner.view(self.inner.preview(slug).await?))
    }

    /// Records the wish for a preview of a branch and begins to make it.
    ///
    /// # Errors
    /// When the repository is not allowed, GitHub has no such branch, or the name is taken.
    pub async fn create(
        &self,
        request: CreatePreview,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let inner = &self.inner;
        let CreatePreview { repo, branch, slug } = request;
        if !inner.config.allows(&repo) {
            return Err(PreviewError::NotAllowed(repo));
        }
        let github = inner.github()?;
        // By its present name, if it was renamed: another preview of the branch would be a duplicate.
        let there = github.repo(&repo).await?;
        if !inner.config.allows(&there.name) {
            return Err(PreviewError::NotAllowed(there.name));
        }
        if let Some(id) = there.id {
            inner.store.record_repo_name(id, &repo, &there.name).await?;
        }
        let repo = there.name;
        let sha = github.branch(&repo, &branch).await?;
        let slugs = match slug {
            Some(slug) => vec![parse_slug(&slug)?],
            None => {
                let identity = format!("{repo}:{}", branch.as_str()).to_ascii_lowercase();
                slug_candidates(&default_slug(&repo, &branch), &identity).collect()
            }
        };
        let new = NewPreview {
            head_repo: Some(repo.clone()),
            repo,
            number: None,
            branch,
            wanted_sha: sha,
        };
        let preview = inner.store.claim_preview(new, slugs).await?;
        let slug = preview.record.slug;
        info!(%slug, actor, "preview asked for");
        inner.wake(&slug, Why::News);
        Ok(accepted(slug))
    }

    /// Brings a preview up to its branch's newest commit. When it is there already, it is set up and started
    /// anew.
    ///
    /// # Errors
    /// When there is none, or GitHub does not say what the newest commit is.
    pub async fn update(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let inner = &self.inner;
        let record = inner.preview(slug).await?.record;
        let (repo, branch, sha) = match record.pull_request() {
            Some(pull_request) => {
                let view = inner.github()?.pull_request(&pull_request).await?;
                let view = view.filter(|view| view.open).ok_or_else(|| {
                    PreviewError::new(
                        Code::InvalidRequest,
                        format!("pull request {pull_request} is not open"),
                        format!("`preview destroy {slug}` removes the preview."),
                    )
                })?;
                (view.head_repo, view.head_branch, view.head_sha)
            }
            None => {
                let sha = inner.github()?.branch(&record.repo, &record.branch).await?;
                (record.head_repo, record.branch, sha)
            }
        };
        let facts = vec![
            PreviewFact::Desired(Presence::Present),
            PreviewFact::Head { repo, branch, sha },
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(None),
        ];
        inner.change(slug, facts, "update", actor).await
    }

    /// Records that a preview should not exist, and removes it, whatever state it is in.
    ///
    /// # Errors
    /// When there is none.
    pub async fn destroy(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let facts = vec![PreviewFact::Desired(Presence::Absent)];
        self.inner.given_up().insert(slug.clone());
        let destroyed = self.inner.change(slug, facts, "destroy", actor).await;
        if destroyed.is_err() {
            self.inner.given_up().remove(slug);
        }
        destroyed
    }

    /// Stops a preview's guest. Its files, its database and its URL stay, and it stays stopped until it is started,
    /// a commit is pushed or it is updated.
    ///
    /// # Errors
    /// When there is no such preview or no guest of it, or the preview is being changed.
    pub async fn stop_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let record = self.inner.preview(slug).await?.record;
        if !record.state.is_settled() {
            return Err(PreviewError::new(
                Code::GuestBusy,
                format!("preview '{slug}' is {} and cannot be stopped", record.state),
                format!(
                    "Wait until it is live or failed: `preview logs {slug} --follow` shows its progress."
                ),
            ));
        }
        self.require_guest(slug).await?;
        Ok(self.inner.engine.stop(slug, actor).await?)
    }

    /// Starts a preview's guest that was stopped; the preview's worker starts the app in it.
    ///
    /// # Errors
    /// When there is no such preview or no guest of it, or another operation works on it.
    pub async fn start_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let record = self.inner.preview(slug).await?.record;
        let has_expired = record.state == PreviewState::Expired;
        let needs_approval = record.state == PreviewState::WaitingForApproval
            || has_expired && record.is_from_fork();
        if needs_approval && record.approved_sha.is_none() {
            return Err(PreviewError::new(
                Code::ApprovalNeeded,
                format!("preview '{slug}' waits for an approval and cannot be started"),
                format!("`preview approve {slug}` shows the commit and prompts for the approval."),
            ));
        }
        self.require_guest(slug).await?;
        let started = self.inner.engine.start(slug, actor).await?;
        if has_expired {
            // Until this is recorded, the worker may stop the guest again; then it starts it.
            let again = vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Active(Timestamp::now()),
            ];
            self.inner.store.set_preview(slug, again).await?;
        }
        self.inner.wake(slug, Why::Order);
        Ok(started)
    }

    /// The guest of a preview.
    ///
    /// # Errors
    /// When there is no such preview, or it has no guest yet.
    pub async fn guest(&self, slug: &GuestName) -> Result<GuestView, PreviewError> {
        self.inner.preview(slug).await?;
        self.require_guest(slug).await
    }

    async fn require_guest(&self, slug: &GuestName) -> Result<GuestView, PreviewError> {
        let view = self.inner.guest_view(slug).await?;
        view.filter(|view| view.guest.kind == GuestKind::Preview)
            .ok_or_else(|| {
                PreviewError::new(
                    Code::GuestNotRunning,
                    format!("preview '{slug}' has no guest yet"),
                    format!("`preview explain {slug}` shows how far it is."),
                )
            })
    }

    /// Records that somebody on the host trusts this commit of a fork, and no other.
    ///
    /// # Errors
    /// When there is no such preview, it needs no approval, or another commit is wanted by now.
    pub async fn approve(
        &self,
        slug: &GuestName,
        request: ApprovePreview,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let inner = &self.inner;
        let record = inner.preview(slug).await?.record;
        if !record.is_from_fork() {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("preview '{slug}' is not from a fork and needs no approval"),
                format!("`preview explain {slug}` shows how it is."),
            ));
        }
        if record.wanted_sha != request.sha {
            return Err(PreviewError::new(
                Code::ApprovalNeeded,
                format!(
                    "preview '{slug}' wants commit {} by now, not {}",
                    record.wanted_sha, request.sha
                ),
                format!(
                    "Look at it; then `preview approve {slug} --sha {}`.",
                    record.wanted_sha
                ),
            ));
        }
        inner
            .store
            .approve(slug, &request.sha, Approval::Host)
            .await?;
        let facts = vec![
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(None),
        ];
        inner.change(slug, facts, "approval", actor).await
    }

    /// Drops what is in a preview's database and sets the app up anew.
    ///
    /// # Errors
    /// When there is no such preview, or it has no database on the host.
    pub async fn reset_database(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let inner = &self.inner;
        let preview = inner.preview(slug).await?;
        let has_one = preview
            .live_meta
            .or(preview.meta)
            .is_some_and(|meta| meta.database == innkeeper_model::preview::DatabaseMode::Host);
        if !has_one {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("preview '{slug}' has no database on this host"),
                "Its preview-config.nix says `database = \"host\"` when it should have one.",
            ));
        }
        if preview.desired == Presence::Absent {
            return Err(PreviewError::new(
                Code::PreviewNotFound,
                format!("preview '{slug}' is being removed, its database too"),
                format!("`preview explain {slug}` says what is left of it."),
            ));
        }
        let databases = inner.databases()?;
        let anew = || {
            vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(None),
            ]
        };
        // Before and after: what is dropped and not made again, because of a crash for one, is made by the next look.
        inner.store.set_preview(slug, anew()).await?;
        let reset = databases.reset(&inner.database_spec(slug)).await;
        if reset.is_ok() {
            inner.note(slug, "The database was reset.");
        }
        let accepted = inner.change(slug, anew(), "database reset", actor).await;
        reset?;
        accepted
    }

    /// The log: the manager's lines, then the journal of the app's services.
    ///
    /// # Errors
    /// When there is no such preview.
    pub async fn logs(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
    ) -> Result<Console, PreviewError> {
        self.inner.console(slug, lines, follow).await
    }

    /// The chain from the URL to the delivery.
    ///
    /// # Errors
    /// When there is no such preview, or the store cannot be read.
    pub async fn explain(&self, slug: &GuestName) -> Result<PreviewExplanation, PreviewError> {
        self.inner.explain(slug).await
    }
}

impl Inner {
    /// Wakes whoever has deliveries to act on.
    pub(crate) async fn hear(self: &Arc<Self>) -> Result<(), PreviewError> {
        let mut heard = self.hear_of_repositories().await;
        for pull_request in self.store.pending_pull_requests().await? {
            // One that cannot be served does not keep the others waiting.
            heard = heard.and(self.hear_of(&pull_request).await);
        }
        heard
    }

    /// Follows repositories to their new names, and wakes the previews of those that were deleted.
    async fn hear_of_repositories(self: &Arc<Self>) -> Result<(), PreviewError> {
        for slug in self.store.previews_of_deleted_repos().await? {
            self.wake(&slug, Why::News);
        }
        if self.store.repos_to_check().await?.is_empty() {
            return Ok(());
        }
        // Deliveries do not wait for GitHub.
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let looked = inner.stopping.run_until_cancelled(inner.look_for_renamed());
            if let Some(Err(error)) = looked.await {
                warn!(
                    "a renamed repository is looked for again: {}",
                    innkeeper_model::chain(&error)
                );
            }
        });
        Ok(())
    }

    async fn hear_of(self: &Arc<Self>, pull_request: &PullRequest) -> Result<(), PreviewError> {
        match self.store.preview_of(pull_request).await? {
            Some(preview) => {
                self.wake(&preview.record.slug, Why::News);
                Ok(())
            }
            None => self.act_without_preview(pull_request).await,
        }
    }

    /// The preview of a pull request that wants one.
    pub(crate) async fn claim(&self, event: &PullRequestEvent) -> Result<Preview, PreviewError> {
        let pull_request = &event.pull_request;
        let wanted = webhook_slug(&pull_request.repo, pull_request.number);
        let identity = pull_request.to_string().to_ascii_lowercase();
        let slugs = slug_candidates(&wanted, &identity).collect();
        Ok(self
            .store
            .claim_preview(NewPreview::of(event), slugs)
            .await?)
    }

    pub(crate) async fn preview(&self, slug: &GuestName) -> Result<Preview, PreviewError> {
        let preview = self.store.preview(slug).await?;
        preview.ok_or_else(|| PreviewError::NotFound(slug.clone()))
    }

    fn view(&self, preview: Preview) -> PreviewView {
        let meta = preview.live_meta.or(preview.meta);
        let trouble = self.absences.of(&preview.record.repo);
        PreviewView {
            repo_trouble: trouble.map(|absence| absence.to_string()),
            ..self.config.view(preview.record, meta.as_ref())
        }
    }

    /// Records what somebody wants of a preview, and wakes its worker. With `PreviewFact::Desired` among the facts, deliveries
    /// from before do not count any more.
    async fn change(
        self: &Arc<Self>,
        slug: &GuestName,
        mut facts: Vec<PreviewFact>,
        what: &str,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        self.preview(slug).await?;
        facts.push(PreviewFact::Active(Timestamp::now()));
        // Before and after: work that is in vain must record nothing after what is recorded here.
        self.wake(slug, Why::Order);
        let overrules = facts
            .iter()
            .any(|fact| matches!(fact, PreviewFact::Desired(_)));
        if overrules {
            self.store.override_preview(slug, facts).await?;
        } else {
            self.store.set_preview(slug, facts).await?;
        }
        info!(%slug, actor, "{what} asked for");
        self.wake(slug, Why::Order);
        Ok(accepted(slug.clone()))
    }

    pub(crate) fn given_up(&self) -> MutexGuard<'_, HashSet<GuestName>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }

    pub(crate) fn databases(&self) -> Result<&dyn Databases, PreviewError> {
        self.databases.as_deref().ok_or_else(|| {
            Failure::new(
                Code::InvalidConfig,
                "this host has no PostgreSQL for previews",
            )
            .with_remedy(
                "Set database.socket_dir in innkeeperd's configuration; docs/previews.md says how.",
            )
            .into()
        })
    }
}

fn accepted(slug: GuestName) -> PreviewAccepted {
    PreviewAccepted {
        slug,
        operation: None,
    }
}
