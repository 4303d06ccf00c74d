//! Guests on a host with systemd: each is a transient unit, which systemd keeps while the daemon is away.
//!
//! The unit stays when the guest has ended (`RemainAfterExit=`, and failed units stay anyway), so that its
//! exit status can be asked for until the guest is removed or started again. Guests are asked to shut down
//! and killed as under direct supervision, by signals and the cgroup; the unit's own settings do the same
//! when somebody stops it with `systemctl`, or the host shuts down.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use innkeeper_facilities::{Console, Found};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{DaemonId, Guest, GuestName, Ownership};
use tokio::process::Child;
use tokio::sync::Mutex;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, UnitProxy};

use super::cgroup::{Cgroups, PAUSE};
use super::config::UnitConfig;
use super::error::UnitError;
use super::journal::{self, Journal};
use super::keeper::{End, Ended, Groups, Keeper};
use super::{checks, nspawn};

/// How often systemd is asked again whether it has noticed an end, [`PAUSE`] apart.
const ATTEMPTS: u32 = 1000;

/// How long a bus may be away that is being restarted, and systemd until it has found it again.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// How a process ended, as `waitid(2)` and systemd's `ExecMainCode` say it.
const CLD_EXITED: i32 = 1;

/// How many lines of a guest's console the journal takes in which time: journald's own defaults.
const LOG_BURST: u32 = 10_000;
const LOG_INTERVAL_USEC: u64 = 30_000_000;

/// A setting of a unit.
type Property = (String, OwnedVariant);

/// Keeps guests with a transient unit each.
pub(super) struct Systemd {
    config: UnitConfig,
    /// Made anew when the bus was restarted.
    link: Mutex<Link>,
    /// Where systemd's cgroups are mounted.
    mount: PathBuf,
    /// Where those are mounted that limit memory.
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

