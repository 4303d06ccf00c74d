//! The lines of a log that show the cause of a failure.

use super::untrusted::without_escapes;

/// Maximum number of decisive lines.
const MAX_LINES: usize = 8;

/// Number of last lines that are decisive if no line reports an error.
const LAST_LINES: usize = 3;

/// Beginnings of messages about errors, in lower case.
const ERRORS: [&str; 12] = [
    "error:",
    "error[",
    "error ",
    "fatal:",
    "npm err!",
    "panicked at",
    "exception:",
    "exception ",
    ".nix:",
    "cannot find",
    "command not found",
    "no such file",
];

/// Words that a line about a failure has, in lower case.
const FAILURES: [&str; 4] = ["failed", "not found", "denied", "refused"];

/// Returns the decisive lines of a log with their numbers, counted from 1: the first ones that report an error, otherwise
/// those that report a failure, otherwise the last ones. Empty lines are never decisive.
#[must_use]
pub fn decisive(log: &[String]) -> Vec<(usize, String)> {
    let lines: Vec<(usize, String)> = (1..)
        .zip(log)
        .map(|(number, line)| (number, without_escapes(line)))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    for signs in [&ERRORS[..], &FAILURES[..]] {
        let found: Vec<_> = lines
            .iter()
            .filter(|(_, line)| has_any(line, signs))
            .take(MAX_LINES)
            .cloned()
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

fn has_any(line: &str, signs: &[&str]) -> bool {
    let line = line.to_lowercase();
    signs.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(log: &[&str]) -> Vec<usize> {
        let log: Vec<_> = log.iter().map(|line| (*line).to_owned()).collect();
        decisive(&log).iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn errors_are_decisive() {
        assert_eq!(
            numbers(&["ok", "\u{1b}[31merror\u{1b}[0m: x", "0 failed", "more"]),
            [2]
        );
        assert_eq!(numbers(&["a", "tests failed", "b"]), [2]);
    }

    #[test]
    fn last_lines_are_decisive_without_an_error() {
        assert_eq!(numbers(&["a", "b", "", "c", "d", " "]), [2, 4, 5]);
        assert_eq!(numbers(&[]), [0; 0]);
    }

    #[test]
    fn decisive_lines_are_bounded() {
        assert_eq!(numbers(&["error: x"; 50]).len(), MAX_LINES);
    }
}
