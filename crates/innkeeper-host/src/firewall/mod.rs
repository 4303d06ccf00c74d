//! The host's own rules: one nftables table with NAT and the filter between guests and everything else.
//!
//! | from | to | |
//! | --- | --- | --- |
//! | guest | the internet | passes, with the host's address |
//! | guest | its own gateway address | echo requests, DNS and configured ports |
//! | guest | the host's other addresses | refused |
//! | guest | another guest | refused |
//! | guest | its name servers, on port 53 | passes, wherever they are |
//! | guest | private networks, the metadata address | refused |
//! | guest | anybody's port 25 | refused |
//! | guest, with a source that is not its own | anybody | dropped |
//! | the host | guest | passes |
//! | anybody else | guest | dropped |
//!
//! Builds with a network have a table of their own ([`BuildFilter`]).
//!
//! A guest's own interface is known by its [group](crate::network::INTERFACE_GROUP). Other tables are
//! neither read for decisions nor changed; what they drop stays dropped, and [`Firewall::check`] says so
//! when it would be the guests' packets.

mod builds;
mod listing;
mod mark;
mod port;
mod removals;
mod ruleset;
mod table;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Firewall};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, DaemonId, Explain, chain};
use ipnet::Ipv4Net;

use crate::command::{self, CommandError};
use crate::identity::Identity;
use crate::secrets::NameServers;
use crate::{FileError, FileErrorExt};
pub use builds::{BuildFilter, BuildFilterConfig};
use listing::DroppingChain;
pub use port::{HostPort, InvalidPort, Protocol};
use removals::Removals;
pub use ruleset::ruleset;
use table::Table;
use tokio::sync::{Mutex, OnceCell};
use tracing::warn;

