//! The settings of previews, and of the servers that they use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use innkeeper_host::firewall::WebPorts;
use innkeeper_host::route::{Admin, Robots, Tls};
use innkeeper_model::MemorySize;
use innkeeper_model::preview::{RepoName, Visibility};
use innkeeper_service::ConfigError;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Grace;
use super::repositories::{ConfigPath, RepositorySettings};

/// Previews of pull requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Previews {
    /// The parent domain of previews' names, such as `preview.example.com`; empty means `PREVIEW_DOMAIN` of
    /// `webhook.environment_files`. Without either, the host has no previews.
    pub domain: String,
    /// The port in previews' URLs; 0 means the scheme's, 443 or 80.
    pub port: u16,
    /// The pull requests that get a preview: `pull-request` (every open one) or `request` (those with `request_label` or the
    /// comment `/preview start`).
    pub on: PreviewsOn,
    /// The label that requests a preview, with `on = "request"`.
    pub request_label: String,
    /// Previews of drafts: `on`, `off` (none, and a pull request that becomes a draft loses its preview) or `until-ready`
    /// (none, but an existing one stays when the pull request becomes a draft).
    pub drafts: DraftPreviews,
    /// The scheme of previews' URLs, `https` or `http`; empty means `https`, or `http` with `caddy.tls = "none"`. Write
    /// `https` if a tunnel or a load balancer in front of Caddy has the certificate.
    pub scheme: String,
    /// The value of the header `X-Robots-Tag` in the responses of previews' apps; empty means that apps decide.
    pub robots: String,
    /// The label with which a user with write access approves a commit of a fork.
    pub approval_label: String,
    /// The place of reports about a preview: `comment`, `text` (links in the pull request's own text) or `nowhere`.
    pub report: ReportPlace,
    /// The visitors of previews: `public` (everybody), `team` (people who may log in on this host) or `private` (people who may
    /// read the repository). A repository's file and a command can only be stricter. The last two need the gateway.
    pub visibility: Visibility,
    /// The contents of the page of a preview whose app does not answer: `auto` shows the state and times only where the
    /// repository is private, `full` shows everything to everybody.
    pub page: PageContents,
    /// Creates a GitHub deployment for each preview.
    pub deployments: bool,
    /// Creates a check for each commit, which branch protection can require: a check run with an App, a commit status
    /// with a token. Both are named `innkeeper/preview`.
    pub checks: bool,
    /// The maximum number of previews; 0 means no limit. When a new one has been evaluated, the least recently used one
    /// is evicted.
    pub limit: usize,
    /// Hours without a push, a command or a visit after which a preview is stopped, and after as many again removed. Hours
    /// in which the daemon does not run are not counted. 0 means never.
    pub ttl_hours: u64,
    /// The time until a preview is removed whose `preview-config.nix` or branch is gone. Time in which the daemon does not
    /// run is not counted.
    pub dropped_grace: Grace,
    /// Timeout until a guest's services can be started, in seconds.
    pub boot_timeout_seconds: u64,
    /// Timeout of the setup service, in seconds.
    pub setup_timeout_seconds: u64,
    /// Timeout until the app answers, in seconds.
    pub health_timeout_seconds: u64,
    /// The folder of secrets for previews, with files `<owner>/<repository>.env` in lower case. A repository can request
    /// only the secrets in its own file.
    pub secrets_dir: PathBuf,
    /// The group in a preview's guest that may read its environment and its token.
    pub group_id: u32,
    /// Gives guests a token that can do more than read the one repository. Leave it off for a token with write access.
    pub share_token: bool,
    /// The interval at which previews are compared with the open pull requests, in seconds.
    pub interval_seconds: u64,
    /// The path of the configuration in repositories, or a list of paths: each gets its own preview.
    pub config_path: ConfigPath,
    /// Names of files, or `*` and the end of names, that evaluations receive from folders in addition to the built-in file
    /// types.
    pub file_types: Vec<String>,
    /// Settings of single repositories by name, such as `[previews.repositories."octo/web"]`.
    pub repositories: BTreeMap<RepoName, RepositorySettings>,
}

