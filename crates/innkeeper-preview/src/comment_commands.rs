//! Commands in comments on pull requests: their authors' permission, and their execution.
//!
//! ```text
//!  permission and comment, from GitHub ──► may not write, unknown, or another comment ──► ignored, without any effect
//!     │ may write
//!  does it apply? ──────────► no: the reaction 😕, and a line in the preview's log
//!     │ yes
//!  the reaction 👍 ──► one transaction: the previews' records, and the command as executed ──► worker
//! ```
//!
//! The delivery alone proves nothing: whoever has the webhook's secret could forge the comment of a maintainer.
//!
//! A command changes only records; the workers do the rest from there, as after any other change. So a command is
//! executed at most once, and is not lost in a crash. It is for every preview of the pull request, and applies if it applies
//! to one of them.

use innkeeper_github::client::{Github, PullRequestView, Reaction};
use innkeeper_model::preview::{
    CommandEvent, CommitSha, DatabaseMode, PreviewCommand, PreviewState,
};
use innkeeper_model::{Code, Failure, chain};
use innkeeper_store::{
    CommandChange, Delivery, DeliveryOutcome, Presence, Preview, PreviewFact, PreviewRequest, Store,
};
use jiff::Timestamp;
use tracing::{info, warn};

use crate::PreviewError;
use crate::databases::PreviewDatabases;
use crate::guests::Guests;
use crate::journal::Journal;
use crate::requests::{preview_of, slugs_of, wanted};
use crate::workers::{WakeReason, Workers};

/// Number of attempts to react to a comment. After that, the command is executed without.
const REACTIONS: u32 = 3;

/// Number of further attempts to read a comment that GitHub does not show.
const LAGS: u32 = 3;

/// Executes commands.
#[derive(Clone)]
pub(crate) struct CommentCommands {
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) journal: Journal,
    pub(crate) databases: PreviewDatabases,
    pub(crate) guests: Guests,
    pub(crate) workers: Workers,
}

/// The changes of a record that a command requests.
#[derive(Debug, Default)]
struct Changes {
    facts: Vec<PreviewFact>,
    approved: Option<CommitSha>,
}

impl Changes {
    fn of(facts: Vec<PreviewFact>) -> Self {
        Self {
            facts,
            approved: None,
        }
    }
}

impl CommentCommands {
    /// Queries the author's permission and the comment, and returns the reason to ignore the command, if there is one. It
    /// fails closed: without a permission that GitHub states, or a comment that it shows, the command is refused.
    ///
    /// # Errors
    /// GitHub does not answer for now.
    pub(crate) async fn authorize(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
    ) -> Result<Option<Failure>, PreviewError> {
        let (sender, repo) = (&event.sender, &event.pull_request.repo);
        let refused = |text: String| Ok(Some(Failure::new(Code::CommandRefused, text)));
        match self.github()?.permission(repo, sender).await {
            Ok(permission) if permission.can_write() => self.authenticate(delivery, event).await,
            Ok(_) => refused(format!("{sender} may not write to {repo}")),
            Err(error) => {
                let error = PreviewError::from(error);
                if error.may_pass(delivery.attempts) {
                    return Err(error);
                }
                refused(format!(
                    "the permission of {sender} for {repo} is unknown: {}",
                    chain(&error)
                ))
            }
        }
    }

    /// Returns the reason to ignore a command that GitHub does not show as the author's comment on the pull request, if that
    /// is so. GitHub's API lags: for a moment it does not show a new comment.
    async fn authenticate(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
    ) -> Result<Option<Failure>, PreviewError> {
        let CommandEvent {
            pull_request,
            comment: id,
            ..
        } = event;
        let shown = self.github()?.comment(&pull_request.repo, *id).await?;
        let is_absent = shown.is_none();
        let is_same = shown.is_some_and(|shown| {
            shown.author.as_ref() == Some(&event.sender)
                && shown.number == Some(pull_request.number)
                && PreviewCommand::in_comment(&shown.body).as_ref() == Some(&event.command)
        });
        let text = format!("GitHub shows no such comment by {}", event.sender);
        let failure = Failure::new(Code::CommandRefused, text);
        match is_same {
            true => Ok(None),
            false if is_absent && delivery.attempts < LAGS => Err(failure.into()),
            false => Ok(Some(failure)),
        }
    }

