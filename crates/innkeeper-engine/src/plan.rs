//! The plan from a guest's observed state to its desired state: a pure function.

use innkeeper_model::{DesiredState, FileWork, Guest, Level, UnitPhase};

use crate::observe::Observed;

mod change;

pub(crate) use change::plan_change;

/// A step on a guest. Idempotent: it can be repeated after a crash at any point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Determine the guest's closure; build it if necessary.
    ResolveClosure,
    /// Pin the closure with a GC root.
    EnsureClosure,
    /// Create the file tree.
    EnsureRootfs,
    /// Remove the origin's identity from a copied file tree.
    ForgetIdentity,
    /// Take a snapshot of the file tree.
    TakeSnapshot,
    /// Delete a snapshot.
    DeleteSnapshot,
    /// Restore the file tree from a snapshot.
    RestoreRootfs,
    /// Record the adoption of retained files.
    AdoptFiles,
    /// Determine the requested closure of a change; build it if necessary.
    ResolveChange,
    /// Pin the present and the requested closure.
    PinClosures,
    /// Give the record the requested closure.
    BeginChange,
    /// Switch the running system to the requested closure.
    SwitchGuest,
    /// Switch the running system back to the former closure.
    SwitchBack,
    /// Record that the guest is stopped.
    ConfirmStop,
    /// Check the health of the changed guest.
    CheckGuest,
    /// Release the closure that is not used any more.
    SettleClosure,
    /// Record the end of the change.
    EndChange,
    /// Write keys and credentials into the file tree.
    EnsureSecrets,
    /// Slow pre-start work that does not need the file tree.
    PrepareUnit,
    /// Start the unit. The guest waits at the door.
    EnsureUnit,
    /// Complete the guest's network while it waits at the door.
    EnsureNetwork,
    /// Open the door: the closure's init starts.
    Release,
    /// Suspend the guest's processes.
    Freeze,
    /// Continue the guest's processes.
    Thaw,
    /// Record that a guest is asleep that lost its processes while it was paused.
    RecordSleep,
    /// Shut the guest down.
    StopUnit,
    /// Remove the unit and kill its processes.
    RemoveUnit,
    /// Remove the veth pair.
    RemoveNetwork,
    /// Remove the file tree.
    RemoveRootfs,
    /// Retain the file tree for a while, without the credentials from the host.
    RetainRootfs,
    /// Remove the GC root.
    RemoveClosure,
    /// Delete the record, once every resource is gone.
    Forget,
}

impl Step {
    /// Returns the step's name in events and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ResolveClosure => "resolve-closure",
            Self::EnsureClosure => "ensure-closure",
            Self::EnsureRootfs => "ensure-rootfs",
            Self::ForgetIdentity => "forget-identity",
            Self::TakeSnapshot => "take-snapshot",
            Self::DeleteSnapshot => "delete-snapshot",
            Self::RestoreRootfs => "restore-rootfs",
            Self::AdoptFiles => "adopt-files",
            Self::ResolveChange => "resolve-change",
            Self::PinClosures => "pin-closures",
            Self::BeginChange => "begin-change",
            Self::SwitchGuest => "switch-guest",
            Self::SwitchBack => "switch-back",
            Self::ConfirmStop => "confirm-stop",
            Self::CheckGuest => "check-guest",
            Self::SettleClosure => "settle-closure",
            Self::EndChange => "end-change",
            Self::EnsureSecrets => "ensure-secrets",
            Self::PrepareUnit => "prepare-unit",
            Self::EnsureUnit => "ensure-unit",
            Self::EnsureNetwork => "ensure-network",
            Self::Release => "release",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::RecordSleep => "record-sleep",
            Self::StopUnit => "stop-unit",
            Self::RemoveUnit => "remove-unit",
            Self::RemoveNetwork => "remove-network",
            Self::RemoveRootfs => "remove-rootfs",
            Self::RetainRootfs => "retain-rootfs",
            Self::RemoveClosure => "remove-closure",
            Self::Forget => "forget",
        }
    }

    /// Reports whether the step uses space for file trees.
    pub(crate) fn takes_space(self) -> bool {
        matches!(
            self,
            Self::EnsureRootfs
                | Self::ForgetIdentity
                | Self::TakeSnapshot
                | Self::RestoreRootfs
                | Self::EnsureSecrets
        )
    }
}

