//! Commands of users on the host.

use std::sync::Arc;

use innkeeper_facilities::Effort;
use innkeeper_github::client::Github;
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::preview::api::{ApprovePreview, BuildPreview, CreatePreview, PreviewAccepted};
use innkeeper_model::preview::check::{CheckConfig, CheckSettings, CheckedConfig};
use innkeeper_model::preview::{
    DatabaseMode, PreviewState, PullDetails, default_slug, parse_slug, slug_candidates,
};
use innkeeper_model::{Code, Failure, GuestKind, GuestName};
use innkeeper_store::{Approval, NewPreview, Presence, PreviewFact};
use jiff::Timestamp;
use tracing::info;

use crate::wiring::Components;
use crate::workers::WakeReason;
use crate::{PreviewError, Previews, records};

impl Previews {
    /// Records a preview of a branch and begins to bring it up.
    ///
    /// # Errors
    /// The repository is not allowed, GitHub has no such branch, or the name is taken.
    pub async fn create(
        &self,
        request: CreatePreview,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let components = &self.components;
        let CreatePreview { repo, branch, slug } = request;
        if !components.config.allows(&repo) {
            return Err(PreviewError::NotAllowed(repo));
        }
        let github = components.github()?;
        // By its present name, if it was renamed: another preview of the branch would be a duplicate.
        let found = github.repo(&repo).await?;
        if !components.config.allows(&found.name) {
            return Err(PreviewError::NotAllowed(found.name));
        }
        if let Some(id) = found.id {
            components
                .store
                .record_repo_name(id, &repo, &found.name)
                .await?;
        }
        let repo = found.name;
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
        let preview = components.store.claim_preview(new, slugs).await?;
        let slug = preview.record.slug;
        let details = PullDetails {
            private: found.private,
            ..preview.details
        };
        let mut facts = vec![PreviewFact::Details(details)];
        if preview.record.owner.is_none() {
            facts.push(PreviewFact::Owner(actor.to_owned()));
        }
        components.store.set_preview(&slug, facts).await?;
        info!(%slug, actor, "preview requested");
        components.workers.wake(&slug, WakeReason::Change);
        Ok(accepted(slug))
    }

    /// Updates a preview to its branch's newest commit. If that is live already, it is set up and started again.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or GitHub does not return the newest commit.
    pub async fn update(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let components = &self.components;
        let record = records::require(&components.store, slug).await?.record;
        let (repo, branch, sha) = match record.pull_request() {
            Some(pull_request) => {
                let view = components.github()?.pull_request(&pull_request).await?;
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
                let sha = components
                    .github()?
                    .branch(&record.repo, &record.branch)
                    .await?;
                (record.head_repo, record.branch, sha)
            }
        };
        let facts = vec![
            PreviewFact::Desired(Presence::Present),
            PreviewFact::Head { repo, branch, sha },
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(None),
        ];
        components.command(slug, facts, "update", actor).await
    }

    /// Records that a preview should not exist, and begins to remove it in any state.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`].
    pub async fn destroy(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let facts = vec![PreviewFact::Desired(Presence::Absent)];
        self.components.destroyed.add(slug);
        let destroyed = self.components.command(slug, facts, "destroy", actor).await;
        if destroyed.is_err() {
            self.components.destroyed.remove(slug);
        }
        destroyed
    }

