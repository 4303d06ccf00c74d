//! Contents of preview databases in files, for backups.
//!
//! A database's contents are a preview's: they may have functions that are called while they are loaded, and `pg_dump` had
//! bugs that let a database's owner execute SQL with the rights of the role that dumps it (CVE-2024-7348). So both run with
//! the rights of the preview's role, which connects like its guest, with its password. The superuser's session, even with
//! another role, could be taken over by such a function.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_facilities::DatabaseSpec;
use innkeeper_model::{GuestName, Secret};
use tokio::process::Command;

use super::session::Session;
use super::{
    DatabaseError, MAINTENANCE, Owner, PostgresDatabases, capacity, foreign, owner_of_role,
    password, sql,
};
use crate::command::{command, run_command};
use crate::tree::blocking;

/// The timeout of one database.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The directory of the versions of PostgreSQL on Debian. The programs there do not depend on a default cluster.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Settings of the sessions, which override a database's own. A preview's role may not set those of the log.
const OPTIONS: &str =
    "-c statement_timeout=0 -c lock_timeout=60s -c idle_in_transaction_session_timeout=0";

impl PostgresDatabases {
    /// Writes the contents of the preview's database to a new file.
    pub(super) async fn dump_contents(
        &self,
        slug: &GuestName,
        to: &Path,
    ) -> Result<(), DatabaseError> {
        let _permit = self.permits.acquire().await;
        let name = sql::name_of(slug);
        let (passwords, owner) = (self.passwords.clone(), slug.clone());
        let password = blocking(move || Ok::<_, DatabaseError>(passwords.get(&owner)?)).await?;
        let Some(password) = password else {
            return Err(DatabaseError::NoPassword { name });
        };
        // The preview may use all of its connections, and more after its share has shrunk.
        self.limit_connections(slug, &name, 1).await?;
        let mut program = self.program_of_role("pg_dump", &name, &password);
        // Compressed contents would defeat the deduplication of backups.
        program.args(["--format=custom", "--compress=0", "--file"]);
        program.arg(to).args(["--dbname", &name]);
        let dumped = run(program, "dump", &name).await;
        // Each update of a preview sets its limit, too.
        let limited = self.limit_connections(slug, &name, 0).await;
        dumped.and(limited)
    }

    /// Sets the connection limit of the preview's role to its share; with `more`, to as many as its share and its open sessions
    /// allow, and `more`. Sessions stay open when a share shrinks.
    async fn limit_connections(
        &self,
        slug: &GuestName,
        name: &str,
        more: u32,
    ) -> Result<(), DatabaseError> {
        let session = self.session(MAINTENANCE).await?;
        let owner = owner_of_role(&session, &self.config.identity, slug, name).await?;
        if owner != Owner::ThisDaemon {
            return Err(foreign("role", name));
        }
        capacity::lock(&session).await?;
        let share = capacity::limit_of(&session, &self.config, name, false).await?;
        let used = match more {
            0 => 0,
            _ => open_sessions(&session, name).await?,
        };
        let (role, limit) = (sql::identifier(name), share.max(used).saturating_add(more));
        let alter = format!("ALTER ROLE {role} CONNECTION LIMIT {limit}");
        session.run("limit connections of", name, &alter).await?;
        capacity::unlock(&session).await
    }

    /// Creates the preview's role and database, and loads the contents of a file into it.
    pub(super) async fn load_contents(
        &self,
        slug: &GuestName,
        password: &Secret,
        from: &Path,
    ) -> Result<(), DatabaseError> {
        let name = sql::name_of(slug);
        if !password::is_password(password.expose()) {
            return Err(DatabaseError::Password { name });
        }
        let spec = DatabaseSpec {
            slug: slug.clone(),
            template: None,
        };
        let session = self.lock(&name).await?;
        let (passwords, owner, kept) = (self.passwords.clone(), slug.clone(), password.clone());
        blocking(move || Ok::<_, DatabaseError>(passwords.set(&owner, &kept)?)).await?;
        drop(session);
        self.ensure_all(&spec, true).await?;
        let mut program = self.program_of_role("pg_restore", &name, password);
        program.args(["--no-owner", "--no-privileges", "--exit-on-error"]);
        program.args(["--dbname", &name, "--"]).arg(from);
        run(program, "load", &name).await
    }

    /// Returns a program that connects as a preview's role.
    fn program_of_role(&self, name: &str, role: &str, password: &Secret) -> Command {
        let mut command = command(newest(Path::new(VERSIONS), name).unwrap_or_else(|| name.into()));
        command
            .env("PGOPTIONS", OPTIONS)
            .env("PGPASSWORD", password.expose())
            .args(["--no-password", "--port"])
            .arg(self.config.port.to_string())
            .args(["--host", "127.0.0.1", "--username", role]);
        command
    }
}

/// Returns the number of open sessions of a role.
async fn open_sessions(session: &Session, role: &str) -> Result<u32, DatabaseError> {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    let row = session
        .row("query sessions of", role, count, &[&role])
        .await?;
    let number = row.map_or(0, |row| row.get::<_, i64>(0));
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

async fn run(program: Command, action: &'static str, name: &str) -> Result<(), DatabaseError> {
    let ended = run_command(program, b"", LIMIT).await;
    ended.map(drop).map_err(|source| DatabaseError::Program {
        action,
        name: name.to_owned(),
        source,
    })
}

/// Returns the path of a program of the newest installed version.
fn newest(versions: &Path, program: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(versions).ok()?.flatten();
    let number = |name: OsString| name.to_str()?.parse::<u32>().ok();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            Some((
                number(entry.file_name())?,
                entry.path().join("bin").join(program),
            ))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_of_the_newest_version_is_chosen() {
        let dir = tempfile::tempdir().expect("directory");
        for version in ["9", "15", "17", "18", "common"] {
            let bin = dir.path().join(version).join("bin");
            fs::create_dir_all(&bin).expect("directory");
            if version != "18" {
                fs::write(bin.join("pg_dump"), "").expect("program");
            }
        }
        let found = newest(dir.path(), "pg_dump");
        assert_eq!(found, Some(dir.path().join("17/bin/pg_dump")));
        assert_eq!(newest(dir.path(), "pg_restore"), None);
    }
}
