//! Facts of the host that guests and the firewall depend on: its name servers, the guests' resolver, and the MTU of its
//! default route.
//!
//! The kernel notifies changes of files and routes; the new facts are compared with the last known ones. Other facts do not
//! matter: rules contain no address of the host, and guests have a time zone of their own.

mod files;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tracing::warn;

use crate::network::VethNetwork;
use crate::secrets::NameServers;
use files::FileEvents;
use routes::RouteEvents;

/// Debounce interval: files are written in several steps, and a changed route is removed before it is added.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Watches the facts of the host.
#[derive(Debug)]
pub struct HostFacts {
    nameservers: NameServers,
    network: Arc<VethNetwork>,
    known: Mutex<Option<Facts>>,
}

/// The facts at one time. A fact that could not be read keeps its former value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    nameservers: Vec<IpAddr>,
    has_resolver: bool,
    mtu: Option<u32>,
}

impl HostFacts {
    /// Creates a watcher. It reads nothing yet.
    #[must_use]
    pub fn new(nameservers: NameServers, network: Arc<VethNetwork>) -> Self {
        Self {
            nameservers,
            network,
            known: Mutex::new(None),
        }
    }

    /// Reads the facts and reports whether they changed.
    async fn update(&self) -> bool {
        let mtu = self.network.uplink_mtu().await;
        let nameservers = self.nameservers.read();
        let mut known = self.known.lock();
        let before = known.clone().unwrap_or_default();
        let now = Facts {
            nameservers: nameservers.unwrap_or(before.nameservers),
            has_resolver: self.nameservers.listening_resolver().is_some(),
            mtu: mtu.unwrap_or(before.mtu),
        };
        if known.as_ref() == Some(&now) {
            return false;
        }
        *known = Some(now);
        true
    }
}

#[async_trait]
impl innkeeper_facilities::HostFacts for HostFacts {
    async fn changed(&self) {
        // Subscribe before the first read, so that no change is lost in between.
        let routes = RouteEvents::subscribe()
            .inspect_err(|error| warn!(%error, "cannot subscribe to changes of routes: the periodic resync finds them"))
            .ok();
        loop {
            // Subscribe again each time, because links may have new targets.
            let files = FileEvents::subscribe(&self.nameservers.files())
                .inspect_err(|error| warn!(%error, "cannot subscribe to changes of name servers: the periodic resync finds them"))
                .ok();
            if self.update().await {
                return;
            }
            let file_event = async {
                match &files {
                    Some(files) => files.next().await,
                    None => std::future::pending().await,
                }
            };
            let route_event = async {
                match &routes {
                    Some(routes) => routes.next().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = file_event => event,
                event = route_event => event,
            };
            if let Err(error) = event {
                warn!(%error, "lost the subscription to changes of the host: the periodic resync finds them");
                return std::future::pending().await;
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }
}

#[cfg(test)]
mod tests;
