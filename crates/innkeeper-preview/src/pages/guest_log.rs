//! Reads the journal of a preview's services while the guest prepares the app.
//!
//! The guest's own `journalctl` writes it, so the output may be anything, of any length. Lines are parsed leniently and
//! bounded.

use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::Meta;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

/// Delay before a journal that ended or cannot be read is tried again: the guest may still boot.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum length of an entry, in bytes. The rest of a longer one is skipped.
const MAX_ENTRY: usize = 64 << 10;

/// Number of earlier lines that are read.
const EARLIER: &str = "100";

/// An entry of the journal, as `journalctl --output=json` writes it.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    /// A text, or an array of bytes if it is not UTF-8.
    #[serde(rename = "MESSAGE")]
    message: Value,
}

/// Follows the journal until the future is dropped. `line` is called with the time and text of each line.
pub(super) async fn follow(
    engine: &Engine,
    slug: &GuestName,
    meta: &Meta,
    line: impl Fn(Timestamp, &str) + Send + Sync,
) {
    let request = request(meta);
    loop {
        if let Ok(session) = Box::pin(engine.exec(slug, &request)).await {
            let mut output = BufReader::new(session.stdout);
            let mut entry = Vec::new();
            while read_entry(&mut output, &mut entry).await {
                for (at, text) in parse(&entry) {
                    line(at, &text);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn request(meta: &Meta) -> ExecRequest {
    let mut command: Vec<_> = [
        "journalctl",
        "--output=json",
        "--follow",
        "--lines",
        EARLIER,
    ]
    .map(str::to_owned)
    .into();
    for service in std::iter::once(&meta.setup_service).chain(&meta.app_services) {
        command.extend(["--unit".to_owned(), service.to_string()]);
    }
    ExecRequest {
        command,
        tty: false,
        size: None,
        environment: Vec::new(),
        user: None,
        detached: false,
    }
}

/// Reads up to the next line feed, and keeps [`MAX_ENTRY`] bytes at most. Returns whether there was anything to read.
async fn read_entry(
    output: &mut BufReader<innkeeper_facilities::Output>,
    entry: &mut Vec<u8>,
) -> bool {
    entry.clear();
    loop {
        let room = (MAX_ENTRY + 1).saturating_sub(entry.len()).max(1);
        let before = entry.len();
        let mut piece = (&mut *output).take(room as u64);
        let Ok(length) = piece.read_until(b'\n', entry).await else {
            return false;
        };
        if length == 0 {
            return before > 0;
        }
        if entry.last() == Some(&b'\n') {
            return true;
        }
        entry.truncate(MAX_ENTRY);
    }
}

/// Returns the lines of an entry with their time.
fn parse(entry: &[u8]) -> Vec<(Timestamp, String)> {
    let Ok(entry) = serde_json::from_slice::<Entry>(entry) else {
        return Vec::new();
    };
    let micros = entry.micros.parse().ok();
    let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    let at = at.unwrap_or_else(Timestamp::now);
    let text = match entry.message {
        Value::String(text) => text,
        Value::Array(bytes) => {
            let bytes = bytes
                .iter()
                .filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
        }
        _ => return Vec::new(),
    };
    text.lines().map(|line| (at, line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_parsed_leniently() {
        let texts = |entry: &str| {
            let lines = parse(entry.as_bytes());
            lines.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let text = r#"{"__REALTIME_TIMESTAMP":"1790000000000000","MESSAGE":"one\ntwo","X":1}"#;
        assert_eq!(texts(text), ["one", "two"]);
        let at = parse(text.as_bytes())[0].0;
        assert_eq!(at.as_microsecond(), 1_790_000_000_000_000);
        let bytes = r#"{"__REALTIME_TIMESTAMP":"x","MESSAGE":[104,105,255]}"#;
        assert_eq!(texts(bytes), ["hi\u{fffd}"]);
        for odd in [
            "",
            "no JSON",
            "{}",
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}"#,
        ] {
            assert!(texts(odd).is_empty(), "{odd}");
        }
    }

    #[tokio::test]
    async fn endless_entries_are_cut() {
        let long = "x".repeat(3 * MAX_ENTRY);
        let output: innkeeper_facilities::Output = Box::pin(std::io::Cursor::new(
            format!("{long}\nnext\nend").into_bytes(),
        ));
        let mut output = BufReader::new(output);
        let mut entry = Vec::new();
        let mut lengths = Vec::new();
        while read_entry(&mut output, &mut entry).await {
            lengths.push(entry.len());
        }
        assert_eq!(lengths.len(), 3, "{lengths:?}");
        assert!(lengths[0] <= MAX_ENTRY + 1);
        assert_eq!(lengths[1..], [5, 3]);
    }
}
