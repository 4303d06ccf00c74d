//! Queries of the host: states of units, the start of a generation's daemon, open connections.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use innkeeper_model::StartReport;
use innkeeper_model::api::Setting;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::generation::Generation;
use super::unit_actions::Active;

/// The time that a program may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a program's output, in bytes.
const MAX_OUTPUT: u64 = 4 << 20;

/// The daemon of a generation, as its own program describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The generation has no daemon.
    Absent,
    /// The report of its program.
    Reported(Box<StartReport>),
    /// The program is of a release without `--check-start`, or cannot be run: the reason, as a clause.
    Silent(String),
}

impl Start {
    pub(crate) fn report(&self) -> Option<&StartReport> {
        match self {
            Self::Reported(report) => Some(report),
            Self::Absent | Self::Silent(_) => None,
        }
    }
}

/// Runs `innkeeperd --check-start` of a generation with its own configuration and the environment of its unit.
pub(crate) async fn check_start(generation: &Generation) -> Start {
    let Some((program, config, unit)) = generation.daemon() else {
        return Start::Absent;
    };
    let mut command = command(&program);
    command.arg("--check-start");
    if let Some(config) = &config {
        command.arg("--config").arg(config);
    }
    // Variables of this process, such as INNKEEPER_SOCKET, are not the unit's.
    command.env_clear().envs(unit.environment());
    let program = program.display();
    match output(command).await {
        Err(error) => Start::Silent(format!("{program} cannot be run: {error}")),
        Ok((status, text)) => match serde_json::from_str(&text) {
            Ok(report) => Start::Reported(Box::new(report)),
            Err(_) => Start::Silent(format!(
                "{program} is of a release without --check-start ({status})"
            )),
        },
    }
}

/// Queries systemd for the states of the units of both generations. Returns `None` if it does not respond.
pub(crate) async fn active(old: &Generation, new: &Generation) -> Active {
    let names: BTreeSet<&String> = old.units.keys().chain(new.units.keys()).collect();
    let mut call = vec!["ListUnitsByNames".to_owned(), "as".to_owned()];
    call.push(names.len().to_string());
    call.extend(names.into_iter().cloned());
    let units = list_units(&call).await?;
    Some(
        units
            .into_iter()
            .map(|(name, state)| (name, !matches!(state.as_str(), "inactive" | "failed")))
            .collect(),
    )
}

/// Queries systemd for the running units with a prefix, and returns the rest of their names.
pub(crate) async fn running_with_prefix(prefix: &str) -> Option<Vec<String>> {
    let call = ["ListUnitsByPatterns", "asas", "1", "active", "1"];
    let mut call: Vec<String> = call.map(str::to_owned).to_vec();
    call.push(format!("{prefix}*.service"));
    let units = list_units(&call).await?;
    let names = units.into_iter().filter_map(|(name, _)| {
        let rest = name.strip_prefix(prefix)?.strip_suffix(".service")?;
        Some(rest.to_owned())
    });
    Some(names.collect())
}

/// Calls a method of systemd's manager that lists units, and returns their names and states.
async fn list_units(call: &[String]) -> Option<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Response {
        data: (Vec<Vec<Value>>,),
    }
    let mut command = command(Path::new("busctl"));
    command.args(["--json=short", "call", "org.freedesktop.systemd1"]);
    command.args([
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ]);
    command.args(call);
    let (status, text) = output(command).await.ok()?;
    let response: Response = status
        .success()
        .then(|| serde_json::from_str(&text).ok())
        .flatten()?;
    let units = response.data.0.into_iter().filter_map(|unit| {
        let text = |index: usize| unit.get(index)?.as_str().map(str::to_owned);
        Some((text(0)?, text(3)?))
    });
    Some(units.collect())
}

#[expect(
    clippy::disallowed_methods,
    reason = "runs programs of root's generations and systemd's client, without secrets in their arguments"
)]
fn command(program: &Path) -> tokio::process::Command {
    tokio::process::Command::new(program)
}

async fn output(mut command: tokio::process::Command) -> std::io::Result<(ExitStatus, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take();
    let run = async {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT).read_to_end(&mut text).await?;
        }
        let status = child.wait().await?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    };
    let timeout = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    tokio::time::timeout(TIMEOUT, run)
        .await
        .unwrap_or_else(|_| Err(timeout()))
}

/// Returns the number of open connections to ports of this host, from the kernel's tables. `None` if they cannot be read.
pub(crate) fn open_connections(ports: &BTreeSet<u16>) -> Option<usize> {
    let mut count = None;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(text) = std::fs::read_to_string(table) {
            count = Some(count.unwrap_or(0) + established(&text, ports));
        }
    }
    count
}

/// Counts the established connections to local ports in a table of the kernel (proc_pid_net(5)).
fn established(table: &str, ports: &BTreeSet<u16>) -> usize {
    const ESTABLISHED: &str = "01";
    let is_open = |line: &&str| {
        let mut columns = line.split_whitespace();
        let port = columns
            .nth(1)
            .and_then(|local| local.rsplit_once(':'))
            .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        columns.nth(1) == Some(ESTABLISHED) && port.is_some_and(|port| ports.contains(&port))
    };
    table.lines().skip(1).filter(is_open).count()
}

/// Returns the ports on which Caddy listens for browsers, by the daemon's settings.
pub(crate) fn web_ports(settings: &[Setting]) -> BTreeSet<u16> {
    let named = settings
        .iter()
        .filter(|setting| ["caddy.port", "previews.port"].contains(&setting.name.as_str()));
    let named = named.filter_map(|setting| setting.value.parse().ok());
    [80, 443]
        .into_iter()
        .chain(named.filter(|port| *port != 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_counts_connections_to_the_ports() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            \x20  0: 0100007F:01BB 00000000:0000 0A 00000000\n\
            \x20  1: 0100007F:01BB 0100007F:9C40 01 00000000\n\
            \x20  2: 0100007F:9C40 0100007F:01BB 01 00000000\n\
            \x20  3: 0100007F:0050 0100007F:9C41 06 00000000\n";
        assert_eq!(established(table, &BTreeSet::from([80, 443])), 1);
    }
}
