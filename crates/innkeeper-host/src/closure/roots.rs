//! GC roots: links that protect closures from Nix's garbage collection.
//!
//! A guest's root is `<gcroots>/<guest>`, a link to its closure. Nix treats every link below `/nix/var/nix/gcroots` as a
//! root (Nix manual, "Garbage Collector Roots"). A new root is created as `.<guest>.new`, marked with the daemon's identity
//! and renamed. So the guest always has its old or its new root. While its closure changes, `<gcroots>/<guest>.former` is a
//! root for the closure that it returns to.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use innkeeper_facilities::Found;
use innkeeper_model::{GuestName, Ownership, StorePath};

use super::ClosureError;
use crate::identity::Identity;
use crate::{FileErrorExt, tree};

/// Points a guest's root to its closure.
pub(super) fn ensure(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
    closure: &StorePath,
) -> Result<(), ClosureError> {
    write(gcroots, identity, guest, guest.as_str(), closure)
}

/// Points a guest's second root to the closure that it returns to if a change fails.
pub(super) fn ensure_former(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
    closure: &StorePath,
) -> Result<(), ClosureError> {
    write(gcroots, identity, guest, &former_name(guest), closure)
}

fn write(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
    name: &str,
    closure: &StorePath,
) -> Result<(), ClosureError> {
    let root = gcroots.join(name);
    let owner = owner(identity, &root)?;
    if owner == Some(Ownership::Other) {
        return Err(ClosureError::OtherDaemon(root.display().to_string()));
    }
    let is_same = fs::read_link(&root).is_ok_and(|target| target == closure.as_path());
    if is_same && owner == Some(Ownership::Ours) {
        return Ok(());
    }
    fs::create_dir_all(gcroots).on("create", gcroots)?;
    let temporary = gcroots.join(temporary_name(guest));
    tree::remove(&temporary)?;
    symlink(closure.as_path(), &temporary).on("create", &temporary)?;
    identity.mark(&temporary).on("mark", &temporary)?;
    Ok(fs::rename(&temporary, &root).on("create", &root)?)
}

/// Reports whether a guest's root points to the closure.
pub(super) fn has_root(
    gcroots: &Path,
    identity: &Identity,
    closure: &StorePath,
) -> Result<bool, ClosureError> {
    let roots = observe(gcroots, identity)?;
    Ok(roots.iter().any(|root| {
        root.guest.is_some()
            && root.ownership != Ownership::Other
            && fs::read_link(&root.object).is_ok_and(|target| target == closure.as_path())
    }))
}

/// Removes a guest's roots unless they belong to another daemon.
pub(super) fn remove(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
) -> Result<(), ClosureError> {
    let names = [temporary_name(guest), former_name(guest), guest.to_string()];
    remove_named(gcroots, identity, names)
}

/// Removes a guest's second root unless it belongs to another daemon.
pub(super) fn remove_former(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
) -> Result<(), ClosureError> {
    remove_named(gcroots, identity, [former_name(guest)])
}

fn remove_named(
    gcroots: &Path,
    identity: &Identity,
    names: impl IntoIterator<Item = String>,
) -> Result<(), ClosureError> {
    for name in names {
        let path = gcroots.join(name);
        if owner(identity, &path)? != Some(Ownership::Other) {
            tree::remove(&path)?;
        }
    }
    Ok(())
}

