//! What has to be done so that a guest is as wanted: a pure function.

use innkeeper_model::{DesiredState, FileWork, UnitPhase};

use crate::observe::Seen;

/// One step on a guest. Each can be carried out again after a crash at any point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Find out the guest's closure, by building it if need be.
    ResolveClosure,
    /// Pin the closure with a GC root.
    EnsureClosure,
    /// Make the file tree.
    EnsureRootfs,
    /// Remove from a copied file tree what made it another guest.
    ForgetIdentity,
    /// Take a snapshot of the file tree.
    TakeSnapshot,
    /// Delete a snapshot.
    DeleteSnapshot,
    /// Make the file tree be as in a snapshot.
    RestoreRootfs,
    /// Record that retained files belong to the guest.
    AdoptFiles,
    /// Write keys and credentials into the file tree.
    EnsureSecrets,
    /// Do what takes its time before the unit can start.
    PrepareUnit,
    /// Start the unit, up to the door.
    EnsureUnit,
    /// Give the guest that waits at the door its network.
    EnsureNetwork,
    /// Open the door: the closure's init takes over.
    Release,
    /// Let the guest shut down.
    StopUnit,
    /// Remove the unit with all its processes.
    RemoveUnit,
    /// Remove the veth pair.
    RemoveNetwork,
    /// Remove the file tree.
    RemoveRootfs,
    /// Keep the file tree for a while, without what the guest was given.
    RetainRootfs,
    /// Remove the GC root.
    RemoveClosure,
    /// Delete the record, once nothing of the guest can be seen any more.
    Forget,
}

impl Step {
    /// The step's name in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResolveClosure => "resolve-closure",
            Self::EnsureClosure => "ensure-closure",
            Self::EnsureRootfs => "ensure-rootfs",
            Self::ForgetIdentity => "forget-identity",
            Self::TakeSnapshot => "take-snapshot",
            Self::DeleteSnapshot => "delete-snapshot",
            Self::RestoreRootfs => "restore-rootfs",
            Self::AdoptFiles => "adopt-files",
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
}

