//! Names and texts inside SQL statements.
//!
//! Statements that make roles and databases take no parameters, so their names and texts are quoted here and
//! nowhere else.

use innkeeper_model::GuestName;
use innkeeper_model::preview::database_name;
use sha2::{Digest, Sha256};

/// PostgreSQL cuts longer names off (`NAMEDATALEN` of its sources, less one).
const MAX_NAME: usize = 63;

/// Hexadecimal digits of a hash in the place of what does not fit.
const HASH_DIGITS: usize = 8;

/// A name of a role, a database or a setting, quoted (PostgreSQL's manual, section 4.1.1).
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted, whatever `standard_conforming_strings` is (the same, section 4.1.2.2).
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// The name of a preview's database and role. Slugs of the longest kind do not fit: of those, the beginning
/// and a hash of the whole slug.
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

/// The comment by which a role is known as ours.
pub(super) fn mark(slug: &GuestName) -> String {
    format!("{MARK}{slug}")
}

/// The preview that a comment speaks of.
pub(super) fn marked(comment: &str) -> Option<GuestName> {
    GuestName::parse(comment.strip_prefix(MARK)?).ok()
}

/// What such a comment begins with.
pub(super) const MARK: &str = "innkeeper: preview ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(text: &str) -> GuestName {
        GuestName::parse(text).expect(text)
    }

    #[test]
    fn names_follow_the_contract_as_far_as_they_fit() {
        assert_eq!(name_of(&slug("web-12")), "preview_web_12");
        let longest = "x".repeat(55);
        assert_eq!(name_of(&slug(&longest)), format!("preview_{longest}"));
        let longer = name_of(&slug(&"x".repeat(56)));
        assert_eq!(longer.len(), 63);
        assert_ne!(longer, name_of(&slug(&"x".repeat(57))));
    }

    #[test]
    fn marks_read_back() {
        assert_eq!(marked(&mark(&slug("web-12"))), Some(slug("web-12")));
        assert_eq!(marked("innkeeper: preview ../x"), None);
        assert_eq!(marked("somebody's"), None);
    }

    proptest! {
        #[test]
        fn names_fit_and_need_no_quotes(text in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            let name = name_of(&slug(&text));
            prop_assert!(name.len() <= MAX_NAME);
            prop_assert!(name.starts_with("preview_"));
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
    }
}
