//! Wiring of the engine: creates its parts from the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::{Engine, EngineConfig};
use innkeeper_facilities::{Facilities, FacilityError, Rootfs};
use innkeeper_host::closure::{NixClosures, NixConfig};
use innkeeper_host::facts::HostFacts;
use innkeeper_host::features::{Features, UserIds};
use innkeeper_host::firewall::{
    BuildFilter, BuildFilterConfig, FirewallConfig, HostPort, NftFirewall, WebPorts,
};
use innkeeper_host::identity::Identity;
use innkeeper_host::load::HostLoad;
use innkeeper_host::memory::HostMemory;
use innkeeper_host::network::{NetworkConfig, VethNetwork, parking_interface};
use innkeeper_host::resolver::Resolver;
use innkeeper_host::rootfs::{DirConfig, DirRootfs, LvmConfig, LvmRootfs};
use innkeeper_host::secrets::{GuestSecrets, NameServers, SecretsConfig};
use innkeeper_host::unit::{self, UnitConfig};
use innkeeper_model::{Limits, STORE_DIR, Slot, SlotBounds};
use innkeeper_store::Store;
use tracing::{info, warn};

use crate::config::{Config, ConfigError, StorageDriver};
use crate::crash;
use crate::error::DaemonError;

/// Opens the database, and checks that all guests have slots of the configured range.
pub(crate) async fn store(config: &Config) -> Result<Store, DaemonError> {
    let range = config.network.range();
    let store = Store::open(&database(config), range)?;
    let guests = store.guests().await?;
    check_slots(config.network.slots, guests.iter().map(|guest| guest.slot))?;
    Ok(store)
}

/// Refuses guests with slots outside of the configured bounds.
pub(crate) fn check_slots(
    bounds: SlotBounds,
    slots: impl Iterator<Item = Slot>,
) -> Result<(), DaemonError> {
    let outside = slots.filter(|slot| !bounds.contains(*slot));
    let outside: Vec<_> = outside.map(|slot| slot.to_string()).collect();
    if outside.is_empty() {
        return Ok(());
    }
    let slots = outside.join(", ");
    Err(DaemonError::Slots { bounds, slots })
}

/// Returns the path of the database.
pub(crate) fn database(config: &Config) -> PathBuf {
    config.state_dir.join("innkeeper.db")
}

/// Creates the engine, and returns it with the user ids of guests.
pub(crate) async fn engine(
    config: &Config,
    store: Store,
    identity: &Identity,
    builds: Arc<BuildFilter>,
    web: Option<WebPorts>,
) -> Result<(Engine, UserIds), DaemonError> {
    store
        .set_expiry_grace(Duration::from_secs(config.engine.expiry_grace_seconds))
        .await?;
    for note in store
        .reserve_legacy_slots(&config.legacy.directories)
        .await?
    {
        warn!("{note}");
    }
    refuse_taken_subnet(config, &store, identity).await?;
    let features = Features::detect(&config.state_dir, config.guest.user_namespace)?;
    info!(user_ids = ?features.user_ids, "guests' user ids");
    let user_ids = features.user_ids;
    let host = facilities(config, features, identity, builds, web).await?;
    let engine = EngineConfig {
        installable: config.installable()?,
        attribute: config.nix.attribute.clone(),
        limits: Limits {
            memory: config.guest.memory,
            cpus: config.guest.cpus,
            tasks: config.guest.tasks,
            user_ids: config.guest.user_ids,
            nesting: false,
        },
        nesting: config.guest.nesting,
        concurrent_starts: concurrent_starts(config),
        range: config.network.range(),
        retention: Duration::from_secs(config.guest.retention_seconds),
        activity: config.rest.activity(),
        boot_timeout: EngineConfig::BOOT_TIMEOUT,
        rest: config.rest.rest(),
        seats: config.pool.size,
        warm: {
            let warm = config.pool.warm(&config.nix.flake, &config.nix.attribute);
            warm.map_err(|(setting, problem)| ConfigError::value(setting, &problem))?
        },
        pressure: config.pressure.pressure(),
    };
    let engine = Engine::new(engine, store, host, crash::probe());
    Ok((engine, user_ids))
}

