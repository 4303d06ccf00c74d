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

#[test]
fn a_request_waits_until_its_app_accepts_connections() {
    let program = Program::start("hold_seconds = 60\n[network]\nsubnet = '127.9.0.0/16'\n");
    program.put("web-7", &status("live", &[]));
    let app = std::net::TcpListener::bind("127.9.0.3:0").expect("binds");
    let address = app.local_addr().expect("an address");
    let port = address.port();
    let header = format!("X-Innkeeper-Hold: /web-7,127.9.0.3,{port}");
    assert_eq!(program.get("/", &[&header]).status, 204);
    // Without a wait, the same app has a page.
    let preview = header.replace("Hold", "Preview");
    assert_eq!(program.get("/", &[&preview]).status, 503);
    drop(app);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| program.get("/", &[&header]).status);
        // Its own files do not wait.
        let file = program.get("/.innkeeper/page.css", &[&header]);
        assert_ne!(file.status, 204);
        assert!(!waiting.is_finished());
        let app = std::net::TcpListener::bind(address).expect("binds");
        assert_eq!(waiting.join().expect("ends"), 204);
        drop(app);
    });
}

#[test]
fn an_app_that_stays_down_has_a_page() {
    let program = Program::start("hold_seconds = 1\n[network]\nsubnet = '127.9.0.0/16'\n");
    program.put("web-7", &status("live", &[]));
    let app = std::net::TcpListener::bind("127.9.0.3:0").expect("binds");
    let address = app.local_addr().expect("an address");
    drop(app);
    let page = program.get(
        "/",
        &[&format!(
            "X-Innkeeper-Hold: /web-7,127.9.0.3,{}",
            address.port()
        )],
    );
    assert_eq!((page.status, page.header("retry-after")), (503, Some("3")));
    assert!(!page.body.is_empty());
}
