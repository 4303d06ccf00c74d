//! The system call filters of guests: nspawn's own, read once and installed at the door.
//!
//! nspawn spends two thirds of its time on compiling them. They depend on its program, its libraries, the kernel and a few of
//! its options only. So the first guest of each combination is preceded by one that only parks; its filters are read, as the
//! kernel has them, and stored. From then on nspawn starts without filters, and the first process of a guest, which is
//! Innkeeper's, receives them through the door and installs them before it executes init.
//!
//! Where they cannot be read, nspawn compiles them for each guest, as it does by itself.

mod cache;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper_model::api::{Check, Verdict};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::checks;
pub(super) use cache::Read;
use cache::{Stored, hex};

/// The time until another attempt after the filters could not be read.
const RETRY: Duration = Duration::from_secs(600);

/// The filters of a guest, encoded for the shim.
pub(super) type List = Arc<[u8]>;

/// The filters that were read.
#[derive(Debug)]
pub(super) struct Filters {
    dir: PathBuf,
    known: Mutex<HashMap<String, Known>>,
    /// Held while filters are read, so that each are read once.
    turn: tokio::sync::Mutex<()>,
    /// The reason and time of the last failure at a door.
    distrusted: Mutex<Option<Failure>>,
}

/// The filters for one combination of options.
#[derive(Debug)]
enum Known {
    Usable(Stored),
    Unusable(Failure),
}

#[derive(Clone, Debug)]
struct Failure {
    reason: String,
    at: Instant,
}

impl Failure {
    fn now(reason: String) -> Self {
        Self {
            reason,
            at: Instant::now(),
        }
    }

    fn is_recent(&self) -> bool {
        self.at.elapsed() < RETRY
    }
}

impl Filters {
    /// Stores filters in `dir`, which only root may enter.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            distrusted: Mutex::default(),
        }
    }

    /// The directory of the guest whose filters are read.
    pub(super) fn reading(&self) -> PathBuf {
        self.dir.join("reading")
    }

    /// Returns the filters that nspawn installs with these options; those stored, or those that `read` returns. `None` when
    /// they cannot be read: nspawn must install them then.
    pub(super) async fn of(
        &self,
        nspawn: &Path,
        options: &[String],
        read: impl Future<Output = Result<Read, String>>,
    ) -> Option<List> {
        if self
            .distrusted
            .lock()
            .as_ref()
            .is_some_and(Failure::is_recent)
        {
            return None;
        }
        let key = key(nspawn, options);
        let _turn = self.turn.lock().await;
        match self.known.lock().get(&key) {
            Some(Known::Usable(stored)) if stored.is_current() => return Some(stored.list()),
            Some(Known::Unusable(failure)) if failure.is_recent() => return None,
            _ => {}
        }
        let file = self.dir.join(&key);
        let known = match Stored::load(&file, &key) {
            Some(stored) => Known::Usable(stored),
            None => match read.await.and_then(|read| Stored::new(&key, read)) {
                Ok(stored) => {
                    if let Err(error) = stored.save(&file) {
                        tracing::warn!("{}", innkeeper_model::chain(&error));
                    }
                    tracing::info!("the system call filters of nspawn were read");
                    Known::Usable(stored)
                }
                Err(reason) => {
                    tracing::info!(%reason, "the system call filters of nspawn cannot be read; nspawn compiles them");
                    Known::Unusable(Failure::now(reason))
                }
            },
        };
        let list = match &known {
            Known::Usable(stored) => Some(stored.list()),
            Known::Unusable(_) => None,
        };
        self.known.lock().insert(key, known);
        list
    }

    /// Lets nspawn install the filters for a while, after a first process could not.
    pub(super) fn distrust(&self, reason: &str) {
        tracing::warn!(%reason, "the system call filters were not installed at the door; nspawn compiles them");
        self.known.lock().clear();
        *self.distrusted.lock() = Some(Failure::now(reason.to_owned()));
    }

    /// Reports how guests get their filters.
    pub(super) fn check(&self) -> Check {
        let finding = |text: String| checks::check("system call filters", Verdict::Ok, text);
        let by_nspawn = |reason: &str| {
            finding(format!(
                "nspawn compiles them for each guest, which triples the time of its start: {reason}"
            ))
        };
        if let Some(failure) = self
            .distrusted
            .lock()
            .as_ref()
            .filter(|failure| failure.is_recent())
        {
            return by_nspawn(&failure.reason);
        }
        let known = self.known.lock();
        let unusable = known.values().find_map(|known| match known {
            Known::Unusable(failure) => Some(failure),
            Known::Usable(_) => None,
        });
        if let Some(failure) = unusable {
            return by_nspawn(&failure.reason);
        }
        finding(match known.len() {
            0 => "those of nspawn; the first start of a guest reads them".to_owned(),
            _ => "those of nspawn, read from it once and installed at each guest's door".to_owned(),
        })
    }
}