/// Independent steps, executed concurrently.
pub(crate) type Stage = Vec<Step>;

/// The state that a guest should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    desired: DesiredState,
    /// Only for a guest that should run.
    level: Level,
}

impl Goal {
    pub(crate) fn of(guest: &Guest) -> Self {
        Self {
            desired: guest.desired,
            level: guest.level,
        }
    }

    /// Reports whether the guest should have processes.
    fn has_processes(self) -> bool {
        self.desired == DesiredState::Running && self.level != Level::Asleep
    }
}

/// Returns the stages from the observed to the desired state, in order. Empty if the guest has its desired state.
///
/// File work comes first: a snapshot does not wait for a guest that fails to start, and no guest starts with files that
/// are about to be replaced. The tree of a copy is created like any other.
pub(crate) fn plan(goal: Goal, work: Option<&FileWork>, observed: &Observed) -> Vec<Stage> {
    match (goal.desired, work) {
        (DesiredState::Absent, _) => remove(observed.keep_files),
        (_, Some(FileWork::Restore(_))) => {
            let mut stages = stop(observed);
            stages.push(vec![Step::RestoreRootfs]);
            let stopped = Observed {
                unit: None,
                network_present: false,
                frozen: false,
                ..*observed
            };
            stages.extend(plan(goal, None, &stopped));
            stages
        }
        (_, Some(FileWork::TakeSnapshot(_))) => before(Step::TakeSnapshot, goal, observed),
        (_, Some(FileWork::DeleteSnapshot(_))) => before(Step::DeleteSnapshot, goal, observed),
        (DesiredState::Running, _) => {
            let after_tree = match work {
                Some(FileWork::CopyOf(_)) => Some(Step::ForgetIdentity),
                Some(FileWork::Adopt(_)) => Some(Step::AdoptFiles),
                _ => None,
            };
            match goal.level {
                // A tree is completed before the guest rests.
                Level::Awake | Level::Paused | Level::Asleep if after_tree.is_some() => {
                    run(observed, after_tree)
                }
                Level::Awake => run(observed, None),
                Level::Paused => pause(observed),
                Level::Asleep => stop(observed),
            }
        }
        (DesiredState::Stopped, _) => stop(observed),
    }
}

fn before(step: Step, goal: Goal, observed: &Observed) -> Vec<Stage> {
    let mut stages = vec![vec![step]];
    stages.extend(plan(goal, None, observed));
    stages
}

/// `after_tree` completes a file tree that is a copy or an adopted one.
fn run(observed: &Observed, after_tree: Option<Step>) -> Vec<Stage> {
    // A guest that is woken continues before anything else happens.
    let mut stages = thaw(observed);
    match observed.unit {
        Some(UnitPhase::Running) => {
            stages.extend(repair(observed));
            return stages;
        }
        Some(UnitPhase::AtDoor) => {}
        // Remains of the guest's last run.
        Some(UnitPhase::Exited(_)) => stages.push(vec![Step::RemoveUnit]),
        None => {}
    }
    if !observed.closure_known {
        stages.push(vec![Step::ResolveClosure]);
    }
    let tree = [Step::EnsureRootfs, Step::PrepareUnit];
    match after_tree {
        // A copy inherits the store paths that its origin may use: they must be among those of its closure. The origin's GC
        // root keeps the closure meanwhile.
        Some(step @ Step::ForgetIdentity) => {
            stages.push(tree.to_vec());
            stages.extend([vec![Step::EnsureClosure], vec![step]]);
        }
        _ => {
            stages.push([&[Step::EnsureClosure][..], &tree].concat());
            stages.extend(after_tree.map(|step| vec![step]));
        }
    }
    // Concurrent: nspawn prepares the namespaces meanwhile. The guest's own code runs only after the release, so the
    // host can still write to the tree.
    stages.push(vec![Step::EnsureSecrets, Step::EnsureUnit]);
    stages.push(vec![Step::EnsureNetwork]);
    stages.push(vec![Step::Release]);
    stages
}

