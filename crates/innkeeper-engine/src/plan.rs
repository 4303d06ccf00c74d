//! The plan from a guest's observed state to its desired state: a pure function.

use innkeeper_model::{DesiredState, FileWork, UnitPhase};

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

/// Returns the stages from the observed to the desired state, in order. Empty if the guest has its desired state.
///
/// File work comes first: a snapshot does not wait for a guest that fails to start, and no guest starts with files that
/// are about to be replaced. The tree of a copy is created like any other.
pub(crate) fn plan(
    desired: DesiredState,
    work: Option<&FileWork>,
    observed: &Observed,
) -> Vec<Stage> {
    match (desired, work) {
        (DesiredState::Absent, _) => remove(observed.keep_files),
        (_, Some(FileWork::Restore(_))) => {
            let mut stages = stop(observed);
            stages.push(vec![Step::RestoreRootfs]);
            let stopped = Observed {
                unit: None,
                network_present: false,
                ..*observed
            };
            stages.extend(plan(desired, None, &stopped));
            stages
        }
        (_, Some(FileWork::TakeSnapshot(_))) => before(Step::TakeSnapshot, desired, observed),
        (_, Some(FileWork::DeleteSnapshot(_))) => before(Step::DeleteSnapshot, desired, observed),
        (DesiredState::Running, _) => {
            let after_tree = match work {
                Some(FileWork::CopyOf(_)) => Some(Step::ForgetIdentity),
                Some(FileWork::Adopt(_)) => Some(Step::AdoptFiles),
                _ => None,
            };
            run(observed, after_tree)
        }
        (DesiredState::Stopped, _) => stop(observed),
    }
}

fn before(step: Step, desired: DesiredState, observed: &Observed) -> Vec<Stage> {
    let mut stages = vec![vec![step]];
    stages.extend(plan(desired, None, observed));
    stages
}

/// `after_tree` completes a file tree that is a copy or an adopted one.
fn run(observed: &Observed, after_tree: Option<Step>) -> Vec<Stage> {
    let mut stages = Vec::new();
    match observed.unit {
        Some(UnitPhase::Running) => {
            // Repair the host's side without disturbing the running guest.
            if !observed.closure_pinned {
                stages.push(vec![Step::EnsureClosure]);
            }
            if !observed.network_complete {
                stages.push(vec![Step::EnsureNetwork]);
            }
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
        )
            .prop_map(
                |(
                    closure_known,
                    closure_pinned,
                    keep_files,
                    network_present,
                    network_complete,
                    unit,
                )| Observed {
                    closure_known,
                    closure_pinned,
                    keep_files,
                    network_present,
                    network_complete,
                    unit,
                },
            )
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
        let stage = |stage: &Stage| {
            stage
                .iter()
                .map(|s| s.as_str())
                .collect::<Vec<_>>()
                .join(" + ")
        };
        plan(desired, work, observed)
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
    fn desired_state_needs_no_steps() {
        assert!(plan(DesiredState::Running, None, &observed(Some(Running))).is_empty());
        assert!(plan(DesiredState::Stopped, None, &observed(None)).is_empty());
    }

    proptest! {
        #[test]
        fn running_guests_are_not_disturbed(work in any_work(), mut observed in any_observed()) {
            observed.unit = Some(Running);
            prop_assume!(!matches!(work, Some(FileWork::Restore(_))));
            for step in plan(DesiredState::Running, work.as_ref(), &observed).concat() {
                let quiet = [Step::EnsureClosure, Step::EnsureNetwork, Step::TakeSnapshot, Step::DeleteSnapshot];
                prop_assert!(quiet.contains(&step), "{step:?}");
            }
        }

        #[test]
        fn release_comes_last_and_after_all_preparations(work in any_work(), observed in any_observed()) {
            let stages = plan(DesiredState::Running, work.as_ref(), &observed);
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
            let stages = plan(DesiredState::Running, Some(&work), &observed);
            let at = |step| stages.iter().position(|stage| stage.contains(&step));
            if let Some(tree) = at(Step::EnsureRootfs) {
                prop_assert!(at(Step::EnsureClosure).is_some_and(|closure| tree < closure));
                prop_assert!(at(Step::EnsureClosure) < at(Step::EnsureUnit));
            }
        }

        #[test]
        fn processes_are_removed_before_the_network(desired in prop_oneof![Just(DesiredState::Stopped), Just(DesiredState::Absent)], work in any_work(), observed in any_observed()) {
            let steps = plan(desired, work.as_ref(), &observed).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            if let Some(network) = at(Step::RemoveNetwork) {
                prop_assert!(observed.unit.is_none() && desired == DesiredState::Stopped || at(Step::RemoveUnit).is_some_and(|unit| unit < network));
            }
        }

        #[test]
        fn restore_runs_without_processes(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], observed in any_observed()) {
            let steps = plan(desired, Some(&FileWork::Restore(label())), &observed).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            let replaced = at(Step::RestoreRootfs).expect("is planned");
            prop_assert!(observed.unit.is_none() || at(Step::RemoveUnit).is_some_and(|removed| removed < replaced));
            prop_assert!(!observed.unit.is_some_and(UnitPhase::is_alive) || at(Step::StopUnit).is_some_and(|stopped| stopped < replaced));
            prop_assert_eq!(desired == DesiredState::Running, at(Step::EnsureUnit).is_some_and(|started| replaced < started));
        }

        #[test]
        fn only_a_destroy_removes_files(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], work in any_work(), observed in any_observed()) {
            let steps = plan(desired, work.as_ref(), &observed).concat();
            for step in [Step::RemoveRootfs, Step::RetainRootfs, Step::Forget] {
                prop_assert!(!steps.contains(&step));
            }
        }
    }
}
