use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::StreamExt as _;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::log::{LogFilter, LogLine};
use innkeeper_model::preview::sources::{Place, SourcePath};
use innkeeper_model::preview::{
    CommitSha, ConfigProblem, DeliveryEvent, PrAction, PullDetails, RepoName,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::*;
use crate::fixture::{Harness, live_facts, sha, slug};
use crate::workers::WakeReason;

/// Scripted result of an execution.
enum Script {
    /// Reaches the plan's end in the record.
    Succeed,
    /// Fails with this code.
    Fail(Code),
    /// Fails with this failure.
    FailWith(Failure),
    /// Fails with this code in the moment of a command.
    FailAtCommand(Code),
    /// Runs until it is canceled.
    Hang,
}

/// Executes plans as scripted, and otherwise succeeds.
struct FakeExecutor {
    store: Store,
    workers: Workers,
    script: Mutex<VecDeque<Script>>,
    calls: mpsc::UnboundedSender<(Plan, CommitSha)>,
}

impl Execute for FakeExecutor {
    async fn execute(&self, preview: &Preview, plan: Plan) -> Result<(), PreviewError> {
        let sha = preview.record.wanted_sha.clone();
        self.calls.send((plan, sha.clone())).expect("a receiver");
        let script = self.script.lock().pop_front();
        match script.unwrap_or(Script::Succeed) {
            Script::Succeed => {}
            Script::Fail(code) => return Err(PreviewError::new(code, "it failed", "Wait.")),
            Script::FailWith(failure) => return Err(failure.into()),
            Script::FailAtCommand(code) => {
                self.workers.wake(&slug(), WakeReason::Command);
                return Err(PreviewError::new(code, "it failed", "Wait."));
            }
            Script::Hang => std::future::pending().await,
        }
        match plan {
            Plan::Remove => self.store.delete_preview(&slug()).await?,
            Plan::BringUp => drop(self.store.set_preview(&slug(), live_facts(sha)).await?),
            Plan::RequestApproval => {
                let facts = vec![PreviewFact::State(PreviewState::WaitingForApproval)];
                self.store.set_preview(&slug(), facts).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A running worker, with the calls of its executor.
struct Running {
    harness: Harness,
    workers: Workers,
    calls: mpsc::UnboundedReceiver<(Plan, CommitSha)>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Starts the worker with its first wakeup.
    fn start(
        harness: Harness,
        script: impl IntoIterator<Item = Script>,
    ) -> Pin<Box<impl Future<Output = Self>>> {
        // The harness is large for a future on the stack.
        Box::pin(Self::started(harness, script.into_iter().collect()))
    }

    async fn started(mut harness: Harness, script: VecDeque<Script>) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let executor = FakeExecutor {
            store: harness.store.clone(),
            workers: harness.parts.parts.workers.clone(),
            script: Mutex::new(script),
            calls: sender,
        };
        let parts = harness.parts.parts.clone();
        let workers = parts.workers.clone();
        let parts = WorkerParts {
            interval: parts.interval,
            store: parts.store,
            journal: parts.journal,
            masks: parts.masks,
            reporter: parts.reporter,
            routing: parts.routing,
            health: parts.health,
            deliveries: parts.deliveries,
            workers: parts.workers,
            executor: Arc::new(executor),
        };
        workers.wake(&slug(), WakeReason::Change);
        let new = harness.parts.workers.recv().await.expect("a worker");
        let task = tokio::spawn(Worker::new(new, parts).run());
        Self {
            harness,
            workers,
            calls,
            task,
        }
    }

    fn health(&self) -> &Health {
        &self.harness.parts.parts.health
    }

    fn wake(&self, reason: WakeReason) {
        self.workers.wake(&slug(), reason);
    }

    async fn call(&mut self) -> (Plan, CommitSha) {
        let call = tokio::time::timeout(Duration::from_secs(20), self.calls.recv());
        call.await.expect("in time").expect("a call")
    }

    /// Waits until a condition of the record holds.
    async fn record_when(&self, is: impl Fn(&Preview) -> bool) -> Preview {
        for _ in 0..2000 {
            if let Some(preview) = self.harness.preview().await
                && is(&preview)
            {
                return preview;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the record is {:?}", self.harness.preview().await);
    }

    /// Waits until a delivery has a state.
    async fn delivery_is(&self, id: &str, state: DeliveryState) {
        for _ in 0..2000 {
            let delivery = self.harness.store.delivery(id).await.expect("read");
            if delivery.is_some_and(|delivery| delivery.state == state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("delivery {id} is not {state}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn worker_acts_on_deliveries_once_and_in_order() {
    let harness = Harness::new().await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, []).await;
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));
    running.delivery_is("first", DeliveryState::Done).await;

    let harness = &running.harness;
    harness
        .deliver("second", PrAction::Synchronize, sha('b'))
        .await;
    running.wake(WakeReason::Change);
    assert_eq!(running.call().await, (Plan::BringUp, sha('b')));
    running.delivery_is("second", DeliveryState::Done).await;
    // The next call is the check: no delivery is repeated.
    running.wake(WakeReason::Check);
    assert_eq!(running.call().await, (Plan::Maintain, sha('b')));
    assert_eq!(
        running.harness.record().await.last_delivery.as_deref(),
        Some("second")
    );
}

#[tokio::test]
async fn newer_delivery_cancels_the_execution() {
    let harness = Harness::new().await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, [Script::Hang]).await;
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));
    let harness = &running.harness;
    harness
        .deliver("second", PrAction::Synchronize, sha('b'))
        .await;
    running.wake(WakeReason::Change);
    assert_eq!(running.call().await, (Plan::BringUp, sha('b')));
    running
        .delivery_is("first", DeliveryState::Superseded)
        .await;
    running.delivery_is("second", DeliveryState::Done).await;
}

#[tokio::test]
async fn command_cancels_and_a_wakeup_without_news_does_not() {
    let harness = Harness::new().await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, [Script::Hang]).await;
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));
    running.wake(WakeReason::Change);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.calls.try_recv().is_err());
    // The command cancels: the delivery is still pending, and is acted on again.
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));
    running.delivery_is("first", DeliveryState::Done).await;
    // The command itself is due as well.
    assert_eq!(running.call().await.0, Plan::Maintain);
}