/// Rejects a subnet that the host already uses, before the first guest gets an address in it. A daemon with guests starts
/// nevertheless: the conflict may be newer than the guests, and they need a daemon.
async fn refuse_taken_subnet(
    config: &Config,
    store: &Store,
    identity: &Identity,
) -> Result<(), DaemonError> {
    let network = VethNetwork::new(NetworkConfig {
        range: config.network.subnet,
        identity: identity.clone(),
    });
    let Some(conflict) = network.conflict().await.map_err(FacilityError::from)? else {
        return Ok(());
    };
    if !store.guests().await?.is_empty() {
        warn!("{conflict}: `innkeeper doctor` shows the remedy");
        return Ok(());
    }
    let problem =
        format!("{conflict}; choose a network that this host has no address in and no route to");
    Err(ConfigError::value("network.subnet", &problem).into())
}

fn concurrent_starts(config: &Config) -> usize {
    match config.engine.concurrent_starts {
        0 => 4 * std::thread::available_parallelism().map_or(1, usize::from),
        configured => configured,
    }
}

async fn facilities(
    config: &Config,
    features: Features,
    identity: &Identity,
    builds: Arc<BuildFilter>,
    web: Option<WebPorts>,
) -> Result<Facilities, DaemonError> {
    let user_ids = features.user_ids;
    let store = Features::detect(Path::new(STORE_DIR), config.guest.user_namespace)?;
    let guests = config.guests_dir();
    let units = unit::open(
        UnitConfig {
            nspawn: config.supervisor.nspawn.clone(),
            cgroup: config.supervisor.cgroup.clone(),
            machine_prefix: config.supervisor.machine_prefix.clone(),
            unit_prefix: config.supervisor.unit_prefix.clone(),
            user_ids,
            stop_timeout: Duration::from_secs(config.guest.stop_timeout_seconds),
            door_timeout: Duration::from_secs(config.guest.start_timeout_seconds),
            log_limit: config.guest.log_limit_bytes,
            no_new_privileges: config.guest.no_new_privileges,
            gcroots: config.nix.gcroots_dir.clone(),
            maps_store: store.idmapped_mounts,
            ..UnitConfig::new(guests.clone(), &config.runtime_dir, identity.clone())
        },
        config.supervisor.kind,
    )
    .await?;
    let rootfs = rootfs(config, identity, user_ids, units.supervisor() == "systemd");
    let resolver = resolver(config, web)?;
    if let Some(Err(error)) = resolver.as_ref().map(Resolver::open_table) {
        warn!(%error, "the guests' resolver may be unable to read caddy.table");
    }
    let nameservers = NameServers::new(config.network.nameservers.clone()).behind(resolver);
    let network = Arc::new(VethNetwork::new(NetworkConfig {
        range: config.network.range(),
        identity: identity.clone(),
    }));
    let secrets = GuestSecrets::new(SecretsConfig {
        guests,
        user_ids,
        authorized_keys: config.ssh.authorized_keys.clone(),
        admin_key_files: config.ssh.admin_key_files.clone(),
        credentials: some_path(&config.credentials.directory),
        agent_uid: config.credentials.user_id,
        agent_gid: config.credentials.group_id,
        nameservers: nameservers.clone(),
        range: config.network.range(),
    });
    let firewall = Arc::new(firewall(config, nameservers.clone(), identity, builds, web));
    Ok(Facilities {
        closures: Arc::new(NixClosures::new(nix(config), identity.clone())),
        rootfs,
        traffic: Arc::clone(&firewall) as _,
        packets: Arc::clone(&firewall) as _,
        firewall,
        secrets: Arc::new(secrets),
        facts: Arc::new(HostFacts::new(nameservers, Arc::clone(&network))),
        features: Arc::new(features),
        memory: Arc::new(HostMemory::default()),
        load: Arc::new(HostLoad::default()),
        network,
        units,
    })
}

