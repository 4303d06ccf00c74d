//! Desired state of previews, and facts about them.

use innkeeper_model::preview::{CommitSha, PreviewState, PullRequest, RepoName};
use innkeeper_model::{Failure, GuestName};
use rusqlite::Transaction;

use super::Store;
use crate::database::Durability;
use crate::delivery::DeliveryOutcome;
use crate::error::{QueryError, StoreError};
use crate::preview::{Approval, CommandChange, NewPreview, Preview, PreviewFact, PreviewRequest};
use crate::sql::{deliveries, held, previews};

impl Store {
    /// Records a preview with the first of `slugs` that is free: no preview or guest has it, and it is no extra host of a
    /// preview. If the pull request has a preview already, returns that one unchanged. A pull request takes over the
    /// preview of its branch that was created by hand. A branch that has a preview gets no other by hand. Durable.
    ///
    /// # Errors
    /// [`StoreError::SlugsTaken`], [`StoreError::BranchHasPreview`].
    pub async fn claim_preview(
        &self,
        new: NewPreview,
        slugs: Vec<GuestName>,
    ) -> Result<Preview, StoreError> {
        self.insert("record a preview", move |transaction| {
            if let Some(number) = new.number
                && let Some(known) = previews::find_of(transaction, &new.repo, number)?
            {
                return Ok(known);
            }
            if new.number.is_none()
                && let Some(slug) = previews::slug_of_branch(transaction, &new)?
            {
                let owner = new.owner();
                return Err(StoreError::BranchHasPreview { owner, slug }.into());
            }
            match claim(transaction, &new, &slugs)? {
                Some(slug) => previews::require(transaction, &slug),
                None => Err(StoreError::SlugsTaken {
                    owner: new.owner(),
                    candidates: slugs,
                }
                .into()),
            }
        })
        .await
    }

    /// Applies changes to a preview, all or nothing, and returns it. Durable if one of the changes is an intent; see
    /// [`PreviewFact`].
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn set_preview(
        &self,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        let action = "record a change of a preview";
        self.write(action, durability(&facts), move |transaction| {
            previews::apply(transaction, &slug, &facts)
        })
        .await
    }