const SUBJECT: &str = "firewall";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What can go wrong with the firewall.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The configured name is none that nftables takes.
    #[error(
        "'{0}' is no name for an nftables table: a letter, then at most 31 letters, digits and '_'"
    )]
    InvalidTable(String),
    /// `nft` did not do what it was asked.
    #[error("cannot {action}")]
    Nft {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: CommandError,
    },
    /// `nft` answered in a form that is not understood.
    #[error("nft's list of rules is not in the expected form")]
    Unreadable,
    /// The kernel does not answer about a table.
    #[error("cannot ask the kernel whose firewall table it has")]
    Netlink(#[source] io::Error),
    /// The table is another daemon's.
    #[error("the firewall table inet {table} belongs to another Innkeeper daemon ({daemon})")]
    OtherDaemon {
        /// The table.
        table: String,
        /// That daemon.
        daemon: DaemonId,
    },
    /// The table has no daemon's mark.
    #[error("the firewall table inet {table} exists and is not this daemon's")]
    Taken {
        /// The table.
        table: String,
    },
    /// The host's name servers, which guests may ask, cannot be read.
    #[error("cannot read the host's name servers")]
    NameServers(#[source] FileError),
    /// IP forwarding cannot be read or switched on.
    #[error("cannot switch on IP forwarding")]
    Forwarding(#[source] FileError),
}

impl From<FirewallError> for FacilityError {
    fn from(error: FirewallError) -> Self {
        Self::new(error)
    }
}

impl Explain for FirewallError {
    fn code(&self) -> Code {
        match self {
            Self::InvalidTable(_) => Code::InvalidConfig,
            Self::Nft { source, .. } => source.code_or(Code::NetworkFailed),
            Self::Unreadable | Self::Netlink(_) => Code::NetworkFailed,
            Self::OtherDaemon { .. } => Code::DaemonConflict,
            Self::Taken { .. } => Code::InvalidConfig,
            Self::NameServers(error) | Self::Forwarding(error) => {
                error.code_or(Code::NetworkFailed)
            }
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::InvalidTable(_) => "Set `network.table`, for example to \"innkeeper\".".to_owned(),
            Self::Nft { source, .. } => {
                return source.remedy().or_else(|| {
                    Some("Run innkeeperd as root on a kernel with nf_tables (`modprobe nf_tables nft_masq nft_fib_inet nft_reject_inet`).".to_owned())
                });
            }
            Self::OtherDaemon { table, .. } => format!(
                "Give this daemon a `network.table` of its own. If the other one is gone for good, remove its table with `nft delete table inet {table}`, and then start this one again."
            ),
            Self::Taken { table } => format!(
                "See what it is with `nft list table inet {table}`. Then set `network.table` to another name, or remove it with `nft delete table inet {table}`, and start the daemon again."
            ),
            Self::Netlink(_) => "Run innkeeperd as root, or give it CAP_NET_ADMIN.".to_owned(),
            Self::Unreadable => "Install nftables 1.0 or newer; `nft --version` shows what is there.".to_owned(),
            Self::NameServers(_) => {
                "Make the file readable for root, or set `network.nameservers`.".to_owned()
            }
            Self::Forwarding(_) => "Set `net.ipv4.ip_forward=1` in the host's own configuration (sysctl.d), where innkeeperd may not.".to_owned(),
        })
    }
}

/// The settings of [`NftFirewall`].
#[derive(Clone, Debug)]
pub struct FirewallConfig {
    /// The guests' addresses.
    pub subnet: Ipv4Net,
    /// The name of our table, in the family `inet`. A second daemon on the same host needs another one.
    pub table: String,
    /// Whether guests may ask the host's resolver, on port 53 of their gateway address.
    pub allow_dns: bool,
    /// Whether the kernel logs refused packets (at most ten a second), with the guest's interface.
    pub log_refusals: bool,
    /// The guests' name servers, unless the driver [follows](NftFirewall::following) those of the host. Guests may ask them even where a private network is refused otherwise.
    pub nameservers: Vec<Ipv4Addr>,
    /// Ports of the host that guests may reach, on their gateway address only.
    pub allowed_host_ports: Vec<HostPort>,
    /// Networks that guests may not reach, besides the ones that are private everywhere.
    pub extra_private: Vec<Ipv4Net>,
    /// The connections that a guest may have open at a time, to the world and to its gateway together.
    pub connections_per_guest: u32,
}

/// The driver of [`Firewall`]: an nftables table, written by `nft`.
#[derive(Debug)]
pub struct NftFirewall {
    config: FirewallConfig,
    /// Where the name servers come from; those of the configuration without.
    nameservers: Option<NameServers>,
    /// The rules that were written last.
    written: Mutex<Option<String>>,
    table: Table,
    /// The table that filters builds, which is kept in the same way.
    builds: Arc<BuildFilter>,
    /// There as soon as somebody has asked for it, if the kernel tells us.
    removals: OnceCell<Option<Removals>>,
}

impl NftFirewall {
    /// The driver. Nothing is changed before [`Firewall::ensure`].
    #[must_use]
    pub fn new(config: FirewallConfig, identity: Identity, builds: Arc<BuildFilter>) -> Self {
        Self {
            table: Table::new(config.table.clone(), identity),
            config,
            nameservers: None,
            written: Mutex::new(None),
            builds,
            removals: OnceCell::new(),
        }
    }

    /// Lets guests ask these name servers, as they are at each [`Firewall::ensure`].
    #[must_use]
    pub fn following(mut self, nameservers: NameServers) -> Self {
        self.nameservers = Some(nameservers);
        self
    }

    /// The rules as they should be now. Fails rather than without name servers: guests could resolve no names.
    fn rules(&self) -> Result<String, FirewallError> {
        let Some(source) = &self.nameservers else {
            return Ok(ruleset(&self.config));
        };
        let nameservers = source.read().map_err(FirewallError::NameServers)?;
        // Guests have no IPv6.
        let of_guests = nameservers.into_iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        Ok(ruleset(&FirewallConfig {
            nameservers: of_guests.collect(),
            ..self.config.clone()
        }))
    }

    /// Removes our tables, as if Innkeeper had never been there. IP forwarding stays as it is, because
    /// others may have come to rely on it.
    ///
    /// # Errors
    /// When the kernel refuses; the absence of the table is success.
    pub async fn remove(&self) -> Result<(), FirewallError> {
        *self.written.lock().await = None;
        self.builds.remove().await?;
        self.table.remove().await
    }

    /// Writes the rules, unless they are in force: with the table, the kernel would forget how many connections each
    /// guest has.
    async fn write(&self) -> Result<(), FirewallError> {
        let mut written = self.written.lock().await;
        let rules = match (self.rules(), &*written) {
            (Ok(rules), _) => rules,
            (Err(error), Some(last)) => {
                warn!(
                    "the firewall keeps the former name servers: {}",
                    chain(&error)
                );
                last.clone()
            }
            (Err(error), None) => return Err(error),
        };
        let is_known = written.as_ref() == Some(&rules);
        if !is_known || !matches!(self.table.difference().await, Ok(None)) {
            self.table.write(&rules).await?;
            *written = Some(rules);
        }
        forward().map_err(FirewallError::Forwarding)
    }

    async fn check_rules(&self) -> Result<Check, FirewallError> {
        let table = self.table.name()?;
        Ok(match self.table.difference().await? {
            None => check(Verdict::Ok, format!("the table inet {table} is in force"), None),
            Some(difference) => check(
                Verdict::Broken,
                format!("the table inet {table} {difference}: guests are not filtered as configured"),
                Some("Restart innkeeperd, which writes the rules anew; `nft list table` shows what they are now.".to_owned()),
            ),
        })
    }

    async fn check_others(&self) -> Result<Vec<Check>, FirewallError> {
        let chains = nft("list the chains", &["--json", "list", "chains"], "").await?;
        let dropping = listing::dropping_forward_chains(&chains, self.table.name()?);
        let dropping = dropping.ok_or(FirewallError::Unreadable)?;
        Ok(dropping.iter().map(blocked_by).collect())
    }
}

#[async_trait]
impl Firewall for NftFirewall {
    async fn ensure(&self) -> Result<(), FacilityError> {
        // Guests do not depend on it, and builds of previews require it themselves.
        if let Err(error) = self.builds.keep().await {
            warn!("previews are not built meanwhile: {}", chain(&error));
        }
        Ok(self.write().await?)
    }

    async fn disturbed(&self) {
        let subscribe = || async {
            Removals::subscribe()
                .inspect_err(|error| warn!(%error, "removals of firewall tables are noticed late"))
                .ok()
        };
        let Some(removals) = self.removals.get_or_init(subscribe).await else {
            return std::future::pending::<()>().await;
        };
        while removals.next().await.is_ok() {
            // Our own writing replaces the table, and others have tables too.
            if !matches!(self.table.difference().await, Ok(None)) || self.builds.is_gone().await {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn check(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        match self.check_rules().await {
            Ok(rules) => {
                checks.push(rules);
                match self.check_others().await {
                    Ok(others) => checks.extend(others),
                    Err(error) => checks.push(broken(&error)),
                }
            }
            // When nft cannot even be asked this, once is enough.
            Err(error) => checks.push(broken(&error)),
        }
        checks.extend(check_forwarding());
        checks.extend(self.builds.check().await);
        checks
    }
}

/// Writes rules of every kind that we use in the calling thread's namespace, which must be one that is
/// thrown away.
pub(crate) async fn probe() -> Result<(), FirewallError> {
    let config = FirewallConfig {
        subnet: Ipv4Net::default(),
        table: "innkeeper".to_owned(),
        allow_dns: true,
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        log_refusals: true,
        allowed_host_ports: Vec::new(),
        extra_private: Vec::new(),
        connections_per_guest: 1,
    };
    nft(
        "write rules of the firewall's kind",
        &["--file", "-"],
        &ruleset(&config),
    )
    .await?;
    Ok(())
}

async fn nft(
    action: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<Vec<u8>, FirewallError> {
    command::run("nft", arguments.iter().copied(), input.as_bytes())
        .await
        .map_err(|source| FirewallError::Nft { action, source })
}

/// Switches IP forwarding on, unless it is: writing the same value again would be harmless, but the file
/// may be read-only where somebody else sees to it.
fn forward() -> Result<(), FileError> {
    if is_forwarding().on("read", FORWARDING)? {
        return Ok(());
    }
    std::fs::write(FORWARDING, "1").on("write", FORWARDING)
}

fn is_forwarding() -> io::Result<bool> {
    Ok(std::fs::read_to_string(Path::new(FORWARDING))?.trim() == "1")
}

fn check_forwarding() -> Option<Check> {
    let remedy = "Restart innkeeperd, and see in the host's sysctl configuration what switches `net.ipv4.ip_forward` off.";
    match is_forwarding() {
        Ok(true) => None,
        Ok(false) => Some(check(
            Verdict::Broken,
            "IP forwarding is off: guests do not reach the internet".to_owned(),
            Some(remedy.to_owned()),
        )),
        Err(error) => Some(check(
            Verdict::Broken,
            format!("cannot read {FORWARDING}: {error}"),
            Some(remedy.to_owned()),
        )),
    }
}

fn blocked_by(chain: &DroppingChain) -> Check {
    let DroppingChain {
        family,
        table,
        chain,
    } = chain;
    let place = format!("{family} {table} {chain}");
    // Docker's own chain is written anew whenever Docker starts; this one it leaves to others.
    let place_for_rule = if chain == "FORWARD" && family == "ip" {
        "ip filter DOCKER-USER (with Docker), otherwise to ip filter FORWARD".to_owned()
    } else {
        place.clone()
    };
    let group = crate::network::INTERFACE_GROUP;
    check(
        Verdict::Warning,
        format!(
            "the chain {place} drops what its own rules do not accept, which may stop guests from reaching the internet"
        ),
        Some(format!(
            "Where it does, let guests pass there too: add `iifgroup {group} accept` and `oifgroup {group} ct state established,related accept` to {place_for_rule}."
        )),
    )
}

fn broken(error: &FirewallError) -> Check {
    check(Verdict::Broken, chain(error), error.remedy())
}

fn check(verdict: Verdict, finding: String, remedy: Option<String>) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict,
        finding,
        remedy,
    }
}

#[cfg(test)]
mod tests;
