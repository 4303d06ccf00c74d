//! The journal of the services in a preview's guest, read by the guest's own `journalctl`. Its output is untrusted: it may
//! have any form, and no end.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use innkeeper_engine::Engine;
use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::log::{LogFilter, LogLine};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

/// Timeout for the guest to print the end of its journal.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Delay before a journal that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum length of a line, in bytes. The journal splits lines of 48 KiB (LineMax), and its JSON has further fields.
const MAX_LINE: u64 = 128 * 1024;

/// Maximum length of a service's name and of a cursor.
const MAX_NAME: usize = 256;

/// The source of lines that name no service.
const UNKNOWN: &str = "guest";

/// Selects entries of a guest's journal.
#[derive(Clone, Debug)]
pub(crate) struct ServiceLog {
    services: Vec<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// A line, and the entry after which the next ones follow.
pub(crate) struct Entry {
    pub(crate) line: LogLine,
    pub(crate) cursor: Option<String>,
}

/// The start of a followed journal.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// After this entry.
    Cursor(String),
    /// At this time.
    Time(Timestamp),
}

/// An entry as `journalctl --output=json` prints it.
#[derive(Deserialize)]
struct JournalEntry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: Option<String>,
    #[serde(rename = "__CURSOR")]
    cursor: Option<String>,
    #[serde(rename = "MESSAGE")]
    message: Option<Value>,
    /// The service that systemd's message is about.
    #[serde(rename = "UNIT")]
    about: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Option<String>,
}

impl ServiceLog {
    /// Selects the entries of the app's services, or of one that the filter names.
    pub(crate) fn new(meta: &Meta, filter: &LogFilter, until: Option<Timestamp>) -> Self {
        let all = std::iter::once(&meta.setup_service).chain(&meta.app_services);
        let services = match &filter.service {
            Some(service) => vec![service.clone()],
            None => all.map(ToString::to_string).collect(),
        };
        Self {
            services,
            since: filter.since,
            until,
        }
    }

    /// Returns the last lines. `None` if the guest does not run.
    pub(crate) async fn last(
        &self,
        engine: &Engine,
        slug: &GuestName,
        lines: usize,
    ) -> Option<Vec<Entry>> {
        let since = self.since.map(From::Time);
        let arguments = self.arguments(Some(lines), since.as_ref(), false);
        let entries = entries(engine, slug, arguments).await?;
        let entries = entries.take(lines).filter(|entry| {
            // The arguments are whole seconds.
            let time = entry.line.time;
            let is_early = time
                .zip(self.since)
                .is_some_and(|(time, since)| time < since);
            let is_late = time
                .zip(self.until)
                .is_some_and(|(time, until)| time >= until);
            std::future::ready(!is_early && !is_late)
        });
        Some(
            entries
                .take_until(tokio::time::sleep(TIMEOUT))
                .collect()
                .await,
        )
    }

    /// Returns the lines from a start on. Connects again after a restart of the guest, unless `is_over`.
    pub(crate) fn follow<F>(
        self,
        engine: Engine,
        slug: GuestName,
        from: From,
        is_over: impl Fn() -> F + Send + Sync + 'static,
    ) -> BoxStream<'static, LogLine>
    where
        F: Future<Output = bool> + Send,
    {
        let followed = Followed {
            engine,
            slug,
            log: self,
            from,
            running: None,
            has_begun: false,
        };
        let state = (followed, is_over);
        let lines = stream::unfold(state, |(mut followed, is_over)| async move {
            let line = followed.next(&is_over).await?;
            Some((line, (followed, is_over)))
        });
        lines.boxed()
    }

    fn arguments(&self, lines: Option<usize>, from: Option<&From>, follow: bool) -> Vec<String> {
        let time = |time: Timestamp| format!("@{}", time.as_second());
        let mut command = vec!["journalctl".to_owned(), "--no-pager".to_owned()];
        command.extend(["-o".to_owned(), "json".to_owned()]);
        command.push("--all".to_owned());
        match lines {
            Some(lines) => command.extend(["-n".to_owned(), lines.to_string()]),
            None => command.extend(["-n".to_owned(), "all".to_owned()]),
        }
        match from {
            Some(From::Cursor(cursor)) => command.push(format!("--after-cursor={cursor}")),
            Some(From::Time(since)) => command.push(format!("--since={}", time(*since))),
            None => {}
        }
        // The next whole second.
        let until = self.until.map(|until| until.as_second().saturating_add(1));
        command.extend(until.map(|until| format!("--until=@{until}")));
        for service in &self.services {
            command.extend(["-u".to_owned(), service.clone()]);
        }
        command.extend(follow.then(|| "-f".to_owned()));
        command
    }
}

/// The later lines of services.
struct Followed {
    engine: Engine,
    slug: GuestName,
    log: ServiceLog,
    from: From,
    running: Option<BoxStream<'static, Entry>>,
    /// Set by the first connection.
    has_begun: bool,
}

