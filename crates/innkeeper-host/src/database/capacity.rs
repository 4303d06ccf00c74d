//! How many of the server's connections each preview may have.
//!
//! Previews share what the server has, less what it keeps for superusers and a reserve for the daemon, backups and other
//! people's programs. The role of each has its share as its `CONNECTION LIMIT`, so that all previews together cannot use
//! up the server. The shares become smaller as previews come; sessions that are open already stay.

use innkeeper_model::api::Verdict;

use super::check::check;
use super::error::DatabaseError;
use super::session::Session;
use super::sql::{self, identifier};
use super::{Check, PostgresConfig};

/// Connections that belong to neither superusers nor previews. Ours come and go: two for each of a few previews.
const OTHERS: u32 = 10;

/// The largest share. A quarter of what there is may be less: the first previews leave room for those that follow.
const LARGEST: u32 = 40;

/// What an app needs at least: a small pool, and a session of a person.
const ENOUGH: u32 = 5;

/// The key of the lock that is held while shares are computed.
const LOCK: i64 = 0x696e_6e6b_636f_6e6e;

/// The server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// All of them.
    max: u32,
    /// Those that only superusers and members of `pg_use_reserved_connections` get.
    reserved: u32,
}

impl Capacity {
    async fn read(session: &Session) -> Result<Self, DatabaseError> {
        // The second setting came with PostgreSQL 16.
        let sql = "SELECT current_setting('max_connections')::int, \
                   current_setting('superuser_reserved_connections')::int + \
                   coalesce(current_setting('reserved_connections', true)::int, 0)";
        let row = session.row("look at", "PostgreSQL", sql, &[]).await?;
        let number = |at| {
            let number = row.as_ref().map_or(0, |row| row.get::<_, i32>(at));
            u32::try_from(number).unwrap_or(0)
        };
        Ok(Self {
            max: number(0),
            reserved: number(1),
        })
    }

    /// The connections of all previews together.
    fn of_previews(self) -> u32 {
        self.max.saturating_sub(self.reserved + OTHERS)
    }

    /// The share of each of so many previews; 0 when there are more previews than connections.
    fn share(self, previews: u32) -> u32 {
        let all = self.of_previews();
        let fair = all / previews.max(1);
        fair.min((all / 4).max(1)).min(LARGEST)
    }

    /// `max_connections` with which so many previews have so many connections each.
    fn needed(self, previews: u32, each: u32) -> u32 {
        previews
            .saturating_mul(each)
            .saturating_add(self.reserved + OTHERS)
    }
}

/// Serialises the computation of shares among all daemons of the host, until [`unlock`] or the end of the session.
pub(super) async fn lock(session: &Session) -> Result<(), DatabaseError> {
    session.lock("the shares of connections", LOCK).await
}

/// Ends [`lock`].
pub(super) async fn unlock(session: &Session) -> Result<(), DatabaseError> {
    let sql = "SELECT pg_advisory_unlock($1)";
    let name = "the shares of connections";
    session.row("unlock", name, sql, &[&LOCK]).await.map(drop)
}

/// The connection limit of a preview's role, which may not be there yet.
///
/// # Errors
/// When the server has no connection left for a new role.
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
            needed: capacity.needed(previews, ENOUGH),
        }),
        share => Ok(share.max(1)),
    }
}

/// Gives the other previews' roles the same limit. Best effort: the next preview that comes or is updated does it again.
pub(super) async fn level(session: &Session, config: &PostgresConfig, name: &str, limit: u32) {
    if config.connections.is_some() {
        return;
    }
    let roles = match roles(session, config).await {
        Ok(roles) => roles,
        Err(error) => {
            tracing::warn!(%error, "the previews' connection limits stay as they are");
            return;
        }
    };
    for role in roles {
        if !role.is_ours || role.name == name || role.limit == i64::from(limit) {
            continue;
        }
        let sql = format!(
            "ALTER ROLE {} CONNECTION LIMIT {limit}",
            identifier(&role.name)
        );
        if let Err(error) = session.run("limit connections of", &role.name, &sql).await {
            let error = innkeeper_model::chain(&error);
            tracing::warn!(role = role.name, %error, "its connection limit stays as it is");
        }
    }
}

/// A preview's role.
struct Role {
    name: String,
    /// -1 means none.
    limit: i64,
    /// Whether this daemon has marked it.
    is_ours: bool,
}

