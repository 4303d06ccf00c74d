//! Tests of the escaping of guests' output on a terminal.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use axum::Router;
use axum::routing::get;
use innkeeper_model::api::Verdict;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::{Link, LinkKind, PreviewExplanation};
use innkeeper_model::{Code, Failure};

use crate::fake::{Fake, attach, fail, respond, terminal};
use crate::samples::{guest, name, preview};

/// Sequences that clear the screen, write to the clipboard, overwrite a line and reverse text; C1 controls and a bell.
const HOSTILE: &str =
    "a\u{1b}[2J\u{1b}]52;c;aGk=\u{7}b\rc\u{202e}d\u{2066}e\u{200f}f\u{9b}31mg\u{90}h\u{8}i";

fn fake() -> Fake {
    let failure = Failure {
        log: vec![HOSTILE.to_owned()],
        ..Failure::new(Code::UnitFailed, HOSTILE).with_remedy(HOSTILE)
    };
    let mut agent = guest("web", 1);
    agent.guest.ssh_host_key = Some(HOSTILE.to_owned());
    agent.guest.fault = Some(failure.clone());
    let mut lost = preview("web-7", PreviewState::Failed);
    (lost.url, lost.repo_trouble) = (HOSTILE.to_owned(), Some(HOSTILE.to_owned()));
    lost.preview.fault = Some(failure.clone());
    let link = |verdict| Link {
        link: LinkKind::Unit,
        object: HOSTILE.to_owned(),
        verdict,
        finding: HOSTILE.to_owned(),
        remedy: Some(HOSTILE.to_owned()),
    };
    let explanation = PreviewExplanation {
        rest: None,
        slug: name("web-7"),
        cause: None,
        chain: vec![
            link(Verdict::Ok),
            link(Verdict::Warning),
            link(Verdict::Broken),
        ],
    };
    Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[&agent]))
            .route("/v1/guests/web/logs", get(async || HOSTILE))
            .route("/v1/guests/web/stop", fail(failure.clone()))
            .route("/v1/previews", respond(&[&lost]))
            .route("/v1/previews/web-7", respond(&lost))
            .route("/v1/previews/web-7/logs", get(async || HOSTILE))
            .route("/v1/previews/web-7/explain", respond(&explanation))
            .route("/v1/status", fail(failure)),
    )
}

/// Returns the output of a program on its terminal.
fn on_a_terminal(fake: &Fake, program: &str, arguments: &[&str]) -> String {
    let (mut user_end, program_end) = terminal();
    let mut command = fake.command(program, arguments);
    command.env("NO_COLOR", "1");
    attach(&mut command, &program_end);
    let mut child = command.spawn().expect("it starts");
    // Reading ends with EIO after the last descriptor of the other end is closed.
    drop((command, program_end));
    let (mut output, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = user_end.read(&mut piece) {
        output.extend_from_slice(&piece[..length]);
    }
    child.wait().expect("it ends");
    String::from_utf8(output)
        .expect("UTF-8")
        .replace("\r\n", "\n")
}

#[test]
fn commands_escape_control_characters() {
    let fake = fake();
    for (program, arguments) in [
        ("agent", &["logs", "web"][..]),
        ("agent", &["logs", "web", "--json"]),
        ("agent", &["list"]),
        ("agent", &["list", "--json"]),
        ("agent", &["stop", "web"]),
        ("agent", &["stop", "web", "--json"]),
        ("preview", &["list"]),
        ("preview", &["list", "--json"]),
        ("preview", &["logs", "web-7"]),
        ("preview", &["open", "web-7"]),
        ("preview", &["explain", "web-7"]),
        ("preview", &["explain", "web-7", "--json"]),
        ("innkeeper", &["status"]),
    ] {
        let output = on_a_terminal(&fake, program, arguments);
        assert!(!output.is_empty(), "{program} {arguments:?}");
        let bad = |c: char| {
            (c.is_control() && !matches!(c, '\n' | '\t'))
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let raw: Vec<char> = output.chars().filter(|c| bad(*c)).collect();
        assert!(
            raw.is_empty(),
            "{program} {arguments:?}: {raw:?} in {output:?}"
        );
    }
    let output = on_a_terminal(&fake, "agent", &["logs", "web"]);
    assert!(
        output.starts_with("a\\u{1b}[2J\\u{1b}]52;c;aGk=\\u{7}b\\u{d}c\\u{202e}d"),
        "{output}"
    );
}

#[test]
fn pipe_gets_the_log_unchanged() {
    let fake = fake();
    for (program, name) in [("agent", "web"), ("preview", "web-7")] {
        let output = fake.command(program, &["logs", name]).output();
        assert_eq!(output.expect("it runs").stdout, HOSTILE.as_bytes());
    }
}

/// Writes to the standard streams in other files would bypass the escaping.
#[test]
fn standard_streams_are_written_in_two_files() {
    let allowed = [
        ("output.rs", "escapes all that it prints"),
        (
            "exec.rs",
            "a command with a terminal draws on it; other output passes through Escaper",
        ),
    ];
    let writes = [
        "io::stdout()",
        "io::stderr()",
        "anstream::stdout",
        "anstream::stderr",
        "print!(",
        "println!(",
        "dbg!(",
        "/dev/tty",
        "/dev/stdout",
        "/dev/stderr",
    ];
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
            continue;
        }
        files += 1;
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let parent = path.parent().and_then(Path::file_name).expect("a folder");
        let is_allowed = allowed.iter().any(|(file, _)| *file == name) && parent != "preview";
        for (number, line) in fs::read_to_string(&path)
            .expect("a source")
            .lines()
            .enumerate()
        {
            // Queries of a stream write nothing.
            let queries = line.contains(".is_terminal()") || line.contains("tcgetwinsize(");
            let found = writes.iter().find(|write| line.contains(**write));
            assert!(
                found.is_none() || queries || is_allowed || line.trim_start().starts_with("//"),
                "{}:{}: {found:?} bypasses output.rs",
                path.display(),
                number + 1
            );
        }
    }
    assert!(files > 50, "{files}");
}