    /// Stops a preview's guest. Its files, its database and its URL stay, and it stays stopped until it is started,
    /// a commit is pushed or it is updated.
    ///
    /// # Errors
    /// The preview or its guest does not exist, or the preview is being changed.
    pub async fn stop_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let preview = self.require_settled(slug, "stopped").await?;
        // Before the stop: no request reaches an app that is gone.
        self.components.routing.show_stopped(&preview).await?;
        let stopped = self.components.engine.stop(slug, actor).await;
        self.follow_rest(slug, stopped.is_ok());
        Ok(stopped?)
    }

    /// Starts a preview's guest that was stopped; the preview's worker starts the app in it.
    ///
    /// # Errors
    /// The preview or its guest does not exist, or another operation works on the guest.
    pub async fn start_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let record = records::require(&self.components.store, slug).await?.record;
        if record.state == PreviewState::Dropped {
            return Err(PreviewError::new(
                Code::ConfigMissing,
                format!(
                    "preview '{slug}' cannot be started: its commit {} has no preview-config.nix",
                    record.wanted_sha.short()
                ),
                "Push a commit with the file: the preview starts again with its files and its database.",
            ));
        }
        let is_down = matches!(record.state, PreviewState::Expired | PreviewState::Stopped);
        let needs_approval =
            record.state == PreviewState::WaitingForApproval || is_down && record.is_from_fork();
        if needs_approval && record.approved_sha.is_none() {
            return Err(PreviewError::new(
                Code::ApprovalNeeded,
                format!("preview '{slug}' waits for an approval and cannot be started"),
                format!("`preview approve {slug}` shows the commit and prompts for the approval."),
            ));
        }
        self.require_guest(slug).await?;
        self.components.staging.hasten(slug);
        let started = self.components.engine.start(slug, actor).await?;
        if is_down {
            // Until this is recorded, the worker may stop the guest again; then it starts it.
            let again = vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Active(Timestamp::now()),
            ];
            self.components.store.set_preview(slug, again).await?;
        }
        self.components.workers.wake(slug, WakeReason::Command);
        Ok(started)
    }

    /// Returns the guest of a preview.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the preview has no guest yet.
    pub async fn guest(&self, slug: &GuestName) -> Result<GuestView, PreviewError> {
        records::require(&self.components.store, slug).await?;
        self.require_guest(slug).await
    }

    pub(crate) async fn require_guest(&self, slug: &GuestName) -> Result<GuestView, PreviewError> {
        let view = self.components.guests.view(slug).await?;
        view.filter(|view| view.guest.kind == GuestKind::Preview)
            .ok_or_else(|| {
                PreviewError::new(
                    Code::GuestNotRunning,
                    format!("preview '{slug}' has no guest yet"),
                    format!("`preview explain {slug}` shows how far it is."),
                )
            })
    }

    /// Approves this commit of a fork, and no other.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], the preview needs no approval, or it wants another commit by now.
    pub async fn approve(
        &self,
        slug: &GuestName,
        request: ApprovePreview,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let components = &self.components;
        let record = records::require(&components.store, slug).await?.record;
        if !record.is_from_fork() {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("preview '{slug}' is not from a fork and needs no approval"),
                format!("`preview explain {slug}` shows its state."),
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
        components
            .store
            .approve(slug, &request.sha, Approval::Command)
            .await?;
        let facts = vec![
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(None),
        ];
        components.command(slug, facts, "approval", actor).await
    }

    /// Drops a preview's database, creates it again and sets the app up again.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the preview has no database on the host.
    pub async fn reset_database(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        let components = &self.components;
        let preview = records::require(&components.store, slug).await?;
        let has_one = preview
            .live_meta
            .or(preview.meta)
            .is_some_and(|meta| meta.database == DatabaseMode::Host);
        if !has_one {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("preview '{slug}' has no database on this host"),
                "Set `database = \"host\"` in its preview-config.nix if it should have one.",
            ));
        }
        if preview.desired == Presence::Absent {
            return Err(PreviewError::new(
                Code::PreviewNotFound,
                format!("preview '{slug}' is being removed, its database too"),
                format!("`preview explain {slug}` shows the rest."),
            ));
        }
        // Fails early on a host without a server.
        components.databases.server()?;
        let queued = || {
            vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(None),
            ]
        };
        // Before and after: a crash in between must not leave a live preview without its database.
        components.store.set_preview(slug, queued()).await?;
        let reset = components.databases.reset(slug).await;
        if reset.is_ok() {
            components.journal.note(slug, "The database was reset.");
        }
        let accepted = components
            .command(slug, queued(), "database reset", actor)
            .await;
        reset?;
        accepted
    }

    /// Returns the host's settings for the files of a check.
    #[must_use]
    pub fn check_settings(&self) -> CheckSettings {
        CheckSettings {
            file_types: self.components.config.file_types.extra().to_vec(),
        }
    }

    /// Evaluates a configuration as for a pull request, and builds nothing. Its files are untrusted, as those of a commit.
    ///
    /// # Errors
    /// The request is invalid, or the host lacks something.
    pub async fn check_config(&self, request: CheckConfig) -> Result<CheckedConfig, PreviewError> {
        let sources = request
            .into_sources()
            .map_err(|error| Failure::from(&error))?;
        let inspected = self.components.evaluation.inspect(&sources).await?;
        Ok(CheckedConfig {
            problems: inspected.problems.into_iter().map(Into::into).collect(),
            preview: inspected.meta,
        })
    }

    /// Evaluates and builds the configuration of a branch's newest commit without a preview, as an operation to follow.
    ///
    /// # Errors
    /// The repository is not allowed, GitHub has no such branch, or the daemon is stopping.
    pub async fn build(
        &self,
        request: BuildPreview,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let components = Arc::clone(&self.components);
        let BuildPreview { repo, branch } = request;
        if !components.config.allows(&repo) {
            return Err(PreviewError::NotAllowed(repo));
        }
        let sha = components.github()?.branch(&repo, &branch).await?;
        let engine = components.engine.clone();
        let work = async move |progress| {
            let evaluation = &components.evaluation;
            let effort = Effort::Normal;
            let built = evaluation.evaluate(&repo, &sha, None, effort, progress);
            let built = built.await;
            let (_, built) = built.map_err(|error| Failure::from(&error))?;
            let sha = sha.short();
            Ok((format!("{branch} of {repo} at {sha}"), built.closure))
        };
        Ok(engine.build_with(actor, work).await?)
    }
}

impl Components {
    /// Records a command and wakes the preview's worker. With `Desired` among the facts, earlier deliveries do not count
    /// any more.
    async fn command(
        &self,
        slug: &GuestName,
        mut facts: Vec<PreviewFact>,
        what: &str,
        actor: &str,
    ) -> Result<PreviewAccepted, PreviewError> {
        records::require(&self.store, slug).await?;
        facts.push(PreviewFact::Active(Timestamp::now()));
        // Before and after: canceled work must not write after this record.
        self.workers.wake(slug, WakeReason::Command);
        let overrides = facts
            .iter()
            .any(|fact| matches!(fact, PreviewFact::Desired(_)));
        if overrides {
            self.store.override_preview(slug, facts).await?;
        } else {
            self.store.set_preview(slug, facts).await?;
        }
        info!(%slug, actor, "{what} requested");
        self.workers.wake(slug, WakeReason::Command);
        Ok(accepted(slug.clone()))
    }

    pub(crate) fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }
}

fn accepted(slug: GuestName) -> PreviewAccepted {
    PreviewAccepted {
        slug,
        operation: None,
    }
}
