//! Every setting, with its default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use innkeeper_host::features::UserIdsChoice;
use innkeeper_host::firewall::HostPort;
use innkeeper_host::unit::SupervisorKind;
use innkeeper_model::{Cpus, Installable, MemorySize, SlotBounds, SlotRange, UserIdCount};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::audit::AuditSettings;
use super::people::PeopleSettings;
use super::pool::PoolSettings;
use super::pressure::PressureSettings;
use super::previews::{
    BuildSettings, CaddySettings, DatabaseSettings, EvaluationSettings, GithubSettings, Previews,
};
use super::quotas::QuotaSettings;
use super::rest::RestSettings;
use innkeeper_service::{ConfigError, Dns, Gateway, Log, Pages, Webhook};

/// The whole configuration. Each field's default is what `innkeeper config` shows on a fresh host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of persistent state.
    pub state_dir: PathBuf,
    /// The directory of sockets and other state that is lost at a reboot.
    pub runtime_dir: PathBuf,
    /// The directory in which all daemons of this host register their claims.
    pub daemons_dir: PathBuf,
    /// The API socket.
    pub api: Api,
    /// Addresses and the firewall.
    pub network: Network,
    /// The source of closures.
    pub nix: Nix,
    /// Defaults and limits of guests.
    pub guest: GuestDefaults,
    /// The supervisor of guests.
    pub supervisor: SupervisorSettings,
    /// The storage of file trees.
    pub storage: Storage,
    /// Agents' credentials.
    pub credentials: Credentials,
    /// SSH access to agents.
    pub ssh: Ssh,
    /// Previews of pull requests.
    pub previews: Previews,
    /// Access to GitHub.
    pub github: GithubSettings,
    /// The web server.
    pub caddy: CaddySettings,
    /// PostgreSQL for previews.
    pub database: DatabaseSettings,
    /// Evaluation of `preview-config.nix`.
    pub evaluation: EvaluationSettings,
    /// Builds of previews.
    pub builds: BuildSettings,
    /// The daemon's schedule.
    pub engine: EngineSettings,
    /// The measurement of guests' use.
    pub rest: RestSettings,
    /// Guests that are prepared in advance.
    pub pool: PoolSettings,
    /// A lack of memory on the host.
    pub pressure: PressureSettings,
    /// Legacy installations on the same host.
    pub legacy: Legacy,
    /// The program that receives GitHub's deliveries, and the socket on which it hands them over.
    pub webhook: Webhook,
    /// The program that shows visitors the state of a preview, and the files that it reads.
    pub pages: Pages,
    /// The program that resolves names for guests.
    pub dns: Dns,
    /// The program that accepts requests of other machines, and the socket on which it passes them on.
    pub gateway: Gateway,
    /// Logins of people.
    pub people: PeopleSettings,
    /// The audit log.
    pub audit: AuditSettings,
    /// Limits of other machines' agents.
    pub quotas: QuotaSettings,
    /// The daemon's own log.
    pub log: Log,
}

/// The API socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// The socket's path; empty means `<runtime_dir>/api.sock`.
    pub socket: String,
    /// The group whose members may use it. If the group does not exist, only root may.
    pub group: String,
}

/// Addresses and the firewall.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// The guests' subnet.
    pub subnet: SlotRange,
    /// The slots of the subnet that are allocated. Daemons of one host must not share any.
    pub slots: SlotBounds,
    /// The guests' name servers; empty means those of the host that guests can reach.
    pub nameservers: Vec<IpAddr>,
    /// The name of the nftables table, in the family `inet`.
    pub table: String,
    /// Networks that guests may not reach, in addition to private ones.
    pub refuse: Vec<Ipv4Net>,
    /// Ports of the host that guests may reach, on their own gateway's address, such as `tcp/5432`.
    pub host_ports: Vec<HostPort>,
    /// Allows DNS queries to the gateway's address.
    pub allow_dns: bool,
    /// Logs rejected packets, with a rate limit.
    pub log_refusals: bool,
    /// The maximum number of a guest's open connections.
    pub connections_per_guest: u32,
}

