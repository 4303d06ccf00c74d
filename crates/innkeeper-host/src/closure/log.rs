//! Parses Nix's JSON log (`--log-format internal-json`) into a progress and the last lines.
//!
//! Each line is `@nix ` and an object, as Nix's `JSONLogger` writes it (src/libutil/logging.cc). Since Nix 2.0 the format
//! has only gained fields; unknown ones are ignored. Counts are added up as in Nix's own progress bar
//! (src/libmain/progress-bar.cc).

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitStatus;

use innkeeper_model::BuildProgress;
use serde::Deserialize;
use serde_json::Value;

use super::cause::{self, Cause};
use super::nix_error::{NixError, PlaceFields, TraceFields};

/// Number of lines to keep for an error.
const KEPT_LINES: usize = 40;

/// Maximum length of a kept line, in characters.
const LINE_LENGTH: usize = 1000;

/// Number of errors to keep for determining the cause, and the maximum characters of each.
const KEPT_ERRORS: usize = 20;
const ERROR_LENGTH: usize = 4000;

/// Maximum number of tracked activities and of expectations; further ones are ignored. Nix itself has a few per job and
/// download.
const MAX_TRACKED: usize = 4096;

/// Kinds of activities (`ActivityType` in src/libutil/logging.hh).
mod activity {
    pub(super) const UNKNOWN: u64 = 0;
    pub(super) const COPY_PATH: u64 = 100;
    pub(super) const FILE_TRANSFER: u64 = 101;
    pub(super) const BUILDS: u64 = 104;
    pub(super) const BUILD: u64 = 105;
}

/// Kinds of results (`ResultType` in the same file).
mod result {
    pub(super) const BUILD_LOG_LINE: u64 = 101;
    pub(super) const PROGRESS: u64 = 105;
    pub(super) const SET_EXPECTED: u64 = 106;
    pub(super) const POST_BUILD_LOG_LINE: u64 = 107;
}

/// The level of errors and of `builtins.trace` (`Verbosity` in src/libutil/error.hh).
const LEVEL_ERROR: u64 = 0;
const LEVEL_WARNING: u64 = 1;

/// Activities above this level are not shown.
const LEVEL_TALKATIVE: u64 = 4;

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Line {
    Start {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        parent: u64,
        #[serde(default)]
        level: u64,
        #[serde(default)]
        text: String,
        #[serde(default)]
        fields: Vec<Value>,
    },
    Stop {
        id: u64,
    },
    Result {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<Value>,
    },
    Msg {
        level: u64,
        msg: String,
        /// The message without its place and trace; only errors have one.
        #[serde(default)]
        raw_msg: Option<String>,
        #[serde(flatten)]
        place: PlaceFields,
        #[serde(default)]
        trace: Vec<TraceFields>,
    },
    #[serde(other)]
    Other,
}

/// State of a log, updated line by line.
#[derive(Default)]
pub(crate) struct Log {
    /// Errors are kept in `nix_error` rather than as lines.
    is_evaluation: bool,
    nix_error: Option<NixError>,
    activities: BTreeMap<u64, Activity>,
    totals: BTreeMap<u64, Total>,
    /// Number of entries in all activities' `expects`.
    expectations: usize,
    shown: Vec<(u64, String)>,
    lines: VecDeque<String>,
    error: String,
    /// The last errors, oldest first.
    errors: VecDeque<String>,
}

/// A running activity.
#[derive(Default)]
struct Activity {
    kind: u64,
    done: u64,
    expected: u64,
    /// Its expectations for all activities of a kind.
    expects: BTreeMap<u64, u64>,
}

/// Sums over all activities of a kind. Updated with each change: a hostile builder's log must not make the progress
/// expensive to compute.
#[derive(Clone, Copy, Default)]
struct Total {
    /// Done by stopped activities.
    finished: u64,
    /// Done and expected by running activities.
    done: u64,
    expected: u64,
    /// Expected by other activities (`SET_EXPECTED`).
    announced: u64,
}

impl Log {
    /// Creates the log of an evaluation with `--show-trace`.
    pub(crate) fn of_evaluation() -> Self {
        Self {
            is_evaluation: true,
            ..Self::default()
        }
    }

