//! Checks the lines of `pg_hba.conf` for connections over the network. The rules in force may be older than the file, until
//! PostgreSQL reloads it.

use std::net::Ipv4Addr;

use innkeeper_model::api::{Check, Verdict};
use ipnet::Ipv4Net;

use super::error::DatabaseError;
use super::finding::check;
use super::session::Session;
use super::{DUMPS_LINE, PostgresConfig};

/// A line for connections over the network.
struct Rule {
    encryption: Encryption,
    /// `None` for host names and the like.
    network: Option<Ipv4Net>,
    /// It matches connections from the server's own addresses.
    is_own: bool,
    databases: Vec<String>,
    users: Vec<String>,
    method: String,
}

/// The connections that a line matches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Any,
    Required,
    Absent,
}

impl Rule {
    /// Reports whether it matches connections of previews' roles from a network, each to its own database.
    fn matches(&self, from: Ipv4Net) -> bool {
        let is_network = self.network.is_some_and(|network| network.contains(&from));
        (is_network || self.is_own && from.network().is_loopback())
            && has(&self.databases, &["sameuser", "all"])
            && has(&self.users, &["all"])
    }
}

fn has(names: &[String], any: &[&str]) -> bool {
    names.iter().any(|name| any.contains(&name.as_str()))
}

/// Reads the lines and checks them.
///
/// # Errors
/// When the server cannot be queried.
pub(super) async fn findings(
    session: &Session,
    config: &PostgresConfig,
) -> Result<Vec<Check>, DatabaseError> {
    let sql = "SELECT type, address, netmask, database, user_name, auth_method FROM pg_hba_file_rules \
               WHERE error IS NULL AND type IN ('host', 'hostssl', 'hostnossl') ORDER BY line_number";
    let rows = session.rows("read", "pg_hba.conf", sql, &[]).await?;
    let rules: Vec<_> = rows
        .iter()
        .map(|row| Rule {
            encryption: match row.get(0) {
                "hostssl" => Encryption::Required,
                "hostnossl" => Encryption::Absent,
                _ => Encryption::Any,
            },
            network: network(row.get(1), row.get(2)),
            is_own: matches!(row.get(1), Some("samehost" | "samenet")),
            databases: row.get(3),
            users: row.get(4),
            method: row.get(5),
        })
        .collect();
    let found = [check_guests(&rules, config.subnet), check_dumps(&rules)];
    Ok(found.into_iter().flatten().collect())
}

/// Returns the network of a line, or `None` for host names and the like.
fn network(address: Option<&str>, netmask: Option<&str>) -> Option<Ipv4Net> {
    if address == Some("all") {
        return Some(Ipv4Net::default());
    }
    Ipv4Net::with_netmask(address?.parse().ok()?, netmask?.parse().ok()?).ok()
}

/// Checks that guests are admitted only with a password and only to their own database, by the first line that matches a
/// guest's connection to that.
fn check_guests(rules: &[Rule], subnet: Ipv4Net) -> Option<Check> {
    let first = rules
        .iter()
        .find(|rule| rule.encryption != Encryption::Required && rule.matches(subnet));
    let remedy = format!(
        "Put the line `host sameuser all {subnet} scram-sha-256` into pg_hba.conf, before other `host` lines, and run `systemctl reload postgresql`."
    );
    let (verdict, finding) = match first {
        Some(rule) if rule.method == "trust" => (
            Verdict::Broken,
            "pg_hba.conf admits guests without a password".to_owned(),
        ),
        Some(rule) if rule.method != "scram-sha-256" => (
            Verdict::Broken,
            format!(
                "pg_hba.conf authenticates guests by '{}' instead of their passwords",
                rule.method
            ),
        ),
        Some(rule) if !has(&rule.databases, &["sameuser"]) || rule.databases.len() > 1 => (
            Verdict::Warning,
            "pg_hba.conf admits guests to more databases than their own".to_owned(),
        ),
        Some(_) => return None,
        None => (
            Verdict::Broken,
            format!("pg_hba.conf has no line for connections from {subnet}"),
        ),
    };
    Some(check(verdict, finding, &remedy))
}

