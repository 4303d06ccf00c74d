//! Divides the server's connections among previews.
//!
//! Previews share the server's connections, less those for superusers and a reserve for the daemon, backups and other
//! programs. Each preview's role has its share as its `CONNECTION LIMIT`, so that previews together cannot exhaust the
//! server. The shares shrink as previews are added; open sessions stay open.

use innkeeper_model::api::Verdict;

use super::error::DatabaseError;
use super::finding::check;
use super::session::Session;
use super::sql::{self, identifier};
use super::{Check, PostgresConfig};

/// Connections for neither superusers nor previews. The daemon itself briefly needs two for each of a few previews.
const RESERVE: u32 = 10;

/// Maximum share. A quarter of the connections may be less: the first previews leave some for later ones.
const MAX_SHARE: u32 = 40;

/// Minimum share for an app: a small pool, and a session of a person.
const MIN_SHARE: u32 = 5;

/// Key of the advisory lock on the computation of shares.
const LOCK: i64 = 0x696e_6e6b_636f_6e6e;

/// The server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// All connections.
    max: u32,
    /// Connections for superusers and members of `pg_use_reserved_connections` only.
    reserved: u32,
}

impl Capacity {
    async fn read(session: &Session) -> Result<Self, DatabaseError> {
        // The last setting exists since PostgreSQL 16.
        let sql = "SELECT current_setting('max_connections')::int, \
                   current_setting('superuser_reserved_connections')::int + \
                   coalesce(current_setting('reserved_connections', true)::int, 0)";
        let row = session.row("query", "PostgreSQL", sql, &[]).await?;
        let number = |column| {
            let number = row.as_ref().map_or(0, |row| row.get::<_, i32>(column));
            u32::try_from(number).unwrap_or(0)
        };
        Ok(Self {
            max: number(0),
            reserved: number(1),
        })
    }

    /// Returns the connections of all previews together.
    fn of_previews(self) -> u32 {
        self.max.saturating_sub(self.reserved + RESERVE)
    }

    /// Returns the share of each of `previews`, or 0 if the connections do not suffice.
    fn share(self, previews: u32) -> u32 {
        let all = self.of_previews();
        let fair = all / previews.max(1);
        fair.min((all / 4).max(1)).min(MAX_SHARE)
    }

    /// Returns the `max_connections` for `previews` with `each` connections.
    fn needed(self, previews: u32, each: u32) -> u32 {
        previews
            .saturating_mul(each)
            .saturating_add(self.reserved + RESERVE)
    }
}

/// Serializes the computation of shares among all daemons of the host, until [`unlock`] or the end of the session.
pub(super) async fn lock(session: &Session) -> Result<(), DatabaseError> {
    session.lock("the shares of connections", LOCK).await
}

/// Ends [`lock`].
pub(super) async fn unlock(session: &Session) -> Result<(), DatabaseError> {
    let sql = "SELECT pg_advisory_unlock($1)";
    let name = "the shares of connections";
    session.row("unlock", name, sql, &[&LOCK]).await.map(drop)
}

/// Returns the connection limit of a preview's role, which may not exist yet.
///
/// # Errors
/// If the server has no connections for another role.
pub(super) async fn limit_of(
    session: &Session,
    config: &PostgresConfig,
    name: &str,
    is_new: bool,
) -> Result<u32, DatabaseError> {
    if let Some(fixed) = config.connections {
        return Ok(fixed.into());
    }
    let capacity = Capacity::read(session).await?;
    let roles = roles(session, config).await?;
    let others = roles.iter().filter(|role| role.name != name).count();
    let previews = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    match capacity.share(previews) {
        0 if is_new => Err(DatabaseError::NoConnections {
            previews,
            connections: capacity.of_previews(),
            needed: capacity.needed(previews, MIN_SHARE),
        }),
        share => Ok(share.max(1)),
    }
}

/// Sets the same limit for the other previews' roles. Best effort: the next `ensure` of any preview repeats it.
pub(super) async fn apply_to_others(
    session: &Session,
    config: &PostgresConfig,
    name: &str,
    limit: u32,
) {
    if config.connections.is_some() {
        return;
    }
    let roles = match roles(session, config).await {
        Ok(roles) => roles,
        Err(error) => {
            tracing::warn!(%error, "cannot update the connection limits of previews");
            return;
        }
    };
    for role in roles {
        if !role.is_managed || role.name == name || role.limit == i64::from(limit) {
            continue;
        }
        let sql = format!(
            "ALTER ROLE {} CONNECTION LIMIT {limit}",
            identifier(&role.name)
        );
        if let Err(error) = session.run("limit connections of", &role.name, &sql).await {
            let error = innkeeper_model::chain(&error);
            tracing::warn!(role = role.name, %error, "cannot update the connection limit of a role");
        }
    }
}

/// A preview's role.
struct Role {
    name: String,
    /// -1 means no limit.
    limit: i64,
    /// This daemon's mark.
    is_managed: bool,
}

/// Lists the roles of previews, including those of other daemons, which use the server's connections as well.
async fn roles(session: &Session, config: &PostgresConfig) -> Result<Vec<Role>, DatabaseError> {
    let comment = "shobj_description(oid, 'pg_authid')";
    let is_managed = sql::is_mark_of(config.identity.daemon(), comment);
    let is_previews = sql::is_mark(comment);
    let sql = format!(
        "SELECT rolname::text, rolconnlimit::bigint, {is_managed} FROM pg_roles WHERE {is_previews}"
    );
    let rows = session.rows("list", "previews' roles", &sql, &[]).await?;
    let roles = rows.iter().map(|row| Role {
        name: row.get(0),
        limit: row.get(1),
        is_managed: row.get(2),
    });
    Ok(roles.collect())
}

