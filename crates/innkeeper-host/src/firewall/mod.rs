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
//! | guest | port 25 of any address | refused |
//! | guest, with a source that is not its own | any address | dropped |
//! | the host | guest | passes |
//! | any other source | guest | dropped |
//!
//! Builds with a network have a table of their own ([`BuildFilter`]).
//!
//! The rules match guests' interfaces by their [group](crate::network::INTERFACE_GROUP). Other tables are neither read for
//! decisions nor changed. Packets that they drop stay dropped, and [`Firewall::check`] reports chains that would drop the
//! guests' packets.

mod builds;
mod elements;
mod first_packets;
mod listing;
mod log_group;
mod mark;
mod port;
mod removals;
mod ruleset;
mod table;
mod traffic;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Firewall, FirstPackets, GuestTraffic, Traffic};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, DaemonId, Explain, chain};
use ipnet::Ipv4Net;

use crate::command::{self, CommandError};
use crate::identity::Identity;
use crate::secrets::NameServers;
use crate::{FileError, FileErrorExt};
pub use builds::{BuildFilter, BuildFilterConfig};
use first_packets::FirstPacketWatch;
use listing::DroppingChain;
pub use port::{HostPort, InvalidPort, Protocol};
use removals::Removals;
pub use ruleset::ruleset;
use table::Table;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, OnceCell};
use tracing::warn;

const SUBJECT: &str = "firewall";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// A failed operation on the firewall.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The configured name is not valid in nftables.
    #[error(
        "'{0}' is not a name for an nftables table: a letter, then at most 31 letters, digits and '_'"
    )]
    InvalidTable(String),
    /// `nft` failed.
    #[error("cannot {action}")]
    Nft {
        /// The failed action.
        action: &'static str,
        /// The error of the program.
        #[source]
        source: CommandError,
    },
    /// The output of `nft` does not have the expected form.
    #[error("nft's list of rules is not in the expected form")]
    Unreadable,
    /// The kernel does not respond to a query for a table.
    #[error("cannot read the owner of the firewall table from the kernel")]
    Netlink(#[source] io::Error),
    /// The kernel does not list or remove the counters.
    #[error("cannot read or remove the counters of guests' packets in the kernel")]
    Counters(#[source] io::Error),
    /// The kernel refuses to watch for packets.
    #[error("cannot watch for packets to the guest at {guest}")]
    Watch {
        /// The guest's address.
        guest: Ipv4Addr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
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
    /// The host's name servers, which guests may use, cannot be read.
    #[error("cannot read the host's name servers")]
    NameServers(#[source] FileError),
    /// IP forwarding cannot be read or turned on.
    #[error("cannot turn on IP forwarding")]
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
            Self::Unreadable | Self::Netlink(_) | Self::Counters(_) | Self::Watch { .. } => {
                Code::NetworkFailed
            }
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
                    Some("Run innkeeperd as root on a kernel with nf_tables (`modprobe nf_tables nft_masq nft_fib_inet nft_reject_inet nft_log nfnetlink_log`).".to_owned())
                });
            }
            Self::OtherDaemon { table, .. } => format!(
                "Give this daemon a `network.table` of its own. If the other one is gone for good, remove its table with `nft delete table inet {table}`, and then start this one again."
            ),
            Self::Taken { table } => format!(
                "List it with `nft list table inet {table}`. Then set `network.table` to another name, or remove it with `nft delete table inet {table}`, and start the daemon again."
            ),
            Self::Netlink(_) => "Run innkeeperd as root, or give it CAP_NET_ADMIN.".to_owned(),
            Self::Counters(_) | Self::Watch { .. } => "Run `innkeeper doctor`, which compares the firewall's table with the desired one.".to_owned(),
            Self::Unreadable => "Install nftables 1.0 or newer; `nft --version` shows the installed version.".to_owned(),
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
    /// The name of the table, in the family `inet`. A second daemon on the same host needs another one.
    pub table: String,
    /// Lets guests query port 53 of their gateway address.
    pub allow_dns: bool,
    /// The port of the guests' resolver, which their queries to port 53 of their gateway address are redirected to. The
    /// driver [follows](NftFirewall::following) the resolver.
    pub resolver: Option<u16>,
    /// Makes the kernel log refused packets (at most ten a second), with the guest's interface.
    pub log_refusals: bool,
    /// The guests' name servers, unless the driver [follows](NftFirewall::following) those of the host. Guests may use them
    /// even in a private network, which is refused otherwise.
    pub nameservers: Vec<Ipv4Addr>,
    /// Ports of the host that guests may reach, on their gateway address only.
    pub allowed_host_ports: Vec<HostPort>,
    /// The web server's ports, if guests may reach the hosts of their own previews.
    pub web: Option<WebPorts>,
    /// Networks that guests must not reach, in addition to the private ones.
    pub extra_private: Vec<Ipv4Net>,
    /// The maximum of a guest's open connections, to the internet and to its gateway together.
    pub connections_per_guest: u32,
    /// The group of the kernel's packet log that reports packets to guests that rest. Each daemon needs its own.
    pub log_group: u16,
    /// The interface of [parked](crate::network::parking_interface) addresses.
    pub parking: String,
}