/// Checks that backups can dump and load previews' databases with the passwords of their roles. The programs try with encryption
/// and without.
fn check_dumps(rules: &[Rule]) -> Option<Check> {
    let from = Ipv4Net::from(Ipv4Addr::LOCALHOST);
    let first = |not: Encryption| {
        let mut matching = rules
            .iter()
            .filter(|rule| rule.encryption != not && rule.matches(from));
        matching.next().map(|rule| rule.method.as_str())
    };
    let methods = [first(Encryption::Required), first(Encryption::Absent)];
    let admits = |method: &str| matches!(method, "scram-sha-256" | "md5" | "password" | "trust");
    if methods.into_iter().flatten().any(admits) {
        return None;
    }
    let finding = match methods.into_iter().flatten().next() {
        Some(method) => format!(
            "pg_hba.conf authenticates previews' roles from 127.0.0.1 by '{method}' instead of their passwords: `innkeeper backup` cannot copy their databases"
        ),
        None => "pg_hba.conf has no line for previews' roles from 127.0.0.1: `innkeeper backup` cannot copy their databases".to_owned(),
    };
    let remedy = format!(
        "Put the line `{DUMPS_LINE}` into pg_hba.conf, before other `host` lines, and run `systemctl reload postgresql`."
    );
    Some(check(Verdict::Warning, finding, &remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Line = ("host", "10.0.0.0/8", "sameuser", "all", "scram-sha-256");

    /// Type, network, databases, users, method.
    type Line = (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );

    fn rules(lines: &[Line]) -> Vec<Rule> {
        let names = |text: &str| text.split(',').map(str::to_owned).collect();
        lines
            .iter()
            .map(|(kind, network, databases, users, method)| Rule {
                encryption: match *kind {
                    "hostssl" => Encryption::Required,
                    "hostnossl" => Encryption::Absent,
                    _ => Encryption::Any,
                },
                network: network.parse().ok(),
                is_own: *network == "samehost",
                databases: names(databases),
                users: names(users),
                method: (*method).to_owned(),
            })
            .collect()
    }

    fn of_guests(lines: &[Line]) -> Option<Verdict> {
        let subnet = "10.100.0.0/16".parse().expect("net");
        check_guests(&rules(lines), subnet).map(|check| check.verdict)
    }

    fn of_dumps(lines: &[Line]) -> Option<String> {
        let check = check_dumps(&rules(lines))?;
        assert_eq!(check.verdict, Verdict::Warning);
        Some(check.finding)
    }

    #[test]
    fn first_matching_rule_decides() {
        for other in [
            ("host", "127.0.0.1/32", "all", "all", "trust"),
            ("host", "0.0.0.0/0", "dashboard", "all", "trust"),
            ("host", "0.0.0.0/0", "all", "dashboard", "trust"),
            ("hostssl", "0.0.0.0/0", "all", "all", "trust"),
        ] {
            assert_eq!(of_guests(&[other, GOOD]), None, "{other:?}");
        }
        let first = |line| of_guests(&[line, GOOD]);
        assert_eq!(
            first(("host", "0.0.0.0/0", "all", "all", "trust")),
            Some(Verdict::Broken)
        );
        assert_eq!(
            first(("hostnossl", "0.0.0.0/0", "all", "all", "reject")),
            Some(Verdict::Broken)
        );
        assert_eq!(
            first(("host", "0.0.0.0/0", "all", "all", "scram-sha-256")),
            Some(Verdict::Warning)
        );
        let narrow = ("host", "10.100.0.0/24", "all", "all", "trust");
        assert_eq!(of_guests(&[narrow]), Some(Verdict::Broken));
        assert_eq!(of_guests(&[]), Some(Verdict::Broken));
    }

    #[test]
    fn dumps_need_a_line_for_loopback_connections_with_passwords() {
        let missing = of_dumps(&[GOOD]).expect("a finding");
        assert!(missing.contains("has no line"), "{missing}");
        for line in [
            ("host", "127.0.0.1/32", "sameuser", "all", "scram-sha-256"),
            ("hostssl", "127.0.0.0/8", "all", "all", "md5"),
            ("host", "samehost", "all", "all", "scram-sha-256"),
        ] {
            assert_eq!(of_dumps(&[GOOD, line]), None, "{line:?}");
        }
        let debian = ("host", "127.0.0.1/32", "all", "all", "scram-sha-256");
        let reject = ("host", "0.0.0.0/0", "all", "all", "reject");
        assert_eq!(of_dumps(&[debian, reject]), None);
        let rejected = of_dumps(&[reject, debian]).expect("a finding");
        assert!(rejected.contains("by 'reject'"), "{rejected}");
        // Without encryption, the next one decides.
        let encrypted = ("hostssl", "0.0.0.0/0", "all", "all", "reject");
        assert_eq!(of_dumps(&[encrypted, debian]), None);
        let other = ("host", "127.0.0.1/32", "dashboard", "all", "scram-sha-256");
        assert!(of_dumps(&[other]).is_some());
    }

    #[test]
    fn network_parses_postgresqls_format() {
        let net = |text: &str| text.parse::<Ipv4Net>().ok();
        assert_eq!(network(Some("all"), None), net("0.0.0.0/0"));
        assert_eq!(
            network(Some("10.100.0.0"), Some("255.255.0.0")),
            net("10.100.0.0/16")
        );
        for other in ["samehost", "db.example.org", "::1"] {
            assert_eq!(network(Some(other), None), None);
        }
    }
}
