//! The programs that make, mount and remove volumes.

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

/// How guests' file systems are mounted. Their device nodes are nspawn's business. What is deleted goes back
/// to the pool. The kernel does not zero inode tables in the background, which would allocate all of them in
/// the pool: what was never written to a thin volume is read as zeroes.
const MOUNT_OPTIONS: &str = "nodev,discard,noinit_itable";

/// Lets thin_check(8), which LVM runs before it activates a pool, repair what needs no decision. A loss of power can leave
/// blocks in a pool that belong to no volume. That is harmless, but LVM leaves such a pool alone unless somebody repairs
/// it, and with it all guests: its own default, as Debian builds it, only looks.
const REPAIR: &str =
    r#"global/thin_check_options=["-q","--auto-repair","--clear-needs-check-flag"]"#;

/// How long a program may take that makes, activates, mounts or removes a volume. It is left running after that.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often something that is mounted in one place is unmounted before we give up.
const LAYERS: usize = 8;

/// The programs for one volume group.
#[derive(Debug)]
pub(super) struct Tools<'a>(pub(super) &'a LvmConfig);

impl Tools<'_> {
    /// Everything that is in the volume group.
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

    /// Makes an empty thin volume of the configured size.
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

    /// Makes a thin volume that starts as a copy of another one, and activates it.
    pub(super) async fn snapshot(&self, origin: &str, volume: &str) -> Result<(), RootfsError> {
        self.copy(origin, volume, "--setactivationskip=n").await
    }

    /// Makes a thin volume that starts as a copy of another one, and that LVM refuses to activate.
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

    /// Marks a volume that is there.
    pub(super) async fn mark(&self, volume: &str) -> Result<(), RootfsError> {
        let (name, tag) = (self.name(volume), self.tag());
        let arguments = ["--addtag", &tag, "--", &name];
        done(self.run("lvchange", &arguments).await, "mark", &name)
    }

    fn tag(&self) -> String {
        tag(self.0.dir.identity.daemon())
    }

    /// Makes an ext4 file system with the contents of a directory.
    pub(super) async fn format(&self, volume: &str, contents: &Path) -> Result<(), RootfsError> {
        let device = self.device(volume);
        // Nothing is reserved for root: the guest's root is nobody on the host.
        let mut arguments: Vec<OsString> = ["-q", "-F", "-t", "ext4", "-m", "0"]
            .map(Into::into)
            .to_vec();
        arguments.extend(["-E", "lazy_itable_init=1,lazy_journal_init=1", "-d"].map(Into::into));
        arguments.extend([contents.into(), device.into_os_string()]);
        let formatted = self.run("mke2fs", &arguments).await;
        done(formatted, "make a file system on", &self.name(volume))
    }

    /// Makes the device of a volume appear.
    pub(super) async fn activate(&self, volume: &str) -> Result<(), RootfsError> {
        let name = self.name(volume);
        let arguments = ["--activate", "y", "--ignoreactivationskip", "--", &name];
        done(self.run("lvchange", &arguments).await, "activate", &name)
    }

    /// Makes the device of a volume disappear.
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

    /// Removes a volume that is there.
    pub(super) async fn remove(&self, volume: &str) -> Result<(), RootfsError> {
        let name = self.name(volume);
        let arguments = ["--yes", "--quiet", "--", &name];
        done(self.run("lvremove", &arguments).await, "remove", &name)
    }

    /// Mounts a volume that is active.
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

    /// Unmounts whatever is mounted at a place.
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

    /// Whether something is mounted at a place, where guests are started.
    pub(super) fn is_mounted(&self, point: &Path) -> Result<bool, FileError> {
        let process = if self.0.mount_namespace.is_some() {
            "1"
        } else {
            "self"
        };
        let file = PathBuf::from(format!("/proc/{process}/mountinfo"));
        // Whoever may mount gives names as he likes.
        let text = fs::read(&file).on("read", &file)?;
        let mounts = mounts::parse(&String::from_utf8_lossy(&text));
        // The kernel knows places by their paths without links.
        let place = fs::canonicalize(point).unwrap_or_else(|_| point.to_owned());
        Ok(mounts.iter().any(|mount| mount.point == place))
    }

    /// What LVM calls a volume.
    pub(super) fn name(&self, volume: &str) -> String {
        format!("{}/{volume}", self.0.volume_group)
    }

    fn device(&self, volume: &str) -> PathBuf {
        Path::new("/dev").join(&self.0.volume_group).join(volume)
    }

    /// Runs a program to its end, in the mount namespace where guests are started. One that takes too long is reported, and not ended halfway:
    /// LVM that is killed can leave devices on which every access waits. When the daemon dies, systemd kills what it has
    /// started; what changes volumes is therefore a unit of its own.
    async fn run<S: Into<OsString> + Clone>(
        &self,
        program: &'static str,
        arguments: &[S],
    ) -> Result<Vec<u8>, CommandError> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.0.mount_namespace {
            let mut option = OsString::from("--mount=");
            option.push(namespace);
            words.extend(["nsenter".into(), option, "--".into()]);
        }
        if changes_volumes(program) && self.0.mount_namespace.is_some() {
            words.extend(["systemd-run", "--scope", "--collect", "--quiet", "--"].map(Into::into));
        }
        words.push(program.into());
        if program.starts_with("lv") {
            words.extend(["--config".into(), REPAIR.into()]);
        }
        words.extend(arguments.iter().cloned().map(Into::into));
        let mut command = command::command(words.remove(0));
        command.args(words);
        let limit = match program {
            "lvs" => command::QUICK,
            _ => PATIENCE,
        };
        // The task goes on when nobody waits for it any more.
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

/// Says what was tried on what.
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
