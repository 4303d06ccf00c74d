//! Finds the place of a value in a configuration's text.
//!
//! Nix knows the places of attributes, but `previewMeta` reaches Innkeeper as JSON. So this looks for the value in the
//! text: in attribute sets and lists, through functions such as `builtins.toJSON`, `let` bindings and `//`. A computed value
//! has the place of the nearest enclosing one that is written out. For display only.

use rnix::SyntaxKind::{
    NODE_APPLY, NODE_ASSERT, NODE_ATTR_SET, NODE_ATTRPATH, NODE_ATTRPATH_VALUE, NODE_BIN_OP,
    NODE_IDENT, NODE_IF_ELSE, NODE_INHERIT, NODE_LAMBDA, NODE_LET_IN, NODE_LIST, NODE_PAREN,
    NODE_STRING, NODE_WITH,
};
use rnix::{Root, SyntaxNode};

use super::references::is_fast_to_tokenize;
use super::{SourcePath, SourceTree};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: SourcePath,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Maximum number of tokens of a file. Bounds the depth of the syntax tree, whose destructor is recursive.
const MAX_TOKENS: usize = 20_000;

/// The stack of the search: far more than a syntax tree of that depth needs.
const STACK_BYTES: usize = 64 << 20;

/// Maximum number of steps from a value to its text.
const MAX_STEPS: usize = 1000;

/// The attribute with the metadata, the last part of `system.build.previewMeta`.
const META: &str = "previewMeta";

/// Returns the place of a field of `system.build.previewMeta`, by its JSON pointer (RFC 6901), such as `/routes/0/port`; of
/// the nearest enclosing field if it is missing. `None` if the metadata is not written out in the configuration.
#[must_use]
pub fn locate_meta(sources: &SourceTree, pointer: &str) -> Option<Place> {
    let path: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect();
    in_sources(sources, |text| {
        text.contains(META).then(|| meta_in(text, &path))?
    })
}

/// Returns the place where the configuration sets an option, such as `services.foo.enable`.
#[must_use]
pub fn locate_option(sources: &SourceTree, option: &str) -> Option<Place> {
    let path: Vec<String> = option
        .split('.')
        .map(|name| name.trim_matches('"').to_owned())
        .collect();
    let last = path.last()?;
    in_sources(sources, |text| {
        text.contains(last.as_str())
            .then(|| option_in(text, &path))?
    })
}

/// Searches the Nix files, the main file first.
fn in_sources(
    sources: &SourceTree,
    search: impl Fn(&str) -> Option<usize> + Send,
) -> Option<Place> {
    // On a stack of its own, and so that a panic of the parser only loses the place.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || first_match(sources, search))
            .ok()?
            .join()
            .ok()?
    })
}

fn first_match(sources: &SourceTree, search: impl Fn(&str) -> Option<usize>) -> Option<Place> {
    let others = sources
        .entries()
        .keys()
        .filter(|path| *path != sources.main());
    std::iter::once(sources.main())
        .chain(others)
        .filter(|file| file.as_str().ends_with(".nix"))
        .find_map(|file| {
            let text = sources.text(file)?;
            let offset = search(text)?;
            Some(place(file, text, offset))
        })
}

