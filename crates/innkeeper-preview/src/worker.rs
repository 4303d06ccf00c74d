//! The worker of one preview: acts on its deliveries in their order, and otherwise executes its record's plan.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::{PreviewState, Situation};
use innkeeper_model::{Code, Explain, Failure, GuestName, chain};
use innkeeper_store::{
    Delivery, DeliveryOutcome, NextDelivery, Presence, Preview, PreviewFact, Store,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::PreviewError;
use crate::deliveries::{Accepted, Deliveries};
use crate::execute::Execute;
use crate::health::Health;
use crate::journal::Journal;
use crate::masks::Masks;
use crate::plan::{Desired, Executed, Memory, Next, Now, Plan, schedule};
use crate::reporter::Reporter;
use crate::retry::{outcome, retry_delay};
use crate::routing::Routing;
use crate::workers::{NewWorker, Wakeup, Workers};

/// Maximum number of lines about an invalid configuration in the preview's log.
const NOTED_LINES: usize = 50;

/// Delay after an error of the store or of GitHub that no record can hold.
const ERROR_DELAY: Duration = Duration::from_secs(5);

/// Number of failed attempts to start the live version's app before one that gives it up: about two minutes.
const APP_ATTEMPTS: u32 = 3;

/// Parts that all workers share.
#[derive(Clone)]
pub(crate) struct WorkerParts<E> {
    /// Interval of the periodic checks.
    pub(crate) interval: Duration,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) masks: Masks,
    pub(crate) reporter: Reporter,
    pub(crate) routing: Routing,
    pub(crate) health: Health,
    pub(crate) deliveries: Deliveries,
    pub(crate) workers: Workers,
    pub(crate) executor: Arc<E>,
}

/// The worker of one preview.
pub(crate) struct Worker<E> {
    slug: GuestName,
    wakeups: watch::Receiver<Wakeup>,
    memory: Memory,
    parts: WorkerParts<E>,
}

impl<E: Execute> Worker<E> {
    pub(crate) fn new(new: NewWorker, parts: WorkerParts<E>) -> Self {
        Self {
            slug: new.slug,
            wakeups: new.wakeups,
            memory: Memory::default(),
            parts,
        }
    }

    /// Works until the preview is gone. Cancel-safe: everything can be done again.
    pub(crate) async fn run(mut self) {
        loop {
            let wakeup = *self.wakeups.borrow_and_update();
            let next = self.turn(wakeup).await.unwrap_or_else(|error| {
                self.log(&error);
                Next::Sleep(Some(Instant::now() + ERROR_DELAY))
            });
            match next {
                Next::Act(_) | Next::Execute(_) => {}
                Next::Sleep(until) => self.sleep(until).await,
                Next::Exit if self.parts.workers.leave(&self.slug, &self.wakeups) => {
                    // Deliveries that arrived during the removal are for a new preview.
                    if let Err(error) = self.parts.deliveries.dispatch().await {
                        self.log(&error);
                    }
                    return;
                }
                Next::Exit => {}
            }
        }
    }

