//! Printing of previews' logs.

use clap::Args;
use hyper::body::Incoming;
use innkeeper_model::preview::log::LogLine;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::context::Context;
use crate::escape::Escaper;
use crate::failure::{CommandError, Status};

/// Maximum length of a line, in bytes. Longer ones are split.
const MAX_LINE: usize = 1 << 20;

/// Options that select lines of a preview's log.
#[derive(Args, Clone, Debug)]
pub(crate) struct SelectionOptions {
    /// Print lines from this time on: `2026-11-20T10:00:00Z`, or an age such as `10m` or `2h`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,

    /// Print lines of one service only; `innkeeper` selects the daemon's own lines
    #[arg(long, value_name = "NAME", value_parser = parse_service)]
    service: Option<String>,

    /// Print lines of the attempt with this number only
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
}

impl SelectionOptions {
    /// Returns the options as an addition to a query.
    pub(crate) fn query(&self) -> String {
        let mut query = String::new();
        if let Some(since) = self.since {
            query.push_str(&format!("&since={since}"));
        }
        if let Some(service) = &self.service {
            query.push_str(&format!("&service={service}"));
        }
        if let Some(attempt) = self.attempt {
            query.push_str(&format!("&attempt={attempt}"));
        }
        query
    }
}

/// Parses a time in the past, or an age. `10m ago` is an age too.
pub(crate) fn parse_since(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let age = |age: SignedDuration| now.checked_sub(age.abs()).ok();
    let time = match text.parse() {
        Ok(time) => Some(time),
        Err(_) => text.parse().ok().and_then(age),
    };
    match time {
        Some(time) if time > now => Err(format!("{time} is in the future")),
        Some(time) => Ok(time),
        None => Err("write a time like 2026-11-20T10:00:00Z, or an age like 10m".to_owned()),
    }
}

/// Checks the name of a service. All of its characters may be in a query.
fn parse_service(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    match text.is_empty() || !text.chars().all(is_allowed) {
        true => Err("write a name like app or app.service".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Prints a log as it arrives: one line for each line, or one JSON value with `--json`.
pub(crate) async fn print(cx: &Context, mut body: Incoming) -> Status {
    let mut printer = Printer {
        cx,
        escaper: cx.output.escaper(),
    };
    let mut buffer = Vec::new();
    while let Some(chunk) = cx.client.next_chunk(&mut body).await? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = line_end(&buffer) {
            let line: Vec<u8> = buffer.drain(..end).collect();
            printer.print(&line)?;
        }
    }
    if !buffer.is_empty() {
        printer.print(&buffer)?;
    }
    cx.output.log_bytes(&mut printer.escaper, None)?;
    Ok(0)
}

/// Returns the length of the first line with its ending.
fn line_end(buffer: &[u8]) -> Option<usize> {
    let end = buffer.iter().position(|byte| *byte == b'\n');
    end.map(|end| end + 1)
        .or_else(|| (buffer.len() > MAX_LINE).then_some(MAX_LINE))
}

struct Printer<'a> {
    cx: &'a Context,
    escaper: Escaper,
}

impl Printer<'_> {
    /// Prints a line as received. Text that is no JSON is printed as it is.
    fn print(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let line: Option<LogLine> = serde_json::from_slice(bytes).ok();
        let output = self.cx.output;
        match (output.is_json(), line) {
            (true, Some(line)) => output.value(&line),
            (true, None) => {
                let text = String::from_utf8_lossy(bytes);
                output.value(&json!({ "line": text.trim_end_matches(['\r', '\n']) }))
            }
            (false, Some(line)) => {
                output.log_bytes(&mut self.escaper, Some(render(&line).as_bytes()))
            }
            (false, None) => output.log_bytes(&mut self.escaper, Some(bytes)),
        }
    }
}

/// Renders a line with its time and its source, which also begin the further lines of its text.
fn render(line: &LogLine) -> String {
    let time = line.time.map_or_else(
        || " ".repeat(20),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    if line.attempt.is_some() {
        return format!("--- {time} {}\n", line.text);
    }
    let source = line.source.trim_end_matches(".service");
    let mut rendered = String::new();
    for text in line.text.split('\n') {
        let text = text.trim_end_matches('\r');
        rendered.push_str(&format!("{time} {source} | {text}\n"));
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            time: "2026-11-20T10:00:00.5Z".parse().ok(),
            source: "app.service".to_owned(),
            attempt: None,
            text: text.to_owned(),
        }
    }

    /// An app cannot imitate a line of the daemon's.
    #[test]
    fn every_line_of_a_text_has_its_source() {
        insta::assert_snapshot!(render(&line("a\r\n2026-11-20T10:00:00Z innkeeper | b")), @r"
        2026-11-20T10:00:00Z app | a
        2026-11-20T10:00:00Z app | 2026-11-20T10:00:00Z innkeeper | b
        ");
    }

    #[test]
    fn attempts_are_separated() {
        let begin = LogLine {
            attempt: Some(2),
            ..line("Attempt 2 of 1a1a1a1 begins.")
        };
        assert_eq!(
            render(&begin),
            "--- 2026-11-20T10:00:00Z Attempt 2 of 1a1a1a1 begins.\n"
        );
    }

    #[test]
    fn since_is_a_time_or_an_age() {
        let time = parse_since("2026-11-20T10:00:00Z").expect("a time");
        assert_eq!(time.to_string(), "2026-11-20T10:00:00Z");
        let then = parse_since("2h 30m").expect("an age");
        assert!(Timestamp::now().duration_since(then).as_mins() >= 150);
        let ago = parse_since("10m ago").expect("an age");
        assert!(ago < Timestamp::now());
        for wrong in ["yesterday", "", "0", "2026-11-20", "9999-01-01T00:00:00Z"] {
            parse_since(wrong).expect_err(wrong);
        }
        parse_service("app&lines=0").expect_err("no name");
    }
}
