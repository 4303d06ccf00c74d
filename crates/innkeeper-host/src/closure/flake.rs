//! A flake's inputs and outputs, determined without evaluating the outputs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use innkeeper_model::Installable;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::ClosureError;

/// Output of `nix flake metadata --json`. These fields are the same since Nix 2.8.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    locked: Map<String, Value>,
    #[serde(default)]
    locks: Value,
    /// The flake's source in the store.
    #[serde(default)]
    path: Option<String>,
    /// The locked reference.
    #[serde(default)]
    url: Option<String>,
}

impl Metadata {
    /// Returns a hash over all inputs of the output: the flake's source, its locked inputs, the attribute and the settings.
    /// Returns `None` if the source has no unambiguous name; such a build is never reused. Excludes the modification time:
    /// a touched file is not a change.
    pub(super) fn fingerprint(
        &self,
        installable: &Installable,
        options: &BTreeMap<String, String>,
    ) -> Option<String> {
        let directory = self.locked.get("dir");
        // A source's store path is a hash of its contents; `rev` is a commit.
        let source = self
            .locked
            .get("narHash")
            .or(self.locked.get("rev"))
            .cloned()
            .or_else(|| self.path.clone().map(Value::String))?;
        let all = json!([
            source,
            directory,
            self.locks,
            installable.attribute(),
            options
        ]);
        Some(hex(&Sha256::digest(all.to_string())))
    }

    /// Returns the output of the locked flake, so that the build uses the flake that was checked.
    pub(super) fn pinned(&self, installable: &Installable) -> String {
        let flake = self.url.as_deref().unwrap_or(installable.flake());
        format!("{flake}#{}", installable.attribute())
    }

