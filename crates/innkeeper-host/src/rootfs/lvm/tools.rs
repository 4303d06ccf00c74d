//! The programs that create, mount and remove volumes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LvmConfig;
use super::report::{COLUMNS, Volumes, tag};
use crate::command::{self, CommandError};
use crate::features::mounts;
use crate::rootfs::RootfsError;
use crate::{FileError, FileErrorExt};

/// The mount options of guests' file systems. nspawn creates the device nodes. Deleted blocks return to the pool. The
/// kernel does not zero inode tables in the background, which would allocate all of them in the pool: unwritten blocks of a
/// thin volume read as zeros.
const MOUNT_OPTIONS: &str = "nodev,discard,noinit_itable";

/// Lets thin_check(8), which LVM runs before it activates a pool, repair harmless damage. A loss of power can leave blocks
/// in a pool that belong to no volume. With LVM's default in Debian, which only checks, such a pool would stay inactive
/// until it is repaired by hand, and all guests with it.
const REPAIR: &str =
    r#"global/thin_check_options=["-q","--auto-repair","--clear-needs-check-flag"]"#;

/// The timeout of a program that creates, activates, mounts or removes a volume. It keeps running after that.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The maximum of stacked mounts that are unmounted from one place.
const LAYERS: usize = 8;

/// The programs for one volume group.
#[derive(Debug)]
pub(super) struct Tools<'a>(pub(super) &'a LvmConfig);

