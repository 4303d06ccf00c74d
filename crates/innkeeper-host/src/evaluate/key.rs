//! Cache key of an evaluation: a hash over all inputs.

use innkeeper_facilities::EvaluationKey;
use innkeeper_model::StorePath;
use innkeeper_model::preview::sources::SourceTree;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The expression that combines nixpkgs, the base module and the configuration. Part of the key: a changed text
/// evaluates all previews again.
pub(super) const COMPOSE: &str = include_str!("compose.nix");

/// A source in the host's store, at a content-addressed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its path, with the name `source`.
    pub path: StorePath,
    /// SHA-256 of its archive, as hexadecimal digits.
    pub nar_hash: String,
}

/// The inputs that all previews on this host share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// nixpkgs: a flake with `lib.nixosSystem`.
    pub nixpkgs: Locked,
    /// The base module's folder.
    pub module: Locked,
    /// The base module's file in it, such as `base.nix`.
    pub entry: String,
    /// Nix's system name, such as `x86_64-linux`.
    pub system: String,
}

/// Returns the key of a configuration on a base. Excludes the commit, the repository and settings that do not affect
/// the closure.
#[must_use]
pub fn key(sources: &SourceTree, base: &Base) -> EvaluationKey {
    let all = json!([
        super::hash::base16(&sources.digest()),
        base.nixpkgs.nar_hash,
        base.module.nar_hash,
        base.entry,
        base.system,
        COMPOSE,
    ]);
    EvaluationKey::new(Sha256::digest(all.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_changes_with_each_input() {
        let locked = |hash: &str| Locked {
            path: StorePath::parse("/nix/store/00000000000000000000000000000000-source")
                .expect("valid"),
            nar_hash: hash.to_owned(),
        };
        let base = Base {
            nixpkgs: locked("a"),
            module: locked("b"),
            entry: "base.nix".to_owned(),
            system: "x86_64-linux".to_owned(),
        };
        let first = key(&SourceTree::single("{ }"), &base);
        assert_eq!(key(&SourceTree::single("{ }"), &base), first);
        let others = [
            key(&SourceTree::single("{  }"), &base),
            key(
                &SourceTree::single("{ }"),
                &Base {
                    nixpkgs: locked("c"),
                    ..base.clone()
                },
            ),
            key(
                &SourceTree::single("{ }"),
                &Base {
                    module: locked("c"),
                    ..base.clone()
                },
            ),
            key(
                &SourceTree::single("{ }"),
                &Base {
                    entry: "other.nix".to_owned(),
                    ..base.clone()
                },
            ),
            key(
                &SourceTree::single("{ }"),
                &Base {
                    system: "aarch64-linux".to_owned(),
                    ..base.clone()
                },
            ),
        ];
        let mut distinct: Vec<_> = others.iter().chain([&first]).collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 6);
    }
}
