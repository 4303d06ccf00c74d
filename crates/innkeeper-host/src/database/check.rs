//! Checks PostgreSQL's configuration for preview databases.

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain, chain};
use ipnet::Ipv4Net;

use super::error::DatabaseError;
use super::finding::check;
use super::session::Session;
use super::{PostgresConfig, capacity, collation};

/// First version with `DROP DATABASE … WITH (FORCE)`.
const OLDEST: i32 = 130_000;

/// Checks the server without changing it.
pub(super) async fn findings(session: &Session, config: &PostgresConfig) -> Vec<Check> {
    match inspect(session, config).await {
        Ok(checks) => checks,
        Err(error) => vec![broken(&error)],
    }
}

async fn inspect(session: &Session, config: &PostgresConfig) -> Result<Vec<Check>, DatabaseError> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
               rolsuper, current_setting('listen_addresses') FROM pg_roles WHERE rolname = current_user";
    let Some(row) = session.row("query", "PostgreSQL", sql, &[]).await? else {
        return Ok(Vec::new());
    };
    let (number, version): (i32, String) = (row.get(0), row.get(1));
    if number < OLDEST {
        let finding = format!("PostgreSQL {version} is too old: 13 or newer is needed");
        return Ok(vec![check(Verdict::Broken, finding, "Upgrade PostgreSQL.")]);
    }
    if !row.get::<_, bool>(2) {
        let role = &config.role;
        return Ok(vec![check(
            Verdict::Broken,
            format!("the role '{role}' is not a superuser"),
            &format!("Run `ALTER ROLE \"{role}\" SUPERUSER` in psql."),
        )]);
    }
    let mut checks = vec![check(
        Verdict::Ok,
        format!("PostgreSQL {version} responds on port {}", config.port),
        "",
    )];
    let listens: String = row.get(3);
    if matches!(listens.as_str(), "" | "localhost" | "127.0.0.1" | "::1") {
        checks.push(check(
            Verdict::Warning,
            format!("PostgreSQL listens only on '{listens}': guests cannot reach it on their gateway address"),
            "Set `listen_addresses = '*'` in postgresql.conf and restart PostgreSQL; the firewall restricts access.",
        ));
    }
    checks.extend(inspect_rules(session, config).await?);
    checks.push(capacity::findings(session, config).await?);
    checks.extend(collation::findings(session).await?);
    Ok(checks)
}

/// A line of `pg_hba.conf` for connections over the network.
struct Rule {
    network: Option<Ipv4Net>,
    databases: Vec<String>,
    users: Vec<String>,
    method: String,
}

/// Checks that `pg_hba.conf` admits guests only with a password and only to their own database. The rules in force may be
/// older than the file, until PostgreSQL reloads it.
async fn inspect_rules(
    session: &Session,
    config: &PostgresConfig,
) -> Result<Option<Check>, DatabaseError> {
    let sql = "SELECT address, netmask, database, user_name, auth_method FROM pg_hba_file_rules \
               WHERE error IS NULL AND type IN ('host', 'hostnossl') ORDER BY line_number";
    let rows = session.rows("read", "pg_hba.conf", sql, &[]).await?;
    let rules = rows.iter().map(|row| Rule {
        network: network(row.get(0), row.get(1)),
        databases: row.get(2),
        users: row.get(3),
        method: row.get(4),
    });
    Ok(check_rules(rules, config.subnet))
}

/// Returns the network of a line, or `None` for host names and the like.
fn network(address: Option<&str>, netmask: Option<&str>) -> Option<Ipv4Net> {
    if address == Some("all") {
        return Some(Ipv4Net::default());
    }
    Ipv4Net::with_netmask(address?.parse().ok()?, netmask?.parse().ok()?).ok()
}

/// Checks the first line that matches a guest's connection to its own database.
fn check_rules(rules: impl Iterator<Item = Rule>, subnet: Ipv4Net) -> Option<Check> {
    let has =
        |names: &[String], any: &[&str]| names.iter().any(|name| any.contains(&name.as_str()));
    let mut matching = rules.filter(|rule| {
        rule.network
            .is_some_and(|network| network.contains(&subnet))
            && has(&rule.databases, &["sameuser", "all"])
            && has(&rule.users, &["all"])
    });
    let remedy = format!(
        "Put the line `host sameuser all {subnet} scram-sha-256` into pg_hba.conf, before other `host` lines, and run `systemctl reload postgresql`."
    );
    let (verdict, finding) = match matching.next() {
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

/// Converts an error to a finding.
pub(super) fn broken(error: &DatabaseError) -> Check {
    check(
        Verdict::Broken,
        chain(error),
        &error.remedy().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rules: &[(&str, &str, &str, &str)]) -> Option<(Verdict, String)> {
        let names = |text: &str| text.split(',').map(str::to_owned).collect();
        let rules = rules
            .iter()
            .map(|(network, databases, users, method)| Rule {
                network: network.parse().ok(),
                databases: names(databases),
                users: names(users),
                method: (*method).to_owned(),
            });
        let check = check_rules(rules, "10.100.0.0/16".parse().expect("net"))?;
        Some((check.verdict, check.finding))
    }

    #[test]
    fn first_matching_rule_decides() {
        let good = ("10.0.0.0/8", "sameuser", "all", "scram-sha-256");
        assert_eq!(
            finding(&[("127.0.0.1/32", "all", "all", "trust"), good]),
            None
        );
        assert_eq!(
            finding(&[("0.0.0.0/0", "dashboard", "all", "trust"), good]),
            None
        );
        assert_eq!(
            finding(&[("0.0.0.0/0", "all", "dashboard", "trust"), good]),
            None
        );
        let first = |rule| finding(&[rule, good]).map(|(verdict, _)| verdict);
        assert_eq!(
            first(("0.0.0.0/0", "all", "all", "trust")),
            Some(Verdict::Broken)
        );
        assert_eq!(
            first(("0.0.0.0/0", "all", "all", "reject")),
            Some(Verdict::Broken)
        );
        assert_eq!(
            first(("0.0.0.0/0", "all", "all", "scram-sha-256")),
            Some(Verdict::Warning)
        );
        assert_eq!(
            finding(&[("10.100.0.0/24", "all", "all", "trust")]).map(|t| t.0),
            Some(Verdict::Broken)
        );
        assert_eq!(finding(&[]).map(|t| t.0), Some(Verdict::Broken));
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