    /// Applies changes to an unused preview, like [`Self::set_preview`], if it is still as it was read: `seen`. Applies none
    /// and returns `None` if it was used, changed or removed since, or has a pending delivery.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn set_preview_if_unused(
        &self,
        seen: &Preview,
        facts: Vec<PreviewFact>,
    ) -> Result<Option<Preview>, StoreError> {
        let seen = seen.clone();
        let action = "record a change of a preview";
        self.write(action, durability(&facts), move |transaction| {
            let slug = &seen.record.slug;
            if previews::find(transaction, slug)?.as_ref() != Some(&seen) {
                return Ok(None);
            }
            if let Some(pull_request) = seen.record.delivery_source()
                && deliveries::has_pending(transaction, &pull_request)?
            {
                return Ok(None);
            }
            previews::apply(transaction, slug, &facts).map(Some)
        })
        .await
    }

    /// Applies the changes that a delivery requests, like [`Self::set_preview`], while the delivery is pending. Applies none
    /// and returns `None` once it was superseded.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`], [`StoreError::PreviewNotFound`].
    pub async fn set_preview_for_delivery(
        &self,
        id: &str,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Option<Preview>, StoreError> {
        let (id, slug) = (id.to_owned(), slug.clone());
        let action = "record the changes of a delivery";
        self.write(action, durability(&facts), move |transaction| {
            if !deliveries::is_pending(transaction, &id)? {
                return Ok(None);
            }
            previews::apply(transaction, &slug, &facts).map(Some)
        })
        .await
    }

    /// Applies the changes of a command in a comment to each of its previews, like [`Self::set_preview`], and records the
    /// command as executed, all in one transaction: a command is executed at most once. Applies none and returns `false` if
    /// the command is not pending. Pending intents before the command are done, since their wishes are recorded. Durable.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`], [`StoreError::PreviewNotFound`].
    pub async fn execute_command(
        &self,
        id: &str,
        changes: Vec<CommandChange>,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let action = "execute a command";
        self.write(action, Durability::Now, move |transaction| {
            if !deliveries::is_pending(transaction, &id)? {
                return Ok(false);
            }
            for change in &changes {
                previews::apply(transaction, &change.slug, &change.facts)?;
                if let Some(sha) = &change.approved {
                    previews::approve(transaction, &change.slug, sha, Approval::Command)?;
                }
            }
            deliveries::finish_command(transaction, &id)?;
            Ok(true)
        })
        .await
    }

    /// Records the preview that a delivery requests, like [`Self::claim_preview`], and the delivery as processed, in one
    /// transaction. Records nothing and returns `None` if the delivery is not pending. Durable.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`], [`StoreError::SlugsTaken`].
    pub async fn claim_for_delivery(
        &self,
        id: &str,
        new: NewPreview,
        slugs: Vec<GuestName>,
        request: Option<PreviewRequest>,
    ) -> Result<Option<Preview>, StoreError> {
        let id = id.to_owned();
        self.insert("record a requested preview", move |transaction| {
            if !deliveries::is_pending(transaction, &id)? {
                return Ok(None);
            }
            let known = match new.number {
                Some(number) => previews::find_of(transaction, &new.repo, number)?,
                None => None,
            };
            let slug = match known {
                Some(known) => Some(known.record.slug),
                None => claim(transaction, &new, &slugs)?,
            };
            let Some(slug) = slug else {
                return Err(StoreError::SlugsTaken {
                    owner: new.owner(),
                    candidates: slugs,
                }
                .into());
            };
            let facts = [
                PreviewFact::Request(request),
                PreviewFact::LastDelivery(id.clone()),
            ];
            let preview = previews::apply(transaction, &slug, &facts)?;
            deliveries::finish(transaction, &id, &DeliveryOutcome::Done)?;
            Ok(Some(preview))
        })
        .await
    }

    /// Applies the changes that a command on the host requests. In the same transaction, they supersede the pending
    /// deliveries that request the preview, since those are older. A pending `closed` stays: a closed pull request gets no
    /// preview. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn override_preview(
        &self,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        let action = "override a preview";
        self.write(action, Durability::Now, move |transaction| {
            let preview = previews::apply(transaction, &slug, &facts)?;
            if let Some(pull_request) = preview.record.delivery_source() {
                deliveries::override_present(transaction, &pull_request)?;
            }
            Ok(preview)
        })
        .await
    }

    /// Records that a person with write access approves this commit, and no other. It need not be the wanted one: the
    /// delivery that requests it may be on its way. But the approval of the wanted commit is not replaced by that of
    /// another, and a label does not replace an approval from the host. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn approve(
        &self,
        slug: &GuestName,
        sha: &CommitSha,
        by: Approval,
    ) -> Result<(), StoreError> {
        let (slug, sha) = (slug.clone(), sha.clone());
        self.write("record an approval", Durability::Now, move |transaction| {
            previews::approve(transaction, &slug, &sha, by)?;
            previews::require(transaction, &slug).map(drop)
        })
        .await
    }

    /// Records that GitHub shows this commit as waiting for approval, and that deliveries up to `after` had arrived before.
    /// A commit that was announced already keeps its first announcement.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn record_announcement(
        &self,
        slug: &GuestName,
        sha: &CommitSha,
        after: i64,
    ) -> Result<(), StoreError> {
        let (slug, sha) = (slug.clone(), sha.clone());
        let action = "record an announcement";
        self.write(action, Durability::Soon, move |transaction| {
            previews::announce(transaction, &slug, &sha, after)?;
            previews::require(transaction, &slug).map(drop)
        })
        .await
    }

    /// Records that no commit is approved any more, with the reason, and that none is served: the preview is queued to be
    /// stopped. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn withdraw_approval(
        &self,
        slug: &GuestName,
        reason: Failure,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        let facts = [
            PreviewFact::NotLive,
            PreviewFact::Dirty(false),
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(Some(reason)),
        ];
        let action = "withdraw an approval";
        self.write(action, Durability::Now, move |transaction| {
            previews::clear_approval(transaction, &slug)?;
            previews::apply(transaction, &slug, &facts)
        })
        .await
    }

    /// Deletes a preview's record, which frees its slug. Durable. Call it when every resource of the preview is observed to
    /// be gone. The absence of the preview is success.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn delete_preview(&self, slug: &GuestName) -> Result<(), StoreError> {
        let slug = slug.clone();
        let action = "delete a preview's record";
        self.write(action, Durability::Now, move |transaction| {
            previews::delete(transaction, &slug)
        })
        .await
    }

    /// Deletes the record of a pull request's preview that wants this commit, if no commit with a `preview-config.nix` was
    /// ever found: such a preview has no resource. Returns whether it was deleted. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn delete_unseen_preview(
        &self,
        slug: &GuestName,
        sha: &CommitSha,
    ) -> Result<bool, StoreError> {
        let (slug, sha) = (slug.clone(), sha.clone());
        let action = "delete the record of an ignored pull request";
        self.write(action, Durability::Now, move |transaction| {
            previews::delete_unseen(transaction, &slug, &sha)
        })
        .await
    }

    /// Reports whether the repository, or any with `None`, may use a reserved prefix of extra hosts: a preview of it had one
    /// before the reservation.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn has_older_prefix(
        &self,
        repo: Option<&RepoName>,
        prefix: &GuestName,
    ) -> Result<bool, StoreError> {
        let (repo, prefix) = (repo.cloned(), prefix.clone());
        self.read("read the reserved prefixes", move |connection| {
            previews::has_older_prefix(connection, repo.as_ref(), &prefix)
        })
        .await
    }

    /// Returns a preview.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn preview(&self, slug: &GuestName) -> Result<Option<Preview>, StoreError> {
        let slug = slug.clone();
        self.read("read a preview's record", move |connection| {
            previews::find(connection, &slug)
        })
        .await
    }

    /// Returns the preview of a pull request.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn preview_of(
        &self,
        pull_request: &PullRequest,
    ) -> Result<Option<Preview>, StoreError> {
        let PullRequest { repo, number } = pull_request.clone();
        self.read("read a preview's record", move |connection| {
            previews::find_of(connection, &repo, number)
        })
        .await
    }

    /// Returns the additional previews of a pull request, by slug.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn additional_previews(
        &self,
        pull_request: &PullRequest,
    ) -> Result<Vec<Preview>, StoreError> {
        let pull_request = pull_request.clone();
        self.read("read the additional previews", move |connection| {
            previews::additional(connection, &pull_request)
        })
        .await
    }

    /// Returns all previews, by slug.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn previews(&self) -> Result<Vec<Preview>, StoreError> {
        self.read("read the previews' records", previews::list)
            .await
    }
}

/// Records a preview with the first free slug and returns that slug; `None` if all are taken. The pull request must have
/// no preview. If its branch has one that was created by hand, the pull request takes it over.
pub(super) fn claim(
    transaction: &Transaction<'_>,
    new: &NewPreview,
    slugs: &[GuestName],
) -> Result<Option<GuestName>, QueryError> {
    if let Some(number) = new.number
        && let Some(slug) = previews::manual_slug_of_branch(transaction, new)?
    {
        previews::set_number(transaction, &slug, number)?;
        return Ok(Some(slug));
    }
    for slug in slugs {
        // Not another slug: the restored preview may be that of the same pull request.
        held::refuse(transaction, slug)?;
        if previews::is_free(transaction, slug)? {
            previews::insert(transaction, new, slug)?;
            return Ok(Some(slug.clone()));
        }
    }
    Ok(None)
}

fn durability(facts: &[PreviewFact]) -> Durability {
    if facts.iter().any(PreviewFact::is_intent) {
        Durability::Now
    } else {
        Durability::Soon
    }
}
