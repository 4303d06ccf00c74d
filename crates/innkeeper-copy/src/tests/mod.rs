mod hostile;
mod round_trip;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{CopyError, Owner, ProcessDir, Receiver, Target, Totals, send};

/// Two directories, `from` and `to`, and one beside them that no copy may change.
pub(super) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(super) fn new() -> Self {
        let scratch = Self(tempfile::tempdir().expect("a directory"));
        for name in ["from", "to", "outside"] {
            fs::create_dir(scratch.path(name)).expect("created");
        }
        fs::write(scratch.path("outside/file"), "untouched").expect("written");
        scratch
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect(name);
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect(name)
    }

    pub(super) fn send(&self, sources: &[&str]) -> Result<Vec<u8>, CopyError> {
        let sources: Vec<_> = sources.iter().map(|name| self.path(name)).collect();
        let mut stream = Vec::new();
        send::<ProcessDir>(&mut stream, &sources, &mut |_| {})?;
        Ok(stream)
    }

    pub(super) fn receive(&self, stream: &[u8], target: &str) -> Result<Totals, CopyError> {
        let target = Target::<ProcessDir>::resolve(&self.path(target), false)?;
        Receiver::new(target, Owner::Process).receive(stream)
    }

    pub(super) fn copy(&self, sources: &[&str], target: &str) -> Result<Totals, CopyError> {
        self.receive(&self.send(sources)?, target)
    }

    /// Asserts that nothing outside of `to` has changed, and that no temporary file is left.
    pub(super) fn check(&self) {
        assert_eq!(names(&self.path("outside")), ["file"]);
        assert_eq!(self.read("outside/file"), "untouched");
        assert_eq!(names(self.0.path()), ["from", "outside", "to"]);
        let left: Vec<_> = names(&self.path("to"))
            .into_iter()
            .filter(|name| name.starts_with(".innkeeper"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}
