//! The status of a preview as visitors see it: `innkeeperd` writes it, `innkeeper-pages` shows it.
//!
//! Each preview has one file of JSON, `<pages.directory>/<slug>.json`, from its first delivery until it is removed. The
//! daemon replaces it atomically. Everybody can see its contents, so they are public and contain no secret.
//! Readers ignore unknown fields; new fields have defaults, so that both programs can be updated one after the other.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BranchName, CommitSha, PreviewState, RepoName};
use crate::{BuildProgress, GuestName};

/// Maximum number of lines in [`PageDetails::log`].
pub const MAX_PAGE_LINES: usize = 200;

/// Maximum length of a line in [`PageDetails::log`], in characters.
pub const MAX_PAGE_COLUMNS: usize = 600;

/// Maximum length of a status file, in bytes. Readers refuse longer ones.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// Name of the socket in the daemon's directory of sockets on which `innkeeper-pages` requests wakes. Each request is a
/// datagram with a preview's slug and has no response: the status shows the result.
pub const WAKE_SOCKET: &str = "wake.sock";

/// Ending of the names of status files.
pub const PAGE_SUFFIX: &str = ".json";

/// The status of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStatus {
    /// The preview.
    pub slug: GuestName,
    /// Its state.
    pub state: PreviewState,
    /// Time at which it entered the state.
    pub since: Timestamp,
    /// Time at which the work on the wanted commit began.
    pub started_at: Timestamp,
    /// The states since then, the oldest first. The last one is `state`.
    #[serde(default)]
    pub steps: Vec<PageStep>,
    /// The reason that the app does not answer although it was live.
    #[serde(default)]
    pub interruption: Option<Interruption>,
    /// The wake of a guest that was asleep, until the app answers.
    #[serde(default)]
    pub wake: Option<PageWake>,
    /// Everything that anonymous visitors of a private repository's preview do not see.
    #[serde(default)]
    pub details: Option<PageDetails>,
}

/// The reason that an app does not answer although it was live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interruption {
    /// A user stopped the preview.
    Stopped,
    /// The guest is asleep.
    Asleep,
    /// The app, or its guest, is being restarted. Readers also take reasons of newer releases for this one.
    #[serde(other)]
    Restarting,
}

/// The wake of a sleeping guest, in progress or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageWake {
    /// Time at which it began.
    pub since: Timestamp,
    /// After a failure, the time from which a request wakes the guest again. `None` while the wake is in progress.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
}

/// A state in the life of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStep {
    /// The state.
    pub state: PreviewState,
    /// Time at which it began.
    pub since: Timestamp,
}

/// The part of a status that is not shown to anonymous visitors if the repository is private.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageDetails {
    /// The repository.
    pub repo: RepoName,
    /// The URL below which repositories are found, such as `https://github.com`.
    pub web_url: String,
    /// The pull request's number.
    #[serde(default)]
    pub pull_request: Option<u64>,
    /// Its title, as its author wrote it.
    #[serde(default)]
    pub title: Option<String>,
    /// Login of its author.
    #[serde(default)]
    pub author: Option<String>,
    /// The branch.
    pub branch: BranchName,
    /// The repository with the commit; `None` when that fork was deleted.
    #[serde(default)]
    pub head_repo: Option<RepoName>,
    /// The commit.
    pub commit: CommitSha,
    /// Progress of the present state.
    #[serde(default)]
    pub progress: Option<BuildProgress>,
    /// The reason that the commit is not live.
    #[serde(default)]
    pub failure: Option<PageFailure>,
    /// The next action that brings the preview forward, as a sentence.
    #[serde(default)]
    pub advice: Option<String>,
    /// The last lines of the log, the newest last: [`MAX_PAGE_LINES`] at most.
    #[serde(default)]
    pub log: Vec<PageLine>,
}

/// The reason that a commit is not live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFailure {
    /// The problem, as a clause.
    pub message: String,
    /// The remedy, as a sentence.
    #[serde(default)]
    pub remedy: Option<String>,
    /// The decisive lines of the log.
    #[serde(default)]
    pub lines: Vec<String>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLine {
    /// Its number. Later lines have higher numbers.
    pub number: u64,
    /// Time of its arrival.
    pub at: Timestamp,
    /// The text, without control characters.
    pub text: String,
}

/// Removes control characters and truncates to [`MAX_PAGE_COLUMNS`]. Characters that reorder or hide text are control
/// characters too: a log must not look like something that it is not.
#[must_use]
pub fn page_text(text: &str) -> String {
    let mut shown = visible_text(text);
    if let Some((end, _)) = shown.char_indices().nth(MAX_PAGE_COLUMNS) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// Removes control characters and escape sequences, as [`page_text`] does, without a limit of the length.
#[must_use]
pub fn visible_text(text: &str) -> String {
    let mut visible = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            skip_escape(&mut rest);
            continue;
        }
        let c = if c == '\t' { ' ' } else { c };
        if is_visible(c) {
            visible.push(c);
        }
    }
    visible
}

/// Reports whether a character is shown, and does not change the direction or the visibility of others.
#[must_use]
pub fn is_visible(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Skips the rest of an escape sequence of terminals: ECMA-48 control sequences and operating system commands.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            while let Some(c) = rest.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        Some(']') => {
            rest.next();
            while let Some(c) = rest.next_if(|c| *c != '\u{1b}') {
                if c == '\u{7}' {
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Reports whether a character changes the direction or the visibility of others.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A daemon may be newer than the program that shows its pages.
    #[test]
    fn unknown_interruption_is_read_as_a_restart() {
        let read = |word: &str| serde_json::from_str::<Interruption>(word).expect("a reason");
        assert_eq!(read(r#""asleep""#), Interruption::Asleep);
        for word in [r#""restarting""#, r#""of-a-newer-release""#] {
            assert_eq!(read(word), Interruption::Restarting);
        }
        let written = serde_json::to_string(&Interruption::Restarting);
        assert_eq!(written.expect("JSON"), r#""restarting""#);
    }

    #[test]
    fn escape_sequences_are_removed_whole() {
        assert_eq!(page_text("\u{1b}[31;1mred\u{1b}[0m text"), "red text");
        assert_eq!(page_text("\u{1b}]0;title\u{7}text\u{1b}"), "text");
        assert_eq!(page_text("a\tb\u{202e}c\u{0}"), "a bc");
    }

    proptest! {
        #[test]
        fn text_is_bounded_and_visible(text in any::<String>()) {
            let shown = page_text(&text);
            prop_assert!(shown.chars().count() <= MAX_PAGE_COLUMNS + 1);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
