//! Executes plans: carries out the steps that [`crate::steps`] lists.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use innkeeper_engine::{Staging, Turn};
use innkeeper_facilities::{DatabaseAccess, Effort};
use innkeeper_model::preview::{DatabaseMode, Meta, PackageChanges, PreviewState};
use innkeeper_model::{BuildProgress, Explain, Failure, GuestName, chain};
use innkeeper_store::{Preview, PreviewFact, Store};
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::additional::Additional;
use crate::capacity::Capacity;
use crate::databases::PreviewDatabases;
use crate::evaluation::Evaluation;
use crate::guest_files::{GuestDatabase, GuestEnvironment};
use crate::guests::Guests;
use crate::health::Health;
use crate::journal::Journal;
use crate::pages::StatusPages;
use crate::plan::Plan;
use crate::reporter::Reporter;
use crate::routing::Routing;
use crate::services::Services;
use crate::stages::Stages;
use crate::steps::{Cause, Seen, Serve, Step, Target, Version, after_failure, has_remedy, steps};
use crate::{PreviewError, PreviewsConfig};

mod inspection;

/// Time after which a preview that comes back after a reboot of the host, and is not ready, no longer delays the next one.
const TURN: Duration = Duration::from_secs(60);

/// Delay after the live version's app could not be brought back during the evaluation of another one.
const REVIVAL_RETRY: Duration = Duration::from_secs(15);

/// Time until the comment shows the progress of a build again. It doubles with each report.
const BUILD_REPORT: Duration = Duration::from_secs(30);

/// Executes plans. The worker's tests have a fake.
pub(crate) trait Execute: Send + Sync {
    /// Executes a preview's plan. Cancel-safe: every step can be carried out again.
    ///
    /// # Errors
    /// The first error, after the steps that do not depend on the failed one.
    fn execute(
        &self,
        preview: &Preview,
        plan: Plan,
    ) -> impl Future<Output = Result<(), PreviewError>> + Send;
}

/// Previews that users on the host destroyed: their removal does not wait for GitHub.
#[derive(Clone, Debug, Default)]
pub(crate) struct DestroyedByUsers {
    slugs: Arc<Mutex<HashSet<GuestName>>>,
}

impl DestroyedByUsers {
    pub(crate) fn add(&self, slug: &GuestName) {
        self.slugs.lock().insert(slug.clone());
    }

    pub(crate) fn remove(&self, slug: &GuestName) {
        self.slugs.lock().remove(slug);
    }

    fn contains(&self, slug: &GuestName) -> bool {
        self.slugs.lock().contains(slug)
    }
}

/// Executes plans on the host.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) reporter: Reporter,
    pub(crate) stages: Stages,
    pub(crate) evaluation: Evaluation,
    pub(crate) additional: Additional,
    pub(crate) capacity: Capacity,
    pub(crate) databases: PreviewDatabases,
    pub(crate) guests: Guests,
    pub(crate) environment: GuestEnvironment,
    pub(crate) services: Services,
    pub(crate) routing: Routing,
    pub(crate) health: Health,
    pub(crate) pages: StatusPages,
    pub(crate) destroyed: DestroyedByUsers,
    pub(crate) staging: Staging,
}

/// State of one execution.
struct Execution {
    plan: Plan,
    /// The record as it was when the execution began.
    preview: Preview,
    /// Access to the database that a step created.
    database: Option<DatabaseAccess>,
    /// The packages of the wanted version that differ from the live one.
    changes: Option<PackageChanges>,
    /// The turn to bring the app back after a reboot of the host.
    turn: Option<Turn>,
}

impl Execute for Executor {
    async fn execute(&self, preview: &Preview, plan: Plan) -> Result<(), PreviewError> {
        // A failure does not keep this preview from being changed.
        let additional = self.additional.follow(preview, plan).await;
        let first = steps(plan, preview, Seen::Unknown);
        let followed = self.follow(plan, preview, first.into()).await;
        // It needs no turn any more.
        self.staging.hasten(&preview.record.slug);
        followed?;
        additional
    }
}

