//! A configuration's files as a store object of the evaluator.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use innkeeper_model::StorePath;
use innkeeper_model::preview::sources::{SourceEntry, SourcePath, SourceTree};
use rustix::fs::{Mode, OFlags, open};

use super::EvaluateError;
use super::hash::base16;
use super::key::Locked;
use super::object::{Object, source_path};
use super::registry::Registry;
use crate::FileErrorExt;

/// Maximum number of missing files in an error.
const EXAMPLES: usize = 5;

/// Limit of the archive's size, in bytes. Names and padding add to the files' sizes.
const MAX_ARCHIVE: u64 = 64 << 20;

/// The files of a repository that an evaluation may read.
pub(super) struct Repository {
    /// Their folder on the host.
    pub(super) folder: PathBuf,
    /// Their archive.
    pub(super) object: Object,
    /// Their place in the evaluator's store.
    pub(super) locked: Locked,
    /// The main file's path as a string of Nix.
    pub(super) main: String,
}

impl Repository {
    /// Its name in the evaluator's store. Messages omit it.
    pub(super) const NAME: &str = "repository";

    /// Writes the files into a new folder in `scratch`. Their names come from a repository, but [`SourcePath`] admits only
    /// plain ones. Links are written last, so that no file is written through one.
    pub(super) fn write(sources: &SourceTree, scratch: &Path) -> Result<Self, EvaluateError> {
        let folder = scratch.join(Self::NAME);
        for path in sources.folders() {
            let path = folder.join(path.as_str());
            // The evaluator's user reads it through a bind mount.
            let mut builder = DirBuilder::new();
            builder.mode(0o755).create(&path).on("create", &path)?;
        }
        for (path, entry) in sources.entries() {
            if let SourceEntry::File {
                contents,
                executable,
            } = entry
            {
                write_file(&folder.join(path.as_str()), contents, *executable)?;
            }
        }
        for (path, entry) in sources.entries() {
            if let SourceEntry::Link { target } = entry {
                let path = folder.join(path.as_str());
                symlink(target, &path).on("create", &path)?;
            }
        }
        let object = archive(scratch, Path::new(Self::NAME))?;
        let hash = object.nar_hash();
        let path = StorePath::parse(&source_path(Self::NAME, &hash, &[]))
            .map_err(|error| EvaluateError::Refused(error.to_string()))?;
        Ok(Self {
            folder,
            object,
            locked: Locked {
                path,
                nar_hash: base16(&hash),
            },
            main: quoted(sources.main()),
        })
    }

    /// Fails if the result depends on a copy of a folder of which the evaluation has only some files: the build would lack
    /// the others, without a hint to the reason.
    pub(super) fn require_no_partial_copy(
        &self,
        sources: &SourceTree,
        registry: &Registry,
        roots: &[StorePath],
    ) -> Result<(), EvaluateError> {
        let Ok(closure) = registry.closure(roots) else {
            // The import reports it.
            return Ok(());
        };
        let copies: HashSet<String> = closure
            .into_iter()
            .filter(|path| !path.as_str().ends_with(".drv"))
            .filter_map(|path| registry.nar_hash(path))
            .collect();
        if copies.is_empty() {
            return Ok(());
        }
        for path in sources.folders() {
            if !sources.is_partial(&path) {
                continue;
            }
            let object = archive(&self.folder, &Path::new(".").join(path.as_str()))?;
            if copies.contains(&base16(&object.nar_hash())) {
                return Err(partial(sources, &path));
            }
        }
        Ok(())
    }
}

fn write_file(path: &Path, contents: &[u8], executable: bool) -> Result<(), EvaluateError> {
    let mode = if executable { 0o555 } else { 0o444 };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).on("create", path)?;
    file.write_all(contents).on("write", path)?;
    // Regardless of the umask.
    fs::set_permissions(path, Permissions::from_mode(mode)).on("change", path)?;
    Ok(())
}

/// Archives a file or folder below `folder`.
fn archive(folder: &Path, name: &Path) -> Result<Object, EvaluateError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty()).on("open", folder)?;
    let name = name.to_str().unwrap_or_default();
    Ok(Object::read(opened.as_fd(), name, MAX_ARCHIVE).on("read", folder)?)
}

fn partial(sources: &SourceTree, folder: &SourcePath) -> EvaluateError {
    let omitted = sources.omitted().iter();
    let lines = omitted
        .filter(|omitted| folder.contains(&omitted.path))
        .take(EXAMPLES)
        .map(|omitted| format!("{} is not in the copy: {}", omitted.path, omitted.reason))
        .collect();
    EvaluateError::PartialSource {
        folder: if folder.is_root() {
            "the whole repository (./.)".to_owned()
        } else {
            format!("the folder {folder} of the repository")
        },
        lines,
    }
}

/// Returns a path as a string of Nix.
fn quoted(path: &SourcePath) -> String {
    let escaped = path.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace("${", "\\${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SourcePath {
        SourcePath::parse(text).expect(text)
    }

    #[test]
    fn repository_has_files_folders_and_links() {
        let dir = tempfile::tempdir().expect("directory");
        let mut sources = SourceTree::single("{ }");
        sources.add_file(path("nix/run.sh"), b"#!/bin/sh\n".to_vec(), true);
        sources.add_link(path("nix/main"), "../preview-config.nix".to_owned());
        let written = Repository::write(&sources, dir.path()).expect("writes");
        let read = |name: &str| fs::read_to_string(written.folder.join(name)).expect(name);
        assert_eq!(read("nix/main"), "{ }");
        let mode = |name: &str| {
            let metadata = fs::metadata(written.folder.join(name)).expect(name);
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(
            (mode("nix"), mode("nix/run.sh"), mode("preview-config.nix")),
            (0o755, 0o555, 0o444)
        );
        assert!(written.locked.path.as_str().ends_with("-repository"));
    }

    #[test]
    fn no_file_is_written_through_a_link() {
        let dir = tempfile::tempdir().expect("directory");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("folder");
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).expect("folder");
        let mut sources = SourceTree::single("{ }");
        sources.add_link(path("link"), outside.display().to_string());
        sources.add_file(path("link/x"), b"x".to_vec(), false);
        assert!(Repository::write(&sources, &scratch).is_err());
        assert_eq!(fs::read_dir(&outside).expect("lists").count(), 0);
    }

    #[test]
    fn quoted_path_is_one_string_of_nix() {
        assert_eq!(quoted(&path("a/${b}\"\\.nix")), r#""a/\${b}\"\\.nix""#);
    }
}
