//! The plan of a change of the closure, phase by phase.

use innkeeper_model::{ChangePhase, ClosureChange, Level, OwnSystemState, UnitPhase};

use super::{Goal, Stage, Step, leave, run, stop, thaw};
use crate::observe::Observed;

/// Returns the stages up to the next decision, in order. Never empty: the change has ended when the guest's record has
/// none. After the stages, the caller observes and plans again.
///
/// A guest that is to be stopped or asleep keeps the closure that its record has. A paused one continues once it is known that
/// its running system takes part in the change ([`Step::BeginChange`]).
pub(crate) fn plan_change(goal: Goal, change: &ClosureChange, observed: &Observed) -> Vec<Stage> {
    use ChangePhase::{Boot, BootBack, Check, Prepare, Settle, Stop, StopBack, Switch, SwitchBack};

    // The phase begins again with the closure from the host.
    if goal.has_processes() && observed.own_system == Some(OwnSystemState::Failing) {
        return leave(observed);
    }
    let is_running = observed.unit == Some(UnitPhase::Running);
    match change.phase {
        Prepare => {
            let mut stages = match goal.has_processes() && goal.level == Level::Awake {
                true => thaw(observed),
                false => Vec::new(),
            };
            if change.other.closure.is_none() {
                stages.push(vec![Step::ResolveChange]);
            }
            stages.push(vec![Step::PinClosures]);
            stages.push(vec![Step::BeginChange]);
            stages
        }
        Settle => settle(Vec::new()),
        _ if !goal.has_processes() => settle(stop(observed)),
        Switch if is_running => followed_by(thaw(observed), Step::SwitchGuest),
        SwitchBack if is_running => followed_by(thaw(observed), Step::SwitchBack),
        Switch | Stop | SwitchBack | StopBack => followed_by(stop(observed), Step::ConfirmStop),
        // Its exit is a finding. Without a unit, the host was restarted since the switch.
        // The health of an unchecked own system comes first.
        Check
            if observed.own_system != Some(OwnSystemState::Booting)
                && (is_running || matches!(observed.unit, Some(UnitPhase::Exited(_)))) =>
        {
            followed_by(thaw(observed), Step::CheckGuest)
        }
        // Also if it has exited: a crash of the daemon may have ended it at the door.
        Boot | Check => followed_by(run(observed, None), Step::CheckGuest),
        BootBack => settle(run(observed, None)),
    }
}

fn followed_by(mut stages: Vec<Stage>, step: Step) -> Vec<Stage> {
    stages.push(vec![step]);
    stages
}

fn settle(mut stages: Vec<Stage>) -> Vec<Stage> {
    stages.push(vec![Step::SettleClosure]);
    stages.push(vec![Step::EndChange]);
    stages
}

#[cfg(test)]
mod tests {
    use innkeeper_model::UnitPhase::{Exited, Running};
    use innkeeper_model::{
        BootSpec, ClosureSource, Cpus, DesiredState, Limits, MemorySize, OperationId, StorePath,
        UserIdCount,
    };

    use super::*;

