//! The console log of a directly supervised guest: its last lines, and the lines that follow.
//!
//! The shim writes `console.log`. When that is full, the shim renames it to `console.log.1` and starts a new one.

use std::ffi::OsString;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use innkeeper_facilities::Console;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::supervisor::End;

/// The interval of polls of a followed log.
const INTERVAL: Duration = Duration::from_millis(200);

/// The size of a read.
const CHUNK: usize = 32 * 1024;

/// Returns the last lines of a log; with `end`, also the lines that are written until it completes or the log is removed.
/// Waits for a followed log that does not exist yet: the shim creates it with the guest's first output.
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
    // A guest that keeps writing must not keep a log open that is not followed.
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
    /// The files to read, the next one last.
    files: Vec<File>,
    /// Completes when no further line can be written. `None` for a log that is not followed.
    end: Option<End>,
    has_ended: bool,
    /// The bytes of the current file to read.
    left: u64,
}

impl Reader {
    async fn next(mut self) -> io::Result<Option<(Vec<u8>, Self)>> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let limit = match self.files.len() {
                1 => CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK)),
                _ => CHUNK,
            };
            let Some(file) = self.files.last_mut() else {
                return Ok(None);
            };
            let length = file.read(&mut chunk[..limit]).await?;
            if length > 0 {
                if self.files.len() == 1 && self.end.is_none() {
                    self.left -= u64::try_from(length).unwrap_or(self.left);
                }
                chunk.truncate(length);
                return Ok(Some((chunk, self)));
            }
            if self.files.len() > 1 {
                self.files.pop();
            } else if !self.wait().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more lines; returns `false` when none can follow.
    async fn wait(&mut self) -> io::Result<bool> {
        let Some(end) = &mut self.end else {
            return Ok(false);
        };
        // The log was read to its end after the guest's end: only a new log can have more.
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
            // It was renamed. It may have grown before that, so the new one is read after it.
            Ok(_) => {
                self.files.insert(0, File::open(&self.path).await?);
                Ok(true)
            }
            // After the rename, the shim creates a new log only with the next output.
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

/// Returns the offset of the last `lines` lines, and their number, which may be smaller.
async fn last_lines(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.seek(SeekFrom::End(0)).await?;
    let mut found = 0;
    let mut chunk = vec![0; CHUNK];
    // A final newline belongs to the last line.
    let mut is_last = true;
    while end > 0 && lines > 0 {
        let length = usize::try_from(end).unwrap_or(CHUNK).min(CHUNK);
        let start = end - length as u64;
        file.seek(SeekFrom::Start(start)).await?;
        let chunk = &mut chunk[..length];
        file.read_exact(chunk).await?;
        for (at, byte) in chunk.iter().enumerate().rev() {
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
        let mut chunks = read(path, lines, None).await.expect("a log");
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend(chunk.expect("a chunk"));
        }
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn last_lines_include_the_rotated_log() {
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
    async fn unfollowed_log_ends_at_its_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\ntwo\n").expect("written");
        let chunks = read(&path, 1, None).await.expect("a log");
        fs::write(&path, "one\ntwo\nthree\n").expect("written");
        let chunks: Vec<_> = chunks.map(|chunk| chunk.expect("a chunk")).collect().await;
        assert_eq!(chunks.concat(), b"two\n");
    }

    #[tokio::test]
    async fn follow_waits_for_a_missing_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let never: End = Box::pin(std::future::pending());
        let write = async { fs::write(&path, "one\n").expect("written") };
        let (chunks, ()) = tokio::join!(read(&path, 1, Some(never)), write);
        let first = chunks.expect("a log").next().await.expect("a chunk");
        assert_eq!(first.expect("read"), b"one\n");
        let at_once: End = Box::pin(std::future::ready(()));
        let none = dir.path().join("none");
        assert!(read(&none, 1, Some(at_once)).await.is_err());
    }

    #[tokio::test]
    async fn lines_longer_than_a_chunk_stay_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let long = "x".repeat(3 * CHUNK);
        fs::write(&path, format!("first\n{long}\nlast\n")).expect("written");
        assert_eq!(text(&path, 2).await, format!("{long}\nlast\n"));
    }

    #[tokio::test]
    async fn follow_continues_after_rotation_until_removal() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\n").expect("written");
        let mut chunks = read(&path, 10, Some(Box::pin(std::future::pending())))
            .await
            .expect("a log");
        let mut next = async || chunks.next().await.map(|chunk| chunk.expect("a chunk"));
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
    async fn follow_ends_with_the_guest_after_its_last_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        fs::write(&path, "one\n").expect("written");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let end_of_guest: End = Box::pin(async move { drop(ended.await) });
        let mut chunks = read(&path, 10, Some(end_of_guest)).await.expect("a log");
        let mut next = async || chunks.next().await.map(|chunk| chunk.expect("a chunk"));
        assert_eq!(next().await.as_deref(), Some(b"one\n".as_slice()));
        // The last line is in a log that was started just before the end.
        fs::write(&path, "one\ntwo\n").expect("written");
        fs::rename(&path, former(&path)).expect("renamed");
        fs::write(&path, "three\n").expect("written");
        end.send(()).expect("a reader");
        assert_eq!(next().await.as_deref(), Some(b"two\n".as_slice()));
        assert_eq!(next().await.as_deref(), Some(b"three\n".as_slice()));
        assert_eq!(next().await, None);
    }
}