impl Followed {
    async fn next<F: Future<Output = bool>>(
        &mut self,
        is_over: impl Fn() -> F + Sync,
    ) -> Option<LogLine> {
        loop {
            if let Some(running) = &mut self.running
                && let Some(Entry { line, cursor }) = running.next().await
            {
                self.from = cursor.map_or_else(|| self.from.clone(), From::Cursor);
                return Some(line);
            }
            // Also after a connection, which may end at once.
            if std::mem::replace(&mut self.has_begun, true) {
                if is_over().await {
                    return None;
                }
                tokio::time::sleep(RETRY).await;
            }
            let arguments = self.log.arguments(None, Some(&self.from), true);
            self.running = entries(&self.engine, &self.slug, arguments).await;
        }
    }
}

/// Runs a command in the guest and parses its output. Dropping the stream ends the command.
async fn entries(
    engine: &Engine,
    slug: &GuestName,
    command: Vec<String>,
) -> Option<BoxStream<'static, Entry>> {
    let request = ExecRequest {
        command,
        tty: false,
        size: None,
        environment: Vec::new(),
        user: None,
        detached: false,
    };
    let mut session = engine.exec(slug, &request).await.ok()?;
    let output = std::mem::replace(&mut session.stdout, Box::pin(tokio::io::empty()));
    let state = (session, BufReader::new(output));
    let lines = stream::unfold(state, |(session, mut output)| async move {
        let line = read_line(&mut output).await?;
        Some((parse(&line), (session, output)))
    });
    Some(lines.boxed())
}

/// Reads a line, or the beginning of one that is too long. `None` at the end and after an error.
async fn read_line(output: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = output.take(MAX_LINE).read_until(b'\n', &mut line).await;
    (read.ok()? > 0).then_some(line)
}

/// Parses an entry. Other text is a line without a time.
fn parse(line: &[u8]) -> Entry {
    let entry: Option<JournalEntry> = serde_json::from_slice(line).ok();
    let Some(entry) = entry else {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        return Entry {
            line: LogLine {
                time: None,
                source: UNKNOWN.to_owned(),
                attempt: None,
                text,
            },
            cursor: None,
        };
    };
    let micros = entry.time.and_then(|time| time.parse().ok());
    let source = entry.about.or(entry.unit).unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "@-_.:\\".contains(c);
    let source = match source.len() {
        1..=MAX_NAME if source.chars().all(is_name) => source,
        _ => UNKNOWN.to_owned(),
    };
    // It becomes an argument of the guest's own journalctl.
    let is_cursor = |cursor: &String| cursor.len() <= MAX_NAME && cursor.starts_with("s=");
    Entry {
        line: LogLine {
            time: micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
            source,
            attempt: None,
            text: text_of(entry.message.as_ref()),
        },
        cursor: entry.cursor.filter(is_cursor),
    }
}

/// Returns a message: the journal prints one that is not UTF-8 as an array of bytes.
fn text_of(message: Option<&Value>) -> String {
    match message {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(bytes)) => {
            let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_journal_have_time_and_service() {
        let json = br#"{"__REALTIME_TIMESTAMP":"1795168800000001","__CURSOR":"s=1;i=2","MESSAGE":"hi","_SYSTEMD_UNIT":"app.service"}"#;
        let entry = parse(json);
        assert_eq!(
            entry.line.time.expect("a time").to_string(),
            "2026-11-20T10:00:00.000001Z"
        );
        assert_eq!(
            (entry.line.source.as_str(), entry.line.text.as_str()),
            ("app.service", "hi")
        );
        assert_eq!(entry.cursor.as_deref(), Some("s=1;i=2"));
        let about =
            br#"{"MESSAGE":[104,105,255],"UNIT":"app.service","_SYSTEMD_UNIT":"init.scope"}"#;
        let entry = parse(about);
        assert_eq!(
            (entry.line.source.as_str(), entry.line.text.as_str()),
            ("app.service", "hi\u{fffd}")
        );
    }

    #[test]
    fn output_of_any_form_is_a_line() {
        for text in ["plain\n", "{\"MESSAGE\":", "[1]\r\n", "\u{1b}[31m"] {
            let entry = parse(text.as_bytes());
            assert_eq!(entry.line.text, text.trim_end_matches(['\r', '\n']));
            assert_eq!((entry.line.source.as_str(), entry.cursor), (UNKNOWN, None));
        }
        let hostile = br#"{"__CURSOR":"--file=/etc/shadow","_SYSTEMD_UNIT":"a b","MESSAGE":7,"__REALTIME_TIMESTAMP":"x"}"#;
        let entry = parse(hostile);
        assert_eq!((entry.line.source.as_str(), entry.cursor), (UNKNOWN, None));
        assert_eq!((entry.line.text.as_str(), entry.line.time), ("", None));
    }

    #[tokio::test]
    async fn endless_line_is_cut_off() {
        let mut endless = BufReader::new(tokio::io::repeat(b'x'));
        let line = read_line(&mut endless).await.expect("a line");
        assert_eq!(line.len() as u64, MAX_LINE);
    }
}
