//! What the host says about previews.

use std::path::PathBuf;
use std::time::Duration;

use innkeeper_github::report::ReportSettings;
use innkeeper_model::preview::{Meta, PreviewRecord, PreviewView, RepoName};
use innkeeper_model::{GuestName, SlotRange};

/// What the controller needs to know besides the store and the host.
#[derive(Clone, Debug)]
pub struct PreviewsConfig {
    /// What previews' names are below, such as `preview.example.com`.
    pub domain: String,
    /// `https`, or `http` for a host without certificates.
    pub scheme: &'static str,
    /// The port in previews' URLs; nothing for the scheme's own.
    pub port: Option<u16>,
    /// Where guests clone from: `<clone_url>/<owner>/<repository>.git`.
    pub clone_url: String,
    /// The repositories that may have previews; all that the token can read when there are none.
    pub repositories: Vec<RepoName>,
    /// Where GitHub delivers to.
    pub webhook_url: String,
    /// The label with which somebody who may write approves a commit of a fork.
    pub approval_label: String,
    /// What is said on GitHub, and where.
    pub style: ReportSettings,
    /// How many previews there may be; 0 means as many as come.
    pub limit: usize,
    /// After how long without a push, a command or a visit a preview is stopped, and after the same time again removed, in running
    /// time; nothing means never.
    pub ttl: Option<Duration>,
    /// How long a guest may take until its services can be started.
    pub boot_timeout: Duration,
    /// How long the setup service may take.
    pub setup_timeout: Duration,
    /// How long the app may take to answer after its services were started.
    pub health_timeout: Duration,
    /// Where the secrets for previews are: `<secrets>/<owner>/<repository>.env`, in lower case. What is in a
    /// repository's file is what this host allows it, and nothing else is.
    pub secrets: PathBuf,
    /// The group in the guest that may read the preview's environment and token, besides root.
    pub group: u32,
    /// Whether a token that can do more than read the one repository is given to guests.
    pub share_token: bool,
    /// The database that new databases of previews are copies of.
    pub database_template: Option<String>,
    /// The port of the host's PostgreSQL.
    pub database_port: u16,
    /// How often everything is looked after.
    pub interval: Duration,
    /// The addresses of the slots.
    pub range: SlotRange,
}

impl PreviewsConfig {
    /// A host name below the domain.
    pub(crate) fn host(&self, label: &GuestName) -> String {
        format!("{label}.{}", self.domain)
    }

    /// The URL of a host name below the domain.
    pub(crate) fn url(&self, label: &GuestName) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{}{port}", self.scheme, self.host(label))
    }

    /// Where the web server listens on this host.
    pub(crate) fn web_port(&self) -> u16 {
        let default = if self.scheme == "https" { 443 } else { 80 };
        self.port.unwrap_or(default)
    }

    pub(crate) fn allows(&self, repo: &RepoName) -> bool {
        self.repositories.is_empty() || self.repositories.contains(repo)
    }

    /// A record as lists show it.
    pub(crate) fn view(&self, record: PreviewRecord, meta: Option<&Meta>) -> PreviewView {
        let labels = meta.and_then(|meta| meta.labels(&record.slug).ok());
        let extra = labels.unwrap_or_default();
        PreviewView {
            url: self.url(&record.slug),
            extra_urls: extra.iter().skip(1).map(|label| self.url(label)).collect(),
            preview: record,
            repo_trouble: None,
        }
    }
}
