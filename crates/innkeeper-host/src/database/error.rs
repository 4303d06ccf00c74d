//! What can go wrong with a database.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, chain};
use tokio_postgres::error::SqlState;

use crate::FileError;

/// A preview's database or role that could not be made, changed or dropped.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A password's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// PostgreSQL does not let us in.
    #[error(
        "cannot connect to PostgreSQL in {} on port {port} as '{role}'",
        socket_dir.display()
    )]
    Connect {
        /// The directory of its socket.
        socket_dir: PathBuf,
        /// Its port.
        port: u16,
        /// Our role there.
        role: String,
        /// What it said.
        #[source]
        source: PostgresError,
    },
    /// A statement failed.
    #[error("cannot {action} '{name}'")]
    Statement {
        /// What was tried, such as `create database`.
        action: &'static str,
        /// With which object.
        name: String,
        /// What PostgreSQL said.
        #[source]
        source: PostgresError,
    },
    /// A role or a database has the name and is not ours.
    #[error("the {kind} '{name}' is there already and was not made by Innkeeper")]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The template has connections, so it cannot be copied.
    #[error("the template database '{template}' is in use")]
    TemplateInUse {
        /// The template's name.
        template: String,
    },
    /// PostgreSQL does not copy a database whose collation version is not the system's.
    #[error(
        "the template database '{template}' was made with collation version {recorded}, and the system has {actual}"
    )]
    TemplateCollation {
        /// The template's name.
        template: String,
        /// The version that PostgreSQL recorded for it.
        recorded: String,
        /// The version of the system's library.
        actual: String,
    },
    /// More previews than connections.
    #[error(
        "PostgreSQL has {connections} connections for previews, and this would be the preview number {previews}"
    )]
    NoConnections {
        /// How many previews there would be.
        previews: u32,
        /// The connections that they share.
        connections: u32,
        /// The setting that gives each of them enough.
        needed: u32,
    },
    /// There is no such template.
    #[error("there is no template database '{template}'")]
    NoTemplate {
        /// The template's name.
        template: String,
    },
    /// Something that was not found by [`observe`](innkeeper_facilities::Resource::observe) was to be swept.
    #[error("'{object}' is nothing of ours")]
    NotOurs {
        /// What was to be swept.
        object: String,
    },
    /// A test ends the work here.
    #[cfg(test)]
    #[error("interrupted by a test")]
    Interrupted,
}

/// What PostgreSQL, or the connection to it, said.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct PostgresError {
    said: String,
    /// What PostgreSQL calls it, if it said anything.
    pub(super) code: Option<SqlState>,
    /// Whether it was the kernel that refused.
    is_io: bool,
    /// Whether there was no answer in time.
    is_timeout: bool,
}

impl PostgresError {
    /// No answer within `limit`.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self {
            said: format!("PostgreSQL does not respond: no answer within {limit:?}"),
            code: None,
            is_io: false,
            is_timeout: true,
        }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let said = match error.as_db_error() {
            Some(db) => {
                let detail = db.detail().map(|detail| format!(": {detail}"));
                let (message, code) = (db.message(), db.code().code());
                format!("{message}{} (SQLSTATE {code})", detail.unwrap_or_default())
            }
            None => chain(&error),
        };
        let is_io = error.source().is_some_and(<dyn Error>::is::<io::Error>);
        Self {
            said,
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
            _ => Code::DatabaseFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::Connect { source, .. } | Self::Statement { source, .. } if source.is_timeout => {
                "See what PostgreSQL is doing (`systemctl status postgresql`, `journalctl -u postgresql`), then restart it (`systemctl restart postgresql`).".to_owned()
            }
            Self::Connect { role, source, .. } => {
                if source.is_io {
                    "Start PostgreSQL (`systemctl start postgresql`) and see that its socket is where Innkeeper's configuration says.".to_owned()
                } else {
                    format!(
                        "Let the daemon's user in as '{role}', a superuser: a line `local all {role} peer map=innkeeper` at the top of pg_hba.conf and the lines `innkeeper root {role}` and `innkeeper postgres {role}` in pg_ident.conf, then `systemctl reload postgresql`."
                    )
                }
            }
            Self::Statement { source, .. }
                if source.code == Some(SqlState::INSUFFICIENT_PRIVILEGE) =>
            {
                "Give Innkeeper's role the right: `ALTER ROLE … SUPERUSER`.".to_owned()
            }
            Self::Statement { .. } => {
                "PostgreSQL's log tells more: `journalctl -u postgresql`.".to_owned()
            }
            Self::Foreign { kind, name } => format!(
                "Rename it or drop it if nothing needs it (`{} \"{name}\"` in psql), or give the preview another slug (`--slug`).",
                if *kind == "role" {
                    "DROP ROLE"
                } else {
                    "DROP DATABASE"
                }
            ),
            Self::TemplateInUse { template } => format!(
                "End the connections to it, and keep others out for good: `ALTER DATABASE \"{template}\" ALLOW_CONNECTIONS false` in psql."
            ),
            Self::TemplateCollation { template, .. } => super::collation::remedy(template, true),
            Self::NoConnections { needed, .. } => format!(
                "Set `max_connections = {needed}` in postgresql.conf and restart PostgreSQL, or remove previews that nobody needs with `preview destroy`."
            ),
            Self::NoTemplate { template } => {
                format!("Create '{template}', or configure another template, or none.")
            }
            Self::NotOurs { .. } => return None,
            #[cfg(test)]
            Self::Interrupted => return None,
        })
    }
}
