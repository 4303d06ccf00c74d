//! Routes of previews: to the app, or to a page with the preview's state.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_facilities::{RouteSpec, RouteState, Routes};
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::page::Interruption;
use innkeeper_model::{Code, Explain as _, GuestKind, GuestName};
use innkeeper_store::{Preview, Store};
use jiff::Timestamp;

use crate::PreviewError;
use crate::guests::Guests;
use crate::health::Health;
use crate::pages::StatusPages;
use crate::probes::endpoints;
use crate::visibility::Visitors;
use crate::visitor_wakes::VisitorWakes;

/// Routes of previews.
#[derive(Clone)]
pub(crate) struct Routing {
    routes: Arc<dyn Routes>,
    visitors: Visitors,
    store: Store,
    guests: Guests,
    health: Health,
    pages: StatusPages,
    visitor_wakes: VisitorWakes,
}

impl Routing {
    pub(crate) fn new(
        routes: Arc<dyn Routes>,
        visitors: Visitors,
        store: Store,
        guests: Guests,
        health: Health,
        pages: StatusPages,
        visitor_wakes: VisitorWakes,
    ) -> Self {
        Self {
            routes,
            visitors,
            store,
            guests,
            health,
            pages,
            visitor_wakes,
        }
    }

    /// Returns the route to an app at an address. [`Visitors`] completes it.
    pub(crate) fn to_app(slug: &GuestName, meta: &Meta, address: Ipv4Addr) -> RouteSpec {
        RouteSpec {
            slug: slug.clone(),
            guest_address: address,
            routes: meta.routes.clone(),
            extra_hosts: meta.extra_hosts.clone(),
            state: RouteState::Live,
            checked: true,
        }
    }

    /// Points the preview's URLs to its app, unless they are complete, and watches the app from then on.
    ///
    /// # Errors
    /// The guest does not exist, or the proxy refuses the route.
    pub(crate) async fn ensure(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        let address = self.point_to_app(slug, meta).await?;
        self.health.serve(slug, endpoints(meta, address));
        Ok(())
    }

    /// Returns the guest's address.
    async fn point_to_app(&self, slug: &GuestName, meta: &Meta) -> Result<Ipv4Addr, PreviewError> {
        let address = self.address(slug).await?;
        let spec = Self::to_app(slug, meta, address);
        self.visitors.put_route(spec).await?;
        self.pages.set_interruption(slug, None).await;
        Ok(address)
    }

    /// Points the preview's URLs to its app whose guest is paused, unless they are complete. Requests wait until the guest
    /// is woken. The app is not watched meanwhile: probes would fill the queues of its sockets.
    ///
    /// # Errors
    /// The guest does not exist, or the proxy refuses the route.
    pub(crate) async fn keep_for_paused(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        self.point_to_app(slug, meta).await?;
        self.health.excuse(slug);
        self.health.suspend(slug);
        Ok(())
    }

    /// Ends the watch of an app whose guest is about to be paused.
    pub(crate) fn suspend_watch(&self, slug: &GuestName) {
        self.health.suspend(slug);
    }

    /// Has requests to the preview's URLs wait for its app, which is about to be restarted or is down.
    ///
    /// # Errors
    /// The guest does not exist, or the proxy refuses the route.
    pub(crate) async fn hold(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        self.health.suspend(slug);
        let restarting = Some(Interruption::Restarting);
        self.pages.set_interruption(slug, restarting).await;
        self.route_to_hold(slug, meta).await
    }

    async fn route_to_hold(&self, slug: &GuestName, meta: &Meta) -> Result<(), PreviewError> {
        let spec = RouteSpec {
            state: RouteState::Held,
            ..Self::to_app(slug, meta, self.address(slug).await?)
        };
        self.visitors.put_route(spec).await
    }

    async fn address(&self, slug: &GuestName) -> Result<Ipv4Addr, PreviewError> {
        let guest = self.guests.record(slug).await?;
        self.guests.address(&guest)
    }

    /// Reports whether a route is in force.
    ///
    /// # Errors
    /// That cannot be queried, or a host belongs to another preview.
    pub(crate) async fn is_complete(&self, spec: RouteSpec) -> Result<bool, PreviewError> {
        let spec = self.visitors.checked(spec).await?;
        Ok(self.routes.is_complete(&spec).await?)
    }