/// The pull requests that get a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreviewsOn {
    /// Every open pull request.
    PullRequest,
    /// Those for which a label or a command requests one.
    Request,
}

/// Previews of drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DraftPreviews {
    /// Drafts get previews as others do.
    On,
    /// Drafts have no previews.
    Off,
    /// Drafts get no previews, but existing ones stay.
    UntilReady,
}

impl Previews {
    /// Reports whether every open pull request gets a preview.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        self.on == PreviewsOn::PullRequest && self.drafts == DraftPreviews::On
    }
}

/// The contents of the page of a preview whose app does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageContents {
    /// Everything, but only the state and times where the repository is private or not known to be public.
    Auto,
    /// Everything.
    Full,
}

/// The place of reports about a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportPlace {
    /// In one comment.
    Comment,
    /// As links in the pull request's own text.
    Text,
    /// Nowhere.
    Nowhere,
}

impl Previews {
    /// Returns the scheme of previews' URLs.
    ///
    /// # Errors
    /// When it is neither `https` nor `http`, or `http` although Caddy has a certificate.
    pub fn scheme(&self, tls: &Tls) -> Result<&'static str, ConfigError> {
        match (self.scheme.as_str(), tls) {
            ("", Tls::None) | ("http", Tls::None) => Ok("http"),
            ("" | "https", _) => Ok("https"),
            ("http", _) => Err(ConfigError::value(
                "previews.scheme",
                "with \"http\", caddy.tls must be \"none\"",
            )),
            _ => Err(ConfigError::value(
                "previews.scheme",
                "write \"https\", \"http\" or nothing",
            )),
        }
    }

    /// Returns the value of `X-Robots-Tag`, if any.
    ///
    /// # Errors
    /// When it has characters that such a value cannot have.
    pub fn robots(&self) -> Result<Option<Robots>, ConfigError> {
        if self.robots.is_empty() {
            return Ok(None);
        }
        Robots::parse(&self.robots).map(Some).ok_or_else(|| {
            ConfigError::value(
                "previews.robots",
                "write for example \"noindex, nofollow\": letters, digits and - _ : , only",
            )
        })
    }

    /// Reports whether a server in front of Caddy has the certificate. Guests reach their own URLs through that server only.
    #[must_use]
    pub fn is_behind_tls(&self, tls: &Tls) -> bool {
        *tls == Tls::None && self.scheme == "https"
    }

    /// Returns the port on which Caddy listens for browsers; `None` means 443, or 80 without a certificate.
    #[must_use]
    pub fn listen_port(&self, caddy: &CaddySettings, tls: &Tls) -> Option<u16> {
        let is_behind_tls = self.is_behind_tls(tls);
        let port = match caddy.port {
            0 if is_behind_tls => 0,
            0 => self.port,
            port => port,
        };
        (port != 0).then_some(port)
    }

    /// Returns the ports of Caddy for guests, if they may reach it.
    ///
    /// # Errors
    /// When `caddy.tls` is invalid.
    pub fn web_ports(&self, caddy: &CaddySettings) -> Result<Option<WebPorts>, ConfigError> {
        let tls = caddy.tls()?;
        let default = if tls == Tls::None { 80 } else { 443 };
        Ok((caddy.guest_port != 0).then(|| WebPorts {
            public: self.listen_port(caddy, &tls).unwrap_or(default),
            url: if self.port == 0 { default } else { self.port },
            guests: caddy.guest_port,
        }))
    }
}

/// Access to GitHub. Credentials are in `webhook.environment_files`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GithubSettings {
    /// The API's address.
    pub api_url: String,
    /// The base URL that guests clone from: `<clone_url>/<owner>/<repository>.git`.
    pub clone_url: String,
    /// A PEM file with trusted certificate authorities in addition to the system's; empty means none.
    pub extra_certificates: String,
    /// The payload URL of the webhook on GitHub; lost deliveries to it are requested again. Empty means
    /// `https://webhook.<domain>/webhook/github`.
    pub webhook_url: String,
}

