//! A guest's console in the host's journal.
//!
//! The journal keeps the lines of earlier guests with the same name, and names of units are reused. Entries are therefore
//! selected by the guest's lifetime, which its unit adds to each of them, and by the unit's current invocation, for units
//! that an older release started.

use std::collections::VecDeque;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use innkeeper_facilities::Console;
use innkeeper_model::Guest;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::supervisor::End;
use crate::command;

/// The field with the guest's lifetime (systemd.exec(5), `LogExtraFields=`).
const FIELD: &str = "INNKEEPER_GUEST";

/// The time that journald has to write all received entries.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns an id that distinguishes a guest from earlier ones with its name: no two of them have the same slot and time of
/// creation.
pub(super) fn lifetime(guest: &Guest) -> String {
    format!("{}-{}", guest.slot, guest.created_at.as_microsecond())
}

/// Returns the field that a unit adds to each entry of its guest.
pub(super) fn extra_field(guest: &Guest) -> String {
    format!("{FIELD}={}", lifetime(guest))
}

/// The entries of one guest.
pub(super) struct Journal {
    /// The matches, as arguments of journalctl(1).
    matches: Vec<String>,
}

impl Journal {
    /// Selects a guest's entries. Any program can set the lifetime field, so it counts only together with a field that
    /// begins with an underscore: those are journald's own.
    pub(super) fn of(unit: &str, lifetime: Option<&str>, invocation: Option<&str>) -> Self {
        let mut terms = Vec::new();
        if let Some(lifetime) = lifetime {
            terms.push(vec![
                format!("_SYSTEMD_UNIT={unit}"),
                format!("{FIELD}={lifetime}"),
            ]);
        }
        if let Some(id) = invocation {
            terms.push(vec![format!("_SYSTEMD_INVOCATION_ID={id}")]);
            // systemd's own entries about the unit.
            terms.push(vec!["_PID=1".to_owned(), format!("INVOCATION_ID={id}")]);
        }
        Self {
            matches: terms.join(&"+".to_owned()),
        }
    }

    /// Returns the last `lines` entries; with `end`, also those that follow until it completes.
    pub(super) fn read(self, lines: usize, end: Option<End>) -> Console {
        // Without a match, journalctl would print the journal of the whole host.
        if self.matches.is_empty() {
            return stream::empty().boxed();
        }
        let mut stages = VecDeque::from([Stage::Last(lines)]);
        if end.is_some() {
            stages.extend([Stage::Follow, Stage::Rest]);
        }
        let reader = Reader {
            journal: self,
            stages,
            running: None,
            cursor: None,
            end: end.unwrap_or_else(|| Box::pin(std::future::pending())),
        };
        stream::try_unfold(reader, Reader::next).boxed()
    }

    fn journalctl(&self, stage: Stage, cursor: Option<&str>) -> Command {
        let mut journal = command::command("journalctl");
        journal
            .args(["--quiet", "--no-pager", "--all"])
            .args(["--output=json", "--output-fields=MESSAGE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        match stage {
            // Following starts at the last entry, also with `lines` 0.
            Stage::Last(lines) => drop(journal.arg(format!("--lines={}", lines.max(1)))),
            Stage::Follow => drop(journal.args(["--follow", "--no-tail"])),
            Stage::Rest => {}
        }
        journal.args(cursor.map(|cursor| format!("--after-cursor={cursor}")));
        journal.args(&self.matches);
        journal
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The last entries, by number.
    Last(usize),
    /// The entries after them, until the guest ends.
    Follow,
    /// The entries that the follower had not printed by then.
    Rest,
}

struct Reader {
    journal: Journal,
    stages: VecDeque<Stage>,
    /// journalctl is killed when this is dropped.
    running: Option<(Stage, Child, Lines<BufReader<ChildStdout>>)>,
    /// The last entry that was read.
    cursor: Option<String>,
    end: End,
}

impl Reader {
    async fn next(mut self) -> io::Result<Option<(Vec<u8>, Self)>> {
        loop {
            let Some((stage, _, lines)) = &mut self.running else {
                let Some(stage) = self.stages.pop_front() else {
                    return Ok(None);
                };
                self.start(stage)?;
                continue;
            };
            let stage = *stage;
            let line = if stage == Stage::Follow {
                tokio::select! {
                    line = lines.next_line() => line?,
                    () = &mut self.end => None,
                }
            } else {
                lines.next_line().await?
            };
            let Some(line) = line else {
                self.running = None;
                if stage == Stage::Follow {
                    sync().await;
                }
                continue;
            };
            let entry: Entry = serde_json::from_str(&line)?;
            self.cursor = Some(entry.cursor);
            if stage != Stage::Last(0)
                && let Some(message) = entry.message
            {
                let mut bytes = message.into_bytes();
                bytes.push(b'\n');
                return Ok(Some((bytes, self)));
            }
        }
    }

    fn start(&mut self, stage: Stage) -> io::Result<()> {
        let mut journal = self.journal.journalctl(stage, self.cursor.as_deref());
        let mut child = journal.spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        self.running = Some((stage, child, BufReader::new(output).lines()));
        Ok(())
    }
}

/// Waits until journald has written all received entries: it processes this request after them.
async fn sync() {
    let sync = command::command("journalctl").arg("--sync").output();
    match tokio::time::timeout(SYNC_TIMEOUT, sync).await {
        Ok(Ok(done)) if done.status.success() => {}
        _ => tracing::debug!("journald did not confirm the sync"),
    }
}

/// An entry of `--output=json`.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    /// Not UTF-8, or with control characters.
    Bytes(Vec<u8>),
}

impl Message {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_selects_entries_of_one_lifetime() {
        let matches = |lifetime, invocation| Journal::of("g.service", lifetime, invocation).matches;
        assert_eq!(
            matches(Some("7-12"), Some("ab")),
            [
                "_SYSTEMD_UNIT=g.service",
                "INNKEEPER_GUEST=7-12",
                "+",
                "_SYSTEMD_INVOCATION_ID=ab",
                "+",
                "_PID=1",
                "INVOCATION_ID=ab"
            ]
        );
        assert_eq!(
            matches(Some("7-12"), None),
            ["_SYSTEMD_UNIT=g.service", "INNKEEPER_GUEST=7-12"]
        );
    }

    #[tokio::test]
    async fn journal_without_a_match_is_empty() {
        let mut console = Journal::of("g.service", None, None).read(10, None);
        assert!(console.next().await.is_none());
    }

    #[test]
    fn entries_may_be_text_or_bytes() {
        let read = |line| {
            let entry: Entry = serde_json::from_str(line).expect("an entry");
            entry.message.map(Message::into_bytes)
        };
        assert_eq!(
            read(r#"{"__CURSOR":"s=1","MESSAGE":"hello","_BOOT_ID":"x"}"#),
            Some(b"hello".to_vec())
        );
        assert_eq!(
            read(r#"{"__CURSOR":"s=1","MESSAGE":[27,91]}"#),
            Some(vec![27, 91])
        );
        assert_eq!(read(r#"{"__CURSOR":"s=1","MESSAGE":null}"#), None);
        assert_eq!(read(r#"{"__CURSOR":"s=1"}"#), None);
    }
}
