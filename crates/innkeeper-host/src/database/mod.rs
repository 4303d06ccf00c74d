//! Databases of previews: a role and a database of its own for each, on the host's PostgreSQL (13 or newer).
//!
//! # Who reaches what
//!
//! The role `preview_<slug>` can log in and do nothing else on the server; the database of the same name
//! belongs to it, and nobody else may connect to it. That a role reaches no other database is said twice:
//! by the databases' own rights, and by one line of `pg_hba.conf`, which lets roles from the guests'
//! addresses into the database of their own name only. The host's owner adds it once:
//!
//! ```text
//! host  sameuser  all  10.100.0.0/16  scram-sha-256
//! ```
//!
//! A guest reaches PostgreSQL's port on its own gateway address only, with a source address that is its own
//! ([`crate::firewall`]); what makes a role a guest's own is the password, which only that guest is given.
//!
//! # Who we are
//!
//! We connect over the Unix socket as a superuser; PostgreSQL asks the kernel who we are (`peer`), so there is
//! no password of ours. For a daemon that runs as root, and the role `postgres`:
//!
//! ```text
//! pg_hba.conf:    local      all       postgres  peer map=innkeeper
//! pg_ident.conf:  innkeeper  root      postgres
//!                 innkeeper  postgres  postgres
//! ```
//!
//! The last line lets PostgreSQL's own user be who it was before.
//!
//! # How a database comes and goes
//!
//! ```text
//! password on disk → role, marked by its comment → database that lets nobody in → rights, ownership → open
//! ```
//!
//! After a crash the next `ensure` goes on from what it finds. A role is ours by its comment, which is made in
//! the same transaction and which the role itself cannot change; a database is ours if such a role owns it.
//! What has the name and is not ours is left alone. Removal goes the other way, so that nothing of ours is
//! ever without its mark.

use std::path::PathBuf;
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
mod error;
mod ownership;
mod password;
mod removal;
mod session;
mod sql;

pub use error::{DatabaseError, PostgresError};

/// The database that every cluster has and that nobody's data is in.
const MAINTENANCE: &str = "postgres";

/// How many previews are worked on at the same time: each takes one or two of the server's connections.
const AT_ONCE: usize = 4;

/// The settings of [`PostgresDatabases`].
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The directory of PostgreSQL's Unix socket, such as `/run/postgresql`.
    pub socket_dir: PathBuf,
    /// The port, which is a part of the socket's name too.
    pub port: u16,
    /// Our role, a superuser.
    pub role: String,
    /// The directory in which passwords are kept, readable by root only.
    pub passwords: PathBuf,
    /// The most connections of one preview; nothing means its share of what the server has.
    pub connections: Option<u16>,
    /// How many previews there may be, for the check; 0 means as many as come.
    pub previews: usize,
    /// How long a statement of a preview may take, unless the preview itself says otherwise; no limit when
    /// nothing is given.
    pub statement_timeout: Option<Duration>,
    /// How long a transaction of a preview may stay idle, in the same way.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// The guests' addresses, for the check.
    pub subnet: Ipv4Net,
    /// Marks our roles and databases.
    pub identity: Identity,
}

/// The driver of [`Databases`]. Clones share the work.
#[derive(Clone, Debug)]
pub struct PostgresDatabases {
    config: Arc<PostgresConfig>,
    passwords: Passwords,
    places: Arc<Semaphore>,
    fuse: Fuse,
}

/// Lets a test end the work before a certain statement, as a crash would. Nothing otherwise.
#[derive(Clone, Debug, Default)]
struct Fuse {
    #[cfg(test)]
    left: Option<Arc<std::sync::atomic::AtomicUsize>>,
}

impl Fuse {
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "see above")
    )]
    fn burn(&self) -> Result<(), DatabaseError> {
        #[cfg(test)]
        if let Some(left) = &self.left {
            use std::sync::atomic::Ordering::SeqCst;
            let one_less = |left: usize| left.checked_sub(1);
            if left.fetch_update(SeqCst, SeqCst, one_less).is_err() {
                return Err(DatabaseError::Interrupted);
            }
        }
        Ok(())
    }
}

/// What has a name on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    Stranger,
}

