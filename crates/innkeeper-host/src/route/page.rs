//! Placeholder page of a preview whose app does not respond yet.
//!
//! State and log are untrusted text of a guest or a build. Escaping keeps them plain text; in addition, the page's
//! Content-Security-Policy ([`super::render`]) forbids scripts and external resources.

use std::fmt::Write as _;

use innkeeper_model::GuestName;

/// Retry interval for programs and browsers, in seconds.
pub(super) const RETRY_SECONDS: u32 = 3;

/// Maximum number of log lines.
const MAX_LINES: usize = 40;

/// Maximum length of a line, in characters.
const MAX_COLUMNS: usize = 400;

/// Renders the page for browsers.
pub(super) fn html(slug: &GuestName, state: &str, log: &[String]) -> String {
    let state = escaped(state);
    let mut page = format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n\
         <meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"refresh\" content=\"{RETRY_SECONDS}\">\n\
         <title>{slug}: {state}</title>\n\
         <style>\n\
         body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 60rem; padding: 0 1rem }}\n\
         pre {{ background: #f4f4f4; color: #222; padding: 1rem; overflow-x: auto }}\n\
         </style>\n\
         <h1>{slug}</h1>\n\
         <p>This preview is not ready: <strong>{state}</strong>. This page reloads automatically.</p>\n"
    );
    if !log.is_empty() {
        page.push_str("<pre>\n");
        for line in &log[log.len().saturating_sub(MAX_LINES)..] {
            // Writing into a String cannot fail.
            writeln!(page, "{}", escaped(line)).ok();
        }
        page.push_str("</pre>\n");
    }
    page.push_str("</html>\n");
    page
}

/// Renders the response for programs.
pub(super) fn text(slug: &GuestName, state: &str) -> String {
    format!("preview {slug} is not ready: {}\n", visible(state))
}

/// Removes control characters and truncates to the maximum length.
fn visible(text: &str) -> String {
    let visible = text
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control());
    visible.take(MAX_COLUMNS).collect()
}

/// Escapes a text for HTML: the five special characters of text and quoted attributes (WHATWG HTML, section 13.3) become
/// references.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug() -> GuestName {
        GuestName::parse("web").expect("name")
    }

    #[test]
    fn page_shows_state_and_log() {
        let log = [
            "\u{1b}[31mred\u{1b}[0m & <b>bold</b>".to_owned(),
            "{{ readFile \"/etc/passwd\" }}".to_owned(),
        ];
        insta::assert_snapshot!(html(&slug(), "building the closure", &log));
        insta::assert_snapshot!(text(&slug(), "building\nthe closure"), @"preview web is not ready: buildingthe closure");
    }

    #[test]
    fn page_shows_only_the_end_of_a_long_log() {
        let log: Vec<_> = (0..100).map(|n| format!("line {n}.")).collect();
        let page = html(&slug(), "building", &log);
        assert!(
            !page.contains("line 59.") && page.contains("line 60.") && page.contains("line 99.")
        );
        let wide = ["x".repeat(1000)];
        assert!(html(&slug(), "building", &wide).len() < 2000);
    }

    proptest! {
        /// The page has the same tags for any log as for an empty one.
        #[test]
        fn untrusted_text_adds_no_markup(state in any::<String>(), line in any::<String>()) {
            let markup = |page: &str| {
                page.chars().filter(|c| matches!(c, '<' | '>' | '"' | '\'')).collect::<String>()
            };
            let page = html(&slug(), &state, std::slice::from_ref(&line));
            let empty = html(&slug(), "", &[String::new()]);
            prop_assert_eq!(markup(&page), markup(&empty));
            prop_assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
        }

        #[test]
        fn escaping_preserves_visible_text(line in "\\PC{0,300}") {
            let back = escaped(&line)
                .replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
                .replace("&#39;", "'").replace("&amp;", "&");
            prop_assert_eq!(back, line);
        }
    }
}
