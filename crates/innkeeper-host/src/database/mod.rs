//! Preview databases: one role and one database per preview, on the host's PostgreSQL (13 or newer).
//!
//! # Access control
//!
//! The role `preview_<slug>` can log in and has no other rights on the server. It owns the database of the same name, and
//! no other role may connect to it. Two mechanisms keep a role out of other databases: the databases' own rights, and one
//! line of `pg_hba.conf`, which admits roles from the guests' addresses only to the database of their name. The host's
//! administrator adds it once:
//!
//! ```text
//! host  sameuser  all  10.100.0.0/16  scram-sha-256
//! ```
//!
//! A guest can reach PostgreSQL's port only on its own gateway address and from its own source address
//! ([`crate::firewall`]). The password ties a role to its guest: no other guest receives it.
//!
//! # The daemon's own access
//!
//! The daemon connects over the Unix socket as a superuser. PostgreSQL authenticates it by its user (`peer`), so the daemon
//! needs no password. For a daemon that runs as root, and the role `postgres`:
//!
//! ```text
//! pg_hba.conf:    local      all       postgres  peer map=innkeeper
//! pg_ident.conf:  innkeeper  root      postgres
//!                 innkeeper  postgres  postgres
//! ```
//!
//! The last line preserves the access of PostgreSQL's own user.
//!
//! # Creation and removal
//!
//! ```text
//! password on disk → role, marked by its comment → database without connections → rights, ownership → open
//! ```
//!
//! After a crash, the next `ensure` continues from the state on the server. A role is managed by this daemon if its comment
//! has the daemon's mark: the comment is set in the same transaction, and the role cannot change it. A database is managed
//! if such a role owns it. Other objects of the same name are never touched. Removal goes in reverse order, so that managed
//! objects always have a mark.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper_facilities::{
    DatabaseAccess, DatabaseSpec, Databases, FacilityError, Found, Resource,
};
use innkeeper_model::api::Check;
use innkeeper_model::{GuestName, Ownership, Secret};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;

use crate::identity::Identity;
use crate::tree::blocking;
use password::Passwords;
use session::Session;
use sql::{identifier, literal};

mod capacity;
mod check;
mod collation;
mod dump;
mod error;
mod finding;
mod ownership;
mod password;
mod removal;
mod rules;
mod session;
mod sql;

pub use error::{DatabaseError, PostgresError};

/// A database that every cluster has, without user data.
const MAINTENANCE: &str = "postgres";

/// The line of `pg_hba.conf` that lets backups dump and load databases with the passwords of previews' roles.
const DUMPS_LINE: &str = "host sameuser all 127.0.0.1/32 scram-sha-256";

/// Maximum number of concurrent operations. Each takes one or two of the server's connections.
const MAX_CONCURRENT: usize = 4;

/// Settings of [`PostgresDatabases`].
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Directory of PostgreSQL's Unix socket, such as `/run/postgresql`.
    pub socket_dir: PathBuf,
    /// The port, which is also part of the socket's name.
    pub port: u16,
    /// The daemon's role, a superuser.
    pub role: String,
    /// Directory of the passwords, readable by root only.
    pub passwords: PathBuf,
    /// Connection limit of one preview. `None` means an equal share of the server's connections.
    pub connections: Option<u16>,
    /// Maximum number of previews, for the check. 0 means no limit.
    pub previews: usize,
    /// Default statement timeout of previews, which a preview can change. `None` means no timeout.
    pub statement_timeout: Option<Duration>,
    /// Default timeout of idle transactions, in the same way.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// The guests' addresses, for the check.
    pub subnet: Ipv4Net,
    /// Marks the daemon's roles and databases.
    pub identity: Identity,
}

/// Manages preview databases on PostgreSQL. Clones share the limit of concurrent operations.
#[derive(Clone, Debug)]
pub struct PostgresDatabases {
    config: Arc<PostgresConfig>,
    passwords: Passwords,
    permits: Arc<Semaphore>,
    fail_point: FailPoint,
}

