//! From a commit to an app that answers at its URL, or back to the last good version.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper_facilities::{
    DatabaseSpec, Evaluated, EvaluationKey, ProgressSink, RouteSpec, RouteState,
};
use innkeeper_model::preview::{CommitSha, DatabaseMode, Meta, PreviewState, RepoName};
use innkeeper_model::{BuildProgress, Code, Explain, GuestName, GuestState, StorePath, chain};
use innkeeper_store::{Preview, PreviewFact};
use tokio::sync::watch;
use tracing::warn;

use crate::PreviewError;
use crate::previews::Inner;

/// What can be served.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) sha: CommitSha,
    pub(crate) closure: StorePath,
    pub(crate) meta: Meta,
}

impl Version {
    /// The version that is served, if one is.
    fn live(preview: &Preview) -> Option<Self> {
        Some(Self {
            sha: preview.record.live_sha.clone()?,
            closure: preview.live_closure.clone()?,
            meta: preview.live_meta.clone()?,
        })
    }
}

/// Why a version is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is wanted, and is set up and started whatever is there.
    Wanted,
    /// Another one that was wanted did not come up, and left what it left.
    GoingBack,
    /// It was there before, and something ended: the host, the guest, a service.
    Restored,
}

/// How many lines of the log the page shows while the app does not answer yet.
const PAGE_LINES: usize = 12;

impl Inner {
    /// Brings the wanted commit up. When that fails, the version that was served before is served again.
    ///
    /// # Errors
    /// Why the wanted commit is not served.
    pub(crate) async fn bring_up(self: &Arc<Self>, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let live = Version::live(preview);
        if self.needs_room(slug).await? {
            // What was visited until now is told from what is visited during the evaluation.
            self.note_visits().await?;
        }
        self.enter(preview, PreviewState::Evaluating).await?;
        let version = match self.step("evaluate", self.evaluate(preview)).await {
            Ok(version) => version,
            Err(error) => {
                // What is served goes on, also when the host has just come back and GitHub has not.
                if live.is_some() {
                    told(slug, self.look_after(preview).await);
                }
                return Err(error);
            }
        };
        self.make_room(preview).await?;
        self.enter(preview, PreviewState::Starting).await?;
        if let Err(error) = self.serve(preview, &version, Why::Wanted).await {
            if let Some(live) = live {
                let text = format!("Going back to {}.", live.sha.short());
                self.note(slug, text);
                told(slug, self.go_back(preview, &live, Why::GoingBack).await);
            }
            return Err(error);
        }
        // First what is to be served from now on, so that a crash in between brings back this version; then
        // the route; and live is only what its URL leads to.
        let live = PreviewFact::Live {
            sha: version.sha.clone(),
            closure: version.closure.clone(),
            meta: Box::new(version.meta.clone()),
        };
        let served = vec![live, PreviewFact::Dirty(false)];
        self.step("record-version", self.store.set_preview(slug, served))
            .await?;
        self.step("ensure-route", self.ensure_route(slug, &version.meta))
            .await?;
        let settled = vec![
            PreviewFact::State(PreviewState::Live),
            PreviewFact::Fault(None),
        ];
        self.step("record-live", self.store.set_preview(slug, settled))
            .await?;
        self.note(
            slug,
            format!(
                "{} is live at {}.",
                version.sha.short(),
                self.config.url(slug)
            ),
        );
        self.report_soon(slug);
        Ok(())
    }

    async fn go_back(
        self: &Arc<Self>,
        preview: &Preview,
        live: &Version,
        why: Why,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        self.serve(preview, live, why).await?;
        let calm = vec![PreviewFact::Dirty(false)];
        self.store.set_preview(slug, calm).await?;
        self.ensure_route(slug, &live.meta).await
    }