impl Executor {
    /// Runs steps, and those that follow from what they see.
    async fn follow(
        &self,
        plan: Plan,
        preview: &Preview,
        mut left: VecDeque<Step>,
    ) -> Result<(), PreviewError> {
        let mut execution = Execution {
            plan,
            preview: preview.clone(),
            database: None,
            changes: None,
            turn: None,
        };
        let mut result = Ok(());
        while let Some(step) = left.pop_front() {
            match self.run(&step, &mut execution).await {
                Ok(Seen::Unknown) => {}
                // What is seen decides all that follows.
                Ok(seen) => left = steps(plan, &execution.preview, seen).into(),
                Err(error) => {
                    if let Some(held) = self.held_back_instead(&step, &execution).await {
                        left = steps(plan, &execution.preview, Seen::App(held)).into();
                        continue;
                    }
                    left = after_failure(&execution.preview, &step, left);
                    match result {
                        Ok(()) if !has_remedy(&step) => result = Err(error),
                        _ => self.log_further(&execution, &error),
                    }
                }
            }
        }
        result
    }

    /// Runs one step between its crash points.
    async fn run(&self, step: &Step, execution: &mut Execution) -> Result<Seen, PreviewError> {
        let work = Box::pin(self.carry_out(step, execution));
        match step.crash_point() {
            Some(name) => self.journal.step(name, work).await,
            None => work.await,
        }
    }

    /// Logs an error after the first one, which is the execution's result.
    fn log_further(&self, execution: &Execution, error: &PreviewError) {
        let slug = &execution.preview.record.slug;
        if execution.plan == Plan::Remove {
            let failure = Failure::from(error);
            warn!(%slug, code = %failure.code, "{failure}");
            self.journal.note(slug, failure.to_string());
        } else {
            warn!(%slug, code = %error.code(), "the last good version does not come up: {}", chain(error));
        }
    }

