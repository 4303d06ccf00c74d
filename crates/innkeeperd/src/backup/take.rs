//! Makes a backup set.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_engine::OperationLog;
use innkeeper_host::tree::{self, Covers};
use innkeeper_host::{FileError, FileErrorExt};
use innkeeper_model::api::BackupRequest;
use innkeeper_model::{Code, Explain as _, Failure, Guest, GuestName, Secret, StorePath};
use innkeeper_store::BackupRecords;
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::manifest::{Digest, Manifest, Set, SetDatabase, SetGuest, VERSION};
use super::{BackupError, Backups, NEW, SET, mark, prepare, require_place};

impl Backups {
    /// Makes a set and exchanges it with the former one. Leaves nothing of a failed one. A set without some guests is in
    /// place when this fails with [`BackupError::Parts`].
    pub(super) async fn make_set(
        &self,
        request: &BackupRequest,
        log: &OperationLog,
    ) -> Result<(), BackupError> {
        let directory = request.directory.clone();
        let marker = self.marker();
        let (new, its_marker) = (Set(directory.join(NEW)), marker.clone());
        let (path, set) = (directory.clone(), new.clone());
        tree::blocking(move || {
            prepare(&path)?;
            require_place(&path)?;
            mark(&its_marker, &path)?;
            tree::remove(&set.0)?;
            for directory in [set.0.clone(), set.guests(), set.databases()] {
                create(&directory)?;
            }
            Ok::<_, BackupError>(())
        })
        .await?;
        let made = self.fill(&new, request.closures, log).await;
        let is_whole = matches!(&made, Ok(missing) if missing.is_empty());
        // A failed copy can leave a suspended guest. The marker stays for the next start if that does not end here.
        let is_abandoned = is_whole || self.engine.abandon_exports().await;
        let allow_incomplete = request.allow_incomplete;
        let cleared = tree::blocking(move || {
            let put = made.and_then(|missing| {
                put_in_place(&directory, &new.0)?;
                Ok(missing)
            });
            // After an exchange, this is the former set.
            let mut removed = tree::remove(&new.0);
            if is_abandoned {
                removed = removed.and_then(|()| tree::remove(&marker));
            }
            let parts = put?;
            removed?;
            if parts.is_empty() || allow_incomplete {
                return Ok(());
            }
            Err(BackupError::Parts { parts })
        });
        cleared.await
    }

