//! Errors of preview databases.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, chain};
use tokio_postgres::error::SqlState;

use super::DUMPS_LINE;
use super::sql::identifier;
use crate::{CommandError, FileError};

/// A preview's database or role that cannot be created, changed or dropped.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A password's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The connection to PostgreSQL fails.
    #[error(
        "cannot connect to PostgreSQL in {} on port {port} as '{role}'",
        socket_dir.display()
    )]
    Connect {
        /// Directory of its socket.
        socket_dir: PathBuf,
        /// Its port.
        port: u16,
        /// The daemon's role.
        role: String,
        /// The error of the connection.
        #[source]
        source: PostgresError,
    },
    /// A statement failed.
    #[error("cannot {action} '{name}'")]
    Statement {
        /// The action, such as `create database`.
        action: &'static str,
        /// The object.
        name: String,
        /// PostgreSQL's error.
        #[source]
        source: PostgresError,
    },
    /// A role or a database of the name exists and is not managed by this daemon.
    #[error("the {kind} '{name}' exists already and is not managed by this Innkeeper daemon")]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The template cannot be copied while it has connections.
    #[error("the template database '{template}' is in use")]
    TemplateInUse {
        /// The template's name.
        template: String,
    },
    /// PostgreSQL refuses to copy a database whose collation version differs from the system's.
    #[error(
        "the template database '{template}' has collation version {recorded}, but the system has {actual}"
    )]
    TemplateCollation {
        /// The template's name.
        template: String,
        /// The version that PostgreSQL recorded for it.
        recorded: String,
        /// The version of the system's library.
        actual: String,
    },
    /// The server has fewer connections than previews.
    #[error(
        "PostgreSQL has {connections} connections for previews, and this would be preview number {previews}"
    )]
    NoConnections {
        /// Number of previews, including this one.
        previews: u32,
        /// The connections that they share.
        connections: u32,
        /// The `max_connections` that suffices.
        needed: u32,
    },
    /// `pg_dump` or `pg_restore` failed.
    #[error("cannot {action} the database '{name}'")]
    Program {
        /// The action, such as `dump`.
        action: &'static str,
        /// The database.
        name: String,
        /// The error of the program.
        #[source]
        source: CommandError,
    },
    /// A backup has a password that is not one of ours.
    #[error("the password of the database '{name}' in the backup is invalid")]
    Password {
        /// The database.
        name: String,
    },
    /// The file with the password of a preview's role is missing.
    #[error("the password of the database '{name}' is missing on this host")]
    NoPassword {
        /// The database.
        name: String,
    },
    /// The template does not exist.
    #[error("the template database '{template}' does not exist")]
    NoTemplate {
        /// The template's name.
        template: String,
    },
    /// An object to be swept that [`observe`](innkeeper_facilities::Resource::observe) does not return.
    #[error("'{object}' is not managed by Innkeeper")]
    NotManaged {
        /// The object to be swept.
        object: String,
    },
    /// A test's fail point.
    #[cfg(test)]
    #[error("interrupted by a test")]
    Interrupted,
}

/// An error of PostgreSQL or of the connection to it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    message: String,
    /// PostgreSQL's code, if it responded.
    pub(super) code: Option<SqlState>,
    /// An error of the kernel, such as a refused connection.
    is_io: bool,
    is_timeout: bool,
}

impl PostgresError {
    /// Returns the error for no response within `limit`.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self {
            message: format!("PostgreSQL does not respond: timeout after {limit:?}"),
            code: None,
            is_io: false,
            is_timeout: true,
        }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let message = match error.as_db_error() {
            Some(db) => {
                let detail = db.detail().map(|detail| format!(": {detail}"));
                let (message, code) = (db.message(), db.code().code());
                format!("{message}{} (SQLSTATE {code})", detail.unwrap_or_default())
            }
            None => chain(&error),
        };
        let is_io = error.source().is_some_and(<dyn Error>::is::<io::Error>);
        Self {
            message,
            code: error.code().cloned(),
            is_io,
            is_timeout: false,
        }
    }
}

impl From<DatabaseError> for FacilityError {
    fn from(error: DatabaseError) -> Self {
        Self::new(error)
    }
}

