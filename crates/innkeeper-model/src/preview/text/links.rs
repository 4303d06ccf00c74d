//! The links in a pull request's text: a block of whole lines that begins with a marker, which GitHub does not show.
//!
//! ```text
//! <!-- preview-link -->
//! ---
//! **Preview:** https://web-7.preview.example.com
//! **URL:** https://landing-web-7.preview.example.com
//! ```
//!
//! Innkeeper changes only these lines. The author's text before and after them is never changed, and neither is a block
//! inside a fenced code block. Lines may end in CR LF, because browsers write them so.

use std::ops::Range;

/// The first line of the block.
pub const LINK_MARKER: &str = "<!-- preview-link -->";

const RULE: &str = "---";
pub(super) const PREVIEW: &str = "**Preview:** ";
pub(super) const EXTRA: &str = "**URL:** ";

/// Returns a pull request's text with the links: in place of existing ones, or at the end. Idempotent. The URLs are
/// trusted and have no line breaks.
#[must_use]
pub fn with_links(body: &str, url: &str, extra_urls: &[String]) -> String {
    let mut block = format!("{LINK_MARKER}\n{RULE}\n{PREVIEW}{url}");
    for extra in extra_urls {
        block.push_str(&format!("\n{EXTRA}{extra}"));
    }
    let mut blocks = blocks(body);
    if blocks.is_empty() {
        let gap = if body.is_empty() { "" } else { "\n\n" };
        return format!("{body}{gap}{block}");
    }
    let first = blocks.remove(0);
    let rest = cut(
        &body[first.end..],
        blocks
            .iter()
            .map(|b| b.start - first.end..b.end - first.end),
    );
    // A following line of the author's must not become part of the block.
    let gap = if lines(&rest)
        .get(1)
        .is_some_and(|line| line.text.starts_with(EXTRA))
    {
        "\n"
    } else {
        ""
    };
    format!("{}{block}{gap}{rest}", &body[..first.start])
}

/// Returns a pull request's text without the links and without the blank line before them, which was added with them.
#[must_use]
pub fn without_links(body: &str) -> String {
    cut(body, blocks(body).into_iter())
}

/// Reports whether the text contains the links.
#[must_use]
pub fn has_links(body: &str) -> bool {
    !blocks(body).is_empty()
}

/// Removes ranges from a text, and the blank line before each.
fn cut(text: &str, ranges: impl Iterator<Item = Range<usize>>) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        let before = &text[from..range.start];
        let gap = without_newline(before).and_then(without_newline);
        let before = gap.unwrap_or(before);
        kept.push_str(before);
        from = range.end;
    }
    kept.push_str(&text[from..]);
    kept
}

fn without_newline(text: &str) -> Option<&str> {
    let text = text.strip_suffix('\n')?;
    Some(text.strip_suffix('\r').unwrap_or(text))
}

/// A line of a text, without its line ending.
struct Line<'t> {
    range: Range<usize>,
    text: &'t str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut start = 0;
    text.split_inclusive('\n')
        .map(|whole| {
            // Also at the end of the text, where a CR would become half a line ending when text is appended.
            let line = whole.trim_end_matches('\n').trim_end_matches('\r');
            let range = start..start + line.len();
            start += whole.len();
            Line { range, text: line }
        })
        .collect()
}

/// Finds the blocks, without the ending of their last line.
fn blocks(body: &str) -> Vec<Range<usize>> {
    let lines = lines(body);
    let fenced = fenced(&lines);
    let mut blocks = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        if lines[index].text != LINK_MARKER || fenced[index] {
            index += 1;
            continue;
        }
        let length = block_length(&lines[index..]);
        blocks.push(lines[index].range.start..lines[index + length - 1].range.end);
        index += length;
    }
    blocks
}

