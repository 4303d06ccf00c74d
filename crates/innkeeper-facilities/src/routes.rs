//! Routes of previews.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use innkeeper_model::GuestName;
use innkeeper_model::preview::{ExtraHost, RouteRule};
use jiff::Timestamp;

use crate::error::FacilityError;
use crate::resource::Resource;

/// The desired route of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The preview: `<slug>.<domain>` is its host.
    pub slug: GuestName,
    /// Its guest's address.
    pub guest_address: Ipv4Addr,
    /// The app's routes, in any order: the longest path that fits wins.
    pub routes: Vec<RouteRule>,
    /// Additional hosts.
    pub extra_hosts: Vec<ExtraHost>,
    /// The target of requests.
    pub state: RouteState,
    /// True if visitors are checked before anything is served: the preview is not public.
    pub checked: bool,
}

/// The target of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// The app.
    Live,
    /// The app, which is being restarted. A request waits a few seconds until the app accepts connections; then it gets
    /// the page, and programs a 503 with `Retry-After`.
    Held,
    /// The preview's page ([`Pages`](crate::Pages)), because the app is not available. Programs get a 503 with `Retry-After`.
    Placeholder,
}

/// Routes from a preview's hosts to its guest.
#[async_trait]
pub trait Routes: Resource {
    /// Creates or replaces the preview's route and returns when it is in force. The replacement is atomic: no request
    /// sees a part of each. Other previews' connections stay open.
    ///
    /// # Errors
    /// When a host belongs to another preview, or the proxy refuses the route. The former route stays in force then.
    async fn ensure(&self, spec: &RouteSpec) -> Result<(), FacilityError>;

    /// Marks the preview's files if a former release wrote them without a mark.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError>;

    /// Reports whether the preview's route is in force as [`Self::ensure`] leaves it, without changing anything.
    ///
    /// # Errors
    /// When that cannot be determined, or a host belongs to another preview.
    async fn is_complete(&self, spec: &RouteSpec) -> Result<bool, FacilityError>;

    /// Returns the previews that were requested through their URLs since the last call, each with the time of one
    /// request. Empty where the file system records no access times (`noatime`).
    ///
    /// # Errors
    /// When the files of the routes cannot be read.
    async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, FacilityError>;

    /// Has the visitors of the preview's present route checked, or not, and returns when that is in force. The change is atomic.
    /// Without a route it has no effect.
    ///
    /// # Errors
    /// When the files of the routes cannot be read or written. The former state stays in force then.
    async fn set_checked(&self, preview: &GuestName, checked: bool) -> Result<(), FacilityError>;

    /// Makes requests faster of routes that have not changed for a while. Call it every few seconds; most calls change nothing.
    ///
    /// # Errors
    /// When the files of the routes cannot be read or written. All routes stay in force.
    async fn settle(&self) -> Result<(), FacilityError>;
}
