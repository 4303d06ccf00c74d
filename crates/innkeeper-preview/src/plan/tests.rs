use innkeeper_model::Failure;
use innkeeper_model::preview::RepoName;
use proptest::prelude::*;

use super::*;
use crate::fixture::{closure, meta, preview, sha, with_live};
use crate::workers::{WakeReason, Workers};

fn any_sha() -> impl Strategy<Value = CommitSha> {
    prop_oneof![Just(sha('a')), Just(sha('b'))]
}

fn any_state() -> impl Strategy<Value = PreviewState> {
    prop::sample::select(PreviewState::ALL.to_vec())
}

/// Any record: of a fork or not, approved or not, with and without a live version.
fn any_preview() -> impl Strategy<Value = Preview> {
    (
        any::<bool>(),
        any::<bool>(),
        any_sha(),
        prop::option::of(any_sha()),
        prop::option::of(any_sha()),
        any_state(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(is_present, is_fork, wanted, live, approved, state, dirty, has_fault)| {
                let mut preview = preview();
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

/// Any record whose wanted commit is to be brought up.
fn any_queued() -> impl Strategy<Value = Preview> {
    any_preview().prop_map(|mut queued| {
        queued.desired = Presence::Present;
        queued.record.head_repo = preview().record.head_repo;
        queued.record.state = PreviewState::Queued;
        queued
    })
}

fn any_executed() -> impl Strategy<Value = Executed> {
    prop_oneof![
        Just(Executed::Done),
        Just(Executed::Failed),
        (0..3600u64).prop_map(|seconds| Executed::Retry {
            after: Duration::from_secs(seconds)
        }),
    ]
}

fn wanted() -> Version {
    Version {
        sha: sha('a'),
        closure: closure(),
        meta: meta(),
    }
}

/// All steps of a plan when every observation is as given and no step fails.
fn all_steps(preview: &Preview, app: App) -> Vec<Step> {
    let plan = Plan::of(preview);
    follow(
        plan,
        preview,
        app,
        steps(plan, preview, Seen::Unknown).into(),
    )
}

/// The steps of a plan, with those that follow from its observations.
fn follow(plan: Plan, preview: &Preview, app: App, mut left: VecDeque<Step>) -> Vec<Step> {
    let mut all = Vec::new();
    while let Some(step) = left.pop_front() {
        match step {
            Step::Evaluate => left.extend(steps(plan, preview, Seen::Version(wanted()))),
            Step::Inspect => left.extend(steps(plan, preview, Seen::App(app))),
            _ => {}
        }
        all.push(step);
    }
    all
}

/// The steps after a failure at a position.
fn after_failure_at(preview: &Preview, all: &[Step], at: usize) -> Vec<Step> {
    let left = all[at + 1..].iter().cloned().collect();
    let plan = Plan::of(preview);
    follow(
        plan,
        preview,
        App::Down,
        after_failure(preview, &all[at], left),
    )
}

fn position(steps: &[Step], is: impl Fn(&Step) -> bool) -> Option<usize> {
    steps.iter().position(is)
}

fn serves(steps: &[Step], cause: Cause) -> bool {
    steps
        .iter()
        .any(|step| matches!(step, Step::Serve(_, target) if target.cause == cause))
}

fn names(steps: &[Step]) -> String {
    let names: Vec<_> = steps.iter().filter_map(Step::crash_point).collect();
    names.join(" → ")
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        time: Timestamp::UNIX_EPOCH,
    }
}

/// A wakeup after these reasons.
fn wakeup(reasons: &[WakeReason]) -> Wakeup {
    let (workers, mut to_start) = Workers::new();
    let slug = preview().record.slug;
    for reason in reasons {
        workers.wake(&slug, *reason);
    }
    let wakeup = to_start.try_recv().map(|worker| *worker.wakeups.borrow());
    wakeup.unwrap_or_default()
}

fn idle() -> Wakeup {
    wakeup(&[])
}

fn schedule_idle(preview: &Preview, memory: &Memory, now: Now) -> Next {
    schedule(Some(preview), NextDelivery::None, idle(), memory, now)
}

#[test]
fn steps_of_each_plan_in_words() {
    let queued = preview();
    let shown = names(&all_steps(&queued, App::Down));
    assert_eq!(
        shown,
        "evaluate → ensure-database → ensure-guest → write-guest-files → await-services → set-up → start-app → await-answers → record-version → ensure-route → record-live"
    );

    let mut live = with_live(preview(), sha('a'));
    live.record.state = PreviewState::Live;
    assert_eq!(names(&all_steps(&live, App::Running)), "");
    let shown = names(&all_steps(&live, App::Down));
    assert_eq!(
        shown,
        "ensure-database → ensure-guest → write-guest-files → await-services → set-up → start-app → await-answers → ensure-route"
    );

    let mut expired = preview();
    expired.record.state = PreviewState::Expired;
    assert_eq!(
        names(&all_steps(&expired, App::Down)),
        "ensure-page → stop-guest"
    );

    let mut absent = preview();
    absent.desired = Presence::Absent;
    assert_eq!(
        names(&all_steps(&absent, App::Down)),
        "record-gone → remove-route → remove-guest → remove-database → report-removal → forget"
    );
}

#[test]
fn retry_follows_its_delay_unless_something_else_is_desired() {
    let (preview, now) = (preview(), now());
    let mut memory = Memory::default();
    let after = Duration::from_secs(60);
    memory.schedule_after(
        &preview,
        Plan::BringUp,
        idle(),
        Executed::Retry { after },
        Duration::from_secs(300),
        now.instant,
    );
    let at = now.instant + after;
    assert_eq!(schedule_idle(&preview, &memory, now), Next::Sleep(Some(at)));
    let later = Now { instant: at, ..now };
    let execute = Next::Execute(Plan::BringUp);
    assert_eq!(schedule_idle(&preview, &memory, later), execute);
    let mut pushed = preview.clone();
    pushed.record.wanted_sha = sha('b');
    assert_eq!(schedule_idle(&pushed, &memory, now), execute);
    let command = wakeup(&[WakeReason::Command]);
    let commanded = schedule(Some(&preview), NextDelivery::None, command, &memory, now);
    assert_eq!(commanded, execute);
}

#[test]
fn settled_preview_is_checked_once_for_each_check() {
    let mut live = with_live(preview(), sha('a'));
    live.record.state = PreviewState::Live;
    let mut memory = Memory::default();
    let now = now();
    assert_eq!(schedule_idle(&live, &memory, now), Next::Sleep(None));
    let check = wakeup(&[WakeReason::Check]);
    // A delivery that waits for its retry does not hold the check up.
    let due = NextDelivery::WaitUntil(now.time + Duration::from_secs(5));
    let next = schedule(Some(&live), due.clone(), check, &memory, now);
    assert_eq!(next, Next::Execute(Plan::Maintain));
    memory.schedule_after(
        &live,
        Plan::Maintain,
        check,
        Executed::Done,
        Duration::from_secs(300),
        now.instant,
    );
    let next = schedule(Some(&live), due, check, &memory, now);
    let at = now.instant + Duration::from_secs(5);
    assert_eq!(next, Next::Sleep(Some(at)));
}

#[test]
fn failed_check_is_repeated_with_growing_delays() {
    let mut live = with_live(preview(), sha('a'));
    live.record.state = PreviewState::Live;
    let check = wakeup(&[WakeReason::Check]);
    let mut memory = Memory::default();
    let mut now = now();
    let mut delays = Vec::new();
    for _ in 0..4 {
        memory.end_execution(&live, check);
        let interval = Duration::from_secs(300);
        let plan = Plan::Maintain;
        memory.schedule_after(&live, plan, check, Executed::Failed, interval, now.instant);
        let next = schedule(Some(&live), NextDelivery::None, check, &memory, now);
        let Next::Sleep(Some(until)) = next else {
            panic!("{next:?}");
        };
        delays.push((until - now.instant).as_secs());
        now.instant = until;
    }
    assert_eq!(delays, [15, 30, 60, 120]);
}

#[test]
fn command_starts_the_count_of_failures_over() {
    let preview = preview();
    let mut memory = Memory::default();
    let retry = Executed::Retry {
        after: Duration::from_secs(5),
    };
    let fail = |memory: &mut Memory, wakeup| {
        let attempts = memory.end_execution(&preview, wakeup);
        let interval = Duration::from_secs(300);
        memory.schedule_after(
            &preview,
            Plan::BringUp,
            wakeup,
            retry,
            interval,
            Instant::now(),
        );
        attempts
    };
    let idle = idle();
    let counts: Vec<_> = (0..3).map(|_| fail(&mut memory, idle)).collect();
    assert_eq!(counts, [0, 1, 2]);
    assert_eq!(fail(&mut memory, wakeup(&[WakeReason::Command])), 0);
}

#[test]
fn approval_fault_outlasts_checks_and_others_do_not() {
    let mut waiting = preview();
    waiting.record.fault = Some(Failure::new(Code::ApprovalNeeded, "refused"));
    assert!(!Plan::AwaitApproval.clears_fault(&waiting));
    assert!(Plan::Maintain.clears_fault(&waiting));
    waiting.record.fault = Some(Failure::new(Code::AppUnhealthy, "down"));
    assert!(Plan::AwaitApproval.clears_fault(&waiting));
    assert!(!Plan::MaintainPrevious.clears_fault(&waiting));
}

proptest! {
    #[test]
    fn unapproved_commit_of_a_fork_is_never_evaluated(preview in any_preview()) {
        let record = &preview.record;
        prop_assume!(record.is_from_fork() && record.approved_sha.as_ref() != Some(&record.wanted_sha));
        let steps = all_steps(&preview, App::Down);
        prop_assert!(!steps.contains(&Step::Evaluate));
        prop_assert!(!serves(&steps, Cause::Wanted));
    }

    #[test]
    fn absent_preview_is_removed_and_no_other(preview in any_preview()) {
        let is_absent = preview.desired == Presence::Absent;
        prop_assert_eq!(Plan::of(&preview) == Plan::Remove, is_absent);
        let steps = all_steps(&preview, App::Down);
        for removal in [Step::RemoveRoute, Step::RemoveGuest, Step::RemoveDatabase, Step::Forget] {
            prop_assert_eq!(steps.contains(&removal), is_absent);
        }
    }

    #[test]
    fn record_is_deleted_last_and_only_after_every_removal(mut preview in any_preview(), at in any::<prop::sample::Index>()) {
        preview.desired = Presence::Absent;
        let all = all_steps(&preview, App::Down);
        prop_assert_eq!(all.last(), Some(&Step::Forget));
        let at = at.index(all.len());
        let left = after_failure_at(&preview, &all, at);
        prop_assert!(!left.contains(&Step::Forget));
        prop_assert!(!left.contains(&Step::ReportRemoval));
        // A guest whose route is left keeps its slot.
        if all[at] == Step::RemoveRoute {
            prop_assert!(!left.contains(&Step::RemoveGuest));
            prop_assert!(left.contains(&Step::StopGuest));
        }
        if matches!(all[at], Step::RemoveRoute | Step::RemoveGuest) {
            prop_assert!(left.contains(&Step::RemoveDatabase));
        }
    }

    #[test]
    fn commit_is_live_only_after_its_app_answered(preview in any_preview()) {
        let steps = all_steps(&preview, App::Down);
        if let Some(live) = position(&steps, |step| matches!(step, Step::RecordLive(_))) {
            let answers = position(&steps, |step| matches!(step, Step::Serve(Serve::AwaitAnswers, _)));
            let recorded = position(&steps, |step| matches!(step, Step::RecordVersion(_)));
            let routed = position(&steps, |step| matches!(step, Step::EnsureRoute(_)));
            prop_assert!(answers < recorded && recorded < routed && routed < Some(live));
        }
    }

    #[test]
    fn guest_with_a_live_version_is_marked_dirty_first(queued in any_queued()) {
        let preview = with_live(queued, sha('b'));
        let steps = all_steps(&preview, App::Down);
        let marked = position(&steps, |step| matches!(step, Step::Serve(Serve::MarkDirty, _)));
        let changed = position(&steps, |step| matches!(step, Step::Serve(Serve::EnsureGuest, _)));
        prop_assert!(marked.is_some() && marked < changed);
    }

    #[test]
    fn services_start_only_with_their_files(preview in any_preview()) {
        let steps = all_steps(&preview, App::Down);
        if let Some(started) = position(&steps, |step| matches!(step, Step::Serve(Serve::SetUp | Serve::StartApp, _))) {
            let written = position(&steps, |step| matches!(step, Step::Serve(Serve::WriteFiles, _)));
            prop_assert!(written < Some(started) && written.is_some());
        }
    }

    #[test]
    fn last_good_version_returns_after_a_failure(preview in any_queued(), at in any::<prop::sample::Index>()) {
        prop_assert_eq!(Plan::of(&preview), Plan::BringUp);
        let all = all_steps(&preview, App::Down);
        let at = at.index(all.len());
        let left = after_failure_at(&preview, &all, at);
        let has_live = Version::live(&preview).is_some();
        match &all[at] {
            Step::Evaluate | Step::Serve(..) => prop_assert_eq!(!left.is_empty(), has_live),
            _ => prop_assert!(left.is_empty()),
        }
        prop_assert!(!serves(&left, Cause::Wanted));
        // A rollback that fails is not rolled back again.
        for at in 0..left.len() {
            prop_assert!(after_failure_at(&preview, &left, at).is_empty());
        }
    }

    #[test]
    fn delivery_comes_before_the_plan(preview in any_preview()) {
        let delivery = Box::new(Delivery {
            seq: 1,
            event: crate::fixture::delivery("d", innkeeper_model::preview::PrAction::Opened, sha('b')).event,
            received_at: Timestamp::UNIX_EPOCH,
            state: innkeeper_model::preview::api::DeliveryState::Pending,
            attempts: 0,
            not_before: None,
            failure: None,
            finished_at: None,
        });
        let next = NextDelivery::Process(delivery.clone());
        prop_assert_eq!(schedule(Some(&preview), next, idle(), &Memory::default(), now()), Next::Act(delivery));
    }

    #[test]
    fn sleep_ends_in_time_for_the_next_action(preview in any_preview(), executed in any_executed(), wait in prop::option::of(1..3600i64)) {
        let (plan, now) = (Plan::of(&preview), now());
        let mut memory = Memory::default();
        memory.schedule_after(&preview, plan, idle(), executed, Duration::from_secs(300), now.instant);
        let delivery = match wait {
            Some(seconds) => NextDelivery::WaitUntil(now.time + jiff::SignedDuration::from_secs(seconds)),
            None => NextDelivery::None,
        };
        match schedule(Some(&preview), delivery, idle(), &memory, now) {
            Next::Sleep(None) => prop_assert!(plan.is_settled() && wait.is_none()),
            Next::Sleep(Some(until)) => prop_assert!(until > now.instant),
            Next::Execute(executed) => prop_assert!(executed == plan && !plan.is_settled()),
            next => prop_assert!(false, "{next:?}"),
        }
    }

    #[test]
    fn command_is_never_delayed(preview in any_preview(), executed in any_executed()) {
        let (plan, now) = (Plan::of(&preview), now());
        let mut memory = Memory::default();
        memory.schedule_after(&preview, plan, idle(), executed, Duration::from_secs(300), now.instant);
        let command = wakeup(&[WakeReason::Command]);
        let due = NextDelivery::WaitUntil(now.time + Duration::from_secs(60));
        prop_assert_eq!(schedule(Some(&preview), due, command, &memory, now), Next::Execute(plan));
    }
}