    /// Sees that the version that is served still is, after a reboot above all. Without one, the page that says
    /// so is all there is.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn look_after(
        self: &Arc<Self>,
        preview: &Preview,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let Some(live) = Version::live(preview) else {
            return self.ensure_page(preview, preview.record.state).await;
        };
        let guest = self.guest_view(slug).await?;
        let running = guest.filter(|view| {
            view.state == GuestState::Running && view.guest.closure.as_ref() == Some(&live.closure)
        });
        if preview.dirty {
            // A newer version was being set up when it was overtaken by one that does not come so far.
            let text = format!("Going back to {}.", live.sha.short());
            self.note(slug, text);
            return self.go_back(preview, &live, Why::GoingBack).await;
        }
        if self.is_stopped_by_request(slug).await? {
            let text = format!("The guest is stopped; `preview start {slug}` starts it.");
            if self
                .last_notes(slug, 1)
                .await?
                .iter()
                .all(|last| !last.ends_with(&text))
            {
                self.note(slug, text);
            }
            return Ok(());
        }
        match running {
            Some(view) if self.app_runs(slug, &live.meta).await => {
                self.ensure_route(slug, &live.meta).await?;
                self.renew_token(&view.guest, &preview.record).await;
                Ok(())
            }
            _ => {
                self.note(slug, "Starting again.");
                self.go_back(preview, &live, Why::Restored).await
            }
        }
    }

    /// Says how far the preview is: in its record, on its page, on GitHub.
    ///
    /// # Errors
    /// When the record or the page cannot be written.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        preview: &Preview,
        state: PreviewState,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let is_live = preview.record.live_sha.is_some();
        let shown = match state {
            PreviewState::Evaluating
            | PreviewState::Building
            | PreviewState::Starting
            | PreviewState::SettingUp
                if is_live =>
            {
                PreviewState::Updating
            }
            state => state,
        };
        self.store
            .set_preview(slug, vec![PreviewFact::State(shown)])
            .await?;
        if state != PreviewState::Closing {
            let sha = preview.record.wanted_sha.short();
            self.note(
                slug,
                format!("{sha}: {}.", state.as_str().replace('-', " ")),
            );
        }
        self.report_soon(slug);
        if is_live || state == PreviewState::Closing {
            return Ok(());
        }
        self.step("ensure-page", self.ensure_page(preview, state))
            .await
    }

    /// Finds out what the wanted commit is to run: reads its configuration, evaluates it as the code of a
    /// stranger, and builds it. The same text means the same result, and nothing is done for it again.
    async fn evaluate(self: &Arc<Self>, preview: &Preview) -> Result<Version, PreviewError> {
        let record = &preview.record;
        let (slug, sha) = (&record.slug, &record.wanted_sha);
        let (building, mut builds) = watch::channel(());
        let journal = self.engine.journal().clone();
        let follower = slug.clone();
        let told = AtomicBool::new(false);
        let progress = Arc::new(move |progress: BuildProgress| {
            if progress.to_build > 0 && !told.swap(true, Ordering::Relaxed) {
                building.send_replace(());
            }
            journal.build_progress(&follower, progress);
        });
        let mut making = pin!(self.evaluate_commit(&record.repo, sha, progress));
        let (key, made) = loop {
            tokio::select! {
                made = &mut making => break made?,
                Ok(()) = builds.changed() => self.enter(preview, PreviewState::Building).await?,
            }
        };
        // Before it is recorded: what is recorded has its hosts, also for the page of the next commit.
        self.refuse_taken_hosts(slug, &made.meta).await?;
        self.check_hosts(slug, &made.meta).await?;
        self.store
            .set_preview(
                slug,
                vec![PreviewFact::Evaluated {
                    key: key.as_str().to_owned(),
                    closure: made.closure.clone(),
                    meta: Box::new(made.meta.clone()),
                }],
            )
            .await?;
        Ok(Version {
            sha: sha.clone(),
            closure: made.closure,
            meta: made.meta,
        })
    }

    /// Refuses extra hosts that are other previews' slugs: they would take their visitors. From then on the store
    /// keeps new previews from such a slug.
    async fn refuse_taken_hosts(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        for host in &meta.extra_hosts {
            let Ok(label) = host.label(slug) else {
                continue;
            };
            if let Some(other) = self.store.preview(&label).await? {
                return Err(PreviewError::new(
                    Code::SlugConflict,
                    format!(
                        "the extra host '{label}' of preview '{slug}' is the name of the preview of {}, branch '{}'",
                        other.record.repo, other.record.branch
                    ),
                    format!(
                        "Choose another prefix in extraHosts, or remove it: `preview destroy {label}`."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Evaluates and builds the configuration of a commit.
    ///
    /// # Errors
    /// When there is none, or it is wrong.
    pub(crate) async fn evaluate_commit(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        progress: ProgressSink,
    ) -> Result<(EvaluationKey, Evaluated), PreviewError> {
        let text = self.github()?.preview_config(repo, sha).await?;
        let text = text.ok_or_else(|| PreviewError::ConfigMissing {
            repo: repo.clone(),
            sha: sha.clone(),
        })?;
        let text = String::from_utf8(text).map_err(|_| {
            PreviewError::new(
                Code::PreviewConfigInvalid,
                "preview-config.nix is not UTF-8",
                "Save it as UTF-8.",
            )
        })?;
        let key = self.evaluator.key(&text).await?;
        let known = self.store.evaluation(key.as_str()).await?;
        let known = known.map(|known| Evaluated {
            key: key.clone(),
            closure: known.closure,
            meta: known.meta,
        });
        let made = self
            .evaluator
            .evaluate(&text, known.as_ref(), progress)
            .await?;
        self.store
            .cache_evaluation(made.key.as_str(), &made.closure, &made.meta)
            .await?;
        Ok((key, made))
    }

    /// Makes the guest serve a version: database, guest, what it is told, setup, app. The app of the version
    /// before goes on until the setup of this one has ended, unless the guest changes its closure. How far it is
    /// is told of a version that is wanted.
    async fn serve(
        self: &Arc<Self>,
        preview: &Preview,
        version: &Version,
        why: Why,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let meta = &version.meta;
        let access = match meta.database {
            DatabaseMode::Container => None,
            DatabaseMode::Host => {
                let spec = self.database_spec(slug);
                let databases = self.databases()?;
                Some(
                    self.step("ensure-database", databases.ensure(&spec))
                        .await?,
                )
            }
        };
        if why == Why::Wanted && preview.record.live_sha.is_some() {
            let disturbed = vec![PreviewFact::Dirty(true)];
            self.store.set_preview(slug, disturbed).await?;
        }
        let guest = self
            .step("ensure-guest", self.ensure_guest(slug, &version.closure))
            .await?;
        let url = match access {
            Some(access) => {
                let gateway = self.addresses(&guest)?.host;
                Some(access.url(gateway, self.config.database_port))
            }
            None => None,
        };
        let must_have_token = why == Why::Wanted;
        let furnish = self.furnish(&guest, &preview.record, version, url, must_have_token);
        self.step("furnish", furnish).await?;
        self.step("await-services", self.await_services(slug, meta))
            .await?;
        if why == Why::Wanted {
            self.enter(preview, PreviewState::SettingUp).await?;
        }
        self.step("set-up", self.set_up(slug, meta, why != Why::Restored))
            .await?;
        self.step("start-app", self.start_app(slug, meta)).await?;
        self.step("await-answers", self.await_answers(&guest, meta))
            .await
    }

    pub(crate) fn database_spec(&self, slug: &GuestName) -> DatabaseSpec {
        DatabaseSpec {
            slug: slug.clone(),
            template: self.config.database_template.clone(),
        }
    }

    /// Makes sure that no host of a version belongs to another preview, before anything is done for it: what is
    /// served now would be given up for one whose route is refused.
    async fn check_hosts(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        let spec = RouteSpec {
            slug: slug.clone(),
            guest_address: Ipv4Addr::UNSPECIFIED,
            routes: meta.routes.clone(),
            extra_hosts: meta.extra_hosts.clone(),
            state: RouteState::Live,
        };
        let refused = |code| matches!(code, Code::SlugConflict | Code::PreviewConfigInvalid);
        match self.routes.is_complete(&spec).await {
            Err(error) if refused(error.code()) => Err(error.into()),
            // Another trouble is told by the step that it keeps from being done.
            _ => Ok(()),
        }
    }

    /// Leads the preview's URLs to its app.
    async fn ensure_route(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        let guest = self.engine.guest(slug).await?;
        let spec = RouteSpec {
            slug: slug.clone(),
            guest_address: self.address(&guest)?,
            routes: meta.routes.clone(),
            extra_hosts: meta.extra_hosts.clone(),
            state: RouteState::Live,
        };
        if !self.routes.is_complete(&spec).await? {
            self.routes.ensure(&spec).await?;
        }
        Ok(())
    }

    /// Leads the preview's URLs to a page with its state and the end of its log.
    pub(crate) async fn ensure_page(
        &self,
        preview: &Preview,
        state: PreviewState,
    ) -> Result<(), PreviewError> {
        let record = &preview.record;
        let meta = preview.meta.as_ref();
        let mut log = self.last_notes(&record.slug, PAGE_LINES).await?;
        if let Some(fault) = &record.fault {
            log.push(fault.message.clone());
            log.extend(fault.log.iter().cloned());
        }
        let spec = RouteSpec {
            slug: record.slug.clone(),
            guest_address: Ipv4Addr::UNSPECIFIED,
            routes: Vec::new(),
            extra_hosts: meta
                .map(|meta| meta.extra_hosts.clone())
                .unwrap_or_default(),
            state: RouteState::Placeholder {
                state: state.as_str().replace('-', " "),
                log,
            },
        };
        Ok(self.routes.ensure(&spec).await?)
    }
}

/// Says that the last good version is not served, beside the error that is told to everybody.
fn told(slug: &GuestName, result: Result<(), PreviewError>) {
    if let Err(error) = result {
        warn!(%slug, code = %error.code(), "the last good version does not come up: {}", chain(&error));
    }
}
