//! Quotes names and texts for SQL statements.
//!
//! Statements that create roles and databases accept no parameters. All quoting happens in this module.

use innkeeper_model::preview::database_name;
use innkeeper_model::{DaemonId, GuestName};
use sha2::{Digest, Sha256};

/// PostgreSQL truncates longer names (`NAMEDATALEN` of its sources, less one).
const MAX_NAME: usize = 63;

/// Hexadecimal digits of the hash that ends truncated names.
const HASH_DIGITS: usize = 8;

/// Quotes the name of a role, a database or a setting (PostgreSQL's manual, section 4.1.1).
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text, independent of `standard_conforming_strings` (section 4.1.2.2).
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Returns the name of a preview's database and role. Long slugs are truncated and get a hash of the whole slug.
pub(super) fn name_of(slug: &GuestName) -> String {
    let name = database_name(slug);
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = Sha256::digest(slug.as_str());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    // The alphabet of slugs is ASCII.
    let stem = &name[..MAX_NAME - HASH_DIGITS - 1];
    format!("{stem}_{}", &hash[..HASH_DIGITS])
}

/// Returns the comment that marks a role as managed by this daemon.
pub(super) fn mark(slug: &GuestName, daemon: &DaemonId) -> String {
    format!("{MARK}{slug}{}", ending(daemon))
}

/// Returns the mark of former releases, which lacks the daemon.
pub(super) fn legacy_mark(slug: &GuestName) -> String {
    format!("{MARK}{slug}")
}

/// Parses a comment into the preview and its daemon, which former releases did not record.
pub(super) fn parse_mark(comment: &str) -> Option<(GuestName, Option<DaemonId>)> {
    let rest = comment.strip_prefix(MARK)?;
    let (slug, daemon) = match rest.split_once(DAEMON) {
        None => (rest, None),
        Some((slug, daemon)) => (slug, Some(DaemonId::parse(daemon.strip_suffix(')')?).ok()?)),
    };
    Some((GuestName::parse(slug).ok()?, daemon))
}

/// Returns an SQL condition that an expression is any daemon's mark.
pub(super) fn is_mark(expression: &str) -> String {
    format!("starts_with({expression}, {})", literal(MARK))
}

/// Returns an SQL condition that an expression is a mark of this daemon.
pub(super) fn is_mark_of(daemon: &DaemonId, expression: &str) -> String {
    let ending = ending(daemon);
    let (start, length, end) = (literal(MARK), ending.len(), literal(&ending));
    format!(
        "coalesce(starts_with({expression}, {start}) AND right({expression}, {length}) = {end}, false)"
    )
}

fn ending(daemon: &DaemonId) -> String {
    format!("{DAEMON}{daemon})")
}

/// Prefix of a mark, and the text before the daemon.
const MARK: &str = "innkeeper: preview ";
const DAEMON: &str = " (daemon ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(text: &str) -> GuestName {
        GuestName::parse(text).expect(text)
    }

    #[test]
    fn database_names_follow_the_contract_if_they_fit() {
        assert_eq!(name_of(&slug("web-12")), "preview_web_12");
        let longest = "x".repeat(55);
        assert_eq!(name_of(&slug(&longest)), format!("preview_{longest}"));
        let longer = name_of(&slug(&"x".repeat(56)));
        assert_eq!(longer.len(), 63);
        assert_ne!(longer, name_of(&slug(&"x".repeat(57))));
    }

    #[test]
    fn marks_parse_back() {
        let daemon = crate::identity::Identity::of('a').daemon().clone();
        let web = slug("web-12");
        let mark = mark(&web, &daemon);
        assert_eq!(parse_mark(&mark), Some((web.clone(), Some(daemon))));
        assert_eq!(parse_mark(&legacy_mark(&web)), Some((web, None)));
        for other in [
            "innkeeper: preview ../x",
            "innkeeper: preview web (daemon ",
            "innkeeper: preview web (daemon x)",
            "somebody's",
        ] {
            assert_eq!(parse_mark(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn database_names_fit_and_need_no_quotes(text in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            let name = name_of(&slug(&text));
            prop_assert!(name.len() <= MAX_NAME);
            prop_assert!(name.starts_with("preview_"));
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
    }
}