    async fn carry_out(
        &self,
        step: &Step,
        execution: &mut Execution,
    ) -> Result<Seen, PreviewError> {
        let preview = &execution.preview;
        let slug = &preview.record.slug;
        match step {
            Step::Serve(step, target) => return self.serve(*step, target, execution).await,
            Step::FindConfig => return Ok(Seen::Config(self.find_config(execution).await?)),
            Step::RecordDropped => self.record_dropped(execution).await?,
            Step::Evaluate => {
                let evaluation = Box::pin(self.evaluate(preview));
                let version = self.while_reviving(preview, evaluation).await?;
                execution.changes = self.evaluation.changes(preview, &version.closure).await;
                return Ok(Seen::Version(version));
            }
            Step::Inspect => return Ok(Seen::App(self.inspect(preview).await?)),
            Step::Report => self.reporter.report_soon(slug),
            Step::Note(text) => self.journal.note(slug, text),
            Step::BeginAttempt => {
                let attempt = vec![PreviewFact::Attempt];
                let begun = self.store.set_preview(slug, attempt).await?.record;
                let number = begun.rollout.attempt;
                self.journal.attempt(slug, number, &begun.wanted_sha);
            }
            Step::Enter(state) => self.stages.enter(preview, *state).await?,
            Step::ShowPage => {
                self.routing.show_page(preview).await?;
            }
            Step::ShowStopped => self.routing.show_stopped(preview).await?,
            Step::ShowAsleep => self.routing.show_asleep(preview).await?,
            Step::KeepRoute(meta) => self.routing.keep_for_paused(slug, meta).await?,
            Step::HoldRoute(meta) => self.hold_route(preview, meta).await,
            Step::AwaitRevival => {
                let delay = self.health.delay(slug, Instant::now());
                tokio::time::sleep(delay).await;
            }
            Step::ResetDatabase => {
                self.databases.reset(slug).await?;
                self.record(slug, vec![PreviewFact::ResetDatabase(false)])
                    .await?;
                self.journal.note(slug, "The database was reset.");
            }
            Step::RecordVisits => {
                // Visits until now count as older than those during the evaluation.
                if self.capacity.needs_room(preview).await? {
                    self.capacity.record_visits().await?;
                }
            }
            Step::MakeRoom => self.capacity.make_room(preview).await?,
            Step::ClearDirty => self.record(slug, vec![PreviewFact::Dirty(false)]).await?,
            Step::RecordVersion(target) => {
                let Version { sha, closure, meta } = target.version.clone();
                let meta = Box::new(meta);
                // After a crash, the version that is live already keeps its difference from the one before.
                let is_new = preview.record.live_sha.as_ref() != Some(&sha)
                    || preview.live_closure.as_ref() != Some(&closure);
                let live = PreviewFact::Live { sha, closure, meta };
                let mut facts = vec![live, PreviewFact::Dirty(false)];
                facts.extend(is_new.then(|| PreviewFact::Changes(execution.changes.take())));
                self.record(slug, facts).await?;
            }
            Step::EnsureRoute(target) => self.routing.ensure(slug, &target.version.meta).await?,
            Step::RecordLive(target) => self.record_live(slug, &target.version).await?,
            Step::RepairRoute(meta) => self.routing.ensure(slug, meta).await?,
            Step::RenewToken => {
                let guest = self.guests.record(slug).await?;
                self.environment.renew_token(&guest, &preview.record).await;
            }
            Step::NoteStopped => self.note_stopped(slug).await?,
            Step::StopGuest => {
                self.environment.forget_token(slug);
                self.guests.stop(slug).await?;
            }
            Step::RecordStopped => {
                let facts = vec![PreviewFact::NotLive, PreviewFact::Dirty(false)];
                execution.preview = self.store.set_preview(slug, facts).await?;
            }
            Step::RecordGone => self.record(slug, vec![PreviewFact::NotLive]).await?,
            Step::RemoveRoute => self.routing.remove(slug).await?,
            Step::RemoveGuest => {
                self.environment.forget_token(slug);
                self.guests.remove(slug).await?;
            }
            Step::RemoveDatabase => self.databases.remove(slug).await?,
            Step::ReportRemoval => self.report_removal(preview).await?,
            Step::Forget => {
                self.store.delete_preview(slug).await?;
                // Lines that arrived during the removal have written it again.
                self.pages.remove(slug).await?;
                self.destroyed.remove(slug);
            }
        }
        Ok(Seen::Unknown)
    }

    async fn serve(
        &self,
        step: Serve,
        target: &Target,
        execution: &mut Execution,
    ) -> Result<Seen, PreviewError> {
        let preview = &execution.preview;
        let slug = &preview.record.slug;
        let Version { closure, meta, .. } = &target.version;
        match step {
            Serve::EnsureDatabase => {
                execution.database = Some(self.databases.ensure(slug).await?);
            }
            Serve::MarkDirty => self.record(slug, vec![PreviewFact::Dirty(true)]).await?,
            Serve::EnsureGuest => {
                if target.cause == Cause::Restart {
                    execution.turn = Some(self.staging.turn(slug).await.limited(TURN));
                    // The guest may wait for its own turn.
                    self.guests.hasten(slug);
                }
                let overrides = target.cause == Cause::Wanted;
                let held = self.guests.ensure(slug, closure, overrides).await?;
                return Ok(held.map_or(Seen::Unknown, |held| Seen::App(held.into())));
            }
            Serve::WriteFiles => {
                let guest = self.guests.record(slug).await?;
                // A rollback may be to a version without the database that the failed version has.
                let has_database = meta.database == DatabaseMode::Host;
                let database = match execution.database.as_ref().filter(|_| has_database) {
                    Some(access) => {
                        let gateway = self.guests.addresses(&guest)?.host;
                        Some(GuestDatabase {
                            url: access.url(gateway, self.config.database_port),
                            password: access.password.clone(),
                            id: access.id.clone(),
                        })
                    }
                    None => None,
                };
                let require_token = target.cause == Cause::Wanted;
                self.environment
                    .write(
                        &guest,
                        &preview.record,
                        &target.version,
                        database,
                        require_token,
                    )
                    .await?;
            }
            Serve::AwaitServices => self.services.await_ready(slug, meta).await?,
            Serve::EnterSetup => self.stages.enter(preview, PreviewState::SettingUp).await?,
            Serve::SetUp => {
                let leader = self.guests.leader(slug).await?;
                self.services
                    .set_up(slug, meta, target.cause.rebuilds())
                    .await?;
                self.health.set_up(slug, leader);
            }
            Serve::StartApp if target.cause.restarts_app() => {
                self.services.restart_app(slug, meta).await?;
            }
            Serve::StartApp => self.services.start_app(slug, meta).await?,
            Serve::AwaitAnswers => {
                let guest = self.guests.record(slug).await?;
                self.services.await_answers(&guest, meta).await?;
            }
        }
        Ok(Seen::Unknown)
    }

