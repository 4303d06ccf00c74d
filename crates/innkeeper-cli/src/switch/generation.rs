//! The files of a NixOS generation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use innkeeper_model::{Code, Failure};

use super::facts::Facts;
use super::unit_file::UnitFile;

/// Maximum size of one file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Maximum number of entries of a directory that are read.
const MAX_ENTRIES: usize = 20_000;

/// Units of the host that Innkeeper depends on, besides its own.
const OTHERS: [&str; 6] = [
    "caddy.service",
    "firewall.service",
    "nftables.service",
    "nix-daemon.service",
    "postgresql.service",
    "systemd-machined.service",
];

/// A generation, as far as it concerns Innkeeper.
#[derive(Clone, Debug, Default)]
pub(crate) struct Generation {
    /// Its directory, with symbolic links resolved.
    pub(crate) system: PathBuf,
    /// The units by name.
    pub(crate) units: BTreeMap<String, UnitFile>,
    /// The units that another one wants or requires.
    pub(crate) wanted: BTreeSet<String>,
    /// `None` if the generation has no such file.
    pub(crate) facts: Option<Facts>,
}

impl Generation {
    /// Reads a generation.
    pub(crate) fn read(system: &Path) -> Result<Self, Failure> {
        let refuse = |problem: String| {
            Failure::new(
                Code::InvalidRequest,
                format!("{}: {problem}", system.display()),
            )
        };
        let resolved = fs::canonicalize(system).map_err(|error| {
            refuse(format!("this NixOS system cannot be read: {error}")).with_remedy(NIXOS_ONLY)
        })?;
        let units_dir = resolved.join("etc/systemd/system");
        let metadata = fs::metadata(&units_dir).map_err(|_| {
            refuse("not a NixOS system: it has no etc/systemd/system".to_owned())
                .with_remedy(NIXOS_ONLY)
        })?;
        // Programs of the generation are run.
        let own = rustix::process::geteuid().as_raw();
        for owner in [
            fs::metadata(&resolved).map_or(metadata.uid(), |m| m.uid()),
            metadata.uid(),
        ] {
            if owner != 0 && owner != own {
                return Err(refuse(format!(
                    "the system belongs to user {owner}, and neither to root nor to you"
                ))
                .with_remedy("Give the path of a system in /nix/store."));
            }
        }
        let mut generation = Self {
            system: resolved,
            ..Self::default()
        };
        let failed = |error: io::Error| refuse(format!("cannot read the units: {error}"));
        generation.read_units(&units_dir).map_err(failed)?;
        let facts = generation.system.join("etc/innkeeper/host.json");
        if let Some(text) = read_file(&facts).map_err(failed)? {
            let parsed = serde_json::from_str(&text)
                .map_err(|error| refuse(format!("etc/innkeeper/host.json is invalid: {error}")))?;
            generation.facts = Some(parsed);
        }
        Ok(generation)
    }

    fn read_units(&mut self, directory: &Path) -> io::Result<()> {
        for name in entries(directory)? {
            if name.ends_with(".wants") || name.ends_with(".requires") {
                self.wanted.extend(entries(&directory.join(&name))?);
                continue;
            }
            // Drop-ins of a unit that comes from elsewhere are left out: it is the same in both generations.
            let is_unit = [".service", ".socket", ".slice", ".timer"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            if is_unit
                && is_relevant(&name)
                && let Some(unit) = read_unit(directory, &name)?
            {
                self.units.insert(name, unit);
            }
        }
        Ok(())
    }

    /// Returns the file that `innkeeper-agents.service` applies.
    pub(crate) fn agents(&self) -> Option<PathBuf> {
        let file = self.system.join("etc/innkeeper/agents.json");
        file.exists().then_some(file)
    }

    /// Returns the program of the daemon's unit and its configuration file in this generation.
    pub(crate) fn daemon(&self) -> Option<(PathBuf, Option<PathBuf>, &UnitFile)> {
        let unit = self.units.get("innkeeper.service")?;
        let mut words = unit.command().into_iter();
        let program = PathBuf::from(words.next()?);
        let config = words.skip_while(|word| word != "--config").nth(1);
        let config = config.map(|path| {
            let inside = self.system.join(path.trim_start_matches('/'));
            match inside.exists() {
                true => inside,
                false => PathBuf::from(path),
            }
        });
        Some((program, config, unit))
    }
}

const NIXOS_ONLY: &str = "The command compares NixOS systems, such as ./result of `nixos-rebuild build`. \
    Elsewhere, `innkeeperd --check-start` reports whether an installed release would start.";

fn is_relevant(name: &str) -> bool {
    name.starts_with("innkeeper") || OTHERS.contains(&name)
}

/// Returns the names in a directory, in order.
fn entries(directory: &Path) -> io::Result<BTreeSet<String>> {
    let names = fs::read_dir(directory)?.take(MAX_ENTRIES);
    names
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Reads a unit and its drop-ins. Returns `None` for a masked unit and for another name of a unit.
fn read_unit(directory: &Path, name: &str) -> io::Result<Option<UnitFile>> {
    let path = directory.join(name);
    let is_alias =
        |target: PathBuf| target.parent() == Some(Path::new("")) && target != Path::new(name);
    if fs::read_link(&path).is_ok_and(is_alias) {
        return Ok(None);
    }
    if fs::canonicalize(&path).is_ok_and(|target| target == Path::new("/dev/null")) {
        return Ok(None);
    }
    let Some(text) = read_file(&path)? else {
        return Ok(None);
    };
    let mut unit = UnitFile::default();
    unit.add(&text);
    let drop_ins = directory.join(format!("{name}.d"));
    if drop_ins.is_dir() {
        for drop_in in entries(&drop_ins)? {
            if let (true, Some(text)) = (
                drop_in.ends_with(".conf"),
                read_file(&drop_ins.join(&drop_in))?,
            ) {
                unit.add(&text);
            }
        }
    }
    Ok(Some(unit))
}

/// Reads a file of limited size. Returns `None` if it does not exist.
pub(crate) fn read_file(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_FILE >> 20
        )));
    }
    Ok(Some(text))
}
