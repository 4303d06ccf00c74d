//! Makes Nix's messages fit for public display.

use innkeeper_model::STORE_DIR;
use innkeeper_model::preview::sources::{SourcePath, SourceTree};

/// The configuration's folder in the evaluator's store, after the hash.
const REPOSITORY: &str = "repository/";

/// Maximum number of log lines in an error.
const MAX_LINES: usize = 40;

/// Maximum number of notes about missing files in an error.
const MAX_NOTES: usize = 5;

/// Hints that only help people who run Nix themselves.
const HINTS: [&str; 5] = [
    " (use '--impure' to override)",
    "(use '--show-trace' to show detailed location information)",
    "; use '--show-trace' to show detailed location information",
    "; use '--extra-experimental-features flakes' to override",
    "error: ",
];

/// Prefixes of lines about this host's Nix rather than the preview.
const HOST_LINE_PREFIXES: [&str; 3] = [
    "GC Warning:",
    // Settings that Innkeeper fixes for builds, of features that are off.
    "warning: Ignoring setting '",
    "warning: ignoring setting '",
];

/// Removes host paths, hints and host-specific lines from a failure's summary and log.
pub(super) fn failure((summary, log): (String, Vec<String>)) -> (String, Vec<String>) {
    let mut log: Vec<String> = log
        .iter()
        .filter(|line| {
            let about_host = |prefix: &&str| line.starts_with(prefix);
            !HOST_LINE_PREFIXES.iter().any(about_host)
        })
        .map(|line| redact(line))
        .skip_while(String::is_empty)
        .collect();
    while log.last().is_some_and(String::is_empty) {
        log.pop();
    }
    let surplus = log.len().saturating_sub(MAX_LINES);
    log.drain(..surplus);
    (redact(&summary), log)
}

/// Returns a line for each file that the evaluation lacks and that Nix's error names.
pub(super) fn omissions(sources: &SourceTree, summary: &str, log: &[String]) -> Vec<String> {
    let is_named = |path: &SourcePath| {
        let name = format!("'{path}'");
        !path.is_root() && (summary.contains(&name) || log.iter().any(|l| l.contains(&name)))
    };
    let mut notes: Vec<String> = sources
        .omitted()
        .iter()
        .filter(|omitted| is_named(&omitted.path) || is_named(&omitted.path.parent()))
        .map(|omitted| {
            let (path, reason) = (&omitted.path, omitted.reason);
            format!("{path} is not part of the evaluation: {reason}")
        })
        .collect();
    notes.truncate(MAX_NOTES);
    notes
}

/// Removes hints, and replaces store paths with their names: the hash reveals something about the host.
pub(super) fn redact(line: &str) -> String {
    let mut line = line.to_owned();
    for hint in HINTS {
        line = line.replace(hint, "");
    }
    let prefix = format!("{STORE_DIR}/");
    let mut out = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some(start) = rest.find(&prefix) {
        out.push_str(&rest[..start]);
        rest = &rest[start + prefix.len()..];
        if let Some(name) = after_hash(rest) {
            // Paths in the repository are the ones that its authors know.
            rest = name.strip_prefix(REPOSITORY).unwrap_or(name);
        }
    }
    out.push_str(rest);
    out.trim_end().to_owned()
}

fn after_hash(text: &str) -> Option<&str> {
    let (hash, name) = text.split_at_checked(32)?;
    hash.chars()
        .all(|c| c.is_ascii_alphanumeric())
        .then(|| name.strip_prefix('-'))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redact_replaces_store_paths_and_drops_hints() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        for (line, expected) in [
            (
                format!("at /nix/store/{hash}-preview-config.nix:1:5:"),
                "at preview-config.nix:1:5:",
            ),
            (
                format!("at /nix/store/{hash}-repository/nix/app.nix:1:5:"),
                "at nix/app.nix:1:5:",
            ),
            (
                format!("'/nix/store/{hash}-a.drv' and /nix/store/{hash}-b/c/nix/store/x"),
                "'a.drv' and b/cx",
            ),
            (
                "error: access is forbidden in pure eval mode (use '--impure' to override)".into(),
                "access is forbidden in pure eval mode",
            ),
            ("/nix/store/é".into(), "é"),
        ] {
            assert_eq!(redact(&line), expected);
        }
    }

    #[test]
    fn failure_drops_host_lines_and_limits_the_log() {
        let lines = [
            "",
            "GC Warning: x",
            "warning: Ignoring setting 'impure-env' because experimental feature 'configurable-impure-env' is not enabled",
            "error: no",
            "",
            "(use '--show-trace' to show detailed location information)",
        ];
        let (summary, log) = failure(("no".into(), lines.map(str::to_owned).into()));
        assert_eq!(summary, "no");
        assert_eq!(log, ["no"]);
        let many = vec!["line".to_owned(); 100];
        assert_eq!(failure(("no".into(), many)).1.len(), MAX_LINES);
    }
}
