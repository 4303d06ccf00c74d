//! Conversion of docs/configuration.md to a manual page.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Returns the page innkeeper-config(5): paragraphs, code blocks, headings and the table of settings.
pub(super) fn page(markdown: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["innkeeper-config", "5", "", "", "Innkeeper"]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "innkeeper-config - configuration of innkeeperd and innkeeper-webhook",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/innkeeper/config.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut lines = markdown
        .lines()
        .skip_while(|line| line.starts_with("# "))
        .peekable();
    let mut in_settings = false;
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            page.control("PP", []);
            page.control("nf", []);
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                page.text([roman(line)]);
            }
            page.control("fi", []);
        } else if let Some(heading) = line.strip_prefix("## ") {
            page.control("SH", [heading.to_uppercase().as_str()]);
            in_settings = false;
        } else if let Some(row) = line.strip_prefix("| ") {
            if row.starts_with("---") || row.starts_with("setting |") {
                continue;
            }
            if !in_settings && row.starts_with('`') {
                page.control("SH", ["SETTINGS"]);
                in_settings = true;
            }
            setting(&mut page, row);
        } else if line.starts_with("<!--") {
            // Comments are for tests and other tools.
        } else if line.is_empty() {
            page.control("PP", []);
        } else {
            page.text(inlines(line));
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(
        "innkeeper(1), innkeeperd(8), innkeeper-webhook(8), innkeeper-gateway(8)",
    )]);
    page.to_roff()
}

/// Adds a row of the table: the setting, its default, its description.
fn setting(page: &mut Roff, row: &str) {
    let mut cells = row.trim_end_matches(" |").splitn(3, " | ");
    let mut cell = || cells.next().unwrap_or_default();
    let (name, default, meaning) = (cell(), cell(), cell());
    page.control("TP", []);
    let mut head = inlines(name);
    head.push(roman(format!(" (default: {})", default.trim_matches('`'))));
    page.text(head);
    page.text(inlines(meaning));
}

/// Converts code to bold, and links to their text.
fn inlines(text: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            1 => inlines.push(bold(part)),
            _ if part.is_empty() => {}
            _ => inlines.push(roman(without_links(part))),
        }
    }
    inlines
}

/// Replaces `[text](address)` with `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((_, after)) = after.split_once(')') else {
            break;
        };
        let (before, label) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(before);
        plain.push_str(label);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_settings_and_paragraphs() {
        let page = page(
            "# Configuration\n\n<!-- x -->\nRead `x`, see [the page](a.md).\n\n```console\n$ y\n```\n\n| setting | default | what it is |\n\
             | --- | --- | --- |\n| `a.b` | `\"c\"` | The `d`: 1 | 2. |\n",
        );
        for part in [
            "Read \\fBx\\fR, see the page.\n",
            ".nf\n$ y\n.fi\n",
            ".SH SETTINGS\n.TP\n\\fBa.b\\fR (default: \"c\")\nThe \\fBd\\fR: 1 | 2.\n",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    #[test]
    fn links_become_their_text() {
        assert_eq!(without_links("a [b](c) d [e](f)."), "a b d e.");
        assert_eq!(without_links("[x] (y)"), "[x] (y)");
    }
}
