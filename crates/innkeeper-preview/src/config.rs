//! Settings of previews.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_github::report::ReportSettings;
use innkeeper_model::preview::sources::{FileTypes, SourcePath};
use innkeeper_model::preview::{Meta, Outlook, PreviewRecord, PreviewView, RepoName, Visibility};
use innkeeper_model::{GuestName, SlotRange};

use crate::admission::Admission;

/// Settings of previews.
#[derive(Clone, Debug)]
pub struct PreviewsConfig {
    /// The domain of previews' names, such as `preview.example.com`.
    pub domain: String,
    /// `https`, or `http` for a host without certificates.
    pub scheme: &'static str,
    /// The port in previews' URLs; `None` for the scheme's default.
    pub port: Option<u16>,
    /// The port on which the web server listens on this host.
    pub listen_port: u16,
    /// The URL that guests clone from: `<clone_url>/<owner>/<repository>.git`.
    pub clone_url: String,
    /// The repositories that may have previews. Empty means all that the token can read.
    pub repositories: Vec<RepoName>,
    /// The URL that GitHub delivers to.
    pub webhook_url: String,
    /// The pull requests that get a preview.
    pub admission: Admission,
    /// The label with which a user with write access approves a commit of a fork.
    pub approval_label: String,
    /// Form and place of the reports on GitHub.
    pub style: ReportSettings,
    /// The highest number of previews; 0 means no limit.
    pub limit: usize,
    /// The highest number of previews of single repositories.
    pub repo_limits: BTreeMap<RepoName, usize>,
    /// Running time without a push, a command or a visit after which a preview is stopped, and after the same time again
    /// removed; `None` means never.
    pub ttl: Option<Duration>,
    /// Running time after which a preview is removed whose file or branch is gone.
    pub dropped_grace: Duration,
    /// Timeout of a guest's boot, until its services can be started.
    pub boot_timeout: Duration,
    /// Timeout of the setup service.
    pub setup_timeout: Duration,
    /// Timeout of the app's first answers after its services were started.
    pub health_timeout: Duration,
    /// The directory of the secrets for previews: `<secrets>/<owner>/<repository>.env`, in lower case. A repository gets
    /// only the secrets in its own file.
    pub secrets: PathBuf,
    /// The group in the guest that may read the preview's environment and token, besides root.
    pub group: u32,
    /// Shares a token with guests that can do more than read the one repository.
    pub share_token: bool,
    /// The template of new databases.
    pub database_template: Option<String>,
    /// The port of the host's PostgreSQL.
    pub database_port: u16,
    /// Interval of the periodic resync.
    pub interval: Duration,
    /// The contents of pages about repositories that are private, or not known to be public.
    pub page: PageContents,
    /// The addresses of the slots.
    pub range: SlotRange,
    /// The paths of configurations in repositories.
    pub config_paths: ConfigPaths,
    /// The visitors of previews, as far as repositories and commands are not stricter.
    pub visibilities: Visibilities,
    /// True if the host has a gateway that checks visitors. Otherwise previews that are not public are closed.
    pub checks_visitors: bool,
    /// The types of the files that evaluations receive from folders.
    pub file_types: FileTypes,
}

/// The visitors of previews by the host's settings.
#[derive(Clone, Debug, Default)]
pub struct Visibilities {
    /// Of repositories that are not in the map.
    pub default: Visibility,
    /// Of single repositories.
    pub repositories: BTreeMap<RepoName, Visibility>,
}

impl Visibilities {
    /// Returns the visitors of a repository's previews.
    pub(crate) fn of(&self, repo: &RepoName) -> Visibility {
        self.repositories.get(repo).copied().unwrap_or(self.default)
    }
}

/// The paths of configurations in repositories. Each gets its own preview.
#[derive(Clone, Debug)]
pub struct ConfigPaths {
    /// Of repositories that are not in the map; at least one.
    pub default: Vec<SourcePath>,
    /// Of single repositories; at least one each.
    pub repositories: BTreeMap<RepoName, Vec<SourcePath>>,
}

impl ConfigPaths {
    /// Returns the paths of a repository's configurations.
    pub(crate) fn of(&self, repo: &RepoName) -> &[SourcePath] {
        self.repositories.get(repo).unwrap_or(&self.default)
    }

    /// Returns the paths of a repository's configurations after the first one.
    pub(crate) fn additional(&self, repo: &RepoName) -> &[SourcePath] {
        self.of(repo).get(1..).unwrap_or_default()
    }

    /// Returns the path of a repository's first configuration.
    pub(crate) fn main(&self, repo: &RepoName) -> SourcePath {
        self.of(repo).first().cloned().unwrap_or_default()
    }
}

/// The contents of pages about repositories that are private, or not known to be public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageContents {
    /// The slug, the state and times.
    State,
    /// The same as for public repositories.
    Full,
}

impl PreviewsConfig {
    /// Returns a host name below the domain.
    pub(crate) fn host(&self, label: &GuestName) -> String {
        format!("{label}.{}", self.domain)
    }

    /// Returns the URL of a host name below the domain.
    pub(crate) fn url(&self, label: &GuestName) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{}{port}", self.scheme, self.host(label))
    }

    pub(crate) fn allows(&self, repo: &RepoName) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repo)
    }

    /// Returns a record as lists show it.
    pub(crate) fn view(&self, record: PreviewRecord, meta: Option<&Meta>) -> PreviewView {
        let labels = meta.and_then(|meta| meta.labels(&record.slug).ok());
        let extra = labels.unwrap_or_default();
        PreviewView {
            url: self.url(&record.slug),
            extra_urls: extra.iter().skip(1).map(|label| self.url(label)).collect(),
            preview: record,
            database: meta.map(|meta| meta.database),
            repo_trouble: None,
            app_trouble: None,
            visibility: Visibility::default(),
            outlook: Outlook::default(),
        }
    }
}