/// Makes an operation fail before a certain statement, as a crash would. Only tests set it.
#[derive(Clone, Debug, Default)]
struct FailPoint {
    #[cfg(test)]
    remaining: Option<Arc<std::sync::atomic::AtomicUsize>>,
}

impl FailPoint {
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "see above")
    )]
    fn pass(&self) -> Result<(), DatabaseError> {
        #[cfg(test)]
        if let Some(remaining) = &self.remaining {
            use std::sync::atomic::Ordering::SeqCst;
            let decrement = |remaining: usize| remaining.checked_sub(1);
            if remaining.fetch_update(SeqCst, SeqCst, decrement).is_err() {
                return Err(DatabaseError::Interrupted);
            }
        }
        Ok(())
    }
}

/// Owner of a name on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The object does not exist.
    Absent,
    ThisDaemon,
    Other,
}

impl PostgresDatabases {
    /// Creates the driver without connecting to the server.
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        Self {
            passwords: Passwords::new(config.passwords.clone()),
            config: Arc::new(config),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            fail_point: FailPoint::default(),
        }
    }

    /// Creates or updates a preview's role and database. `reset` drops the database first.
    async fn ensure_all(
        &self,
        spec: &DatabaseSpec,
        reset: bool,
    ) -> Result<DatabaseAccess, DatabaseError> {
        let _permit = self.permits.acquire().await;
        let slug = &spec.slug;
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        let (passwords, owner) = (self.passwords.clone(), slug.clone());
        let password = blocking(move || Ok::<_, DatabaseError>(passwords.ensure(&owner)?)).await?;
        capacity::lock(&session).await?;
        self.ensure_role(&session, slug, &name, &password).await?;
        capacity::unlock(&session).await?;
        if reset {
            self.drop_database(&session, slug, &name).await?;
        }
        self.ensure_database(&session, spec, &name).await?;
        Ok(DatabaseAccess {
            id: id_of_database(&session, &name).await?,
            role: name.clone(),
            name,
            password,
        })
    }

    /// Opens a session that holds the preview's lock, which all daemons of the host share.
    async fn lock(&self, name: &str) -> Result<Session, DatabaseError> {
        let session = self.session(MAINTENANCE).await?;
        let hash = Sha256::digest(format!("innkeeper {name}"));
        let mut key = [0; 8];
        key.copy_from_slice(&hash[..8]);
        let key = i64::from_be_bytes(key);
        session.lock(name, key).await?;
        Ok(session)
    }

    /// Returns the size of a preview's database. Holds no lock: the server lists its files.
    async fn size_of(&self, slug: &GuestName) -> Result<Option<u64>, DatabaseError> {
        let _permit = self.permits.acquire().await;
        let session = self.session(MAINTENANCE).await?;
        let name = sql::name_of(slug);
        let sql = "SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1";
        let row = session
            .row("measure database", &name, sql, &[&name])
            .await?;
        Ok(row.and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok()))
    }

    async fn session(&self, database: &str) -> Result<Session, DatabaseError> {
        Session::open(&self.config, database, self.fail_point.clone()).await
    }

    /// Creates the role or updates its rights and password, and updates the connection limits of all previews' roles. The
    /// caller must hold [`capacity::lock`].
    async fn ensure_role(
        &self,
        session: &Session,
        slug: &GuestName,
        name: &str,
        password: &Secret,
    ) -> Result<(), DatabaseError> {
        let (verb, action) = match owner_of_role(session, &self.config.identity, slug, name).await?
        {
            Owner::Absent => ("CREATE", "create role"),
            Owner::ThisDaemon => ("ALTER", "change role"),
            Owner::Other => return Err(foreign("role", name)),
        };
        let role = identifier(name);
        let mark = literal(&sql::mark(slug, self.config.identity.daemon()));
        let verifier = literal(&password::verifier(password));
        let is_new = verb == "CREATE";
        let connections = capacity::limit_of(session, &self.config, name, is_new).await?;
        let statement = limit(&role, "statement_timeout", self.config.statement_timeout);
        let idle = limit(
            &role,
            "idle_in_transaction_session_timeout",
            self.config.idle_in_transaction_timeout,
        );
        let sql = format!(
            "BEGIN;
             {verb} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT NOREPLICATION NOBYPASSRLS
                 CONNECTION LIMIT {connections} PASSWORD {verifier};
             COMMENT ON ROLE {role} IS {mark};
             {statement};
             {idle};
             COMMIT"
        );
        session.run(action, name, &sql).await?;
        capacity::apply_to_others(session, &self.config, name, connections).await;
        Ok(())
    }

    /// Creates the database unless it exists and is complete.
    async fn ensure_database(
        &self,
        session: &Session,
        spec: &DatabaseSpec,
        name: &str,
    ) -> Result<(), DatabaseError> {
        let DatabaseSpec { slug, template } = spec;
        if removal::is_invalid(session, name).await? {
            self.drop_database(session, slug, name).await?;
        }
        match owner_of_database(session, name).await? {
            Owner::Other => return Err(foreign("database", name)),
            Owner::ThisDaemon if self.is_complete(session, slug, name).await? => return Ok(()),
            Owner::ThisDaemon => {}
            Owner::Absent => create_database(session, name, template.as_deref()).await?,
        }
        let database = identifier(name);
        // An interrupted removal leaves the database closed to all connections.
        let close = format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
             ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT 0"
        );
        session.run("close database", name, &close).await?;
        if template.is_some() {
            ownership::assign(&self.session(name).await?, name).await?;
        }
        let mark = literal(&sql::mark(slug, self.config.identity.daemon()));
        let open = format!(
            "BEGIN;
             COMMENT ON DATABASE {database} IS {mark};
             ALTER DATABASE {database} CONNECTION LIMIT -1;
             COMMIT"
        );
        session.run("open database", name, &open).await
    }

    /// Reports whether the last step of the creation is done. The owner can remove the mark; then the last steps run again,
    /// which changes nothing.
    async fn is_complete(
        &self,
        session: &Session,
        slug: &GuestName,
        name: &str,
    ) -> Result<bool, DatabaseError> {
        let sql = "SELECT shobj_description(oid, 'pg_database') = $2 AND datallowconn \
                   FROM pg_database WHERE datname = $1";
        let mark = sql::mark(slug, self.config.identity.daemon());
        let row = session
            .row("query database", name, sql, &[&name, &mark])
            .await?;
        let is_marked = row.and_then(|row| row.get::<_, Option<bool>>(0));
        Ok(is_marked.unwrap_or(false))
    }

    /// Returns a driver that also manages unmarked objects.
    fn adopting(&self) -> Self {
        let config = PostgresConfig::clone(&self.config);
        Self {
            config: Arc::new(PostgresConfig {
                identity: config.identity.clone().adopting(),
                ..config
            }),
            ..self.clone()
        }
    }

    /// Marks the role and the database of a preview if a former release created them.
    async fn mark_legacy(&self, slug: &GuestName) -> Result<(), DatabaseError> {
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        let sql = "SELECT shobj_description(r.oid, 'pg_authid'), shobj_description(d.oid, 'pg_database') \
                   FROM pg_roles r LEFT JOIN pg_database d ON d.datdba = r.oid AND d.datname = rolname \
                   WHERE rolname = $1";
        let row = session.row("query role", &name, sql, &[&name]).await?;
        let Some(row) = row else {
            return Ok(());
        };
        let legacy = Some(sql::legacy_mark(slug));
        let (role, database): (Option<String>, Option<String>) = (row.get(0), row.get(1));
        let mark = literal(&sql::mark(slug, self.config.identity.daemon()));
        if role != legacy {
            return Ok(());
        }
        let quoted = identifier(&name);
        let mut statements = format!("BEGIN; COMMENT ON ROLE {quoted} IS {mark};");
        if database == legacy {
            statements.push_str(&format!(" COMMENT ON DATABASE {quoted} IS {mark};"));
        }
        statements.push_str(" COMMIT");
        session.run("mark role", &name, &statements).await
    }

    async fn list(&self) -> Result<Vec<Found>, DatabaseError> {
        let session = self.session(MAINTENANCE).await?;
        let sql = "SELECT format('role %s', rolname), shobj_description(oid, 'pg_authid') FROM pg_roles \
                   UNION ALL \
                   SELECT format('database %s', datname), shobj_description(datdba, 'pg_authid') FROM pg_database";
        let rows = session.rows("list", "roles and databases", sql, &[]);
        let mut found = Vec::new();
        for row in rows.await? {
            let (object, comment): (String, Option<String>) = (row.get(0), row.get(1));
            if let Some((guest, daemon)) = comment.as_deref().and_then(sql::parse_mark) {
                found.push(Found {
                    guest: Some(guest),
                    object,
                    ownership: self.config.identity.ownership(daemon.as_ref()),
                });
            }
        }
        let passwords = self.passwords.clone();
        found.extend(blocking(move || Ok::<_, DatabaseError>(passwords.observe()?)).await?);
        found.sort();
        Ok(found)
    }

    async fn sweep_one(&self, found: &Found) -> Result<(), DatabaseError> {
        let (passwords, object) = (self.passwords.clone(), found.object.clone());
        if blocking(move || Ok::<_, DatabaseError>(passwords.sweep(&object)?)).await? {
            return Ok(());
        }
        let is_server_object = |slug: &GuestName| {
            let name = sql::name_of(slug);
            [format!("role {name}"), format!("database {name}")].contains(&found.object)
        };
        match &found.guest {
            // Role and database go together: the role's mark identifies the owner of both.
            Some(slug) if is_server_object(slug) => match found.ownership {
                Ownership::Ours => self.remove_all(slug).await,
                Ownership::Unmarked => self.adopting().remove_all(slug).await,
                Ownership::Other => Ok(()),
            },
            _ => Err(DatabaseError::NotManaged {
                object: found.object.clone(),
            }),
        }
    }
}

