//! Checks PostgreSQL's configuration for preview databases.

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain, chain};

use super::error::DatabaseError;
use super::finding::check;
use super::session::Session;
use super::{PostgresConfig, capacity, collation, rules};

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
    checks.extend(rules::findings(session, config).await?);
    checks.push(capacity::findings(session, config).await?);
    checks.extend(collation::findings(session).await?);
    Ok(checks)
}

/// Converts an error to a finding.
pub(super) fn broken(error: &DatabaseError) -> Check {
    check(
        Verdict::Broken,
        chain(error),
        &error.remedy().unwrap_or_default(),
    )
}
