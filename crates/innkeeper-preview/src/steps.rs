//! Lists the steps of a plan ([`steps`]), and those after a failure ([`after_failure`]): pure functions.
//!
//! Three steps observe: the search for a commit's configuration, its evaluation, and the inspection of the guest. The next
//! steps follow from what they have [`Seen`].

use std::collections::VecDeque;
use std::sync::Arc;

use innkeeper_model::preview::{CommitSha, DatabaseMode, Meta, PreviewState};
use innkeeper_model::{Level, StorePath};
use innkeeper_store::Preview;

use crate::plan::Plan;

/// A commit that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) sha: CommitSha,
    pub(crate) closure: StorePath,
    pub(crate) meta: Meta,
}

impl Version {
    /// Returns the version that is served, if any.
    pub(crate) fn live(preview: &Preview) -> Option<Self> {
        Some(Self {
            sha: preview.record.live_sha.clone()?,
            closure: preview.live_closure.clone()?,
            meta: preview.live_meta.clone()?,
        })
    }
}

/// Reason for serving a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The version is wanted: it is set up and started whatever runs.
    Wanted,
    /// Rollback: another version did not come up, and left its changes.
    Rollback,
    /// Restart: the version was served, and the host or the guest ended. Services that run already go on: a former daemon has
    /// started them, and they may respond to requests.
    Restart,
    /// Repair: as a restart, after a revival that failed. Services that run are restarted, too.
    Repair,
    /// Revival: as a restart, while its guest runs. The app starts without being set up again; if that fails, it is set up.
    Revival,
}

impl Cause {
    /// Reports whether services of the app that run are restarted.
    pub(crate) fn restarts_app(self) -> bool {
        match self {
            Self::Wanted | Self::Rollback | Self::Repair => true,
            Self::Restart | Self::Revival => false,
        }
    }

    /// Reports whether the setup service rebuilds everything.
    pub(crate) fn rebuilds(self) -> bool {
        match self {
            Self::Wanted | Self::Rollback => true,
            Self::Restart | Self::Repair | Self::Revival => false,
        }
    }
}

/// A version to serve, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) version: Version,
    pub(crate) cause: Cause,
}

/// Step of serving a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serve {
    /// Create the preview's database.
    EnsureDatabase,
    /// Record that the guest may hold another version than the live one.
    MarkDirty,
    /// Create the guest, or switch it to the closure.
    EnsureGuest,
    /// Write the environment, the secrets and the token into the guest.
    WriteFiles,
    /// Wait for the guest's service manager.
    AwaitServices,
    /// Enter the state in which the setup service runs.
    EnterSetup,
    /// Run the setup service to its end.
    SetUp,
    /// Start the app's services, or restart them: [`Cause::restarts_app`].
    StartApp,
    /// Wait until every port of the app answers.
    AwaitAnswers,
}

/// One step of a plan. Each can be carried out again after a crash at any point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Report the state on GitHub, in the background.
    Report,
    /// Write a line into the preview's log.
    Note(String),
    /// Count an attempt to bring the wanted commit up, and separate it in the log.
    BeginAttempt,
    /// Record a state; show it on the page and on GitHub.
    Enter(PreviewState),
    /// Point the preview's URLs to a page with its state.
    ShowPage,
    /// Point the preview's URLs to a page that says that the guest is stopped.
    ShowStopped,
    /// Point the preview's URLs to a page that says that the guest is asleep.
    ShowAsleep,
    /// Point the preview's URLs to its app, whose guest is paused.
    KeepRoute(Meta),
    /// Have requests wait for the app of the version that is served: it is about to be restarted, or is down.
    HoldRoute(Meta),
    /// Wait for the delay before an app that ended repeatedly is started again.
    AwaitRevival,
    /// Drop the database and create it again, before the app is set up again.
    ResetDatabase,
    /// Record visits from before the evaluation if the preview will need room.
    RecordVisits,
    /// Look for the configuration of the wanted commit, without reading it. The result is [`Seen::Config`]. Nothing is
    /// reported or shown before.
    FindConfig,
    /// Record that the wanted commit has no configuration any more: no version is served.
    RecordDropped,
    /// Evaluate and build the wanted commit. Its result is [`Seen::Version`].
    Evaluate,
    /// Evict another preview if the host has too many.
    MakeRoom,
    /// Serve a version.
    Serve(Serve, Arc<Target>),
    /// Record that the guest holds the live version.
    ClearDirty,
    /// Record the version that is served from now on.
    RecordVersion(Arc<Target>),
    /// Point the preview's URLs to its app.
    EnsureRoute(Arc<Target>),
    /// Record that the wanted commit is live.
    RecordLive(Arc<Target>),
    /// Observe the guest and the app. The result is [`Seen::App`].
    Inspect,
    /// Repair the route if it is incomplete.
    RepairRoute(Meta),
    /// Replace the guest's token before it expires.
    RenewToken,
    /// Write into the preview's log, once, that a user stopped the guest.
    NoteStopped,
    /// Stop the guest.
    StopGuest,
    /// Record that no version is live, so that the state's page is shown.
    RecordStopped,
    /// Record that no version is live. A preview that is wanted again during its removal is brought up from the start.
    RecordGone,
    /// Remove the preview's routes.
    RemoveRoute,
    /// Remove the guest with its files.
    RemoveGuest,
    /// Remove the database.
    RemoveDatabase,
    /// Report the removal on GitHub.
    ReportRemoval,
    /// Delete the record.
    Forget,
}

