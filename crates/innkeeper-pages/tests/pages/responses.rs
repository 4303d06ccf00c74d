//! Responses for browsers, for programs, and for the page's files.

use crate::support::{Program, status};

const PREVIEW: &str = "X-Innkeeper-Preview: web-7";
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";

#[test]
fn browsers_get_a_page_and_programs_a_line() {
    let program = Program::start("");
    program.put("web-7", &status("setting-up", &["npm ci"]));
    let page = program.get("/any/path?x", &[PREVIEW, BROWSER]);
    assert_eq!(page.status, 503);
    assert!(page.body.contains("Setting up the app") && page.body.contains("npm ci"));
    for (name, value) in [
        ("retry-after", "3"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex"),
        ("x-innkeeper-page", "1"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(!policy.contains("unsafe"));

    let line = program.get("/any/path", &[PREVIEW, "Accept: */*"]);
    assert_eq!((line.status, line.header("retry-after")), (503, Some("3")));
    assert_eq!(line.body, "preview web-7 is not ready: setting up\n");
}

#[test]
fn unknown_previews_and_requests_without_a_preview_are_answered() {
    let program = Program::start("");
    let page = program.get("/", &[PREVIEW, BROWSER]);
    assert!(page.status == 503 && page.body.contains("Not available yet"));
    for header in [
        "Accept: */*",
        "X-Innkeeper-Preview: ../x",
        "X-Innkeeper-Preview: Web",
    ] {
        assert_eq!(program.get("/", &[header]).status, 400, "{header}");
    }
}

#[test]
fn every_file_that_the_page_refers_to_is_served() {
    let program = Program::start("");
    let page = program.get("/", &[PREVIEW, BROWSER]).body;
    let references = page.split("\"/.innkeeper/").skip(1);
    let references: Vec<_> = references
        .map(|rest| rest.split('"').next().expect("an end"))
        .collect();
    assert_eq!(references.len(), 3, "{page}");
    for name in references {
        let file = program.get(&format!("/.innkeeper/{name}"), &[PREVIEW]);
        assert_eq!(file.status, 200, "{name}");
        assert!(
            file.header("cache-control")
                .expect("cached")
                .contains("max-age")
        );
        assert!(!file.body.is_empty());
    }
    assert_eq!(program.get("/.innkeeper/x", &[PREVIEW]).status, 404);
    // All references stay on the preview's own host.
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"));
}