/// The roles of previews. Those of other daemons use the server's connections as well.
async fn roles(session: &Session, config: &PostgresConfig) -> Result<Vec<Role>, DatabaseError> {
    let comment = "shobj_description(oid, 'pg_authid')";
    let is_ours = sql::is_mark_of(config.identity.daemon(), comment);
    let is_previews = sql::is_mark(comment);
    let sql = format!(
        "SELECT rolname::text, rolconnlimit::bigint, {is_ours} FROM pg_roles WHERE {is_previews}"
    );
    let rows = session.rows("list", "previews' roles", &sql, &[]).await?;
    let roles = rows.iter().map(|row| Role {
        name: row.get(0),
        limit: row.get(1),
        is_ours: row.get(2),
    });
    Ok(roles.collect())
}

/// Compares the previews' connections with those of the server.
pub(super) async fn findings(
    session: &Session,
    config: &PostgresConfig,
) -> Result<Check, DatabaseError> {
    let capacity = Capacity::read(session).await?;
    let previews = u32::try_from(roles(session, config).await?.len()).unwrap_or(u32::MAX);
    Ok(judge(capacity, config, previews))
}

fn judge(capacity: Capacity, config: &PostgresConfig, previews: u32) -> Check {
    let limit = u32::try_from(config.previews).unwrap_or(u32::MAX);
    let all = capacity.of_previews();
    let server = format!(
        "PostgreSQL has {} connections (max_connections), {all} of them for previews",
        capacity.max
    );
    // How many there may come to be; as many as there are when that has no limit.
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
            "{server}; {expected} previews may open {together}, {fixed} each (database.connections); now there are \
             {previews}"
        );
        if together <= all {
            return check(Verdict::Ok, finding, "");
        }
        let remedy = format!(
            "{}; or set database.connections to 0, so that previews share what there is.",
            raise(fixed)
        );
        return check(Verdict::Warning, finding, &remedy);
    }
    let share = capacity.share(previews).max(1);
    let later = capacity.share(expected);
    let finding = format!(
        "{server}; each of the {previews} there are has at most {share}, and each of {expected} would have {later}"
    );
    if share >= ENOUGH && later >= ENOUGH {
        return check(Verdict::Ok, finding, "");
    }
    let fewer = match (all / ENOUGH, limit) {
        (0, _) | (_, 0) => String::new(),
        (room, _) => format!(", or previews.limit to {room} or less"),
    };
    let remedy = format!(
        "{}{fewer}: {ENOUGH} for each preview are few.",
        raise(ENOUGH)
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
    fn all_previews_together_never_have_more_than_the_server_gives_them() {
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
        assert_eq!(large.share(1), LARGEST);
        assert_eq!(DEFAULT.needed(100, 5), 513);
        let enough = Capacity {
            max: DEFAULT.needed(100, 5),
            reserved: 3,
        };
        assert_eq!(enough.share(100), 5);
    }

    fn told(connections: Option<u16>, limit: usize, previews: u32) -> (Verdict, String, String) {
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
        let check = judge(DEFAULT, &config, previews);
        let remedy = check.remedy.unwrap_or_default();
        (check.verdict, check.finding, remedy)
    }

    #[test]
    fn the_check_has_the_numbers_and_the_remedy() {
        let (verdict, finding, remedy) = told(Some(40), 0, 2);
        assert_eq!((verdict, remedy.as_str()), (Verdict::Ok, ""), "{finding}");
        let (verdict, finding, remedy) = told(Some(40), 10, 2);
        assert_eq!(verdict, Verdict::Warning);
        assert_eq!(
            finding,
            "PostgreSQL has 100 connections (max_connections), 87 of them for previews; 10 previews may open 400, 40 each \
             (database.connections); now there are 2"
        );
        assert_eq!(
            remedy,
            "Set `max_connections = 413` in postgresql.conf and restart PostgreSQL; or set database.connections to 0, \
             so that previews share what there is."
        );
        let (verdict, finding, _) = told(None, 10, 2);
        assert_eq!(verdict, Verdict::Ok);
        assert!(
            finding
                .ends_with("each of the 2 there are has at most 21, and each of 10 would have 8")
        );
        let (verdict, finding, remedy) = told(None, 100, 2);
        assert_eq!(verdict, Verdict::Warning);
        assert!(
            finding
                .ends_with("each of the 2 there are has at most 21, and each of 100 would have 0")
        );
        assert_eq!(
            remedy,
            "Set `max_connections = 513` in postgresql.conf and restart PostgreSQL, or previews.limit to 17 or less: \
             5 for each preview are few."
        );
        assert_eq!(told(None, 0, 30).0, Verdict::Warning);
        assert_eq!(told(None, 0, 0).0, Verdict::Ok);
    }
}
