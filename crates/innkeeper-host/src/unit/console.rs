//! The console log of a directly supervised guest: its last lines, and what comes after them.
//!
//! The shim writes `console.log`; when that is full, the shim renames it to `console.log.1` and begins a
//! new one.

use std::ffi::OsString;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use innkeeper_facilities::Console;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::keeper::End;

/// How often a followed log is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How much is read at a time.
const PIECE: usize = 32 * 1024;

/// The last lines of a log; with `end`, also what is written until that completes or the log is removed.
/// A log that is followed and not there yet is waited for: the shim creates it with the guest's first output.
pub(super) async fn read(path: &Path, lines: usize, mut end: Option<End>) -> io::Result<Console> {
    let mut current = loop {
        match (File::open(path).await, &mut end) {
            (Err(error), Some(ended)) if error.kind() == io::ErrorKind::NotFound => {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = ended => end = None,
                }
            }
            (opened, _) => break opened?,
        }
    };
    let (start, found) = last_lines(&mut current, lines).await?;
    current.seek(SeekFrom::Start(start)).await?;
    // A guest that goes on writing must not keep a log that is not followed from ending.
    let left = match end.is_some() {
        true => u64::MAX,
        false => current.metadata().await?.len().saturating_sub(start),
    };
    let mut files = vec![current];
    if found < lines {
        match File::open(former(path)).await {
            Ok(mut former) => {
                let (start, _) = last_lines(&mut former, lines - found).await?;
                former.seek(SeekFrom::Start(start)).await?;
                files.push(former);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let reader = Reader {
        path: path.to_owned(),
        files,
        end,
        has_ended: false,
        left,
    };
    Ok(stream::try_unfold(reader, Reader::next).boxed())
}

struct Reader {
    path: PathBuf,
    /// What is still to be read, the next one last.
    files: Vec<File>,
    /// Completes when nothing more will be written. `None` for a log that is not followed.
    end: Option<End>,
    has_ended: bool,
    /// How much of the current file is still to be read.
    left: u64,
}

impl Reader {
    async fn next(mut self) -> io::Result<Option<(Vec<u8>, Self)>> {
        let mut piece = vec![0; PIECE];
        loop {
            let limit = match self.files.len() {
                1 => PIECE.min(usize::try_from(self.left).unwrap_or(PIECE)),
                _ => PIECE,
            };
            let Some(file) = self.files.last_mut() else {
                return Ok(None);
            };
            let length = file.read(&mut piece[..limit]).await?;
            if length > 0 {
                if self.files.len() == 1 && self.end.is_none() {
                    self.left -= u64::try_from(length).unwrap_or(self.left);
                }
                piece.truncate(length);
                return Ok(Some((piece, self)));
            }
            if self.files.len() > 1 {
                self.files.pop();
            } else if !self.wait().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more; `false` when none will come.
    async fn wait(&mut self) -> io::Result<bool> {
        let Some(end) = &mut self.end else {
            return Ok(false);
        };
        // The log was read to its end after the guest's: only a new log can have more.
        let may_grow = !self.has_ended;
        if may_grow {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = end => self.has_ended = true,
            }
        }
        let Some(open) = self.files.last_mut() else {
            return Ok(false);
        };
        let open = open.metadata().await?;
        match tokio::fs::metadata(&self.path).await {
            Ok(present) if (present.dev(), present.ino()) == (open.dev(), open.ino()) => {
                Ok(may_grow)
            }
            // It was renamed. It may have grown before that, so the new one comes after it.
            Ok(_) => {
                self.files.insert(0, File::open(&self.path).await?);
                Ok(true)
            }
            // Between renaming and beginning anew, the shim waits for the guest to write something.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A removed log is complete, and may have grown since it was read.
                self.has_ended |= open.nlink() == 0;
                Ok(may_grow)
            }
            Err(error) => Err(error),
        }
    }
}

fn former(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Where the last `lines` lines begin, and how many there are.
async fn last_lines(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.seek(SeekFrom::End(0)).await?;
    let mut found = 0;
    let mut piece = vec![0; PIECE];
    // The line end at the very end belongs to the last line.
    let mut is_last = true;
    while end > 0 && lines > 0 {
        let length = usize::try_from(end).unwrap_or(PIECE).min(PIECE);
        let start = end - length as u64;
        file.seek(SeekFrom::Start(start)).await?;
        let piece = &mut piece[..length];
        file.read_exact(piece).await?;
        for (at, byte) in piece.iter().enumerate().rev() {
            if *byte == b'\n' && !is_last {
                found += 1;
                if found == lines {
                    return Ok((start + at as u64 + 1, found));
                }
            }
            is_last = false;
        }
        end = start;
    }
    let is_empty = is_last;
    Ok(if lines == 0 {
        (file.seek(SeekFrom::End(0)).await?, 0)
    } else {
        (0, found + usize::from(!is_empty))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn text(path: &Path, lines: usize) -> String {
        let mut pieces = read(path, lines, None).await.expect("a log");
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend(piece.expect("a piece"));
        }
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn the_last_lines_reach_back_into_the_former_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "three\nfour\nfi").expect("written");
        fs::write(former(&path), "one\ntwo\n").expect("written");
        assert_eq!(text(&path, 0).await, "");
        assert_eq!(text(&path, 1).await, "fi");
        assert_eq!(text(&path, 3).await, "three\nfour\nfi");
        assert_eq!(text(&path, 4).await, "two\nthree\nfour\nfi");
        assert_eq!(text(&path, 9).await, "one\ntwo\nthree\nfour\nfi");
        fs::write(&path, "").expect("written");
        assert_eq!(text(&path, 1).await, "two\n");
        assert!(read(&dir.path().join("none"), 1, None).await.is_err());
    }

    #[tokio::test]
    async fn a_guest_that_goes_on_writing_adds_no_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\ntwo\n").expect("written");
        let pieces = read(&path, 1, None).await.expect("a log");
        fs::write(&path, "one\ntwo\nthree\n").expect("written");
        let pieces: Vec<_> = pieces.map(|piece| piece.expect("a piece")).collect().await;
        assert_eq!(pieces.concat(), b"two\n");
    }

    #[tokio::test]
    async fn following_waits_for_a_log_that_is_not_there_yet() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let never: End = Box::pin(std::future::pending());
        let write = async { fs::write(&path, "one\n").expect("written") };
        let (pieces, ()) = tokio::join!(read(&path, 1, Some(never)), write);
        let first = pieces.expect("a log").next().await.expect("a piece");
        assert_eq!(first.expect("read"), b"one\n");
        let at_once: End = Box::pin(std::future::ready(()));
        let none = dir.path().join("none");
        assert!(read(&none, 1, Some(at_once)).await.is_err());
    }

    #[tokio::test]
    async fn lines_longer_than_a_piece_stay_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let long = "x".repeat(3 * PIECE);
        fs::write(&path, format!("first\n{long}\nlast\n")).expect("written");
        assert_eq!(text(&path, 2).await, format!("{long}\nlast\n"));
    }

    #[tokio::test]
    async fn following_goes_on_in_the_new_log_and_ends_when_it_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\n").expect("written");
        let mut pieces = read(&path, 10, Some(Box::pin(std::future::pending())))
            .await
            .expect("a log");
        let mut next = async || pieces.next().await.map(|piece| piece.expect("a piece"));
        assert_eq!(next().await.as_deref(), Some(b"one\n".as_slice()));
        fs::write(&path, "one\ntwo\n").expect("written");
        assert_eq!(next().await.as_deref(), Some(b"two\n".as_slice()));
        fs::write(&path, "one\ntwo\nthree\n").expect("written");
        fs::rename(&path, former(&path)).expect("renamed");
        fs::write(&path, "four\n").expect("written");
        assert_eq!(next().await.as_deref(), Some(b"three\n".as_slice()));
        assert_eq!(next().await.as_deref(), Some(b"four\n".as_slice()));
        fs::remove_file(&path).expect("removed");
        assert_eq!(next().await, None);
    }

    #[tokio::test]
    async fn following_ends_with_the_guest_and_reads_all_that_it_wrote() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\n").expect("written");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let end_of_guest: End = Box::pin(async move { drop(ended.await) });
        let mut pieces = read(&path, 10, Some(end_of_guest)).await.expect("a log");
        let mut next = async || pieces.next().await.map(|piece| piece.expect("a piece"));
        assert_eq!(next().await.as_deref(), Some(b"one\n".as_slice()));
        // The last words are in a log that was begun just before the end.
        fs::write(&path, "one\ntwo\n").expect("written");
        fs::rename(&path, former(&path)).expect("renamed");
        fs::write(&path, "three\n").expect("written");
        end.send(()).expect("a reader");
        assert_eq!(next().await.as_deref(), Some(b"two\n".as_slice()));
        assert_eq!(next().await.as_deref(), Some(b"three\n".as_slice()));
        assert_eq!(next().await, None);
    }
}
