//! Wiring of previews.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_facilities::Databases;
use innkeeper_github::EnvironmentFiles;
use innkeeper_github::client::{Credentials, CredentialsError, Github, Settings};
use innkeeper_github::report::{ReportSettings, ReportTarget};
use innkeeper_host::database::{PostgresConfig, PostgresDatabases};
use innkeeper_host::evaluate::{BuildLimits, EvaluationLimits, EvaluatorConfig, NixEvaluator};
use innkeeper_host::features::UserIds;
use innkeeper_host::files::GuestFiles;
use innkeeper_host::firewall::{BuildFilter, HostPort, Protocol, WebPorts};
use innkeeper_host::identity::Identity;
use innkeeper_host::pages::{PagesConfig, StatusFiles};
use innkeeper_host::route::{CaddyConfig, CaddyRoutes, RouteResolver, Tls};
use innkeeper_model::preview::RepoName;
use innkeeper_model::preview::sources::FileTypes;
use innkeeper_model::preview::text::CommentStyle;
use innkeeper_model::{Failure, chain};
use innkeeper_preview::{
    Admission, ConfigPaths, Drafts, Parts, Previews, PreviewsConfig, Visibilities,
};
use innkeeper_service::parse_allowed_repos;
use tracing::{info, warn};

use crate::access::PublishedVisitors;
use crate::config::{
    self, Config, DraftPreviews, PageContents, PreviewsOn, ReportPlace, check_domain,
};
use crate::error::DaemonError;
use crate::socket::group_id;
use crate::{crash, wiring};

/// Returns the domain of previews, if it is configured.
///
/// # Errors
/// When an environment file cannot be read.
pub(crate) fn domain(config: &Config) -> Result<Option<String>, DaemonError> {
    if let Some(domain) = non_empty(&config.previews.domain) {
        return Ok(Some(domain));
    }
    let files = environment_files(config)?;
    let value = files
        .get("PREVIEW_DOMAIN")
        .map_err(|error| DaemonError::Previews(Failure::from(&error)))?;
    Ok(value
        .map(|value| value.expose().to_owned())
        .filter(|domain| !domain.is_empty()))
}

/// Returns the ports of Caddy for guests. `None` on a host without previews, and where the administrator has opened the
/// port for a server of another kind.
///
/// # Errors
/// When an environment file cannot be read, or the settings are invalid.
pub(crate) fn web_ports(config: &Config) -> Result<Option<WebPorts>, DaemonError> {
    if domain(config)?.is_none() {
        return Ok(None);
    }
    let ports = config.previews.web_ports(&config.caddy)?;
    let is_opened = |port| {
        let opened = |allowed: &HostPort| allowed.proto == Protocol::Tcp && allowed.port == port;
        config.network.host_ports.iter().any(opened)
    };
    let ports = ports.filter(|ports| !is_opened(ports.public));
    Ok(ports.map(|ports| WebPorts {
        url: if is_opened(ports.url) {
            ports.public
        } else {
            ports.url
        },
        ..ports
    }))
}

fn environment_files(config: &Config) -> Result<EnvironmentFiles, DaemonError> {
    EnvironmentFiles::read(&config.webhook.environment_files)
        .map_err(|error| DaemonError::Previews(Failure::from(&error)))
}

/// Creates the preview controller. `None` without a domain.
pub(crate) fn open(
    config: &Config,
    engine: &Engine,
    identity: &Identity,
    user_ids: UserIds,
    builds: Arc<BuildFilter>,
) -> Result<Option<Previews>, DaemonError> {
    let files = environment_files(config)?;
    for bad in files.invalid_lines() {
        warn!("{bad}: ignored, unless its variable is required");
    }
    let variable = |name| {
        let value = files.get(name);
        value
            .map(|value| value.map(|value| value.expose().to_owned()))
            .map_err(|error| DaemonError::Previews(Failure::from(&error)))
    };
    let Some(domain) = domain(config)? else {
        info!("previews are disabled: previews.domain is not set");
        return Ok(None);
    };
    check_domain("PREVIEW_DOMAIN", &domain)?;
    let tls = config.caddy.tls()?;
    let repositories = match &config.webhook.allowed_repos {
        Some(repositories) => repositories.clone(),
        None => parse_allowed_repos(&variable("ALLOWED_REPOS")?.unwrap_or_default())?,
    };
    let parts = Parts {
        config: settings(config, &domain, &tls, repositories)?,
        engine: engine.clone(),
        github: github(config, &files)?,
        evaluator: Arc::new(NixEvaluator::new(evaluator(config), builds)),
        routes: Arc::new(CaddyRoutes::new(caddy(config, identity, domain, tls)?)),
        databases: databases(config, identity),
        access: Arc::new(PublishedVisitors::new(
            &config.runtime_dir,
            &config.gateway.group,
            config.gateway.enabled,
        )),
        pages: Arc::new(StatusFiles::new(PagesConfig {
            directory: config.pages.directory.clone(),
            group: group_id(&config.pages.group).map(nix::unistd::Gid::as_raw),
        })),
        files: Arc::new(GuestFiles {
            guests: config.guests_dir(),
            user_ids,
        }),
        probe: crash::preview_probe(),
    };
    Ok(Some(Previews::new(parts)))
}

