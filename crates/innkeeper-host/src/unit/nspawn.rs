//! The command line of a guest, which both supervisors start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use innkeeper_model::{Guest, STORE_DIR, Slot, StorePath};

use rustix::fs::FileType;

use super::config::UnitConfig;
use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree};

/// The shim inside the guest. nspawn mounts its own /run before the bind mounts, and `/run/host` is reserved for files of
/// the host (systemd's container interface).
const SHIM: &str = innkeeper_copy::GUEST_PROGRAM;

/// The door inside the guest. It is read-only, which does not prevent connections.
const DOOR: &str = "/run/host/innkeeper/door";

/// The host's store for a guest that builds with Nix: it hides `/nix/store` below a writable layer.
const LOWER_STORE: &str = "/run/host/innkeeper/store";

/// The directory with the database of the host's store, for a guest that builds with Nix.
const LOWER_STATE: &str = "/run/host/innkeeper/nix";

/// System calls of nested container engines that nspawn refuses by default: runc and crun give each container a session
/// keyring. Keys belong to the user namespace of their owner (user-keyring(7)), and their number and size are limited.
const NESTING_CALLS: &str = "keyctl";

/// Devices of guests with nesting, as far as the host has them. nspawn itself provides `/dev/net/tun`, and `/dev/fuse` from
/// systemd 257 on.
pub(super) const NESTING_DEVICES: [&str; 1] = ["/dev/fuse"];

/// The environment of nspawn.
///
/// Without it, nspawn would detect the guest's cgroup layout by systemd's libraries in the guest's tree. A NixOS guest has
/// them in the Nix store, and would get the legacy layout (nixos-containers sets the same).
const ENVIRONMENT: (&str, &str) = ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");

/// Makes nspawn install no system call filters: the door installs them. It affects nothing else in nspawn (`setup_seccomp`
/// and `arg_seccomp` in its sources), and payloads do not inherit it.
const WITHOUT_FILTERS: (&str, &str) = ("SYSTEMD_SECCOMP", "0");

/// nspawn with its arguments and environment.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// The program, then its arguments.
    pub(super) words: Vec<OsString>,
    /// Variables besides `PATH`.
    pub(super) environment: Vec<(&'static str, &'static str)>,
}

/// The inputs of a guest's command line.
#[derive(Clone, Debug)]
pub(super) struct Boot<'a> {
    pub(super) config: &'a UnitConfig,
    /// The path of nspawn.
    pub(super) nspawn: &'a Path,
    pub(super) guest: &'a Guest,
    /// `None` for a seat: the door's message names its init then.
    pub(super) closure: Option<&'a StorePath>,
    /// The shim on the host.
    pub(super) shim: &'a Path,
    /// The directory with the guest's socket on the host.
    pub(super) door: &'a Path,
    /// The directory with Nix's database for the guest, if it builds with Nix.
    pub(super) nix: Option<&'a Path>,
    /// Devices of the host for a guest with nesting.
    pub(super) devices: &'a [PathBuf],
    /// Registers the guest with machined.
    pub(super) register: bool,
    /// The door installs the system call filters, and not nspawn.
    pub(super) filters_at_door: bool,
}

/// The command that boots a guest and leaves it waiting at the door.
///
/// The network namespace is new and empty, and belongs to the guest's user namespace; the daemon sets it up before it
/// opens the door. nspawn translates SIGTERM into the signal that makes systemd shut down.
pub(super) fn command(boot: &Boot<'_>) -> Command {
    let Boot { config, guest, .. } = boot;
    let mut arguments: Vec<OsString> = vec![boot.nspawn.into()];
    let mut add = |argument: &str| arguments.push(argument.into());
    add(if boot.register {
        "--register=yes"
    } else {
        "--register=no"
    });
    add(&format!("--machine={}", config.machine(&guest.name)));
    add(&format!("--hostname={}", guest.name));
    for argument in user_ids(config, guest) {
        add(&argument);
    }
    let nesting = nests(config, guest);
    arguments.extend(common(config, nesting).map(OsString::from));
    arguments.push(joined(&[
        "--directory=".as_ref(),
        config.root(&guest.name).as_os_str(),
    ]));
    for path in &config.bind_read_only {
        arguments.push(bind_read_only(path, path));
    }
    if nesting {
        for device in boot.devices {
            arguments.push(bind("--bind=", device, device));
        }
    }
    arguments.push(bind_read_only(boot.shim, Path::new(SHIM)));
    arguments.push(bind_read_only(boot.door, Path::new(DOOR)));
    if let Some(state) = boot.nix {
        let mut store = bind_read_only(Path::new(STORE_DIR), Path::new(LOWER_STORE));
        // With the guest's ids, its root owns the files and can replace a path that the host has and the database does not
        // list. The replacement is in the guest's layer: the mount is read-only.
        if config.maps_store && config.user_ids != UserIds::Host {
            store.push(":idmap");
        }
        arguments.push(store);
        arguments.push(bind_read_only(state, Path::new(LOWER_STATE)));
    }
    arguments.extend(["--", SHIM, "door"].map(OsString::from));
    let mut environment = vec![ENVIRONMENT];
    if boot.filters_at_door {
        arguments.push("--filters".into());
        environment.push(WITHOUT_FILTERS);
    }
    arguments.push(format!("{DOOR}/socket").into());
    arguments.extend(boot.closure.map(|closure| closure.init().into()));
    Command {
        words: arguments,
        environment,
    }
}

