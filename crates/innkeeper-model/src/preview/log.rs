//! The log of a preview: the daemon's lines and those of the app's services.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The source of the daemon's own lines.
pub const OWN_SOURCE: &str = "innkeeper";

/// One line of a preview's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Time of the line; `None` if its source records none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// `innkeeper` for the daemon's own lines, otherwise the name of a service in the guest or `console`.
    pub source: String,
    /// The number of the attempt that begins with this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// The text, without a line ending. Untrusted, unless the line is the daemon's own.
    #[serde(rename = "line")]
    pub text: String,
}

impl LogLine {
    /// Returns a line of the daemon's own.
    #[must_use]
    pub fn own(time: Timestamp, text: impl Into<String>) -> Self {
        Self {
            time: Some(time),
            source: OWN_SOURCE.to_owned(),
            attempt: None,
            text: text.into(),
        }
    }
}

/// Selects lines of a preview's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only lines of this source: `innkeeper`, or a service in the guest.
    pub service: Option<String>,
    /// Only lines of the attempt with this number.
    pub attempt: Option<u64>,
}

/// Merges lines by their time: those of one list keep their order, and lines without a time stay with the one before. The
/// first list comes first at the same time.
#[must_use]
pub fn merge(first: Vec<LogLine>, second: Vec<LogLine>) -> Vec<LogLine> {
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let mut first = timed(first).into_iter().peekable();
    for (time, line) in timed(second) {
        while let Some((_, earlier)) = first.next_if(|(earlier, _)| *earlier <= time) {
            merged.push(earlier);
        }
        merged.push(line);
    }
    merged.extend(first.map(|(_, line)| line));
    merged
}

/// Returns each line with the time by which it is sorted: never before that of an earlier line.
fn timed(lines: Vec<LogLine>) -> Vec<(Timestamp, LogLine)> {
    let has_times = lines.iter().any(|line| line.time.is_some());
    // Lines of unknown age come last: they are the newest output.
    let mut last = match has_times {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    };
    let mut timed = Vec::with_capacity(lines.len());
    for line in lines {
        last = line.time.map_or(last, |time| time.max(last));
        timed.push((last, line));
    }
    timed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: &str, seconds: Option<i64>, text: &str) -> LogLine {
        let time = seconds.map(|seconds| Timestamp::from_second(seconds).expect("a time"));
        LogLine {
            time,
            source: source.to_owned(),
            attempt: None,
            text: text.to_owned(),
        }
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_are_merged_by_time() {
        let own = vec![
            line("innkeeper", Some(1), "a"),
            line("innkeeper", Some(3), "c"),
            line("innkeeper", Some(5), "f"),
        ];
        let app = vec![
            line("app", Some(2), "b"),
            line("app", Some(3), "d"),
            line("app", None, "e"),
        ];
        assert_eq!(texts(&merge(own, app)), ["a", "b", "c", "d", "e", "f"]);
    }

    #[test]
    fn lines_without_times_come_last() {
        let own = vec![line("innkeeper", Some(9), "a")];
        let app = vec![line("app", None, "b"), line("app", None, "c")];
        assert_eq!(texts(&merge(own, app)), ["a", "b", "c"]);
    }

    #[test]
    fn clock_that_was_set_back_keeps_the_order_of_a_source() {
        let app = vec![line("app", Some(9), "a"), line("app", Some(1), "b")];
        let own = vec![line("innkeeper", Some(5), "own")];
        assert_eq!(texts(&merge(own, app)), ["own", "a", "b"]);
    }

    #[test]
    fn line_serializes_without_what_it_lacks() {
        let json = serde_json::to_string(&line("app", None, "x")).expect("serializes");
        assert_eq!(json, r#"{"source":"app","line":"x"}"#);
    }
}
