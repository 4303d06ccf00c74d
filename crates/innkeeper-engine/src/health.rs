//! The health of a guest whose system was changed.

use std::time::Duration;

use futures_util::StreamExt;
use innkeeper_model::{Guest, GuestName, StorePath, UnitPhase};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::EngineError;
use crate::inner::Inner;

/// Time after which a system whose service manager is offline counts as one without systemd.
const OFFLINE: Duration = Duration::from_secs(10);

/// Time that an init without systemd must survive.
const SETTLE: Duration = Duration::from_millis(500);

/// Interval between two queries of the service manager.
const POLL: Duration = Duration::from_millis(200);

/// Timeout of one query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// The states of a system whose service manager responds. Before that, the paths of its programs may not exist.
const RESPONSES: [&str; 6] = [
    "initializing",
    "starting",
    "running",
    "degraded",
    "maintenance",
    "stopping",
];

/// Maximum number of failed units that are recorded.
const MAX_UNITS: usize = 100;

/// Maximum number of failed units that a message names.
const SHOWN_UNITS: usize = 10;

/// The places of systemctl in closures. It runs by its path: early in the boot, the guest's own paths may not exist yet.
const SYSTEMCTL: [&str; 3] = ["sw/bin/systemctl", "usr/bin/systemctl", "bin/systemctl"];

/// One element of `systemctl list-units --output=json`.
#[derive(Deserialize)]
struct UnitEntry {
    unit: String,
}

/// The state of a system that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Up {
    Running,
    /// Some unit failed.
    Degraded,
    /// Its units are still being started, and its basic system is up: the agent can be reached and repaired.
    Starting,
}

/// The systems that count as up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Also an init that is not systemd.
    AnyInit,
    /// Only systemd, also one that is still starting units at the end of the timeout.
    SlowSystemd,
}

/// Number of lines of the console that show why a system did not come up.
const CONSOLE_LINES: usize = 20;

/// Maximum length of such a line, in characters.
const CONSOLE_LINE: usize = 400;

/// Maximum size of the console that they are taken from, in bytes.
const CONSOLE_BYTES: usize = 256 << 10;

