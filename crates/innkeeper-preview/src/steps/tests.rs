use innkeeper_store::Presence;
use proptest::prelude::*;

use super::*;
use crate::fixture::{any_preview, closure, meta, preview, sha, with_live};

/// Any record whose wanted commit is to be brought up.
fn any_queued() -> impl Strategy<Value = Preview> {
    any_preview().prop_map(|mut queued| {
        queued.desired = Presence::Present;
        queued.record.head_repo = preview().record.head_repo;
        queued.record.state = PreviewState::Queued;
        queued
    })
}

fn wanted() -> Version {
    Version {
        sha: sha('a'),
        closure: closure(),
        meta: meta(),
    }
}

/// All steps of a plan when every observation is as given, the commit has a configuration, and no step fails.
fn all_steps(preview: &Preview, app: App) -> Vec<Step> {
    let plan = Plan::of(preview);
    let first = steps(plan, preview, Seen::Unknown).into();
    follow(plan, preview, (true, app), first)
}

/// All steps of a plan whose commit has no configuration any more.
fn steps_without_config(preview: &Preview) -> Vec<Step> {
    let plan = Plan::of(preview);
    let first = steps(plan, preview, Seen::Unknown).into();
    follow(plan, preview, (false, App::Running), first)
}

/// The steps of a plan, with those that follow from its observations.
fn follow(
    plan: Plan,
    preview: &Preview,
    (has_config, app): (bool, App),
    mut left: VecDeque<Step>,
) -> Vec<Step> {
    let mut all = Vec::new();
    while let Some(step) = left.pop_front() {
        match step {
            Step::FindConfig => left.extend(steps(plan, preview, Seen::Config(has_config))),
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
        (true, App::Down),
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

fn any_app() -> impl Strategy<Value = App> {
    prop::sample::select(vec![
        App::StoppedByUser,
        App::Resting(Level::Paused),
        App::Resting(Level::Asleep),
        App::Running,
        App::Recovered,
        App::Starting,
        App::Ended,
        App::Down,
    ])
}

fn names(steps: &[Step]) -> String {
    let names: Vec<_> = steps.iter().filter_map(Step::crash_point).collect();
    names.join(" → ")
}

#[test]
fn steps_of_each_plan_in_words() {
    let queued = preview();
    let shown = names(&all_steps(&queued, App::Down));
    assert_eq!(
        shown,
        "find-config → evaluate → ensure-database → ensure-guest → write-guest-files → await-services → set-up → start-app → await-answers → record-version → ensure-route → record-live"
    );

    let dropped = with_live(preview(), sha('b'));
    assert_eq!(
        names(&steps_without_config(&dropped)),
        "find-config → record-dropped → ensure-page → stop-guest"
    );

    let mut live = with_live(preview(), sha('a'));
    live.record.state = PreviewState::Live;
    assert_eq!(names(&all_steps(&live, App::Running)), "");
    let shown = names(&all_steps(&live, App::Down));
    assert_eq!(
        shown,
        "hold-route → ensure-database → hold-route → ensure-guest → write-guest-files → await-services → set-up → hold-route → start-app → await-answers → ensure-route"
    );
    let shown = names(&all_steps(&live, App::Ended));
    assert_eq!(
        shown,
        "hold-route → start-app → await-answers → ensure-route"
    );
    let shown = names(&all_steps(&live, App::Starting));
    assert_eq!(shown, "hold-route → await-answers → ensure-route");
    let shown = names(&all_steps(&live, App::StoppedByUser));
    assert_eq!(shown, "ensure-page");
    assert_eq!(names(&all_steps(&live, App::Recovered)), "record-live");
    let shown = names(&all_steps(&live, App::Resting(Level::Asleep)));
    assert_eq!(shown, "ensure-page");
    let shown = names(&all_steps(&live, App::Resting(Level::Paused)));
    assert_eq!(shown, "");

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
    fn commit_without_a_configuration_is_neither_announced_nor_served(preview in any_preview()) {
        let steps = steps_without_config(&preview);
        let is_wanted = Plan::of(&preview) == Plan::BringUp || Plan::of(&preview) == Plan::RequestApproval;
        prop_assert_eq!(steps.contains(&Step::FindConfig), is_wanted);
        if is_wanted {
            prop_assert!(!steps.contains(&Step::Evaluate) && !serves(&steps, Cause::Wanted));
            prop_assert!(!steps.iter().any(|step| matches!(step, Step::Enter(_) | Step::RemoveDatabase | Step::RemoveGuest)));
            // Canceled work starts no guest after it was stopped.
            let recorded = position(&steps, |step| *step == Step::RecordDropped);
            let stopped = steps.iter().rposition(|step| *step == Step::StopGuest);
            prop_assert!(recorded.is_some() && recorded < stopped);
        }
    }

    #[test]
    fn nothing_is_announced_before_the_configuration_is_found(preview in any_preview()) {
        let steps = all_steps(&preview, App::Down);
        if let Some(found) = position(&steps, |step| *step == Step::FindConfig) {
            let published = position(&steps, |step| matches!(step, Step::Enter(_) | Step::ShowPage | Step::Report));
            prop_assert!(preview.config_seen || published.is_none_or(|published| found < published));
        }
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
    fn requests_wait_before_the_live_app_goes_down(preview in any_preview(), app in any_app()) {
        let steps = all_steps(&preview, app);
        let is_switched = serves(&steps, Cause::Wanted)
            && preview.live_closure.as_ref().is_some_and(|live| *live != wanted().closure);
        for (at, step) in steps.iter().enumerate() {
            let ends_app = match step {
                Step::Serve(Serve::StartApp, _) => true,
                Step::Serve(Serve::EnsureGuest, target) => is_switched || target.cause != Cause::Wanted,
                _ => false,
            };
            if ends_app && Version::live(&preview).is_some() {
                let held = steps[..at].iter().rposition(|step| matches!(step, Step::HoldRoute(_)));
                let routed = steps[..at].iter().rposition(|step| matches!(step, Step::EnsureRoute(_)));
                prop_assert!(held.is_some() && routed < held, "{:?}", steps);
            }
        }
    }

    #[test]
    fn guest_is_stopped_only_behind_a_page(mut preview in any_preview()) {
        preview.desired = Presence::Present;
        let steps = all_steps(&preview, App::Running);
        if let Some(stopped) = position(&steps, |step| *step == Step::StopGuest) {
            prop_assert!(position(&steps, |step| *step == Step::ShowPage) < Some(stopped));
            prop_assert!(steps.contains(&Step::ShowPage));
        }
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
            Step::FindConfig | Step::Evaluate | Step::Serve(..) => prop_assert_eq!(!left.is_empty(), has_live),
            _ => prop_assert!(left.is_empty()),
        }
        prop_assert!(!serves(&left, Cause::Wanted));
        // A rollback that fails is not rolled back again, and neither is a setup after a failed revival.
        for at in 0..left.len() {
            prop_assert!(after_failure_at(&preview, &left, at).is_empty());
        }
    }
}