    /// Executes a command for the existing previews of a pull request, of which `first` is the first one. Returns how its
    /// delivery ends; `None` once it is recorded as executed.
    ///
    /// # Errors
    /// GitHub does not answer, or the store cannot be written.
    pub(crate) async fn execute(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
        first: &Preview,
    ) -> Result<Option<DeliveryOutcome>, PreviewError> {
        if let Some(refused) = self.authorize(delivery, event).await? {
            return Ok(Some(self.ignore(event, refused)));
        }
        let changes = match self.changes_of_all(event, first).await? {
            Ok(changes) => changes,
            Err(refused) => return self.refuse(delivery, event, refused).await.map(Some),
        };
        self.acknowledge(delivery, event, Reaction::Accepted)
            .await?;
        let slugs: Vec<_> = changes.iter().map(|change| change.slug.clone()).collect();
        let executed = self.store.execute_command(&event.delivery, changes);
        if self.journal.step("execute-command", executed).await? {
            for slug in &slugs {
                info!(%slug, sender = event.sender, command = %event.command, "a command was executed");
                self.journal.note(slug, format!("{}.", named(event)));
                self.workers.wake(slug, WakeReason::Command);
            }
        }
        Ok(None)
    }

    /// Returns the changes of the previews to which a command applies, or why it applies to none of them.
    async fn changes_of_all(
        &self,
        event: &CommandEvent,
        first: &Preview,
    ) -> Result<Result<Vec<CommandChange>, Failure>, PreviewError> {
        let mut changes = Vec::new();
        let mut refused = None;
        for preview in self.targets(event, first).await? {
            let slug = preview.record.slug.clone();
            match self.changes(event, &preview).await? {
                Ok(Changes {
                    mut facts,
                    approved,
                }) => {
                    facts.extend([
                        PreviewFact::LastDelivery(event.delivery.clone()),
                        PreviewFact::Active(Timestamp::now()),
                    ]);
                    changes.push(CommandChange {
                        slug,
                        facts,
                        approved,
                    });
                }
                Err(refusal) => {
                    let text = format!("{} was refused: {}.", named(event), refusal.message);
                    self.journal.note(&slug, text);
                    refused.get_or_insert(refusal);
                }
            }
        }
        Ok(match refused {
            Some(refused) if changes.is_empty() => Err(refused),
            _ => Ok(changes),
        })
    }

    /// Returns the previews that a command is for. An approval, and the request for a preview that is being removed, are for
    /// the first one: the additional ones follow it.
    async fn targets(
        &self,
        event: &CommandEvent,
        first: &Preview,
    ) -> Result<Vec<Preview>, PreviewError> {
        let mut targets = vec![first.clone()];
        let is_approval = matches!(event.command, PreviewCommand::Approve(_));
        if first.desired == Presence::Present && !is_approval {
            let mut additional = self.store.additional_previews(&event.pull_request).await?;
            additional.retain(|preview| preview.desired == Presence::Present);
            targets.append(&mut additional);
        }
        Ok(targets)
    }

