//! What the host gives to every preview, brought into the store under a path that is its own hash.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use innkeeper_model::StorePath;

use super::hash::{base16, from_sri};
use super::key::{Base, Locked};
use super::nix::Nix;
use super::object::source_path;
use super::registry::Registry;
use super::{EvaluateError, EvaluatorConfig, roots};

/// The name that flakes give to sources.
pub(super) const SOURCE: &str = "source";

/// Reads nixpkgs and the base module, copies into the store what is not there, and keeps it.
pub(super) async fn lock(config: &EvaluatorConfig) -> Result<Base, EvaluateError> {
    let (folder, entry) = find(config)?;
    let nix = Nix::new(&config.nix, &config.scratch);
    let nixpkgs = source(&nix, config, &config.nixpkgs, "nixpkgs").await?;
    if let Some(hash) = &config.nixpkgs_hash {
        let wanted = from_sri(hash)
            .ok_or_else(|| wrong(&config.nixpkgs, "its hash is not spelled sha256-…"))?;
        if nixpkgs.nar_hash != base16(&wanted) {
            let reason = "it has not the hash that it must have";
            return Err(wrong(&config.nixpkgs, reason));
        }
    }
    Ok(Base {
        nixpkgs,
        module: source(&nix, config, folder, "base").await?,
        entry: entry.to_owned(),
        system: config.system.clone(),
    })
}

/// Whether nixpkgs and the base module are there.
pub(super) fn check(config: &EvaluatorConfig) -> Result<(), EvaluateError> {
    find(config).map(drop)
}

/// The base module's folder and file.
fn find(config: &EvaluatorConfig) -> Result<(&Path, &str), EvaluateError> {
    let nixpkgs = &config.nixpkgs;
    if !nixpkgs.join("flake.nix").is_file() {
        return Err(wrong(nixpkgs, "there is no flake.nix in it"));
    }
    let module = &config.base_module;
    match (module.parent(), module.file_name().and_then(OsStr::to_str)) {
        (Some(folder), Some(entry)) if is_plain(entry) && module.is_file() => Ok((folder, entry)),
        _ => Err(wrong(module, "it is no file with a plain name")),
    }
}

fn wrong(what: &Path, reason: &str) -> EvaluateError {
    EvaluateError::Base {
        what: what.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// A file's name that needs no quoting in Nix.
fn is_plain(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// A folder as a source in the store, with a GC root.
async fn source(
    nix: &Nix<'_>,
    config: &EvaluatorConfig,
    folder: &Path,
    root: &str,
) -> Result<Locked, EvaluateError> {
    let folder = fs::canonicalize(folder).map_err(|error| wrong(folder, &error.to_string()))?;
    let text = folder
        .to_str()
        .ok_or_else(|| wrong(&folder, "its name is no text"))?;
    let there = match StorePath::parse(text) {
        Ok(path) => read(nix, path).await.ok(),
        Err(_) => None,
    };
    let locked = match there {
        Some(locked) if is_its_own_hash(&locked) => locked,
        // A derivation's output, or no store path at all.
        _ => read(nix, nix.add(&folder).await?).await?,
    };
    roots::set(&config.roots.join(".base"), root, &locked.path)?;
    Ok(locked)
}

/// What the store says of a path. Fails when it is not valid.
async fn read(nix: &Nix<'_>, path: StorePath) -> Result<Locked, EvaluateError> {
    let dump = nix.dump_db(&[&path]).await?;
    let nar_hash = Registry::parse(&dump)
        .and_then(|registry| registry.nar_hash(&path))
        .ok_or_else(|| wrong(path.as_path(), "Nix does not say what hash it has"))?;
    Ok(Locked { path, nar_hash })
}

fn is_its_own_hash(locked: &Locked) -> bool {
    super::hash::from_base16(&locked.nar_hash)
        .is_some_and(|hash| source_path(SOURCE, &hash, &[]) == locked.path.as_str())
}
