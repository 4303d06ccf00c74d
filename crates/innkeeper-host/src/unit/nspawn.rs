//! The command line of a guest, which both supervisors start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use innkeeper_model::{Guest, STORE_DIR, Slot, StorePath};

use super::config::UnitConfig;
use crate::features::UserIds;

/// The shim inside the guest. nspawn mounts its own /run before the bind mounts, and `/run/host` is reserved for files of
/// the host (systemd's container interface).
const SHIM: &str = "/run/host/innkeeper/shim";

/// The door inside the guest. It is read-only, which does not prevent connections.
const DOOR: &str = "/run/host/innkeeper/door";

/// The host's store for a guest that builds with Nix: it hides `/nix/store` below a writable layer.
const LOWER_STORE: &str = "/run/host/innkeeper/store";

/// The directory with the database of the host's store, for a guest that builds with Nix.
const LOWER_STATE: &str = "/run/host/innkeeper/nix";

/// The environment of nspawn.
///
/// Without it, nspawn would detect the guest's cgroup layout by systemd's libraries in the guest's tree. A NixOS guest has
/// them in the Nix store, and would get the legacy layout (nixos-containers sets the same).
pub(super) const ENVIRONMENT: [(&str, &str); 1] = [("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")];

/// The inputs of a guest's command line.
#[derive(Clone, Debug)]
pub(super) struct Boot<'a> {
    pub(super) config: &'a UnitConfig,
    /// The path of nspawn.
    pub(super) nspawn: &'a Path,
    pub(super) guest: &'a Guest,
    pub(super) closure: &'a StorePath,
    /// The shim on the host.
    pub(super) shim: &'a Path,
    /// The directory with the guest's socket on the host.
    pub(super) door: &'a Path,
    /// The directory with Nix's database for the guest, if it builds with Nix.
    pub(super) nix: Option<&'a Path>,
    /// Registers the guest with machined.
    pub(super) register: bool,
}

/// The command that boots a guest and leaves it waiting at the door.
///
/// The network namespace is new and empty, and belongs to the guest's user namespace; the daemon sets it up before it
/// opens the door. nspawn translates SIGTERM into the signal that makes systemd shut down.
pub(super) fn command(boot: &Boot<'_>) -> Vec<OsString> {
    let Boot { config, guest, .. } = boot;
    let mut arguments: Vec<OsString> = vec![boot.nspawn.into()];
    let mut add = |argument: &str| arguments.push(argument.into());
    // Files in the host's /etc/systemd/nspawn must not change the permissions of a guest.
    add("--quiet");
    add("--settings=no");
    add(if boot.register {
        "--register=yes"
    } else {
        "--register=no"
    });
    add("--keep-unit");
    add(&format!("--machine={}", config.machine(&guest.name)));
    add(&format!("--hostname={}", guest.name));
    add("--private-network");
    for argument in user_ids(config, guest.slot) {
        add(&argument);
    }
    // The guest or the daemon manages these files.
    add("--resolv-conf=off");
    add("--timezone=off");
    add("--link-journal=no");
    add("--kill-signal=SIGRTMIN+3");
    // A terminal for the output of systemd's console; its input is never read.
    add("--console=read-only");
    if !config.keep_capabilities.is_empty() {
        add(&format!(
            "--capability={}",
            config.keep_capabilities.join(",")
        ));
    }
    let dropped = dropped_capabilities(config);
    if !dropped.is_empty() {
        add(&format!("--drop-capability={}", dropped.join(",")));
    }
    if config.no_new_privileges {
        add("--no-new-privileges=yes");
    }
    arguments.push(joined(&[
        "--directory=".as_ref(),
        config.root(&guest.name).as_os_str(),
    ]));
    for path in &config.bind_read_only {
        arguments.push(bind(path, path));
    }
    arguments.push(bind(boot.shim, Path::new(SHIM)));
    arguments.push(bind(boot.door, Path::new(DOOR)));
    if let Some(state) = boot.nix {
        let mut store = bind(Path::new(STORE_DIR), Path::new(LOWER_STORE));
        // With the guest's ids, its root owns the files and can replace a path that the host has and the database does not
        // list. The replacement is in the guest's layer: the mount is read-only.
        if config.maps_store && config.user_ids != UserIds::Host {
            store.push(":idmap");
        }
        arguments.push(store);
        arguments.push(bind(state, Path::new(LOWER_STATE)));
    }
    arguments.extend(["--", SHIM, "door"].map(OsString::from));
    arguments.push(format!("{DOOR}/socket").into());
    arguments.push(boot.closure.init().into());
    arguments
}

