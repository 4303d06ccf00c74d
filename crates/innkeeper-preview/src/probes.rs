//! The requests that show whether an app answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use innkeeper_model::preview::{Meta, RouteProtocol};

/// A request that shows whether an app answers.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) protocol: RouteProtocol,
    /// Whether the repository declares the path as that of the app's health.
    is_health: bool,
}

impl Probe {
    /// Reports whether the status shows an app that is ready: at a health path no error, elsewhere no error of the server.
    pub(crate) fn accepts(&self, status: u16) -> bool {
        match self.is_health {
            true => (200..400).contains(&status),
            false => status < 500,
        }
    }
}

/// Returns the requests: the health paths of each port, or one path of its routes if it has none.
pub(crate) fn probes(meta: &Meta) -> BTreeSet<Probe> {
    let hosts = meta.extra_hosts.iter().flat_map(|host| &host.routes);
    let rules: Vec<_> = meta.routes.iter().chain(hosts).collect();
    let health: BTreeSet<_> = (rules.iter())
        .filter_map(|rule| {
            Some(Probe {
                port: rule.port,
                protocol: rule.protocol,
                path: rule.health_path.as_ref()?.to_string(),
                is_health: true,
            })
        })
        .collect();
    let others: BTreeMap<_, _> = (rules.iter())
        .filter(|rule| health.iter().all(|probe| probe.port != rule.port))
        .map(|rule| {
            let base = if rule.strip_prefix {
                "/"
            } else {
                rule.path.base()
            };
            let path = if base.is_empty() { "/" } else { base };
            (rule.port, (rule.protocol, path.to_owned()))
        })
        .collect();
    let others = others.into_iter().map(|(port, (protocol, path))| Probe {
        port,
        path,
        protocol,
        is_health: false,
    });
    health.into_iter().chain(others).collect()
}

/// Returns the addresses of an app's ports.
pub(crate) fn endpoints(meta: &Meta, address: Ipv4Addr) -> Vec<SocketAddr> {
    let ports: BTreeSet<_> = probes(meta).into_iter().map(|probe| probe.port).collect();
    (ports.into_iter())
        .map(|port| SocketAddr::from((address, port)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_requested_once_each() {
        let meta = Meta::parse(
            r#"{"setupService":"s","appServices":["a"],"database":"container",
                "routes":[{"path":"/","port":3000},{"path":"/api/*","port":4000,"stripPrefix":true}],
                "extraHosts":[{"prefix":"admin","routes":[{"path":"/","port":4000}]}]}"#,
        )
        .expect("valid");
        let requested: Vec<_> = probes(&meta)
            .into_iter()
            .map(|probe| (probe.port, probe.path))
            .collect();
        assert_eq!(requested, [(3000, "/".to_owned()), (4000, "/".to_owned())]);
    }

    #[test]
    fn health_path_replaces_the_path_of_the_route() {
        let meta = Meta::parse(
            r#"{"setupService":"s","appServices":["a"],"database":"container",
                "routes":[{"path":"/","port":3000},{"path":"/api/*","port":4000,"healthPath":"/api/health?x=1"},
                          {"path":"/ws","port":4000}]}"#,
        )
        .expect("valid");
        let probes: Vec<_> = probes(&meta).into_iter().collect();
        let shown: Vec<_> = (probes.iter())
            .map(|probe| (probe.port, probe.path.as_str(), probe.is_health))
            .collect();
        assert_eq!(shown, [(3000, "/", false), (4000, "/api/health?x=1", true)]);
        for (status, is_ready) in [
            (199, false),
            (200, true),
            (302, true),
            (404, false),
            (503, false),
        ] {
            assert_eq!(probes[1].accepts(status), is_ready, "{status}");
        }
        // An app without a health path may require a login.
        assert!(probes[0].accepts(401));
        assert!(!probes[0].accepts(500));
    }
}