/// Counts the lines of the block at the start of `lines`. The first is the marker; the rule only counts before a link.
fn block_length(lines: &[Line<'_>]) -> usize {
    let is =
        |index: usize, begins: &str| lines.get(index).is_some_and(|l| l.text.starts_with(begins));
    let link = if lines.get(1).is_some_and(|l| l.text == RULE) {
        2
    } else {
        1
    };
    if !is(link, PREVIEW) {
        return 1;
    }
    let mut length = link + 1;
    while is(length, EXTRA) {
        length += 1;
    }
    length
}

/// Reports for each line whether it is in a closed fenced code block (CommonMark, section 4.5). Unclosed fences do not
/// count: they would hide an existing block, and each update would add another one.
fn fenced(lines: &[Line<'_>]) -> Vec<bool> {
    let mut fenced = vec![false; lines.len()];
    let mut open: Option<(usize, char, usize)> = None;
    for (index, line) in lines.iter().enumerate() {
        let Some((mark, length, rest)) = fence(line.text) else {
            continue;
        };
        match open {
            None => open = Some((index, mark, length)),
            Some((start, opened, least)) => {
                if mark == opened && length >= least && rest.trim().is_empty() {
                    fenced[start..=index].fill(true);
                    open = None;
                }
            }
        }
    }
    fenced
}

/// Parses a line as a fence: its character, its length, and the rest of the line.
fn fence(line: &str) -> Option<(char, usize, &str)> {
    let text = line.trim_start_matches(' ');
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = text.trim_start_matches(mark);
    let length = text.len() - rest.len();
    let is_fence =
        line.len() - text.len() <= 3 && length >= 3 && !(mark == '`' && rest.contains('`'));
    is_fence.then_some((mark, length, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://web-7.preview.example.com";

    fn linked(body: &str) -> String {
        with_links(body, URL, &[])
    }

    #[test]
    fn links_are_added_below_the_text() {
        let extra = ["https://landing-web-7.preview.example.com".to_owned()];
        insta::assert_snapshot!(with_links("Adds a login.", URL, &extra), @r"
        Adds a login.

        <!-- preview-link -->
        ---
        **Preview:** https://web-7.preview.example.com
        **URL:** https://landing-web-7.preview.example.com
        ");
        assert!(linked("").starts_with(LINK_MARKER));
    }

    #[test]
    fn links_keep_the_text_after_them() {
        let body = format!(
            "{}\n\nFixes #3.\n",
            with_links("Before.", "https://old", &["https://gone".into()])
        );
        assert_eq!(
            linked(&body),
            format!("{}\n\nFixes #3.\n", linked("Before."))
        );
        assert_eq!(without_links(&body), "Before.\n\nFixes #3.\n");
    }

    #[test]
    fn links_are_found_with_cr_lf() {
        let body = linked("Before.").replace('\n', "\r\n") + "\r\nAfter.";
        assert_eq!(without_links(&body), "Before.\r\nAfter.");
        assert!(linked(&body).ends_with(&format!("{PREVIEW}{URL}\r\nAfter.")));
    }

    #[test]
    fn links_are_reduced_to_one_block() {
        let twice = format!("{}\n\nText.\n\n{}\n\nEnd.", linked("A"), linked(""));
        assert_eq!(linked(&twice), format!("{}\n\nText.\n\nEnd.", linked("A")));
        assert_eq!(without_links(&twice), "A\n\nText.\n\nEnd.");
    }

    #[test]
    fn links_leave_similar_lines_alone() {
        let rule = format!("{LINK_MARKER}\n---\nMy own text.\n**URL:** mine");
        assert_eq!(without_links(&rule), "\n---\nMy own text.\n**URL:** mine");
        for body in [
            format!("> {}", linked("")),
            format!("See `{LINK_MARKER}`."),
            format!("```md\n{}\n```", linked("")),
        ] {
            assert!(!has_links(&body), "{body}");
            assert!(linked(&body).starts_with(&body));
        }
    }

    #[test]
    fn links_are_found_behind_an_unclosed_fence() {
        let once = linked("```\ncode");
        assert_eq!(linked(&once), once);
        assert_eq!(without_links(&once), "```\ncode");
    }

    /// Generates texts from significant pieces.
    fn any_body() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just(linked("")),
            Just(with_links("", "https://old", &["https://a".into()])),
            prop::sample::select(vec![
                LINK_MARKER,
                RULE,
                "**Preview:** x",
                EXTRA,
                "\n",
                "\r\n",
                "\n\n",
                "```",
                "~~~~",
                " ",
                "text",
                "ä",
            ])
            .prop_map(str::to_owned),
            ".{0,6}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Returns the non-empty lines that are certainly the author's.
    fn others(body: &str) -> Vec<&str> {
        let in_block = |line: &str| {
            [LINK_MARKER, RULE, PREVIEW, EXTRA]
                .iter()
                .any(|begins| line.starts_with(begins))
        };
        body.lines()
            .filter(|line| !in_block(line))
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect()
    }

    proptest! {
        #[test]
        fn links_are_added_idempotently(body in any_body()) {
            let once = linked(&body);
            prop_assert!(has_links(&once));
            prop_assert_eq!(linked(&once), once);
        }

        #[test]
        fn links_are_removed_idempotently(body in any_body()) {
            let once = without_links(&body);
            prop_assert_eq!(without_links(&once), once);
        }

        #[test]
        fn links_leave_the_authors_text_unchanged(body in any_body()) {
            let (with, without) = (linked(&body), without_links(&body));
            prop_assert_eq!(others(&with), others(&body));
            prop_assert_eq!(others(&without), others(&body));
            if !has_links(&body) {
                // A CR at the end is dropped: it would become half a line ending.
                prop_assert_eq!(without_links(&with), body.strip_suffix('\r').unwrap_or(&body));
            }
        }

        #[test]
        fn links_keep_later_text_on_update(before in "[a-z\n ]{0,20}", after in "[a-z\n ]{0,20}") {
            let body = format!("{}\n{after}", with_links(&before, "https://old", &["https://a".into()]));
            prop_assert_eq!(linked(&body), format!("{}\n{after}", linked(&before)));
        }
    }
}