/// The source of closures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nix {
    /// The program `nix`.
    pub program: PathBuf,
    /// The flake that agents are built from, `<flake>` or `<flake>#<attribute>`; empty means none.
    pub flake: String,
    /// The attribute of flakes that are given without one.
    pub attribute: String,
    /// The folder of GC roots.
    pub gcroots_dir: PathBuf,
    /// Nix settings, passed as `--option <name> <value>`.
    pub options: BTreeMap<String, String>,
}

/// Defaults and limits of guests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestDefaults {
    /// Default memory.
    pub memory: MemorySize,
    /// Default processors.
    pub cpus: Cpus,
    /// Default limit of processes and threads.
    pub tasks: u32,
    /// Default number of user ids.
    pub user_ids: UserIdCount,
    /// Whether agents may be created with `--nesting`: containers can run in them.
    pub nesting: bool,
    /// User namespaces for guests: `on`, `off`, or `auto` if the kernel supports them.
    pub user_namespace: UserIdsChoice,
    /// Timeout of a guest's shutdown, in seconds.
    pub stop_timeout_seconds: u64,
    /// Timeout until a guest waits at its door, in seconds.
    pub start_timeout_seconds: u64,
    /// Retention of a destroyed agent's files, in seconds of the daemon's running time; 0 means none.
    pub retention_seconds: u64,
    /// The size at which a guest's console log is rotated, in bytes. One rotated file is kept.
    pub log_limit_bytes: u64,
    /// Prevents programs in guests from gaining privileges, including `sudo`.
    pub no_new_privileges: bool,
}

/// The supervisor of guests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorSettings {
    /// `systemd`, `direct`, or `auto` for systemd where it is PID 1.
    pub kind: SupervisorKind,
    /// The program `systemd-nspawn`.
    pub nspawn: PathBuf,
    /// The name of the parent cgroup of guests' cgroups (direct supervision).
    pub cgroup: String,
    /// The prefix of machine names.
    pub machine_prefix: String,
    /// The prefix of guests' unit names (systemd).
    pub unit_prefix: String,
}

/// The storage of file trees.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The storage driver.
    pub driver: StorageDriver,
    /// With the driver `dir`: the minimum free space for creating a guest.
    pub min_free: MemorySize,
    /// With the driver `lvm-thin`: the volume group.
    pub volume_group: String,
    /// With the driver `lvm-thin`: the thin pool in it.
    pub pool: String,
    /// With the driver `lvm-thin`: the size of a guest's volume.
    pub size: MemorySize,
    /// With the driver `lvm-thin`: the maximum usage of the pool for creating a guest, in percent.
    pub pool_limit_percent: u8,
}

/// A storage driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageDriver {
    /// A directory in the state directory.
    Dir,
    /// A thin volume of LVM.
    LvmThin,
}

/// Agents' credentials.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// The directory whose files are copied to `/mnt/claude-creds` of each agent; empty means none.
    pub directory: String,
    /// The user in the guest that may read them.
    pub user_id: u32,
    /// That user's group.
    pub group_id: u32,
}

/// SSH access to agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ssh {
    /// Public keys that may log in as `agent`, in the format of `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Environment files whose `ADMIN_SSH_KEY` may also log in.
    pub admin_key_files: Vec<PathBuf>,
}

/// The daemon's schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// The maximum number of concurrently starting guests; 0 means four times the number of processors.
    pub concurrent_starts: usize,
    /// The interval of the periodic reconciliation, in seconds.
    pub interval_seconds: u64,
    /// Grace period after the start of the daemon in which nothing expires, in seconds.
    pub expiry_grace_seconds: u64,
}