/// Returns the key of a combination of options, with the kernel and the program. The program counts by its path without links:
/// one that leads elsewhere is another program, even if its contents are as old.
fn key(nspawn: &Path, options: &[String]) -> String {
    let nspawn = nspawn.canonicalize().unwrap_or_else(|_| nspawn.to_owned());
    let kernel = rustix::system::uname();
    let mut hash = Sha256::new();
    for part in [kernel.release(), kernel.version(), kernel.machine()] {
        hash.update(part.to_bytes_with_nul());
    }
    hash.update(nspawn.as_os_str().as_encoded_bytes());
    for option in options {
        hash.update([0]);
        hash.update(option);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn read(list: &[u8]) -> Read {
        Read {
            list: list.to_vec(),
            files: vec!["/proc/self/exe".into()],
            began: std::time::SystemTime::now(),
        }
    }

    #[tokio::test]
    async fn filters_are_read_once_for_each_combination_of_options() {
        let dir = tempfile::tempdir().expect("a directory");
        let (filters, nspawn) = (Filters::new(dir.path().into()), Path::new("/nspawn"));
        let unread = || async { panic!("read again") };
        let first = filters
            .of(nspawn, &options("a b"), async { Ok(read(b"one")) })
            .await;
        assert_eq!(first.as_deref(), Some(&b"one"[..]));
        assert_eq!(filters.of(nspawn, &options("a b"), unread()).await, first);
        // Another daemon finds them on the disk.
        let again = Filters::new(dir.path().into());
        assert_eq!(again.of(nspawn, &options("a b"), unread()).await, first);
        let nesting = again
            .of(nspawn, &options("a b c"), async { Ok(read(b"two")) })
            .await;
        assert_eq!(nesting.as_deref(), Some(&b"two"[..]));
        let other = again
            .of(Path::new("/other"), &options("a b"), async {
                Ok(read(b"three"))
            })
            .await;
        assert_eq!(other.as_deref(), Some(&b"three"[..]));
    }

    /// Both programs are unchanged. One of them is the target of the link that is started, or what a script executes.
    #[tokio::test]
    async fn filters_are_those_of_the_program_that_a_link_leads_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (nspawn, cache) = (dir.path().join("nspawn"), dir.path().join("cache"));
        std::fs::create_dir(&cache).expect("made");
        for version in ["252", "257"] {
            std::fs::write(dir.path().join(version), version).expect("written");
        }
        let lead_to = |version: &str| {
            let new = dir.path().join("new");
            std::os::unix::fs::symlink(version, &new).expect("linked");
            std::fs::rename(new, &nspawn).expect("replaced");
        };
        let filters = Filters::new(cache.clone());
        for (version, list) in [("252", b"one"), ("257", b"two")] {
            lead_to(version);
            for filters in [&filters, &Filters::new(cache.clone())] {
                let found = filters
                    .of(&nspawn, &options("a"), async { Ok(read(list)) })
                    .await;
                assert_eq!(found.as_deref(), Some(&list[..]), "{version}");
            }
        }
    }

    #[tokio::test]
    async fn damaged_file_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let nspawn = Path::new("/nspawn");
        let filters = Filters::new(dir.path().into());
        filters
            .of(nspawn, &options("a"), async { Ok(read(b"one")) })
            .await;
        let file = dir.path().join(key(nspawn, &options("a")));
        let whole = std::fs::read(&file).expect("stored");
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        for damaged in [
            &whole[..whole.len() - 1],
            &flipped,
            b"",
            b"innkeeper-filters 1\n",
        ] {
            std::fs::write(&file, damaged).expect("damaged");
            let filters = Filters::new(dir.path().into());
            let read = filters
                .of(nspawn, &options("a"), async { Ok(read(b"two")) })
                .await;
            assert_eq!(
                read.as_deref(),
                Some(&b"two"[..]),
                "{} bytes",
                damaged.len()
            );
        }
    }

    #[tokio::test]
    async fn failure_is_reported_and_not_repeated() {
        let dir = tempfile::tempdir().expect("a directory");
        let (filters, nspawn) = (Filters::new(dir.path().into()), Path::new("/nspawn"));
        assert!(filters.check().finding.contains("first start"));
        let failed = filters
            .of(nspawn, &options("a"), async {
                Err("it is hidden".to_owned())
            })
            .await;
        assert_eq!(failed, None);
        let unread = || async { panic!("read again") };
        assert_eq!(filters.of(nspawn, &options("a"), unread()).await, None);
        assert!(filters.check().finding.contains("it is hidden"));
    }

    #[tokio::test]
    async fn refusal_at_a_door_returns_to_nspawn() {
        let dir = tempfile::tempdir().expect("a directory");
        let (filters, nspawn) = (Filters::new(dir.path().into()), Path::new("/nspawn"));
        let list = filters
            .of(nspawn, &options("a"), async { Ok(read(b"one")) })
            .await;
        assert!(list.is_some());
        assert!(
            filters
                .check()
                .finding
                .contains("installed at each guest's door")
        );
        filters.distrust("the kernel refused it");
        assert_eq!(
            filters
                .of(nspawn, &options("a"), async { Ok(read(b"one")) })
                .await,
            None
        );
        assert!(filters.check().finding.contains("the kernel refused it"));
    }
}
