//! The table that keeps builds away from the host itself and from private networks.
//!
//! A derivation whose output has a fixed hash is built in the host's own network, so that it can download. Unfiltered, it
//! could reach services on the loopback interface without a password, and machines beside the host. The rules match
//! builds by the owner of the socket: the group of Nix's build users, or the range that Nix allocates from.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use innkeeper_facilities::{BuildNetwork, Builders, FacilityError};
use innkeeper_model::api::{Check, Verdict};
use ipnet::{IpNet, Ipv4Net};
use nix::unistd::Group;
use tokio::sync::Mutex;

use super::ruleset::{list, refused};
use super::table::{BUILDS, Table};
use super::{FirewallError, broken};
use crate::identity::Identity;

const SUBJECT: &str = "network of builds";

/// The users that Nix builds as by default.
const DEFAULT_GROUP: &str = "nixbld";

/// The settings of [`BuildFilter`].
#[derive(Clone, Debug)]
pub struct BuildFilterConfig {
    /// The name of the guests' table; the one for builds has the suffix `_builds`.
    pub table: String,
    /// The guests' addresses.
    pub subnet: Ipv4Net,
    /// Networks that builds must not reach, in addition to the private ones.
    pub extra_private: Vec<Ipv4Net>,
    /// Exceptions: networks that builds may reach.
    pub allowed: Vec<IpNet>,
}

/// The driver of [`BuildNetwork`]: an nftables table, written by `nft`.
#[derive(Debug)]
pub struct BuildFilter {
    config: BuildFilterConfig,
    table: Table,
    /// The users of the last build.
    builders: Mutex<Option<Builders>>,
}

impl BuildFilter {
    /// Creates the driver. It changes the host only in [`BuildNetwork::ensure`].
    #[must_use]
    pub fn new(config: BuildFilterConfig, identity: Identity) -> Self {
        Self {
            table: Table::new(format!("{}{BUILDS}", config.table), identity),
            config,
            builders: Mutex::new(None),
        }
    }

    /// Writes the table for the known users, or for Nix's default group, unless it is in force. Has no effect on a host
    /// without such users.
    pub(super) async fn keep(&self) -> Result<(), FirewallError> {
        let mut last = self.builders.lock().await;
        match known(last.as_ref()) {
            Some(builders) => self.write(&mut last, builders).await,
            None => Ok(()),
        }
    }

    /// Removes the table. A missing table is success.
    pub(super) async fn remove(&self) -> Result<(), FirewallError> {
        *self.builders.lock().await = None;
        self.table.remove().await
    }

    /// Reports whether the table was removed. A host without build users needs none.
    pub(super) async fn is_gone(&self) -> bool {
        let last = self.builders.lock().await;
        known(last.as_ref()).is_some() && !matches!(self.table.difference().await, Ok(None))
    }

    /// Compares the table with the rules in force.
    pub(super) async fn check(&self) -> Option<Check> {
        known(self.builders.lock().await.as_ref())?;
        let difference = self.table.difference().await;
        let name = self.table.name().unwrap_or_default();
        let (verdict, finding, remedy) = match difference {
            Ok(None) => (
                Verdict::Ok,
                format!("the table inet {name} is in force"),
                None,
            ),
            Ok(Some(difference)) => (
                Verdict::Broken,
                format!(
                    "the table inet {name} {difference}: builds can reach the host's own services"
                ),
                Some("Restart innkeeperd, which writes the rules again.".to_owned()),
            ),
            Err(error) => return Some(broken(&error)),
        };
        Some(Check {
            subject: SUBJECT.to_owned(),
            verdict,
            finding,
            remedy,
        })
    }

    /// Writes the table, unless it is in force for the same users. The lock prevents concurrent writes for the former ones.
    async fn write(
        &self,
        last: &mut Option<Builders>,
        builders: Builders,
    ) -> Result<(), FirewallError> {
        if last.as_ref() == Some(&builders) && self.table.difference().await?.is_none() {
            return Ok(());
        }
        let rules = ruleset(&self.config, self.table.name()?, &builders);
        self.table.write(&rules).await?;
        *last = Some(builders);
        Ok(())
    }
}

/// Returns the users of the last build, or Nix's default ones.
fn known(last: Option<&Builders>) -> Option<Builders> {
    last.cloned().or_else(|| {
        let group = Group::from_name(DEFAULT_GROUP).ok()??;
        Some(Builders::Group(group.gid.as_raw()))
    })
}

#[async_trait]
impl BuildNetwork for BuildFilter {
    async fn ensure(&self, builders: &Builders) -> Result<(), FacilityError> {
        let mut last = self.builders.lock().await;
        Ok(self.write(&mut last, builders.clone()).await?)
    }
}

