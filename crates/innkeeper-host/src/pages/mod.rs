//! Status files of previews: `<directory>/<slug>.json`, for `innkeeper-pages`.
//!
//! The directory belongs to one daemon. Files are replaced atomically and are readable for root and one group only.
//! Temporary names start with a dot, which slugs never do.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, Pages, Resource};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::page::{MAX_PAGE_BYTES, PAGE_SUFFIX, PageStatus};
use innkeeper_model::{Code, Explain, GuestName, chain};
use parking_lot::Mutex;

use crate::tree::{self, blocking};
use crate::{FileError, FileErrorExt};

const SUBJECT: &str = "pages";

/// Settings of the status files.
#[derive(Clone, Debug)]
pub struct PagesConfig {
    /// The directory.
    pub directory: PathBuf,
    /// The id of the group that may read them, besides root. `None` for root only.
    pub group: Option<u32>,
}

/// Writes status files. Clones share a lock.
#[derive(Clone, Debug)]
pub struct StatusFiles {
    config: Arc<PagesConfig>,
    /// Held while a file is written: temporary names are not unique.
    writing: Arc<Mutex<()>>,
}

/// A status file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
enum StatusFileError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The status is longer than readers accept.
    #[error("the status of preview '{slug}' has {length} bytes, more than {MAX_PAGE_BYTES}")]
    TooLong {
        /// The preview.
        slug: GuestName,
        /// The length in bytes.
        length: usize,
    },
    /// The object is not a status file.
    #[error("'{object}' is not managed by Innkeeper")]
    Foreign {
        /// The object.
        object: String,
    },
}

impl Explain for StatusFileError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::RouteFailed),
            Self::TooLong { .. } => Code::Internal,
            Self::Foreign { .. } => Code::InvalidRequest,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::File(error) => error.remedy(),
            Self::TooLong { .. } | Self::Foreign { .. } => None,
        }
    }
}

impl From<StatusFileError> for FacilityError {
    fn from(error: StatusFileError) -> Self {
        Self::new(error)
    }
}

impl StatusFiles {
    /// Creates the driver without touching the host.
    #[must_use]
    pub fn new(config: PagesConfig) -> Self {
        Self {
            config: Arc::new(config),
            writing: Arc::default(),
        }
    }

    /// Accesses the files exclusively, on a blocking thread.
    async fn exclusively<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PagesConfig) -> Result<T, StatusFileError> + Send + 'static,
    ) -> Result<T, StatusFileError> {
        let files = self.clone();
        blocking(move || {
            let _writing = files.writing.lock();
            work(&files.config)
        })
        .await
    }
}

impl PagesConfig {
    fn path(&self, slug: &GuestName) -> PathBuf {
        self.directory.join(format!("{slug}{PAGE_SUFFIX}"))
    }

    fn temporary(&self, slug: &GuestName) -> PathBuf {
        self.directory.join(format!(".{slug}{PAGE_SUFFIX}"))
    }

