//! GC roots: links that keep closures from Nix's garbage collection.
//!
//! A guest's root is `<gcroots>/<guest>`, a link to its closure. Nix takes every link below
//! `/nix/var/nix/gcroots` for a root (Nix manual, "Garbage Collector Roots"). It is made aside as
//! `.<guest>.new` and renamed, so that a guest has its former root or its new one at any moment.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use innkeeper_model::{GuestName, StorePath};

use super::ClosureError;
use crate::facilities::Found;
use crate::{FileErrorExt, tree};

/// Points a guest's root to its closure.
pub(super) fn ensure(
    gcroots: &Path,
    guest: &GuestName,
    closure: &StorePath,
) -> Result<(), ClosureError> {
    let root = gcroots.join(guest.as_str());
    if fs::read_link(&root).is_ok_and(|target| target == closure.as_path()) {
        return Ok(());
    }
    fs::create_dir_all(gcroots).on("create", gcroots)?;
    let aside = gcroots.join(aside(guest));
    tree::remove(&aside)?;
    symlink(closure.as_path(), &aside).on("create", &aside)?;
    Ok(fs::rename(&aside, &root).on("create", &root)?)
}

/// Whether a guest's root leads to the closure.
pub(super) fn keep(gcroots: &Path, closure: &StorePath) -> Result<bool, ClosureError> {
    let roots = observe(gcroots)?;
    Ok(roots.iter().any(|root| {
        root.guest.is_some()
            && fs::read_link(&root.object).is_ok_and(|target| target == closure.as_path())
    }))
}

/// Takes a guest's root away.
pub(super) fn remove(gcroots: &Path, guest: &GuestName) -> Result<(), ClosureError> {
    tree::remove(&gcroots.join(aside(guest)))?;
    Ok(tree::remove(&gcroots.join(guest.as_str()))?)
}

/// All roots, dangling ones too.
pub(super) fn observe(gcroots: &Path) -> Result<Vec<Found>, ClosureError> {
    let entries = match fs::read_dir(gcroots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", gcroots)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.on("list", gcroots)?.path();
        let guest = match ours(gcroots, &path) {
            Some(Ours::Root(guest)) => Some(guest),
            Some(Ours::Aside) => None,
            None => continue,
        };
        found.push(Found::ours(guest, path.display().to_string()));
    }
    found.sort();
    Ok(found)
}

/// Removes one root that [`observe`] found.
pub(super) fn sweep(gcroots: &Path, object: &str) -> Result<(), ClosureError> {
    let path = Path::new(object);
    match ours(gcroots, path) {
        Some(_) => Ok(tree::remove(path)?),
        None => Err(ClosureError::Foreign(object.to_owned())),
    }
}

fn aside(guest: &GuestName) -> String {
    format!(".{guest}.new")
}

/// What has our naming.
enum Ours {
    Root(GuestName),
    Aside,
}

fn ours(gcroots: &Path, path: &Path) -> Option<Ours> {
    let name = path.file_name()?.to_str()?;
    if path != gcroots.join(name) {
        return None;
    }
    if let Ok(guest) = GuestName::parse(name) {
        return Some(Ours::Root(guest));
    }
    let guest = name.strip_prefix('.')?.strip_suffix(".new")?;
    GuestName::parse(guest).is_ok().then_some(Ours::Aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/nix/store/00000000000000000000000000000000-a";
    const B: &str = "/nix/store/00000000000000000000000000000000-b";

    fn names(gcroots: &Path) -> Vec<(Option<String>, String)> {
        let name = |found: &Found| found.object.rsplit('/').next().expect("name").to_owned();
        let found = observe(gcroots).expect("observes");
        found
            .iter()
            .map(|f| (f.guest.clone().map(Into::into), name(f)))
            .collect()
    }

    #[test]
    fn a_root_is_made_changed_and_removed() {
        let dir = tempfile::tempdir().expect("directory");
        let gcroots = dir.path().join("gcroots/innkeeper");
        let guest = GuestName::parse("web").expect("name");
        assert!(names(&gcroots).is_empty());
        remove(&gcroots, &guest).expect("nothing is there");
        for closure in [A, A, B] {
            let closure = StorePath::parse(closure).expect("valid");
            // What a crash left.
            fs::create_dir_all(&gcroots).expect("directory");
            symlink("/nowhere", gcroots.join(".web.new")).ok();
            ensure(&gcroots, &guest, &closure).expect("roots");
            let target = fs::read_link(gcroots.join("web")).expect("link");
            assert_eq!(target, closure.as_path());
        }
        assert_eq!(names(&gcroots), [(Some("web".into()), "web".into())]);
        symlink("/nowhere", gcroots.join(".web.new")).expect("link");
        remove(&gcroots, &guest).expect("removes");
        assert!(names(&gcroots).is_empty());
    }

    #[test]
    fn dangling_roots_and_leftovers_are_seen_and_swept_and_nothing_else() {
        let dir = tempfile::tempdir().expect("directory");
        for name in ["web", ".old.new", "Foreign", ".hidden", ".Old.new"] {
            symlink(A, dir.path().join(name)).expect("link");
        }
        let expected = [
            (None, ".old.new".into()),
            (Some("web".into()), "web".into()),
        ];
        assert_eq!(names(dir.path()), expected);
        for found in observe(dir.path()).expect("observes") {
            sweep(dir.path(), &found.object).expect("sweeps");
            sweep(dir.path(), &found.object).expect("is gone");
        }
        let foreign = dir.path().join("Foreign").display().to_string();
        let elsewhere = dir.path().join("../web").display().to_string();
        for object in [foreign.as_str(), &elsewhere, "/etc/passwd", ""] {
            sweep(dir.path(), object).expect_err(object);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 3);
    }
}
