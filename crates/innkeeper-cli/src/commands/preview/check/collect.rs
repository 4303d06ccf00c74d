//! Reads the configuration in a directory, by the rules by which the daemon reads that of a commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use innkeeper_model::preview::check::{CheckConfig, CheckedFile};
use innkeeper_model::preview::sources::{FileTypes, SourcePath, references};
use innkeeper_model::{Code, Failure};

/// Limit of one file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Limit of all files together, in bytes.
const MAX_TOTAL: usize = 7 << 20;

/// Limit of files and links.
const MAX_FILES: usize = 1000;

/// Folders that Git does not contain.
const SKIPPED: [&str; 2] = [".git", "node_modules"];

/// Returns the main file, and the files and folders that Nix files refer to. Folders contribute files of these types.
///
/// # Errors
/// The main file cannot be read, or the configuration is too large.
pub(super) fn collect(
    root: &Path,
    main: &SourcePath,
    types: &FileTypes,
) -> Result<CheckConfig, Failure> {
    let mut collection = Collection {
        root,
        types,
        pending: VecDeque::from([main.clone()]),
        seen: BTreeSet::new(),
        size: 0,
        config: CheckConfig {
            main: main.clone(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            omitted: BTreeSet::new(),
        },
    };
    while let Some(path) = collection.pending.pop_front() {
        if collection.seen.insert(path.clone()) {
            collection.add(&path)?;
        }
    }
    if !collection.config.files.contains_key(main) {
        let message = format!("cannot read {main}: it is not a text in UTF-8 of at most 1 MiB");
        return Err(Failure::new(Code::InvalidRequest, message)
            .with_remedy("Save it as UTF-8, and move large parts into other files."));
    }
    Ok(collection.config)
}

struct Collection<'a> {
    root: &'a Path,
    types: &'a FileTypes,
    /// Paths to look at.
    pending: VecDeque<SourcePath>,
    seen: BTreeSet<SourcePath>,
    size: usize,
    config: CheckConfig,
}

impl Collection<'_> {
    /// Adds a file, a link, or the files of a folder. A path that does not exist is Nix's to report.
    fn add(&mut self, path: &SourcePath) -> Result<(), Failure> {
        let full = self.root.join(path.as_str());
        let Ok(metadata) = fs::symlink_metadata(&full) else {
            return Ok(());
        };
        if metadata.is_symlink() {
            return self.add_link(path, &full);
        }
        if metadata.is_dir() {
            self.add_folder(path, &full);
            return Ok(());
        }
        if metadata.is_file() {
            self.add_file(path, &full, metadata.permissions().mode() & 0o111 != 0)?;
        }
        Ok(())
    }

    fn add_link(&mut self, path: &SourcePath, full: &Path) -> Result<(), Failure> {
        let target = fs::read_link(full).ok();
        let target = target.as_deref().and_then(Path::to_str);
        match target.and_then(|target| Some((target, path.parent().resolve(target)?))) {
            Some((target, resolved)) => {
                self.config.links.insert(path.clone(), target.to_owned());
                self.pending.push_back(resolved);
                self.require_limits()
            }
            // It leaves the repository.
            None => {
                self.config.omitted.insert(path.clone());
                Ok(())
            }
        }
    }

    fn add_folder(&mut self, folder: &SourcePath, full: &Path) {
        let entries = fs::read_dir(full).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(path) = name.to_str().and_then(|name| folder.entry(name).ok()) else {
                continue;
            };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if SKIPPED.contains(&path.file_name()) {
                continue;
            }
            if is_folder || self.types.include(path.file_name()) {
                self.pending.push_back(path);
            } else {
                self.config.omitted.insert(path);
            }
        }
    }

    fn add_file(
        &mut self,
        path: &SourcePath,
        full: &Path,
        executable: bool,
    ) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        let file = fs::File::open(full);
        let read = file.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        let text = match read {
            Ok(length) if length as u64 <= MAX_FILE => String::from_utf8(bytes).ok(),
            _ => None,
        };
        let Some(text) = text else {
            self.config.omitted.insert(path.clone());
            return Ok(());
        };
        if path.as_str().ends_with(".nix") {
            let found = references(path, &text);
            self.pending.extend(found.paths);
            if found.any {
                self.pending.push_back(SourcePath::root());
            }
        }
        self.size += text.len();
        let file = CheckedFile { text, executable };
        self.config.files.insert(path.clone(), file);
        self.require_limits()
    }

    fn require_limits(&self) -> Result<(), Failure> {
        let CheckConfig {
            main, files, links, ..
        } = &self.config;
        if self.size <= MAX_TOTAL && files.len() + links.len() <= MAX_FILES {
            return Ok(());
        }
        let message = format!(
            "the configuration of {main} is too large: more than {MAX_FILES} files or 7 MiB"
        );
        Err(Failure::new(Code::InvalidRequest, message)
            .with_remedy("Refer to fewer files, or to smaller folders."))
    }
}
