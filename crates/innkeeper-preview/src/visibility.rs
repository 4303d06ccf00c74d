//! The visitors of previews: the strictest of the host's setting, the repository's file and the command applies.
//!
//! # A stricter setting holds at once
//!
//! It is recorded, then published for the gateway, and then the present route is changed. All routes are written under a lock
//! of their preview, with the visibility that is recorded at that time, so that none with a former one follows. After a crash
//! between record and route, [`Visitors::enforce_all`] changes the routes before the daemon does anything else.

use std::sync::Arc;

use innkeeper_engine::KeyedLocks;
use innkeeper_facilities::{AccessList, RouteSpec, Routes};
use innkeeper_model::access::{AccessFile, AccessGrant, PreviewAccess};
use innkeeper_model::preview::api::VisibilityReport;
use innkeeper_model::preview::{Meta, Visibility};
use innkeeper_model::{Code, GuestName, chain};
use innkeeper_store::{Preview, PreviewFact, Store, StoredGrant};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tracing::warn;

use crate::journal::Journal;
use crate::{PreviewError, PreviewsConfig, records};

/// The visitors of all previews. Clones share their locks.
#[derive(Clone)]
pub(crate) struct Visitors {
    config: Arc<PreviewsConfig>,
    store: Store,
    routes: Arc<dyn Routes>,
    list: Arc<dyn AccessList>,
    journal: Journal,
    /// Held while the route of a preview is written.
    routing: Arc<KeyedLocks<GuestName>>,
    /// The published list. Held from the query of the records until it is published, so that an older state never replaces a
    /// newer one.
    published: Arc<Mutex<Option<AccessFile>>>,
}