/// Returns the rules, which are replaced in one transaction, as those of guests.
fn ruleset(config: &BuildFilterConfig, table: &str, builders: &Builders) -> String {
    let owner = match builders {
        Builders::Group(group) => format!("meta skgid {group}"),
        Builders::Allocated(users) => format!("meta skuid {}", range(users)),
    };
    let refused = list(refused(config.subnet, &config.extra_private).iter());
    let (v4, v6) = allowed(&config.allowed);
    format!(
        "\
# Innkeeper's rules for builds. They are replaced as a whole; changes made here are reported and lost.
table inet {table}
delete table inet {table}
table inet {table} {{
	chain output {{
		type filter hook output priority filter; policy accept;
		{owner} goto builds
	}}

	chain builds {{
		# The resolver may be on the loopback interface, or beside the host.
		meta l4proto {{ tcp, udp }} th dport 53 accept{v4}{v6}
		# Every address of the host itself, the public ones too.
		oifname \"lo\" goto refuse
		ip daddr {refused} goto refuse
		ip6 daddr {{ ::1, fc00::/7, fe80::/10, ff00::/8 }} goto refuse
	}}

	chain refuse {{
		counter
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}}
}}
"
    )
}

/// Returns the rules that accept networks, by their address family.
fn allowed(networks: &[IpNet]) -> (String, String) {
    let networks = networks.iter().map(IpNet::trunc).collect();
    let networks = IpNet::aggregate(&networks);
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = networks
        .into_iter()
        .partition(|network| matches!(network, IpNet::V4(_)));
    let rule = |family: &str, networks: &[IpNet]| match networks {
        [] => String::new(),
        some => format!("\n\t\t{family} daddr {} accept", list(some.iter())),
    };
    (rule("ip", &v4), rule("ip6", &v6))
}

fn range(users: &RangeInclusive<u32>) -> String {
    format!("{}-{}", users.start(), users.end())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::network::testing::{enter_own_namespace, ip};

    fn config() -> BuildFilterConfig {
        BuildFilterConfig {
            table: "innkeeper".to_owned(),
            subnet: "10.100.0.0/16".parse().expect("net"),
            extra_private: vec!["203.0.113.0/24".parse().expect("net")],
            allowed: Vec::new(),
        }
    }

    #[test]
    fn build_ruleset_matches_its_documentation() {
        let rules = ruleset(&config(), "innkeeper_builds", &Builders::Group(30_000));
        insta::assert_snapshot!(rules);
    }

    #[test]
    fn allocated_users_and_allowed_networks_are_in_the_rules() {
        let networks = ["10.1.2.3/32", "192.168.1.7/24", "fd00:1::/64"];
        let config = BuildFilterConfig {
            allowed: networks.map(|net| net.parse().expect("net")).into(),
            ..config()
        };
        let users = Builders::Allocated(872_415_232..=880_803_839);
        let rules = ruleset(&config, "innkeeper_builds", &users);
        for line in [
            "meta skuid 872415232-880803839 goto builds",
            "ip daddr { 10.1.2.3/32, 192.168.1.0/24 } accept",
            "ip6 daddr { fd00:1::/64 } accept",
        ] {
            assert!(rules.contains(line), "{rules}");
        }
    }

    /// A user without a name, as builds may have: threads keep their own group.
    fn connects(group: u32, port: u16) -> Result<(), ErrorKind> {
        std::thread::spawn(move || {
            let group = rustix::process::Gid::from_raw(group);
            rustix::thread::set_thread_gid(group).expect("needs root");
            let connected = TcpStream::connect(("127.0.0.1", port));
            connected.map(drop).map_err(|error| error.kind())
        })
        .join()
        .expect("thread")
    }

    #[tokio::test]
    async fn builds_are_kept_from_the_host_also_after_a_flush() {
        if !enter_own_namespace("builds_are_kept_from_the_host_also_after_a_flush") {
            return;
        }
        ip(&["link", "set", "lo", "up"]).await;
        let filter = BuildFilter::new(config(), Identity::of('a'));
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let port = listener.local_addr().expect("address").port();
        let builder = 64_123;
        assert_eq!(connects(builder, port), Ok(()));
        for _ in 0..2 {
            let group = Builders::Group(builder);
            filter.ensure(&group).await.expect("writes");
            assert_eq!(connects(builder, port), Err(ErrorKind::ConnectionRefused));
            assert_eq!(connects(0, port), Ok(()));
            assert!(!filter.is_gone().await);
            let flush = ["flush", "ruleset"];
            crate::command::run("nft", flush, b"").await.expect("nft");
            assert!(filter.is_gone().await);
            let check = filter.check().await.expect("looked at");
            assert_eq!(check.verdict, Verdict::Broken);
            filter.keep().await.expect("writes");
            assert!(!filter.is_gone().await);
            let check = filter.check().await.expect("looked at");
            assert_eq!(check.verdict, Verdict::Ok);
        }
    }
}