    /// Returns the last error of an evaluation.
    pub(crate) fn nix_error(&self) -> Option<&NixError> {
        self.nix_error.as_ref()
    }

    /// Processes one line of Nix's standard error. Keeps lines in other formats as they are: Nix reports invalid arguments
    /// in plain text.
    pub(crate) fn take(&mut self, line: &str) {
        let Some(json) = line.strip_prefix("@nix ") else {
            return self.keep(line);
        };
        match serde_json::from_str(json) {
            Ok(Line::Start {
                id,
                kind,
                parent,
                level,
                text,
                fields,
            }) => {
                if self.activities.len() >= MAX_TRACKED
                    || self.activities.contains_key(&id)
                    || self.is_build(parent)
                {
                    return;
                }
                if let Some(text) = describe(kind, level, &text, &fields) {
                    self.shown.push((id, text));
                }
                self.activities.insert(
                    id,
                    Activity {
                        kind,
                        ..Activity::default()
                    },
                );
            }
            Ok(Line::Stop { id }) => self.stop(id),
            Ok(Line::Result { id, kind, fields }) => self.result(id, kind, &fields),
            Ok(Line::Msg {
                level: LEVEL_ERROR,
                raw_msg: Some(message),
                place,
                trace,
                ..
            }) if self.is_evaluation => {
                let site = |frame: &TraceFields| {
                    frame
                        .place
                        .frame(plain(frame.raw_msg.as_str().unwrap_or_default()))
                };
                let sites = trace.iter().take(MAX_TRACKED).filter_map(site);
                self.nix_error = Some(NixError {
                    message: plain(&message).chars().take(ERROR_LENGTH).collect(),
                    frames: place
                        .frame(String::new())
                        .into_iter()
                        .chain(sites)
                        .collect(),
                });
            }
            Ok(Line::Msg { level, msg, .. }) if level <= LEVEL_WARNING => {
                let msg = plain(&msg);
                msg.lines().for_each(|line| self.keep(line));
                // `builtins.trace` and hints about options have the same level.
                if level == LEVEL_ERROR && msg.trim_start().starts_with("error:") {
                    if self.errors.len() == KEPT_ERRORS {
                        self.errors.pop_front();
                    }
                    self.errors
                        .push_back(msg.chars().take(ERROR_LENGTH).collect());
                    self.error = msg;
                }
            }
            Ok(Line::Msg { .. } | Line::Other) | Err(_) => {}
        }
    }

    /// Returns the current progress.
    pub(crate) fn progress(&self) -> BuildProgress {
        let (built, to_build) = self.count(activity::BUILDS);
        let transfers = self.count(activity::FILE_TRANSFER);
        // Copies from a cache in a directory have no transfers.
        let (fetched_bytes, to_fetch_bytes) = match transfers {
            (0, 0) => self.count(activity::COPY_PATH),
            transfers => transfers,
        };
        let activity = self
            .shown
            .last()
            .map(|(_, text)| text.clone())
            .unwrap_or_default();
        BuildProgress {
            activity,
            built,
            to_build,
            fetched_bytes,
            to_fetch_bytes,
        }
    }

    /// Returns the party at fault for Nix's failure.
    pub(crate) fn cause(&self, status: ExitStatus) -> Cause {
        let owned = |texts: &VecDeque<String>| texts.iter().cloned().collect::<Vec<_>>();
        cause::of(&owned(&self.errors), &owned(&self.lines), status)
    }

    /// Returns the last error in one line, and the last lines.
    pub(crate) fn into_failure(self) -> (String, Vec<String>) {
        let summary = summary(&self.error)
            .or_else(|| self.lines.back().cloned())
            .unwrap_or_else(|| "Nix printed no error".to_owned());
        (summary, self.lines.into())
    }

    fn stop(&mut self, id: u64) {
        let Some(activity) = self.activities.remove(&id) else {
            return;
        };
        self.shown.retain(|(shown, _)| *shown != id);
        let total = self.totals.entry(activity.kind).or_default();
        total.finished = total.finished.saturating_add(activity.done);
        total.replace((activity.done, activity.expected), (0, 0));
        self.expectations -= activity.expects.len();
        for (kind, expected) in activity.expects {
            let total = self.totals.entry(kind).or_default();
            total.announced = total.announced.saturating_sub(expected);
        }
    }

