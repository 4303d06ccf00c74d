//! Reads the system call filters that nspawn installs in a guest.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use innkeeper_model::{Guest, chain};

use super::super::filters::{List, Read};
use super::super::guests::make_private;
use super::super::nspawn::{Command, Sample};
use super::super::supervisor::Supervisor;
use super::super::{error::UnitError, nspawn_cleanup};
use super::SupervisedUnits;
use crate::tree::{self, blocking};
use crate::{FileError, FileErrorExt};

/// The name of the unit or cgroup of the guest whose filters are read.
const NAME: &str = "filters";

/// The maximum length of a result of the shim, in bytes.
const MAX_LEN: u64 = 1 << 20;

impl<S: Supervisor> SupervisedUnits<S> {
    /// Returns the filters that the door of a guest installs; `None` where nspawn has to.
    pub(super) async fn filters(&self, guest: &Guest, nspawn: &Path) -> Option<List> {
        let sample = Sample::of(self.config(), guest);
        let read = async {
            let dir = self.guests.filters.reading();
            let result = self.read_filters(nspawn, &sample, &dir).await;
            // The reason of the shim is more precise than its exit status.
            let reason = fs::read_to_string(dir.join("error"));
            if let Err(error) = remove(&dir).await {
                tracing::warn!("{}", chain(&error));
            }
            result.map_err(|error| reason.unwrap_or_else(|_| chain(&error)))
        };
        self.guests.filters.of(nspawn, &sample.options, read).await
    }

    async fn read_filters(
        &self,
        nspawn: &Path,
        sample: &Sample,
        dir: &Path,
    ) -> Result<Read, UnitError> {
        // Left by a daemon that was killed.
        remove(dir).await?;
        make(dir)?;
        let shim = self.guests.shim.path();
        let machine = self.config().machine_of(NAME);
        let mut command = sample.command(nspawn, &machine, dir, shim);
        let own: [OsString; 3] = [shim.into(), "read-filters".into(), dir.into()];
        command.words.splice(0..0, own);
        let began = SystemTime::now();
        let result = self.run(&command).await;
        let left = nspawn_cleanup::remove(&machine, &dir.join("rootfs")).await;
        result.and(UnitError::all(left))?;
        let files = read(&dir.join("files"))?;
        let files = files
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(OsStr::from_bytes(path)));
        Ok(Read {
            list: read(&dir.join("programs"))?,
            files: files.chain([nspawn.to_owned()]).collect(),
            began,
        })
    }

    async fn run(&self, command: &Command) -> Result<(), UnitError> {
        self.supervisor.run_apart(NAME, command).await
    }
}

/// Creates the directory of the guest: its file tree, and the door, which the guest's root must reach.
fn make(dir: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;

    make_private(dir)?;
    for name in ["door", "rootfs", "rootfs/etc", "rootfs/root", "rootfs/usr"] {
        let path = dir.join(name);
        fs::create_dir(&path).on("create", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).on("open up", &path)?;
    }
    Ok(())
}

async fn remove(dir: &Path) -> Result<(), FileError> {
    let dir = dir.to_owned();
    blocking(move || tree::remove(&dir)).await
}

fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).on("open", file)?;
    io::Read::read_to_end(&mut io::Read::take(opened, MAX_LEN), &mut bytes).on("read", file)?;
    Ok(bytes)
}