/// Returns the owner of a role, according to the role's comment.
async fn owner_of_role(
    session: &Session,
    identity: &Identity,
    slug: &GuestName,
    name: &str,
) -> Result<Owner, DatabaseError> {
    let sql = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
    let row = session.row("query role", name, sql, &[&name]).await?;
    let Some(row) = row else {
        return Ok(Owner::Absent);
    };
    let comment: Option<String> = row.get(0);
    let mark = comment.as_deref().and_then(sql::parse_mark);
    Ok(match mark {
        Some((preview, daemon))
            if preview == *slug && identity.may_change(identity.ownership(daemon.as_ref())) =>
        {
            Owner::ThisDaemon
        }
        _ => Owner::Other,
    })
}

/// Returns the owner of a database. The caller must have checked that this daemon owns the role of the same name.
async fn owner_of_database(session: &Session, name: &str) -> Result<Owner, DatabaseError> {
    let sql = "SELECT rolname = datname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba \
               WHERE datname = $1";
    let row = session.row("query database", name, sql, &[&name]).await?;
    Ok(match row.map(|row| row.get(0)) {
        None => Owner::Absent,
        Some(true) => Owner::ThisDaemon,
        Some(false) => Owner::Other,
    })
}

/// Returns the number that the server gave to the database when it was created.
async fn id_of_database(session: &Session, name: &str) -> Result<String, DatabaseError> {
    let sql = "SELECT oid::text FROM pg_database WHERE datname = $1";
    let row = session
        .row("identify database", name, sql, &[&name])
        .await?;
    Ok(row.map_or_else(String::new, |row| row.get(0)))
}