fn thaw(observed: &Observed) -> Vec<Stage> {
    Vec::from_iter(observed.frozen.then(|| vec![Step::Thaw]))
}

/// Repairs the host's side of a guest without disturbing its processes.
fn repair(observed: &Observed) -> Vec<Stage> {
    let closure = (!observed.closure_pinned).then(|| vec![Step::EnsureClosure]);
    let network = (!observed.network_complete).then(|| vec![Step::EnsureNetwork]);
    closure.into_iter().chain(network).collect()
}

/// A guest without its processes has lost its memory: it falls asleep instead.
fn pause(observed: &Observed) -> Vec<Stage> {
    if observed.unit != Some(UnitPhase::Running) {
        let mut stages = stop(observed);
        stages.push(vec![Step::RecordSleep]);
        return stages;
    }
    let mut stages = repair(observed);
    if !observed.frozen {
        stages.push(vec![Step::Freeze]);
    }
    stages
}

fn stop(observed: &Observed) -> Vec<Stage> {
    let mut stages = Vec::new();
    if observed.unit.is_some_and(UnitPhase::is_alive) {
        stages.push(vec![Step::StopUnit]);
    }
    if observed.unit.is_some() {
        stages.push(vec![Step::RemoveUnit]);
    }
    if observed.unit.is_some() || observed.network_present {
        stages.push(vec![Step::RemoveNetwork]);
    }
    stages
}

/// Removes every resource, observed or not: removal is idempotent and cheap, and an overlooked resource would leak.
fn remove(keep_files: bool) -> Vec<Stage> {
    let files = match keep_files {
        true => Step::RetainRootfs,
        false => Step::RemoveRootfs,
    };
    vec![
        vec![Step::RemoveUnit],
        vec![Step::RemoveNetwork, files, Step::RemoveClosure],
        vec![Step::Forget],
    ]
}

#[cfg(test)]
mod tests {
    use innkeeper_model::UnitPhase::{AtDoor, Exited, Running};
    use innkeeper_model::{GuestName, Origin, RetainedId, SnapshotLabel};
    use proptest::prelude::*;

    use super::*;

    fn any_observed() -> impl Strategy<Value = Observed> {
        let unit = prop_oneof![
            Just(None),
            Just(Some(AtDoor)),
            Just(Some(Running)),
            (0i32..256).prop_map(|status| Some(Exited(status))),
        ];
        (
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            unit,
            any::<bool>(),
        )
            .prop_map(
                |(
                    closure_known,
                    closure_pinned,
                    keep_files,
                    network_present,
                    network_complete,
                    unit,
                    frozen,
                )| Observed {
                    closure_known,
                    closure_pinned,
                    keep_files,
                    network_present,
                    network_complete,
                    unit,
                    // Nothing else can be frozen.
                    frozen: frozen && unit == Some(Running),
                },
            )
    }

    /// A goal of a guest that is awake if it should run.
    fn goal(desired: DesiredState) -> Goal {
        Goal {
            desired,
            level: Level::Awake,
        }
    }

    fn at(level: Level) -> Goal {
        Goal {
            desired: DesiredState::Running,
            level,
        }
    }

    fn any_level() -> impl Strategy<Value = Level> {
        prop_oneof![Just(Level::Awake), Just(Level::Paused), Just(Level::Asleep)]
    }

    fn label() -> SnapshotLabel {
        SnapshotLabel::parse("before").expect("valid")
    }

    fn origin() -> Origin {
        Origin {
            guest: GuestName::parse("web").expect("valid"),
            snapshot: None,
        }
    }

    fn any_work() -> impl Strategy<Value = Option<FileWork>> {
        prop_oneof![
            Just(None),
            Just(Some(FileWork::CopyOf(origin()))),
            Just(Some(FileWork::TakeSnapshot(label()))),
            Just(Some(FileWork::DeleteSnapshot(label()))),
            Just(Some(FileWork::Restore(label()))),
            Just(Some(FileWork::Adopt(RetainedId(7)))),
        ]
    }

    fn show(desired: DesiredState, observed: &Observed) -> String {
        show_with(desired, None, observed)
    }

    fn show_with(desired: DesiredState, work: Option<&FileWork>, observed: &Observed) -> String {
        show_goal(goal(desired), work, observed)
    }