    fn change(phase: ChangePhase) -> ClosureChange {
        let closure = StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest");
        let closure = closure.expect("valid");
        let limits = Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
            user_ids: UserIdCount::MIN,
            nesting: false,
        };
        let requested = BootSpec {
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure),
            limits,
        };
        ClosureChange {
            phase,
            ..ClosureChange::new(OperationId(1), requested, false)
        }
    }

    fn show(desired: DesiredState, phase: ChangePhase, unit: Option<UnitPhase>) -> String {
        let observed = Observed {
            closure_known: true,
            closure_pinned: true,
            network_present: unit == Some(Running),
            network_complete: unit == Some(Running),
            unit,
            ..Observed::default()
        };
        let goal = Goal {
            desired,
            level: Level::Awake,
        };
        show_goal(goal, phase, &observed)
    }

    fn show_goal(goal: Goal, phase: ChangePhase, observed: &Observed) -> String {
        let stages = plan_change(goal, &change(phase), observed);
        let stage = |stage: &Stage| {
            let names: Vec<_> = stage.iter().map(|step| step.as_str()).collect();
            names.join(" + ")
        };
        stages.iter().map(stage).collect::<Vec<_>>().join(" → ")
    }

    #[test]
    fn phases_read_as_arrows() {
        use ChangePhase::{Boot, BootBack, Check, Prepare, Stop, StopBack, Switch, SwitchBack};
        let run = |phase, unit| show(DesiredState::Running, phase, unit);
        insta::assert_snapshot!(run(Prepare, Some(Running)), @"pin-closures → begin-change");
        insta::assert_snapshot!(run(Switch, Some(Running)), @"switch-guest");
        insta::assert_snapshot!(run(Switch, None), @"confirm-stop");
        insta::assert_snapshot!(run(Stop, Some(Running)), @"stop-unit → remove-unit → remove-network → confirm-stop");
        insta::assert_snapshot!(run(Boot, None), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release → check-guest");
        insta::assert_snapshot!(run(Boot, Some(Running)), @"check-guest");
        insta::assert_snapshot!(run(Boot, Some(Exited(1))), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release → check-guest");
        insta::assert_snapshot!(run(Check, Some(Running)), @"check-guest");
        insta::assert_snapshot!(run(Check, Some(Exited(1))), @"check-guest");
        insta::assert_snapshot!(run(Check, None), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release → check-guest");
        insta::assert_snapshot!(run(SwitchBack, Some(Running)), @"switch-back");
        insta::assert_snapshot!(run(StopBack, Some(Running)), @"stop-unit → remove-unit → remove-network → confirm-stop");
        insta::assert_snapshot!(run(BootBack, None), @"ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → release → settle-closure → end-change");
    }

    #[test]
    fn unchecked_own_system_comes_before_the_health() {
        let show = |unit| {
            let observed = Observed {
                closure_known: true,
                closure_pinned: true,
                network_present: true,
                network_complete: true,
                unit: Some(unit),
                boots_own: true,
                own_system: Some(OwnSystemState::Booting),
                ..Observed::default()
            };
            let goal = Goal {
                desired: DesiredState::Running,
                level: Level::Awake,
            };
            show_goal(goal, ChangePhase::Check, &observed)
        };
        insta::assert_snapshot!(show(Running), @"check-system → check-guest");
        insta::assert_snapshot!(show(Exited(1)), @"remove-unit → ensure-closure + ensure-rootfs + prepare-unit → ensure-secrets + ensure-unit → ensure-network → choose-system → release → check-system → check-guest");
    }

    #[test]
    fn paused_guest_continues_and_a_sleeping_one_is_not_started() {
        use ChangePhase::{Boot, Check, Prepare, Switch};
        let show = |level, phase, unit: Option<UnitPhase>| {
            let goal = Goal {
                desired: DesiredState::Running,
                level,
            };
            let observed = Observed {
                closure_known: true,
                unit,
                frozen: unit.is_some(),
                ..Observed::default()
            };
            show_goal(goal, phase, &observed)
        };
        insta::assert_snapshot!(show(Level::Awake, Prepare, Some(Running)), @"thaw → pin-closures → begin-change");
        insta::assert_snapshot!(show(Level::Paused, Prepare, Some(Running)), @"pin-closures → begin-change");
        insta::assert_snapshot!(show(Level::Paused, Switch, Some(Running)), @"thaw → switch-guest");
        insta::assert_snapshot!(show(Level::Paused, Check, Some(Running)), @"thaw → check-guest");
        insta::assert_snapshot!(show(Level::Asleep, Prepare, None), @"pin-closures → begin-change");
        insta::assert_snapshot!(show(Level::Asleep, Boot, None), @"settle-closure → end-change");
    }

    #[test]
    fn stopped_guest_is_not_started() {
        use ChangePhase::{Boot, BootBack, Check, Prepare, Settle, Stop, StopBack, Switch};
        for phase in [
            Prepare, Switch, Stop, Boot, Check, Settle, StopBack, BootBack,
        ] {
            let steps = show(DesiredState::Stopped, phase, None);
            for step in ["ensure-unit", "switch-guest", "check-guest"] {
                assert!(!steps.contains(step), "{phase:?}: {steps}");
            }
        }
        insta::assert_snapshot!(show(DesiredState::Stopped, Boot, Some(Running)), @"stop-unit → remove-unit → remove-network → settle-closure → end-change");
    }
}
