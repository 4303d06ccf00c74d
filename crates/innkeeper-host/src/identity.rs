//! Ownership of objects on a host with several daemons.
//!
//! The names of objects are contracts and contain no daemon, so each object has a mark beside its name. Guests cannot change
//! marks: they are attributes of objects outside the guests, or comments that only PostgreSQL's superusers may write.
//!
//! | object | mark |
//! | --- | --- |
//! | interface | its alias: `innkeeper:<guest>@<identity>` |
//! | nftables table | its comment: `innkeeper daemon <identity>` |
//! | systemd unit | its description: `Innkeeper guest <guest> (daemon <identity>)` |
//! | cgroup | the extended attribute `trusted.innkeeper.daemon` |
//! | directory of a guest, GC root | the extended attribute `trusted.innkeeper.daemon` |
//! | LVM volume | its tag: `innkeeper-daemon-<identity>` |
//! | role and database | their comment: `innkeeper: preview <slug> (daemon <identity>)` |
//! | Caddy's file of a preview | its first line: `# Innkeeper: preview <slug> (daemon <identity>)` |
//!
//! Objects in the state directory have no marks: the directory belongs to the identity in its database.

use std::io;
use std::path::Path;

use innkeeper_model::{DaemonId, Ownership};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

/// The extended attribute that marks directories, links and cgroups. Only the host's root reads and writes it.
const ATTRIBUTE: &str = "trusted.innkeeper.daemon";

/// The identity with which a daemon marks the objects that it creates.
#[derive(Clone, Debug)]
pub struct Identity {
    daemon: DaemonId,
    adopts: bool,
}

impl Identity {
    /// Creates an identity. `adopts` is true until the unmarked objects of a former release have been marked.
    #[must_use]
    pub fn new(daemon: DaemonId, adopts: bool) -> Self {
        Self { daemon, adopts }
    }

    /// Returns the same identity, which also owns unmarked objects.
    pub(crate) fn adopting(self) -> Self {
        Self {
            adopts: true,
            ..self
        }
    }

    /// Returns the mark of this daemon.
    #[must_use]
    pub fn daemon(&self) -> &DaemonId {
        &self.daemon
    }

    /// Returns the ownership of an object with this mark.
    #[must_use]
    pub fn ownership(&self, mark: Option<&DaemonId>) -> Ownership {
        match mark {
            None => Ownership::Unmarked,
            Some(mark) if *mark == self.daemon => Ownership::Ours,
            Some(_) => Ownership::Other,
        }
    }

    /// Marks a file, a directory or a link. Returns false if its file system does not support marks.
    ///
    /// # Errors
    /// Fails if the kernel rejects the mark for another reason.
    pub(crate) fn mark(&self, path: &Path) -> io::Result<bool> {
        let mark = self.daemon.as_str().as_bytes();
        match lsetxattr(path, ATTRIBUTE, mark, XattrFlags::empty()) {
            Ok(()) => Ok(true),
            Err(error) if marks_are_unsupported(error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the ownership of a file, a directory or a link; `None` if the file system does not support marks.
    ///
    /// # Errors
    /// Fails if the mark cannot be read.
    pub(crate) fn owner_of(&self, path: &Path) -> io::Result<Option<Ownership>> {
        let mut mark = [0; DaemonId::LENGTH];
        let length = match lgetxattr(path, ATTRIBUTE, &mut mark[..]) {
            Ok(length) => length,
            Err(Errno::NODATA) => return Ok(Some(Ownership::Unmarked)),
            // Longer than our marks: from a later version.
            Err(Errno::RANGE) => return Ok(Some(Ownership::Other)),
            Err(error) if marks_are_unsupported(error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = std::str::from_utf8(mark.get(..length).unwrap_or_default());
        let daemon = text.ok().and_then(|text| DaemonId::parse(text).ok());
        Ok(Some(match daemon {
            Some(daemon) => self.ownership(Some(&daemon)),
            None => Ownership::Other,
        }))
    }

    /// Reports whether an object with the name of a recorded guest or preview may be changed and removed. An unmarked object
    /// may be, only while objects of a former release are adopted.
    #[must_use]
    pub fn may_change(&self, ownership: Ownership) -> bool {
        match ownership {
            Ownership::Ours => true,
            Ownership::Unmarked => self.adopts,
            Ownership::Other => false,
        }
    }
}

/// Reports an error that means that the file system does not support marks, or that the daemon lacks CAP_SYS_ADMIN in the
/// host's user namespace.
fn marks_are_unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::PERM)
}

#[cfg(test)]
impl Identity {
    /// Returns the identity of a test's daemon. Different digits are different daemons.
    pub(crate) fn of(digit: char) -> Self {
        let daemon = DaemonId::parse(&digit.to_string().repeat(DaemonId::LENGTH));
        Self::new(daemon.expect("a digit"), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_links_keep_their_mark() {
        let dir = tempfile::tempdir().expect("directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).expect("link");
        let (ours, other) = (Identity::of('a'), Identity::of('b'));
        for path in [dir.path(), &link] {
            assert_eq!(
                ours.owner_of(path).expect("reads"),
                Some(Ownership::Unmarked)
            );
            if !ours.mark(path).expect("marks") {
                eprintln!(
                    "INNKEEPER-NOT-RUN: directories_and_links_keep_their_mark: {} does not support marks",
                    path.display()
                );
                return;
            }
            assert_eq!(ours.owner_of(path).expect("reads"), Some(Ownership::Ours));
            assert_eq!(other.owner_of(path).expect("reads"), Some(Ownership::Other));
        }
        ours.owner_of(&dir.path().join("missing"))
            .expect_err("not there");
    }

    #[test]
    fn only_own_or_adopted_objects_may_change() {
        let (ours, other) = (Identity::of('a'), Identity::of('b'));
        for (mark, ownership, may, may_adopting) in [
            (None, Ownership::Unmarked, false, true),
            (Some(ours.daemon()), Ownership::Ours, true, true),
            (Some(other.daemon()), Ownership::Other, false, false),
        ] {
            assert_eq!(ours.ownership(mark), ownership);
            assert_eq!(ours.may_change(ownership), may, "{ownership:?}");
            let adopting = ours.clone().adopting();
            assert_eq!(
                adopting.may_change(ownership),
                may_adopting,
                "{ownership:?}"
            );
        }
    }
}