/// Ports of the host's web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebPorts {
    /// The port that guests connect to, on any address of the host.
    pub public: u16,
    /// The port in previews' URLs. Guests connect to it on their gateway address, where their resolver leads them.
    pub url: u16,
    /// The port that the firewall redirects these connections to. The web server distinguishes guests there.
    pub guests: u16,
}

/// The driver of [`Firewall`]: an nftables table, written by `nft`.
#[derive(Debug)]
pub struct NftFirewall {
    config: FirewallConfig,
    /// The source of the name servers; `None` for those of the configuration.
    nameservers: Option<NameServers>,
    /// The last written rules.
    written: Mutex<Option<String>>,
    table: Table,
    /// The table that filters builds, which is maintained in the same way.
    builds: Arc<BuildFilter>,
    /// Subscribed at the first use; `None` if the subscription fails.
    removals: OnceCell<Option<Removals>>,
    first_packets: FirstPacketWatch,
    /// The kernel can log packets.
    logs: AtomicBool,
}

impl NftFirewall {
    /// Creates the driver. It changes the host only in [`Firewall::ensure`].
    #[must_use]
    pub fn new(config: FirewallConfig, identity: Identity, builds: Arc<BuildFilter>) -> Self {
        Self {
            table: Table::new(config.table.clone(), identity),
            first_packets: FirstPacketWatch::new(config.log_group),
            config,
            nameservers: None,
            written: Mutex::new(None),
            builds,
            removals: OnceCell::new(),
            logs: AtomicBool::new(true),
        }
    }

    /// Lets guests use these name servers and their resolver, read at each [`Firewall::ensure`].
    #[must_use]
    pub fn following(mut self, nameservers: NameServers) -> Self {
        self.nameservers = Some(nameservers);
        self
    }

    /// Returns the desired rules. Fails when the name servers cannot be read, rather than omitting them: guests could not
    /// resolve names.
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
            resolver: source.listening_resolver().map(|resolver| resolver.port),
            ..self.config.clone()
        }))
    }

    /// Removes the tables. IP forwarding stays as it is, because other programs may rely on it.
    ///
    /// # Errors
    /// When the kernel refuses. A missing table is success.
    pub async fn remove(&self) -> Result<(), FirewallError> {
        *self.written.lock().await = None;
        self.builds.remove().await?;
        self.table.remove().await
    }

    /// Writes the rules, unless they are in force: replacing the table would reset the counts of each guest's connections.
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
            // Packets to guests that rest are noticed during the replacement too: in the new sets, and by the messages.
            self.first_packets.subscribe();
            let table = self.table.name()?;
            let resumed = ruleset::KEPT.iter().fold(rules.clone(), |rules, set| {
                ruleset::with_elements(&rules, set, &first_packets::elements_of(table, set))
            });
            let write = async |rules: String| self.table.write(&rules).await;
            let logs = with_log_or_without(&resumed, write).await?;
            self.logs.store(logs, Ordering::Relaxed);
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
                Some("Restart innkeeperd, which writes the rules again; `nft list table` shows the current ones.".to_owned()),
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
        // Guests do not depend on it, and builds of previews ensure it themselves.
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
            // A write of this daemon replaces the table, and other programs have tables too.
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
                checks.extend((!self.logs.load(Ordering::Relaxed)).then(no_log));
                match self.check_others().await {
                    Ok(others) => checks.extend(others),
                    Err(error) => checks.push(broken(&error)),
                }
            }
            // If nft fails here, one finding is enough.
            Err(error) => checks.push(broken(&error)),
        }
        checks.extend(check_forwarding());
        checks.extend(self.builds.check().await);
        checks
    }
}

