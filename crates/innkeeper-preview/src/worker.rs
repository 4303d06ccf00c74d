//! The worker of one preview: its deliveries in their order, and what its record says is left to do.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::{
    BranchName, CommitSha, PrAction, PreviewState, PullRequest, RepoName,
};
use innkeeper_model::{Code, Explain, Failure, GuestName, chain};
use innkeeper_store::{
    Delivery, DeliveryOutcome, NextDelivery, Presence, Preview, PreviewFact, retry_after,
};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::PreviewError;
use crate::aim::{Aim, aim};
use crate::approval::refusal_of;
use crate::desk::{Call, Why};
use crate::previews::Inner;

/// How a turn of the worker ended.
enum Turn {
    /// There may be more to do at once.
    Again,
    /// Nothing to do until something is heard, or until then.
    Rest(Option<Instant>),
    /// The preview is gone.
    Gone,
}

/// The commit that a preview should show.
struct Head {
    /// Nothing when that repository is gone.
    repo: Option<RepoName>,
    branch: BranchName,
    sha: CommitSha,
}

/// What a worker remembers between its turns. A restart of the daemon forgets it, and that does no harm.
#[derive(Default)]
struct Memory {
    /// The looks that were done.
    looks: u64,
    /// The orders that were begun.
    orders: u64,
    /// How often in a row what is left to do failed for a cause that may pass.
    attempts: u32,
    /// When it is tried again, if the same is wanted then.
    retry: Option<(Wish, Instant)>,
}

impl Inner {
    /// Wakes a preview's worker.
    pub(crate) fn wake(self: &Arc<Self>, slug: &GuestName, why: Why) {
        if let Some(calls) = self.desk.wake(slug, why) {
            let (inner, slug) = (Arc::clone(self), slug.clone());
            self.tasks
                .spawn(async move { inner.work(&slug, calls).await });
        }
    }