impl Step {
    /// Returns the step's name for the crash probe. Steps that write nothing, or whose parts have names, have none.
    pub(crate) fn crash_point(&self) -> Option<&'static str> {
        Some(match self {
            Self::ShowPage | Self::ShowStopped | Self::ShowAsleep => "ensure-page",
            Self::HoldRoute(_) => "hold-route",
            Self::FindConfig => "find-config",
            Self::RecordDropped => "record-dropped",
            Self::Evaluate => "evaluate",
            Self::Serve(Serve::EnsureDatabase, _) => "ensure-database",
            Self::Serve(Serve::EnsureGuest, _) => "ensure-guest",
            Self::Serve(Serve::WriteFiles, _) => "write-guest-files",
            Self::Serve(Serve::AwaitServices, _) => "await-services",
            Self::Serve(Serve::SetUp, _) => "set-up",
            Self::Serve(Serve::StartApp, _) => "start-app",
            Self::Serve(Serve::AwaitAnswers, _) => "await-answers",
            Self::RecordVersion(_) => "record-version",
            Self::EnsureRoute(_) => "ensure-route",
            Self::RecordLive(_) => "record-live",
            Self::ResetDatabase => "reset-database",
            Self::StopGuest => "stop-guest",
            Self::RecordGone => "record-gone",
            Self::RemoveRoute => "remove-route",
            Self::RemoveGuest => "remove-guest",
            Self::RemoveDatabase => "remove-database",
            Self::ReportRemoval => "report-removal",
            Self::Forget => "forget",
            Self::Serve(Serve::MarkDirty | Serve::EnterSetup, _)
            | Self::Report
            | Self::Note(_)
            | Self::BeginAttempt
            | Self::Enter(_)
            | Self::RecordVisits
            | Self::AwaitRevival
            | Self::MakeRoom
            | Self::ClearDirty
            | Self::Inspect
            | Self::RepairRoute(_)
            | Self::KeepRoute(_)
            | Self::RenewToken
            | Self::NoteStopped
            | Self::RecordStopped => return None,
        })
    }
}

/// Condition of the version that should be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// A user stopped the guest (`preview stop`).
    StoppedByUser,
    /// The guest is paused or asleep, as it should be.
    Resting(Level),
    /// The guest and the app's services run.
    Running,
    /// They run and are stable again after the preview was given up because the app ended repeatedly or did not start.
    Recovered,
    /// The guest runs, and its service manager is starting the app.
    Starting,
    /// The guest runs, and the app has ended.
    Ended,
    /// The guest has ended, runs another version, or was started since the app's setup.
    Down,
}

/// Observation from which the next steps follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No observation so far.
    Unknown,
    /// Whether the wanted commit has a configuration. Without one, the preview existed before.
    Config(bool),
    /// The wanted commit was evaluated and built.
    Version(Version),
    /// The condition of the live version.
    App(App),
}