    /// Rejects a flake on the host, or one with an input there: members must not make the host read files. Allows relative
    /// paths: Nix rejects those that leave their tree.
    pub(super) fn require_remote(&self, installable: &Installable) -> Result<(), ClosureError> {
        if local_reference(&self.locked).is_some() {
            return Err(ClosureError::LocalFlake(installable.clone()));
        }
        let nodes = self.locks.get("nodes").and_then(Value::as_object);
        for (input, node) in nodes.into_iter().flatten() {
            for kind in ["locked", "original"] {
                let reference = node.get(kind).and_then(Value::as_object);
                if let Some(reference) = reference.and_then(local_reference) {
                    return Err(ClosureError::LocalInput {
                        installable: installable.clone(),
                        input: input.clone(),
                        reference,
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns a Nix expression that evaluates to whether the flake has the output, under any of the prefixes that
    /// `nix build` tries (Nix manual, "Flake output attribute"). Returns `None` if the metadata does not suffice for a
    /// pure evaluation.
    pub(super) fn has_output(&self, installable: &Installable) -> Option<String> {
        let path = self.path.as_deref()?;
        let hash = self.locked.get("narHash")?.as_str()?;
        let mut reference = format!("path:{path}?narHash={}", percent_encoded(hash));
        if let Some(directory) = self.locked.get("dir").and_then(Value::as_str) {
            write!(reference, "&dir={}", percent_encoded(directory)).ok()?;
        }
        let names = attribute_names(installable.attribute());
        let system = format!("{}-linux", std::env::consts::ARCH);
        let prefixes = [
            vec![],
            vec!["packages".into(), system.clone()],
            vec!["legacyPackages".into(), system],
        ];
        let paths: String = prefixes
            .into_iter()
            .map(|prefix| [prefix, names.clone()].concat())
            .map(|names| {
                format!(
                    "[ {} ] ",
                    names.iter().map(|n| quoted(n) + " ").collect::<String>()
                )
            })
            .collect();
        Some(format!(
            "let has = set: names: names == [ ] || (builtins.isAttrs set && set ? ${{builtins.head names}} \
             && has set.${{builtins.head names}} (builtins.tail names)); \
             in builtins.any (has (builtins.getFlake {})) [ {paths}]",
            quoted(&reference)
        ))
    }
}

/// Describes a flake reference, given as attributes. Returns `None` if it is known to be remote or relative (Nix manual,
/// "Flake references", "Types").
fn local_reference(attributes: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let (kind, url) = (text("type").unwrap_or_default(), text("url"));
    let allowed = match kind {
        "github" | "gitlab" | "sourcehut" | "indirect" => true,
        "git" | "tarball" | "file" => {
            url.is_some_and(|url| url.starts_with("https://") || url.starts_with("http://"))
        }
        "path" => text("path").is_some_and(|path| !path.starts_with('/')),
        _ => false,
    };
    let location = url.or(text("path")).unwrap_or("unknown");
    (!allowed).then(|| format!("'{location}' of type '{kind}'"))
}

/// Checks that the directory of a local flake exists and has a flake. Leaves other references to Nix. Does not search
/// parent directories as Nix does, which would be surprising for a daemon.
pub(super) fn require_local(installable: &Installable) -> Result<(), ClosureError> {
    let Some(directory) = local_directory(installable.flake()) else {
        return Ok(());
    };
    let missing = |path: PathBuf| {
        fs::metadata(path).is_err_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        })
    };
    let reason = if missing(directory.clone()) {
        "the directory does not exist"
    } else if missing(directory.join("flake.nix")) {
        "it has no flake.nix"
    } else {
        return Ok(());
    };
    Err(ClosureError::FlakeNotFound {
        flake: installable.flake().to_owned(),
        reason,
    })
}

/// Returns the directory of `flake.nix` if the reference is a path on this host (Nix manual, "Flake references"). Leaves
/// paths with escaped characters to Nix.
fn local_directory(flake: &str) -> Option<PathBuf> {
    let path = match flake.strip_prefix("path:") {
        Some(path) => path,
        None if flake.starts_with(['/', '.']) => flake,
        None => return None,
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let inside = query.split('&').find_map(|pair| pair.strip_prefix("dir="));
    let escaped = path.contains('%') || inside.is_some_and(|inside| inside.contains('%'));
    (!escaped).then(|| PathBuf::from(path).join(inside.unwrap_or_default()))
}

/// Splits an attribute path at dots, except inside double quotes.
fn attribute_names(attribute: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut in_quotes = false;
    for c in attribute.chars() {
        match c {
            '"' => in_quotes = !in_quotes,
            '.' if !in_quotes => names.push(String::new()),
            c => names
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|name| name.push(c)),
        }
    }
    names
}

/// Quotes a text as a string of the Nix language (Nix manual, "String literal").
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Percent-encodes a text for a query parameter (RFC 3986, section 2.1).
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// Encodes bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{Code, Explain};

    use super::*;

    fn installable(text: &str) -> Installable {
        Installable::parse(text, "x").expect(text)
    }

    fn metadata(json: Value) -> Metadata {
        serde_json::from_value(json).expect("metadata")
    }

    #[test]
    fn fingerprint_covers_source_inputs_attribute_and_settings() {
        let none = BTreeMap::new();
        let base = json!({"locked": {"narHash": "sha256-a", "lastModified": 1}, "locks": {"v": 1}});
        let of = |json: &Value, attribute: &str| {
            metadata(json.clone())
                .fingerprint(&installable(attribute), &none)
                .expect("known")
        };
        let first = of(&base, "/f#a");
        let mut touched = base.clone();
        touched["locked"]["lastModified"] = json!(2);
        touched["somethingNew"] = json!("x");
        assert_eq!(of(&touched, "/f#a"), first);
        assert_ne!(of(&base, "/f#b"), first);
        for (pointer, value) in [("/locked/narHash", "b"), ("/locks/v", "2")] {
            let mut changed = base.clone();
            *changed.pointer_mut(pointer).expect(pointer) = json!(value);
            assert_ne!(of(&changed, "/f#a"), first, "{pointer}");
        }
        let mut other = base.clone();
        other["locked"]["dir"] = json!("sub");
        assert_ne!(of(&other, "/f#a"), first);
        let options = BTreeMap::from([("system".to_owned(), "aarch64-linux".to_owned())]);
        assert_ne!(
            metadata(base).fingerprint(&installable("/f#a"), &options),
            Some(first)
        );
    }

    #[test]
    fn fingerprint_needs_an_unambiguous_source() {
        let none = BTreeMap::new();
        let of = |json| metadata(json).fingerprint(&installable("/f#a"), &none);
        assert_eq!(
            of(json!({"locked": {"lastModified": 1, "dirtyRev": "x"}})),
            None
        );
        assert!(of(json!({"locked": {"rev": "x"}})).is_some());
        assert!(of(json!({"path": "/nix/store/x-source"})).is_some());
    }

    #[test]
    fn require_remote_rejects_flakes_and_inputs_on_the_host() {
        let github = json!({"type": "github", "owner": "o", "repo": "r"});
        let remote = |locked: &Value, original: &Value| {
            let nodes = json!({
                "root": {"inputs": {"a": "a"}},
                "a": {"locked": locked, "original": original}
            });
            let of = json!({"locked": github, "locks": {"nodes": nodes}});
            metadata(of).require_remote(&installable("github:o/r#a"))
        };
        for allowed in [
            json!({"type": "gitlab", "owner": "o", "repo": "r"}),
            json!({"type": "git", "url": "https://host/o/r"}),
            json!({"type": "tarball", "url": "https://host/x.tar.gz"}),
            json!({"type": "path", "path": "./sub"}),
            json!({"type": "path", "path": "../sub"}),
        ] {
            remote(&allowed, &allowed).expect("remote");
        }
        for local in [
            json!({"type": "path", "path": "/root/secret"}),
            json!({"type": "path"}),
            json!({"type": "git", "url": "file:///root/secret"}),
            json!({"type": "git", "url": "/root/secret"}),
            json!({"type": "git", "url": "ssh://git@host/o/r"}),
            json!({"type": "tarball", "url": "file:///root/secret.tar.gz"}),
            json!({"type": "file", "url": "file:///root/secret"}),
            json!({"type": "hg", "url": "file:///root/secret"}),
            json!({"type": "new-kind", "url": "https://host"}),
        ] {
            for (locked, original) in [(&local, &github), (&github, &local)] {
                let error = remote(locked, original).expect_err("local");
                assert_eq!(error.code(), Code::FlakeRefused, "{local}");
            }
            let itself = metadata(json!({"locked": local, "locks": {}}));
            itself
                .require_remote(&installable("github:o/r#a"))
                .expect_err("local");
        }
    }

    #[test]
    fn local_directory_recognizes_paths_only() {
        let directory = |flake| local_directory(flake).map(|path| path.display().to_string());
        assert_eq!(directory("/srv/fleet").as_deref(), Some("/srv/fleet/"));
        assert_eq!(
            directory("path:/srv/fleet?dir=a&x=y").as_deref(),
            Some("/srv/fleet/a")
        );
        assert_eq!(directory("./fleet").as_deref(), Some("./fleet/"));
        for other in [
            "github:o/r",
            "git+file:///srv/fleet",
            "nixpkgs",
            "path:/a%20b",
        ] {
            assert_eq!(directory(other), None, "{other}");
        }
    }

    #[test]
    fn attribute_names_and_texts_are_quoted_for_nix() {
        assert_eq!(attribute_names("a.\"b.c\".d"), ["a", "b.c", "d"]);
        assert_eq!(quoted("a\"\\${x}"), "\"a\\\"\\\\\\${x}\"");
        assert_eq!(percent_encoded("sha256-a/b+c="), "sha256-a/b%2Bc%3D");
    }
}