impl Step {
    /// Whether the step takes space where guests have their files.
    #[must_use]
    pub fn takes_space(self) -> bool {
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

/// Steps that do not need each other. They are carried out at the same time.
pub type Stage = Vec<Step>;

/// The stages that lead from what is seen to what is wanted, in order. Empty when nothing has to be done.
///
/// What is to be done with the files comes first: no snapshot waits for a guest that does not start, and no guest
/// starts with files that are to be replaced. The tree of a copy is made as every other.
#[must_use]
pub fn plan(desired: DesiredState, work: Option<&FileWork>, seen: &Seen) -> Vec<Stage> {
    match (desired, work) {
        (DesiredState::Absent, _) => remove(seen.keep_files),
        (_, Some(FileWork::Restore(_))) => {
            let mut stages = stop(seen);
            stages.push(vec![Step::RestoreRootfs]);
            let stopped = Seen {
                unit: None,
                network_present: false,
                ..*seen
            };
            stages.extend(plan(desired, None, &stopped));
            stages
        }
        (_, Some(FileWork::TakeSnapshot(_))) => first(Step::TakeSnapshot, desired, seen),
        (_, Some(FileWork::DeleteSnapshot(_))) => first(Step::DeleteSnapshot, desired, seen),
        (DesiredState::Running, _) => {
            let furnished = match work {
                Some(FileWork::CopyOf(_)) => Some(Step::ForgetIdentity),
                Some(FileWork::Adopt(_)) => Some(Step::AdoptFiles),
                _ => None,
            };
            run(seen, furnished)
        }
        (DesiredState::Stopped, _) => stop(seen),
    }
}

fn first(step: Step, desired: DesiredState, seen: &Seen) -> Vec<Stage> {
    let mut stages = vec![vec![step]];
    stages.extend(plan(desired, None, seen));
    stages
}

/// `furnished` is the step after a tree was made in another way than as an empty one.
fn run(seen: &Seen, furnished: Option<Step>) -> Vec<Stage> {
    let mut stages = Vec::new();
    match seen.unit {
        Some(UnitPhase::Running) => {
            // The guest is up. What the host took away under its feet is put back without disturbing it.
            if !seen.closure_pinned {
                stages.push(vec![Step::EnsureClosure]);
            }
            if !seen.network_complete {
                stages.push(vec![Step::EnsureNetwork]);
            }
            return stages;
        }
        Some(UnitPhase::AtDoor) => {}
        // Remains of a guest that ended: removed before it starts anew.
        Some(UnitPhase::Exited(_)) => stages.push(vec![Step::RemoveUnit]),
        None => {}
    }
    if !seen.closure_known {
        stages.push(vec![Step::ResolveClosure]);
    }
    stages.push(vec![
        Step::EnsureClosure,
        Step::EnsureRootfs,
        Step::PrepareUnit,
    ]);
    stages.extend(furnished.map(|step| vec![step]));
    // While nspawn prepares the namespaces, the keys are made. Nothing of the guest's own runs before the
    // release, so the host still has the tree to itself.
    stages.push(vec![Step::EnsureSecrets, Step::EnsureUnit]);
    stages.push(vec![Step::EnsureNetwork]);
    stages.push(vec![Step::Release]);
    stages
}

fn stop(seen: &Seen) -> Vec<Stage> {
    let mut stages = Vec::new();
    if seen.unit.is_some_and(UnitPhase::is_alive) {
        stages.push(vec![Step::StopUnit]);
    }
    if seen.unit.is_some() {
        stages.push(vec![Step::RemoveUnit]);
    }
    if seen.unit.is_some() || seen.network_present {
        stages.push(vec![Step::RemoveNetwork]);
    }
    stages
}

/// Everything is removed whether it was seen or not: removing what is absent is cheap, and overlooking
/// something would leak it.
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

    fn any_seen() -> impl Strategy<Value = Seen> {
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
                )| Seen {
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

    fn show(desired: DesiredState, seen: &Seen) -> String {
        show_with(desired, None, seen)
    }

    fn show_with(desired: DesiredState, work: Option<&FileWork>, seen: &Seen) -> String {
        let stage = |stage: &Stage| {
            stage
                .iter()
                .map(|s| s.as_str())
                .collect::<Vec<_>>()
                .join(" + ")
        };
        plan(desired, work, seen)
            .iter()
            .map(stage)
            .collect::<Vec<_>>()
            .join(" → ")
    }

    fn seen(unit: Option<UnitPhase>) -> Seen {
        Seen {
            closure_known: true,
            closure_pinned: true,
            keep_files: false,
            network_present: unit == Some(Running),
            network_complete: unit == Some(Running),
            unit,
        }
    }

    #[test]
    fn plans_in_words() {
        insta::assert_snapshot!(show(DesiredState::Running, &Seen::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Running, &seen(Some(AtDoor))), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Running, &seen(Some(Exited(133)))), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Stopped, &seen(Some(Running))), @"stop-unit → remove-unit → remove-network");
        let work =
            |work: FileWork| show_with(DesiredState::Running, Some(&work), &seen(Some(Running)));
        insta::assert_snapshot!(work(FileWork::TakeSnapshot(label())), @"take-snapshot");
        insta::assert_snapshot!(work(FileWork::DeleteSnapshot(label())), @"delete-snapshot");
        insta::assert_snapshot!(work(FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show_with(DesiredState::Running, Some(&FileWork::CopyOf(origin())), &Seen::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → forget-identity → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show_with(DesiredState::Running, Some(&FileWork::Adopt(RetainedId(7))), &Seen::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → adopt-files → ensure-secrets + ensure-unit → ensure-network → release");
        insta::assert_snapshot!(show(DesiredState::Absent, &Seen { keep_files: true, ..seen(Some(Running)) }), @"remove-unit → remove-network + retain-rootfs + remove-closure → forget");
        insta::assert_snapshot!(show(DesiredState::Absent, &seen(Some(Running))), @"remove-unit → remove-network + remove-rootfs + remove-closure → forget");
    }

    #[test]
    fn what_is_as_wanted_needs_nothing() {
        assert!(plan(DesiredState::Running, None, &seen(Some(Running))).is_empty());
        assert!(plan(DesiredState::Stopped, None, &seen(None)).is_empty());
    }

    proptest! {
        #[test]
        fn a_running_guest_is_never_disturbed(work in any_work(), mut seen in any_seen()) {
            seen.unit = Some(Running);
            prop_assume!(!matches!(work, Some(FileWork::Restore(_))));
            for step in plan(DesiredState::Running, work.as_ref(), &seen).concat() {
                let quiet = [Step::EnsureClosure, Step::EnsureNetwork, Step::TakeSnapshot, Step::DeleteSnapshot];
                prop_assert!(quiet.contains(&step), "{step:?}");
            }
        }

        #[test]
        fn the_door_opens_last_and_only_for_a_furnished_guest(work in any_work(), seen in any_seen()) {
            let stages = plan(DesiredState::Running, work.as_ref(), &seen);
            if let Some(at) = stages.iter().position(|s| s.contains(&Step::Release)) {
                prop_assert_eq!(at, stages.len() - 1);
                let before = stages[..at].concat();
                for step in [Step::EnsureRootfs, Step::EnsureSecrets, Step::EnsureUnit, Step::EnsureNetwork] {
                    prop_assert!(before.contains(&step), "{step:?} is missing");
                }
            }
        }

        #[test]
        fn nothing_is_removed_under_living_processes(desired in prop_oneof![Just(DesiredState::Stopped), Just(DesiredState::Absent)], work in any_work(), seen in any_seen()) {
            let steps = plan(desired, work.as_ref(), &seen).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            if let Some(network) = at(Step::RemoveNetwork) {
                prop_assert!(seen.unit.is_none() && desired == DesiredState::Stopped || at(Step::RemoveUnit).is_some_and(|unit| unit < network));
            }
        }

        #[test]
        fn files_are_replaced_when_no_process_is_left_and_before_one_starts(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], seen in any_seen()) {
            let steps = plan(desired, Some(&FileWork::Restore(label())), &seen).concat();
            let at = |step| steps.iter().position(|s| *s == step);
            let replaced = at(Step::RestoreRootfs).expect("is planned");
            prop_assert!(seen.unit.is_none() || at(Step::RemoveUnit).is_some_and(|removed| removed < replaced));
            prop_assert!(!seen.unit.is_some_and(UnitPhase::is_alive) || at(Step::StopUnit).is_some_and(|stopped| stopped < replaced));
            prop_assert_eq!(desired == DesiredState::Running, at(Step::EnsureUnit).is_some_and(|started| replaced < started));
        }

        #[test]
        fn only_an_unwanted_guest_loses_its_files(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped)], work in any_work(), seen in any_seen()) {
            let steps = plan(desired, work.as_ref(), &seen).concat();
            for step in [Step::RemoveRootfs, Step::RetainRootfs, Step::Forget] {
                prop_assert!(!steps.contains(&step));
            }
        }
    }
}