impl Explain for DatabaseError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::DatabaseFailed),
            Self::Statement { source, .. } if source.code == Some(SqlState::DISK_FULL) => {
                Code::DiskFull
            }
            Self::Program { source, .. } => source.code_or(Code::DatabaseFailed),
            Self::Password { .. } => Code::BackupInvalid,
            _ => Code::DatabaseFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoPassword { .. } => "`preview update` of the preview gives it another one.".to_owned(),
            Self::File(error) => return error.remedy(),
            Self::Connect { source, .. } | Self::Statement { source, .. } if source.is_timeout => {
                "Check what PostgreSQL is doing (`systemctl status postgresql`, `journalctl -u postgresql`), then restart it (`systemctl restart postgresql`).".to_owned()
            }
            Self::Connect { role, source, .. } => {
                if source.is_io {
                    "Start PostgreSQL (`systemctl start postgresql`) and check that its socket is at the path in Innkeeper's configuration.".to_owned()
                } else {
                    format!(
                        "Allow the daemon's user to connect as '{role}', a superuser: put a line `local all {role} peer map=innkeeper` at the top of pg_hba.conf and the lines `innkeeper root {role}` and `innkeeper postgres {role}` in pg_ident.conf, then `systemctl reload postgresql`."
                    )
                }
            }
            Self::Statement { source, .. }
                if source.code == Some(SqlState::INSUFFICIENT_PRIVILEGE) =>
            {
                "Make Innkeeper's role a superuser: `ALTER ROLE … SUPERUSER`.".to_owned()
            }
            Self::Statement { .. } => {
                "See PostgreSQL's log: `journalctl -u postgresql`.".to_owned()
            }
            Self::Foreign { kind, name } => format!(
                "Rename it, or drop it if it is not needed (`{} \"{name}\"` in psql), or use another slug for the preview (`--slug`).",
                if *kind == "role" {
                    "DROP ROLE"
                } else {
                    "DROP DATABASE"
                }
            ),
            Self::TemplateInUse { template } => format!(
                "End the connections to it, and prevent new ones permanently: `ALTER DATABASE \"{template}\" ALLOW_CONNECTIONS false` in psql."
            ),
            Self::TemplateCollation { template, .. } => collation_remedy(template, true),
            Self::NoConnections { needed, .. } => format!(
                "Set `max_connections = {needed}` in postgresql.conf and restart PostgreSQL, or remove unneeded previews with `preview destroy`."
            ),
            Self::NoTemplate { template } => {
                format!("Create '{template}', configure another template, or remove the setting.")
            }
            Self::Program { source: CommandError::Missing { .. }, .. } => {
                "Put the directory of the programs of PostgreSQL's version into innkeeperd's PATH (on Debian, `apt-get install postgresql-client`).".to_owned()
            }
            Self::Program { action: "load" | "dump", .. } => {
                format!("pg_hba.conf must let previews' roles connect from this host: put a line `{DUMPS_LINE}` above others for `host`, then `systemctl reload postgresql`. Otherwise see PostgreSQL's log: `journalctl -u postgresql`.")
            }
            Self::Program { source, .. } => return source.remedy(),
            Self::Password { .. } => "Use another backup.".to_owned(),
            Self::NotManaged { .. } => return None,
            #[cfg(test)]
            Self::Interrupted => return None,
        })
    }
}

/// Returns the remedy for a collation mismatch. Templates reject connections, so the remedy allows them meanwhile.
pub(super) fn collation_remedy(database: &str, is_template: bool) -> String {
    let name = identifier(database);
    let (before, after) = match is_template {
        true => (
            format!("`ALTER DATABASE {name} ALLOW_CONNECTIONS true`, "),
            format!(", `\\connect \"postgres\"`, `ALTER DATABASE {name} ALLOW_CONNECTIONS false`"),
        ),
        false => (String::new(), String::new()),
    };
    format!(
        "In psql, as the administrator: {before}`\\connect {name}`, `REINDEX DATABASE {name}`, \
         `ALTER DATABASE {name} REFRESH COLLATION VERSION`{after}."
    )
}
