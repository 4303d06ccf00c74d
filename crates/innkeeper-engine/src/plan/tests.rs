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
    let own_system = prop_oneof![
        Just(None),
        Just(Some(OwnSystemState::Pending)),
        Just(Some(OwnSystemState::Booting)),
        Just(Some(OwnSystemState::Failing)),
        Just(Some(OwnSystemState::Failed)),
    ];
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        unit,
        any::<bool>(),
        own_system,
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
                own_system,
            )| Observed {
                closure_known,
                closure_pinned,
                keep_files,
                network_present,
                network_complete,
                unit,
                // Nothing else can be frozen.
                frozen: frozen && unit == Some(Running),
                freezing: false,
                boots_own: own_system.is_some(),
                own_system,
                waits_complete: network_complete,
                parked: unit.is_none() && network_present,
                ..Observed::default()
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
        ..Observed::default()
    }
}

#[test]
fn plans_read_as_arrows() {
    insta::assert_snapshot!(show(DesiredState::Running, &Observed::default()), @"resolve-closure → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    insta::assert_snapshot!(show(DesiredState::Running, &observed(Some(AtDoor))), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    insta::assert_snapshot!(show(DesiredState::Running, &observed(Some(Exited(133)))), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    insta::assert_snapshot!(show(DesiredState::Stopped, &observed(Some(Running))), @"stop-unit → remove-unit → remove-network");
    let work =
        |work: FileWork| show_with(DesiredState::Running, Some(&work), &observed(Some(Running)));
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
    insta::assert_snapshot!(show(Level::Paused, &observed(None)), @"record-sleep → park-address");
    insta::assert_snapshot!(show(Level::Paused, &observed(Some(Exited(137)))), @"remove-unit → remove-network → record-sleep → park-address");
    insta::assert_snapshot!(show(Level::Paused, &Observed { network_complete: false, ..frozen }), @"ensure-network");
    insta::assert_snapshot!(show(Level::Asleep, &observed(Some(Running))), @"park-address → stop-unit → remove-unit → remove-network");
    insta::assert_snapshot!(show(Level::Asleep, &frozen), @"park-address → stop-unit → remove-unit → remove-network");
    insta::assert_snapshot!(show(Level::Awake, &frozen), @"thaw");
    let freezing = Observed {
        freezing: true,
        ..observed(Some(Running))
    };
    insta::assert_snapshot!(show(Level::Paused, &freezing), @"freeze");
    insta::assert_snapshot!(show(Level::Awake, &freezing), @"thaw");
    insta::assert_snapshot!(show(Level::Awake, &observed(None)), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    let work = |level, work: FileWork| show_goal(at(level), Some(&work), &frozen);
    insta::assert_snapshot!(work(Level::Paused, FileWork::TakeSnapshot(label())), @"take-snapshot");
    insta::assert_snapshot!(work(Level::Paused, FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs → record-sleep → park-address");
    insta::assert_snapshot!(work(Level::Asleep, FileWork::Restore(label())), @"stop-unit → remove-unit → remove-network → restore-rootfs → park-address");
    insta::assert_snapshot!(show_with(DesiredState::Stopped, None, &frozen), @"stop-unit → remove-unit → remove-network");
    let parked = Observed {
        parked: true,
        ..observed(None)
    };
    insta::assert_snapshot!(show(Level::Asleep, &observed(None)), @"park-address");
    insta::assert_snapshot!(show(Level::Awake, &parked), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    insta::assert_snapshot!(show_with(DesiredState::Stopped, None, &parked), @"remove-network");
    for (level, observed) in [(Level::Paused, frozen), (Level::Asleep, parked)] {
        assert!(plan(at(level), None, &observed).is_empty());
    }
}

#[test]
fn own_system_is_checked_and_left() {
    let show = |unit, own| {
        let observed = Observed {
            boots_own: unit != Some(Running),
            own_system: Some(own),
            ..observed(unit)
        };
        show_goal(at(Level::Awake), None, &observed)
    };
    use OwnSystemState::{Booted, Booting, Failing, Pending};
    insta::assert_snapshot!(show(None, Pending), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → choose-system → release → check-system");
    insta::assert_snapshot!(show(Some(AtDoor), Booting), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → choose-system → release → check-system");
    insta::assert_snapshot!(show(Some(Running), Booting), @"check-system");
    insta::assert_snapshot!(show(Some(Exited(1)), Booting), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → choose-system → release → check-system");
    insta::assert_snapshot!(show(Some(Exited(1)), Booted), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → choose-system → release → check-system");
    insta::assert_snapshot!(show(Some(Running), Booted), @"");
    insta::assert_snapshot!(show(Some(Exited(1)), Failing), @"remove-unit → remove-network → leave-system → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
    insta::assert_snapshot!(show(None, Failing), @"leave-system → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release");
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
    fn sleeping_guest_is_parked_first(observed in any_observed()) {
        let steps = plan(at(Level::Asleep), None, &observed).concat();
        prop_assert!(observed.parked || steps.first() == Some(&Step::ParkAddress), "{steps:?}");
    }

    #[test]
    fn frozen_guests_that_should_be_awake_continue_first(mut observed in any_observed()) {
        // Its own system did not come up: it is stopped.
        prop_assume!(observed.own_system != Some(OwnSystemState::Failing));
        (observed.unit, observed.frozen) = (Some(Running), true);
        let stages = plan(at(Level::Awake), None, &observed);
        prop_assert_eq!(&stages[0], &[Step::Thaw]);
    }

    #[test]
    fn running_guests_are_not_disturbed(work in any_work(), mut observed in any_observed()) {
        observed.unit = Some(Running);
        prop_assume!(!matches!(work, Some(FileWork::Restore(_))));
        // Its own system did not come up.
        prop_assume!(observed.own_system != Some(OwnSystemState::Failing));
        for step in plan(goal(DesiredState::Running), work.as_ref(), &observed).concat() {
            let quiet = [Step::Thaw, Step::EnsureClosure, Step::EnsureNetwork, Step::CheckSystem, Step::TakeSnapshot, Step::DeleteSnapshot];
            prop_assert!(quiet.contains(&step), "{step:?}");
        }
    }

    #[test]
    fn release_comes_last_and_after_all_preparations(work in any_work(), observed in any_observed()) {
        let stages = plan(goal(DesiredState::Running), work.as_ref(), &observed);
        if let Some(at) = stages.iter().position(|s| s.contains(&Step::Release)) {
            let after = stages[at + 1..].concat();
            prop_assert!(after.iter().all(|step| *step == Step::CheckSystem), "{after:?}");
            let before = stages[..at].concat();
            // A tree and a unit that wait were made for the seat.
            let tree = (!observed.waits_complete || observed.unit != Some(AtDoor)).then_some(Step::EnsureRootfs);
            for step in tree.into_iter().chain([Step::EnsureSecrets, Step::EnsureUnit, Step::EnsureNetwork]) {
                prop_assert!(before.contains(&step), "{step:?} is missing");
            }
        }
    }

    #[test]
    fn seat_is_taken_or_dropped_before_anything_else(desired in prop_oneof![Just(DesiredState::Running), Just(DesiredState::Stopped), Just(DesiredState::Absent)], work in any_work(), observed in any_observed()) {
        let observed = Observed { has_seat: true, ..observed };
        let stages = plan(goal(desired), work.as_ref(), &observed);
        match desired {
            DesiredState::Absent => {
                prop_assert_eq!(&stages[0], &vec![Step::DropSeat]);
                prop_assert_eq!(&stages[1..], &plan(goal(desired), work.as_ref(), &Observed { has_seat: false, ..observed })[..]);
            }
            _ => prop_assert_eq!(stages, vec![vec![Step::TakeSeat]]),
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