/// Legacy installations on the same host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Legacy {
    /// Directories with their slot counters and tracking files: their addresses are not allocated.
    pub directories: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/innkeeper".into(),
            runtime_dir: "/run/innkeeper".into(),
            daemons_dir: "/var/lib/innkeeper-daemons".into(),
            api: Api::default(),
            network: Network::default(),
            nix: Nix::default(),
            guest: GuestDefaults::default(),
            supervisor: SupervisorSettings::default(),
            storage: Storage::default(),
            credentials: Credentials::default(),
            ssh: Ssh::default(),
            previews: Previews::default(),
            github: GithubSettings::default(),
            caddy: CaddySettings::default(),
            database: DatabaseSettings::default(),
            evaluation: EvaluationSettings::default(),
            builds: BuildSettings::default(),
            engine: EngineSettings::default(),
            rest: RestSettings::default(),
            pool: PoolSettings::default(),
            pressure: PressureSettings::default(),
            legacy: Legacy::default(),
            webhook: Webhook::default(),
            pages: Pages::default(),
            dns: Dns::default(),
            gateway: Gateway::default(),
            people: PeopleSettings::default(),
            audit: AuditSettings::default(),
            quotas: QuotaSettings::default(),
            log: Log::default(),
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: String::new(),
            group: "innkeeper".to_owned(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            subnet: SlotRange::default(),
            slots: SlotBounds::default(),
            nameservers: Vec::new(),
            table: "innkeeper".to_owned(),
            refuse: Vec::new(),
            host_ports: Vec::new(),
            allow_dns: true,
            log_refusals: false,
            connections_per_guest: 4096,
        }
    }
}

impl Default for Nix {
    fn default() -> Self {
        Self {
            program: "nix".into(),
            flake: String::new(),
            attribute: Installable::DEFAULT_ATTRIBUTE.to_owned(),
            gcroots_dir: "/nix/var/nix/gcroots/innkeeper".into(),
            options: BTreeMap::new(),
        }
    }
}

impl Default for GuestDefaults {
    fn default() -> Self {
        Self {
            memory: MemorySize::from_bytes(4 << 30),
            cpus: Cpus::from_percent(200),
            tasks: 4096,
            user_ids: UserIdCount::MIN,
            nesting: false,
            user_namespace: UserIdsChoice::Auto,
            stop_timeout_seconds: 30,
            start_timeout_seconds: 30,
            retention_seconds: 3600,
            log_limit_bytes: 4 << 20,
            no_new_privileges: false,
        }
    }
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        Self {
            kind: SupervisorKind::Auto,
            nspawn: "systemd-nspawn".into(),
            cgroup: "innkeeper".to_owned(),
            machine_prefix: String::new(),
            unit_prefix: "innkeeper-guest-".to_owned(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            driver: StorageDriver::Dir,
            min_free: MemorySize::from_bytes(512 << 20),
            volume_group: "pool".to_owned(),
            pool: "thin".to_owned(),
            size: MemorySize::from_bytes(10 << 30),
            pool_limit_percent: 85,
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            directory: "/var/secrets/claude".to_owned(),
            user_id: 1000,
            group_id: 100,
        }
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            authorized_keys: Vec::new(),
            admin_key_files: vec!["/var/secrets/preview.env".into()],
        }
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            concurrent_starts: 0,
            interval_seconds: 60,
            expiry_grace_seconds: 600,
        }
    }
}

impl Default for Legacy {
    fn default() -> Self {
        Self {
            directories: vec![
                "/var/lib/claude-agents".into(),
                "/var/lib/preview-deploys".into(),
            ],
        }
    }
}

impl Network {
    /// Returns the slots for guests, and their addresses.
    #[must_use]
    pub fn range(&self) -> SlotRange {
        self.subnet.within(self.slots)
    }
}