    /// Reports whether the activity is a derivation's builder. Nix forwards activities that the builder prints as its
    /// children, and those must not count.
    fn is_build(&self, id: u64) -> bool {
        self.activities
            .get(&id)
            .is_some_and(|activity| activity.kind == activity::BUILD)
    }

    fn result(&mut self, id: u64, kind: u64, fields: &[Value]) {
        let number = |index: usize| fields.get(index).and_then(Value::as_u64);
        match kind {
            result::BUILD_LOG_LINE | result::POST_BUILD_LOG_LINE => {
                if let Some(line) = fields.first().and_then(Value::as_str) {
                    self.keep(line);
                }
            }
            result::PROGRESS => {
                if let (Some(activity), Some(done), Some(expected)) =
                    (self.activities.get_mut(&id), number(0), number(1))
                {
                    let before = (activity.done, activity.expected);
                    (activity.done, activity.expected) = (done, expected);
                    let total = self.totals.entry(activity.kind).or_default();
                    total.replace(before, (done, expected));
                }
            }
            result::SET_EXPECTED => {
                if let (Some(activity), Some(kind), Some(expected)) =
                    (self.activities.get_mut(&id), number(0), number(1))
                {
                    let is_known = activity.expects.contains_key(&kind);
                    if !is_known && self.expectations >= MAX_TRACKED {
                        return;
                    }
                    let before = activity.expects.insert(kind, expected);
                    self.expectations += usize::from(!is_known);
                    let total = self.totals.entry(kind).or_default();
                    let others = total.announced.saturating_sub(before.unwrap_or_default());
                    total.announced = others.saturating_add(expected);
                }
            }
            _ => {}
        }
    }

    /// Returns the done and expected amounts of all activities of a kind.
    fn count(&self, kind: u64) -> (u64, u64) {
        let total = self.totals.get(&kind).copied().unwrap_or_default();
        let done = total.finished.saturating_add(total.done);
        let expected = total.finished.saturating_add(total.expected);
        (done, expected.max(total.announced))
    }

    fn keep(&mut self, line: &str) {
        // Old versions print this on each call. Users cannot change it.
        if line.contains(UNKNOWN_SETTING) {
            return;
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines
            .push_back(plain(line).trim_end().chars().take(LINE_LENGTH).collect());
    }
}

impl Total {
    /// Replaces a running activity's done and expected amounts.
    fn replace(&mut self, before: (u64, u64), now: (u64, u64)) {
        self.done = self.done.saturating_sub(before.0).saturating_add(now.0);
        self.expected = self.expected.saturating_sub(before.1).saturating_add(now.1);
    }
}

/// Message of versions without the setting in [`DURABLE`](super::nix::DURABLE).
const UNKNOWN_SETTING: &str = "unknown setting 'fsync-store-paths'";

/// Describes an activity. Returns `None` for those that are not shown.
fn describe(kind: u64, level: u64, text: &str, fields: &[Value]) -> Option<String> {
    let subject = fields.first().and_then(Value::as_str);
    let text = match kind {
        activity::BUILD => format!("building {}", object_name(subject?)),
        activity::COPY_PATH => format!("copying {}", object_name(subject?)),
        activity::FILE_TRANSFER => format!("downloading {}", file_name(subject?)),
        activity::UNKNOWN if level <= LEVEL_TALKATIVE && !text.is_empty() => text.to_owned(),
        _ => return None,
    };
    Some(plain(&text).chars().take(LINE_LENGTH).collect())
}

/// Returns the name of a store path: `guest` for `/nix/store/<hash>-guest.drv`.
fn object_name(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    name.strip_suffix(".drv").unwrap_or(name)
}

/// Returns the last path segment of a URL. The other parts may contain a password or a token.
fn file_name(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].rsplit('/').next().unwrap_or_default()
}