impl Tools<'_> {
    /// Lists the volumes in the volume group.
    pub(super) async fn volumes(&self) -> Result<Volumes, RootfsError> {
        let group = &self.0.volume_group;
        let arguments = [
            "--reportformat",
            "json",
            "--units=b",
            "--nosuffix",
            "--options",
            COLUMNS,
            "--",
            group,
        ];
        let json = self.run("lvs", &arguments).await;
        let json = json.map_err(failed("list the volumes of", group))?;
        Volumes::parse(&json).map_err(|source| RootfsError::Report {
            group: group.clone(),
            source,
        })
    }

    /// Creates an empty thin volume of the configured size.
    pub(super) async fn create(&self, volume: &str) -> Result<(), RootfsError> {
        let (size, tag) = (format!("{}b", self.0.size), self.tag());
        let arguments = [
            "--yes",
            "--quiet",
            "--type=thin",
            "--virtualsize",
            &size,
            "--thinpool",
            &self.0.pool,
            "--addtag",
            &tag,
            "--name",
            volume,
            "--",
            &self.0.volume_group,
        ];
        let created = self.run("lvcreate", &arguments).await;
        done(created, "create", &self.name(volume))
    }

    /// Creates a thin volume as a copy of another one, and activates it.
    pub(super) async fn snapshot(&self, origin: &str, volume: &str) -> Result<(), RootfsError> {
        self.copy(origin, volume, "--setactivationskip=n").await
    }

    /// Creates a thin volume as a copy of another one, which LVM does not activate.
    pub(super) async fn inactive_snapshot(
        &self,
        origin: &str,
        volume: &str,
    ) -> Result<(), RootfsError> {
        self.copy(origin, volume, "--setactivationskip=y").await
    }

    async fn copy(&self, origin: &str, volume: &str, skip: &str) -> Result<(), RootfsError> {
        let (origin, tag) = (self.name(origin), self.tag());
        let arguments = [
            "--yes",
            "--quiet",
            "--snapshot",
            skip,
            "--addtag",
            &tag,
            "--name",
            volume,
            "--",
            &origin,
        ];
        let created = self.run("lvcreate", &arguments).await;
        done(created, "create", &self.name(volume))
    }

    /// Marks a volume.
    pub(super) async fn mark(&self, volume: &str) -> Result<(), RootfsError> {
        let (name, tag) = (self.name(volume), self.tag());
        let arguments = ["--addtag", &tag, "--", &name];
        done(self.run("lvchange", &arguments).await, "mark", &name)
    }

    fn tag(&self) -> String {
        tag(self.0.dir.identity.daemon())
    }

    /// Creates an ext4 file system with the contents of a directory.
    pub(super) async fn format(&self, volume: &str, contents: &Path) -> Result<(), RootfsError> {
        let device = self.device(volume);
        // No blocks are reserved for root: the guest's root is an unprivileged user on the host.
        let mut arguments: Vec<OsString> = ["-q", "-F", "-t", "ext4", "-m", "0"]
            .map(Into::into)
            .to_vec();
        arguments.extend(["-E", "lazy_itable_init=1,lazy_journal_init=1", "-d"].map(Into::into));
        arguments.extend([contents.into(), device.into_os_string()]);
        let formatted = self.run("mke2fs", &arguments).await;
        done(formatted, "make a file system on", &self.name(volume))
    }

    /// Activates a volume.
    pub(super) async fn activate(&self, volume: &str) -> Result<(), RootfsError> {
        let name = self.name(volume);
        let arguments = ["--activate", "y", "--ignoreactivationskip", "--", &name];
        done(self.run("lvchange", &arguments).await, "activate", &name)
    }

    /// Deactivates a volume.
    pub(super) async fn deactivate(&self, volume: &str) -> Result<(), RootfsError> {
        let name = self.name(volume);
        let arguments = ["--activate", "n", "--", &name];
        done(self.run("lvchange", &arguments).await, "deactivate", &name)
    }

    /// Renames a volume.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), RootfsError> {
        let arguments = ["--quiet", "--", &self.0.volume_group, from, to];
        let renamed = self.run("lvrename", &arguments).await;
        done(renamed, "rename", &self.name(from))
    }

    /// Removes a volume.
    pub(super) async fn remove(&self, volume: &str) -> Result<(), RootfsError> {
        let name = self.name(volume);
        let arguments = ["--yes", "--quiet", "--", &name];
        done(self.run("lvremove", &arguments).await, "remove", &name)
    }

    /// Mounts an active volume.
    pub(super) async fn mount(&self, volume: &str, point: &Path) -> Result<(), RootfsError> {
        let device = self.device(volume);
        let arguments: [OsString; 7] = [
            "--types".into(),
            "ext4".into(),
            "--options".into(),
            MOUNT_OPTIONS.into(),
            "--".into(),
            device.into(),
            point.into(),
        ];
        let mounted = self.run("mount", &arguments).await;
        done(mounted, "mount", &self.name(volume))
    }

    /// Unmounts all mounts at a place.
    pub(super) async fn unmount(&self, point: &Path) -> Result<(), RootfsError> {
        for _ in 0..LAYERS {
            if !self.is_mounted(point)? {
                break;
            }
            let arguments: [OsString; 2] = ["--".into(), point.into()];
            let unmounted = self.run("umount", &arguments).await;
            done(unmounted, "unmount", &point.display().to_string())?;
        }
        Ok(())
    }

    /// Reports whether a place is a mount point in the mount namespace of guests.
    pub(super) fn is_mounted(&self, point: &Path) -> Result<bool, FileError> {
        let process = if self.0.mount_namespace.is_some() {
            "1"
        } else {
            "self"
        };
        let file = PathBuf::from(format!("/proc/{process}/mountinfo"));
        // Sources of mounts can have any name.
        let text = fs::read(&file).on("read", &file)?;
        let mounts = mounts::parse(&String::from_utf8_lossy(&text));
        // The kernel lists mount points without symbolic links.
        let path = fs::canonicalize(point).unwrap_or_else(|_| point.to_owned());
        Ok(mounts.iter().any(|mount| mount.point == path))
    }

    /// Returns LVM's name of a volume.
    pub(super) fn name(&self, volume: &str) -> String {
        format!("{}/{volume}", self.0.volume_group)
    }

    pub(super) fn device(&self, volume: &str) -> PathBuf {
        Path::new("/dev").join(&self.0.volume_group).join(volume)
    }

    /// Runs a program to its end, in the mount namespace where guests are started. A timeout is reported, but the program is
    /// not killed: LVM that is killed can leave suspended devices, on which every access blocks. systemd kills the children
    /// of a daemon that dies, so a program that changes volumes runs in its own unit.
    async fn run<S: Into<OsString> + Clone>(
        &self,
        program: &'static str,
        arguments: &[S],
    ) -> Result<Vec<u8>, CommandError> {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.0.mount_namespace {
            let mut option = OsString::from("--mount=");
            option.push(namespace);
            line.extend(["nsenter".into(), option, "--".into()]);
        }
        if changes_volumes(program) && self.0.mount_namespace.is_some() {
            line.extend(["systemd-run", "--scope", "--collect", "--quiet", "--"].map(Into::into));
        }
        line.push(program.into());
        if program.starts_with("lv") {
            line.extend(["--config".into(), REPAIR.into()]);
        }
        line.extend(arguments.iter().cloned().map(Into::into));
        let mut command = command::command(line.remove(0));
        command.args(line);
        let limit = match program {
            "lvs" => command::QUICK,
            _ => TIMEOUT,
        };
        // The task continues when the caller is canceled.
        let running = tokio::spawn(async move { command::run_to_end(command, b"").await });
        let program = program.to_owned();
        match tokio::time::timeout(limit, running).await {
            Err(_) => Err(CommandError::TimedOut { program, limit }),
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => Err(CommandError::Run {
                program,
                source: io::Error::other(error),
            }),
        }
    }
}

fn changes_volumes(program: &str) -> bool {
    program.starts_with("lv") && program != "lvs"
}

/// Adds the failed action and its object to an error.
fn failed(action: &'static str, object: &str) -> impl FnOnce(CommandError) -> RootfsError {
    let object = object.to_owned();
    move |source| RootfsError::Volume {
        action,
        object,
        source,
    }
}

/// [`failed`], for a program whose output does not matter.
fn done(
    result: Result<Vec<u8>, CommandError>,
    action: &'static str,
    object: &str,
) -> Result<(), RootfsError> {
    result.map(drop).map_err(failed(action, object))
}