/// Creates the database. Until it is complete, only superusers can connect: by default every role may connect to a new
/// database, and a copy has contents from the start.
///
/// Without a template the database is empty and in UTF-8, regardless of the cluster's encoding: `template0` has neither
/// contents nor a collation version that could mismatch.
async fn create_database(
    session: &Session,
    name: &str,
    template: Option<&str>,
) -> Result<(), DatabaseError> {
    let database = identifier(name);
    let encoding = match template {
        Some(template) => {
            if let Some(mismatch) = collation::mismatches(session, Some(template)).await?.pop() {
                return Err(DatabaseError::TemplateCollation {
                    template: mismatch.database,
                    recorded: mismatch.recorded,
                    actual: mismatch.actual,
                });
            }
            ""
        }
        None if supports_utf8(session, name).await? => "ENCODING 'UTF8'",
        // The cluster's locale requires another encoding.
        None => "ENCODING 'UTF8' LOCALE 'C'",
    };
    let template = template.unwrap_or("template0");
    let create = format!(
        "CREATE DATABASE {database} OWNER {database} TEMPLATE {} {encoding} CONNECTION LIMIT 0",
        identifier(template)
    );
    let outcome = session.run("create database", name, &create).await;
    outcome.map_err(|error| {
        let template = template.to_owned();
        match error.state() {
            Some(&SqlState::OBJECT_IN_USE) => DatabaseError::TemplateInUse { template },
            Some(&SqlState::UNDEFINED_DATABASE) => DatabaseError::NoTemplate { template },
            _ => error,
        }
    })
}