impl Visitors {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        routes: Arc<dyn Routes>,
        list: Arc<dyn AccessList>,
        journal: Journal,
    ) -> Self {
        Self {
            config,
            store,
            routes,
            list,
            journal,
            routing: Arc::default(),
            published: Arc::default(),
        }
    }

    /// Puts a route in force with the recorded visibility, unless it is.
    ///
    /// # Errors
    /// The proxy refuses the route, or the list for the gateway cannot be written for a preview that is not public. Such a route
    /// is in force all the same: the gateway admits nobody to a preview that it does not know.
    pub(crate) async fn put_route(&self, spec: RouteSpec) -> Result<(), PreviewError> {
        let slug = spec.slug.clone();
        let _routing = self.routing.lock(&slug).await;
        let spec = self.checked(spec).await?;
        let is_listed = spec.checked || self.is_listed(&slug).await;
        let published = match is_listed {
            true => self.publish().await,
            false => Ok(()),
        };
        if !self.routes.is_complete(&spec).await? {
            self.routes.ensure(&spec).await?;
        }
        self.require_list(&slug, spec.checked, published)
    }

    /// Returns a route as the recorded visibility requires it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn checked(&self, spec: RouteSpec) -> Result<RouteSpec, PreviewError> {
        let preview = self.store.preview(&spec.slug).await?;
        // Without a record, its visitors are unknown.
        let checked = preview.is_none_or(|preview| self.visibility(&preview).is_checked());
        Ok(RouteSpec { checked, ..spec })
    }

    /// Changes the present route of a preview to its recorded visibility.
    ///
    /// # Errors
    /// The route cannot be changed, or the list for the gateway cannot be written.
    pub(crate) async fn enforce(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let published = self.publish().await;
        let checked = self.change_route(slug).await?;
        self.require_list(slug, checked, published)
    }

    /// Changes the present route of a preview to its recorded visibility, and returns whether its visitors are checked.
    async fn change_route(&self, slug: &GuestName) -> Result<bool, PreviewError> {
        let _routing = self.routing.lock(slug).await;
        let preview = self.store.preview(slug).await?;
        let checked = preview.is_none_or(|preview| self.visibility(&preview).is_checked());
        self.routes.set_checked(slug, checked).await?;
        Ok(checked)
    }

    /// Changes the routes of all previews to their recorded visibility. Goes on after an error, and logs it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn enforce_all(&self) -> Result<(), PreviewError> {
        let published = self.publish().await;
        for preview in self.store.previews().await? {
            let slug = &preview.record.slug;
            if let Err(error) = self.change_route(slug).await {
                warn!(%slug, "the visibility is not in force: {}", chain(&error));
            }
        }
        published
    }

    /// Fails for a preview that is not public if the list was not published, and logs the failure for others.
    fn require_list(
        &self,
        slug: &GuestName,
        checked: bool,
        published: Result<(), PreviewError>,
    ) -> Result<(), PreviewError> {
        match published {
            Err(error) if !checked => {
                warn!(%slug, "the list of previews for innkeeper-gateway is outdated: {}", chain(&error));
                Ok(())
            }
            published => published,
        }
    }

    /// Publishes the previews that are not public and their grants, unless that list is published.
    ///
    /// # Errors
    /// The store cannot be read, or the list cannot be written.
    pub(crate) async fn publish(&self) -> Result<(), PreviewError> {
        let mut published = self.published.lock().await;
        let list = self.list().await?;
        if published.as_ref() != Some(&list) {
            self.list.publish(&list).await?;
            *published = Some(list);
        }
        Ok(())
    }

    /// Reports whether the published list has a preview.
    async fn is_listed(&self, slug: &GuestName) -> bool {
        let published = self.published.lock().await;
        let mut previews = published.iter().flat_map(|list| &list.previews);
        previews.any(|preview| preview.slug == *slug)
    }

    async fn list(&self) -> Result<AccessFile, PreviewError> {
        let previews = self.store.previews().await?;
        let previews: Vec<_> = previews
            .iter()
            .filter_map(|preview| self.access_of(preview))
            .collect();
        let now = Timestamp::now();
        let is_valid = |grant: &StoredGrant| {
            let is_listed = previews.iter().any(|preview| preview.slug == grant.slug);
            is_listed && grant.record.expires_at > now
        };
        let mut grants = self.store.grants().await?;
        grants.retain(is_valid);
        Ok(AccessFile {
            version: AccessFile::VERSION,
            grants: grants.into_iter().map(published_grant).collect(),
            previews,
        })
    }

    /// Returns a preview as the gateway needs it. `None` for a public one.
    fn access_of(&self, preview: &Preview) -> Option<PreviewAccess> {
        let visibility = self.visibility(preview);
        let record = &preview.record;
        let mut hosts = vec![self.config.host(&record.slug).to_ascii_lowercase()];
        for meta in metas(preview) {
            for label in meta.labels(&record.slug).unwrap_or_default() {
                let host = self.config.host(&label).to_ascii_lowercase();
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
        }
        visibility.is_checked().then(|| PreviewAccess {
            slug: record.slug.clone(),
            hosts,
            visibility,
            repo: record.repo.clone(),
            fork: record.is_from_fork(),
        })
    }

    /// Returns the visitors that a preview's URLs serve.
    pub(crate) fn visibility(&self, preview: &Preview) -> Visibility {
        self.report(preview).visibility
    }

    /// Returns the visitors that a preview's URLs serve, and where they are set.
    pub(crate) fn report(&self, preview: &Preview) -> VisibilityReport {
        let host = self.config.visibilities.of(&preview.record.repo);
        let file = metas(preview).filter_map(|meta| meta.visibility).max();
        let command = preview.visibility;
        let visibility = [Some(host), file, command].into_iter().flatten().max();
        let visibility = visibility.unwrap_or_default();
        VisibilityReport {
            visibility,
            host,
            file,
            command,
            closed: visibility.is_checked() && !self.config.checks_visitors,
        }
    }

    /// Records the visitors of a preview, and puts them in force.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`]; another setting is stricter; the host cannot check visitors.
    pub(crate) async fn set(
        &self,
        slug: &GuestName,
        visibility: Option<Visibility>,
    ) -> Result<VisibilityReport, PreviewError> {
        let preview = records::require(&self.store, slug).await?;
        if let Some(visibility) = visibility {
            self.require_possible(&preview, visibility)?;
        }
        let facts = vec![PreviewFact::Visibility(visibility)];
        let recorded = self.store.set_preview(slug, facts);
        let preview = self.journal.step("record-visibility", recorded).await?;
        let enforced = self.enforce(slug);
        self.journal.step("enforce-visibility", enforced).await?;
        Ok(self.report(&preview))
    }

    /// Refuses visitors that cannot be checked, and those that another setting excludes.
    fn require_possible(
        &self,
        preview: &Preview,
        visibility: Visibility,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        if visibility.is_checked() && !self.config.checks_visitors {
            return Err(PreviewError::new(
                Code::VisitorsUnchecked,
                format!(
                    "preview '{slug}' cannot be {visibility}: this host has no gateway to check visitors"
                ),
                "Set gateway.enabled = true in innkeeperd's configuration; docs/private-previews.md explains the setup.",
            ));
        }
        let report = self.report(preview);
        let (least, place) = match report.file {
            Some(file) if file > report.host => (file, "preview-config.nix".to_owned()),
            _ => {
                let repo = &preview.record.repo;
                (report.host, format!("the host's setting for {repo}"))
            }
        };
        if visibility < least {
            return Err(PreviewError::new(
                Code::VisibilityTooOpen,
                format!("preview '{slug}' cannot be {visibility}: {place} is {least}"),
                format!(
                    "`preview share {slug}` opens it to a person; or change {place} to {visibility}."
                ),
            ));
        }
        Ok(())
    }
}

fn metas(preview: &Preview) -> impl Iterator<Item = &Meta> {
    preview.live_meta.iter().chain(&preview.meta)
}

fn published_grant(grant: StoredGrant) -> AccessGrant {
    AccessGrant {
        id: grant.record.id,
        slug: grant.slug,
        kind: grant.record.kind,
        sha256: grant.digest.iter().map(|b| format!("{b:02x}")).collect(),
        expires: Some(grant.record.expires_at),
    }
}

#[cfg(test)]
mod tests;
