//! Status files: reads them, and watches them for changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::GuestName;
use innkeeper_model::preview::page::{MAX_PAGE_BYTES, PAGE_SUFFIX, PageStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

/// Interval at which a watched file is checked for changes.
const POLL: Duration = Duration::from_millis(300);

/// A status, or `None` if the preview does not exist.
pub(crate) type Latest = Option<Arc<PageStatus>>;

/// The status files of a directory. Clones share their watches.
#[derive(Clone, Debug)]
pub(crate) struct Statuses {
    directory: Arc<Path>,
    watches: Arc<Mutex<HashMap<GuestName, watch::Sender<Latest>>>>,
}

/// The identity of one version of a file: the daemon replaces files, so each version is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Statuses {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            watches: Arc::default(),
        }
    }

    /// Returns the status of a preview. A file that cannot be read counts as absent, and is logged.
    pub(crate) async fn read(&self, slug: &GuestName) -> Latest {
        let path = self.path(slug);
        blocking(move || load(&path)).await
    }

    /// Watches the status of a preview. The value is the one at the time of the call or newer. One task polls for all
    /// watches of a preview.
    pub(crate) async fn watch(&self, slug: &GuestName) -> watch::Receiver<Latest> {
        // Also for a watch that exists: its last poll may be older than this call.
        let first = self.read(slug).await;
        let mut watches = self.watches.lock();
        if let Some(sender) = watches.get(slug) {
            update(sender, first);
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(first);
        watches.insert(slug.clone(), sender);
        tokio::spawn(self.clone().poll(slug.clone()));
        receiver
    }

    /// Polls a file until nobody watches it.
    async fn poll(self, slug: GuestName) {
        let path = self.path(&slug);
        // The first check always reads: the file may have changed since the watch began.
        let mut seen: Option<Option<Version>> = None;
        loop {
            {
                let mut watches = self.watches.lock();
                if watches
                    .get(&slug)
                    .is_none_or(|sender| sender.receiver_count() == 0)
                {
                    watches.remove(&slug);
                    return;
                }
            }
            let file = path.clone();
            let before = seen;
            let (version, changed) = blocking(move || {
                let version = version(&file);
                let changed = (before != Some(version)).then(|| load(&file));
                (version, changed)
            })
            .await;
            seen = Some(version);
            if let Some(latest) = changed
                && let Some(sender) = self.watches.lock().get(&slug)
            {
                update(sender, latest);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn path(&self, slug: &GuestName) -> PathBuf {
        self.directory.join(format!("{slug}{PAGE_SUFFIX}"))
    }
}

/// Sends a status to the watchers if it differs from the last one.
fn update(sender: &watch::Sender<Latest>, latest: Latest) {
    sender.send_if_modified(|current| {
        let differs = *current != latest;
        *current = latest;
        differs
    });
}

/// Runs file operations on a thread for them. They do not panic.
async fn blocking<T: Send + Default + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn version(path: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Version {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        length: metadata.len(),
    })
}

fn load(path: &Path) -> Latest {
    match parse(path) {
        Ok(status) => Some(Arc::new(status)),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(path = %path.display(), %error, "cannot read a status file");
            }
            None
        }
    }
}

fn parse(path: &Path) -> io::Result<PageStatus> {
    let file = File::open(path)?;
    let mut text = Vec::new();
    let limit = MAX_PAGE_BYTES as u64;
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() > MAX_PAGE_BYTES {
        return Err(io::Error::other("it is too long"));
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn slug() -> GuestName {
        GuestName::parse("web-7").expect("a name")
    }

    fn replace(directory: &Path, text: &str) {
        let temporary = directory.join(".new");
        std::fs::write(&temporary, text).expect("written");
        std::fs::rename(&temporary, directory.join("web-7.json")).expect("renamed");
    }

    fn text(state: &str) -> String {
        format!(
            r#"{{"slug":"web-7","state":"{state}","since":"2026-11-20T10:00:00Z",
                "started_at":"2026-11-20T10:00:00Z","a_field_of_a_later_version":1}}"#
        )
    }

    #[tokio::test]
    async fn changes_of_a_file_arrive() {
        let directory = tempfile::tempdir().expect("directory");
        let statuses = Statuses::new(directory.path());
        let mut watched = statuses.watch(&slug()).await;
        assert_eq!(*watched.borrow_and_update(), None);
        for state in ["queued", "building"] {
            replace(directory.path(), &text(state));
            watched.changed().await.expect("a change");
            let latest = watched.borrow_and_update().clone().expect("a status");
            assert_eq!(latest.state.as_str(), state);
        }
        std::fs::remove_file(directory.path().join("web-7.json")).expect("removed");
        watched.changed().await.expect("a change");
        assert_eq!(*watched.borrow_and_update(), None);
        drop(watched);
        while !statuses.watches.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn new_watcher_sees_the_file_as_it_is() {
        let directory = tempfile::tempdir().expect("directory");
        let statuses = Statuses::new(directory.path());
        replace(directory.path(), &text("queued"));
        let first = statuses.watch(&slug()).await;
        // The first poll has seen this version.
        tokio::time::sleep(Duration::from_millis(50)).await;
        replace(directory.path(), &text("building"));
        let second = statuses.watch(&slug()).await;
        for watched in [first, second] {
            let latest = watched.borrow().clone().expect("a status");
            assert_eq!(latest.state.as_str(), "building");
        }
    }

    #[tokio::test]
    async fn broken_files_count_as_absent() {
        let directory = tempfile::tempdir().expect("directory");
        let statuses = Statuses::new(directory.path());
        let too_long = format!("{}{}", text("queued"), " ".repeat(MAX_PAGE_BYTES));
        for broken in ["", "{", "[]", &text("no-such-state"), &too_long] {
            replace(directory.path(), broken);
            assert_eq!(statuses.read(&slug()).await, None);
        }
    }
}
