//! The paths that a Nix file refers to.

use std::collections::BTreeSet;

use rnix::SyntaxKind::{
    self, TOKEN_IDENT, TOKEN_INTERPOL_END, TOKEN_INTERPOL_START, TOKEN_PATH_REL,
    TOKEN_STRING_CONTENT,
};

use super::SourcePath;

/// The paths in a Nix file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The files and folders that its path literals refer to, if they exist.
    pub paths: BTreeSet<SourcePath>,
    /// True if the file can compute a path outside of those, so that it may need all of the repository.
    pub any: bool,
}

/// Names that compute the path of a containing folder, or of the file itself.
const CLIMBING: &[&str] = &[
    "__curPos",
    "__dirOf",
    "dirOf",
    "locateDominatingFile",
    "unsafeGetAttrPos",
];

/// Maximum number of consecutive characters that could be a path's. The tokenizer's time is quadratic in it.
const MAX_RUN: usize = 2048;

/// Returns the paths that a Nix file refers to, from its tokens: every path literal, and the folder before an
/// interpolation in one. An invalid file has a result too: Nix reports its errors.
#[must_use]
pub fn references(file: &SourcePath, text: &str) -> References {
    let folder = file.parent();
    let mut found = References::default();
    if !is_fast_to_tokenize(text) {
        found.any = true;
        return found;
    }
    let mut tokens = rnix::tokenize(text).peekable();
    let mut before: Option<SyntaxKind> = None;
    while let Some((kind, text)) = tokens.next() {
        match kind {
            // The rest of a path after an interpolation. Its folder is included.
            TOKEN_PATH_REL if before == Some(TOKEN_INTERPOL_END) => found.any |= climbs(text),
            TOKEN_PATH_REL => {
                let is_prefix = tokens
                    .peek()
                    .is_some_and(|(next, _)| *next == TOKEN_INTERPOL_START);
                let path = match text.rsplit_once('/') {
                    Some((start, _)) if is_prefix => start,
                    _ => text,
                };
                found.paths.extend(folder.resolve(path));
            }
            TOKEN_IDENT => found.any |= CLIMBING.contains(&text),
            // The second operand of `path + string`.
            TOKEN_STRING_CONTENT => found.any |= text.starts_with('/') && climbs(text),
            _ => {}
        }
        before = Some(kind);
    }
    found
}

fn climbs(text: &str) -> bool {
    text.split('/').any(|component| component == "..")
}

/// Reports whether the tokenizer is fast for a text: whether no part without a character that ends a path is long.
pub(super) fn is_fast_to_tokenize(text: &str) -> bool {
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '+' | '-');
    text.split(|c| !is_path(c)).all(|run| run.len() <= MAX_RUN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> (Vec<String>, bool) {
        let file = SourcePath::parse("nix/app.nix").expect("valid");
        let found = references(&file, text);
        let paths = found.paths.into_iter().map(String::from).collect();
        (paths, found.any)
    }

    #[test]
    fn path_literals_are_found() {
        for (text, expected) in [
            ("{ imports = [ ./a.nix ../b ]; }", vec!["b", "nix/a.nix"]),
            ("import ./.", vec!["nix"]),
            ("builtins.readFile x/y.json", vec!["nix/x/y.json"]),
            ("../. + \"/x.json\"", vec![""]),
            ("./data/x-${name}.json", vec!["nix/data"]),
            ("./${name}.json", vec!["nix"]),
            ("../../outside.nix", vec![]),
            (
                "# ./comment.nix\n/* ./b */ \"./string\" ''./other''",
                vec![],
            ),
            ("\"${./in-string.nix}/x\"", vec!["nix/in-string.nix"]),
            ("a // b / c", vec![]),
            ("/etc/passwd ~/x <nixpkgs/lib>", vec![]),
            ("{ a = ./a.nix", vec!["nix/a.nix"]),
        ] {
            assert_eq!(
                of(text),
                (expected.into_iter().map(str::to_owned).collect(), false),
                "{text}"
            );
        }
    }

    #[test]
    fn computed_paths_may_be_any() {
        for text in [
            "import (builtins.dirOf ./x.nix + \"/y.nix\")",
            "./. + \"/../x.nix\"",
            "\"${./.}/../x\"",
            "__curPos.file",
            "./${a}/../x.nix",
            &format!("{{ a = {}; }}", "1.".repeat(2000)),
        ] {
            assert!(of(text).1, "{text}");
        }
        // A script's text is no path.
        assert!(!of("''\n cd ../x\n''").1);
    }

    proptest! {
        #[test]
        fn references_accepts_any_text(text in "([./a\"'${}]|\\PC){0,60}") {
            of(&text);
        }
    }
}