impl PostgresDatabases {
    /// The driver. Nothing is touched before [`Databases::ensure`].
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        Self {
            passwords: Passwords::new(config.passwords.clone()),
            config: Arc::new(config),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            fuse: Fuse::default(),
        }
    }

    async fn make(&self, spec: &DatabaseSpec, anew: bool) -> Result<DatabaseAccess, DatabaseError> {
        let _place = self.places.acquire().await;
        let slug = &spec.slug;
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        let (passwords, whose) = (self.passwords.clone(), slug.clone());
        let password = blocking(move || Ok::<_, DatabaseError>(passwords.ensure(&whose)?)).await?;
        capacity::lock(&session).await?;
        self.make_role(&session, slug, &name, &password).await?;
        capacity::unlock(&session).await?;
        if anew {
            self.drop_database(&session, slug, &name).await?;
        }
        self.make_database(&session, spec, &name).await?;
        Ok(DatabaseAccess {
            role: name.clone(),
            name,
            password,
        })
    }

    /// A session that has the preview to itself, among all daemons of the host.
    async fn lock(&self, name: &str) -> Result<Session, DatabaseError> {
        let session = self.session(MAINTENANCE).await?;
        let hash = Sha256::digest(format!("innkeeper {name}"));
        let mut key = [0; 8];
        key.copy_from_slice(&hash[..8]);
        let key = i64::from_be_bytes(key);
        session.lock(name, key).await?;
        Ok(session)
    }

    async fn session(&self, database: &str) -> Result<Session, DatabaseError> {
        Session::open(&self.config, database, self.fuse.clone()).await
    }

    /// Makes the role, or gives the one that is there the rights and the password that it should have, and all previews'
    /// roles their shares of the server's connections. To be called with [`capacity::lock`].
    async fn make_role(
        &self,
        session: &Session,
        slug: &GuestName,
        name: &str,
        password: &Secret,
    ) -> Result<(), DatabaseError> {
        let (verb, action) = match owner_of_role(session, &self.config.identity, slug, name).await?
        {
            Owner::Nobody => ("CREATE", "create role"),
            Owner::Us => ("ALTER", "change role"),
            Owner::Stranger => return Err(foreign("role", name)),
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
        capacity::level(session, &self.config, name, connections).await;
        Ok(())
    }

    /// Makes the database unless it is there and complete.
    async fn make_database(
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
            Owner::Stranger => return Err(foreign("database", name)),
            Owner::Us if self.is_complete(session, slug, name).await? => return Ok(()),
            Owner::Us => {}
            Owner::Nobody => create_database(session, name, template.as_deref()).await?,
        }
        let database = identifier(name);
        // An interrupted removal leaves the database closed to every connection.
        let close = format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
             ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT 0"
        );
        session.run("close database", name, &close).await?;
        if template.is_some() {
            ownership::take(&self.session(name).await?, name).await?;
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

    /// Whether the last step of making the database was done. Its owner can take the mark away; then the last
    /// steps are done once more, which changes nothing.
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
            .row("look at database", name, sql, &[&name, &mark])
            .await?;
        let is_marked = row.and_then(|row| row.get::<_, Option<bool>>(0));
        Ok(is_marked.unwrap_or(false))
    }

    /// The same driver, for what has no mark.
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

    /// Marks the role and the database of a preview if a former release made them.
    async fn mark_former(&self, slug: &GuestName) -> Result<(), DatabaseError> {
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        let sql = "SELECT shobj_description(r.oid, 'pg_authid'), shobj_description(d.oid, 'pg_database') \
                   FROM pg_roles r LEFT JOIN pg_database d ON d.datdba = r.oid AND d.datname = rolname \
                   WHERE rolname = $1";
        let row = session.row("look for role", &name, sql, &[&name]).await?;
        let Some(row) = row else {
            return Ok(());
        };
        let former = Some(sql::former_mark(slug));
        let (role, database): (Option<String>, Option<String>) = (row.get(0), row.get(1));
        let mark = literal(&sql::mark(slug, self.config.identity.daemon()));
        if role != former {
            return Ok(());
        }
        let quoted = identifier(&name);
        let mut statements = format!("BEGIN; COMMENT ON ROLE {quoted} IS {mark};");
        if database == former {
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
            if let Some((guest, daemon)) = comment.as_deref().and_then(sql::marked) {
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
            // A role cannot go without its database, nor be told from another's without it.
            Some(slug) if is_server_object(slug) => match found.ownership {
                Ownership::Ours => self.unmake(slug).await,
                Ownership::Unmarked => self.adopting().unmake(slug).await,
                Ownership::Other => Ok(()),
            },
            _ => Err(DatabaseError::NotOurs {
                object: found.object.clone(),
            }),
        }
    }
}

/// Whose role has this name, by the comment that it has.
async fn owner_of_role(
    session: &Session,
    identity: &Identity,
    slug: &GuestName,
    name: &str,
) -> Result<Owner, DatabaseError> {
    let sql = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
    let row = session.row("look for role", name, sql, &[&name]).await?;
    let Some(row) = row else {
        return Ok(Owner::Nobody);
    };
    let comment: Option<String> = row.get(0);
    let marked = comment.as_deref().and_then(sql::marked);
    Ok(match marked {
        Some((of, daemon))
            if of == *slug && identity.may_change(identity.ownership(daemon.as_ref())) =>
        {
            Owner::Us
        }
        _ => Owner::Stranger,
    })
}

/// Whose database has this name. The role of the same name was found to be ours before.
async fn owner_of_database(session: &Session, name: &str) -> Result<Owner, DatabaseError> {
    let sql = "SELECT rolname = datname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba \
               WHERE datname = $1";
    let row = session
        .row("look for database", name, sql, &[&name])
        .await?;
    Ok(match row.map(|row| row.get(0)) {
        None => Owner::Nobody,
        Some(true) => Owner::Us,
        Some(false) => Owner::Stranger,
    })
}

/// Creates the database. Until it is complete it has room for no connection but a superuser's: everybody may
/// connect to a new database, and a copy has something in it from the beginning.
///
/// Without a template it is empty and in UTF-8, whatever the cluster was made with: `template0` has neither contents nor a
/// collation version that could be wrong.
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
        None if takes_utf8(session, name).await? => "ENCODING 'UTF8'",
        // The cluster's locale is for another encoding.
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

/// Whether the locale of `template0` allows a database in UTF-8: `C` and `POSIX` do with any encoding.
async fn takes_utf8(session: &Session, name: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT pg_encoding_to_char(encoding) = 'UTF8' \
               OR datcollate IN ('C', 'POSIX') AND datctype IN ('C', 'POSIX') \
               FROM pg_database WHERE datname = 'template0'";
    let row = session.row("look at template0 for", name, sql, &[]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

fn foreign(kind: &'static str, name: &str) -> DatabaseError {
    DatabaseError::Foreign {
        kind,
        name: name.to_owned(),
    }
}

/// Gives a role a limit, or takes it off.
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
        Ok(self.unmake(guest).await?)
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
        Ok(self.mark_former(preview).await?)
    }

    async fn ensure(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        Ok(self.make(spec, false).await?)
    }

    async fn reset(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        Ok(self.make(spec, true).await?)
    }
}

#[cfg(test)]
mod tests;
