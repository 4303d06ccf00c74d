//! Restores guests and previews from a backup set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use innkeeper_engine::OperationLog;
use innkeeper_facilities::FileOwners;
use innkeeper_host::{FileError, FileErrorExt, tree};
use innkeeper_model::api::RestoreRequest;
use innkeeper_model::{
    ClosureSource, Code, Explain as _, Failure, Guest, GuestKind, GuestName, Secret, StorePath,
};
use innkeeper_store::{BackupRecords, Restore, StoreError};

use super::manifest::{Digest, Manifest, Set, SetDatabase};
use super::{BackupError, Backups, SET, require_closed};

/// The longest password of a database in a set, in bytes.
const PASSWORD_BYTES: u64 = 1024;

/// A set that was compared with its manifest, and the chosen records.
struct Chosen {
    set: Set,
    guests: Vec<Guest>,
    previews: Vec<GuestName>,
    databases: Vec<SetDatabase>,
    owners: FileOwners,
    has_closures: bool,
    missing: Vec<String>,
}

/// Returns the path of the copy that a restore reads.
pub(super) fn copy_of_store(state_dir: &Path) -> PathBuf {
    state_dir.join("restore.db")
}

/// Removes the copy, with the files that SQLite and the store put beside it.
pub(super) fn remove_copy(copy: &Path) -> Result<(), FileError> {
    for suffix in ["", "-wal", "-shm", "-reserve"] {
        let mut path = copy.as_os_str().to_owned();
        path.push(suffix);
        tree::remove(Path::new(&path))?;
    }
    Ok(())
}

impl Backups {
    /// Restores the requested guests. The set is checked before anything is changed.
    pub(super) async fn restore_set(
        &self,
        request: &RestoreRequest,
        log: &OperationLog,
    ) -> Result<(), BackupError> {
        // The copy that is migrated and read: the set stays as it is.
        let copy = copy_of_store(&self.state_dir);
        let restored = self.restore_from(request, &copy, log).await;
        let removed = tree::blocking(move || remove_copy(&copy)).await;
        restored.and(removed.map_err(BackupError::from))
    }

    async fn restore_from(
        &self,
        request: &RestoreRequest,
        copy: &Path,
        log: &OperationLog,
    ) -> Result<(), BackupError> {
        let (directory, names, path) = (
            request.directory.clone(),
            request.guests.clone(),
            copy.to_owned(),
        );
        let mut chosen = tree::blocking(move || choose(&directory, &names, &path)).await?;
        // Databases precede the records of their previews: neither `gc` nor a delivery may take them for their own.
        let names = chosen.guests.iter().map(|guest| &guest.name);
        let names = names.chain(&chosen.previews).cloned().collect();
        let _names = self.engine.store().hold_names(names).await?;
        self.refuse_existing(request, &chosen).await?;
        log.note("The backup set is undamaged.");
        for part in &chosen.missing {
            log.note(format!("The set has no {part}: it could not be copied."));
        }
        self.load_databases(&mut chosen, log).await?;
        let mut restore = Restore {
            copy: copy.to_owned(),
            everything: request.guests.is_empty(),
            guests: chosen
                .guests
                .iter()
                .map(|guest| guest.name.clone())
                .collect(),
            previews: chosen.previews.clone(),
            without_closure: BTreeSet::new(),
            faults: BTreeMap::new(),
        };
        self.find_closures(&chosen, &mut restore, log).await;
        let files: Vec<_> = chosen
            .guests
            .iter()
            .map(|guest| (guest, chosen.set.files(&guest.name)))
            .collect();
        let files: Vec<_> = files
            .iter()
            .map(|(guest, path)| ((*guest).clone(), path.as_path()))
            .collect();
        let engine = &self.engine;
        let moved = engine.restore_guests(&files, chosen.owners, restore, log);
        let moved = moved.await?;
        for guest in moved {
            log.note(format!(
                "{} has slot {} instead of {}, which is taken here: its addresses differ.",
                guest.name, guest.is, guest.was
            ));
        }
        if let Some(previews) = &self.previews {
            for slug in &chosen.previews {
                previews.follow_record(slug);
            }
        }
        let (guests, previews) = (files.len(), chosen.previews.len());
        log.note(format!(
            "Restored: {guests} guests; {previews} of the records are previews."
        ));
        Ok(())
    }