/// Reports whether the guest may run container engines. Without a user namespace, its privileges would be the host's.
fn nests(config: &UnitConfig, guest: &Guest) -> bool {
    guest.limits.nesting && config.user_ids != UserIds::Host
}

/// Returns the options that decide how guests are confined: all but names, ids and paths.
fn common(config: &UnitConfig, nesting: bool) -> impl Iterator<Item = String> {
    let mut options = [
        // Files in the host's /etc/systemd/nspawn must not change the permissions of a guest.
        "--quiet",
        "--settings=no",
        "--keep-unit",
        "--private-network",
        // The guest or the daemon manages these files.
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--kill-signal=SIGRTMIN+3",
        // A terminal for the output of systemd's console; its input is never read.
        "--console=read-only",
    ]
    .map(str::to_owned)
    .to_vec();
    if !config.keep_capabilities.is_empty() {
        options.push(format!(
            "--capability={}",
            config.keep_capabilities.join(",")
        ));
    }
    let dropped = dropped_capabilities(config, nesting);
    if !dropped.is_empty() {
        options.push(format!("--drop-capability={}", dropped.join(",")));
    }
    if config.no_new_privileges {
        options.push("--no-new-privileges=yes".to_owned());
    }
    if nesting {
        options.push(format!("--system-call-filter={NESTING_CALLS}"));
    }
    options.into_iter()
}

/// The guest whose system call filters are read.
#[derive(Debug)]
pub(super) struct Sample {
    /// The options on which its filters depend.
    pub(super) options: Vec<String>,
}

impl Sample {
    /// Returns the sample of a guest: its options, apart from names, ids and paths. An option that does not affect filters does
    /// no harm here.
    pub(super) fn of(config: &UnitConfig, guest: &Guest) -> Self {
        let mut options: Vec<_> = common(config, nests(config, guest)).collect();
        options.extend(match config.user_ids {
            UserIds::Host => vec!["--private-users=no".to_owned()],
            // No guest has slot 0. The sample's tree is its own, so its files may change their owner.
            UserIds::Mapped | UserIds::Shifted => vec![
                format!(
                    "--private-users={}:{}",
                    Slot::new(0).first_user_id(),
                    Slot::USER_IDS
                ),
                "--private-users-ownership=chown".to_owned(),
            ],
        });
        Self { options }
    }

    /// Returns the command that boots it in `dir`, which has `rootfs` and `door`.
    pub(super) fn command(&self, nspawn: &Path, machine: &str, dir: &Path, shim: &Path) -> Command {
        let mut words: Vec<OsString> = vec![nspawn.into(), "--register=no".into()];
        words.push(format!("--machine={machine}").into());
        words.extend(self.options.iter().map(OsString::from));
        words.push(joined(&[
            "--directory=".as_ref(),
            dir.join("rootfs").as_os_str(),
        ]));
        words.push(bind_read_only(shim, Path::new(SHIM)));
        words.push(bind_read_only(&dir.join("door"), Path::new(DOOR)));
        words.extend(["--", SHIM, "park"].map(OsString::from));
        words.push(format!("{DOOR}/socket").into());
        Command {
            words,
            environment: vec![ENVIRONMENT],
        }
    }
}

/// Makes `/run` of a guest's tree a real directory, unless it is absent.
///
/// nspawn mounts its own `/run` there, and the shim below it. A symbolic link that leads through `/proc` would mean another
/// place once `/proc` is mounted, and nspawn would look for the shim there: in a directory of the guest, before the filters are
/// in force. nspawn 252 happens to fail earlier.
pub(super) fn settle_mount_point(root: &Path, owner: Owner) -> Result<(), FileError> {
    let (tree, run) = (Tree::open(root)?, Path::new("run"));
    match tree.kind(run)? {
        None | Some(FileType::Directory) => Ok(()),
        Some(_) => tree.make_dir(run, owner, 0o755),
    }
}

/// Returns the capabilities to drop. With a user namespace, these include the one to lift the limits of that namespace
/// ([`bounds`](super::bounds)). The kernel checks its other uses in the host's namespace, where guests never have it.
///
/// With nesting, CAP_MKNOD stays: Docker gives it to its containers. Over a user namespace, it creates no device
/// (`mknod(2)` requires it in the host's).
fn dropped_capabilities(config: &UnitConfig, nesting: bool) -> Vec<&str> {
    let mut dropped: Vec<_> = config
        .drop_capabilities
        .iter()
        .map(String::as_str)
        .filter(|capability| !(nesting && *capability == "CAP_MKNOD"))
        .collect();
    if config.user_ids != UserIds::Host {
        dropped.push("CAP_SYS_RESOURCE");
    }
    dropped
}

