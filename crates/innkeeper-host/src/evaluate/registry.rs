//! A store's objects, as `nix-store --dump-db` prints them: path, hash, size, deriver, number of references and the
//! references, each on its own line. Nix's `makeValidityRegistration` (src/libstore/store-api.cc) writes it and
//! `nix-store --load-db` reads it; unchanged since Nix 1.0.

use std::collections::HashMap;

use innkeeper_model::StorePath;

use super::hash::base16;
use super::object::Object;

/// The objects of a store and their references.
#[derive(Debug, Default)]
pub(super) struct Registry(HashMap<StorePath, Entry>);

#[derive(Debug)]
struct Entry {
    nar_hash: String,
    references: Vec<StorePath>,
}

impl Registry {
    /// Parses a dump. Returns `None` if it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut entries = HashMap::new();
        let mut lines = text.lines();
        while let Some(path) = lines.next() {
            let nar_hash = lines.next()?.to_owned();
            let (_size, _deriver) = (lines.next()?, lines.next()?);
            let count: usize = lines.next()?.parse().ok()?;
            let mut references = Vec::new();
            for _ in 0..count {
                references.push(StorePath::parse(lines.next()?).ok()?);
            }
            let entry = Entry {
                nar_hash,
                references,
            };
            entries.insert(StorePath::parse(path).ok()?, entry);
        }
        Some(Self(entries))
    }

    /// Returns the hash of a path's archive, as hexadecimal digits.
    pub(super) fn nar_hash(&self, path: &StorePath) -> Option<String> {
        self.0.get(path).map(|entry| entry.nar_hash.clone())
    }

    /// Returns a path's references, including a reference to itself.
    pub(super) fn references(&self, path: &StorePath) -> Option<&[StorePath]> {
        self.0.get(path).map(|entry| entry.references.as_slice())
    }

    /// Returns the transitive closure of some objects, references first. Returns the path that is missing or part of a
    /// cycle as the error.
    pub(super) fn closure(&self, roots: &[StorePath]) -> Result<Vec<&StorePath>, StorePath> {
        /// State of an object in the depth-first walk.
        enum Mark {
            Open,
            Done,
        }
        let mut marks: HashMap<&StorePath, Mark> = HashMap::new();
        let mut order = Vec::new();
        // An object is popped a second time when all its references are done.
        let mut stack: Vec<(&StorePath, bool)> = roots.iter().map(|root| (root, false)).collect();
        while let Some((path, visited)) = stack.pop() {
            let (path, entry) = self.0.get_key_value(path).ok_or_else(|| path.clone())?;
            if visited {
                marks.insert(path, Mark::Done);
                order.push(path);
                continue;
            }
            match marks.get(path) {
                Some(Mark::Done) => continue,
                Some(Mark::Open) => return Err(path.clone()),
                None => {}
            }
            marks.insert(path, Mark::Open);
            stack.push((path, true));
            let references = entry.references.iter().filter(|other| *other != path);
            stack.extend(
                references
                    .filter(|other| !matches!(marks.get(other), Some(Mark::Done)))
                    .map(|other| (other, false)),
            );
        }
        Ok(order)
    }
}

/// Returns the input of `nix-store --load-db` for one object without references.
pub(super) fn registration(path: &StorePath, object: &Object) -> String {
    let hash = base16(&object.nar_hash());
    format!("{path}\n{hash}\n{}\n\n0\n", object.nar.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> StorePath {
        let text = format!("/nix/store/00000000000000000000000000000000-{name}");
        StorePath::parse(&text).expect("valid")
    }

    fn dump(entries: &[(&str, &[&str])]) -> String {
        entries
            .iter()
            .map(|(name, references)| {
                let lines: String = references
                    .iter()
                    .map(|r| format!("{}\n", path(r)))
                    .collect();
                format!("{}\nhash\n1\n\n{}\n{lines}", path(name), references.len())
            })
            .collect()
    }

    #[test]
    fn closure_lists_references_before_their_referrers() {
        let text = dump(&[
            ("top", &["a", "b", "top"]),
            ("a", &["c"]),
            ("b", &["a", "c"]),
            ("c", &[]),
            ("other", &["c"]),
        ]);
        let registry = Registry::parse(&text).expect("parses");
        let order = registry
            .closure(&[path("top"), path("a")])
            .expect("complete");
        assert_eq!(order, [&path("c"), &path("a"), &path("b"), &path("top")]);
    }

    #[test]
    fn closure_fails_for_missing_paths_and_cycles() {
        let registry = Registry::parse(&dump(&[("a", &["b"])])).expect("parses");
        assert_eq!(registry.closure(&[path("a")]), Err(path("b")));
        let registry = Registry::parse(&dump(&[("a", &["b"]), ("b", &["a"])])).expect("parses");
        registry.closure(&[path("a")]).expect_err("a cycle");
        for bad in [
            "x",
            "/etc/passwd\nh\n1\n\n0\n",
            &dump(&[("a", &["b"])])[..80],
        ] {
            assert!(Registry::parse(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_and_closure_never_panic(text in "(/nix/store/0{32}-[a-c]\n|[0-9]{0,3}\n|.{0,5}\n){0,30}") {
            if let Some(registry) = Registry::parse(&text) {
                registry.closure(&[path("a")]).ok();
            }
        }
    }
}