fn settings(
    config: &Config,
    domain: &str,
    tls: &Tls,
    repositories: Vec<RepoName>,
) -> Result<PreviewsConfig, DaemonError> {
    let previews = &config.previews;
    let label = &previews.approval_label;
    let ttl = previews.ttl_hours;
    let ttl = (ttl != 0).then(|| Duration::from_secs(3_600 * ttl));
    Ok(PreviewsConfig {
        domain: domain.to_owned(),
        scheme: previews.scheme(tls)?,
        port: (previews.port != 0).then_some(previews.port),
        listen_port: previews
            .listen_port(&config.caddy, tls)
            .unwrap_or(if *tls == Tls::None { 80 } else { 443 }),
        clone_url: config.github.clone_url.trim_end_matches('/').to_owned(),
        repositories,
        webhook_url: non_empty(&config.github.webhook_url)
            .unwrap_or_else(|| format!("https://webhook.{domain}/webhook/github")),
        admission: admission(previews),
        approval_label: label.clone(),
        style: ReportSettings {
            target: match previews.report {
                ReportPlace::Comment => ReportTarget::Comment,
                ReportPlace::Text => ReportTarget::Text,
                ReportPlace::Nowhere => ReportTarget::Nowhere,
            },
            deployments: previews.deployments,
            checks: previews.checks,
            comment: CommentStyle {
                approve: format!("add the label `{label}`"),
                ttl,
            },
        },
        limit: previews.limit,
        repo_limits: (config.quotas.repositories.iter())
            .map(|(repo, quota)| (repo.clone(), quota.previews as usize))
            .collect(),
        ttl,
        dropped_grace: previews.dropped_grace.duration(),
        boot_timeout: Duration::from_secs(previews.boot_timeout_seconds),
        setup_timeout: Duration::from_secs(previews.setup_timeout_seconds),
        health_timeout: Duration::from_secs(previews.health_timeout_seconds),
        secrets: previews.secrets_dir.clone(),
        group: previews.group_id,
        share_token: previews.share_token,
        database_template: non_empty(&config.database.template),
        database_port: config.database.port,
        interval: Duration::from_secs(previews.interval_seconds.max(1)),
        page: match previews.page {
            PageContents::Auto => innkeeper_preview::PageContents::State,
            PageContents::Full => innkeeper_preview::PageContents::Full,
        },
        range: config.network.range(),
        config_paths: ConfigPaths {
            default: previews.config_path.paths().to_vec(),
            repositories: previews
                .repositories
                .iter()
                .filter_map(|(repo, settings)| {
                    let paths = settings.config_path.as_ref()?.paths().to_vec();
                    Some((repo.clone(), paths))
                })
                .collect(),
        },
        visibilities: Visibilities {
            default: previews.visibility,
            repositories: previews
                .repositories
                .iter()
                .filter_map(|(repo, settings)| Some((repo.clone(), settings.visibility?)))
                .collect(),
        },
        checks_visitors: config.gateway.enabled,
        // The check of the configuration has parsed them.
        file_types: FileTypes::with(&previews.file_types).unwrap_or_default(),
    })
}

fn admission(previews: &config::Previews) -> Admission {
    Admission {
        drafts: match previews.drafts {
            DraftPreviews::On => Drafts::On,
            DraftPreviews::Off => Drafts::Off,
            DraftPreviews::UntilReady => Drafts::UntilReady,
        },
        request_label: match previews.on {
            PreviewsOn::PullRequest => None,
            PreviewsOn::Request => Some(previews.request_label.clone()),
        },
    }
}

fn github(config: &Config, files: &EnvironmentFiles) -> Result<Option<Github>, DaemonError> {
    let credentials = match Credentials::from_files(files) {
        Ok(credentials) => credentials,
        Err(error @ CredentialsError::None) => {
            warn!("previews are on hold: {}", chain(&error));
            return Ok(None);
        }
        Err(error) => return Err(DaemonError::Previews(Failure::from(&error))),
    };
    let settings = Settings {
        base_url: config.github.api_url.clone(),
        extra_certificates: non_empty(&config.github.extra_certificates).map(PathBuf::from),
        ..Settings::default()
    };
    let github = Github::new(settings, credentials);
    github
        .map(Some)
        .map_err(|error| DaemonError::Previews(Failure::from(&error)))
}