    async fn record(&self, slug: &GuestName, facts: Vec<PreviewFact>) -> Result<(), PreviewError> {
        self.store.set_preview(slug, facts).await?;
        Ok(())
    }

    /// Looks for the configuration of the wanted commit. Returns false if an earlier commit of the pull request had one.
    async fn find_config(&self, execution: &mut Execution) -> Result<bool, PreviewError> {
        let preview = &execution.preview;
        let record = &preview.record;
        let sha = &record.wanted_sha;
        let found = Box::pin(self.evaluation.has_config(
            &record.repo,
            sha,
            record.config_path.as_ref(),
        ));
        if self.while_reviving(preview, found).await? {
            if !preview.config_seen || preview.removal_running.is_some() {
                let found = vec![PreviewFact::ConfigFound];
                execution.preview = self.store.set_preview(&record.slug, found).await?;
            }
            return Ok(true);
        }
        if preview.config_seen && record.pull_request.is_some() {
            return Ok(false);
        }
        Err(PreviewError::ConfigMissing { sha: sha.clone() })
    }

    async fn record_dropped(&self, execution: &mut Execution) -> Result<(), PreviewError> {
        let record = &execution.preview.record;
        let sha = &record.wanted_sha;
        let grace =
            SignedDuration::try_from(self.config.dropped_grace).unwrap_or(SignedDuration::MAX);
        let missing = PreviewError::ConfigMissing { sha: sha.clone() };
        let failure = Failure::new(missing.code(), missing.to_string()).with_remedy(format!(
            "Push a commit with the file: the preview starts again with its files and its database. Both are removed {grace:#} after the first commit without it."
        ));
        let text = format!("Stopped: {failure}.");
        info!(slug = %record.slug, "{text}");
        self.journal.note(&record.slug, text);
        let dropped = vec![PreviewFact::Dropped(failure)];
        execution.preview = self.store.set_preview(&record.slug, dropped).await?;
        Ok(())
    }

    /// Evaluates and builds the wanted commit, as untrusted code. It enters the state `building` once a derivation has to
    /// be built.
    async fn evaluate(&self, preview: &Preview) -> Result<Version, PreviewError> {
        let record = &preview.record;
        let (slug, sha) = (&record.slug, &record.wanted_sha);
        let (building, mut builds) = watch::channel(());
        let (journal, about) = (self.journal.clone(), slug.clone());
        let reporter = self.reporter.clone();
        reporter.set_build(slug, None);
        let has_entered = AtomicBool::new(false);
        let progress = Arc::new(move |progress: BuildProgress| {
            if progress.to_build > 0 && !has_entered.swap(true, Ordering::Relaxed) {
                building.send_replace(());
            }
            reporter.set_build(&about, Some(progress.clone()));
            journal.build_progress(&about, progress);
        });
        let mut evaluation = pin!(self.evaluation.evaluate(
            &record.repo,
            sha,
            record.config_path.as_ref(),
            Effort::Normal,
            progress
        ));
        let mut pause = BUILD_REPORT;
        let mut report = pin!(tokio::time::sleep(pause));
        let built = loop {
            tokio::select! {
                evaluated = &mut evaluation => break evaluated,
                () = &mut report => {
                    self.reporter.report_soon(slug);
                    // GitHub limits requests that write.
                    pause *= 2;
                    report.as_mut().reset(Instant::now() + pause);
                }
                Ok(()) = builds.changed() => {
                    self.stages.enter(preview, PreviewState::Building).await?;
                }
            }
        };
        self.reporter.set_build(slug, None);
        let (key, evaluated) = built?;
        // Before the record: a recorded version owns its hosts, also for the page of the next commit.
        self.routing
            .require_free_hosts(slug, &evaluated.meta)
            .await?;
        let version = Version {
            sha: sha.clone(),
            closure: evaluated.closure,
            meta: evaluated.meta,
        };
        let fact = PreviewFact::Evaluated {
            key: key.as_str().to_owned(),
            closure: version.closure.clone(),
            meta: Box::new(version.meta.clone()),
        };
        self.record(slug, vec![fact]).await?;
        // The file may ask for fewer visitors: also for the version that is live meanwhile.
        self.routing.enforce_visibility(slug).await?;
        Ok(version)
    }