    /// Fails early, before a database or file is written. The transaction that restores the records checks again.
    async fn refuse_existing(
        &self,
        request: &RestoreRequest,
        chosen: &Chosen,
    ) -> Result<(), BackupError> {
        let store = self.engine.store();
        let previews = store.previews().await?;
        let previews: Vec<_> = previews.into_iter().map(|one| one.record.slug).collect();
        let guests = store.guests().await?;
        let mut taken = guests.iter().map(|guest| &guest.name).chain(&previews);
        if request.guests.is_empty() {
            return match taken.next() {
                None => Ok(()),
                Some(name) => Err(StoreError::HostInUse {
                    record: name.to_string(),
                }
                .into()),
            };
        }
        let wanted: BTreeSet<_> = chosen.guests.iter().map(|guest| &guest.name).collect();
        let is_wanted = |name: &&GuestName| wanted.contains(name) || chosen.previews.contains(name);
        match taken.find(is_wanted) {
            None => Ok(()),
            Some(name) => Err(StoreError::GuestExists {
                name: name.clone(),
                desired: innkeeper_model::DesiredState::Running,
            }
            .into()),
        }
    }

    /// Determines which guests can boot from their closures. Copies missing ones from the set, if it has them.
    async fn find_closures(&self, chosen: &Chosen, restore: &mut Restore, log: &OperationLog) {
        for guest in &chosen.guests {
            let Some(closure) = &guest.closure else {
                continue;
            };
            let Err(failure) = self.find_closure(chosen, closure).await else {
                continue;
            };
            let name = &guest.name;
            match (guest.kind, &guest.source) {
                (
                    GuestKind::Agent,
                    ClosureSource::Flake(flake) | ClosureSource::MemberFlake(flake),
                ) => {
                    log.note(format!(
                        "{name}: its closure is not on this host; it is built again from {flake}."
                    ));
                    restore.without_closure.insert(name.clone());
                }
                (kind, _) => {
                    let failure = no_closure(guest, kind, closure, &failure);
                    log.note(format!("{failure}."));
                    restore.faults.insert(name.clone(), failure);
                }
            }
        }
    }

    async fn find_closure(&self, chosen: &Chosen, closure: &StorePath) -> Result<(), Failure> {
        let closures = self.engine.closures();
        let is_there = async || {
            closures.verify(closure).await?;
            closures.require_registered(closure).await
        };
        let missing = match is_there().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !chosen.has_closures {
            return Err(Failure::from(&missing));
        }
        let copied = closures.import(closure, &chosen.set.closures()).await;
        let copied = match copied {
            Ok(()) => is_there().await,
            Err(error) => Err(error),
        };
        copied.map_err(|error| Failure::from(&error))
    }

    /// Loads the previews' databases. A preview whose database cannot be loaded is not restored: contents of a database can
    /// be anybody's, and must not keep the other guests from being restored.
    async fn load_databases(
        &self,
        chosen: &mut Chosen,
        log: &OperationLog,
    ) -> Result<(), BackupError> {
        for database in std::mem::take(&mut chosen.databases) {
            let preview = &database.preview;
            let server = self
                .previews
                .as_ref()
                .and_then(|previews| previews.database_server());
            let Some(server) = server else {
                return Err(BackupError::NoServer {
                    preview: preview.to_string(),
                });
            };
            let file = chosen.set.password(preview);
            let password = tree::blocking(move || read_secret(&file)).await?;
            let dump = chosen.set.dump(preview);
            match server.load(preview, &password, &dump).await {
                Ok(()) => log.note(format!("The database of {preview} is restored.")),
                Err(error) if error.code() == Code::ShuttingDown => return Err(error.into()),
                Err(error) => {
                    let failure = Failure::from(&error);
                    log.note(format!(
                        "{preview} is not restored, because its database cannot be loaded: {failure}. A preview of an open pull \
                         request is created again, with an empty database. The contents are in {}.",
                        dump.display()
                    ));
                    // What has been loaded; a removal that fails is that of an orphan, which `innkeeper gc` repeats.
                    if let Err(error) = server.remove(preview).await {
                        log.note(format!("{}.", Failure::from(&error)));
                    }
                    chosen.previews.retain(|other| other != preview);
                    chosen.guests.retain(|guest| guest.name != *preview);
                }
            }
        }
        Ok(())
    }
}