fn evaluator(config: &Config) -> EvaluatorConfig {
    let evaluation = &config.evaluation;
    EvaluatorConfig {
        nix: wiring::nix(config),
        nixpkgs: evaluation.nixpkgs.clone().into(),
        nixpkgs_hash: non_empty(&evaluation.nixpkgs_hash),
        base_module: evaluation.base_module.clone().into(),
        system: non_empty(&evaluation.system)
            .unwrap_or_else(|| format!("{}-linux", std::env::consts::ARCH)),
        user: evaluation.user.clone(),
        scratch: config.state_dir.join("evaluations"),
        roots: evaluation.gcroots_dir.clone(),
        limits: EvaluationLimits {
            time: Duration::from_secs(evaluation.timeout_seconds),
            memory: evaluation.memory,
            build: Duration::from_secs(evaluation.build_timeout_seconds),
            ..EvaluationLimits::default()
        },
        builds: BuildLimits {
            cgroup: format!("{}-builds", config.supervisor.cgroup),
            memory_percent: config.builds.memory_percent.into(),
            cpu_percent: config.builds.cpu_percent.into(),
            tasks: config.builds.tasks,
            min_free: config.builds.min_free,
            log: config.builds.log_limit,
            silent: Duration::from_secs(config.builds.max_silent_seconds),
            derivations: config.builds.max_derivations,
        },
        concurrent: evaluation.concurrent.max(1),
    }
}

fn caddy(
    config: &Config,
    identity: &Identity,
    domain: String,
    tls: Tls,
) -> Result<CaddyConfig, DaemonError> {
    let caddy = &config.caddy;
    Ok(CaddyConfig {
        identity: identity.clone(),
        directory: caddy.directory.clone(),
        caddyfile: caddy.caddyfile.clone(),
        table: caddy.table.clone(),
        lookup: caddy.lookup,
        pages: config.pages.socket.clone(),
        access: (config.gateway.enabled).then(|| config.gateway.access_socket.clone()),
        resolver: (config.dns.port != 0).then(|| RouteResolver {
            port: config.dns.port,
            table: config.dns.table(),
        }),
        admin: caddy.admin()?,
        domain,
        port: config.previews.listen_port(caddy, &tls),
        guest_port: (caddy.guest_port != 0).then_some(caddy.guest_port),
        is_https: config.previews.scheme(&tls)? == "https",
        trusted_proxies: caddy.trusted_proxies.clone(),
        robots: config.previews.robots()?,
        tls,
    })
}

fn databases(config: &Config, identity: &Identity) -> Option<Arc<dyn Databases>> {
    let database = &config.database;
    let socket_dir = non_empty(&database.socket_dir)?;
    Some(Arc::new(PostgresDatabases::new(PostgresConfig {
        socket_dir: socket_dir.into(),
        port: database.port,
        role: database.role.clone(),
        passwords: config.state_dir.join("passwords"),
        connections: (database.connections != 0).then_some(database.connections),
        previews: config.previews.limit,
        statement_timeout: None,
        idle_in_transaction_timeout: Some(Duration::from_secs(300)),
        subnet: config.network.subnet.subnet(),
        identity: identity.clone(),
    })))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::resolver;

    fn open(config: &mut Config, port: &str) {
        let port = port.parse().expect("a port");
        config.network.host_ports.push(port);
    }

    /// Guests have a resolver only where an own host that leads to the gateway leads to Caddy.
    #[test]
    fn resolver_needs_urls_that_lead_to_caddy() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            config.webhook.environment_files.clear();
            config.previews.domain = "preview.example.org".to_owned();
            change(&mut config);
            let web = web_ports(&config).expect("valid");
            resolver(&config, web).expect("valid")
        };
        let on: [fn(&mut Config); 4] = [
            |_| {},
            |config| config.caddy.port = 8443,
            |config| config.caddy.tls = "none".to_owned(),
            |config| open(config, "tcp/5432"),
        ];
        for (number, change) in on.into_iter().enumerate() {
            assert_eq!(
                with(change).map(|resolver| resolver.port),
                Some(3053),
                "{number}"
            );
        }
        let off: [fn(&mut Config); 8] = [
            |config| config.previews.domain.clear(),
            |config| config.dns.port = 0,
            |config| config.caddy.guest_port = 0,
            |config| config.network.allow_dns = false,
            |config| open(config, "udp/53"),
            |config| open(config, "tcp/443"),
            |config| {
                config.caddy.port = 8443;
                open(config, "tcp/443");
            },
            |config| {
                config.caddy.tls = "none".to_owned();
                config.previews.scheme = "https".to_owned();
            },
        ];
        for (number, change) in off.into_iter().enumerate() {
            assert_eq!(with(change), None, "{number}");
        }
    }
}