#[tokio::test]
async fn command_that_removes_cancels_the_delivery() {
    let harness = Harness::new().await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, [Script::Hang]).await;
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));
    let destroyed = running.harness.previews.destroy(&slug(), "test").await;
    destroyed.expect("accepted");
    assert_eq!(running.call().await.0, Plan::Remove);
    running
        .delivery_is("first", DeliveryState::Superseded)
        .await;
    assert!(running.harness.preview().await.is_none());
}

#[tokio::test]
async fn transient_failure_waits_for_its_retry() {
    let harness = Harness::new().await;
    harness.claim().await;
    let mut running = Running::start(harness, [Script::Fail(Code::GithubFailed)]).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    let failed = running.record_when(|p| p.record.fault.is_some()).await;
    assert_eq!(failed.record.state, PreviewState::Queued);
    running.wake(WakeReason::Check);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.calls.try_recv().is_err());
    // A command does not wait.
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await.0, Plan::BringUp);
    running
        .record_when(|p| p.record.state == PreviewState::Live)
        .await;
}

#[tokio::test]
async fn permanent_failure_ends_the_commit() {
    let harness = Harness::new().await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, [Script::Fail(Code::AppUnhealthy)]).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    running.delivery_is("first", DeliveryState::Failed).await;
    running.wake(WakeReason::Check);
    assert_eq!(running.call().await.0, Plan::MaintainPrevious);
    let record = running.harness.record().await;
    assert_eq!(record.state, PreviewState::Failed);
    assert_eq!(
        record.fault.map(|fault| fault.code),
        Some(Code::AppUnhealthy)
    );
}

#[tokio::test]
async fn pull_request_without_a_configuration_leaves_an_ignored_delivery() {
    let harness = Harness::with(|config| config.style.checks = true).await;
    harness.deliver("first", PrAction::Opened, sha('a')).await;
    let script = [Script::Fail(Code::ConfigMissing)];
    let mut running = Running::start(harness, script).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    (&mut running.task).await.expect("the worker ends");
    running.delivery_is("first", DeliveryState::Ignored).await;
    assert!(running.harness.preview().await.is_none());
    assert_eq!(running.harness.comments(), Vec::<String>::new());
    // Only the check ends, which may be required.
    let [[name, state, text]] = running
        .harness
        .wait_for_statuses(1)
        .await
        .try_into()
        .expect("one");
    assert_eq!((&*name, &*state), ("innkeeper/preview", "success"));
    assert_eq!(text, "aaaaaaa has no preview-config.nix: nothing to do");
}