    fn show_goal(goal: Goal, work: Option<&FileWork>, observed: &Observed) -> String {
        let stage = |stage: &Stage| {
            stage
                .iter()
                .map(|s| s.as_str())
                .collect::<Vec<_>>()
                .join(" + ")
        };
        plan(goal, work, observed)
            .iter()
            .map(stage)
            .collect::<Vec<_>>()
            .join(" → ")
    }

    fn observed(unit: Option<UnitPhase>) -> Observed {
        Observed {
            closure_known: true,
            closure_pinned: true,
            keep_files: false,
            network_present: unit == Some(Running),
            network_complete: unit == Some(Running),
            unit,
            frozen: false,
        }
    }

    #[test]
    fn plans_read_as_arrows() {
        insta::assert_snapshot!(show(DesiredState::Running, &Observed::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Running, &observed(Some(AtDoor))), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Running, &observed(Some(Exited(133)))), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Stopped, &observed(Some(Running))), @"stop-unit → remove-unit → remove-network");
        let work = |work: FileWork| {
            show_with(DesiredState::Running, Some(&work), &observed(Some(Running)))
        };
        insta::assert_snapshot!(work(FileWork::TakeSnapshot(label())), @"take-snapshot");
        insta::assert_snapshot!(work(FileWork::DeleteSnapshot(label())), @"delete-snapshot");
        insta::assert_snapshot!(work(FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show_with(DesiredState::Running, Some(&FileWork::CopyOf(origin())), &Observed::default()), @"resolve-closure → ensure-rootfs + prepare-unit → ensure-closure → forget-identity → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show_with(DesiredState::Running, Some(&FileWork::Adopt(RetainedId(7))), &Observed::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → adopt-files → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Absent, &Observed { keep_files: true, ..observed(Some(Running)) }), @"remove-unit → remove-network + retain-rootfs + remove-closure → forget");
        insta::assert_snapshot!(show(DesiredState::Absent, &observed(Some(Running))), @"remove-unit → remove-network + remove-rootfs + remove-closure → forget");
    }

    #[test]
    fn plans_of_levels_read_as_arrows() {
        let frozen = Observed {
            frozen: true,
            ..observed(Some(Running))
        };
        let show = |level, observed: &Observed| show_goal(at(level), None, observed);
        insta::assert_snapshot!(show(Level::Paused, &observed(Some(Running))), @"freeze");
        insta::assert_snapshot!(show(Level::Paused, &observed(None)), @"record-sleep");
        insta::assert_snapshot!(show(Level::Paused, &observed(Some(Exited(137)))), @"remove-unit → remove-network → record-sleep");
        insta::assert_snapshot!(show(Level::Paused, &Observed { network_complete: false, ..frozen }), @"ensure-network");
        insta::assert_snapshot!(show(Level::Asleep, &observed(Some(Running))), @"stop-unit → remove-unit → remove-network");
        insta::assert_snapshot!(show(Level::Asleep, &frozen), @"stop-unit → remove-unit → remove-network");
        insta::assert_snapshot!(show(Level::Awake, &frozen), @"thaw");
        insta::assert_snapshot!(show(Level::Awake, &observed(None)), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        let work = |level, work: FileWork| show_goal(at(level), Some(&work), &frozen);
        insta::assert_snapshot!(work(Level::Paused, FileWork::TakeSnapshot(label())), @"take-snapshot");
        insta::assert_snapshot!(work(Level::Paused, FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs → record-sleep");
        insta::assert_snapshot!(work(Level::Asleep, FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs");
        insta::assert_snapshot!(show_with(DesiredState::Stopped, None, &frozen), @"stop-unit → remove-unit → remove-network");
        for (level, observed) in [(Level::Paused, frozen), (Level::Asleep, observed(None))] {
            assert!(plan(at(level), None, &observed).is_empty());
        }
    }

    #[test]
    fn desired_state_needs_no_steps() {
        assert!(plan(goal(DesiredState::Running), None, &observed(Some(Running))).is_empty());
        assert!(plan(goal(DesiredState::Stopped), None, &observed(None)).is_empty());
    }

    proptest! {
        #[test]
        fn resting_guests_start_no_process(level in any_level(), observed in any_observed()) {
            prop_assume!(level != Level::Awake);
            let steps = plan(at(level), None, &observed).concat();
            for step in [Step::EnsureUnit, Step::Release, Step::Thaw] {
                prop_assert!(!steps.contains(&step), "{step:?}");
            }
            let rests = steps.contains(&Step::Freeze) || steps.contains(&Step::StopUnit);
            let is_up = observed.unit == Some(Running) && !(observed.frozen && level == Level::Paused);
            prop_assert!(rests || !is_up);
        }

        #[test]
        fn frozen_guests_that_should_be_awake_continue_first(mut observed in any_observed()) {
            (observed.unit, observed.frozen) = (Some(Running), true);
            let stages = plan(at(Level::Awake), None, &observed);
            prop_assert_eq!(&stages[0], &[Step::Thaw]);
        }

        #[test]
        fn running_guests_are_not_disturbed(work in any_work(), mut observed in any_observed()) {
            observed.unit = Some(Running);
            prop_assume!(!matches!(work, Some(FileWork::Restore(_))));
            for step in plan(goal(DesiredState::Running), work.as_ref(), &observed).concat() {
                let quiet = [Step::Thaw, Step::EnsureClosure, Step::EnsureNetwork, Step::TakeSnapshot, Step::DeleteSnapshot];
                prop_assert!(quiet.contains(&step), "{step:?}");
            }
        }

        #[test]
        fn release_comes_last_and_after_all_preparations(work in any_work(), observed in any_observed()) {
            let stages = plan(goal(DesiredState::Running), work.as_ref(), &observed);
            if let Some(at) = stages.iter().position(|s| s.contains(&Step::Release)) {
                prop_assert_eq!(at, stages.len() - 1);
                let before = stages[..at].concat();
                for step in [Step::EnsureRootfs, Step::EnsureSecrets, Step::EnsureUnit, Step::EnsureNetwork] {
                    prop_assert!(before.contains(&step), "{step:?} is missing");
                }
            }
        }

        #[test]
        fn copy_inherits_before_its_closure_is_ensured(observed in any_observed()) {
            let guest = GuestName::parse("web").expect("name");
            let work = FileWork::CopyOf(Origin { guest, snapshot: None });
            let stages = plan(goal(DesiredState::Running), Some(&work), &observed);
            let at = |step| stages.iter().position(|stage| stage.contains(&step));
            if let Some(tree) = at(Step::EnsureRootfs) {
                prop_assert!(at(Step::EnsureClosure).is_some_and(|closure| tree < closure));
                prop_assert!(at(Step::EnsureClosure) < at(Step::EnsureUnit));
            }
        }

        #[test]
        fn processes_are_removed_before_the_network(desired in prop_oneof![Just(DesiredState::Stopped), Just(DesiredState::Absent)], work in any_work(), observed in any_observed()) {
            let steps = plan(goal(desired), work.as_ref(), &observed).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            if let Some(network) = at(Step::RemoveNetwork) {
                prop_assert!(observed.unit.is_none() && desired == DesiredState::Stopped || at(Step::RemoveUnit).is_some_and(|unit| unit < network));
            }
        }

        #[test]
        fn restore_runs_without_processes(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], observed in any_observed()) {
            let steps = plan(goal(desired), Some(&FileWork::Restore(label())), &observed).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            let replaced = at(Step::RestoreRootfs).expect("is planned");
            prop_assert!(observed.unit.is_none() || at(Step::RemoveUnit).is_some_and(|removed| removed < replaced));
            prop_assert!(!observed.unit.is_some_and(UnitPhase::is_alive) || at(Step::StopUnit).is_some_and(|stopped| stopped < replaced));
            prop_assert_eq!(desired == DesiredState::Running, at(Step::EnsureUnit).is_some_and(|started| replaced < started));
        }

        #[test]
        fn only_a_destroy_removes_files(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], work in any_work(), observed in any_observed()) {
            let steps = plan(goal(desired), work.as_ref(), &observed).concat();
            for step in [Step::RemoveRootfs, Step::RetainRootfs, Step::Forget] {
                prop_assert!(!steps.contains(&step));
            }
        }
    }
}