/// Compares the previews' connections with the server's.
pub(super) async fn findings(
    session: &Session,
    config: &PostgresConfig,
) -> Result<Check, DatabaseError> {
    let capacity = Capacity::read(session).await?;
    let previews = u32::try_from(roles(session, config).await?.len()).unwrap_or(u32::MAX);
    Ok(finding(capacity, config, previews))
}

fn finding(capacity: Capacity, config: &PostgresConfig, previews: u32) -> Check {
    let limit = u32::try_from(config.previews).unwrap_or(u32::MAX);
    let all = capacity.of_previews();
    let server = format!(
        "PostgreSQL has {} connections (max_connections), {all} of them for previews",
        capacity.max
    );
    // The maximum number of previews, or the current one without a limit.
    let expected = limit.max(previews).max(1);
    let raise = |each: u32| {
        format!(
            "Set `max_connections = {}` in postgresql.conf and restart PostgreSQL",
            capacity.needed(expected, each)
        )
    };
    if let Some(fixed) = config.connections.map(u32::from) {
        let together = fixed.saturating_mul(expected);
        let finding = format!(
            "{server}; {expected} previews may open {together}, {fixed} each (database.connections); currently \
             {previews}"
        );
        if together <= all {
            return check(Verdict::Ok, finding, "");
        }
        let remedy = format!(
            "{}; or set database.connections to 0, so that previews share the connections.",
            raise(fixed)
        );
        return check(Verdict::Warning, finding, &remedy);
    }
    let share = capacity.share(previews).max(1);
    let later = capacity.share(expected);
    let finding = format!(
        "{server}; each of the {previews} current ones has at most {share}, and each of {expected} would have {later}"
    );
    if share >= MIN_SHARE && later >= MIN_SHARE {
        return check(Verdict::Ok, finding, "");
    }
    let fewer = match (all / MIN_SHARE, limit) {
        (0, _) | (_, 0) => String::new(),
        (room, _) => format!(", or previews.limit to {room} or less"),
    };
    let remedy = format!(
        "{}{fewer}: each preview needs at least {MIN_SHARE}.",
        raise(MIN_SHARE)
    );
    check(Verdict::Warning, finding, &remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Capacity = Capacity {
        max: 100,
        reserved: 3,
    };

    #[test]
    fn shares_never_exceed_the_servers_connections() {
        for max in [1, 14, 20, 60, 100, 500, 10_000] {
            let capacity = Capacity { max, reserved: 3 };
            for previews in 1..1_000 {
                let together = capacity.share(previews) * previews;
                assert!(together <= max.saturating_sub(13), "{max} {previews}");
            }
        }
        let shares: Vec<_> = [1, 4, 10, 29, 87, 88]
            .map(|previews| DEFAULT.share(previews))
            .into();
        assert_eq!(shares, [21, 21, 8, 3, 1, 0]);
        let large = Capacity {
            max: 1_000,
            reserved: 3,
        };
        assert_eq!(large.share(1), MAX_SHARE);
        assert_eq!(DEFAULT.needed(100, 5), 513);
        let enough = Capacity {
            max: DEFAULT.needed(100, 5),
            reserved: 3,
        };
        assert_eq!(enough.share(100), 5);
    }

    fn report(connections: Option<u16>, limit: usize, previews: u32) -> (Verdict, String, String) {
        let config = PostgresConfig {
            identity: crate::identity::Identity::of('a'),
            socket_dir: "/run/postgresql".into(),
            port: 5432,
            role: "postgres".to_owned(),
            passwords: "/nowhere".into(),
            connections,
            previews: limit,
            statement_timeout: None,
            idle_in_transaction_timeout: None,
            subnet: "10.100.0.0/16".parse().expect("net"),
        };
        let check = finding(DEFAULT, &config, previews);
        let remedy = check.remedy.unwrap_or_default();
        (check.verdict, check.finding, remedy)
    }

    #[test]
    fn finding_has_the_numbers_and_the_remedy() {
        let (verdict, finding, remedy) = report(Some(40), 0, 2);
        assert_eq!((verdict, remedy.as_str()), (Verdict::Ok, ""), "{finding}");
        let (verdict, finding, remedy) = report(Some(40), 10, 2);
        assert_eq!(verdict, Verdict::Warning);
        assert_eq!(
            finding,
            "PostgreSQL has 100 connections (max_connections), 87 of them for previews; 10 previews may open 400, 40 each \
             (database.connections); currently 2"
        );
        assert_eq!(
            remedy,
            "Set `max_connections = 413` in postgresql.conf and restart PostgreSQL; or set database.connections to 0, \
             so that previews share the connections."
        );
        let (verdict, finding, _) = report(None, 10, 2);
        assert_eq!(verdict, Verdict::Ok);
        assert!(
            finding.ends_with(
                "each of the 2 current ones has at most 21, and each of 10 would have 8"
            )
        );
        let (verdict, finding, remedy) = report(None, 100, 2);
        assert_eq!(verdict, Verdict::Warning);
        assert!(
            finding.ends_with(
                "each of the 2 current ones has at most 21, and each of 100 would have 0"
            )
        );
        assert_eq!(
            remedy,
            "Set `max_connections = 513` in postgresql.conf and restart PostgreSQL, or previews.limit to 17 or less: \
             each preview needs at least 5."
        );
        assert_eq!(report(None, 0, 30).0, Verdict::Warning);
        assert_eq!(report(None, 0, 0).0, Verdict::Ok);
    }
}
