//! Routes of previews: to the app, or to a page with the preview's state.

use std::net::Ipv4Addr;
use std::sync::Arc;

use innkeeper_facilities::{RouteSpec, RouteState, Routes};
use innkeeper_model::preview::{Meta, PreviewState};
use innkeeper_model::{Code, Explain as _, GuestName};
use innkeeper_store::{Preview, Store};
use jiff::Timestamp;

use crate::PreviewError;
use crate::guests::Guests;
use crate::health::Health;
use crate::journal::Journal;
use crate::probes::endpoints;

/// Number of the log's lines on the page of a preview whose app does not answer yet.
const PAGE_LINES: usize = 12;

/// State on the page of a preview whose guest was stopped by a user.
const STOPPED: &str = "stopped";

/// Routes of previews.
#[derive(Clone)]
pub(crate) struct Routing {
    routes: Arc<dyn Routes>,
    store: Store,
    journal: Journal,
    guests: Guests,
    health: Health,
}

impl Routing {
    pub(crate) fn new(
        routes: Arc<dyn Routes>,
        store: Store,
        journal: Journal,
        guests: Guests,
        health: Health,
    ) -> Self {
        Self {
            routes,
            store,
            journal,
            guests,
            health,
        }
    }

    /// Returns the route to an app at an address.
    pub(crate) fn to_app(slug: &GuestName, meta: &Meta, address: Ipv4Addr) -> RouteSpec {
        RouteSpec {
            slug: slug.clone(),
            guest_address: address,
            routes: meta.routes.clone(),
            extra_hosts: meta.extra_hosts.clone(),
            state: RouteState::Live,
        }
    }

    /// Points the preview's URLs to its app, unless they are complete, and watches the app from then on.
    ///
    /// # Errors
    /// The guest does not exist, or the proxy refuses the route.
    pub(crate) async fn ensure(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        let address = self.address(slug).await?;
        let spec = Self::to_app(slug, meta, address);
        if !self.routes.is_complete(&spec).await? {
            self.routes.ensure(&spec).await?;
        }
        self.health.serve(slug, endpoints(meta, address));
        Ok(())
    }

    /// Has requests to the preview's URLs wait for its app, which is about to be restarted or is down.
    ///
    /// # Errors
    /// The guest does not exist, or the proxy refuses the route.
    pub(crate) async fn hold(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        self.health.suspend(slug);
        let spec = RouteSpec {
            state: RouteState::Held,
            ..Self::to_app(slug, meta, self.address(slug).await?)
        };
        if !self.routes.is_complete(&spec).await? {
            self.routes.ensure(&spec).await?;
        }
        Ok(())
    }

    async fn address(&self, slug: &GuestName) -> Result<Ipv4Addr, PreviewError> {
        let guest = self.guests.record(slug).await?;
        self.guests.address(&guest)
    }

    /// Reports whether a route is in force.
    ///
    /// # Errors
    /// That cannot be queried, or a host belongs to another preview.
    pub(crate) async fn is_complete(&self, spec: &RouteSpec) -> Result<bool, PreviewError> {
        Ok(self.routes.is_complete(spec).await?)
    }

    /// Points the preview's URLs to a page with its state and the end of its log.
    ///
    /// # Errors
    /// The log cannot be read, or the proxy refuses the route.
    pub(crate) async fn show_page(
        &self,
        preview: &Preview,
        state: PreviewState,
    ) -> Result<(), PreviewError> {
        let state = state.as_str().replace('-', " ");
        self.show_page_with(preview, state).await
    }

    /// Points the preview's URLs to a page that says that a user stopped its guest.
    ///
    /// # Errors
    /// As for [`Self::show_page`].
    pub(crate) async fn show_stopped(&self, preview: &Preview) -> Result<(), PreviewError> {
        self.health.excuse(&preview.record.slug);
        self.show_page_with(preview, STOPPED.to_owned()).await
    }

    async fn show_page_with(&self, preview: &Preview, state: String) -> Result<(), PreviewError> {
        let record = &preview.record;
        self.health.suspend(&record.slug);
        let meta = preview.meta.as_ref();
        let mut log = self.journal.last_notes(&record.slug, PAGE_LINES).await?;
        // A missing permission of the host concerns no visitor.
        let fault = record.fault.as_ref();
        if let Some(fault) = fault.filter(|fault| fault.code != Code::NoAccess) {
            log.push(fault.message.clone());
            log.extend(fault.log.iter().cloned());
        }
        let spec = RouteSpec {
            slug: record.slug.clone(),
            guest_address: Ipv4Addr::UNSPECIFIED,
            routes: Vec::new(),
            extra_hosts: meta
                .map(|meta| meta.extra_hosts.clone())
                .unwrap_or_default(),
            state: RouteState::Placeholder { state, log },
        };
        Ok(self.routes.ensure(&spec).await?)
    }

    /// Requires that no host of a version belongs to another preview. Done before any of its steps: the version that is
    /// served now must not be given up for one whose route is refused.
    ///
    /// # Errors
    /// A host belongs to another preview.
    pub(crate) async fn require_free_hosts(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        self.require_unclaimed_slugs(slug, meta).await?;
        let spec = Self::to_app(slug, meta, Ipv4Addr::UNSPECIFIED);
        let is_refusal = |code| matches!(code, Code::SlugConflict | Code::PreviewConfigInvalid);
        match self.routes.is_complete(&spec).await {
            Err(error) if is_refusal(error.code()) => Err(error.into()),
            // The step that another failure affects reports it.
            _ => Ok(()),
        }
    }

    /// Refuses extra hosts that are other previews' slugs: they would take their visitors. From then on the store keeps
    /// new previews from such a slug.
    async fn require_unclaimed_slugs(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        for host in &meta.extra_hosts {
            let Ok(label) = host.label(slug) else {
                continue;
            };
            if let Some(other) = self.store.preview(&label).await? {
                return Err(PreviewError::new(
                    Code::SlugConflict,
                    format!(
                        "the extra host '{label}' of preview '{slug}' is the name of the preview of {}, branch '{}'",
                        other.record.repo, other.record.branch
                    ),
                    format!(
                        "Choose another prefix in extraHosts, or remove it: `preview destroy {label}`."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Removes all routes of a preview.
    ///
    /// # Errors
    /// A route is left.
    pub(crate) async fn remove(&self, slug: &GuestName) -> Result<(), PreviewError> {
        self.health.forget(slug);
        Ok(self.routes.remove(slug).await?)
    }

    /// Returns the previews that were visited since the last call, each with the time of a visit.
    ///
    /// # Errors
    /// The visits cannot be read.
    pub(crate) async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, PreviewError> {
        Ok(self.routes.visits().await?)
    }
}