    async fn sleep(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.wakeups.changed() => {}
            () = timer => {}
        }
    }

    /// Does the next action and returns it.
    async fn turn(&mut self, wakeup: Wakeup) -> Result<Next, PreviewError> {
        let preview = self.parts.store.preview(&self.slug).await?;
        let delivery = match preview.as_ref().and_then(|p| p.record.delivery_source()) {
            Some(pull_request) => self.parts.store.next_delivery(&pull_request).await?,
            None => NextDelivery::None,
        };
        let next = schedule(
            preview.as_ref(),
            delivery,
            wakeup,
            &self.memory,
            Now::read(),
        );
        match (&next, &preview) {
            (Next::Act(delivery), Some(preview)) => {
                self.memory.reset();
                self.act(delivery, preview, wakeup).await?;
            }
            (Next::Execute(plan), Some(preview)) => self.execute(*plan, preview, wakeup).await?,
            _ => {}
        }
        Ok(next)
    }

    /// Acts on a delivery and records its outcome. If a newer delivery or a command cancels the execution, the delivery
    /// stays pending: it is acted on again unless the store has recorded it as superseded.
    async fn act(
        &self,
        delivery: &Delivery,
        preview: &Preview,
        wakeup: Wakeup,
    ) -> Result<(), PreviewError> {
        let id = delivery.event.id();
        let outcome = match self.parts.deliveries.accept(delivery, preview).await {
            Ok(Accepted::Ended) => return Ok(()),
            Ok(Accepted::Finished(outcome)) => outcome,
            Ok(Accepted::Recorded(preview)) => {
                let plan = Plan::of(&preview);
                match self.run_plan(&preview, plan, Some(id), wakeup).await {
                    None => return Ok(()),
                    Some(Ok(())) => DeliveryOutcome::Done,
                    Some(Err(error)) if is_left_alone(&preview, &error) => {
                        return self.leave_alone(&preview, &error, Some(id)).await;
                    }
                    Some(Err(error)) => {
                        let retries = error.may_pass(delivery.attempts);
                        self.record_fault(plan, &error, retries, delivery.attempts)
                            .await?;
                        outcome(&error, delivery.attempts)
                    }
                }
            }
            Err(error) => outcome(&error, delivery.attempts),
        };
        let finished = self.parts.store.finish_delivery(id, outcome);
        self.parts.journal.step("finish-delivery", finished).await?;
        Ok(())
    }

    /// Executes the record's plan, and schedules a retry if it fails.
    async fn execute(
        &mut self,
        plan: Plan,
        preview: &Preview,
        wakeup: Wakeup,
    ) -> Result<(), PreviewError> {
        let Some(result) = self.run_plan(preview, plan, None, wakeup).await else {
            return Ok(());
        };
        let attempts = self.memory.end_execution(preview, wakeup);
        let executed = match result {
            Ok(()) => Executed::Done,
            Err(error) if is_left_alone(preview, &error) => {
                return self.leave_alone(preview, &error, None).await;
            }
            Err(error) => {
                // A removal is never given up.
                let retries = error.may_pass(attempts) || plan == Plan::Remove;
                self.record_fault(plan, &error, retries, attempts).await?;
                match retries {
                    true => Executed::Retry {
                        after: retry_delay(&error, attempts + 1),
                    },
                    false => Executed::Failed,
                }
            }
        };
        let now = Instant::now();
        self.memory
            .schedule_after(preview, plan, wakeup, executed, self.parts.interval, now);
        if executed == Executed::Done && plan.clears_fault(preview) {
            let cleared = vec![PreviewFact::Fault(None)];
            self.parts.store.set_preview(&self.slug, cleared).await?;
            self.parts.reporter.report_soon(&self.slug);
        }
        Ok(())
    }

    /// Leaves a pull request alone that never had a configuration: ignores the delivery and deletes the record, which has
    /// no resource and was never reported. Each part can follow a crash after the other.
    async fn leave_alone(
        &self,
        preview: &Preview,
        error: &PreviewError,
        delivery: Option<&str>,
    ) -> Result<(), PreviewError> {
        let failure = Failure::from(error);
        info!(slug = %self.slug, "ignored: {failure}");
        let (store, journal) = (&self.parts.store, &self.parts.journal);
        if let Some(id) = delivery {
            let ignored = DeliveryOutcome::Ignored(Some(failure));
            let finished = store.finish_delivery(id, ignored);
            journal.step("finish-delivery", finished).await?;
        }
        if let Some(pull_request) = preview.record.pull_request() {
            let sha = &preview.record.wanted_sha;
            let reporter = &self.parts.reporter;
            match preview.record.config_path.as_ref() {
                None => reporter.conclude_all_soon(&pull_request, sha, Situation::NoConfig),
                path => reporter.conclude_soon(&pull_request, path, sha, Situation::NoConfig),
            }
        }
        let deleted = store.delete_unseen_preview(&self.slug, &preview.record.wanted_sha);
        journal.step("forget", deleted).await?;
        Ok(())
    }

    /// Executes a plan until its end, or until something else is desired. Then the execution is dropped and `None`
    /// returned. `acting_on` is the delivery that it is for, `wakeup` the last one before it.
    async fn run_plan(
        &self,
        preview: &Preview,
        plan: Plan,
        acting_on: Option<&str>,
        wakeup: Wakeup,
    ) -> Option<Result<(), PreviewError>> {
        // A receiver of its own: to the worker's, the wakeup stays unseen, so that another turn follows if the execution
        // ends before the reason of the wakeup is known.
        let mut wakeups = self.wakeups.clone();
        let canceled = async {
            loop {
                if wakeups.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if wakeups.borrow_and_update().commands != wakeup.commands {
                    return;
                }
                match self.is_superseded(preview, acting_on).await {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => self.log(&error),
                }
            }
        };
        let execution = Box::pin(self.parts.executor.execute(preview, plan));
        let result = unless(canceled, execution).await?;
        let is_current = self.wakeups.borrow().commands == wakeup.commands;
        is_current.then_some(result)
    }

    /// Reports whether another delivery is to be acted on, or something else is desired.
    async fn is_superseded(
        &self,
        preview: &Preview,
        acting_on: Option<&str>,
    ) -> Result<bool, PreviewError> {
        let store = &self.parts.store;
        let has_other = loop {
            let next = match preview.record.delivery_source() {
                Some(pull_request) => store.next_delivery(&pull_request).await?,
                None => NextDelivery::None,
            };
            match next {
                NextDelivery::Process(delivery) => {
                    let is_other = acting_on != Some(delivery.event.id());
                    // The work goes on while the permission for a command is queried.
                    if !is_other || self.parts.deliveries.may_interrupt(&delivery).await? {
                        break is_other;
                    }
                }
                NextDelivery::WaitUntil(_) | NextDelivery::None => break acting_on.is_some(),
            }
        };
        let now = store.preview(&self.slug).await?;
        Ok(has_other || now.is_none_or(|now| Desired::of(&now) != Desired::of(preview)))
    }

    /// Records why a preview is not as desired. A preview whose plan is retried keeps its state; otherwise the commit has
    /// failed. `attempts` is the number of failures before this one.
    async fn record_fault(
        &self,
        plan: Plan,
        error: &PreviewError,
        retries: bool,
        attempts: u32,
    ) -> Result<(), PreviewError> {
        let slug = &self.slug;
        let mask = self.parts.masks.of(slug).await;
        let mut failure = mask.failure(Failure::from(error));
        if retries && error.is_inconclusive() {
            failure.remedy = Some(
                "The host or the repository may be at fault: it is retried some times before the commit is given up."
                    .to_owned(),
            );
        }
        warn!(%slug, code = %failure.code, "{failure}");
        let mut facts = Vec::new();
        // The cause of the commit's failure is kept, not that of its predecessor's present failure.
        if plan != Plan::MaintainPrevious {
            facts.push(PreviewFact::Fault(Some(failure.clone())));
        }
        let gives_up = match plan {
            Plan::BringUp => true,
            Plan::Maintain => self.gives_up_app(error, attempts),
            _ => false,
        };
        if !retries && gives_up {
            facts.push(PreviewFact::State(PreviewState::Failed));
        }
        let now = match self.parts.store.set_preview(slug, facts).await {
            Err(error) if error.code() == Code::PreviewNotFound => return Ok(()),
            now => now?,
        };
        self.parts.journal.note(slug, failure.to_string());
        if failure.code == Code::PreviewConfigInvalid {
            // The problems with their places, as on the page and in the comment.
            for line in failure.log.iter().take(NOTED_LINES) {
                self.parts.journal.note(slug, line);
            }
        }
        self.parts.reporter.report_soon(slug);
        // A pull request without a configuration has no page, and a missing permission of the host concerns no visitor.
        let may_show = now.config_seen || now.record.pull_request.is_none();
        let is_down = now.record.live_sha.is_none() || self.parts.health.trouble(slug).is_some();
        if is_down
            && now.desired == Presence::Present
            && may_show
            && failure.code != Code::NoAccess
            && let Err(error) = self.parts.routing.show_page(&now).await
        {
            // The page may be what failed in the first place: the fault must be recorded all the same.
            self.log(&error);
        }
        Ok(())
    }

    /// Reports whether the live version's app has failed: it ends again and again, or did not start several times. Fewer
    /// failures may be those of a host that has just booted.
    fn gives_up_app(&self, error: &PreviewError, attempts: u32) -> bool {
        let now = Instant::now();
        let is_looping = self.parts.health.crash_loop(&self.slug, now).is_some();
        error.code() == Code::AppUnhealthy && (is_looping || attempts >= APP_ATTEMPTS)
    }

    fn log(&self, error: &PreviewError) {
        warn!(slug = %self.slug, code = %error.code(), "{}", chain(error));
    }
}

/// Reports whether an execution ended because a pull request never had a configuration.
fn is_left_alone(preview: &Preview, error: &PreviewError) -> bool {
    error.code() == Code::ConfigMissing
        && !preview.config_seen
        && preview.record.pull_request.is_some()
}

/// Does work until it ends or is canceled. The cancellation is polled first: work that always has more to do, such as
/// reading a builder's output, uses up the task's budget (`tokio::task::coop`), and a cancellation polled after it would
/// never be seen.
async fn unless<T>(canceled: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = canceled => None,
        done = work => Some(done),
    }
}

#[cfg(test)]
mod tests;
