//! Paths that the host's GC roots keep.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::{STORE_DIR, StorePath};

use crate::{FileError, FileErrorExt};

/// Maximum depth of directories with GC roots.
const MAX_DEPTH: usize = 8;

/// Returns the targets of the host's GC roots: the links in Nix's directories `gcroots` and `profiles`, except those of
/// guests that build with Nix, of this or another daemon: below a directory named `except`. Of a profile, it returns the
/// current generation: older ones would be kept as long as the guest.
pub(super) fn paths(nix_state: &Path, except: &str) -> Result<BTreeSet<StorePath>, FileError> {
    let mut found = BTreeSet::new();
    for name in ["gcroots", "profiles"] {
        collect(&nix_state.join(name), except, MAX_DEPTH, &mut found)?;
    }
    Ok(found)
}

fn collect(
    dir: &Path,
    except: &str,
    depth: usize,
    found: &mut BTreeSet<StorePath>,
) -> Result<(), FileError> {
    if dir.file_name().is_some_and(|name| name == except) || depth == 0 {
        return Ok(());
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.on("list", dir)?,
    };
    for entry in entries {
        let entry = entry.on("list", dir)?;
        let path = entry.path();
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind.on("inspect", &path)?,
        };
        if kind.is_dir() {
            collect(&path, except, depth - 1, found)?;
        } else if kind.is_symlink() && !is_generation(&path) {
            found.extend(target(&path));
        }
    }
    Ok(())
}

/// Reports whether a link is one generation of a profile: `<profile>-<number>-link`.
fn is_generation(link: &Path) -> bool {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let number = name
        .strip_suffix("-link")
        .and_then(|name| name.rsplit_once('-'))
        .map(|(_, number)| number);
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Returns the store path that a GC root keeps. Like Nix, it follows one further link outside of the store.
fn target(root: &Path) -> Option<StorePath> {
    let target = read_link(root)?;
    store_path(&target).or_else(|| store_path(&read_link(&target)?))
}

/// Returns the absolute target of a link, if it is a link.
fn read_link(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    Some(link.parent()?.join(target))
}

/// Returns the store path that contains a path.
fn store_path(path: &Path) -> Option<StorePath> {
    let name = path.strip_prefix(STORE_DIR).ok()?.iter().next()?;
    StorePath::parse(&format!("{STORE_DIR}/{}", name.to_str()?)).ok()
}