/// Creates the storage driver. systemd starts guests in its own mount namespace, so volumes are mounted there.
fn rootfs(
    config: &Config,
    identity: &Identity,
    user_ids: UserIds,
    by_systemd: bool,
) -> Arc<dyn Rootfs> {
    let storage = &config.storage;
    let dir = DirConfig {
        guests: config.guests_dir(),
        min_free: storage.min_free.bytes(),
        user_ids,
        identity: identity.clone(),
    };
    match storage.driver {
        StorageDriver::Dir => Arc::new(DirRootfs::new(dir)),
        StorageDriver::LvmThin => Arc::new(LvmRootfs::new(LvmConfig {
            dir,
            volume_group: storage.volume_group.clone(),
            pool: storage.pool.clone(),
            size: storage.size.bytes(),
            limit: storage.pool_limit_percent,
            mount_namespace: by_systemd.then(|| "/proc/1/ns/mnt".into()),
        })),
    }
}

/// Returns the configuration of Nix.
pub(crate) fn nix(config: &Config) -> NixConfig {
    NixConfig {
        program: config.nix.program.clone(),
        gcroots: config.nix.gcroots_dir.clone(),
        state: NixConfig::default_state(),
        links: config.state_dir.join("closures"),
        options: config.nix.options.clone(),
        user: config.evaluation.user.clone(),
        daemon_socket: NixConfig::default_daemon_socket(),
    }
}

/// Creates the firewall rules that block builds from the host's own network.
pub(crate) fn build_filter(config: &Config, identity: &Identity) -> Arc<BuildFilter> {
    let filter = BuildFilterConfig {
        table: config.network.table.clone(),
        subnet: config.network.subnet.subnet(),
        extra_private: config.network.refuse.clone(),
        allowed: config.builds.allowed_networks.clone(),
    };
    Arc::new(BuildFilter::new(filter, identity.clone()))
}

fn firewall(
    config: &Config,
    nameservers: NameServers,
    identity: &Identity,
    builds: Arc<BuildFilter>,
    web: Option<WebPorts>,
) -> NftFirewall {
    let firewall = FirewallConfig {
        subnet: config.network.subnet.subnet(),
        table: config.network.table.clone(),
        allow_dns: config.network.allow_dns,
        resolver: None,
        log_refusals: config.network.log_refusals,
        nameservers: Vec::new(),
        allowed_host_ports: config.network.host_ports.clone(),
        web,
        extra_private: config.network.refuse.clone(),
        connections_per_guest: config.network.connections_per_guest,
        log_group: config.rest.log_group(identity.daemon()),
        parking: parking_interface(identity.daemon()),
    };
    NftFirewall::new(firewall, identity.clone(), builds).following(nameservers)
}

/// Returns the resolver of guests. `None` where an own host that leads to the gateway would not lead to Caddy, and where the
/// administrator has closed port 53 of the gateway or opened it for another server.
pub(crate) fn resolver(
    config: &Config,
    web: Option<WebPorts>,
) -> Result<Option<Resolver>, DaemonError> {
    let dns = &config.dns;
    let opened = |allowed: &HostPort| allowed.port == 53;
    let is_free = config.network.allow_dns && !config.network.host_ports.iter().any(opened);
    let urls_lead_to_caddy = !config.previews.is_behind_tls(&config.caddy.tls()?)
        && web.is_some()
        && web.map(|ports| ports.url)
            == config
                .previews
                .web_ports(&config.caddy)?
                .map(|ports| ports.url);
    let is_on = dns.port != 0 && is_free && urls_lead_to_caddy;
    Ok(is_on.then(|| Resolver {
        port: dns.port,
        listening: dns.listening(),
        table: config.caddy.table.clone(),
    }))
}

fn some_path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}
