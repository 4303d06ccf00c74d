//! Invariants of every input of `innkeeper_model::preview`. A function panics when one does not hold.

use innkeeper_model::Secret;
use innkeeper_model::preview::{
    BranchName, EnvFile, Meta, RepoName, default_slug, parse_slug, quote, slug_candidates, text,
    webhook_slug,
};

/// A repository, a branch and a number, one on each line: the slugs made of them can be used.
pub fn slug(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    if let Ok(chosen) = parse_slug(&input) {
        assert_eq!(chosen.as_str(), input);
    }
    let mut lines = input.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (repo, branch, number) = (line(), line(), line());
    let Ok(repo) = RepoName::parse(repo) else {
        return;
    };
    let mut slugs = vec![webhook_slug(&repo, number.parse().unwrap_or_default())];
    if let Ok(branch) = BranchName::parse(branch) {
        slugs.push(default_slug(&repo, &branch));
    }
    for slug in slugs {
        for candidate in slug_candidates(&slug, &input) {
            assert_eq!(parse_slug(candidate.as_str()), Ok(candidate));
        }
    }
}

/// A description of an app: it is read and can be written and read again, or all that is wrong can be shown.
pub fn meta(data: &[u8]) {
    match Meta::parse(&String::from_utf8_lossy(data)) {
        Ok(meta) => {
            let written = serde_json::to_string(&meta).expect("serialises");
            assert_eq!(Meta::parse(&written), Ok(meta));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let shown = format!("{problem} {}", problem.remedy());
                assert!(!shown.chars().any(char::is_control), "{shown:?}");
            }
        }
    }
}

/// A value: by systemd's grammar it round-trips, and no further assignment follows from it. (The crate's own tests use
/// bash: a process per input would be slow here.) A file: its lines are in it.
pub fn env(data: &[u8]) {
    let value = String::from_utf8_lossy(data);
    if let Ok(quoted) = quote(&value) {
        let read = EnvFile::parse(format!("A={quoted}\nB='b'\n").as_bytes());
        for (name, expected) in [("A", &*value), ("B", "b")] {
            assert_eq!(
                read.get(name).expect("valid").map(Secret::expose),
                Some(expected)
            );
        }
        assert_eq!(read.variables.len(), 2);
        assert!(read.ignored.is_empty());
    }
    let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
    assert!(
        EnvFile::parse(data)
            .invalid_lines()
            .all(|bad| (1..=lines).contains(&bad.line))
    );
}

/// The text of a pull request: links are added, replaced and removed, and what the author wrote stays.
pub fn text(data: &[u8]) {
    let body = String::from_utf8_lossy(data);
    let linked = text::with_links(
        &body,
        "https://web-7.example.com",
        &["https://x".to_owned()],
    );
    assert!(text::has_links(&linked));
    assert_eq!(
        text::with_links(
            &linked,
            "https://web-7.example.com",
            &["https://x".to_owned()]
        ),
        linked
    );
    let without = text::without_links(&linked);
    assert!(!text::has_links(&without));
    if !text::has_links(&body) {
        // A CR at the very end would be the half of a line's end that is added.
        assert_eq!(without, body.strip_suffix('\r').unwrap_or(&body));
    }
    assert_eq!(others(&without), others(&body));
}

/// The lines that are certainly not ours.
fn others(body: &str) -> Vec<&str> {
    let ours = |line: &str| {
        ["<!-- preview-link -->", "---", "**Preview:** ", "**URL:** "]
            .iter()
            .any(|begins| line.starts_with(begins))
    };
    body.lines()
        .filter(|line| !ours(line))
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect()
}
