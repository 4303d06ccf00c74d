//! What Nix says, fit to be shown to strangers.

use innkeeper_model::STORE_DIR;

/// The most lines that go into an error.
const MAX_LINES: usize = 40;

/// Hints that are of use to who runs Nix, and to nobody here.
const HINTS: [&str; 5] = [
    " (use '--impure' to override)",
    "(use '--show-trace' to show detailed location information)",
    "; use '--show-trace' to show detailed location information",
    "; use '--extra-experimental-features flakes' to override",
    "error: ",
];

/// How lines begin that are about this host's Nix, and not about the preview.
const ABOUT_THE_HOST: [&str; 3] = [
    "GC Warning:",
    // A setting that was fixed for builds belongs to a feature that is off anyway.
    "warning: Ignoring setting '",
    "warning: ignoring setting '",
];

/// A failure's summary and log without paths of the host and without what says nothing.
pub(super) fn failure((summary, log): (String, Vec<String>)) -> (String, Vec<String>) {
    let mut log: Vec<String> = log
        .iter()
        .filter(|line| !ABOUT_THE_HOST.iter().any(|start| line.starts_with(start)))
        .map(|line| public(line))
        .skip_while(String::is_empty)
        .collect();
    while log.last().is_some_and(String::is_empty) {
        log.pop();
    }
    let surplus = log.len().saturating_sub(MAX_LINES);
    log.drain(..surplus);
    (public(&summary), log)
}

/// A line of Nix's without hints, and with the names of store paths in place of the paths: in a store path the
/// name says what it is, and the rest says something about the host.
fn public(line: &str) -> String {
    let mut line = line.to_owned();
    for hint in HINTS {
        line = line.replace(hint, "");
    }
    let prefix = format!("{STORE_DIR}/");
    let mut out = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some(at) = rest.find(&prefix) {
        out.push_str(&rest[..at]);
        rest = &rest[at + prefix.len()..];
        if let Some(name) = after_hash(rest) {
            rest = name;
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
    fn paths_become_names_and_hints_go() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        for (said, shown) in [
            (
                format!("at /nix/store/{hash}-preview-config.nix:1:5:"),
                "at preview-config.nix:1:5:",
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
            assert_eq!(public(&said), shown);
        }
    }

    #[test]
    fn only_what_says_something_is_kept() {
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
