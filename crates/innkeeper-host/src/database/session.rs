//! A connection to PostgreSQL as its administrator.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use super::error::{DatabaseError, PostgresError};
use super::{Fuse, PostgresConfig};

/// How long PostgreSQL may take to let us in.
const PATIENCE: Duration = Duration::from_secs(10);

/// What holds for each connection, whatever a database says: its owner may have set anything for it, and
/// whatever is in it must not be found before the system's own. Nothing of ours goes into the server's log,
/// and nothing of ours is cut off by a limit that is meant for others.
const OPTIONS: &str = "-c search_path=pg_catalog -c log_statement=none -c log_min_error_statement=panic \
     -c log_min_duration_statement=-1 -c statement_timeout=0 -c lock_timeout=0 \
     -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off -c client_min_messages=warning";

/// A connection. It ends when this is dropped, and with it the locks that it holds.
pub(super) struct Session {
    client: Client,
    fuse: Fuse,
}

impl Session {
    /// Connects to a database over the Unix socket.
    pub(super) async fn open(
        config: &PostgresConfig,
        database: &str,
        fuse: Fuse,
    ) -> Result<Self, DatabaseError> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&config.socket_dir)
            .port(config.port)
            .user(&config.role)
            .dbname(database)
            .application_name("innkeeperd")
            .options(OPTIONS)
            .connect_timeout(PATIENCE)
            .connect(NoTls)
            .await
            .map_err(|error| DatabaseError::Connect {
                socket_dir: config.socket_dir.clone(),
                port: config.port,
                role: config.role.clone(),
                source: error.into(),
            })?;
        // Its failures show in the statements; it ends with the client.
        tokio::spawn(connection);
        Ok(Self { client, fuse })
    }

    /// Runs statements that answer nothing. Several of them, separated by `;`, are one transaction.
    pub(super) async fn run(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
    ) -> Result<(), DatabaseError> {
        self.fuse.burn()?;
        let outcome = self.client.batch_execute(sql).await;
        outcome.map_err(|error| failed(action, name, error))
    }

    /// Asks for rows.
    pub(super) async fn rows(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let rows = self.client.query(sql, parameters).await;
        rows.map_err(|error| failed(action, name, error))
    }

    /// Asks for at most one row.
    pub(super) async fn row(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, DatabaseError> {
        let row = self.client.query_opt(sql, parameters).await;
        row.map_err(|error| failed(action, name, error))
    }
}

fn failed(action: &'static str, name: &str, error: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::Statement {
        action,
        name: name.to_owned(),
        source: PostgresError::from(error),
    }
}

impl DatabaseError {
    /// The code that PostgreSQL gave a failed statement.
    pub(super) fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Statement { source, .. } => source.code.as_ref(),
            _ => None,
        }
    }
}
