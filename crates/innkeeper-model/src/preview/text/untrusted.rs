//! Untrusted texts for Markdown: from configurations, logs and apps.

/// Maximum length of an untrusted text in a comment, in characters. GitHub's limit for the whole comment is 65,536.
const MAX_TEXT: usize = 5_000;

/// Paths that are the same on every host, or that the app knows.
const PUBLIC_PATHS: [&str; 3] = ["/nix/store/", "/etc/preview.env", "/etc/preview-token"];

/// Replaces each absolute path in a text, except for those that are the same on every host or that the app knows.
#[must_use]
pub fn without_host_paths(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(character) = rest.chars().next() {
        let begins = character == '/'
            && before.is_none_or(|c: char| c.is_whitespace() || "\"'`(<=[{,;:".contains(c))
            && !rest.starts_with("//");
        let end = match begins {
            true => rest
                .find(|c: char| c.is_whitespace() || "\"'`()<>[]{},;:".contains(c))
                .unwrap_or(rest.len()),
            false => character.len_utf8(),
        };
        let (part, after) = rest.split_at(end);
        let path = part.trim_end_matches('.');
        if begins && path.len() > 1 && !PUBLIC_PATHS.iter().any(|known| path.starts_with(known)) {
            kept.push_str("(path on the host)");
            kept.push_str(&part[path.len()..]);
        } else {
            kept.push_str(part);
        }
        before = part.chars().next_back();
        rest = after;
    }
    kept
}

/// Renders an untrusted text as a code block whose fence is longer than any in the text. Removes terminal control
/// sequences, and keeps the end of a long text.
pub(super) fn code_block(text: &str) -> String {
    let text: String = without_escapes(text)
        .chars()
        .filter(|c| !is_hidden(*c))
        .collect();
    let skipped = text.chars().count().saturating_sub(MAX_TEXT);
    let text: String = text.chars().skip(skipped).collect();
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

/// Removes sequences like `ESC [ 31 m` (ECMA-48, section 5.4).
pub(super) fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut parts = text.split("\u{1b}[");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part
            .find(|c| matches!(c, '@'..='~'))
            .map_or(part.len(), |at| at + 1);
        kept.push_str(&part[end..]);
    }
    kept
}

/// Reports whether a character is invisible, or changes how others are shown (Unicode's bidirectional controls).
fn is_hidden(c: char) -> bool {
    let is_layout = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    is_layout || c.is_control() && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn code_block_has_no_hidden_characters() {
        let block = code_block("a\u{202e}b\u{200b}c\u{7}d\te");
        assert_eq!(block, "```text\nabcd\te\n```");
    }

    proptest! {
        #[test]
        fn code_block_cannot_be_ended_by_its_text(text in "[`a\n~]{0,40}") {
            let block = code_block(&text);
            let lines: Vec<_> = block.split('\n').collect();
            let (fence, last) = (lines[0].trim_end_matches("text"), lines.len() - 1);
            prop_assert!(fence.len() >= 3 && lines[last] == fence);
            prop_assert!(lines[1..last].iter().all(|line| !line.contains(fence)));
        }
    }
}