    /// Tries until the bus is there, and systemd on it.
    async fn again() -> zbus::Result<Self> {
        let mut last = zbus::Error::Failure("no answer".to_owned());
        let attempts = async {
            loop {
                match Self::new().await {
                    Ok(link) => return link,
                    Err(error) => last = error,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(BUS_PATIENCE, attempts)
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

    /// The connection, which is another one after the bus was restarted.
    async fn link(&self) -> Result<Link, UnitError> {
        let mut link = self.link.lock().await;
        if link.bus.is_closed() {
            *link = Link::again().await.map_err(on("reach systemd"))?;
            tracing::info!("the bus was restarted; systemd is reached again");
        }
        Ok(link.clone())
    }

    fn unit(&self, guest: &GuestName) -> String {
        format!("{}{guest}.service", self.config.unit_prefix)
    }

    fn guest_of(&self, unit: &str) -> Option<GuestName> {
        let name = unit
            .strip_prefix(&self.config.unit_prefix)?
            .strip_suffix(".service")?;
        GuestName::parse(name).ok()
    }

    fn cgroup(&self, guest: &GuestName) -> PathBuf {
        self.mount.join(self.below_mount(guest))
    }

    fn below_mount(&self, guest: &GuestName) -> PathBuf {
        Path::new(&slice_path(&self.config.slice)).join(self.unit(guest))
    }

    /// The unit's object on the bus, if the unit is loaded.
    async fn object(&self, guest: &GuestName) -> Result<Option<OwnedObjectPath>, UnitError> {
        let link = self.link().await?;
        present(link.manager.get_unit(self.unit(guest)).await).map_err(on("look for a unit"))
    }

    /// Starts or stops a unit and waits for the job's end.
    async fn job(
        link: &Link,
        action: &'static str,
        unit: &str,
        request: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<(), UnitError> {
        // Listening comes first: a short job has ended before its number is known here.
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

    /// The id that systemd gave the unit's last start, while the unit is loaded.
    async fn invocation(&self, guest: &GuestName) -> Result<Option<String>, UnitError> {
        let Some(object) = self.object(guest).await? else {
            return Ok(None);
        };
        let link = self.link().await?;
        let id = async {
            let unit = UnitProxy::new(&link.bus, object).await?;
            unit.invocation_id().await
        };
        let id = present(id.await).map_err(on("look at a unit"))?;
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
        // The cgroup may be empty a moment before systemd has heard of the end.
        for _ in 0..ATTEMPTS {
            state = unit.sub_state().await?;
            if matches!(state.as_str(), "exited" | "failed" | "dead") {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // What ends by itself stays loaded. A unit that somebody stopped, or the host on its way down, is
        // dead and goes: that the guest then ended in good order does not mean that it wanted to be off.
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

    /// The unit of a guest.
    fn properties(&self, guest: &Guest, nspawn: &[OsString]) -> zbus::Result<Vec<Property>> {
        let nspawn: Vec<_> = nspawn
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let program = nspawn.first().cloned().unwrap_or_default();
        let mut environment: Vec<_> = nspawn::ENVIRONMENT
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        environment.extend(std::env::var("PATH").map(|path| format!("PATH={path}")));
        let stop_usec = u64::try_from(self.config.stop_timeout.as_micros()).unwrap_or(u64::MAX);
        let property =
            |name: &str, value: Variant<'_>| Ok((name.to_owned(), value.try_into_owned()?));
        [
            property(
                "Description",
                description(&guest.name, self.config.identity.daemon()).into(),
            ),
            property("Slice", self.config.slice.clone().into()),
            // Started means that nspawn is executed, and not only that systemd has forked.
            property("Type", "exec".into()),
            property("ExecStart", vec![(program, nspawn, false)].into()),
            property("Environment", environment.into()),
            property("RemainAfterExit", true.into()),
            // nspawn alone is asked to stop; it passes that on, and needs its helpers until the end.
            property("KillMode", "mixed".into()),
            property("TimeoutStopUSec", stop_usec.into()),
            // nspawn and the guest's systemd make cgroups of their own.
            property("Delegate", true.into()),
            property("MemoryMax", guest.limits.memory.bytes().into()),
            property("MemorySwapMax", 0u64.into()),
            property("TasksMax", u64::from(guest.limits.tasks).into()),
            property(
                "CPUQuotaPerSecUSec",
                (u64::from(guest.limits.cpus.percent()) * 10_000).into(),
            ),
            // A process of the guest that needs too much memory does not take the whole guest with it.
            property("OOMPolicy", "continue".into()),
            // Where systemd-oomd runs, it ends what is the worst in a guest that does nothing but wait for memory.
            property("ManagedOOMMemoryPressure", "kill".into()),
            // A guest that floods its console takes no more of the host's journal than this, whatever journald's
            // own limit is.
            property("LogRateLimitIntervalUSec", LOG_INTERVAL_USEC.into()),
            property("LogRateLimitBurst", LOG_BURST.into()),
            // The journal outlives the guest, and the unit's name is used again.
            property(
                "LogExtraFields",
                vec![journal::extra_field(guest).into_bytes()].into(),
            ),
        ]
        .into_iter()
        .collect()
    }
}

/// The description of a guest's unit, which marks it.
fn description(guest: &GuestName, daemon: &DaemonId) -> String {
    format!("Innkeeper guest {guest} (daemon {daemon})")
}

/// The daemon that a unit's description names. Former releases named none.
fn marked(description: &str) -> Option<DaemonId> {
    let (_, daemon) = description.strip_suffix(')')?.rsplit_once(" (daemon ")?;
    DaemonId::parse(daemon).ok()
}

/// The cgroup of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> PathBuf {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name == "-" {
        return PathBuf::new();
    }
    let ends = name
        .match_indices('-')
        .map(|(end, _)| end)
        .chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect()
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

/// A unit that is not loaded is no failure.
fn present<T>(result: zbus::Result<T>) -> zbus::Result<Option<T>> {
    match result {
        Err(error) if is_no_such_unit(&error) => Ok(None),
        result => result.map(Some),
    }
}

#[async_trait]
impl Keeper for Systemd {
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
            guest: cgroup.clone(),
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
        let description = present(description.await).map_err(on("look at a unit"))?;
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

    async fn prepare(&self, _: &Guest, _: &[OsString]) -> Result<Option<Child>, UnitError> {
        Ok(None)
    }

    async fn start(
        &self,
        guest: &Guest,
        nspawn: &[OsString],
        _: Option<Child>,
    ) -> Result<Option<Child>, UnitError> {
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

    /// The daemon's unit has `ProtectKernelTunables=yes`.
    fn mounts(&self) -> Option<&'static Path> {
        Some(Path::new("/proc/1/ns/mnt"))
    }

    fn confine(&self, guest: &GuestName) -> Result<(), UnitError> {
        // systemd has no property for that.
        Ok(super::cgroup::confine(&self.cgroup(guest))?)
    }

    async fn ended(&self, guest: &GuestName) -> Result<Ended, UnitError> {
        match self.object(guest).await? {
            None => Ok(Ended::Nothing),
            Some(object) => {
                let link = self.link().await?;
                let ended = present(Self::status(&link, &object).await);
                let ended = ended.map_err(on("ask for a unit's end"))?;
                Ok(ended.unwrap_or(Ended::Nothing))
            }
        }
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
    use std::path::Path;

    use super::*;

    #[test]
    fn a_unit_is_marked_by_its_description() {
        let daemon = DaemonId::parse(&"0123456789abcdef".repeat(2)).expect("identity");
        let web = GuestName::parse("web").expect("name");
        assert_eq!(marked(&description(&web, &daemon)), Some(daemon));
        for other in ["Innkeeper guest web", "", "x (daemon )", "x (daemon 0123)"] {
            assert_eq!(marked(other), None, "{other}");
        }
    }

    #[test]
    fn a_slice_lies_in_the_slices_that_its_name_says() {
        assert_eq!(slice_path("innkeeper.slice"), Path::new("innkeeper.slice"));
        assert_eq!(
            slice_path("a-b-c.slice"),
            Path::new("a.slice/a-b.slice/a-b-c.slice")
        );
        assert_eq!(slice_path("-.slice"), Path::new(""));
    }
}
