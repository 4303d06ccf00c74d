//! `etc/innkeeper/host.json`: facts of the host's configuration that no other file of a generation has in a form for
//! programs. The NixOS modules write it (`modules/manager/switch-preview.nix`).

use std::collections::BTreeSet;

use serde::Deserialize;

/// The file. Fields of other releases are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Facts {
    pub(crate) firewall: Firewall,
    /// The kind of the certificate, if the module configures Caddy.
    pub(crate) certificate: Option<String>,
}

/// The host's own firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Firewall {
    /// `nftables`, `iptables` or `none`.
    pub(crate) backend: String,
    /// Whether a reload removes the tables of others.
    pub(crate) flush_ruleset: bool,
    /// Ports that are open to everybody, as `tcp/443` or `udp/60000-61000`.
    pub(crate) ports: BTreeSet<String>,
    /// Ports that are open to guests, as far as the host's own firewall is concerned.
    pub(crate) guest_ports: BTreeSet<String>,
}
