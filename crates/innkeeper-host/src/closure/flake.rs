//! What a flake is made of, and what it has, without evaluating its outputs.

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

/// What `nix flake metadata --json` says. Nix 2.8 and newer versions agree on these fields.
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
    /// A hash of all that the output is built from: the flake's source, its locked inputs, the attribute
    /// and the settings. Nothing when the source cannot be named for sure; then nothing is known to be
    /// the same. The source's time of change is left out: a touched file is no change.
    pub(super) fn fingerprint(
        &self,
        installable: &Installable,
        options: &BTreeMap<String, String>,
    ) -> Option<String> {
        let directory = self.locked.get("dir");
        // A store path of a source is a hash of its contents; `rev` names a commit.
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

    /// The output of the flake as it is locked, so that what was checked is what is built.
    pub(super) fn pinned(&self, installable: &Installable) -> String {
        let flake = self.url.as_deref().unwrap_or(installable.flake());
        format!("{flake}#{}", installable.attribute())
    }

    /// Refuses a flake that is on the host, or has an input there: a member must not have the host read files. Relative
    /// paths are allowed: Nix refuses those that lead out of the tree that they are in.
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

    /// A Nix expression that says whether the flake has the output: in any of the places where
    /// `nix build` looks for it (Nix manual, "Flake output attribute"). Nothing when Nix did not say
    /// enough for a pure evaluation.
    pub(super) fn has_output(&self, installable: &Installable) -> Option<String> {
        let path = self.path.as_deref()?;
        let hash = self.locked.get("narHash")?.as_str()?;
        let mut reference = format!("path:{path}?narHash={}", percent_encoded(hash));
        if let Some(directory) = self.locked.get("dir").and_then(Value::as_str) {
            write!(reference, "&dir={}", percent_encoded(directory)).ok()?;
        }
        let names = attribute_names(installable.attribute());
        let system = format!("{}-linux", std::env::consts::ARCH);
        let places = [
            vec![],
            vec!["packages".into(), system.clone()],
            vec!["legacyPackages".into(), system],
        ];
        let places: String = places
            .into_iter()
            .map(|place| [place, names.clone()].concat())
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
             in builtins.any (has (builtins.getFlake {})) [ {places}]",
            quoted(&reference)
        ))
    }
}

/// Describes a flake reference, given as attributes, unless it is known to be remote or relative (Nix manual, "Flake
/// references", "Types").
fn local_reference(attributes: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let (kind, url) = (text("type").unwrap_or_default(), text("url"));
    let fine = match kind {
        "github" | "gitlab" | "sourcehut" | "indirect" => true,
        "git" | "tarball" | "file" => {
            url.is_some_and(|url| url.starts_with("https://") || url.starts_with("http://"))
        }
        "path" => text("path").is_some_and(|path| !path.starts_with('/')),
        _ => false,
    };
    let place = url.or(text("path")).unwrap_or("unknown");
    (!fine).then(|| format!("'{place}' of type '{kind}'"))
}

/// Checks that the directory of a local flake is there and holds a flake. Other references are Nix's to
/// look at. Nix would look for `flake.nix` in the directories above, too; for a daemon that would be a
/// surprise.
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
        "it holds no flake.nix"
    } else {
        return Ok(());
    };
    Err(ClosureError::FlakeNotFound {
        flake: installable.flake().to_owned(),
        reason,
    })
}

/// The directory of `flake.nix`, if the reference is a path on this host (Nix manual, "Flake
/// references"). A path with escaped characters is left to Nix.
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

/// The names in an attribute path: parted by dots, except inside double quotes.
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

/// A text as a string of the Nix language (Nix manual, "String literal").
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

/// A text as the value of a query parameter (RFC 3986, section 2.1).
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

/// Bytes as hexadecimal digits.
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
    fn the_fingerprint_follows_source_inputs_attribute_and_settings_only() {
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
    fn a_source_that_cannot_be_named_is_never_the_same() {
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
    fn a_flake_with_an_input_on_the_host_is_refused() {
        let github = json!({"type": "github", "owner": "o", "repo": "r"});
        let remote = |locked: &Value, original: &Value| {
            let nodes = json!({
                "root": {"inputs": {"a": "a"}},
                "a": {"locked": locked, "original": original}
            });
            let of = json!({"locked": github, "locks": {"nodes": nodes}});
            metadata(of).require_remote(&installable("github:o/r#a"))
        };
        for fine in [
            json!({"type": "gitlab", "owner": "o", "repo": "r"}),
            json!({"type": "git", "url": "https://host/o/r"}),
            json!({"type": "tarball", "url": "https://host/x.tar.gz"}),
            json!({"type": "path", "path": "./sub"}),
            json!({"type": "path", "path": "../sub"}),
        ] {
            remote(&fine, &fine).expect("remote");
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
    fn local_flakes_are_known_by_their_reference() {
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
    fn attribute_paths_become_strings_that_nix_does_not_interpret() {
        assert_eq!(attribute_names("a.\"b.c\".d"), ["a", "b.c", "d"]);
        assert_eq!(quoted("a\"\\${x}"), "\"a\\\"\\\\\\${x}\"");
        assert_eq!(percent_encoded("sha256-a/b+c="), "sha256-a/b%2Bc%3D");
    }
}
