//! What a store holds, as `nix-store --dump-db` prints it: path, hash, size, deriver, number of references and
//! the references, each on a line (Nix's `makeValidityRegistration` in src/libstore/store-api.cc, read by
//! `nix-store --load-db`; the same in all versions since Nix 1.0).

use std::collections::HashMap;

use innkeeper_model::StorePath;

use super::hash::base16;
use super::object::Object;

/// The objects of a store and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Registry(HashMap<StorePath, Entry>);

#[derive(Debug)]
struct Entry {
    nar_hash: String,
    references: Vec<StorePath>,
}

impl Registry {
    /// Reads what was dumped; nothing when it is something else.
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

    /// The hash of a path's archive, as hexadecimal digits.
    pub(super) fn nar_hash(&self, path: &StorePath) -> Option<String> {
        self.0.get(path).map(|entry| entry.nar_hash.clone())
    }

    /// What a path refers to, itself included if it does.
    pub(super) fn references(&self, path: &StorePath) -> Option<&[StorePath]> {
        self.0.get(path).map(|entry| entry.references.as_slice())
    }

    /// Some objects and all that they refer to, references before what refers to them. Gives the path that
    /// is missing, or stands in its own way, when the store is not whole.
    pub(super) fn closure(&self, roots: &[StorePath]) -> Result<Vec<&StorePath>, StorePath> {
        /// How far the walk is with an object.
        enum Mark {
            Open,
            Done,
        }
        let mut marks: HashMap<&StorePath, Mark> = HashMap::new();
        let mut order = Vec::new();
        // An object is met a second time when all that it refers to is done.
        let mut ahead: Vec<(&StorePath, bool)> = roots.iter().map(|root| (root, false)).collect();
        while let Some((path, met)) = ahead.pop() {
            let (path, entry) = self.0.get_key_value(path).ok_or_else(|| path.clone())?;
            if met {
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
            ahead.push((path, true));
            let references = entry.references.iter().filter(|other| *other != path);
            ahead.extend(
                references
                    .filter(|other| !matches!(marks.get(other), Some(Mark::Done)))
                    .map(|other| (other, false)),
            );
        }
        Ok(order)
    }
}

/// One object without references as `nix-store --load-db` takes it.
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
    fn references_come_before_what_refers_to_them() {
        let text = dump(&[
            ("top", &["a", "b", "top"]),
            ("a", &["c"]),
            ("b", &["a", "c"]),
            ("c", &[]),
            ("other", &["c"]),
        ]);
        let registry = Registry::parse(&text).expect("parses");
        let order = registry.closure(&[path("top"), path("a")]).expect("whole");
        assert_eq!(order, [&path("c"), &path("a"), &path("b"), &path("top")]);
    }

    #[test]
    fn what_is_missing_or_goes_round_is_named() {
        let registry = Registry::parse(&dump(&[("a", &["b"])])).expect("parses");
        assert_eq!(registry.closure(&[path("a")]), Err(path("b")));
        let registry = Registry::parse(&dump(&[("a", &["b"]), ("b", &["a"])])).expect("parses");
        registry.closure(&[path("a")]).expect_err("goes round");
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
        fn no_text_makes_it_panic(text in "(/nix/store/0{32}-[a-c]\n|[0-9]{0,3}\n|.{0,5}\n){0,30}") {
            if let Some(registry) = Registry::parse(&text) {
                registry.closure(&[path("a")]).ok();
            }
        }
    }
}
