//! The difference between two closures, in packages.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::StorePath;

/// Maximum number of packages that a difference lists.
const MAX_LISTED: usize = 100;

/// Names of outputs that Nix appends to a store path's name.
const OUTPUTS: [&str; 11] = [
    "bin", "data", "debug", "dev", "devdoc", "doc", "info", "lib", "man", "out", "static",
];

/// A package and its versions. Most packages have one version in a closure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Package {
    /// Its name, such as `openssl`.
    pub name: String,
    /// Its versions, such as `3.0.13`, in ascending order of their text.
    pub versions: BTreeSet<String>,
}

/// A package with other versions than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangedPackage {
    /// Its name.
    pub name: String,
    /// Its former versions.
    pub before: BTreeSet<String>,
    /// Its versions.
    pub after: BTreeSet<String>,
}

/// The difference between two closures in packages. Store paths without a version are none: units, scripts, settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageChanges {
    /// Packages that only the new closure has, by name.
    pub added: Vec<Package>,
    /// Packages that only the former closure had, by name.
    pub removed: Vec<Package>,
    /// Packages with other versions, by name.
    pub changed: Vec<ChangedPackage>,
    /// Number of further differences that are not listed.
    #[serde(default)]
    pub more: usize,
}

impl PackageChanges {
    /// Compares the paths of two closures.
    #[must_use]
    pub fn between(before: &[StorePath], after: &[StorePath]) -> Self {
        let (before, after) = (packages(before), packages(after));
        let mut changes = Self::default();
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let listed = changes.listed();
            match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) if before == after => {}
                _ if listed == MAX_LISTED => changes.more += 1,
                (Some(before), Some(after)) => changes.changed.push(ChangedPackage {
                    name: name.clone(),
                    before: before.clone(),
                    after: after.clone(),
                }),
                (None, Some(versions)) => changes.added.push(package(name, versions)),
                (Some(versions), None) => changes.removed.push(package(name, versions)),
                (None, None) => {}
            }
        }
        changes
    }

    /// Reports whether the closures have the same packages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed() == 0 && self.more == 0
    }

    /// Returns the number of listed packages.
    fn listed(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len()
    }

    /// Returns the difference in one line, such as `1 added, 2 changed`.
    #[must_use]
    pub fn summary(&self) -> String {
        let parts = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
            (self.more, "more"),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        match parts.is_empty() {
            true => "unchanged".to_owned(),
            false => parts.join(", "),
        }
    }

    /// Returns the difference in lines that begin with `+`, `-` or `~`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let added = self
            .added
            .iter()
            .map(|one| format!("+ {} {}", one.name, joined(&one.versions)));
        let removed = self
            .removed
            .iter()
            .map(|one| format!("- {} {}", one.name, joined(&one.versions)));
        let changed = self.changed.iter().map(|one| {
            let (before, after) = (joined(&one.before), joined(&one.after));
            format!("~ {} {before} -> {after}", one.name)
        });
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        added.chain(removed).chain(changed).chain(more).collect()
    }
}

fn package(name: &str, versions: &BTreeSet<String>) -> Package {
    Package {
        name: name.to_owned(),
        versions: versions.clone(),
    }
}

fn joined(versions: &BTreeSet<String>) -> String {
    let versions: Vec<_> = versions.iter().map(String::as_str).collect();
    versions.join(", ")
}

/// Returns the packages of a closure with their versions.
fn packages(paths: &[StorePath]) -> BTreeMap<String, BTreeSet<String>> {
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in paths {
        if let Some((name, version)) = parse(path) {
            let versions = packages.entry(name.to_owned()).or_default();
            versions.insert(version.to_owned());
        }
    }
    packages
}

/// Splits a store path's name into the name and the version of its package, by Nix's rule (`builtins.parseDrvName`): the
/// version begins after the first `-` that no letter follows.
fn parse(path: &StorePath) -> Option<(&str, &str)> {
    let (_, full) = path.as_str().rsplit_once('/')?;
    let (_, full) = full.split_once('-')?;
    let begins = |at: usize| {
        let next = full[at + 1..].chars().next();
        next.is_some_and(|next| next.is_ascii_digit())
    };
    let (at, _) = full.match_indices('-').find(|(at, _)| begins(*at))?;
    let (name, mut version) = (&full[..at], &full[at + 1..]);
    if let Some((rest, output)) = version.rsplit_once('-')
        && OUTPUTS.contains(&output)
    {
        version = rest;
    }
    (!name.is_empty()).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<StorePath> {
        let path = |name: &&str| format!("/nix/store/{}-{name}", "0".repeat(32));
        let paths = names
            .iter()
            .map(|name| StorePath::parse(&path(name)).expect("valid"));
        paths.collect()
    }

    #[test]
    fn changes_list_added_removed_and_changed_packages() {
        let before = paths(&[
            "openssl-3.0.13",
            "openssl-3.0.13-bin",
            "python3-3.11.9",
            "glibc-2.39-52",
            "unit-app.service",
        ]);
        let after = paths(&[
            "openssl-3.0.14",
            "openssl-3.0.14-bin",
            "nodejs-22.1.0",
            "glibc-2.39-52",
            "unit-other.service",
        ]);
        let changes = PackageChanges::between(&before, &after);
        assert_eq!(
            changes.lines(),
            [
                "+ nodejs 22.1.0",
                "- python3 3.11.9",
                "~ openssl 3.0.13 -> 3.0.14"
            ]
        );
        assert_eq!(changes.summary(), "1 added, 1 removed, 1 changed");
    }

    #[test]
    fn equal_closures_have_no_changes() {
        let closure = paths(&["a-1", "b-2", "etc"]);
        let changes = PackageChanges::between(&closure, &closure);
        assert!(changes.is_empty());
        assert_eq!(changes.summary(), "unchanged");
    }

    #[test]
    fn package_name_ends_before_its_version() {
        for (name, expected) in [
            ("gcc-13.2.0-lib", Some(("gcc", "13.2.0"))),
            (
                "perl5.38.2-Test-Deep-1.204",
                Some(("perl5.38.2-Test-Deep", "1.204")),
            ),
            (
                "python3.11-requests-2.31.0",
                Some(("python3.11-requests", "2.31.0")),
            ),
            ("web-app-1.0-rc1-dev", Some(("web-app", "1.0-rc1"))),
            ("unit-app.service", None),
            ("-1", None),
        ] {
            let path = paths(&[name]).remove(0);
            assert_eq!(parse(&path), expected, "{name}");
        }
    }

    #[test]
    fn listed_changes_are_bounded() {
        let names: Vec<_> = (0..MAX_LISTED + 7)
            .map(|number| format!("p{number}-1"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let changes = PackageChanges::between(&[], &paths(&names));
        assert_eq!((changes.added.len(), changes.more), (MAX_LISTED, 7));
    }
}