    /// Changes the present route to the recorded visibility.
    ///
    /// # Errors
    /// The route cannot be changed.
    pub(crate) async fn enforce_visibility(&self, slug: &GuestName) -> Result<(), PreviewError> {
        self.visitors.enforce(slug).await
    }

    /// Points the preview's URLs to its page.
    ///
    /// # Errors
    /// The proxy refuses the route.
    pub(crate) async fn show_page(&self, preview: &Preview) -> Result<(), PreviewError> {
        // Before the route: visitors must find it.
        let slug = &preview.record.slug;
        self.pages.set_interruption(slug, None).await;
        self.pages.write(slug).await;
        self.route_to_page(preview).await
    }

    /// Points the preview's URLs to a page that says that a user stopped its guest.
    ///
    /// # Errors
    /// As for [`Self::show_page`].
    pub(crate) async fn show_stopped(&self, preview: &Preview) -> Result<(), PreviewError> {
        self.show_interruption(preview, Interruption::Stopped).await
    }

    /// Has requests to the preview's URLs wake its guest, which is asleep, and wait for its app. Without a version that is
    /// served, they get a page.
    ///
    /// # Errors
    /// As for [`Self::hold`].
    pub(crate) async fn show_asleep(&self, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        if self.visitor_wakes.includes(slug) {
            return Ok(());
        }
        self.health.excuse(slug);
        self.health.suspend(slug);
        let failure = self.guests.record(slug).await?.wake_failure;
        // Before the route: innkeeper-pages reads from it that a request wakes the guest.
        // A wake that begins meanwhile has requests wait longer.
        let is_woken = || self.visitor_wakes.includes(slug);
        self.pages.fall_asleep_unless(slug, failure, is_woken).await;
        match &preview.live_meta {
            Some(meta) => self.route_to_hold(slug, meta).await,
            None => self.route_to_page(preview).await,
        }
    }

    /// Shows visitors that the guest did not wake a moment ago, and when a request wakes it again.
    pub(crate) async fn refuse_wake(&self, slug: &GuestName, retry_in: Duration) {
        let guest = self.guests.record(slug).await.ok();
        let failure = guest.and_then(|guest| guest.wake_failure);
        self.pages.fall_asleep(slug, failure, Some(retry_in)).await;
    }

    /// Shows visitors that a request wakes the guest.
    pub(crate) async fn show_waking(&self, slug: &GuestName) {
        self.pages.begin_wake(slug).await;
    }

    async fn show_interruption(
        &self,
        preview: &Preview,
        interruption: Interruption,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        self.health.excuse(slug);
        self.pages.set_interruption(slug, Some(interruption)).await;
        self.route_to_page(preview).await
    }

    async fn route_to_page(&self, preview: &Preview) -> Result<(), PreviewError> {
        let record = &preview.record;
        self.health.suspend(&record.slug);
        let meta = preview.meta.as_ref();
        let spec = RouteSpec {
            slug: record.slug.clone(),
            guest_address: Ipv4Addr::UNSPECIFIED,
            routes: Vec::new(),
            extra_hosts: meta
                .map(|meta| meta.extra_hosts.clone())
                .unwrap_or_default(),
            state: RouteState::Placeholder,
            checked: true,
        };
        self.visitors.put_route(spec).await
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
            if let Some(guest) = self.store.guest(&label).await?
                && guest.kind == GuestKind::Agent
            {
                return Err(PreviewError::new(
                    Code::SlugConflict,
                    format!("the extra host '{label}' of preview '{slug}' is the name of an agent"),
                    format!(
                        "Choose another prefix in extraHosts, or remove it: `agent destroy {label}`."
                    ),
                ));
            }
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

    /// Removes all routes of a preview, and then its status.
    ///
    /// # Errors
    /// A route is left, or the status.
    pub(crate) async fn remove(&self, slug: &GuestName) -> Result<(), PreviewError> {
        self.health.forget(slug);
        self.routes.remove(slug).await?;
        self.pages.remove(slug).await
    }

    /// Returns the previews that were visited since the last call, each with the time of a visit.
    ///
    /// # Errors
    /// The visits cannot be read.
    pub(crate) async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, PreviewError> {
        Ok(self.routes.visits().await?)
    }
}