/// Reports whether the locale of `template0` allows a database in UTF-8. `C` and `POSIX` allow any encoding.
async fn supports_utf8(session: &Session, name: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT pg_encoding_to_char(encoding) = 'UTF8' \
               OR datcollate IN ('C', 'POSIX') AND datctype IN ('C', 'POSIX') \
               FROM pg_database WHERE datname = 'template0'";
    let row = session.row("query template0 for", name, sql, &[]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

fn foreign(kind: &'static str, name: &str) -> DatabaseError {
    DatabaseError::Foreign {
        kind,
        name: name.to_owned(),
    }
}

/// Returns the statement that sets or resets a role's timeout.
fn limit(role: &str, setting: &str, limit: Option<Duration>) -> String {
    match limit {
        Some(limit) => format!(
            "ALTER ROLE {role} SET {setting} = '{}ms'",
            limit.as_millis()
        ),
        None => format!("ALTER ROLE {role} RESET {setting}"),
    }
}

#[async_trait]
impl Resource for PostgresDatabases {
    fn kind(&self) -> &'static str {
        "database"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.list().await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(self.remove_all(guest).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        Ok(self.sweep_one(found).await?)
    }

    async fn check(&self) -> Vec<Check> {
        match self.session(MAINTENANCE).await {
            Ok(session) => check::findings(&session, &self.config).await,
            Err(error) => vec![check::broken(&error)],
        }
    }
}

#[async_trait]
impl Databases for PostgresDatabases {
    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError> {
        Ok(self.mark_legacy(preview).await?)
    }

    async fn ensure(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        Ok(self.ensure_all(spec, false).await?)
    }

    async fn password(&self, preview: &GuestName) -> Result<Option<Secret>, FacilityError> {
        let (passwords, slug) = (self.passwords.clone(), preview.clone());
        let read = move || Ok::<_, DatabaseError>(passwords.get(&slug)?);
        Ok(blocking(read).await?)
    }

    async fn size(&self, preview: &GuestName) -> Result<Option<u64>, FacilityError> {
        Ok(self.size_of(preview).await?)
    }

    async fn reset(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        Ok(self.ensure_all(spec, true).await?)
    }

    async fn dump(&self, preview: &GuestName, to: &Path) -> Result<(), FacilityError> {
        Ok(self.dump_contents(preview, to).await?)
    }

    async fn load(
        &self,
        preview: &GuestName,
        password: &Secret,
        from: &Path,
    ) -> Result<(), FacilityError> {
        Ok(self.load_contents(preview, password, from).await?)
    }
}

#[cfg(test)]
mod tests;