#[async_trait]
impl Traffic for NftFirewall {
    async fn traffic(&self) -> Result<BTreeMap<Ipv4Addr, GuestTraffic>, FacilityError> {
        let table = self.table.name()?;
        Ok(traffic::read(table).map_err(FirewallError::Counters)?)
    }

    async fn forget(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        let table = self.table.name()?;
        Ok(traffic::forget(table, guest).map_err(FirewallError::Counters)?)
    }
}

#[async_trait]
impl FirstPackets for NftFirewall {
    async fn watch(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        let table = self.table.name()?;
        let watched = self.first_packets.watch(table, guest);
        Ok(watched.map_err(|source| FirewallError::Watch { guest, source })?)
    }

    async fn resume(&self, guest: Ipv4Addr) {
        self.first_packets.resume(guest);
    }

    async fn unwatch(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        let table = self.table.name()?;
        let left = self.first_packets.unwatch(table, guest);
        Ok(left.map_err(|source| FirewallError::Watch { guest, source })?)
    }

    async fn unreached(&self) -> BTreeSet<Ipv4Addr> {
        self.first_packets.subscribe();
        let table = self.table.name();
        let left = |table| first_packets::elements_of(table, ruleset::PAUSED);
        table.map(left).unwrap_or_default()
    }

    async fn expect(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        let table = self.table.name()?;
        let expected = self.first_packets.expect(table, guest);
        Ok(expected.map_err(|source| FirewallError::Watch { guest, source })?)
    }

    async fn hold_refusals(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        let table = self.table.name()?;
        let held = elements::add(table, ruleset::STARTING, guest);
        Ok(held.map_err(|source| FirewallError::Watch { guest, source })?)
    }

    async fn follow(&self, reached: UnboundedSender<BTreeSet<Ipv4Addr>>) {
        match self.table.name() {
            Ok(table) => self.first_packets.follow(table, &reached).await,
            // The daemon does not start with such a name.
            Err(error) => warn!("{}", chain(&error)),
        }
    }
}

/// Writes rules of every kind that Innkeeper uses in the calling thread's namespace, which must be a temporary one.
pub(crate) async fn probe() -> Result<(), FirewallError> {
    let config = FirewallConfig {
        subnet: Ipv4Net::default(),
        table: "innkeeper".to_owned(),
        allow_dns: true,
        resolver: Some(3053),
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        log_refusals: true,
        allowed_host_ports: Vec::new(),
        web: Some(WebPorts {
            public: 8443,
            url: 443,
            guests: 3443,
        }),
        extra_private: Vec::new(),
        connections_per_guest: 1,
        log_group: 1,
        parking: "ve-rest-000000".to_owned(),
    };
    let write = async |rules: String| {
        let arguments = ["--file", "-"];
        nft("write rules of the firewall's kind", &arguments, &rules).await
    };
    with_log_or_without(&ruleset(&config), write).await?;
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

/// Writes rules; without those that log if the kernel has no module for them. Reports whether it has.
async fn with_log_or_without<T, F>(
    rules: &str,
    write: impl Fn(String) -> F,
) -> Result<bool, FirewallError>
where
    F: Future<Output = Result<T, FirewallError>>,
{
    let error = match write(rules.to_owned()).await {
        Ok(_) => return Ok(true),
        Err(error @ FirewallError::Nft { .. }) => error,
        Err(error) => return Err(error),
    };
    // The first error is about all rules.
    if write(ruleset::without_log(rules)).await.is_err() {
        return Err(error);
    }
    warn!("the kernel cannot log packets: {}", chain(&error));
    Ok(false)
}

fn no_log() -> Check {
    check(
        Verdict::Warning,
        "the kernel cannot log packets (kernel_feature_missing): a packet wakes a guest up to a second late, and refused packets are not logged".to_owned(),
        Some("Load the kernel's modules with `modprobe nft_log nfnetlink_log`, or use a kernel that has them. Then restart innkeeperd.".to_owned()),
    )
}

/// Turns on IP forwarding, unless it is on: the file may be read-only where another program manages it.
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
    let full_name = format!("{family} {table} {chain}");
    // Docker rewrites its own chain at each start, and leaves this one to others.
    let place_for_rule = if chain == "FORWARD" && family == "ip" {
        "ip filter DOCKER-USER (with Docker), otherwise to ip filter FORWARD".to_owned()
    } else {
        full_name.clone()
    };
    let group = crate::network::INTERFACE_GROUP;
    check(
        Verdict::Warning,
        format!(
            "the chain {full_name} drops what its own rules do not accept, which may stop guests from reaching the internet"
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
