//! Connections to PostgreSQL as a superuser.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use super::error::{DatabaseError, PostgresError};
use super::{FailPoint, PostgresConfig};

/// Timeout for connecting, including PostgreSQL's response: a stopped server still accepts connections.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for queries of system tables.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for a statement. Copies of large templates are the slowest. Also bounds the wait for an advisory lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Settings of each connection, which override a database's own: its owner may have set anything. The search path keeps the
/// owner's objects from shadowing the system's. The daemon's statements must not appear in the server's log, and timeouts
/// that are meant for others must not cancel them. Waiting for a lock has its own timeout.
const OPTIONS: &str = "-c search_path=pg_catalog -c log_statement=none -c log_min_error_statement=panic \
     -c log_min_duration_statement=-1 -c statement_timeout=0 -c lock_timeout=60s -c role=none \
     -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off -c client_min_messages=warning";

/// A connection. Dropping it closes the connection and releases its locks.
pub(super) struct Session {
    client: Client,
    fail_point: FailPoint,
}

impl Session {
    /// Connects to a database over the Unix socket.
    pub(super) async fn open(
        config: &PostgresConfig,
        database: &str,
        fail_point: FailPoint,
    ) -> Result<Self, DatabaseError> {
        let failed = |source| DatabaseError::Connect {
            socket_dir: config.socket_dir.clone(),
            port: config.port,
            role: config.role.clone(),
            source,
        };
        let mut settings = tokio_postgres::Config::new();
        settings
            .host_path(&config.socket_dir)
            .port(config.port)
            .user(&config.role)
            .dbname(database)
            .application_name("innkeeperd")
            .options(OPTIONS);
        let (client, connection) = timeout(CONNECT_TIMEOUT, settings.connect(NoTls))
            .await
            .map_err(|_| failed(PostgresError::timeout(CONNECT_TIMEOUT)))?
            .map_err(|error| failed(error.into()))?;
        // Its errors surface in the statements. It ends with the client.
        tokio::spawn(connection);
        Ok(Self { client, fail_point })
    }

    /// Runs statements without results. Several of them, separated by `;`, are one transaction.
    pub(super) async fn run(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
    ) -> Result<(), DatabaseError> {
        self.fail_point.pass()?;
        let run = self.client.batch_execute(sql);
        within(STATEMENT_TIMEOUT, action, name, run).await
    }

    /// Returns the PID of this session's server process.
    pub(super) async fn backend(&self, name: &str) -> Result<i32, DatabaseError> {
        let row = self.row("identify session for", name, "SELECT pg_backend_pid()", &[]);
        Ok(row.await?.map_or(0, |row| row.get(0)))
    }

    /// Queries rows.
    pub(super) async fn rows(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let rows = self.client.query(sql, parameters);
        within(QUERY_TIMEOUT, action, name, rows).await
    }

    /// Queries at most one row.
    pub(super) async fn row(
        &self,
        action: &'static str,
        name: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, DatabaseError> {
        let row = self.client.query_opt(sql, parameters);
        within(QUERY_TIMEOUT, action, name, row).await
    }

    /// Waits for an advisory lock, which is released with the session.
    pub(super) async fn lock(&self, name: &str, key: i64) -> Result<(), DatabaseError> {
        let sql = "SELECT pg_advisory_lock($1)";
        let lock = async { self.client.query_opt(sql, &[&key]).await };
        within(STATEMENT_TIMEOUT, "lock", name, lock).await?;
        Ok(())
    }
}

async fn within<T>(
    limit: Duration,
    action: &'static str,
    name: &str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DatabaseError> {
    let outcome = match timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(PostgresError::from),
        Err(_) => Err(PostgresError::timeout(limit)),
    };
    outcome.map_err(|source| DatabaseError::Statement {
        action,
        name: name.to_owned(),
        source,
    })
}

impl DatabaseError {
    /// Returns PostgreSQL's code of a failed statement.
    pub(super) fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Statement { source, .. } => source.code.as_ref(),
            _ => None,
        }
    }
}
