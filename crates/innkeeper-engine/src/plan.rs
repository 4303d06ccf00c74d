//! The plan from a guest's observed state to its desired state: a pure function.

use innkeeper_model::{DesiredState, FileWork, Guest, Level, OwnSystemState, UnitPhase};

use crate::observe::Observed;

mod change;
#[cfg(test)]
mod tests;

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
    /// Take over the objects of the seat that was reserved for the guest.
    TakeSeat,
    /// Remove the objects of that seat: the guest is being removed.
    DropSeat,
    /// Write keys and credentials into the file tree.
    EnsureSecrets,
    /// Slow pre-start work that does not need the file tree.
    PrepareUnit,
    /// Start the unit. The guest waits at the door.
    EnsureUnit,
    /// Complete the guest's network while it waits at the door.
    EnsureNetwork,
    /// Decide whether the guest boots a system of its own.
    ChooseSystem,
    /// Open the door: the closure's init starts, or the guest's own system.
    Release,
    /// Suspend the guest's processes.
    Freeze,
    /// Continue the guest's processes.
    Thaw,
    /// Record that a guest is asleep that lost its processes while it was paused.
    RecordSleep,
    /// Check that the guest came up with its own system.
    CheckSystem,
    /// Record that the guest does not boot its own system any more.
    LeaveSystem,
    /// Shut the guest down.
    StopUnit,
    /// Remove the unit and kill its processes.
    RemoveUnit,
    /// Remove the veth pair, and end the parking of the address of a guest that is not asleep.
    RemoveNetwork,
    /// Park the address of a guest that is asleep: a packet wakes it.
    ParkAddress,
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
            Self::TakeSeat => "take-seat",
            Self::DropSeat => "drop-seat",
            Self::EnsureSecrets => "ensure-secrets",
            Self::PrepareUnit => "prepare-unit",
            Self::EnsureUnit => "ensure-unit",
            Self::EnsureNetwork => "ensure-network",
            Self::ChooseSystem => "choose-system",
            Self::Release => "release",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::RecordSleep => "record-sleep",
            Self::CheckSystem => "check-system",
            Self::LeaveSystem => "leave-system",
            Self::StopUnit => "stop-unit",
            Self::RemoveUnit => "remove-unit",
            Self::RemoveNetwork => "remove-network",
            Self::ParkAddress => "park-address",
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
        (DesiredState::Absent, _) => remove(observed),
        // Everything else finds the objects under the guest's name only.
        _ if observed.has_seat => vec![vec![Step::TakeSeat]],
        (_, Some(FileWork::Restore(_))) => {
            let mut stages = stop(observed);
            stages.push(vec![Step::RestoreRootfs]);
            let stopped = Observed {
                unit: None,
                network_present: false,
                frozen: false,
                freezing: false,
                ..*observed
            };
            stages.extend(plan(goal, None, &stopped));
            stages
        }
        (_, Some(FileWork::TakeSnapshot(_))) => before(Step::TakeSnapshot, goal, observed),
        (_, Some(FileWork::DeleteSnapshot(_))) => before(Step::DeleteSnapshot, goal, observed),
        (DesiredState::Running, _)
            if goal.has_processes() && observed.own_system == Some(OwnSystemState::Failing) =>
        {
            let mut stages = leave(observed);
            let stopped = Observed {
                unit: None,
                network_present: false,
                frozen: false,
                freezing: false,
                // Also if the profile names another system meanwhile: the guest determines that.
                boots_own: false,
                own_system: Some(OwnSystemState::Failed),
                ..*observed
            };
            stages.extend(plan(goal, work, &stopped));
            stages
        }
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
                Level::Asleep => sleep(observed),
            }
        }
        (DesiredState::Stopped, _) => {
            let mut stages = stop(observed);
            // Nothing wakes a stopped guest.
            if observed.parked && stages.is_empty() {
                stages.push(vec![Step::RemoveNetwork]);
            }
            stages
        }
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
    let is_unchecked = observed.own_system == Some(OwnSystemState::Booting);
    match observed.unit {
        Some(UnitPhase::Running) => {
            stages.extend(repair(observed));
            if is_unchecked {
                stages.push(vec![Step::CheckSystem]);
            }
            return stages;
        }
        // The rest was done before the guest had a name.
        Some(UnitPhase::AtDoor) if observed.waits_complete => {
            stages.push(vec![
                Step::EnsureClosure,
                Step::EnsureSecrets,
                Step::EnsureUnit,
            ]);
            // It is complete, but no guest starts without the firewall.
            stages.push(vec![Step::EnsureNetwork]);
            stages.extend(enter(observed));
            return stages;
        }
        Some(UnitPhase::AtDoor) => {}
        // Remains of the guest's last run. Also if its own system is unchecked: only the drive that released it knows that its
        // init ran, and a crash of the daemon may have ended it at the door.
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
    stages.extend(enter(observed));
    stages
}

/// Starts the init of a guest that waits at its door.
fn enter(observed: &Observed) -> Vec<Stage> {
    match observed.boots_own {
        true => vec![
            vec![Step::ChooseSystem],
            vec![Step::Release],
            vec![Step::CheckSystem],
        ],
        false => vec![vec![Step::Release]],
    }
}

/// Stops a guest that did not come up with its own system. The plan after that starts it with the closure from the host.
fn leave(observed: &Observed) -> Vec<Stage> {
    let mut stages = stop(observed);
    stages.push(vec![Step::LeaveSystem]);
    stages
}

fn thaw(observed: &Observed) -> Vec<Stage> {
    let is_held = observed.frozen || observed.freezing;
    Vec::from_iter(is_held.then(|| vec![Step::Thaw]))
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
        stages.push(vec![Step::ParkAddress]);
        return stages;
    }
    let mut stages = repair(observed);
    if !observed.frozen {
        stages.push(vec![Step::Freeze]);
    }
    stages
}

/// The address is parked first: between the guest's last packet and its sleep, a program of the host gets no error.
fn sleep(observed: &Observed) -> Vec<Stage> {
    let park = (!observed.parked).then(|| vec![Step::ParkAddress]);
    park.into_iter().chain(stop(observed)).collect()
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
fn remove(observed: &Observed) -> Vec<Stage> {
    let files = match observed.keep_files {
        true => Step::RetainRootfs,
        false => Step::RemoveRootfs,
    };
    let seat = observed.has_seat.then(|| vec![Step::DropSeat]);
    let rest = vec![
        vec![Step::RemoveUnit],
        vec![Step::RemoveNetwork, files, Step::RemoveClosure],
        vec![Step::Forget],
    ];
    seat.into_iter().chain(rest).collect()
}
