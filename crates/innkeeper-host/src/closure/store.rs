//! Checks that guests can boot from a store path.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use innkeeper_model::{STORE_DIR, StorePath};

use super::ClosureError;
use crate::tree::{blocking, write_to_disk};
use crate::{FileError, FileErrorExt};

/// Maximum number of followed links, the same as the kernel's (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Checks that a closure exists and has an `init` that a guest can execute. Guests see only the host's store, so no link may
/// leave it.
///
/// # Errors
/// [`ClosureError::NotFound`], [`ClosureError::Invalid`], [`ClosureError::Emptied`], or a file that cannot be inspected.
pub(crate) fn verify(closure: &StorePath) -> Result<(), ClosureError> {
    let store = Path::new(STORE_DIR);
    if fs::symlink_metadata(closure.as_path()).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Err(ClosureError::NotFound(closure.clone()));
    }
    match boot_problem(store, closure.as_path())? {
        None if is_empty(&closure.as_path().join("init"))? => {
            Err(ClosureError::Emptied(closure.clone()))
        }
        None => Ok(()),
        Some(reason) => Err(ClosureError::Invalid {
            closure: closure.clone(),
            reason,
        }),
    }
}

/// The space that a build in the background must leave, in bytes.
const MIN_FREE: u64 = 4 << 30;

/// Checks that the disk of the store has space for a build that nobody waits for.
///
/// # Errors
/// [`ClosureError::StoreFull`], or the disk cannot be inspected.
pub(crate) fn require_space() -> Result<(), ClosureError> {
    let store = Path::new(STORE_DIR);
    let existing = store.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing).on("inspect", existing)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < MIN_FREE {
        return Err(ClosureError::StoreFull {
            free,
            needed: MIN_FREE,
        });
    }
    Ok(())
}

/// Flushes the store to disk, so that no record outlives its closure. Versions of Nix without
/// [`DURABLE`](super::nix::DURABLE) leave that to the kernel.
pub(crate) async fn sync() -> Result<(), FileError> {
    blocking(|| write_to_disk(Path::new(STORE_DIR))).await
}

/// Returns the reason why guests cannot boot from a directory in the store.
fn boot_problem(store: &Path, closure: &Path) -> Result<Option<String>, FileError> {
    match resolve(store, closure)? {
        Resolved::Inside(path) if path.is_dir() => {}
        Resolved::Inside(_) => return Ok(Some("it is not a directory".to_owned())),
        Resolved::Missing => return Ok(Some("it is a dangling link".to_owned())),
        Resolved::Outside(target) => {
            return Ok(Some(format!(
                "it points outside the store, to {}",
                target.display()
            )));
        }
    }
    let init = closure.join("init");
    Ok(match resolve(store, &init)? {
        Resolved::Missing => Some("it has no 'init'".to_owned()),
        Resolved::Outside(target) => Some(format!(
            "its 'init' points outside the store, to {}",
            target.display()
        )),
        Resolved::Inside(path) => {
            (!is_executable(&path)?).then(|| "its 'init' is not an executable file".to_owned())
        }
    })
}

/// Reports whether a closure contains an executable file that guests can start.
///
/// # Errors
/// A file that cannot be inspected.
pub(crate) fn has_program(closure: &StorePath, program: &str) -> Result<bool, FileError> {
    let path = closure.as_path().join(program);
    match resolve(Path::new(STORE_DIR), &path)? {
        Resolved::Inside(path) => is_executable(&path),
        Resolved::Outside(_) | Resolved::Missing => Ok(false),
    }
}

