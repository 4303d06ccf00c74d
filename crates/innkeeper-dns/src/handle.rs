//! From a packet to its response, or to the name servers. The sockets are elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use innkeeper_model::{SlotRange, settled};

use crate::hosts::Hosts;
use crate::message::{Query, Received, receive};

/// What to do with a packet.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Send this response.
    Respond(Vec<u8>),
    /// Forward the query to the name servers.
    Forward(Box<Query>),
    /// Send nothing.
    Ignore,
}

/// A client by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// A guest, by its address and its gateway's.
    Guest { guest: Ipv4Addr, gateway: Ipv4Addr },
    /// A program of the host, such as the daemon, which checks that this program responds.
    Host,
    /// Anybody else.
    Stranger,
}

impl Client {
    /// Returns the client with this address. The firewall has verified guests' addresses.
    pub(crate) fn of(peer: IpAddr, subnet: SlotRange) -> Self {
        let IpAddr::V4(peer) = peer.to_canonical() else {
            return Self::Stranger;
        };
        match subnet.addresses_of(peer) {
            Some(addresses) => Self::Guest {
                guest: addresses.guest,
                gateway: addresses.host,
            },
            None if peer.is_loopback() => Self::Host,
            None => Self::Stranger,
        }
    }
}

/// Decides about a packet of a client.
pub(crate) fn decide(client: Client, packet: &[u8], hosts: &Hosts, subnet: SlotRange) -> Decision {
    if client == Client::Stranger {
        return Decision::Ignore;
    }
    let query = match receive(packet) {
        Received::Query(query) => query,
        Received::Invalid(response) => return Decision::Respond(response),
        Received::Ignored => return Decision::Ignore,
    };
    if query.is_in(settled::ZONE) {
        // Other previews' addresses are none of a guest's business, and the name servers know no such names.
        return Decision::Respond(match client {
            Client::Host => route(&query, hosts, subnet),
            Client::Guest { .. } | Client::Stranger => query.absence(),
        });
    }
    let Client::Guest { guest, gateway } = client else {
        // The host has a resolver of its own.
        return Decision::Respond(if query.is_for_version() {
            query.version()
        } else {
            query.refusal()
        });
    };
    match query.host() {
        Some(host) if hosts.contains(guest, &host) => Decision::Respond(query.address(gateway)),
        _ => Decision::Forward(query),
    }
}

/// Resolves a name of a settled route, for Caddy. All addresses are those of guests.
fn route(query: &Query, hosts: &Hosts, subnet: SlotRange) -> Vec<u8> {
    let is_guest = |address: &Ipv4Addr| subnet.addresses_of(*address).is_some();
    let name = query.host().unwrap_or_default();
    let Some(name) = name
        .strip_suffix(settled::ZONE)
        .and_then(|name| name.strip_suffix('.'))
    else {
        return query.absence();
    };
    if let Some(guest) = settled::parse_label(name).filter(is_guest) {
        return query.address(guest);
    }
    match hosts.app(name).filter(|app| is_guest(app.ip())) {
        Some(app) => {
            let guest = format!("{}.{}.", settled::label_of(*app.ip()), settled::ZONE);
            query.service(app, &guest)
        }
        None => query.absence(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