    /// Fills a set, and returns what could not be copied.
    async fn fill(
        &self,
        set: &Set,
        closures: bool,
        log: &OperationLog,
    ) -> Result<Vec<String>, BackupError> {
        let store = self.engine.store();
        store.copy_to(&set.store()).await?;
        let copy = set.store();
        let records = tree::blocking(move || {
            let records = BackupRecords::read(&copy)?;
            for leftover in ["innkeeper.db-wal", "innkeeper.db-shm"] {
                tree::remove(&copy.with_file_name(leftover))?;
            }
            Ok::<_, BackupError>(records)
        })
        .await?;
        self.require_space(set, &records).await?;
        let (mut guests, mut databases, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let mut booted = Vec::new();
        for guest in &records.guests {
            let part = format!("files of {}", guest.name);
            let added = self.add_guest(set, guest, log).await;
            let left_out = [set.guest(&guest.name)];
            let added = or_leave_out(set, added, &left_out, part, &mut missing, log).await?;
            if let Some((added, closure)) = added {
                booted.extend(closure);
                guests.push(added);
            }
        }
        for preview in &records.previews {
            let part = format!("database of {preview}");
            let added = self.add_database(set, preview, log).await;
            let left_out = [set.dump(preview), set.password(preview)];
            let added = or_leave_out(set, added, &left_out, part, &mut missing, log).await?;
            databases.extend(added);
        }
        if closures {
            let mut all: Vec<StorePath> = guests
                .iter()
                .filter_map(|guest| guest.closure.clone())
                .chain(booted)
                .collect();
            all.sort();
            all.dedup();
            create(&set.closures())?;
            self.engine.closures().export(&all, &set.closures()).await?;
            log.note(format!("{} closures are copied.", all.len()));
        }
        let (set, parts) = (set.clone(), missing.clone());
        let owners = Some(self.engine.guest_user_ids().into());
        tree::blocking(move || {
            let manifest = Manifest {
                version: VERSION,
                innkeeper: env!("CARGO_PKG_VERSION").to_owned(),
                host: host_name(),
                created_at: Timestamp::now(),
                owners,
                store: tree::digest_file(&set.store())?.into(),
                guests,
                databases,
                closures,
                missing: parts,
            };
            Ok::<_, BackupError>(manifest.write(&set)?)
        })
        .await?;
        Ok(missing)
    }

    /// Fails unless the disk has space for the guests' files, as far as they were counted.
    async fn require_space(&self, set: &Set, records: &BackupRecords) -> Result<(), BackupError> {
        let needed = self.engine.export_bytes(&records.guests, &set.0).await;
        let directory = set.0.parent().unwrap_or(&set.0).to_owned();
        let disk = rustix::fs::statvfs(&directory).on("read the free space of", &directory)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(BackupError::NoSpace {
            directory,
            needed,
            free,
        })
    }

    /// Copies a guest's files. Returns its entry, and the closure that it has by now. `None` when it was destroyed meanwhile,
    /// or has no files yet.
    async fn add_guest(
        &self,
        set: &Set,
        guest: &Guest,
        log: &OperationLog,
    ) -> Result<Option<(SetGuest, Option<StorePath>)>, BackupError> {
        let name = &guest.name;
        create(&set.guest(name))?;
        let files = set.files(name);
        let Some((now, exported)) = self.engine.export_guest(guest, &files).await? else {
            let directory = set.guest(name);
            tree::blocking(move || tree::remove(&directory)).await?;
            return Ok(None);
        };
        let digest = tree::blocking(move || tree::digest(&files, Covers::Attributes)).await?;
        let size = mebibytes(digest.bytes);
        let suspended = exported.suspended.map(seconds);
        let suspended = suspended.map(|time| format!("; it was suspended for {time}"));
        let suspended = suspended.unwrap_or_default();
        log.note(format!("{name}: {size} of files{suspended}."));
        let added = SetGuest {
            name: name.clone(),
            kind: guest.kind,
            slot: guest.slot,
            source: guest.source.clone(),
            closure: guest.closure.clone(),
            files: digest.into(),
        };
        Ok(Some((added, now.closure)))
    }

    async fn add_database(
        &self,
        set: &Set,
        preview: &GuestName,
        log: &OperationLog,
    ) -> Result<Option<SetDatabase>, BackupError> {
        let server = self
            .previews
            .as_ref()
            .and_then(|previews| previews.database_server());
        let Some(server) = server else {
            return Ok(None);
        };
        let Some(password) = server.password(preview).await? else {
            return Ok(None);
        };
        // A preview can have a password before it has a database, and after a removal that failed.
        if server.size(preview).await?.is_none() {
            return Ok(None);
        }
        let dump = set.dump(preview);
        server.dump(preview, &dump).await?;
        let file = set.password(preview);
        let dump: Digest = tree::blocking(move || {
            write_secret(&file, &password)?;
            close(&dump)?;
            Ok::<_, BackupError>(tree::digest_file(&dump)?.into())
        })
        .await?;
        let size = mebibytes(dump.bytes);
        log.note(format!("{preview}: {size} of its database."));
        Ok(Some(SetDatabase {
            preview: preview.clone(),
            dump,
        }))
    }
}

/// Removes what was copied of a guest or database that cannot be copied whole, and adds the part to the missing ones: one
/// guest must not keep the others from being stored. Fails where the others would fail too.
async fn or_leave_out<T>(
    set: &Set,
    added: Result<Option<T>, BackupError>,
    paths: &[PathBuf],
    part: String,
    missing: &mut Vec<String>,
    log: &OperationLog,
) -> Result<Option<T>, BackupError> {
    let error = match added {
        Ok(added) => return Ok(added),
        Err(error) if matches!(error.code(), Code::DiskFull | Code::ShuttingDown) => {
            return Err(error);
        }
        Err(error) => Failure::from(&error),
    };
    // The programs that copy do not tell: a full disk must not cost the former set.
    let probe = set.0.join(".space");
    tree::blocking(move || require_writable(&probe)).await?;
    let paths = paths.to_vec();
    tree::blocking(move || paths.iter().try_for_each(|path| tree::remove(path))).await?;
    log.note(format!("The set has no {part}: {error}."));
    missing.push(part);
    Ok(None)
}

/// The space without which a disk counts as full, in bytes.
const LEAST_SPACE: usize = 1 << 20;

/// Fails if a file cannot be written, which is removed again.
fn require_writable(path: &Path) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(&vec![1; LEAST_SPACE])?;
        file.sync_all()
    };
    let written = write().on("write", path);
    written.and(tree::remove(path))
}

/// Moves a complete set to its place; the former one takes the other name.
fn put_in_place(directory: &Path, new: &Path) -> Result<(), FileError> {
    let set = directory.join(SET);
    if set.is_dir() {
        renameat_with(CWD, new, CWD, &set, RenameFlags::EXCHANGE).on("replace", &set)?;
    } else {
        fs::rename(new, &set).on("create", &set)?;
    }
    tree::write_to_disk(directory)
}

fn create(directory: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    builder
        .mode(0o700)
        .create(directory)
        .on("create", directory)
}

fn write_secret(path: &Path, secret: &Secret) -> Result<(), FileError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).on("create", path)?;
    file.write_all(secret.expose().as_bytes()).on("write", path)
}

/// Closes a file of another program to all but its owner; nobody else can enter the directory.
fn close(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).on("close", path)
}

/// Returns the host's name, for people.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