    /// Executes a command for a pull request without a preview: `start` requests one.
    ///
    /// # Errors
    /// GitHub does not answer, or the store cannot be written.
    pub(crate) async fn execute_without_preview(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
    ) -> Result<Option<DeliveryOutcome>, PreviewError> {
        if let Some(refused) = self.authorize(delivery, event).await? {
            return Ok(Some(self.ignore(event, refused)));
        }
        if event.command != PreviewCommand::Start {
            let refused = Failure::new(
                Code::CommandRefused,
                format!("{} has no preview", event.pull_request),
            )
            .with_remedy("The comment `/preview start` requests one.");
            return self.refuse(delivery, event, refused).await.map(Some);
        }
        let view = match self.open_pull_request(event).await? {
            Ok(view) => view,
            Err(refused) => return self.refuse(delivery, event, refused).await.map(Some),
        };
        self.acknowledge(delivery, event, Reaction::Accepted)
            .await?;
        let claimed = self.store.claim_for_delivery(
            &event.delivery,
            preview_of(&view),
            slugs_of(&event.pull_request),
            Some(PreviewRequest::Command),
        );
        let claimed = self.journal.step("execute-command", claimed).await?;
        if let Some(preview) = claimed {
            let slug = &preview.record.slug;
            info!(%slug, sender = event.sender, "preview requested");
            self.journal.note(slug, format!("{}.", named(event)));
            self.workers.wake(slug, WakeReason::Change);
        }
        Ok(None)
    }

    /// Returns the changes that a command requests, or why it does not apply.
    async fn changes(
        &self,
        event: &CommandEvent,
        preview: &Preview,
    ) -> Result<Result<Changes, Failure>, PreviewError> {
        let record = &preview.record;
        if preview.desired == Presence::Absent {
            return self.changes_of_absent(event).await;
        }
        Ok(match &event.command {
            PreviewCommand::Stop => Ok(Changes::of(vec![PreviewFact::Stopped])),
            PreviewCommand::Start => match self.needs_start(preview).await? {
                true => again(preview).map(Changes::of),
                false => Ok(Changes::default()),
            },
            PreviewCommand::Rebuild => again(preview).map(Changes::of),
            PreviewCommand::ResetDatabase => self.reset_database(preview),
            PreviewCommand::Approve(_) if !record.is_from_fork() => Err(refusal(
                "the pull request is not from a fork and needs no approval",
            )),
            PreviewCommand::Approve(sha) => match self.open_pull_request(event).await? {
                Ok(view) => approve(preview, &view, sha),
                Err(refused) => Err(refused),
            },
        })
    }

    /// Returns the changes of a preview that is being removed: `start` requests it again.
    async fn changes_of_absent(
        &self,
        event: &CommandEvent,
    ) -> Result<Result<Changes, Failure>, PreviewError> {
        if event.command != PreviewCommand::Start {
            return Ok(Err(refusal("the preview is being removed")));
        }
        Ok(self.open_pull_request(event).await?.map(|view| {
            let mut facts = wanted(&view);
            facts.push(PreviewFact::Request(Some(PreviewRequest::Command)));
            Changes::of(facts)
        }))
    }

    /// Reports whether `start` has an effect: a preview that is up, or on its way, stays as it is.
    async fn needs_start(&self, preview: &Preview) -> Result<bool, PreviewError> {
        let record = &preview.record;
        let is_down = matches!(
            record.state,
            PreviewState::Stopped | PreviewState::Expired | PreviewState::Failed
        );
        let is_unapproved =
            record.state == PreviewState::WaitingForApproval && record.live_sha.is_none();
        Ok(is_down || is_unapproved || self.guests.is_stopped_by_user(&record.slug).await?)
    }

    fn reset_database(&self, preview: &Preview) -> Result<Changes, Failure> {
        let meta = preview.live_meta.as_ref().or(preview.meta.as_ref());
        if !meta.is_some_and(|meta| meta.database == DatabaseMode::Host) {
            return Err(refusal("the preview has no database on the host"));
        }
        self.databases
            .server()
            .map_err(|error| Failure::from(&error))?;
        let mut facts = again(preview)?;
        facts.push(PreviewFact::ResetDatabase(true));
        Ok(Changes::of(facts))
    }

    /// Returns the pull request's state on GitHub, or the refusal of a command on one that is not open.
    async fn open_pull_request(
        &self,
        event: &CommandEvent,
    ) -> Result<Result<PullRequestView, Failure>, PreviewError> {
        let view = self.github()?.pull_request(&event.pull_request).await?;
        let view = view.filter(|view| view.open);
        Ok(view.ok_or_else(|| refusal("the pull request is not open")))
    }