#[tokio::test]
async fn problems_of_a_configuration_are_the_same_everywhere() {
    let problem = |place: Option<(&str, usize, usize)>, field: &str, message: &str| ConfigProblem {
        place: place.map(|(file, line, column)| Place {
            file: SourcePath::parse(file).expect("a path"),
            line,
            column,
        }),
        field: Some(field.to_owned()),
        message: message.to_owned(),
        remedy: None,
    };
    let problems = [
        problem(
            Some(("preview-config.nix", 3, 5)),
            "/routes/0/port",
            "0 is not a port",
        ),
        problem(None, "/setupService", "this required field is missing"),
        problem(
            Some(("nix/app.nix", 12, 9)),
            "/database",
            "'both' is unknown",
        ),
    ];
    let lines = problems.each_ref().map(ConfigProblem::log_line);
    let traces = (0..60).map(|n| format!("trace: {n}"));
    let failure = Failure {
        log: lines.iter().cloned().chain(traces).collect(),
        ..Failure::new(Code::PreviewConfigInvalid, "3 problems")
    };
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    let public = PullDetails {
        private: Some(false),
        ..PullDetails::default()
    };
    harness.set(vec![PreviewFact::Details(public)]).await;
    let mut running = Running::start(harness, [Script::FailWith(failure)]).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    running
        .record_when(|p| p.record.state == PreviewState::Failed)
        .await;

    let harness = &running.harness;
    let reporter = &harness.parts.parts.reporter;
    reporter.report_again(&slug()).await.expect("accepted");
    let comment = harness.comments().concat();
    let explained = harness.previews.explain(&slug()).await.expect("explained");
    let explained = explained.cause.expect("a cause").log;
    let failed = harness.preview().await.expect("exists");
    let shown = harness.parts.parts.routing.show_page(&failed).await;
    shown.expect("written");
    let page = harness.host.world().pages[&slug()].details.clone();
    let page = page.and_then(|details| details.failure);
    let page = page.expect("the failure").lines;
    let (web, all) = (slug(), LogFilter::default());
    let log = harness.previews.logs(&web, 100, false, all).await;
    let log: Vec<LogLine> = log.expect("a log").collect().await;
    for (number, line) in (1..).zip(&lines) {
        let numbered = format!("{number:>3} | {line}");
        assert!(comment.contains(&format!("\n{numbered}\n")), "{comment}");
        assert!(explained.contains(&numbered), "{explained:?}");
        assert!(page.contains(line), "{page:?}");
        assert!(log.iter().any(|one| one.text == *line), "{log:?}");
    }
    assert_eq!((explained.len(), page.len()), (3, 3));
}

#[tokio::test]
async fn interrupted_ignoring_is_finished_without_the_delivery() {
    let harness = Harness::new().await;
    harness.claim_unseen().await;
    let script = [Script::Fail(Code::ConfigMissing)];
    let mut running = Running::start(harness, script).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    (&mut running.task).await.expect("the worker ends");
    assert!(running.harness.preview().await.is_none());
}

#[tokio::test]
async fn missing_access_is_retried_and_never_published() {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    let mut running = Running::start(harness, [Script::Fail(Code::NoAccess)]).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    let failed = running.record_when(|p| p.record.fault.is_some()).await;
    assert_eq!(failed.record.state, PreviewState::Queued);
    let reporter = &running.harness.parts.parts.reporter;
    reporter.report_again(&slug()).await.expect("nothing");
    assert!(running.harness.comments().is_empty());
    assert!(!running.harness.host.world().routes.contains_key(&slug()));
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await.0, Plan::BringUp);
}

#[tokio::test]
async fn failure_at_the_moment_of_a_command_is_not_recorded() {
    let harness = Harness::new().await;
    harness.claim().await;
    let script = [Script::FailAtCommand(Code::AppUnhealthy)];
    let mut running = Running::start(harness, script).await;
    assert_eq!(running.call().await.0, Plan::BringUp);
    assert_eq!(running.call().await.0, Plan::BringUp);
}

#[tokio::test]
async fn successful_check_clears_an_outdated_fault() {
    let harness = Harness::new().await;
    harness.claim().await;
    harness.set_live(sha('a')).await;
    let script = [Script::Fail(Code::AppUnhealthy)];
    let mut running = Running::start(harness, script).await;
    running.wake(WakeReason::Check);
    assert_eq!(running.call().await.0, Plan::Maintain);
    let broken = running.record_when(|p| p.record.fault.is_some()).await;
    assert_eq!(broken.record.state, PreviewState::Live);
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await.0, Plan::Maintain);
    running.record_when(|p| p.record.fault.is_none()).await;
}

#[tokio::test]
async fn crash_loop_of_a_live_app_is_a_failure_with_a_page() {
    let harness = Harness::new().await;
    harness.claim().await;
    harness.set_live(sha('a')).await;
    let script = [Script::Fail(Code::AppUnhealthy)];
    let mut running = Running::start(harness, script).await;
    for _ in 0..5 {
        running.health().serve(&slug(), Vec::new());
        let now = Instant::now();
        running.health().ended(&slug(), "it ended".to_owned(), now);
    }
    running.wake(WakeReason::Check);
    assert_eq!(running.call().await.0, Plan::Maintain);
    let failed = running
        .record_when(|p| p.record.state == PreviewState::Failed)
        .await;
    assert_eq!(failed.record.live_sha, Some(sha('a')));
    assert_eq!(failed.record.fault.expect("a fault").message, "it failed");
    let host = running.harness.host.clone();
    while !host.world().routes.contains_key(&slug()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = host.world().routes[&slug()].state.clone();
    assert!(
        matches!(state, innkeeper_facilities::RouteState::Placeholder),
        "{state:?}"
    );
    // It is tried again, and its failure is not recorded as another one.
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await.0, Plan::MaintainPrevious);
}

