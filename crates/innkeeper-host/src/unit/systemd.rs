//! Guests on a host with systemd: each is a transient unit, which outlives the daemon.
//!
//! The unit stays loaded after the guest's end (`RemainAfterExit=`, and failed units stay anyway), so that its exit status
//! can be read until the guest is removed or started again. Guests are shut down and killed as under direct supervision,
//! by signals and the cgroup. The unit's settings do the same on `systemctl stop` and when the host shuts down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use innkeeper_facilities::{Console, Found};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{DaemonId, Guest, GuestName, Limits, Ownership};
use tokio::sync::{Mutex, oneshot};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, UnitProxy};

use super::cgroup::{Cgroups, PAUSE};
use super::config::UnitConfig;
use super::error::UnitError;
use super::journal::{self, Journal};
use super::slice::slice_path;
use super::supervisor::{End, Ended, Groups, Supervisor};
use super::waiting_shim::WaitingShim;
use super::{checks, machined, nspawn, supervisor};

/// The polls, [`PAUSE`] apart, until systemd has noticed an end.
const ATTEMPTS: u32 = 1000;

/// The time that a restarted bus has to return, and systemd to connect to it.
const BUS_TIMEOUT: Duration = Duration::from_secs(5);

/// `ExecMainCode` of a process that exited, as in `waitid(2)`.
const CLD_EXITED: i32 = 1;

/// The lines of a guest's console that the journal takes in an interval: journald's own defaults.
const LOG_BURST: u32 = 10_000;
const LOG_INTERVAL_USEC: u64 = 30_000_000;

/// A setting of a unit.
type Property = (String, OwnedVariant);

/// Supervises each guest with a transient unit.
pub(super) struct Systemd {
    config: UnitConfig,
    /// Replaced after a restart of the bus.
    link: Mutex<Link>,
    /// The mount point of systemd's cgroups.
    mount: PathBuf,
    /// The mount point of the cgroups that limit memory.
    memory: PathBuf,
}

/// A connection to systemd.
#[derive(Clone)]
struct Link {
    bus: Connection,
    manager: ManagerProxy<'static>,
}

impl Link {
    async fn new() -> zbus::Result<Self> {
        let bus = Connection::system().await?;
        let manager = ManagerProxy::new(&bus).await?;
        // Without this, systemd sends no signals.
        manager.subscribe().await?;
        Ok(Self { bus, manager })
    }