/// Returns the capabilities to drop. With a user namespace, these include the one to lift the limits of that namespace
/// ([`bounds`](super::bounds)). The kernel checks its other uses in the host's namespace, where guests never have it.
fn dropped_capabilities(config: &UnitConfig) -> Vec<&str> {
    let mut dropped: Vec<_> = config
        .drop_capabilities
        .iter()
        .map(String::as_str)
        .collect();
    if config.user_ids != UserIds::Host {
        dropped.push("CAP_SYS_RESOURCE");
    }
    dropped
}

fn user_ids(config: &UnitConfig, slot: Slot) -> Vec<String> {
    let ownership = match config.user_ids {
        UserIds::Host => return vec!["--private-users=no".to_owned()],
        UserIds::Mapped => "map",
        UserIds::Shifted => "chown",
    };
    vec![
        format!(
            "--private-users={}:{}",
            config.first_user_id(slot),
            Slot::USER_IDS
        ),
        format!("--private-users-ownership={ownership}"),
    ]
}

fn bind(host: &Path, guest: &Path) -> OsString {
    joined(&[
        "--bind-ro=".as_ref(),
        &escaped(host.as_os_str()),
        ":".as_ref(),
        &escaped(guest.as_os_str()),
    ])
}

/// Escapes a path of a bind mount: a colon separates its parts, and a backslash escapes (systemd-nspawn(1), `--bind=`).
fn escaped(path: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        if matches!(byte, b':' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

fn joined(parts: &[&OsStr]) -> OsString {
    parts.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{
        ClosureSource, Cpus, DesiredState, GuestKind, GuestName, Limits, MemorySize,
    };

    use super::*;

    fn guest() -> Guest {
        let closure =
            StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-agent").expect("a path");
        Guest {
            name: GuestName::parse("web-1").expect("a name"),
            kind: GuestKind::Agent,
            slot: Slot::new(7),
            desired: DesiredState::Running,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure),
            limits: Limits {
                memory: MemorySize::from_bytes(1 << 30),
                cpus: Cpus::from_percent(200),
                tasks: 1000,
            },
            ssh_host_key: None,
            fault: None,
            file_work: None,
            retain: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn command_line(config: &UnitConfig, register: bool) -> String {
        let guest = guest();
        let boot = Boot {
            config,
            nspawn: Path::new("/usr/bin/systemd-nspawn"),
            guest: &guest,
            closure: guest.closure.as_ref().expect("a closure"),
            shim: Path::new("/run/innkeeper/shim/0123456789abcdef"),
            door: Path::new("/run/innkeeper/guests/web-1/door"),
            nix: register.then_some(Path::new("/nix/var/nix/gcroots/innkeeper/.nix/web-1/state")),
            register,
        };
        let arguments: Vec<_> = command(&boot)
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        arguments.join("\n")
    }

    #[test]
    fn default_guest_has_a_user_namespace_and_only_the_store() {
        let config = UnitConfig::new(
            "/var/lib/innkeeper/guests",
            "/run/innkeeper",
            crate::identity::Identity::of('a'),
        );
        insta::assert_snapshot!(command_line(&config, false));
    }

    #[test]
    fn settings_become_arguments() {
        let config = UnitConfig {
            user_ids: UserIds::Shifted,
            machine_prefix: "test-".to_owned(),
            keep_capabilities: vec!["CAP_SYS_TIME".to_owned()],
            drop_capabilities: Vec::new(),
            no_new_privileges: true,
            bind_read_only: vec!["/srv/a:b\\c".into()],
            maps_store: true,
            ..UnitConfig::new(
                "/var/lib/innkeeper/guests",
                "/run/innkeeper",
                crate::identity::Identity::of('a'),
            )
        };
        insta::assert_snapshot!(command_line(&config, true));
        let config = UnitConfig {
            user_ids: UserIds::Host,
            ..config
        };
        assert!(command_line(&config, true).contains("\n--private-users=no\n"));
    }
}