    async fn work(self: &Arc<Self>, slug: &GuestName, mut calls: watch::Receiver<Call>) {
        let mut memory = Memory::default();
        while !self.stopping.is_cancelled() {
            let call = *calls.borrow_and_update();
            // Dropped at any point: GitHub can take minutes to answer, and all of it can be done again.
            let turn = self.turn(slug, &mut memory, call, &calls);
            let Some(turn) = self.stopping.run_until_cancelled(turn).await else {
                return;
            };
            let turn = match turn {
                Ok(turn) => turn,
                Err(error) => {
                    warn!(%slug, code = %error.code(), "{}", chain(&error));
                    Turn::Rest(Some(Instant::now() + Duration::from_secs(5)))
                }
            };
            match turn {
                Turn::Again => {}
                Turn::Gone if self.desk.leave(slug, &calls) => {
                    // What arrived while it was removed is for a preview of its own.
                    if let Err(error) = self.hear().await {
                        warn!(%slug, code = %error.code(), "{}", chain(&error));
                    }
                    return;
                }
                Turn::Gone => {}
                Turn::Rest(until) => {
                    let pause = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        _ = calls.changed() => {}
                        () = pause => {}
                        () = self.stopping.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Acts on the next delivery, or else on what the record leaves to do.
    async fn turn(
        self: &Arc<Self>,
        slug: &GuestName,
        memory: &mut Memory,
        call: Call,
        calls: &watch::Receiver<Call>,
    ) -> Result<Turn, PreviewError> {
        let Some(preview) = self.store.preview(slug).await? else {
            return Ok(Turn::Gone);
        };
        let mut wait = None;
        if let Some(pull_request) = preview.record.pull_request() {
            match self.store.next_delivery(&pull_request).await? {
                NextDelivery::Process(delivery) => {
                    *memory = Memory {
                        looks: memory.looks,
                        orders: memory.orders,
                        ..Memory::default()
                    };
                    self.act(&pull_request, &delivery, &preview, call, calls)
                        .await?;
                    return Ok(Turn::Again);
                }
                NextDelivery::WaitUntil(until) => wait = Some(instant(until)),
                NextDelivery::None => {}
            }
        }
        let aim = aim(&preview);
        let settled = matches!(aim, Aim::LookAfter | Aim::Rest | Aim::KeepStopped)
            || aim == Aim::AwaitApproval
                && preview.record.state == PreviewState::WaitingForApproval;
        let wish = Wish::of(&preview);
        let later = memory
            .retry
            .as_ref()
            .filter(|(of, retry)| *of == wish && *retry > Instant::now())
            .map(|(_, retry)| *retry);
        // What is as wanted is looked after whatever else waits; an order waits for nothing.
        let is_ordered = call.orders != memory.orders;
        let held_up = later.is_some() || wait.is_some() && !settled;
        let nothing_asked = settled && call.looks == memory.looks;
        if !is_ordered && (held_up || nothing_asked) {
            return Ok(Turn::Rest([later, wait].into_iter().flatten().min()));
        }
        let Some(result) = self
            .unless_overtaken(&preview, None, call, calls, Box::pin(self.pursue(&preview)))
            .await
        else {
            return Ok(Turn::Again);
        };
        memory.orders = call.orders;
        let same = memory.retry.take().is_some_and(|(of, _)| of == wish);
        if !same || is_ordered {
            memory.attempts = 0;
        }
        match result {
            Ok(()) => {
                memory.looks = call.looks;
                memory.attempts = 0;
                if settled && !is_lasting(aim, &preview) {
                    // What an earlier look met has passed.
                    let passed = vec![PreviewFact::Fault(None)];
                    self.store.set_preview(slug, passed).await?;
                    self.report_soon(slug);
                }
            }
            Err(error) => {
                // What is to go is never given up.
                let again = error.may_pass(memory.attempts) || aim == Aim::Remove;
                self.record_fault(&preview, &error, again).await?;
                if again {
                    memory.attempts += 1;
                    let pause = pause(&error, memory.attempts);
                    memory.retry = Some((wish, Instant::now() + pause));
                } else if settled {
                    // Each look sets the app up anew; one that never comes up must not do that all the time. It is
                    // asked for still.
                    memory.attempts += 1;
                    let pause = look_again_after(self.config.interval, memory.attempts);
                    memory.retry = Some((wish, Instant::now() + pause));
                } else {
                    memory.looks = call.looks;
                }
            }
        }
        Ok(Turn::Again)
    }

    /// Does what is left to do for a preview.
    async fn pursue(self: &Arc<Self>, preview: &Preview) -> Result<(), PreviewError> {
        match aim(preview) {
            Aim::Remove => self.remove(preview).await,
            Aim::KeepStopped => self.keep_stopped(preview).await,
            Aim::AwaitApproval if preview.record.state != PreviewState::WaitingForApproval => {
                // What was approved before goes on, unless that was withdrawn.
                if preview.record.approved_sha.is_none() {
                    let slug = &preview.record.slug;
                    self.step("stop-guest", self.stop_guest(slug)).await?;
                    // It may have come up at the moment at which that was recorded.
                    let facts = vec![PreviewFact::NotLive, PreviewFact::Dirty(false)];
                    let preview = self.store.set_preview(slug, facts).await?;
                    return self.enter(&preview, PreviewState::WaitingForApproval).await;
                }
                self.enter(preview, PreviewState::WaitingForApproval).await
            }
            Aim::BringUp => self.bring_up(preview).await,
            // What was approved before goes on.
            Aim::LookAfter | Aim::Rest | Aim::AwaitApproval => {
                self.report_soon(&preview.record.slug);
                self.look_after(preview).await
            }
        }
    }

    /// Acts on a delivery and records how that ended. If a newer one overtakes it, or an order does, the work is
    /// dropped; unless the store has recorded it as superseded, it is acted on once more.
    async fn act(
        self: &Arc<Self>,
        pull_request: &PullRequest,
        delivery: &Delivery,
        preview: &Preview,
        call: Call,
        calls: &watch::Receiver<Call>,
    ) -> Result<(), PreviewError> {
        let id = &delivery.event.delivery;
        let outcome = match self.accept(delivery, preview).await {
            Ok(None) => return Ok(()),
            Ok(Some(Err(outcome))) => outcome,
            Ok(Some(Ok(preview))) => {
                let overtaking = Some((pull_request, id.as_str()));
                let work = Box::pin(self.pursue(&preview));
                match self
                    .unless_overtaken(&preview, overtaking, call, calls, work)
                    .await
                {
                    None => return Ok(()),
                    Some(Ok(())) => DeliveryOutcome::Done,
                    Some(Err(error)) => {
                        let again = error.may_pass(delivery.attempts);
                        self.record_fault(&preview, &error, again).await?;
                        outcome(&error, delivery.attempts)
                    }
                }
            }
            Err(error) => outcome(&error, delivery.attempts),
        };
        self.step("finish-delivery", self.store.finish_delivery(id, outcome))
            .await?;
        Ok(())
    }

    /// Records what a delivery wants of the preview. Returns the record if there is something to do for it now,
    /// and otherwise how the delivery ends; nothing when it has ended meanwhile.
    async fn accept(
        self: &Arc<Self>,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<Option<Result<Preview, DeliveryOutcome>>, PreviewError> {
        let event = &delivery.event;
        let slug = &preview.record.slug;
        let mut facts = vec![
            PreviewFact::LastDelivery(event.delivery.clone()),
            PreviewFact::Active(Timestamp::now()),
        ];
        match &event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened | PrAction::Closed => {
                facts.extend(match self.head_wanted_by(delivery).await? {
                    Some(head) => vec![
                        PreviewFact::Desired(Presence::Present),
                        PreviewFact::State(PreviewState::Queued),
                        PreviewFact::Fault(refusal_of(
                            preview,
                            &self.config.approval_label,
                            &head.sha,
                        )),
                        PreviewFact::Head {
                            repo: head.repo,
                            branch: head.branch,
                            sha: head.sha,
                        },
                    ],
                    None => vec![PreviewFact::Desired(Presence::Absent)],
                });
            }
            PrAction::Edited => {
                self.store.set_preview(slug, facts).await?;
                self.report_again(slug).await?;
                return Ok(Some(Err(DeliveryOutcome::Done)));
            }
            PrAction::Labeled(label) if *label == self.config.approval_label => {
                self.store.set_preview(slug, facts).await?;
                let outcome = self.approve_by_label(delivery, preview).await?;
                return Ok(Some(Err(outcome)));
            }
            PrAction::Unlabeled if preview.approved_by_label => {
                self.store.set_preview(slug, facts).await?;
                let outcome = self.withdraw_by_label(delivery, preview).await?;
                return Ok(Some(Err(outcome)));
            }
            PrAction::Labeled(_) | PrAction::Unlabeled | PrAction::Other(_) => {
                return Ok(Some(Err(DeliveryOutcome::Ignored(None))));
            }
        }
        let recorded = self
            .store
            .set_preview_for_delivery(&event.delivery, slug, facts);
        Ok(self.step("record-wish", recorded).await?.map(Ok))
    }

    /// The commit that a pull request's preview should show after it was opened, pushed to, closed or opened again;
    /// nothing when the preview should go. Where the order of such events is unknown, because GitHub gave them about the
    /// same time, GitHub is queried for the pull request's state.
    async fn head_wanted_by(&self, delivery: &Delivery) -> Result<Option<Head>, PreviewError> {
        let event = &delivery.event;
        let head = Head {
            repo: event.head_repo.clone(),
            branch: event.head_branch.clone(),
            sha: event.head_sha.clone(),
        };
        let by_arrival = (event.action != PrAction::Closed).then_some(head);
        let Some(github) = &self.github else {
            return Ok(by_arrival);
        };
        let Some(tied_at) = self.store.latest_tied_time(delivery).await? else {
            return Ok(by_arrival);
        };
        let pull_request = &event.pull_request;
        match github.pull_request(pull_request).await {
            Ok(Some(view)) if view.updated_at.is_some_and(|time| time < tied_at) => {
                Err(PreviewError::new(
                    Code::GithubFailed,
                    format!("GitHub shows pull request {pull_request} as it was before"),
                    "Nothing is lost: it is tried again by itself.",
                ))
            }
            Ok(Some(view)) => {
                info!(%pull_request, open = view.open, "GitHub's state decides between events of the same time");
                Ok(view.open.then_some(Head {
                    repo: view.head_repo,
                    branch: view.head_branch,
                    sha: view.head_sha,
                }))
            }
            Ok(None) => Ok(by_arrival),
            Err(error) if error.is_transient() => Err(error.into()),
            Err(error) => {
                warn!(%pull_request, "the order of arrival decides: {}", chain(&error));
                Ok(by_arrival)
            }
        }
    }

    /// Does work until it ends, or until something else is wanted of the preview; then the work is dropped and
    /// nothing is returned. `acting_on` is the delivery that the work is for, `call` what was heard before.
    async fn unless_overtaken<T>(
        &self,
        preview: &Preview,
        acting_on: Option<(&PullRequest, &str)>,
        call: Call,
        calls: &watch::Receiver<Call>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        // Heard by a receiver of its own: the worker's own has not seen the call then, and takes another turn when
        // the work ends before it is known what the call was about.
        let mut heard = calls.clone();
        let overtaken = async {
            loop {
                if heard.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if heard.borrow_and_update().orders != call.orders {
                    return;
                }
                match self.is_overtaken(preview, acting_on).await {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => warn!(code = %error.code(), "{}", chain(&error)),
                }
            }
        };
        let done = unless(overtaken, work).await?;
        (calls.borrow().orders == call.orders).then_some(done)
    }

    async fn is_overtaken(
        &self,
        preview: &Preview,
        acting_on: Option<(&PullRequest, &str)>,
    ) -> Result<bool, PreviewError> {
        let record = &preview.record;
        let pull_request = record.pull_request();
        let next = match acting_on
            .map(|(pull_request, _)| pull_request)
            .or(pull_request.as_ref())
        {
            Some(pull_request) => self.store.next_delivery(pull_request).await?,
            None => NextDelivery::None,
        };
        let newer = match (&next, acting_on) {
            (NextDelivery::Process(delivery), Some((_, id))) => delivery.event.delivery != id,
            (NextDelivery::Process(_), None) => true,
            (NextDelivery::WaitUntil(_) | NextDelivery::None, acting_on) => acting_on.is_some(),
        };
        let now = self.store.preview(&record.slug).await?;
        Ok(newer || now.is_none_or(|now| Wish::of(&now) != Wish::of(preview)))
    }

    /// Acts on the deliveries of a pull request that has no preview: one that wants a preview gets one, all
    /// others have nothing to do.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) async fn act_without_preview(
        self: &Arc<Self>,
        pull_request: &PullRequest,
    ) -> Result<(), PreviewError> {
        while let NextDelivery::Process(delivery) = self.store.next_delivery(pull_request).await? {
            let event = &delivery.event;
            let wants_one = match event.action {
                PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => true,
                // It may have been reopened in the same second.
                PrAction::Closed => match self.head_wanted_by(&delivery).await {
                    Ok(head) => head.is_some(),
                    Err(error) => {
                        let outcome = outcome(&error, delivery.attempts);
                        self.store.finish_delivery(&event.delivery, outcome).await?;
                        continue;
                    }
                },
                _ => false,
            };
            if wants_one {
                // It arrived while its preview was being removed.
                let preview = self.claim(event).await?;
                self.wake(&preview.record.slug, Why::News);
                return Ok(());
            }
            let outcome = match event.action {
                PrAction::Closed => DeliveryOutcome::Done,
                _ => DeliveryOutcome::Ignored(None),
            };
            self.store.finish_delivery(&event.delivery, outcome).await?;
        }
        Ok(())
    }

    /// Records why a preview is not as wanted. One that is tried `again` stays as far as it is; else it is the end
    /// of this commit.
    async fn record_fault(
        self: &Arc<Self>,
        preview: &Preview,
        error: &PreviewError,
        again: bool,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let mut failure = Failure::from(error);
        if again && error.is_unclear() {
            failure.remedy = Some(
                "The host or the repository may be at fault: it is tried again some times by itself before that is decided."
                    .to_owned(),
            );
        }
        warn!(%slug, code = %failure.code, "{failure}");
        let mut facts = Vec::new();
        let aim = aim(preview);
        // Why the commit failed is not forgotten for what is in the way of its predecessor now.
        if aim != Aim::Rest {
            facts.push(PreviewFact::Fault(Some(failure.clone())));
        }
        if !again && aim == Aim::BringUp {
            facts.push(PreviewFact::State(PreviewState::Failed));
        }
        let now = match self.store.set_preview(slug, facts).await {
            Err(error) if error.code() == Code::PreviewNotFound => return Ok(()),
            now => now?,
        };
        self.note(slug, format!("{failure}"));
        self.report_soon(slug);
        if now.record.live_sha.is_none()
            && now.desired == Presence::Present
            && let Err(error) = self.ensure_page(&now, now.record.state).await
        {
            // It may be what failed in the first place, and must not keep that from being recorded.
            warn!(%slug, code = %error.code(), "{}", chain(&error));
        }
        Ok(())
    }
}

/// What is wanted of a preview: when it changes, work for it is in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    desired: Presence,
    sha: CommitSha,
    approved: Option<CommitSha>,
}

impl Wish {
    fn of(preview: &Preview) -> Self {
        Self {
            desired: preview.desired,
            sha: preview.record.wanted_sha.clone(),
            approved: preview.record.approved_sha.clone(),
        }
    }
}

/// Does work until it ends or a command arrives. The command is polled first: work that always has more to do, such as
/// reading a builder's output, uses up the task's budget (`tokio::task::coop`), and a command polled after it would never
/// be seen.
async fn unless<T>(command: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = command => None,
        done = work => Some(done),
    }
}

/// Whether there is no fault, or one that does not pass by a look at which all is well.
fn is_lasting(aim: Aim, preview: &Preview) -> bool {
    let fault = preview.record.fault.as_ref();
    fault.is_none_or(|fault| {
        aim == Aim::Rest || aim == Aim::AwaitApproval && fault.code == Code::ApprovalNeeded
    })
}

fn outcome(error: &PreviewError, attempts: u32) -> DeliveryOutcome {
    let failure = Failure::from(error);
    if error.may_pass(attempts) {
        DeliveryOutcome::Retry {
            failure,
            after: pause(error, attempts + 1),
        }
    } else {
        DeliveryOutcome::Failed(failure)
    }
}

/// How long to wait before the next attempt.
fn pause(error: &PreviewError, attempts: u32) -> Duration {
    let asked = error.retry_at().map(|time| {
        let wait = time.duration_since(Timestamp::now());
        Duration::try_from(wait).unwrap_or_default()
    });
    retry_after(attempts).max(asked.unwrap_or_default())
}

/// How long a preview is not looked after that could not be brought back so many times: at first a quarter of a
/// minute, as what it needs may come up with the host after it, or `interval` if that is less; then twice as long each
/// time, at most an hour.
fn look_again_after(interval: Duration, attempts: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(15);
    const LONGEST: Duration = Duration::from_secs(3600);
    let doublings = attempts.saturating_sub(1).min(20);
    interval
        .min(FIRST)
        .saturating_mul(1 << doublings)
        .min(LONGEST)
}

fn instant(time: Timestamp) -> Instant {
    let wait = time.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_never_comes_up_is_tried_less_and_less_often() {
        let seconds = |attempts| look_again_after(Duration::from_secs(300), attempts).as_secs();
        let pauses: Vec<_> = (1..11).map(seconds).collect();
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(seconds(u32::MAX), 3600);
        let often = Duration::from_secs(1);
        assert_eq!(look_again_after(often, 2), 2 * often);
    }

    #[tokio::test]
    async fn a_command_is_seen_while_work_uses_up_every_turn() {
        let (order, mut orders) = watch::channel(0);
        let command = async move { orders.changed().await.expect("an order") };
        let work = async {
            // Each turn ends with the budget used up, as with a pipe that is never empty.
            for turn in 0..1000 {
                tokio::task::yield_now().await;
                while tokio::task::coop::has_budget_remaining() {
                    tokio::task::coop::consume_budget().await;
                }
                if turn == 10 {
                    order.send(1).expect("somebody listens");
                }
            }
        };
        assert_eq!(unless(command, work).await, None);
    }
}
