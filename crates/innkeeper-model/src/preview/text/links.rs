//! The links in a pull request's own text: a block of whole lines that begins with a marker which GitHub does
//! not show.
//!
//! ```text
//! <!-- preview-link -->
//! ---
//! **Preview:** https://web-7.preview.example.com
//! **URL:** https://landing-web-7.preview.example.com
//! ```
//!
//! Only these lines are ours. What the author wrote before and after them is never touched, nor is a block
//! that is shown as an example between code fences. The author may have edited the text with a browser, so
//! lines may end in CR LF.

use std::ops::Range;

/// The line that our block in a pull request's text begins with.
pub const LINK_MARKER: &str = "<!-- preview-link -->";

const RULE: &str = "---";
pub(super) const PREVIEW: &str = "**Preview:** ";
pub(super) const EXTRA: &str = "**URL:** ";

/// The text of a pull request with the links in it: in the place of those that are there, or at the end.
/// Doing it again changes nothing. The URLs are ours and have no line breaks.
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
    // A line of the author's that follows and looks like one of ours must not become one.
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

/// The text of a pull request without our links. What was added with them goes too: the blank line before.
#[must_use]
pub fn without_links(body: &str) -> String {
    cut(body, blocks(body).into_iter())
}

/// Whether our links are in the text.
#[must_use]
pub fn has_links(body: &str) -> bool {
    !blocks(body).is_empty()
}

/// The text without these ranges, and without the blank line before each.
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

/// A line of a text: where it is, without its end.
struct Line<'t> {
    range: Range<usize>,
    text: &'t str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut start = 0;
    text.split_inclusive('\n')
        .map(|whole| {
            // Also at the very end, where a CR would become the half of a line's end when text is added.
            let line = whole.trim_end_matches('\n').trim_end_matches('\r');
            let range = start..start + line.len();
            start += whole.len();
            Line { range, text: line }
        })
        .collect()
}

/// Where our blocks are, without the end of their last lines.
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

/// How many of these lines are ours. The first is the marker; a rule of ours is followed by the link.
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

/// For each line whether it is in a fenced code block (CommonMark, section 4.5) that has an end. A fence that
/// nobody closed would hide our own block behind it, and another one would be added each time.
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

/// The fence that a line is: its character, how long it is, and what follows.
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
    fn links_are_added_below_the_authors_text() {
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
    fn text_after_the_links_is_kept() {
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
    fn a_text_that_a_browser_edited_is_understood() {
        let body = linked("Before.").replace('\n', "\r\n") + "\r\nAfter.";
        assert_eq!(without_links(&body), "Before.\r\nAfter.");
        assert!(linked(&body).ends_with(&format!("{PREVIEW}{URL}\r\nAfter.")));
    }

    #[test]
    fn of_several_blocks_one_remains() {
        let twice = format!("{}\n\nText.\n\n{}\n\nEnd.", linked("A"), linked(""));
        assert_eq!(linked(&twice), format!("{}\n\nText.\n\nEnd.", linked("A")));
        assert_eq!(without_links(&twice), "A\n\nText.\n\nEnd.");
    }

    #[test]
    fn lines_that_only_look_like_ours_stay() {
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
    fn a_fence_that_is_never_closed_does_not_hide_our_links() {
        let once = linked("```\ncode");
        assert_eq!(linked(&once), once);
        assert_eq!(without_links(&once), "```\ncode");
    }

    /// Texts out of pieces that matter.
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

    /// The lines with something in them that are certainly not ours.
    fn others(body: &str) -> Vec<&str> {
        let ours = |line: &str| {
            [LINK_MARKER, RULE, PREVIEW, EXTRA]
                .iter()
                .any(|begins| line.starts_with(begins))
        };
        body.lines()
            .filter(|line| !ours(line))
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect()
    }

    proptest! {
        #[test]
        fn adding_links_again_changes_nothing(body in any_body()) {
            let once = linked(&body);
            prop_assert!(has_links(&once));
            prop_assert_eq!(linked(&once), once);
        }

        #[test]
        fn removing_links_again_changes_nothing(body in any_body()) {
            let once = without_links(&body);
            prop_assert_eq!(without_links(&once), once);
        }

        #[test]
        fn the_authors_text_survives(body in any_body()) {
            let (with, without) = (linked(&body), without_links(&body));
            prop_assert_eq!(others(&with), others(&body));
            prop_assert_eq!(others(&without), others(&body));
            if !has_links(&body) {
                // A CR at the very end would be the half of a line's end that is added.
                prop_assert_eq!(without_links(&with), body.strip_suffix('\r').unwrap_or(&body));
            }
        }

        #[test]
        fn what_the_author_adds_behind_survives_an_update(before in "[a-z\n ]{0,20}", after in "[a-z\n ]{0,20}") {
            let body = format!("{}\n{after}", with_links(&before, "https://old", &["https://a".into()]));
            prop_assert_eq!(linked(&body), format!("{}\n{after}", linked(&before)));
        }
    }
}
