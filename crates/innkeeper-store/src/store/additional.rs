//! Additional previews of pull requests, for repositories with several configurations.

use innkeeper_model::GuestName;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::sources::SourcePath;
use rusqlite::Transaction;

use super::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::preview::{Presence, Preview, PreviewFact};
use crate::sql::{held, previews};

/// An additional configuration of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionalConfig {
    /// Its path.
    pub path: SourcePath,
    /// The candidate names of its preview.
    pub slugs: Vec<GuestName>,
    /// True if the wanted commit has it, so that a preview is created.
    pub exists: bool,
}

impl Store {
    /// Makes the additional previews of a pull request follow its first preview: creates missing ones, gives all of them
    /// its commit and its approval, and records that those of other configurations should be removed; all of them, if the
    /// first one should be removed. Returns the slugs of those that changed. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`], [`StoreError::SlugsTaken`].
    pub async fn follow_first_preview(
        &self,
        first: &GuestName,
        configs: Vec<AdditionalConfig>,
    ) -> Result<Vec<GuestName>, StoreError> {
        let first = first.clone();
        let action = "update the additional previews of a pull request";
        self.write(action, Durability::Now, move |transaction| {
            let first = previews::require(transaction, &first)?;
            follow(transaction, &first, &configs)
        })
        .await
    }

    /// Records that the additional previews of a pull request have the approval of its first one, and no other. One whose
    /// approval is withdrawn is queued to be stopped. Returns the slugs of those that changed. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn follow_approval(&self, first: &GuestName) -> Result<Vec<GuestName>, StoreError> {
        let first = first.clone();
        let action = "update the approval of additional previews";
        self.write(action, Durability::Now, move |transaction| {
            let first = previews::require(transaction, &first)?;
            let mut changed = Vec::new();
            for preview in of(transaction, &first)? {
                if set_approval(transaction, &first, &preview)? {
                    changed.push(preview.record.slug);
                }
            }
            Ok(changed)
        })
        .await
    }
}

fn of(transaction: &Transaction<'_>, first: &Preview) -> Result<Vec<Preview>, QueryError> {
    match first.record.delivery_source() {
        Some(pull_request) => previews::additional(transaction, &pull_request),
        None => Ok(Vec::new()),
    }
}

fn follow(
    transaction: &Transaction<'_>,
    first: &Preview,
    configs: &[AdditionalConfig],
) -> Result<Vec<GuestName>, QueryError> {
    let existing = of(transaction, first)?;
    let mut changed = Vec::new();
    for preview in &existing {
        let path = preview.record.config_path.as_ref();
        let is_configured = configs.iter().any(|config| Some(&config.path) == path);
        let is_wanted = first.desired == Presence::Present && is_configured;
        if set_head(transaction, first, preview, is_wanted)? {
            changed.push(preview.record.slug.clone());
        }
    }
    if first.desired == Presence::Absent {
        return Ok(changed);
    }
    let has = |path: &SourcePath| {
        let mut paths = existing.iter().map(|preview| &preview.record.config_path);
        paths.any(|other| other.as_ref() == Some(path))
    };
    for config in configs {
        if config.exists && !has(&config.path) {
            changed.push(create(transaction, first, config)?);
        }
    }
    Ok(changed)
}

/// Gives a preview the head and the approval of the first one. Reports whether that changed anything.
fn set_head(
    transaction: &Transaction<'_>,
    first: &Preview,
    preview: &Preview,
    is_wanted: bool,
) -> Result<bool, QueryError> {
    let slug = &preview.record.slug;
    if !is_wanted {
        let facts = [PreviewFact::Desired(Presence::Absent)];
        previews::apply(transaction, slug, &facts)?;
        return Ok(preview.desired != Presence::Absent);
    }
    let approval = set_approval(transaction, first, preview)?;
    if preview.details != first.details {
        let facts = [PreviewFact::Details(first.details.clone())];
        previews::apply(transaction, slug, &facts)?;
    }
    let is_current = preview.desired == Presence::Present
        && preview.record.wanted_sha == first.record.wanted_sha
        && preview.record.head_repo == first.record.head_repo;
    if is_current {
        return Ok(approval);
    }
    let facts = [
        PreviewFact::Desired(Presence::Present),
        PreviewFact::Head {
            repo: first.record.head_repo.clone(),
            branch: first.record.branch.clone(),
            sha: first.record.wanted_sha.clone(),
        },
        PreviewFact::State(PreviewState::Queued),
        PreviewFact::Fault(None),
    ];
    previews::apply(transaction, slug, &facts)?;
    Ok(true)
}

/// Copies the approval of the first preview. Reports whether it differed.
fn set_approval(
    transaction: &Transaction<'_>,
    first: &Preview,
    preview: &Preview,
) -> Result<bool, QueryError> {
    let slug = &preview.record.slug;
    let (before, now) = (&preview.record.approved_sha, &first.record.approved_sha);
    previews::copy_approval(transaction, first, slug)?;
    if before == now {
        return Ok(false);
    }
    let mut facts = vec![PreviewFact::State(PreviewState::Queued)];
    if now.is_none() {
        // Withdrawn: its worker stops it.
        facts.extend([PreviewFact::NotLive, PreviewFact::Dirty(false)]);
    }
    previews::apply(transaction, slug, &facts)?;
    Ok(true)
}

fn create(
    transaction: &Transaction<'_>,
    first: &Preview,
    config: &AdditionalConfig,
) -> Result<GuestName, QueryError> {
    for slug in &config.slugs {
        held::refuse(transaction, slug)?;
        if previews::is_free(transaction, slug)? {
            previews::insert_additional(transaction, &first.record, &config.path, slug)?;
            previews::copy_approval(transaction, first, slug)?;
            let facts = [PreviewFact::Details(first.details.clone())];
            previews::apply(transaction, slug, &facts)?;
            return Ok(slug.clone());
        }
    }
    let owner = format!("{}:{}", first.record.slug, config.path);
    let candidates = config.slugs.clone();
    Err(StoreError::SlugsTaken { owner, candidates }.into())
}