/// The web server. `docs/previews-host.md` describes its main file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaddySettings {
    /// The folder of previews' files, which the main file imports.
    pub directory: PathBuf,
    /// The main file.
    pub caddyfile: PathBuf,
    /// The folder of the tables that Caddy reads at each request.
    pub table: PathBuf,
    /// A loopback address, used by no other program, on which Caddy looks up routes.
    pub lookup: SocketAddr,
    /// Caddy's admin API: the path of a Unix socket, or `<address>:<port>`.
    pub admin: String,
    /// `none` (plain HTTP), `files`, `internal` (Caddy's own authority), `on-demand`, or the name of a snippet of
    /// the main file, such as `cloudflare_tls`.
    pub tls: String,
    /// The certificate for `*.<domain>`, with `tls = "files"`.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The port on which Caddy listens for browsers; 0 means that of previews' URLs. With `previews.scheme = "https"` and
    /// `caddy.tls = "none"`, 0 means 80.
    pub port: u16,
    /// The port on which Caddy responds to guests, each for the hosts of its own preview. The firewall redirects guests'
    /// connections to Caddy's port there. 0 means that guests do not reach Caddy.
    pub guest_port: u16,
    /// The networks of servers in front of Caddy, such as `127.0.0.1/32` for a tunnel on this host. Apps receive their
    /// `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
}

impl CaddySettings {
    /// Returns the admin API's address.
    ///
    /// # Errors
    /// When it is neither a path nor an address.
    pub fn admin(&self) -> Result<Admin, ConfigError> {
        if self.admin.starts_with('/') {
            return Ok(Admin::Unix(self.admin.clone().into()));
        }
        let address = self.admin.parse();
        address.map(Admin::Tcp).map_err(|_| {
            ConfigError::value(
                "caddy.admin",
                "write the path of a Unix socket, or <address>:<port>",
            )
        })
    }

    /// Returns the source of certificates.
    ///
    /// # Errors
    /// When it is empty, or `files` without files.
    pub fn tls(&self) -> Result<Tls, ConfigError> {
        Ok(match self.tls.as_str() {
            "none" => Tls::None,
            "internal" => Tls::Internal,
            "on-demand" => Tls::OnDemand,
            "files" if self.certificate.is_empty() || self.key.is_empty() => {
                return Err(ConfigError::value(
                    "caddy.tls",
                    "with \"files\", caddy.certificate and caddy.key must be set",
                ));
            }
            "files" => Tls::Files {
                certificate: self.certificate.clone().into(),
                key: self.key.clone().into(),
            },
            "" => return Err(ConfigError::value("caddy.tls", "it must not be empty")),
            snippet => Tls::Snippet(snippet.to_owned()),
        })
    }
}

/// PostgreSQL for previews with `database = "host"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// The folder of the server's Unix socket, such as `/run/postgresql`; empty means no server.
    pub socket_dir: String,
    /// The server's port.
    pub port: u16,
    /// The daemon's role, a superuser.
    pub role: String,
    /// The maximum number of a preview's connections; 0 means its share of the server's, at most 40.
    pub connections: u16,
    /// The template of previews' databases; empty means an empty database in UTF-8.
    pub template: String,
}

/// Evaluation of `preview-config.nix`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// The folder of nixpkgs, best in the store. Required for previews.
    pub nixpkgs: String,
    /// The expected hash of nixpkgs, `sha256-…`; empty means any.
    pub nixpkgs_hash: String,
    /// The module that is imported before every preview-config.nix.
    pub base_module: String,
    /// The system in Nix's notation; empty means this machine's.
    pub system: String,
    /// The user that evaluates, which must not own anything: a name or a number.
    pub user: String,
    /// The folder of the GC roots of evaluations.
    pub gcroots_dir: PathBuf,
    /// The memory limit of one evaluation.
    pub memory: MemorySize,
    /// Timeout of one evaluation, in seconds.
    pub timeout_seconds: u64,
    /// Timeout of the build of a preview with all its derivations, in seconds.
    pub build_timeout_seconds: u64,
    /// The maximum number of concurrent evaluations.
    pub concurrent: usize,
}