    /// Retries until the bus and systemd respond.
    async fn again() -> zbus::Result<Self> {
        let mut last = zbus::Error::Failure("no response".to_owned());
        let attempts = async {
            loop {
                match Self::new().await {
                    Ok(link) => return link,
                    Err(error) => last = error,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(BUS_TIMEOUT, attempts)
            .await
            .map_err(|_| last)
    }
}

impl Systemd {
    pub(super) async fn connect(config: &UnitConfig) -> Result<Self, UnitError> {
        let cgroups = Cgroups::detect(&config.cgroup)?;
        let mount = cgroups.systemd().ok_or(UnitError::NoCgroups)?;
        let link = Link::new().await.map_err(on("reach systemd"))?;
        Ok(Self {
            config: config.clone(),
            link: Mutex::new(link),
            memory: cgroups.memory().unwrap_or_else(|| mount.clone()),
            mount,
        })
    }

    /// Returns the connection; a new one after the bus was restarted.
    async fn link(&self) -> Result<Link, UnitError> {
        let mut link = self.link.lock().await;
        if link.bus.is_closed() {
            *link = Link::again().await.map_err(on("reach systemd"))?;
            tracing::info!("the bus was restarted; systemd is reached again");
        }
        Ok(link.clone())
    }

    fn unit(&self, guest: &GuestName) -> String {
        let name = self.config.unit_name(guest);
        format!("{}{name}.service", self.config.unit_prefix)
    }

    fn guest_of(&self, unit: &str) -> Option<GuestName> {
        let name = unit
            .strip_prefix(&self.config.unit_prefix)?
            .strip_suffix(".service")?;
        let name = GuestName::parse(name).ok()?;
        Some(self.config.guest_named(name))
    }

    fn cgroup(&self, guest: &GuestName) -> PathBuf {
        self.mount.join(self.below_mount(guest))
    }

    fn below_mount(&self, guest: &GuestName) -> PathBuf {
        Path::new(&slice_path(&self.config.slice)).join(self.unit(guest))
    }

    /// Returns the unit's object on the bus; `None` if the unit is not loaded.
    async fn object(&self, guest: &GuestName) -> Result<Option<OwnedObjectPath>, UnitError> {
        let link = self.link().await?;
        present(link.manager.get_unit(self.unit(guest)).await).map_err(on("find a unit"))
    }

    /// Starts or stops a unit and waits for the job's end.
    async fn job(
        link: &Link,
        action: &'static str,
        unit: &str,
        request: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<(), UnitError> {
        // Subscribed before the request: a short job may end before its number arrives here.
        let endings = link.manager.receive_job_removed().await;
        let mut endings = endings.map_err(on(action))?;
        let job = request.await.map_err(on(action))?;
        while let Some(ending) = endings.next().await {
            let ending = ending.args().map_err(on(action))?;
            if ending.job.as_str() != job.as_str() {
                continue;
            }
            return match ending.result.as_str() {
                "done" => Ok(()),
                result => Err(UnitError::Job {
                    unit: unit.to_owned(),
                    result: result.to_owned(),
                    log: Vec::new(),
                }),
            };
        }
        Err(on(action)(zbus::Error::Failure(
            "the connection ended".to_owned(),
        )))
    }

    /// Returns the invocation id of the unit's last start; `None` if the unit is not loaded.
    async fn invocation(&self, guest: &GuestName) -> Result<Option<String>, UnitError> {
        let Some(object) = self.object(guest).await? else {
            return Ok(None);
        };
        let link = self.link().await?;
        let id = async {
            let unit = UnitProxy::new(&link.bus, object).await?;
            unit.invocation_id().await
        };
        let id = present(id.await).map_err(on("read a unit"))?;
        let hex = |id: Vec<u8>| {
            id.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        Ok(id.filter(|id| !id.is_empty()).map(hex))
    }

    async fn status(link: &Link, object: &OwnedObjectPath) -> zbus::Result<Ended> {
        let unit = UnitProxy::new(&link.bus, object.clone()).await?;
        let service = ServiceProxy::new(&link.bus, object.clone()).await?;
        let mut state = String::new();
        // The cgroup may be empty a moment before systemd has noticed the end.
        for _ in 0..ATTEMPTS {
            state = unit.sub_state().await?;
            if matches!(state.as_str(), "exited" | "failed" | "dead") {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // A unit that ends by itself stays loaded. One that was stopped by hand, or by a shutdown of the host, is dead
        // and unloaded: a clean exit then does not mean that the guest powered off by itself.
        if !matches!(state.as_str(), "exited" | "failed") {
            return Ok(Ended::Unknown);
        }
        let status = service.exec_main_status().await?;
        Ok(match service.exec_main_code().await? {
            0 => Ended::Unknown,
            CLD_EXITED => Ended::With(status),
            _ => Ended::With(128 + status),
        })
    }

    async fn unload(&self, guest: &GuestName) -> Result<(), UnitError> {
        let unit = self.unit(guest);
        for _ in 0..ATTEMPTS {
            if self.object(guest).await?.is_none() {
                return Ok(());
            }
            let link = self.link().await?;
            let stop = link.manager.stop_unit(unit.clone(), "replace".to_owned());
            match Self::job(&link, "stop a unit", &unit, stop).await {
                Err(UnitError::Bus { source, .. }) if is_no_such_unit(&source) => return Ok(()),
                result => result?,
            }
            present(link.manager.reset_failed_unit(unit.clone()).await)
                .map_err(on("forget a unit"))?;
            tokio::time::sleep(PAUSE).await;
        }
        Err(UnitError::Job {
            unit,
            result: "still loaded".to_owned(),
            log: Vec::new(),
        })
    }

    /// Returns the properties of a guest's unit.
    fn properties(&self, guest: &Guest, nspawn: &nspawn::Command) -> zbus::Result<Vec<Property>> {
        let stop_usec = u64::try_from(self.config.stop_timeout.as_micros()).unwrap_or(u64::MAX);
        let own = [
            property(
                "Description",
                description(&guest.name, self.config.identity.daemon()).into(),
            ),
            property("Slice", self.config.slice.clone().into()),
            // Started means that nspawn is executed, and not only that systemd has forked.
            property("Type", "exec".into()),
            property("RemainAfterExit", true.into()),
            // Only nspawn gets the signal: it passes it on, and needs its helpers until the end.
            property("KillMode", "mixed".into()),
            property("TimeoutStopUSec", stop_usec.into()),
            // nspawn and the guest's systemd create cgroups.
            property("Delegate", true.into()),
            property("MemorySwapMax", 0u64.into()),
            // An OOM kill of one process must not end the whole guest.
            property("OOMPolicy", "continue".into()),
            // systemd-oomd, if it runs, kills the worst process of a guest that thrashes.
            property("ManagedOOMMemoryPressure", "kill".into()),
            // Bounds the share of the host's journal that a guest can flood, independently of journald's own limit.
            property("LogRateLimitIntervalUSec", LOG_INTERVAL_USEC.into()),
            property("LogRateLimitBurst", LOG_BURST.into()),
            // The journal outlives the guest, and names of units are reused.
            property(
                "LogExtraFields",
                vec![journal::extra_field(guest).into_bytes()].into(),
            ),
        ];
        let own = own.into_iter().chain(limits(&guest.limits));
        own.chain(execution(nspawn)).collect()
    }

    /// Returns the properties of a unit that runs a program apart. It has none of the daemon's restrictions, and none of its
    /// own: a process with a system call filter cannot read those of others.
    fn properties_apart(&self, program: &nspawn::Command) -> zbus::Result<Vec<Property>> {
        let limit_usec = u64::try_from(supervisor::APART_LIMIT.as_micros()).unwrap_or(u64::MAX);
        let own = [
            property(
                "Description",
                format!(
                    "Innkeeper reads the system call filters of nspawn (daemon {})",
                    self.config.identity.daemon()
                )
                .into(),
            ),
            property("Slice", self.config.slice.clone().into()),
            // Started means that it has ended.
            property("Type", "oneshot".into()),
            property("TimeoutStartUSec", limit_usec.into()),
            property("CollectMode", "inactive-or-failed".into()),
            // nspawn creates cgroups.
            property("Delegate", true.into()),
            property("MemoryMax", supervisor::APART.memory.bytes().into()),
            property("TasksMax", u64::from(supervisor::APART.tasks).into()),
            property("StandardOutput", "null".into()),
        ];
        own.into_iter().chain(execution(program)).collect()
    }
}

fn property(name: &str, value: Variant<'_>) -> zbus::Result<Property> {
    Ok((name.to_owned(), value.try_into_owned()?))
}

/// Returns the properties with a guest's limits, which can be changed while the unit runs.
fn limits(limits: &Limits) -> [zbus::Result<Property>; 3] {
    [
        property("MemoryMax", limits.memory.bytes().into()),
        property("TasksMax", u64::from(limits.tasks).into()),
        property(
            "CPUQuotaPerSecUSec",
            (u64::from(limits.cpus.percent()) * 10_000).into(),
        ),
    ]
}

/// Returns the properties with a unit's program and its environment.
fn execution(command: &nspawn::Command) -> [zbus::Result<Property>; 2] {
    let words: Vec<_> = command
        .words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let program = words.first().cloned().unwrap_or_default();
    let mut environment: Vec<_> = command
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    environment.extend(std::env::var("PATH").map(|path| format!("PATH={path}")));
    [
        property("ExecStart", vec![(program, words, false)].into()),
        property("Environment", environment.into()),
    ]
}

/// Returns the description of a guest's unit, which is its mark.
fn description(guest: &GuestName, daemon: &DaemonId) -> String {
    format!("Innkeeper guest {guest} (daemon {daemon})")
}

/// Parses the daemon in a unit's description. Former releases wrote none.
fn marked(description: &str) -> Option<DaemonId> {
    let (_, daemon) = description.strip_suffix(')')?.rsplit_once(" (daemon ")?;
    DaemonId::parse(daemon).ok()
}

fn on(action: &'static str) -> impl FnOnce(zbus::Error) -> UnitError {
    move |source| UnitError::Bus {
        action,
        source: Box::new(source),
    }
}

fn is_no_such_unit(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Maps the error of a unit that is not loaded to `None`.
fn present<T>(result: zbus::Result<T>) -> zbus::Result<Option<T>> {
    match result {
        Err(error) if is_no_such_unit(&error) => Ok(None),
        result => result.map(Some),
    }
}

#[async_trait]
impl Supervisor for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn registers(&self) -> bool {
        true
    }

    fn groups(&self, guest: &GuestName) -> Groups {
        let cgroup = self.cgroup(guest);
        Groups {
            exec: vec![cgroup.join("exec")],
            freezer: vec![cgroup.clone()],
            guest: cgroup.clone(),
            cpu: cgroup.clone(),
            memory: self.memory.join(self.below_mount(guest)),
            all: cgroup,
        }
    }

    async fn owner(&self, guest: &GuestName) -> Result<Option<(Ownership, String)>, UnitError> {
        let Some(object) = self.object(guest).await? else {
            return Ok(None);
        };
        let link = self.link().await?;
        let description = async {
            let unit = UnitProxy::new(&link.bus, object).await?;
            unit.description().await
        };
        let description = present(description.await).map_err(on("read a unit"))?;
        Ok(description.map(|description| {
            let daemon = marked(&description);
            let ownership = self.config.identity.ownership(daemon.as_ref());
            (ownership, self.unit(guest))
        }))
    }

    async fn found(&self) -> Result<Vec<Found>, UnitError> {
        let pattern = format!("{}*.service", self.config.unit_prefix);
        let link = self.link().await?;
        let units = link
            .manager
            .list_units_by_patterns(Vec::new(), vec![pattern])
            .await;
        let units = units.map_err(on("list the units"))?;
        let found = units.into_iter().filter_map(|(object, description, ..)| {
            let daemon = marked(&description);
            Some(Found {
                guest: Some(self.guest_of(&object)?),
                object,
                ownership: self.config.identity.ownership(daemon.as_ref()),
            })
        });
        Ok(found.collect())
    }

    async fn prepare(
        &self,
        _: &Guest,
        _: &nspawn::Command,
    ) -> Result<Option<WaitingShim>, UnitError> {
        Ok(None)
    }

    async fn start(
        &self,
        guest: &Guest,
        nspawn: &nspawn::Command,
        _: Option<WaitingShim>,
    ) -> Result<Option<oneshot::Receiver<()>>, UnitError> {
        let unit = self.unit(&guest.name);
        let properties = self
            .properties(guest, nspawn)
            .map_err(on("describe a unit"))?;
        let link = self.link().await?;
        let start = link.manager.start_transient_unit(
            unit.clone(),
            "fail".to_owned(),
            properties,
            Vec::new(),
        );
        match Self::job(&link, "start a unit", &unit, start).await {
            Err(UnitError::Job { unit, result, .. }) => {
                let log = super::supervised::tail(self, &guest.name).await;
                Err(UnitError::Job { unit, result, log })
            }
            result => result.map(|()| None),
        }
    }

    async fn limit(&self, guest: &Guest) -> Result<(), UnitError> {
        let properties: zbus::Result<Vec<_>> = limits(&guest.limits).into_iter().collect();
        let properties = properties.map_err(on("describe a unit"))?;
        let link = self.link().await?;
        let set = link
            .manager
            .set_unit_properties(self.unit(&guest.name), true, properties);
        set.await.map_err(on("limit a unit"))
    }

    async fn register(&self, guest: &GuestName, leader: u32) -> Result<(), UnitError> {
        let machine = self.config.registered_name(guest);
        let root = self.config.root(guest).display().to_string();
        machined::register(&self.link().await?.bus, machine, leader, root).await
    }

    async fn unregister(&self, guest: &GuestName) -> Result<(), UnitError> {
        let machine = self.config.registered_name(guest);
        machined::unregister(&self.link().await?.bus, machine, &self.unit(guest)).await
    }

    async fn run_apart(&self, name: &str, program: &nspawn::Command) -> Result<(), UnitError> {
        let unit = format!(
            "{}{}.service",
            self.config.unit_prefix,
            self.config.machine_of(name)
        );
        let properties = self
            .properties_apart(program)
            .map_err(on("describe a unit"))?;
        let link = self.link().await?;
        if present(link.manager.get_unit(unit.clone()).await)
            .map_err(on("find a unit"))?
            .is_some()
        {
            let stop = link.manager.stop_unit(unit.clone(), "replace".to_owned());
            match Self::job(&link, "stop a unit", &unit, stop).await {
                Err(UnitError::Bus { source, .. }) if is_no_such_unit(&source) => {}
                result => result?,
            }
        }
        let start = link.manager.start_transient_unit(
            unit.clone(),
            "fail".to_owned(),
            properties,
            Vec::new(),
        );
        Self::job(&link, "start a unit", &unit, start).await
    }

    /// The daemon's unit has `ProtectKernelTunables=yes`.
    fn mounts(&self) -> Option<&'static Path> {
        Some(Path::new("/proc/1/ns/mnt"))
    }

    fn confine(&self, guest: &GuestName) -> Result<(), UnitError> {
        // systemd has no property for these limits.
        Ok(super::cgroup::confine(&self.cgroup(guest))?)
    }

    async fn ended(&self, guest: &GuestName) -> Result<Ended, UnitError> {
        match self.object(guest).await? {
            None => Ok(Ended::Nothing),
            Some(object) => {
                let link = self.link().await?;
                let ended = present(Self::status(&link, &object).await);
                let ended = ended.map_err(on("read the result of a unit"))?;
                Ok(ended.unwrap_or(Ended::Nothing))
            }
        }
    }

    async fn host_is_stopping(&self) -> bool {
        let state = async { Ok::<_, UnitError>(self.link().await?.manager.system_state().await) };
        matches!(state.await, Ok(Ok(state)) if state == "stopping")
    }

    async fn clear(&self, guest: &GuestName) -> Vec<UnitError> {
        self.unload(guest).await.err().into_iter().collect()
    }

    async fn console(
        &self,
        guest: &GuestName,
        lifetime: Option<&str>,
        lines: usize,
        end: Option<End>,
    ) -> Result<Console, UnitError> {
        let invocation = self.invocation(guest).await?;
        let journal = Journal::of(&self.unit(guest), lifetime, invocation.as_deref());
        Ok(journal.read(lines, end))
    }

    fn check(&self) -> Vec<Check> {
        let mut found = checks::programs(&["journalctl".as_ref()]);
        found.push(checks::check(
            "systemd",
            Verdict::Ok,
            format!(
                "units {}* in {}",
                self.config.unit_prefix, self.config.slice
            ),
        ));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_description_marks_the_daemon() {
        let daemon = DaemonId::parse(&"0123456789abcdef".repeat(2)).expect("identity");
        let web = GuestName::parse("web").expect("name");
        assert_eq!(marked(&description(&web, &daemon)), Some(daemon));
        for other in ["Innkeeper guest web", "", "x (daemon )", "x (daemon 0123)"] {
            assert_eq!(marked(other), None, "{other}");
        }
    }
}