impl Inner {
    /// Waits until the guest's service manager responds. Returns at once without one, and when the guest does not run.
    pub(crate) async fn await_response(&self, name: &GuestName) -> Result<(), EngineError> {
        let guest = self.store.guest(name).await?;
        let closure = guest.and_then(|guest| guest.closure);
        let Some(systemctl) = self.systemctl(closure.as_ref()).await? else {
            return Ok(());
        };
        let started = Instant::now();
        loop {
            self.require_running(name).await?;
            let query = [systemctl.as_str(), "is-system-running"];
            let ran = self.run_in_guest(name, &query, QUERY_TIMEOUT, |_| {}).await;
            let state = ran.as_ref().map_or("", |ran| ran.stdout.trim());
            let is_without_systemd = state == "offline" && started.elapsed() > OFFLINE;
            if RESPONSES.contains(&state) || is_without_systemd {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until the guest's system is up. Units that had failed before do not count.
    ///
    /// # Errors
    /// [`EngineError::Unhealthy`], or the guest cannot be queried.
    pub(crate) async fn check_health(
        &self,
        guest: &Guest,
        failed_before: &[String],
    ) -> Result<(), EngineError> {
        match self.await_up(guest, Accepts::AnyInit).await? {
            Up::Running => Ok(()),
            Up::Degraded | Up::Starting => {
                self.require_no_new_failure(&guest.name, failed_before)
                    .await
            }
        }
    }

    /// Waits until the guest is up with a system of its own. Failed units, and units that take long, are the guest's own
    /// business. If the closure from the host has systemd, its own system must have it, too.
    ///
    /// # Errors
    /// As [`Self::check_health`].
    pub(crate) async fn await_own_system(&self, guest: &Guest) -> Result<(), EngineError> {
        self.await_up(guest, Accepts::SlowSystemd)
            .await
            .map(|_up| ())
    }

    /// Waits until the system of a guest that nobody uses yet is up. Units that failed are the business of those who built it.
    ///
    /// # Errors
    /// As [`Self::check_health`].
    pub(crate) async fn await_settled(&self, guest: &Guest) -> Result<(), EngineError> {
        self.await_up(guest, Accepts::AnyInit).await.map(|_up| ())
    }

    /// Waits until the guest's system is up.
    async fn await_up(&self, guest: &Guest, accepts: Accepts) -> Result<Up, EngineError> {
        let name = &guest.name;
        let leader = self.require_running(name).await?;
        let Some(systemctl) = self.systemctl(guest.closure.as_ref()).await? else {
            return self.survive(name, leader).await;
        };
        let (started, limit) = (Instant::now(), self.config.boot_timeout);
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let query = [systemctl.as_str(), "is-system-running", "--wait"];
            let ran = self.run_in_guest(name, &query, left, |_| {}).await;
            if self.require_running(name).await? != leader {
                return Err(unhealthy(name, "its init was started again", Vec::new()));
            }
            let state = ran.as_ref().map_or("", |ran| ran.stdout.trim());
            match state {
                "running" => return Ok(Up::Running),
                "degraded" => return Ok(Up::Degraded),
                "offline" if accepts == Accepts::AnyInit && started.elapsed() > OFFLINE => {
                    return self.survive(name, leader).await;
                }
                // One that stops exits, or it does not come up in time.
                "maintenance" => {
                    let finding = format!("its system is in the state '{state}'");
                    return Err(unhealthy(name, &finding, Vec::new()));
                }
                _ if started.elapsed() > limit => {
                    if accepts == Accepts::SlowSystemd && self.has_basics(name, &systemctl).await {
                        return Ok(Up::Starting);
                    }
                    let seconds = limit.as_secs();
                    let finding = format!("its system was not up after {seconds} s");
                    let log = ran.map_or_else(|_| Vec::new(), |ran| ran.tail);
                    return Err(unhealthy(name, &finding, log));
                }
                // The service manager does not answer yet.
                _ => sleep(POLL).await,
            }
        }
    }

    /// Reports whether systemd has reached the target after which it starts the services of the system (systemd.special(7)).
    async fn has_basics(&self, name: &GuestName, systemctl: &str) -> bool {
        let query = [systemctl, "is-active", "basic.target"];
        let ran = self.run_in_guest(name, &query, QUERY_TIMEOUT, |_| {}).await;
        ran.is_ok_and(|ran| ran.stdout.trim() == "active")
    }

    /// Returns the units of the guest that have failed, as far as they can be queried.
    pub(crate) async fn failed_units(&self, guest: &Guest) -> Vec<String> {
        let Ok(Some(systemctl)) = self.systemctl(guest.closure.as_ref()).await else {
            return Vec::new();
        };
        let query = [
            systemctl.as_str(),
            "list-units",
            "--state=failed",
            "--all",
            "--output=json",
        ];
        let ran = self.run_in_guest(&guest.name, &query, QUERY_TIMEOUT, |_| {});
        let Ok(ran) = ran.await else {
            return Vec::new();
        };
        let units: Vec<UnitEntry> = serde_json::from_str(&ran.stdout).unwrap_or_default();
        // systemd's own limit for names is 255 bytes.
        let names = units.into_iter().map(|entry| entry.unit);
        names
            .filter(|unit| unit.len() < 256)
            .take(MAX_UNITS)
            .collect()
    }

    async fn require_no_new_failure(
        &self,
        name: &GuestName,
        failed_before: &[String],
    ) -> Result<(), EngineError> {
        let guest = self.store.guest(name).await?;
        let guest = guest.ok_or_else(|| EngineError::GuestNotFound(name.clone()))?;
        let mut failed = self.failed_units(&guest).await;
        failed.retain(|unit| !failed_before.contains(unit));
        if failed.is_empty() {
            return Ok(());
        }
        let mut shown = failed[..failed.len().min(SHOWN_UNITS)].join(", ");
        if failed.len() > SHOWN_UNITS {
            shown += &format!(", and {} more", failed.len() - SHOWN_UNITS);
        }
        let finding = format!("these units failed: {shown}");
        let systemctl = self.systemctl(guest.closure.as_ref()).await?;
        let log = match systemctl {
            Some(systemctl) => {
                let mut query = vec![systemctl.as_str(), "status", "--no-pager", "--full"];
                query.extend(failed.iter().map(String::as_str));
                let ran = self.run_in_guest(name, &query, QUERY_TIMEOUT, |_| {});
                ran.await.map_or_else(|_| Vec::new(), |ran| ran.tail)
            }
            None => Vec::new(),
        };
        Err(unhealthy(name, &finding, log))
    }

    /// Returns the path of the closure's systemctl.
    async fn systemctl(&self, closure: Option<&StorePath>) -> Result<Option<String>, EngineError> {
        let Some(closure) = closure else {
            return Ok(None);
        };
        for program in SYSTEMCTL {
            if self.host.closures.has_program(closure, program).await? {
                return Ok(Some(format!("{closure}/{program}")));
            }
        }
        Ok(None)
    }

    /// Checks that an init still runs after a moment.
    async fn survive(&self, name: &GuestName, leader: u32) -> Result<Up, EngineError> {
        sleep(SETTLE).await;
        if self.require_running(name).await? == leader {
            return Ok(Up::Running);
        }
        Err(unhealthy(name, "its init was started again", Vec::new()))
    }

    /// Returns the end of the guest's console, as far as it can be read. The guest determines its contents.
    pub(crate) async fn console_end(&self, guest: &Guest) -> Vec<String> {
        let console = self.host.units.console(guest, CONSOLE_LINES, false);
        let Ok(mut console) = console.await else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        while let Some(Ok(chunk)) = console.next().await {
            bytes.extend(chunk);
            bytes.drain(..bytes.len().saturating_sub(CONSOLE_BYTES));
        }
        let text = String::from_utf8_lossy(&bytes);
        let cut = |line: &str| line.trim_end().chars().take(CONSOLE_LINE).collect();
        let lines: Vec<String> = text.lines().map(cut).collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].to_vec()
    }

    /// Returns the first process of the guest, which must run. Its exit is a finding, unlike the removal of its unit.
    async fn require_running(&self, name: &GuestName) -> Result<u32, EngineError> {
        let unit = self.host.units.phase(name).await?;
        let unit = unit.ok_or_else(|| EngineError::Ended(name.clone()))?;
        unit.leader
            .filter(|_| unit.phase == UnitPhase::Running)
            .ok_or_else(|| unhealthy(name, "its init has exited", Vec::new()))
    }
}

fn unhealthy(guest: &GuestName, finding: &str, log: Vec<String>) -> EngineError {
    EngineError::Unhealthy {
        guest: guest.clone(),
        finding: finding.to_owned(),
        log,
    }
}
