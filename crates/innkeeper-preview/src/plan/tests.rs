use innkeeper_model::Failure;
use innkeeper_model::preview::PrAction;
use innkeeper_model::preview::api::DeliveryState;
use proptest::prelude::*;

use super::*;
use crate::fixture::{any_preview, delivery, preview, sha, with_live};
use crate::workers::{WakeReason, Workers};

fn any_executed() -> impl Strategy<Value = Executed> {
    prop_oneof![
        Just(Executed::Done),
        Just(Executed::Failed),
        (0..3600u64).prop_map(|seconds| Executed::Retry {
            after: Duration::from_secs(seconds)
        }),
    ]
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

/// Fails an execution for good four times, each at the time of its retry, and returns the delays.
fn delays_after_failures(preview: &Preview, plan: Plan) -> Vec<u64> {
    let check = wakeup(&[WakeReason::Check]);
    let mut memory = Memory::default();
    let mut now = now();
    let mut delays = Vec::new();
    for _ in 0..4 {
        memory.end_execution(preview, check);
        let interval = Duration::from_secs(300);
        memory.schedule_after(
            preview,
            plan,
            check,
            Executed::Failed,
            interval,
            now.instant,
        );
        let next = schedule(Some(preview), NextDelivery::None, check, &memory, now);
        let Next::Sleep(Some(until)) = next else {
            panic!("{next:?}");
        };
        delays.push((until - now.instant).as_secs());
        now.instant = until;
    }
    delays
}

#[test]
fn failed_check_is_repeated_with_growing_delays() {
    let mut live = with_live(preview(), sha('a'));
    live.record.state = PreviewState::Live;
    assert_eq!(
        delays_after_failures(&live, Plan::Maintain),
        [15, 30, 60, 120]
    );
}

#[test]
fn failed_request_for_approval_is_not_repeated_at_once() {
    let mut fork = preview();
    fork.record.head_repo = None;
    let plan = Plan::of(&fork);
    assert_eq!(plan, Plan::RequestApproval);
    assert_eq!(delays_after_failures(&fork, plan), [15, 30, 60, 120]);
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
    waiting.record.fault = Some(Failure::new(Code::ConfigMissing, "dropped"));
    assert!(!Plan::KeepStopped.clears_fault(&waiting));
    waiting.record.fault = Some(Failure::new(Code::AppUnhealthy, "down"));
    assert!(Plan::AwaitApproval.clears_fault(&waiting));
    assert!(!Plan::MaintainPrevious.clears_fault(&waiting));
}

proptest! {
    #[test]
    fn delivery_comes_before_the_plan(preview in any_preview()) {
        let delivery = Box::new(Delivery {
            seq: 1,
            event: delivery("d", PrAction::Opened, sha('b')).event,
            received_at: Timestamp::UNIX_EPOCH,
            state: DeliveryState::Pending,
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