    fn write(&self, status: &PageStatus, durable: bool) -> Result<(), StatusFileError> {
        let slug = &status.slug;
        // A status is a tree of texts and numbers, which can always be serialized.
        let text = serde_json::to_vec(status).unwrap_or_default();
        if text.len() > MAX_PAGE_BYTES {
            let (slug, length) = (slug.clone(), text.len());
            return Err(StatusFileError::TooLong { slug, length });
        }
        self.make_directory()?;
        let temporary = self.temporary(slug);
        tree::remove(&temporary)?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&temporary).on("create", &temporary)?;
        file.write_all(&text).on("write", &temporary)?;
        self.share(&file, 0o640).on("change", &temporary)?;
        if durable {
            file.sync_all().on("write", &temporary)?;
        }
        let path = self.path(slug);
        Ok(fs::rename(&temporary, &path).on("create", &path)?)
    }

    /// Creates the directory. An existing one keeps its owner and mode.
    fn make_directory(&self) -> Result<(), FileError> {
        let path = &self.directory;
        if path.is_dir() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).on("create", path)?;
        let directory = File::open(path).on("open", path)?;
        self.share(&directory, 0o2750).on("change", path)
    }

    /// Lets the group read a file or directory.
    fn share(&self, file: &File, mode: u32) -> io::Result<()> {
        let mode = match self.group {
            Some(group) => {
                fchown(file, None, Some(group))?;
                mode
            }
            None => mode & 0o700,
        };
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn read(&self, slug: &GuestName) -> Result<Option<PageStatus>, FileError> {
        let path = self.path(slug);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(serde_json::from_slice(&text.on("read", &path)?).ok()),
        }
    }

    fn remove(&self, slug: &GuestName) -> Result<(), FileError> {
        tree::remove(&self.temporary(slug))?;
        tree::remove(&self.path(slug))
    }

    /// Lists all status files, and remains of interrupted writes.
    fn observe(&self) -> Result<Vec<Found>, FileError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.on("list", &self.directory)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.on("list", &self.directory)?.path();
            if let Some(guest) = self.parse(&path) {
                found.push(Found::ours(guest, path.display().to_string()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Parses a path: the preview, or `None` for remains of a write. Returns `None` for any other file.
    fn parse(&self, path: &Path) -> Option<Option<GuestName>> {
        let name = path.file_name()?.to_str()?;
        if path != self.directory.join(name) {
            return None;
        }
        let stem = name.strip_suffix(PAGE_SUFFIX)?;
        match stem.strip_prefix('.') {
            Some(stem) => GuestName::parse(stem).ok().map(|_| None),
            None => GuestName::parse(stem).ok().map(Some),
        }
    }
}

#[async_trait]
impl Resource for StatusFiles {
    fn kind(&self) -> &'static str {
        "page"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.exclusively(|config| Ok(config.observe()?)).await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let slug = guest.clone();
        Ok(self
            .exclusively(move |config| Ok(config.remove(&slug)?))
            .await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let object = found.object.clone();
        Ok(self
            .exclusively(move |config| match config.parse(Path::new(&object)) {
                Some(_) => Ok(tree::remove(Path::new(&object))?),
                None => Err(StatusFileError::Foreign { object }),
            })
            .await?)
    }

    async fn check(&self) -> Vec<Check> {
        let directory = self.config.directory.display();
        let writable = self
            .exclusively(|config| {
                config.make_directory()?;
                let probe = config.directory.join(".probe");
                fs::write(&probe, "").on("write", &probe)?;
                Ok(tree::remove(&probe)?)
            })
            .await;
        let (verdict, finding, remedy) = match (writable, self.config.group) {
            (Ok(()), Some(_)) => (
                Verdict::Ok,
                format!("the status of previews is in {directory}"),
                None,
            ),
            (Ok(()), None) => (
                Verdict::Warning,
                "the group pages.group does not exist, so innkeeper-pages cannot read the status of previews".to_owned(),
                Some("Create the group, or install Innkeeper's users again (`systemd-sysusers`); then restart innkeeper.service.".to_owned()),
            ),
            (Err(error), _) => (Verdict::Broken, chain(&error), error.remedy()),
        };
        vec![Check {
            subject: SUBJECT.to_owned(),
            verdict,
            finding,
            remedy,
        }]
    }
}

#[async_trait]
impl Pages for StatusFiles {
    async fn write(&self, status: PageStatus, durable: bool) -> Result<(), FacilityError> {
        Ok(self
            .exclusively(move |config| config.write(&status, durable))
            .await?)
    }

    async fn read(&self, preview: &GuestName) -> Result<Option<PageStatus>, FacilityError> {
        let slug = preview.clone();
        Ok(self
            .exclusively(move |config| Ok(config.read(&slug)?))
            .await?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use innkeeper_model::preview::PreviewState;
    use innkeeper_model::preview::page::{PageDetails, PageLine};
    use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
    use jiff::Timestamp;

    use super::*;

    const GROUP: u32 = 65_534;

    fn files(directory: &Path, group: Option<u32>) -> StatusFiles {
        StatusFiles::new(PagesConfig {
            directory: directory.join("pages"),
            group,
        })
    }

    fn status(slug: &str) -> PageStatus {
        PageStatus {
            slug: GuestName::parse(slug).expect("a name"),
            state: PreviewState::Building,
            since: Timestamp::UNIX_EPOCH,
            started_at: Timestamp::UNIX_EPOCH,
            steps: Vec::new(),
            interruption: None,
            wake: None,
            details: None,
        }
    }

    #[tokio::test]
    async fn status_is_readable_for_root_and_one_group() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path(), Some(GROUP));
        let status = status("web-7");
        files.write(status.clone(), true).await.expect("written");
        let read = files.read(&status.slug).await.expect("read");
        assert_eq!(read, Some(status.clone()));
        for (path, mode) in [("pages", 0o2750), ("pages/web-7.json", 0o640)] {
            let metadata = fs::metadata(directory.path().join(path)).expect("it exists");
            assert_eq!(metadata.mode() & 0o7777, mode, "{path}");
            assert_eq!((metadata.uid(), metadata.gid()), (0, GROUP), "{path}");
        }
        files.remove(&status.slug).await.expect("removed");
        files
            .remove(&status.slug)
            .await
            .expect("absence is success");
        assert_eq!(files.read(&status.slug).await.expect("read"), None);

        let alone = directory.path().join("alone");
        let files = self::files(&alone, None);
        files.write(status, false).await.expect("written");
        let metadata = fs::metadata(alone.join("pages/web-7.json")).expect("it exists");
        assert_eq!(metadata.mode() & 0o7777, 0o600);
    }

    #[tokio::test]
    async fn remains_are_listed_and_swept_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path(), None);
        files.write(status("web-7"), true).await.expect("written");
        let place = directory.path().join("pages");
        for name in [".api-1.json", "README", "Not A Slug.json"] {
            fs::write(place.join(name), "{").expect("written");
        }
        let found = files.observe().await.expect("observed");
        let guests: Vec<_> = found.iter().map(|found| found.guest.clone()).collect();
        assert_eq!(
            guests,
            [None, Some(GuestName::parse("web-7").expect("a name"))]
        );
        for found in &found {
            files.sweep(found).await.expect("swept");
        }
        assert_eq!(files.observe().await.expect("observed"), []);
        let foreign = Found::ours(None, place.join("README").display().to_string());
        files.sweep(&foreign).await.expect_err("not a status file");
        assert!(place.join("README").exists());
    }

    #[tokio::test]
    async fn status_that_readers_would_refuse_is_not_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path(), None);
        let mut long = status("web-7");
        let line = PageLine {
            number: 1,
            at: Timestamp::UNIX_EPOCH,
            text: "x".repeat(MAX_PAGE_BYTES),
        };
        long.details = Some(PageDetails {
            repo: RepoName::parse("octo/web").expect("a repository"),
            web_url: String::new(),
            pull_request: None,
            title: None,
            author: None,
            branch: BranchName::parse("main").expect("a branch"),
            head_repo: None,
            commit: CommitSha::parse(&"1a".repeat(20)).expect("a commit"),
            progress: None,
            failure: None,
            advice: None,
            log: vec![line],
        });
        files.write(long, true).await.expect_err("too long");
        files.write(status("web-7"), true).await.expect("written");
        let path = directory.path().join("pages/web-7.json");
        fs::write(path, "{").expect("written");
        let slug = GuestName::parse("web-7").expect("a name");
        assert_eq!(files.read(&slug).await.expect("read"), None);
    }
}