/// Returns the fault of a guest that cannot boot.
fn no_closure(guest: &Guest, kind: GuestKind, closure: &StorePath, cause: &Failure) -> Failure {
    let name = &guest.name;
    let text = format!(
        "guest '{name}' was restored without its closure {closure}: {}",
        cause.message
    );
    let (how, then) = match kind {
        GuestKind::Agent => ("", format!("agent start {name}")),
        GuestKind::Preview => (
            "Build it again with the next push or `preview update`. Or copy it: ",
            format!("preview start {name}"),
        ),
    };
    Failure::new(Code::ClosureNotFound, text).with_remedy(format!(
        "{how}`nix copy --from STORE {closure}`, where STORE is a machine or cache that has it, then `{then}`."
    ))
}

/// Checks the set, and chooses its records. Blocks.
fn choose(directory: &Path, names: &[GuestName], copy: &Path) -> Result<Chosen, BackupError> {
    if !directory.is_absolute() {
        let path = directory.to_owned();
        return Err(BackupError::Relative { path });
    }
    let set = directory.join(SET);
    // Also accepts the set itself.
    let set = match fs::symlink_metadata(&set) {
        Ok(_) => set,
        Err(_) => directory.to_owned(),
    };
    let set = Set(set);
    let manifest = Manifest::read(&set)?;
    require_closed(&set.0)?;
    set.require_directories(&manifest)?;
    compare(&set, &manifest)?;
    fs::copy(set.store(), copy).on("copy", set.store())?;
    let records = BackupRecords::read(copy)?;
    let has_files: BTreeSet<_> = manifest.guests.iter().map(|guest| &guest.name).collect();
    let mut guests = records.guests;
    guests.retain(|guest| has_files.contains(&guest.name));
    let mut previews = records.previews;
    let mut databases = manifest.databases.clone();
    if !names.is_empty() {
        for name in names {
            let is_guest = guests.iter().any(|guest| guest.name == *name);
            if !is_guest && !previews.contains(name) {
                let known = guests.iter().map(|guest| guest.name.to_string());
                return Err(BackupError::Missing {
                    name: name.to_string(),
                    known: known.collect::<Vec<_>>().join(", "),
                });
            }
        }
        guests.retain(|guest| names.contains(&guest.name));
        previews.retain(|preview| names.contains(preview));
    }
    databases.retain(|database| previews.contains(&database.preview));
    Ok(Chosen {
        set,
        guests,
        previews,
        databases,
        // Older sets do not tell. Nearly all hosts have idmapped mounts.
        owners: manifest.owners.unwrap_or(FileOwners::Guest),
        has_closures: manifest.closures,
        missing: manifest.missing,
    })
}

/// Compares a set with its manifest.
fn compare(set: &Set, manifest: &Manifest) -> Result<(), BackupError> {
    let damaged = |path: PathBuf, found: Digest, expected: &Digest| {
        if found == *expected {
            return Ok(());
        }
        Err(BackupError::Damaged { path })
    };
    let store = set.store();
    damaged(
        store.clone(),
        tree::digest_file(&store)?.into(),
        &manifest.store,
    )?;
    for guest in &manifest.guests {
        let files = set.files(&guest.name);
        let found = tree::digest(&files, manifest.covers())?;
        damaged(files, found.into(), &guest.files)?;
    }
    for database in &manifest.databases {
        let dump = set.dump(&database.preview);
        damaged(
            dump.clone(),
            tree::digest_file(&dump)?.into(),
            &database.dump,
        )?;
    }
    Ok(())
}

fn read_secret(path: &Path) -> Result<Secret, BackupError> {
    let seen = fs::symlink_metadata(path).on("inspect", path)?;
    if !seen.is_file() {
        let path = path.to_owned();
        return Err(BackupError::Damaged { path });
    }
    let mut text = String::new();
    let file = File::open(path).on("open", path)?;
    file.take(PASSWORD_BYTES)
        .read_to_string(&mut text)
        .on("read", path)?;
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests;
