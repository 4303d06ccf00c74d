//! Facts of the host that guests and the firewall depend on: its name servers, and the MTU of its way to the internet.
//!
//! The kernel announces changes of files and routes; what has come of them is compared with what was known. The rest of
//! what guests share with the host is not taken over: rules name no address of the host, and guests have a time zone of
//! their own.

mod files;
mod routes;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use crate::network::VethNetwork;
use crate::secrets::NameServers;
use files::FileNews;
use routes::RouteNews;

/// How long further news is waited for: files are written in several steps, and routes go before they come.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches the host.
#[derive(Debug)]
pub struct HostFacts {
    nameservers: NameServers,
    network: Arc<VethNetwork>,
    known: Mutex<Option<Facts>>,
}

/// The facts at some time. What could not be read is as it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    nameservers: Vec<IpAddr>,
    mtu: Option<u32>,
}

impl HostFacts {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(nameservers: NameServers, network: Arc<VethNetwork>) -> Self {
        Self {
            nameservers,
            network,
            known: Mutex::new(None),
        }
    }

    /// Whether the facts differ from the known ones, which they are afterwards.
    async fn have_changed(&self) -> bool {
        let mtu = self.network.uplink_mtu().await;
        let nameservers = self.nameservers.read();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.clone().unwrap_or_default();
        let now = Facts {
            nameservers: nameservers.unwrap_or(before.nameservers),
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
        // Subscribed before the first look, so that nothing happens in between.
        let routes = RouteNews::subscribe()
            .inspect_err(|error| warn!(%error, "changes of routes are noticed late"))
            .ok();
        loop {
            // Each time anew: links lead elsewhere than before.
            let files = FileNews::subscribe(self.nameservers.files())
                .inspect_err(|error| warn!(%error, "changes of name servers are noticed late"))
                .ok();
            if self.have_changed().await {
                return;
            }
            let of_files = async {
                match &files {
                    Some(files) => files.next().await,
                    None => std::future::pending().await,
                }
            };
            let of_routes = async {
                match &routes {
                    Some(routes) => routes.next().await,
                    None => std::future::pending().await,
                }
            };
            let news = tokio::select! {
                news = of_files => news,
                news = of_routes => news,
            };
            if let Err(error) = news {
                warn!(%error, "changes of the host are noticed late");
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests;
