//! How a guest runs: the one description that both supervisors start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use innkeeper_model::{Guest, Slot, StorePath};

use super::config::UnitConfig;
use crate::features::UserIds;

/// Where the guest finds the shim. nspawn mounts its own /run before it binds what it was told to, and
/// `/run/host` is the place for what the host gives (systemd's container interface).
const SHIM: &str = "/run/host/innkeeper/shim";

/// Where the guest finds the door. Read-only, which does not keep anybody from connecting.
const DOOR: &str = "/run/host/innkeeper/door";

/// What nspawn itself needs to know through its environment.
///
/// It would look for systemd's libraries in the guest's tree to find out which cgroup layout the guest
/// understands; a NixOS guest has them in the Nix store, and would get the old layout (nixos-containers sets
/// the same).
pub(super) const ENVIRONMENT: [(&str, &str); 1] = [("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")];

/// What a guest is started with.
#[derive(Clone, Debug)]
pub(super) struct Boot<'a> {
    pub(super) config: &'a UnitConfig,
    /// nspawn, found.
    pub(super) nspawn: &'a Path,
    pub(super) guest: &'a Guest,
    pub(super) closure: &'a StorePath,
    /// The shim on the host.
    pub(super) shim: &'a Path,
    /// The directory with the guest's socket on the host.
    pub(super) door: &'a Path,
    /// Whether machined is told.
    pub(super) register: bool,
}

/// The command that boots a guest and leaves it waiting at the door.
///
/// The network namespace is new and empty, and belongs to the guest's user namespace; the manager furnishes
/// it before it opens the door. nspawn passes SIGTERM on as the signal that asks systemd to shut down.
pub(super) fn command(boot: &Boot<'_>) -> Vec<OsString> {
    let Boot { config, guest, .. } = boot;
    let mut words: Vec<OsString> = vec![boot.nspawn.into()];
    let mut add = |word: &str| words.push(word.into());
    // Nothing of the host's own /etc/systemd/nspawn may change what a guest is allowed to do.
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
    for word in user_ids(config, guest.slot) {
        add(&word);
    }
    // These are the guest's own business, or the manager's.
    add("--resolv-conf=off");
    add("--timezone=off");
    add("--link-journal=no");
    add("--kill-signal=SIGRTMIN+3");
    // A terminal on which a systemd writes its console and from which nothing is ever read.
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
    words.push(joined(&[
        "--directory=".as_ref(),
        config.root(&guest.name).as_os_str(),
    ]));
    for path in &config.bind_read_only {
        words.push(bind(path, path));
    }
    words.push(bind(boot.shim, Path::new(SHIM)));
    words.push(bind(boot.door, Path::new(DOOR)));
    words.extend(["--", SHIM, "door"].map(OsString::from));
    words.push(format!("{DOOR}/socket").into());
    words.push(boot.closure.init().into());
    words
}

/// With a user namespace, also the capability to lift the limits of that namespace ([`bounds`](super::bounds)). The
/// kernel asks for it in the host's namespace where else it would count, so a guest loses nothing by it.
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

/// A colon separates the parts of a bind mount, and a backslash takes its meaning away (systemd-nspawn(1),
/// `--bind=`).
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

    fn words(config: &UnitConfig, register: bool) -> String {
        let guest = guest();
        let boot = Boot {
            config,
            nspawn: Path::new("/usr/bin/systemd-nspawn"),
            guest: &guest,
            closure: guest.closure.as_ref().expect("a closure"),
            shim: Path::new("/run/innkeeper/shim/0123456789abcdef"),
            door: Path::new("/run/innkeeper/guests/web-1/door"),
            register,
        };
        let words: Vec<_> = command(&boot)
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join("\n")
    }

    #[test]
    fn the_default_guest_has_a_user_namespace_and_sees_only_the_store() {
        let config = UnitConfig::new(
            "/var/lib/innkeeper/guests",
            "/run/innkeeper",
            crate::identity::Identity::of('a'),
        );
        insta::assert_snapshot!(words(&config, false));
    }

    #[test]
    fn every_setting_reaches_nspawn() {
        let config = UnitConfig {
            user_ids: UserIds::Shifted,
            machine_prefix: "test-".to_owned(),
            keep_capabilities: vec!["CAP_SYS_TIME".to_owned()],
            drop_capabilities: Vec::new(),
            no_new_privileges: true,
            bind_read_only: vec!["/srv/a:b\\c".into()],
            ..UnitConfig::new(
                "/var/lib/innkeeper/guests",
                "/run/innkeeper",
                crate::identity::Identity::of('a'),
            )
        };
        insta::assert_snapshot!(words(&config, true));
        let config = UnitConfig {
            user_ids: UserIds::Host,
            ..config
        };
        assert!(words(&config, true).contains("\n--private-users=no\n"));
    }
}