impl Config {
    /// Returns the API socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        match self.api.socket.as_str() {
            "" => self.runtime_dir.join("api.sock"),
            path => path.into(),
        }
    }

    /// Returns the intake socket's path.
    #[must_use]
    pub fn intake_socket(&self) -> PathBuf {
        self.webhook.intake_socket(&self.runtime_dir)
    }

    /// Returns the parent directory of guests' directories.
    #[must_use]
    pub fn guests_dir(&self) -> PathBuf {
        self.state_dir.join("guests")
    }

    /// Returns the flake output that agents are built from.
    ///
    /// # Errors
    /// When it is not a flake output.
    pub fn installable(&self) -> Result<Option<Installable>, ConfigError> {
        if self.nix.flake.is_empty() {
            return Ok(None);
        }
        Installable::parse(&self.nix.flake, &self.nix.attribute)
            .map(Some)
            .map_err(|error| ConfigError::value("nix.flake", &error))
    }

    /// Checks the values beyond their types.
    pub(super) fn check_values(&self) -> Result<(), ConfigError> {
        let invalid = |setting, problem: &str| Err(ConfigError::value(setting, problem));
        self.installable()?;
        for (setting, path) in [
            ("state_dir", self.state_dir.as_path()),
            ("runtime_dir", self.runtime_dir.as_path()),
            ("daemons_dir", self.daemons_dir.as_path()),
            ("api.socket", &self.socket()),
            ("nix.gcroots_dir", &self.nix.gcroots_dir),
        ] {
            if !path.is_absolute() {
                return invalid(setting, "the path must start with '/'");
            }
        }
        // sockaddr_un has 108 bytes, including the final NUL.
        if self.socket().as_os_str().len() > 107 {
            return invalid("api.socket", "the path of a socket has 107 bytes at most");
        }
        self.webhook.validate(&self.runtime_dir)?;
        self.pages.validate(&self.runtime_dir)?;
        self.dns.validate()?;
        self.gateway.validate()?;
        self.people.validate()?;
        if self.intake_socket() == self.socket() {
            return invalid(
                "webhook.intake",
                "it must be another socket than api.socket",
            );
        }
        if self.guest.tasks == 0 {
            return invalid("guest.tasks", "a guest needs at least 1 task");
        }
        if self.guest.start_timeout_seconds == 0 || self.engine.interval_seconds == 0 {
            return invalid(
                "guest.start_timeout_seconds and engine.interval_seconds",
                "must be at least 1",
            );
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if self.supervisor.cgroup.is_empty() || !plain(&self.supervisor.cgroup) {
            return invalid(
                "supervisor.cgroup",
                "only a-z, 0-9 and '-' are allowed, and at least one of them",
            );
        }
        let prefix = &self.supervisor.unit_prefix;
        if !plain(prefix) || !prefix.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return invalid(
                "supervisor.unit_prefix",
                "only letters, digits and '-' are allowed, and no '-' in front",
            );
        }
        if self.network.range().slots().next().is_none() {
            return invalid(
                "network.slots",
                "network.subnet contains none of these slots: slot N has its addresses 2N and 2N+1",
            );
        }
        if !plain(&self.supervisor.machine_prefix) {
            return invalid(
                "supervisor.machine_prefix",
                "only a-z, 0-9 and '-' are allowed",
            );
        }
        self.storage
            .validate()
            .and_then(|()| self.rest.validate())
            .and_then(|()| self.pressure.validate())
            .map_err(|(setting, problem)| ConfigError::value(setting, problem))?;
        let pool = self.pool.validate(&self.nix.flake, &self.nix.attribute);
        pool.map_err(|(setting, problem)| ConfigError::value(setting, &problem))
    }
}

impl Storage {
    /// Checks the section. The error is the setting and the problem.
    fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        for (setting, name) in [
            ("storage.volume_group", &self.volume_group),
            ("storage.pool", &self.pool),
        ] {
            // lvm(8), "VALID NAMES".
            let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
            let first = name.bytes().next();
            if first.is_none_or(|b| b == b'-' || b == b'.') || !name.bytes().all(valid) {
                return Err((
                    setting,
                    "LVM allows letters, digits and '_.+-', and neither '-' nor '.' in front",
                ));
            }
        }
        // ext4 and its journal need some MiB.
        if self.size.bytes() < 64 << 20 {
            return Err(("storage.size", "a guest's volume has at least 64M"));
        }
        // LVM allocates extents, of 4 MiB by default.
        if !self.size.bytes().is_multiple_of(4 << 20) {
            return Err((
                "storage.size",
                "a volume's size is a multiple of 4M, such as 10G",
            ));
        }
        if !(1..=100).contains(&self.pool_limit_percent) {
            return Err(("storage.pool_limit_percent", "it must be between 1 and 100"));
        }
        Ok(())
    }
}