    /// Has requests wait for the app. Without that, a request that arrives while the app is down gets the page too: a
    /// failure here does not keep the app down.
    async fn hold_route(&self, preview: &Preview, meta: &Meta) {
        let slug = &preview.record.slug;
        let is_given_up = self.health.crash_loop(slug, Instant::now()).is_some();
        let held = match is_given_up {
            true => self.routing.show_page(preview).await,
            false => self.routing.hold(slug, meta).await,
        };
        if let Err(error) = held {
            warn!(%slug, code = %error.code(), "{}", chain(&error));
        }
    }

    /// Does work that leaves the guest alone, and brings the live version's app back meanwhile, whenever it ends.
    async fn while_reviving<T>(&self, preview: &Preview, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.revive_always(preview) => match never {},
        }
    }

    fn revive_always<'a>(
        &'a self,
        preview: &'a Preview,
    ) -> Pin<Box<dyn Future<Output = Infallible> + Send + 'a>> {
        Box::pin(async move {
            // A half-deployed version is replaced by the one that is being evaluated.
            if preview.dirty || preview.record.live_sha.is_none() {
                return std::future::pending().await;
            }
            let slug = &preview.record.slug;
            let plan = Plan::MaintainPrevious;
            loop {
                self.health.down(slug).await;
                if let Err(error) = self.follow(plan, preview, [Step::Inspect].into()).await {
                    self.journal.note(slug, Failure::from(&error).to_string());
                    warn!(%slug, code = %error.code(), "{}", chain(&error));
                    let page = self.routing.show_page(preview);
                    if let Err(error) = page.await {
                        warn!(%slug, code = %error.code(), "{}", chain(&error));
                    }
                    tokio::time::sleep(REVIVAL_RETRY).await;
                }
            }
        })
    }

    async fn record_live(&self, slug: &GuestName, version: &Version) -> Result<(), PreviewError> {
        let facts = vec![
            PreviewFact::State(PreviewState::Live),
            PreviewFact::Fault(None),
            PreviewFact::CameUp,
        ];
        self.record(slug, facts).await?;
        let (sha, url) = (version.sha.short(), self.config.url(slug));
        self.journal.note(slug, format!("{sha} is live at {url}."));
        self.reporter.report_soon(slug);
        Ok(())
    }

    async fn note_stopped(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let text = format!("The guest is stopped; `preview start {slug}` starts it.");
        let last = self.journal.last_notes(slug, 1).await?;
        if last.iter().all(|last| !last.ends_with(&text)) {
            self.journal.note(slug, text);
        }
        Ok(())
    }

    /// Reports the removal. GitHub must not keep the record for ever: only an error that may pass is retried, and not for
    /// a user who destroyed the preview on the host.
    async fn report_removal(&self, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        match self.reporter.report_removal(preview).await {
            Err(error) if error.is_transient() && !self.destroyed.contains(slug) => Err(error),
            Err(error) => {
                warn!(%slug, code = %error.code(), "{}", chain(&error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
