//! Steps on a guest's file tree, and the file work that its record requests.
//!
//! [`FileWork`] is cleared durably when it is done: a restore that ran twice would lose later writes.

use std::time::Duration;

use innkeeper_model::{Code, EventKind, Explain, FileWork, Guest, GuestName, RetainedId};

use crate::EngineError;
use crate::inner::Inner;
use crate::journal::Subject;

impl Inner {
    /// Creates the guest's file tree. Locks the origin of a copy meanwhile.
    pub(crate) async fn ensure_rootfs(&self, guest: &Guest) -> Result<(), EngineError> {
        let Some(FileWork::CopyOf(origin)) = &guest.file_work else {
            return Ok(self.host.rootfs.ensure(guest).await?);
        };
        // Cannot deadlock: the origin was complete when the copy was requested, so it waits for no origin of its own.
        let _origin = self.guest_locks.lock(&origin.guest).await;
        if self.store.guest(&origin.guest).await?.is_none() {
            return Err(EngineError::GuestNotFound(origin.guest.clone()));
        }
        if origin.snapshot.is_none() && !self.copies_while_running(&origin.guest).await? {
            self.require_still(&origin.guest).await?;
        }
        let closures = &self.host.closures;
        closures.inherit(&origin.guest, &guest.name).await?;
        Ok(self.host.rootfs.ensure(guest).await?)
    }

    pub(crate) async fn forget_identity(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::CopyOf(origin)) = &guest.file_work {
            let secrets = &self.host.secrets;
            secrets.forget_identity(guest, &origin.guest).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    pub(crate) async fn take_snapshot(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::TakeSnapshot(label)) = &guest.file_work {
            if !self.copies_while_running(&guest.name).await? {
                self.require_still(&guest.name).await?;
            }
            self.host.rootfs.snapshot(&guest.name, label).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    pub(crate) async fn remove_snapshot(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::DeleteSnapshot(label)) = &guest.file_work {
            self.host.rootfs.delete_snapshot(&guest.name, label).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    pub(crate) async fn restore_rootfs(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::Restore(label)) = &guest.file_work {
            self.require_stopped(&guest.name).await?;
            self.host.rootfs.restore(&guest.name, label).await?;
            // Before the guest starts: a second restore would lose what it has written.
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    /// Records the adoption of retained files. [`Self::ensure_rootfs`] has moved them to the guest's path.
    pub(crate) async fn adopt_files(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::Adopt(_)) = guest.file_work {
            self.store.finish_file_takeover(&guest.name).await?;
        }
        Ok(())
    }

    /// Retains the files of a guest that is being destroyed. Removes them if that fails: a destroy must not fail for
    /// files that cannot be retained.
    pub(crate) async fn retain_rootfs(
        &self,
        guest: &Guest,
        subject: &Subject,
    ) -> Result<(), EngineError> {
        self.require_stopped(&guest.name).await?;
        let retained = match guest.retain {
            Some(id) => self.retain(guest, id).await,
            None => Ok(false),
        };
        let name = &guest.name;
        let text = match retained {
            Ok(true) => {
                let time = format_time(self.config.retention);
                format!("The files of {name} are kept for {time} at most: `agent undelete {name}`.")
            }
            Ok(false) => {
                self.store.cancel_retention(name).await?;
                return Ok(self.host.rootfs.remove(name).await?);
            }
            Err(error) => {
                self.store.cancel_retention(name).await?;
                self.host.rootfs.remove(name).await?;
                let reason = innkeeper_model::chain(&error);
                format!("The files of {name} were removed, since they could not be kept: {reason}.")
            }
        };
        self.journal.record(subject, EventKind::Note { text });
        Ok(())
    }

    /// Retains a guest's files. Returns false if it has none. Fails on a full disk: the destroy is meant to free space.
    async fn retain(&self, guest: &Guest, id: RetainedId) -> Result<bool, EngineError> {
        let rootfs = &self.host.rootfs;
        if rootfs.open(&guest.name).await? {
            if let Err(error) = rootfs.require_room().await
                && error.code() == Code::DiskFull
            {
                return Err(error.into());
            }
            self.host.secrets.withdraw(guest).await?;
        }
        Ok(rootfs.retain(&guest.name, id).await?)
    }

    /// Abandons failed file work, so that the guest continues as before. Deletes the remains of a failed snapshot. Returns
    /// false for file work that must not be abandoned.
    pub(crate) async fn abandon_file_work(&self, name: &GuestName) -> Result<bool, EngineError> {
        let guest = self.store.guest(name).await?;
        let instead = match guest.and_then(|guest| guest.file_work) {
            Some(FileWork::TakeSnapshot(label)) => Some(FileWork::DeleteSnapshot(label)),
            Some(FileWork::Restore(_)) => None,
            Some(FileWork::CopyOf(_) | FileWork::DeleteSnapshot(_) | FileWork::Adopt(_)) | None => {
                return Ok(false);
            }
        };
        self.store.set_file_work(name, instead).await?;
        Ok(true)
    }

    async fn copies_while_running(&self, name: &GuestName) -> Result<bool, EngineError> {
        Ok(self.host.rootfs.copies_while_running(name).await?)
    }

    /// Requires that no process of the guest can change its files.
    async fn require_still(&self, name: &GuestName) -> Result<(), EngineError> {
        let unit = self.host.units.phase(name).await?;
        if unit.is_some_and(|unit| unit.phase.is_alive() && !unit.frozen) {
            return Err(EngineError::MustNotRun(name.clone()));
        }
        Ok(())
    }

    async fn require_stopped(&self, name: &GuestName) -> Result<(), EngineError> {
        let unit = self.host.units.phase(name).await?;
        if unit.is_some_and(|unit| unit.phase.is_alive()) {
            return Err(EngineError::MustNotRun(name.clone()));
        }
        Ok(())
    }
}

/// Formats a time in whole hours, or else in minutes.
fn format_time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