fn place(file: &SourcePath, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place {
        file: file.clone(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// Parses a file, unless its syntax tree could be too deep.
fn parse(text: &str) -> Option<SyntaxNode> {
    if !is_fast_to_tokenize(text) {
        return None;
    }
    let tokens = rnix::tokenize(text).take(MAX_TOKENS + 1).count();
    (tokens <= MAX_TOKENS).then(|| Root::parse(text).syntax())
}

/// Returns the offset of a field in a file that defines the metadata.
fn meta_in(text: &str, path: &[String]) -> Option<usize> {
    let root = parse(text)?;
    let definition = root
        .descendants()
        .filter(|node| node.kind() == NODE_ATTRPATH_VALUE)
        .find(|node| names(node).iter().any(|name| name == META))?;
    let names = names(&definition);
    let at = names.iter().position(|name| name == META)?;
    let mut search = Search::from(&definition);
    search.binding(&names[at + 1..], &definition, path, 0);
    Some(search.best)
}

/// Returns the offset of an option's value in a module, with or without `config` in front of it.
fn option_in(text: &str, path: &[String]) -> Option<usize> {
    let module = parse(text)?.last_child()?;
    let with_config = [&["config".to_owned()], path].concat();
    [path, &with_config].into_iter().find_map(|path| {
        let mut search = Search::from(&module);
        search.value(&module, path, 0).then_some(search.best)
    })
}

/// A search for the value at a path.
struct Search {
    /// The offset of the value that matches most of the path.
    best: usize,
    /// The number of segments that it matches.
    matched: usize,
    steps: usize,
}

impl Search {
    fn from(node: &SyntaxNode) -> Self {
        Self {
            best: start(node),
            matched: 0,
            steps: 0,
        }
    }

    /// Searches a binding of which the attribute path `names` remains to be matched. `depth` segments are matched already.
    /// Returns whether the whole path was found.
    fn binding(
        &mut self,
        names: &[String],
        binding: &SyntaxNode,
        path: &[String],
        depth: usize,
    ) -> bool {
        let common = names.iter().zip(path).take_while(|(a, b)| a == b).count();
        if common < names.len().min(path.len()) {
            return false;
        }
        let Some(value) = binding.last_child() else {
            return false;
        };
        self.note(&value, depth + common);
        if names.len() >= path.len() {
            return true;
        }
        self.value(&value, &path[common..], depth + common)
    }

    fn note(&mut self, node: &SyntaxNode, matched: usize) {
        if matched >= self.matched {
            self.matched = matched;
            self.best = start(node);
        }
    }

    /// Searches a value for the rest of a path.
    fn value(&mut self, node: &SyntaxNode, path: &[String], depth: usize) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return false;
        }
        let Some(first) = path.first() else {
            self.note(node, depth);
            return true;
        };
        let children: Vec<SyntaxNode> = node.children().collect();
        match node.kind() {
            NODE_ATTR_SET => {
                self.note(node, depth);
                children.iter().any(|entry| match entry.kind() {
                    NODE_ATTRPATH_VALUE => self.binding(&names(entry), entry, path, depth),
                    NODE_INHERIT => self.inherited(entry, first, path, depth),
                    _ => false,
                })
            }
            NODE_LIST => {
                self.note(node, depth);
                let item = first
                    .parse()
                    .ok()
                    .and_then(|index: usize| children.get(index));
                item.is_some_and(|item| {
                    self.note(item, depth + 1);
                    self.value(item, &path[1..], depth + 1)
                })
            }
            NODE_IDENT => {
                let binding = bound(node);
                binding.is_some_and(|value| self.value(&value, path, depth))
            }
            // The right operand of `//` overrides the left one.
            NODE_BIN_OP | NODE_APPLY => children
                .iter()
                .rev()
                .any(|child| self.value(child, path, depth)),
            NODE_IF_ELSE => children
                .iter()
                .skip(1)
                .any(|child| self.value(child, path, depth)),
            NODE_PAREN | NODE_WITH | NODE_ASSERT | NODE_LET_IN | NODE_LAMBDA => children
                .last()
                .is_some_and(|body| self.value(body, path, depth)),
            _ => false,
        }
    }

    fn inherited(&mut self, entry: &SyntaxNode, name: &str, path: &[String], depth: usize) -> bool {
        let attribute = entry
            .children()
            .find(|child| child.kind() == NODE_IDENT && child.text() == name);
        let Some(attribute) = attribute else {
            return false;
        };
        self.note(&attribute, depth + 1);
        if let Some(value) = bound(&attribute) {
            self.note(&value, depth + 1);
            self.value(&value, &path[1..], depth + 1);
        }
        true
    }
}

/// Returns the value that an identifier is bound to in an enclosing `let` or recursive set.
fn bound(identifier: &SyntaxNode) -> Option<SyntaxNode> {
    let name = identifier.text().to_string();
    identifier.ancestors().skip(1).find_map(|scope| {
        if !matches!(scope.kind(), NODE_LET_IN | NODE_ATTR_SET) {
            return None;
        }
        let binding = scope.children().find(|entry| {
            entry.kind() == NODE_ATTRPATH_VALUE && names(entry) == std::slice::from_ref(&name)
        })?;
        // `x = x;` refers to itself.
        let is_itself = identifier.ancestors().any(|node| node == binding);
        (!is_itself).then(|| binding.last_child())?
    })
}

/// Returns the names of a binding's attribute path. An interpolated one is empty.
fn names(binding: &SyntaxNode) -> Vec<String> {
    let path = binding.children().find(|node| node.kind() == NODE_ATTRPATH);
    path.iter()
        .flat_map(SyntaxNode::children)
        .map(|name| match name.kind() {
            NODE_IDENT => name.text().to_string(),
            NODE_STRING if name.children().next().is_none() => {
                name.text().to_string().trim_matches('"').to_owned()
            }
            _ => String::new(),
        })
        .collect()
}

fn start(node: &SyntaxNode) -> usize {
    usize::from(node.text_range().start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the text from the place to the end of its line.
    fn found(text: &str, pointer: &str) -> Option<String> {
        let sources = SourceTree::single(text);
        let place = locate_meta(&sources, pointer)?;
        let line = text.lines().nth(place.line - 1)?;
        Some(line.chars().skip(place.column - 1).collect())
    }

    #[test]
    fn fields_are_found_where_they_are_written() {
        let plain = "{ pkgs, ... }:\n{\n  system.build.previewMeta = {\n    database = \"hots\";\n    routes = [\n      { path = \"/\"; port = 1; }\n      {\n        path = \"/api\";\n        port = 70000;\n      }\n    ];\n  };\n}\n";
        let file = "{ pkgs, ... }:\nlet\n  routes = [\n    { path = \"/\"; port = 0; } ];\n  meta = {\n    inherit routes;\n    database = \"x\"; };\nin\n{\n  config.system.build.previewMeta = pkgs.writeText \"meta.json\" (builtins.toJSON (meta // {\n    setupService = \"a b\"; }));\n}\n";
        let split = "{ system.build.previewMeta.database = \"hots\";\n  system.build.previewMeta.routes = [ ]; }";
        for (text, pointer, expected) in [
            (plain, "/database", "\"hots\";"),
            (plain, "/routes/1/port", "70000;"),
            (plain, "/routes/0/port", "1; }"),
            (
                plain,
                "/routes/0/stripPrefix",
                "{ path = \"/\"; port = 1; }",
            ),
            (plain, "/setupService", "{"),
            (plain, "", "{"),
            (file, "/setupService", "\"a b\"; }));"),
            (file, "/database", "\"x\"; };"),
            (file, "/routes/0/port", "0; } ];"),
            (split, "/database", "\"hots\";"),
        ] {
            assert_eq!(
                found(text, pointer).as_deref(),
                Some(expected),
                "{pointer} in {text}"
            );
        }
        assert_eq!(found("{ }", "/database"), None);
    }

    #[test]
    fn metadata_is_found_in_other_files() {
        let mut sources = SourceTree::single("{ imports = [ ./nix/app.nix ]; }");
        let file = SourcePath::parse("nix/app.nix").expect("valid");
        let text = "{\n  system.build.previewMeta = { a = \"ä\"; x = 2; };\n}";
        sources.add_file(file, text.as_bytes().to_vec(), false);
        let place = locate_meta(&sources, "/x").expect("found");
        assert_eq!(place.to_string(), "nix/app.nix:2:45");
    }

    #[test]
    fn hostile_files_have_no_place() {
        for text in [
            format!("{{ previewMeta = {}; }}", "a + ".repeat(100_000)),
            format!("{{ previewMeta = {}", "(".repeat(9_000)),
            format!("{{ previewMeta = {}", "{ a = ".repeat(3_000)),
            "{ previewMeta = let a = b; b = a; in a; }".to_owned(),
        ] {
            found(&text, "/database");
        }
    }

    proptest! {
        #[test]
        fn locate_accepts_any_text(text in "([a.=;{}\\[\\]()\"']|previewMeta|let | in |\\PC){0,60}") {
            found(&text, "/a/0");
        }
    }
}