/// Returns the owner of a root, or `None` if it does not exist. On a file system without extended attributes, the whole
/// folder is this daemon's.
pub(super) fn owner(identity: &Identity, path: &Path) -> Result<Option<Ownership>, ClosureError> {
    match identity.owner_of(path) {
        Ok(owner) => Ok(Some(owner.unwrap_or(Ownership::Ours))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Ok(Err(error).on("inspect", path)?),
    }
}

/// Lists all roots, including dangling ones.
pub(super) fn observe(gcroots: &Path, identity: &Identity) -> Result<Vec<Found>, ClosureError> {
    let entries = match fs::read_dir(gcroots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", gcroots)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.on("list", gcroots)?.path();
        let guest = match parse(gcroots, &path) {
            Some(RootName::Guest(guest)) => Some(guest),
            Some(RootName::Temporary) => None,
            None => continue,
        };
        // Skips a root that is removed meanwhile.
        if let Some(ownership) = owner(identity, &path)? {
            found.push(Found {
                guest,
                object: path.display().to_string(),
                ownership,
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Removes one root that [`observe`] found.
pub(super) fn sweep(
    gcroots: &Path,
    identity: &Identity,
    found: &Found,
) -> Result<(), ClosureError> {
    let object = &found.object;
    let path = Path::new(object);
    match parse(gcroots, path) {
        Some(_) if found.ownership == Ownership::Other => Ok(()),
        // The owner may have changed since the observation.
        Some(_) if owner(identity, path)? != Some(found.ownership) => Ok(()),
        Some(_) => Ok(tree::remove(path)?),
        None => Err(ClosureError::Foreign(object.clone())),
    }
}

fn temporary_name(guest: &GuestName) -> String {
    format!(".{guest}.new")
}

/// Guest names contain no dots.
fn former_name(guest: &GuestName) -> String {
    format!("{guest}.former")
}

/// A file name that Innkeeper gives to roots.
enum RootName {
    Guest(GuestName),
    Temporary,
}

fn parse(gcroots: &Path, path: &Path) -> Option<RootName> {
    let name = path.file_name()?.to_str()?;
    if path != gcroots.join(name) {
        return None;
    }
    let guest = name.strip_suffix(".former").unwrap_or(name);
    if let Ok(guest) = GuestName::parse(guest) {
        return Some(RootName::Guest(guest));
    }
    let guest = name.strip_prefix('.')?.strip_suffix(".new")?;
    GuestName::parse(guest)
        .is_ok()
        .then_some(RootName::Temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/nix/store/00000000000000000000000000000000-a";
    const B: &str = "/nix/store/00000000000000000000000000000000-b";

    fn names(gcroots: &Path) -> Vec<(Option<String>, String)> {
        let name = |found: &Found| found.object.rsplit('/').next().expect("name").to_owned();
        let found = observe(gcroots, &Identity::of('a')).expect("observes");
        found
            .iter()
            .map(|f| (f.guest.clone().map(Into::into), name(f)))
            .collect()
    }

    #[test]
    fn root_is_created_changed_and_removed() {
        let dir = tempfile::tempdir().expect("directory");
        let gcroots = dir.path().join("gcroots/innkeeper");
        let (us, guest) = (Identity::of('a'), GuestName::parse("web").expect("name"));
        assert!(names(&gcroots).is_empty());
        remove(&gcroots, &us, &guest).expect("absent");
        for closure in [A, A, B] {
            let closure = StorePath::parse(closure).expect("valid");
            // A leftover of a crash.
            fs::create_dir_all(&gcroots).expect("directory");
            symlink("/nowhere", gcroots.join(".web.new")).ok();
            ensure(&gcroots, &us, &guest, &closure).expect("roots");
            let target = fs::read_link(gcroots.join("web")).expect("link");
            assert_eq!(target, closure.as_path());
        }
        assert_eq!(names(&gcroots), [(Some("web".into()), "web".into())]);
        symlink("/nowhere", gcroots.join(".web.new")).expect("link");
        remove(&gcroots, &us, &guest).expect("removes");
        assert!(names(&gcroots).is_empty());
    }

    #[test]
    fn former_root_belongs_to_the_guest_and_is_removed_with_it() {
        let dir = tempfile::tempdir().expect("directory");
        let (us, guest) = (Identity::of('a'), GuestName::parse("web").expect("name"));
        let closure = |path| StorePath::parse(path).expect("valid");
        ensure(dir.path(), &us, &guest, &closure(B)).expect("roots");
        ensure_former(dir.path(), &us, &guest, &closure(A)).expect("roots");
        let both = [
            (Some("web".into()), "web".into()),
            (Some("web".into()), "web.former".into()),
        ];
        assert_eq!(names(dir.path()), both);
        for path in [A, B] {
            assert!(has_root(dir.path(), &us, &closure(path)).expect("looks"));
        }
        remove_former(dir.path(), &us, &guest).expect("removes");
        remove_former(dir.path(), &us, &guest).expect("is gone");
        assert_eq!(names(dir.path()), both[..1]);
        ensure_former(dir.path(), &us, &guest, &closure(A)).expect("roots");
        remove(dir.path(), &us, &guest).expect("removes");
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn sweep_removes_only_roots_and_their_leftovers() {
        let dir = tempfile::tempdir().expect("directory");
        for name in ["web", ".old.new", "Foreign", ".hidden", ".Old.new"] {
            symlink(A, dir.path().join(name)).expect("link");
        }
        let expected = [
            (None, ".old.new".into()),
            (Some("web".into()), "web".into()),
        ];
        assert_eq!(names(dir.path()), expected);
        let us = Identity::of('a');
        for found in observe(dir.path(), &us).expect("observes") {
            sweep(dir.path(), &us, &found).expect("sweeps");
            sweep(dir.path(), &us, &found).expect("is gone");
        }
        let foreign = dir.path().join("Foreign").display().to_string();
        let elsewhere = dir.path().join("../web").display().to_string();
        for object in [foreign.as_str(), &elsewhere, "/etc/passwd", ""] {
            let found = Found::ours(None, object.to_owned());
            sweep(dir.path(), &us, &found).expect_err(object);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 3);
    }

    #[test]
    fn root_of_another_daemon_stays_and_an_unmarked_one_is_marked() {
        let dir = tempfile::tempdir().expect("directory");
        let (us, them) = (Identity::of('a'), Identity::of('b'));
        let (guest, closure) = (
            GuestName::parse("web").expect("name"),
            StorePath::parse(A).expect("valid"),
        );
        ensure(dir.path(), &them, &guest, &closure).expect("roots");
        let found = observe(dir.path(), &us).expect("observes");
        if found[0].ownership == Ownership::Ours {
            eprintln!(
                "INNKEEPER-NOT-RUN: root_of_another_daemon_stays_and_an_unmarked_one_is_marked: \
                 the file system has no extended attributes"
            );
            return;
        }
        assert_eq!(found[0].ownership, Ownership::Other);
        let refused = ensure(dir.path(), &us, &guest, &closure).expect_err("another's");
        assert!(matches!(refused, ClosureError::OtherDaemon(_)), "{refused}");
        remove(dir.path(), &us, &guest).expect("skips it");
        sweep(dir.path(), &us, &found[0]).expect("skips it");
        assert!(has_root(dir.path(), &them, &closure).expect("looks"));
        assert!(!has_root(dir.path(), &us, &closure).expect("looks"));

        remove(dir.path(), &them, &guest).expect("removes");
        symlink(A, dir.path().join("web")).expect("link");
        let found = observe(dir.path(), &us).expect("observes");
        assert_eq!(found[0].ownership, Ownership::Unmarked);
        ensure(dir.path(), &us, &guest, &closure).expect("marks");
        let found = observe(dir.path(), &us).expect("observes");
        assert_eq!(found, [Found::ours(Some(guest), found[0].object.clone())]);
    }
}