/// Returns the steps that lead from an observation to the plan's end, or to the next observation.
pub(crate) fn steps(plan: Plan, preview: &Preview, seen: Seen) -> Vec<Step> {
    let is_up = !matches!(plan, Plan::Remove | Plan::KeepStopped);
    let resets = seen == Seen::Unknown && is_up && preview.reset_database;
    let mut steps = Vec::from_iter(resets.then_some(Step::ResetDatabase));
    steps.extend(steps_of(plan, preview, seen));
    steps
}

fn steps_of(plan: Plan, preview: &Preview, seen: Seen) -> Vec<Step> {
    match (plan, seen) {
        (_, Seen::Version(version)) => deploy(preview, version),
        (_, Seen::App(app)) => restore(preview, app),
        (_, Seen::Config(false)) => {
            let mut steps = vec![Step::RecordDropped];
            steps.extend(keep_stopped());
            steps
        }
        (Plan::RequestApproval, Seen::Config(true)) => {
            vec![Step::Enter(PreviewState::WaitingForApproval)]
        }
        (_, Seen::Config(true)) => vec![
            Step::RecordVisits,
            Step::BeginAttempt,
            Step::Enter(PreviewState::Evaluating),
            Step::Evaluate,
        ],
        (Plan::Remove, Seen::Unknown) => vec![
            Step::Enter(PreviewState::Closing),
            Step::RecordGone,
            // First what strangers can reach, last the record.
            Step::RemoveRoute,
            Step::RemoveGuest,
            Step::RemoveDatabase,
            Step::ReportRemoval,
            Step::Forget,
        ],
        (Plan::KeepStopped, Seen::Unknown) => keep_stopped(),
        (Plan::RequestApproval, Seen::Unknown) => {
            let mut steps = Vec::new();
            // The commit that was approved before stays up, unless its approval was withdrawn.
            // Before a configuration was found, the preview has neither a guest nor a page.
            if preview.record.approved_sha.is_none() && preview.config_seen {
                // It may have come up in the moment of the withdrawal.
                steps.extend([Step::ShowPage, Step::StopGuest, Step::RecordStopped]);
            }
            steps.push(Step::FindConfig);
            steps
        }
        (Plan::BringUp, Seen::Unknown) => vec![Step::FindConfig],
        (Plan::AwaitApproval | Plan::Maintain | Plan::MaintainPrevious, Seen::Unknown) => {
            let mut steps = vec![Step::Report];
            steps.extend(maintain(preview));
            steps
        }
    }
}

fn keep_stopped() -> Vec<Step> {
    vec![Step::ShowPage, Step::StopGuest, Step::Report]
}

/// Returns the steps after a failure, in place of those that were left: removal goes on with its independent steps, and
/// the last good version comes back.
pub(crate) fn after_failure(
    preview: &Preview,
    failed: &Step,
    left: VecDeque<Step>,
) -> VecDeque<Step> {
    let live = Version::live(preview);
    match failed {
        // The slot must not be reassigned while a route may lead to its address: the guest's record stays.
        Step::RemoveRoute => [Step::StopGuest, Step::RemoveDatabase].into(),
        Step::RemoveGuest | Step::StopGuest => left
            .into_iter()
            .filter(|step| *step == Step::RemoveDatabase)
            .collect(),
        // The live version stays up, also when the host has just booted and GitHub is unreachable.
        Step::FindConfig | Step::Evaluate if live.is_some() => maintain(preview).into(),
        Step::Serve(_, target) if target.cause == Cause::Wanted => {
            live.map(rollback).unwrap_or_default().into()
        }
        Step::Serve(_, target) if target.cause == Cause::Revival => live
            .map(|live| go_back(live, Cause::Repair, "Setting the app up again.".to_owned()))
            .unwrap_or_default()
            .into(),
        _ => VecDeque::new(),
    }
}

/// Reports whether the steps after a failure may make up for it, so that it is no result of the plan.
pub(crate) fn has_remedy(failed: &Step) -> bool {
    matches!(failed, Step::Serve(_, target) if target.cause == Cause::Revival)
}

/// Brings the wanted version up.
fn deploy(preview: &Preview, version: Version) -> Vec<Step> {
    let target = Arc::new(Target {
        version,
        cause: Cause::Wanted,
    });
    let mut steps = vec![Step::MakeRoom, Step::Enter(PreviewState::Starting)];
    steps.extend(serve(&target, Version::live(preview)));
    steps.extend([
        // Recorded first, so that a crash before the route brings back this version. The state is live only once the
        // route leads to it.
        Step::RecordVersion(Arc::clone(&target)),
        Step::EnsureRoute(Arc::clone(&target)),
        Step::RecordLive(target),
    ]);
    steps
}

