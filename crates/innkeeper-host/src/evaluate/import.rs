//! Imports objects from the evaluator's store into the host's.
//!
//! Skips objects that the host has: a valid object implies its references. So the second preview on the same nixpkgs imports
//! a handful of derivations instead of thousands.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use innkeeper_model::{STORE_DIR, StorePath};
use rustix::fs::{Mode, OFlags, open};

use super::EvaluateError;
use super::nix::Nix;
use super::object::{Object, put_number, put_string};
use super::registry::Registry;
use crate::FileErrorExt;

/// Precedes an object's path in the stream of `nix-store --import` (`exportMagic` in Nix's
/// src/libstore/export-import.cc).
const MAGIC: u64 = 0x4558_494e;

/// Size of the stream after which it is imported, in bytes.
const BATCH_SIZE: usize = 16 << 20;

/// Imports the closure of `roots` from an untrusted store. `store` is that store's folder as the host sees it; `limit` is
/// the maximum size in bytes. Returns the number of imported objects.
pub(super) async fn import(
    nix: &Nix<'_>,
    store: &Path,
    registry: &Registry,
    roots: &[StorePath],
    limit: u64,
) -> Result<usize, EvaluateError> {
    let order = registry.closure(roots).map_err(|path| {
        EvaluateError::Refused(format!("its store is incomplete: {}", name(&path)))
    })?;
    let missing: HashSet<StorePath> = nix.missing(&order).await?.into_iter().collect();
    let mut stream = Stream::default();
    let mut remaining = limit;
    for path in order.into_iter().filter(|path| missing.contains(path)) {
        let object = read(store, path, remaining).await?;
        remaining = remaining.saturating_sub(object.nar.len() as u64);
        let references = registry.references(path).unwrap_or_default();
        if !object.is_at(path, references) {
            let name = name(path);
            return Err(EvaluateError::Refused(format!(
                "'{name}' does not match the hash in its path"
            )));
        }
        stream.put(path, &object, references);
        if stream.bytes.len() > BATCH_SIZE {
            stream.flush(nix).await?;
        }
    }
    stream.flush(nix).await?;
    Ok(stream.total)
}

fn name(path: &StorePath) -> &str {
    super::object::name_of(path)
}

/// Reads an object on a blocking thread.
async fn read(store: &Path, path: &StorePath, limit: u64) -> Result<Object, EvaluateError> {
    let (store, object) = (store.to_owned(), path.clone());
    crate::tree::blocking(move || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(&store, flags, Mode::empty()).on("open", &store)?;
        let name = object
            .as_str()
            .trim_start_matches(STORE_DIR)
            .trim_start_matches('/');
        Object::read(folder.as_fd(), name, limit).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => EvaluateError::TooMuchOutput(limit),
            io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                EvaluateError::Refused(format!("'{}' is not a store object", self::name(&object)))
            }
            _ => EvaluateError::Read {
                path: object,
                source,
            },
        })
    })
    .await
}

/// Input of `nix-store --import`: for each object a 1, its archive, a magic number, its path, its references, its deriver
/// and a 0; at the end a 0.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    count: usize,
    total: usize,
}

impl Stream {
    fn put(&mut self, path: &StorePath, object: &Object, references: &[StorePath]) {
        put_number(&mut self.bytes, 1);
        self.bytes.extend_from_slice(&object.nar);
        put_number(&mut self.bytes, MAGIC);
        put_string(&mut self.bytes, path.as_str().as_bytes());
        put_number(&mut self.bytes, references.len() as u64);
        for reference in references {
            put_string(&mut self.bytes, reference.as_str().as_bytes());
        }
        put_string(&mut self.bytes, b"");
        put_number(&mut self.bytes, 0);
        self.count += 1;
    }

    async fn flush(&mut self, nix: &Nix<'_>) -> Result<(), EvaluateError> {
        if self.count == 0 {
            return Ok(());
        }
        put_number(&mut self.bytes, 0);
        let count = std::mem::take(&mut self.count);
        let bytes = std::mem::take(&mut self.bytes);
        self.total += count;
        nix.import(&bytes)
            .await
            .map_err(|source| EvaluateError::Import { count, source })
    }
}