/// Returns the line of an error message with the actual error. Newer versions of Nix print the position first. Display
/// only: no decision may depend on it.
fn summary(error: &str) -> Option<String> {
    let lines: Vec<&str> = error
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.iter().rposition(|line| line.starts_with("error:"));
    let summary = match last {
        Some(index) => match lines[index].trim_start_matches("error:").trim() {
            "" => lines.get(index + 1).copied()?,
            text => text,
        },
        None => lines.first().copied()?,
    };
    Some(summary.to_owned())
}

/// Removes escape sequences (ECMA-48, section 5.4) and control characters other than line feed and tab.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if rest.next() == Some('[') {
                    rest.by_ref().find(|c| matches!(c, '\u{40}'..='\u{7e}'));
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Recorded from Nix 2.8: a successful build, a failed one, a missing attribute.
    const SUCCESS: &str = include_str!("fixtures/nix-2.8-success.log");
    const FAILURE: &str = include_str!("fixtures/nix-2.8-failure.log");
    const MISSING: &str = include_str!("fixtures/nix-2.8-missing-attribute.log");

    fn read(text: &str) -> (Log, Vec<BuildProgress>) {
        let mut log = Log::default();
        let mut seen = Vec::new();
        for line in text.lines() {
            log.take(line);
            seen.push(log.progress());
        }
        seen.dedup();
        (log, seen)
    }

    #[test]
    fn progress_follows_a_build_from_start_to_end() {
        let (log, seen) = read(SUCCESS);
        let reports: Vec<_> = seen
            .iter()
            .map(|p| format!("{} {}/{}", p.activity, p.built, p.to_build))
            .collect();
        insta::assert_snapshot!(reports.join("\n"), @r"
        copying '/tmp/nixtry/flake' 0/0
         0/0
         0/1
        building guest 0/1
        building guest 1/1
         1/1
        ");
        assert!(
            log.activities.is_empty() && log.shown.is_empty(),
            "everything stopped"
        );
    }

    #[test]
    fn failure_has_the_builders_last_lines_and_nixs_error() {
        let (summary, lines) = read(FAILURE).0.into_failure();
        insta::assert_snapshot!(summary, @"builder for '/nix/store/szs6f79a8ysznc325mb73v0p53ih9ggz-bad.drv' failed with exit code 3");
        assert_eq!(lines.first().map(String::as_str), Some("line 1"));
        assert_eq!(lines.len(), 15);
        assert!(
            lines[14].starts_with("error: builder for '/nix/store/"),
            "{}",
            lines[14]
        );
        assert!(!lines[14].contains('\u{1b}'));
    }

    #[test]
    fn failure_for_a_missing_attribute_is_nixs_message() {
        let (summary, _) = read(MISSING).0.into_failure();
        insta::assert_snapshot!(summary, @"flake 'path:/tmp/nixtry/flake' does not provide attribute 'packages.x86_64-linux.nope', 'legacyPackages.x86_64-linux.nope' or 'nope'");
    }

    #[test]
    fn log_keeps_only_the_last_lines() {
        let mut log = Log::default();
        for n in 0..100 {
            log.take(&format!("plain {n}"));
        }
        let (summary, lines) = log.into_failure();
        assert_eq!(summary, "plain 99");
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines[0], "plain 60");
    }

    #[test]
    fn downloads_are_added_up_as_in_nixs_progress_bar() {
        let (log, _) = read(
            r#"@nix {"action":"start","id":1,"level":0,"text":"","type":102}
@nix {"action":"result","fields":[101,5000],"id":1,"type":106}
@nix {"action":"start","fields":["https://user:password@cache/nar/abc.nar.xz?token=1"],"id":2,"level":4,"parent":0,"text":"downloading 'https://user:password@cache/nar/abc.nar.xz'","type":101}
@nix {"action":"result","fields":[1000,2000,0,0],"id":2,"type":105}
@nix {"action":"start","fields":["https://cache/nar/def.nar.xz"],"id":3,"level":4,"text":"","type":101}
@nix {"action":"result","fields":[500,3000,0,0],"id":3,"type":105}
@nix {"action":"stop","id":3}"#,
        );
        let progress = log.progress();
        assert_eq!(
            (progress.fetched_bytes, progress.to_fetch_bytes),
            (1_500, 5_000)
        );
        assert_eq!(progress.activity, "downloading abc.nar.xz");
    }

    /// Nix forwards `@nix` lines that a builder prints, with the build as the parent.
    #[test]
    fn activities_that_a_builder_prints_do_not_count() {
        let mut log = Log::default();
        log.take(r#"@nix {"action":"start","fields":["/nix/store/0-guest.drv"],"id":1,"level":3,"parent":0,"text":"","type":105}"#);
        log.take(r#"@nix {"action":"start","fields":["https://a/b"],"id":2,"level":3,"parent":1,"text":"","type":101}"#);
        log.take(r#"@nix {"action":"result","fields":[1000,2000],"id":2,"type":105}"#);
        let progress = log.progress();
        assert_eq!(progress.activity, "building guest");
        assert_eq!((progress.fetched_bytes, progress.to_fetch_bytes), (0, 0));
        assert_eq!(log.activities.len(), 1);
    }

    #[test]
    fn activities_and_expectations_are_bounded() {
        let mut log = Log::default();
        for id in 0..2 * MAX_TRACKED {
            log.take(&format!(
                r#"@nix {{"action":"start","fields":["https://a/b"],"id":{id},"level":3,"text":"","type":101}}"#
            ));
            log.take(&format!(
                r#"@nix {{"action":"result","fields":[{id},1],"id":0,"type":106}}"#
            ));
        }
        assert_eq!(log.activities.len(), MAX_TRACKED);
        assert_eq!(log.shown.len(), MAX_TRACKED);
        assert_eq!(log.expectations, MAX_TRACKED);
        assert!(log.totals.len() <= MAX_TRACKED + 1);
        for id in 0..2 * MAX_TRACKED {
            log.take(&format!(r#"@nix {{"action":"stop","id":{id}}}"#));
        }
        assert!(log.activities.is_empty() && log.shown.is_empty());
        assert_eq!(log.expectations, 0);
    }

    #[test]
    fn copies_from_a_cache_in_a_directory_count() {
        let (log, _) = read(
            r#"@nix {"action":"start","fields":["/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-glibc-2.40","file:///cache","local"],"id":2,"level":3,"text":"copying","type":100}
@nix {"action":"result","fields":[10,20,0,0],"id":2,"type":105}"#,
        );
        let progress = log.progress();
        assert_eq!((progress.fetched_bytes, progress.to_fetch_bytes), (10, 20));
        assert_eq!(progress.activity, "copying glibc-2.40");
    }

    #[test]
    fn summary_of_newer_versions_is_their_last_error() {
        let msg = "\u{1b}[31;1merror:\u{1b}[0m\n       … while evaluating 'x'\n\n       error: attribute 'y' missing\n       at flake.nix:1:2:";
        let line = serde_json::json!({"action": "msg", "level": 0, "msg": msg, "raw_msg": ""});
        let (summary, lines) = read(&format!("@nix {line}")).0.into_failure();
        assert_eq!(summary, "attribute 'y' missing");
        assert_eq!(lines[0], "error:");
    }

    proptest! {
        #[test]
        fn lines_never_panic(lines in proptest::collection::vec("(@nix )?\\{?.{0,60}", 0..20)) {
            let (log, _) = read(&lines.join("\n"));
            log.into_failure();
        }

        #[test]
        fn fields_never_panic(kind in 90u64..120, id in 0u64..3, a: u64, b: u64, text in ".{0,20}") {
            let start = serde_json::json!({"action": "start", "id": id, "type": kind, "fields": [text]});
            let result = serde_json::json!({"action": "result", "id": id, "type": kind, "fields": [a, b]});
            let stop = serde_json::json!({"action": "stop", "id": id});
            let (log, _) = read(&format!("@nix {start}\n@nix {result}\n@nix {start}\n@nix {result}\n@nix {stop}"));
            log.progress();
        }

        #[test]
        fn plain_text_has_no_control_characters(text in "(\u{1b}\\[[0-9;]{0,5}m|.|\u{1b}|\r){0,40}") {
            prop_assert!(!plain(&text).chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