#[tokio::test]
async fn removal_is_retried_after_a_permanent_failure() {
    let harness = Harness::new().await;
    harness.claim().await;
    harness
        .set(vec![PreviewFact::Desired(Presence::Absent)])
        .await;
    let mut running = Running::start(harness, [Script::Fail(Code::InvalidRequest)]).await;
    assert_eq!(running.call().await.0, Plan::Remove);
    running.record_when(|p| p.record.fault.is_some()).await;
    // It waits for its retry, and a command does not.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.calls.try_recv().is_err());
    running.wake(WakeReason::Command);
    assert_eq!(running.call().await.0, Plan::Remove);
    (&mut running.task).await.expect("the worker ends");
    assert!(running.harness.preview().await.is_none());
}

#[tokio::test]
async fn delivery_during_the_removal_creates_a_new_preview() {
    let harness = Harness::new().await;
    harness.claim().await;
    harness
        .set(vec![PreviewFact::Desired(Presence::Absent)])
        .await;
    let mut running = Running::start(harness, [Script::Hang]).await;
    assert_eq!(running.call().await.0, Plan::Remove);
    // The preview goes, and only then the worker looks at the delivery.
    let store = running.harness.store.clone();
    store.delete_preview(&slug()).await.expect("deleted");
    let mut new = crate::fixture::delivery("late", PrAction::Reopened, sha('b'));
    new.slugs.clear();
    store.record_delivery(new).await.expect("recorded");
    running.wake(WakeReason::Change);
    (&mut running.task).await.expect("the worker ends");
    let record = running.harness.record().await;
    assert_eq!(record.wanted_sha, sha('b'));
    assert!(running.harness.was_woken());
}

#[tokio::test]
async fn unapproved_fork_waits_and_runs_after_its_approval() {
    let harness = Harness::new().await;
    let mut new = crate::fixture::delivery("first", PrAction::Opened, sha('a'));
    if let DeliveryEvent::PullRequest(event) = &mut new.event {
        event.head_repo = RepoName::parse("fork/web").ok();
        event.is_fork = true;
    }
    harness.store.record_delivery(new).await.expect("recorded");
    let mut running = Running::start(harness, []).await;
    assert_eq!(running.call().await.0, Plan::RequestApproval);
    running.delivery_is("first", DeliveryState::Done).await;
    let request = innkeeper_model::preview::api::ApprovePreview { sha: sha('a') };
    let slug = slug();
    let approved = running.harness.previews.approve(&slug, request, "test");
    approved.await.expect("accepted");
    assert_eq!(running.call().await.0, Plan::BringUp);
}

#[tokio::test]
async fn cancellation_is_seen_by_work_that_is_always_ready() {
    let (order, mut orders) = watch::channel(0);
    let canceled = async move { orders.changed().await.expect("an order") };
    let work = async {
        // Each turn ends with the budget used up, as with a pipe that is never empty.
        for turn in 0..1000 {
            tokio::task::yield_now().await;
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            if turn == 10 {
                order.send(1).expect("a receiver");
            }
        }
    };
    assert_eq!(unless(canceled, work).await, None);
}

#[tokio::test]
async fn command_interrupts_the_work_only_with_permission() {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.permit("alice", "write");
    harness.permit("bob", "read");
    harness.deliver("opened", PrAction::Opened, sha('a')).await;
    let mut running = Running::start(harness, [Script::Hang]).await;
    assert_eq!(running.call().await, (Plan::BringUp, sha('a')));

    let harness = &running.harness;
    harness.comment("theirs", "bob", "/preview stop").await;
    running.wake(WakeReason::Change);
    running.delivery_is("theirs", DeliveryState::Ignored).await;
    assert!(running.calls.try_recv().is_err(), "the work goes on");
    running.delivery_is("opened", DeliveryState::Pending).await;

    let harness = &running.harness;
    harness.comment("ours", "alice", "/preview stop").await;
    running.wake(WakeReason::Change);
    assert_eq!(running.call().await, (Plan::KeepStopped, sha('a')));
    running.delivery_is("ours", DeliveryState::Done).await;
    running.delivery_is("opened", DeliveryState::Done).await;
    assert_eq!(running.harness.reactions(), ["+1"]);
    assert_eq!(running.harness.record().await.state, PreviewState::Stopped);
}