/// Builds of previews, after their evaluation. Memory, processors and tasks limit all builds together if Nix builds without
/// a daemon; the limits of a Nix daemon are set on its unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildSettings {
    /// The memory of builds, in percent of the host's.
    pub memory_percent: Percent,
    /// The processor time of builds, in percent of all processors.
    pub cpu_percent: Percent,
    /// The processes and threads of builds.
    pub tasks: u32,
    /// The minimum free space on the disk of the Nix store. With less, builds do not start, and running ones are canceled.
    pub min_free: MemorySize,
    /// The maximum output of one builder.
    pub log_limit: MemorySize,
    /// Timeout of a builder without output, in seconds.
    pub max_silent_seconds: u64,
    /// The maximum number of derivations that one preview may build.
    pub max_derivations: u64,
    /// Private networks, or networks of the host, that builds may reach, such as `10.1.2.3/32`. The firewall blocks the
    /// others for all builds of the host.
    pub allowed_networks: Vec<IpNet>,
}

/// A percentage from 1 to 100.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Percent(u32);

impl TryFrom<u32> for Percent {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match number {
            1..=100 => Ok(Self(number)),
            _ => Err("a percentage is a number from 1 to 100"),
        }
    }
}

impl From<Percent> for u32 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl Default for BuildSettings {
    fn default() -> Self {
        let limits = innkeeper_host::evaluate::BuildLimits::default();
        Self {
            memory_percent: Percent(limits.memory_percent),
            cpu_percent: Percent(limits.cpu_percent),
            tasks: limits.tasks,
            min_free: limits.min_free,
            log_limit: limits.log,
            max_silent_seconds: limits.silent.as_secs(),
            max_derivations: limits.derivations,
            allowed_networks: Vec::new(),
        }
    }
}

impl Default for Previews {
    fn default() -> Self {
        Self {
            domain: String::new(),
            port: 0,
            on: PreviewsOn::PullRequest,
            request_label: "preview".to_owned(),
            drafts: DraftPreviews::On,
            scheme: String::new(),
            robots: "noindex".to_owned(),
            approval_label: "preview-approved".to_owned(),
            report: ReportPlace::Comment,
            visibility: Visibility::Public,
            page: PageContents::Auto,
            deployments: true,
            checks: false,
            limit: 100,
            ttl_hours: 0,
            dropped_grace: Grace::hours(24),
            boot_timeout_seconds: 90,
            setup_timeout_seconds: 1_200,
            health_timeout_seconds: 60,
            secrets_dir: "/var/secrets/previews".into(),
            group_id: 100,
            share_token: false,
            interval_seconds: 300,
            config_path: ConfigPath::default(),
            file_types: Vec::new(),
            repositories: BTreeMap::new(),
        }
    }
}

impl Default for GithubSettings {
    fn default() -> Self {
        Self {
            api_url: "https://api.github.com".to_owned(),
            clone_url: "https://github.com".to_owned(),
            extra_certificates: String::new(),
            webhook_url: String::new(),
        }
    }
}

impl Default for CaddySettings {
    fn default() -> Self {
        Self {
            directory: "/etc/caddy/previews".into(),
            caddyfile: "/etc/caddy/Caddyfile".into(),
            table: "/var/lib/innkeeper-routes".into(),
            lookup: SocketAddr::from(([127, 0, 0, 1], 3180)),
            admin: "/run/caddy/admin.sock".to_owned(),
            tls: "cloudflare_tls".to_owned(),
            certificate: String::new(),
            key: String::new(),
            port: 0,
            guest_port: 3443,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            socket_dir: String::new(),
            port: 5432,
            role: "postgres".to_owned(),
            connections: 0,
            template: String::new(),
        }
    }
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            nixpkgs: String::new(),
            nixpkgs_hash: String::new(),
            base_module: String::new(),
            system: String::new(),
            user: innkeeper_host::evaluate::DEFAULT_USER.to_owned(),
            gcroots_dir: "/nix/var/nix/gcroots/innkeeper-evaluations".into(),
            memory: MemorySize::from_bytes(4 << 30),
            timeout_seconds: 120,
            build_timeout_seconds: 1_200,
            concurrent: 2,
        }
    }
}