fn user_ids(config: &UnitConfig, guest: &Guest) -> Vec<String> {
    let ownership = match config.user_ids {
        UserIds::Host => return vec!["--private-users=no".to_owned()],
        UserIds::Mapped => "map",
        UserIds::Shifted => "chown",
    };
    vec![
        format!(
            "--private-users={}:{}",
            config.first_user_id(guest.slot),
            guest.limits.user_ids
        ),
        format!("--private-users-ownership={ownership}"),
    ]
}

fn bind_read_only(host: &Path, guest: &Path) -> OsString {
    bind("--bind-ro=", host, guest)
}

fn bind(option: &str, host: &Path, guest: &Path) -> OsString {
    joined(&[
        option.as_ref(),
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
        ClosureSource, Cpus, DesiredState, GuestKind, GuestName, Limits, MemorySize, UserIdCount,
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
            level: innkeeper_model::Level::Awake,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure),
            limits: Limits {
                memory: MemorySize::from_bytes(1 << 30),
                cpus: Cpus::from_percent(200),
                tasks: 1000,
                user_ids: UserIdCount::default(),
                nesting: false,
            },
            ssh_host_key: None,
            fault: None,
            wake_failure: None,
            file_work: None,
            retain: None,
            change: None,
            last_change: None,
            own_system: None,
            declared: false,
            idle_policy: None,
            owner: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn command_line(config: &UnitConfig, register: bool) -> String {
        command_line_of(&guest(), config, register)
    }

    fn command_line_of(guest: &Guest, config: &UnitConfig, register: bool) -> String {
        let boot = Boot {
            config,
            nspawn: Path::new("/usr/bin/systemd-nspawn"),
            guest,
            closure: guest.closure.as_ref(),
            shim: Path::new("/run/innkeeper/shim/0123456789abcdef"),
            door: Path::new("/run/innkeeper/guests/web-1/door"),
            nix: register.then_some(Path::new("/nix/var/nix/gcroots/innkeeper/.nix/web-1/state")),
            devices: &["/dev/fuse".into()],
            register,
            filters_at_door: !register,
        };
        let arguments: Vec<_> = command(&boot)
            .words
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
    fn nested_containers_have_user_ids_system_calls_and_devices() {
        let config = UnitConfig::new(
            "/var/lib/innkeeper/guests",
            "/run/innkeeper",
            crate::identity::Identity::of('a'),
        );
        let plain = command_line(&config, true);
        let mut guest = guest();
        guest.limits.user_ids = "131072".parse().expect("a number of ids");
        guest.limits.nesting = true;
        let nesting = command_line_of(&guest, &config, true);
        let added: Vec<_> = nesting
            .lines()
            .filter(|line| !plain.lines().any(|other| other == *line))
            .collect();
        assert_eq!(
            added,
            [
                "--private-users=983040:131072",
                "--drop-capability=CAP_AUDIT_CONTROL,CAP_LINUX_IMMUTABLE,CAP_SYS_TTY_CONFIG,CAP_SYS_RESOURCE",
                "--system-call-filter=keyctl",
                "--bind=/dev/fuse:/dev/fuse",
            ]
        );
        // Not without a user namespace, should the host's configuration change.
        let config = UnitConfig {
            user_ids: UserIds::Host,
            ..config
        };
        let host = command_line_of(&guest, &config, true);
        assert!(host.contains("CAP_MKNOD"), "{host}");
        assert!(
            !host.contains("keyctl") && !host.contains("/dev/fuse"),
            "{host}"
        );
    }

    #[test]
    fn sample_has_all_options_but_names_ids_and_paths() {
        let mut config = UnitConfig::new(
            "/var/lib/innkeeper/guests",
            "/run/innkeeper",
            crate::identity::Identity::of('a'),
        );
        let mut guest = guest();
        let line = |config: &UnitConfig, guest: &Guest| {
            let sample = Sample::of(config, guest);
            let command = sample.command("/nspawn".as_ref(), "m", "/d".as_ref(), "/s".as_ref());
            let words: Vec<_> = command
                .words
                .iter()
                .map(|word| word.to_string_lossy())
                .collect();
            words.join("\n")
        };
        let own = [
            "--machine=",
            "--hostname=",
            "--private-users",
            "--directory=",
            "--bind",
            "/",
        ];
        let compared = |text: String| -> Vec<String> {
            text.lines()
                .take_while(|line| *line != "--")
                .filter(|line| !own.iter().any(|prefix| line.starts_with(prefix)))
                .map(str::to_owned)
                .collect()
        };
        for nesting in [false, true] {
            guest.limits.nesting = nesting;
            let real = compared(command_line_of(&guest, &config, false));
            assert_eq!(compared(line(&config, &guest)), real);
            assert_eq!(
                real.iter()
                    .any(|option| option.starts_with("--system-call")),
                nesting
            );
        }
        config.user_ids = UserIds::Host;
        assert!(line(&config, &guest).contains("--private-users=no\n"));
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
