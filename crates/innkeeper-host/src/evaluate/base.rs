//! Adds nixpkgs and the base module to the store, at content-addressed paths.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use innkeeper_model::StorePath;

use super::hash::{base16, from_sri};
use super::key::{Base, Locked};
use super::nix::Nix;
use super::object::{SOURCE, source_path};
use super::registry::Registry;
use super::{EvaluateError, EvaluatorConfig, roots};

/// Copies nixpkgs and the base module into the store unless they are there, and sets GC roots for them.
pub(super) async fn lock(config: &EvaluatorConfig) -> Result<Base, EvaluateError> {
    let (folder, entry) = find(config)?;
    let nix = Nix::new(&config.nix, &config.scratch);
    let nixpkgs = source(&nix, config, &config.nixpkgs, "nixpkgs").await?;
    if let Some(hash) = &config.nixpkgs_hash {
        let expected = from_sri(hash)
            .ok_or_else(|| invalid(&config.nixpkgs, "its hash is not of the form sha256-…"))?;
        if nixpkgs.nar_hash != base16(&expected) {
            let reason = "it does not have the configured hash";
            return Err(invalid(&config.nixpkgs, reason));
        }
    }
    Ok(Base {
        nixpkgs,
        module: source(&nix, config, folder, "base").await?,
        entry: entry.to_owned(),
        system: config.system.clone(),
    })
}

/// Checks that nixpkgs and the base module exist.
pub(super) fn check(config: &EvaluatorConfig) -> Result<(), EvaluateError> {
    find(config).map(drop)
}

/// Returns the base module's folder and file name.
fn find(config: &EvaluatorConfig) -> Result<(&Path, &str), EvaluateError> {
    let nixpkgs = &config.nixpkgs;
    if !nixpkgs.join("flake.nix").is_file() {
        return Err(invalid(nixpkgs, "it has no flake.nix"));
    }
    let module = &config.base_module;
    match (module.parent(), module.file_name().and_then(OsStr::to_str)) {
        (Some(folder), Some(entry)) if is_plain(entry) && module.is_file() => Ok((folder, entry)),
        _ => Err(invalid(module, "it is not a file with a plain name")),
    }
}

fn invalid(path: &Path, reason: &str) -> EvaluateError {
    EvaluateError::Base {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// Reports whether a file name needs no quoting in Nix.
fn is_plain(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Adds a folder to the store as a source, with a GC root.
async fn source(
    nix: &Nix<'_>,
    config: &EvaluatorConfig,
    folder: &Path,
    root: &str,
) -> Result<Locked, EvaluateError> {
    let folder = fs::canonicalize(folder).map_err(|error| invalid(folder, &error.to_string()))?;
    let text = folder
        .to_str()
        .ok_or_else(|| invalid(&folder, "its name is not UTF-8"))?;
    let existing = match StorePath::parse(text) {
        Ok(path) => read(nix, path).await.ok(),
        Err(_) => None,
    };
    let locked = match existing {
        Some(locked) if is_content_addressed(&locked) => locked,
        // A derivation's output, or not a store path.
        _ => read(nix, nix.add(&folder).await?).await?,
    };
    roots::set(&config.roots.join(".base"), root, &locked.path)?;
    Ok(locked)
}

/// Reads a path's hash from the store. Fails if the path is not valid.
async fn read(nix: &Nix<'_>, path: StorePath) -> Result<Locked, EvaluateError> {
    let dump = nix.dump_db(&[&path]).await?;
    let nar_hash = Registry::parse(&dump)
        .and_then(|registry| registry.nar_hash(&path))
        .ok_or_else(|| invalid(path.as_path(), "Nix does not print its hash"))?;
    Ok(Locked { path, nar_hash })
}

fn is_content_addressed(locked: &Locked) -> bool {
    super::hash::from_base16(&locked.nar_hash)
        .is_some_and(|hash| source_path(SOURCE, &hash, &[]) == locked.path.as_str())
}