/// Keeps the live version up, after a reboot for example. Without one, the page is all that is served.
fn maintain(preview: &Preview) -> Vec<Step> {
    match Version::live(preview) {
        None => vec![Step::ShowPage],
        Some(_) => vec![Step::Inspect],
    }
}

fn restore(preview: &Preview, app: App) -> Vec<Step> {
    let Some(live) = Version::live(preview) else {
        return Vec::new();
    };
    match app {
        App::StoppedByUser => vec![Step::ShowStopped, Step::NoteStopped],
        App::Resting(Level::Asleep) => vec![Step::ShowAsleep],
        // The app of another version would answer.
        App::Resting(_) if preview.dirty => vec![Step::ShowPage],
        // A newer version was being set up when it was superseded by one that did not come that far, or it failed.
        _ if preview.dirty => rollback(live),
        App::Resting(_) => vec![Step::KeepRoute(live.meta)],
        App::Running => vec![Step::RepairRoute(live.meta), Step::RenewToken],
        App::Recovered => {
            let meta = live.meta.clone();
            let target = Arc::new(Target {
                version: live,
                cause: Cause::Restart,
            });
            vec![
                Step::RepairRoute(meta),
                Step::RenewToken,
                Step::RecordLive(target),
            ]
        }
        App::Starting => revive(live, &[Serve::AwaitAnswers]),
        App::Ended => revive(live, &[Serve::StartApp, Serve::AwaitAnswers]),
        App::Down => {
            let mut steps = vec![Step::HoldRoute(live.meta.clone()), Step::AwaitRevival];
            steps.extend(go_back(live, Cause::Restart, "Starting again.".to_owned()));
            steps
        }
    }
}

/// Brings the app back whose guest runs.
fn revive(live: Version, serve: &[Serve]) -> Vec<Step> {
    let hold = Step::HoldRoute(live.meta.clone());
    let target = Arc::new(Target {
        version: live,
        cause: Cause::Revival,
    });
    let mut steps = vec![hold];
    if serve.contains(&Serve::StartApp) {
        steps.push(Step::AwaitRevival);
        steps.push(Step::Note("Starting the app again.".to_owned()));
    }
    let serve = serve.iter();
    steps.extend(serve.map(|step| Step::Serve(*step, Arc::clone(&target))));
    steps.push(Step::EnsureRoute(target));
    steps
}

fn rollback(live: Version) -> Vec<Step> {
    let text = format!("Going back to {}.", live.sha.short());
    go_back(live, Cause::Rollback, text)
}

fn go_back(version: Version, cause: Cause, text: String) -> Vec<Step> {
    let live = version.clone();
    let target = Arc::new(Target { version, cause });
    let mut steps = vec![Step::Note(text)];
    steps.extend(serve(&target, Some(live)));
    steps.extend([Step::ClearDirty, Step::EnsureRoute(target)]);
    steps
}

/// Has the guest serve a version. The app of the live version stays up until the setup of this one has ended, unless the
/// guest switches its closure. Requests wait from before the moment at which it goes down.
fn serve(target: &Arc<Target>, live: Option<Version>) -> Vec<Step> {
    let is_wanted = target.cause == Cause::Wanted;
    let has_database = target.version.meta.database == DatabaseMode::Host;
    let has_live = live.is_some();
    let is_switched = live
        .as_ref()
        .is_some_and(|live| live.closure != target.version.closure);
    let hold = live.map(|live| Step::HoldRoute(live.meta));
    let step = |serve| Some(Step::Serve(serve, Arc::clone(target)));
    [
        step(Serve::EnsureDatabase).filter(|_| has_database),
        step(Serve::MarkDirty).filter(|_| is_wanted && has_live),
        hold.clone().filter(|_| is_switched || !is_wanted),
        step(Serve::EnsureGuest),
        step(Serve::WriteFiles),
        step(Serve::AwaitServices),
        step(Serve::EnterSetup).filter(|_| is_wanted),
        step(Serve::SetUp),
        hold,
        step(Serve::StartApp),
        step(Serve::AwaitAnswers),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests;