fn is_executable(path: &Path) -> Result<bool, FileError> {
    let file = fs::metadata(path).on("inspect", path)?;
    Ok(file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn is_empty(file: &Path) -> Result<bool, FileError> {
    Ok(fs::metadata(file).on("inspect", file)?.len() == 0)
}

/// Target of a path in the store.
pub(crate) enum Resolved {
    /// An existing path in the store.
    Inside(PathBuf),
    /// A path outside the store.
    Outside(PathBuf),
    /// No file.
    Missing,
}

/// Resolves a path in the store with all links, as in a guest that has only the store.
pub(crate) fn resolve(store: &Path, path: &Path) -> Result<Resolved, FileError> {
    let Ok(below) = path.strip_prefix(store) else {
        return Ok(Resolved::Outside(path.to_owned()));
    };
    let mut current = store.to_owned();
    let mut remaining = names(below);
    let mut links = 0;
    while let Some(name) = remaining.pop() {
        if name == ".." {
            if current == store {
                return Ok(Resolved::Outside(current.join("..")));
            }
            current.pop();
            continue;
        }
        let next = current.join(name);
        let file = match fs::symlink_metadata(&next) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Resolved::Missing);
            }
            file => file.on("inspect", &next)?,
        };
        if !file.is_symlink() {
            current = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Ok(Resolved::Missing);
        }
        let target = fs::read_link(&next).on("read", &next)?;
        if target.is_absolute() {
            let Ok(below) = target.strip_prefix(store) else {
                return Ok(Resolved::Outside(target));
            };
            current = store.to_owned();
            remaining.extend(names(below));
        } else {
            remaining.extend(names(&target));
        }
    }
    Ok(Resolved::Inside(current))
}

/// Returns the components of a path, last one first.
fn names(path: &Path) -> Vec<OsString> {
    path.iter()
        .rev()
        .filter(|name| *name != ".")
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Store(tempfile::TempDir);

    impl Store {
        fn new() -> Self {
            let store = Self(tempfile::tempdir().expect("a directory for the test"));
            fs::create_dir_all(store.at("system")).expect("closure");
            fs::create_dir_all(store.at("tools/bin")).expect("tools");
            fs::write(store.at("tools/bin/init"), "#!/bin/sh\n").expect("write");
            store.set_mode("tools/bin/init", 0o555);
            store
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn set_mode(&self, path: &str, mode: u32) {
            fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("chmod");
        }

        fn reason(&self, closure: &str) -> Option<String> {
            boot_problem(self.0.path(), &self.at(closure)).expect("looks")
        }

        fn init(&self, target: impl AsRef<Path>) {
            fs::remove_file(self.at("system/init")).ok();
            symlink(target, self.at("system/init")).expect("link");
        }
    }

    #[test]
    fn init_is_found_through_links_inside_the_store() {
        let store = Store::new();
        symlink("tools", store.at("alias")).expect("link");
        for target in [
            store.at("alias/bin/init"),
            "../alias/./bin/../bin/init".into(),
        ] {
            store.init(target);
            assert_eq!(store.reason("system"), None);
        }
        symlink(store.at("system"), store.at("link")).expect("link");
        assert_eq!(store.reason("link"), None);
    }

    #[test]
    fn init_is_not_found_through_links_out_of_the_store() {
        let store = Store::new();
        // Points into the store again, but through a folder that the guest lacks.
        let outside = tempfile::tempdir().expect("directory");
        symlink(store.at("tools/bin/init"), outside.path().join("init")).expect("link");
        for target in [
            "/bin/sh".into(),
            outside.path().join("init"),
            "../../../bin/sh".into(),
        ] {
            store.init(&target);
            let reason = store.reason("system").expect("refused");
            assert!(
                reason.starts_with("its 'init' points outside the store"),
                "{reason}"
            );
        }
        symlink(outside.path(), store.at("link")).expect("link");
        assert!(
            store
                .reason("link")
                .expect("refused")
                .starts_with("it points outside the store")
        );
    }

    #[test]
    fn init_must_be_an_executable_file() {
        let store = Store::new();
        assert_eq!(store.reason("system").as_deref(), Some("it has no 'init'"));
        store.init("missing");
        assert_eq!(store.reason("system").as_deref(), Some("it has no 'init'"));
        store.init("init");
        assert_eq!(store.reason("system").as_deref(), Some("it has no 'init'"));
        store.init("../tools/bin/init/below");
        assert_eq!(store.reason("system").as_deref(), Some("it has no 'init'"));
        store.init("../tools/bin");
        let no_program = Some("its 'init' is not an executable file");
        assert_eq!(store.reason("system").as_deref(), no_program);
        store.init("../tools/bin/init");
        store.set_mode("tools/bin/init", 0o444);
        assert_eq!(store.reason("system").as_deref(), no_program);
        assert_eq!(
            store.reason("tools/bin/init").as_deref(),
            Some("it is not a directory")
        );
    }

    #[test]
    fn verify_reports_a_missing_closure() {
        let closure = StorePath::parse("/nix/store/00000000000000000000000000000000-nothing");
        let error = verify(&closure.expect("valid")).expect_err("missing");
        assert!(matches!(error, ClosureError::NotFound(_)));
    }
}