    /// Ignores the command of an author without permission. GitHub shows no reaction to it.
    fn ignore(&self, event: &CommandEvent, refused: Failure) -> DeliveryOutcome {
        info!(
            pull_request = %event.pull_request,
            command = %event.command,
            "a command was ignored: {}",
            refused.message
        );
        DeliveryOutcome::Ignored(Some(refused))
    }

    /// Refuses the command of an author with permission.
    async fn refuse(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
        refused: Failure,
    ) -> Result<DeliveryOutcome, PreviewError> {
        self.acknowledge(delivery, event, Reaction::Refused).await?;
        Ok(self.ignore(event, refused))
    }

    /// Reacts to the comment. A repetition has no effect, so it comes before the command is recorded as executed: no
    /// reaction is lost in a crash. A lasting failure does not keep the command from being executed.
    async fn acknowledge(
        &self,
        delivery: &Delivery,
        event: &CommandEvent,
        reaction: Reaction,
    ) -> Result<(), PreviewError> {
        let repo = &event.pull_request.repo;
        let reacted = self.github()?.react(repo, event.comment, reaction);
        match self.journal.step("acknowledge-command", reacted).await {
            Err(error) if error.is_transient() && delivery.attempts + 1 < REACTIONS => {
                Err(error.into())
            }
            Err(error) => {
                warn!(%repo, "a command is executed without a reaction: {}", chain(&error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }
}

/// Names a command and its author in the preview's log.
fn named(event: &CommandEvent) -> String {
    format!("`/preview {}` by {}", event.command, event.sender)
}

fn refusal(text: &str) -> Failure {
    Failure::new(Code::CommandRefused, text)
}

/// Returns the facts of a preview that is evaluated, built and set up again. On a fork, that is the approved commit and no
/// other.
fn again(preview: &Preview) -> Result<Vec<PreviewFact>, Failure> {
    let record = &preview.record;
    let mut facts = Vec::new();
    if record.is_from_fork() && record.approved_sha.as_ref() != Some(&record.wanted_sha) {
        let Some(approved) = &record.approved_sha else {
            return Err(Failure::new(
                Code::ApprovalNeeded,
                "no commit of the pull request is approved",
            )
            .with_remedy(format!(
                "Look at {0}; then comment `/preview approve {0}`.",
                record.wanted_sha
            )));
        };
        if record.live_sha.as_ref() == Some(approved) {
            // It is set up again while the newer commit goes on waiting for its approval.
            return Ok(vec![PreviewFact::Dirty(true)]);
        }
        // The next resync finds the newer commit again.
        facts.push(PreviewFact::Head {
            repo: record.head_repo.clone(),
            branch: record.branch.clone(),
            sha: approved.clone(),
        });
    }
    if record.live_sha.is_some() {
        facts.push(PreviewFact::Dirty(true));
    }
    facts.extend([
        PreviewFact::State(PreviewState::Queued),
        PreviewFact::Fault(None),
    ]);
    Ok(facts)
}

/// Returns the changes of an approval: of the commit that the preview wants, or of the newest one on GitHub.
fn approve(preview: &Preview, view: &PullRequestView, sha: &CommitSha) -> Result<Changes, Failure> {
    let record = &preview.record;
    let is_newest = view.head_sha == *sha;
    if record.wanted_sha != *sha && !is_newest {
        return Err(Failure::new(
            Code::ApprovalNeeded,
            format!(
                "{sha} is not the newest commit of the pull request, which is {}",
                view.head_sha
            ),
        )
        .with_remedy(format!(
            "Look at {0}; then comment `/preview approve {0}`.",
            view.head_sha
        )));
    }
    let mut facts = Vec::new();
    if record.wanted_sha != *sha {
        facts.push(PreviewFact::Head {
            repo: view.head_repo.clone(),
            branch: view.head_branch.clone(),
            sha: sha.clone(),
        });
    }
    if record.live_sha.as_ref() != Some(sha) {
        facts.extend([
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(None),
        ]);
    }
    Ok(Changes {
        facts,
        approved: Some(sha.clone()),
    })
}

#[cfg(test)]
mod tests;
