//! Checks of settings beyond their types. They are independent of the machine, so that `--check-config` has the same result
//! everywhere. The daemon compares the subnet with the host's networks when it starts.

use std::path::Path;

use innkeeper_model::preview::check_domain;
use innkeeper_model::preview::sources::FileTypes;
use innkeeper_service::ConfigError;

use super::Config;

/// Checks the whole configuration.
///
/// # Errors
/// [`ConfigError::Value`] for the first invalid setting.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    domain("previews.domain", &config.previews.domain)?;
    paths(config)?;
    urls(config)?;
    config.caddy.admin()?;
    let tls = config.caddy.tls()?;
    config.previews.scheme(&tls)?;
    config.previews.robots()?;
    if !config.caddy.lookup.ip().is_loopback() {
        return invalid(
            "caddy.lookup",
            "must be a loopback address, such as 127.0.0.1:3180: it answers every client",
        );
    }
    labels(config)?;
    visibilities(config)?;
    if let Err(error) = FileTypes::with(&config.previews.file_types) {
        return invalid("previews.file_types", &error.to_string());
    }
    let unreachable =
        |address: &std::net::IpAddr| address.is_loopback() || address.is_unspecified();
    if let Some(address) = config.network.nameservers.iter().copied().find(unreachable) {
        return invalid(
            "network.nameservers",
            &format!("guests cannot reach {address}: in a guest it is the guest itself"),
        );
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let table = config.network.table.as_bytes();
    if !table.first().is_some_and(u8::is_ascii_alphabetic) || !table.iter().copied().all(valid) {
        return invalid(
            "network.table",
            "the name of an nftables table begins with a letter, and has letters, digits, '_' and '-' only",
        );
    }
    Ok(())
}

/// Requires the gateway where visitors are to be checked: previews would be closed without it.
fn visibilities(config: &Config) -> Result<(), ConfigError> {
    if config.gateway.enabled {
        return Ok(());
    }
    let needs = |visibility| {
        format!(
            "\"{visibility}\" needs the gateway, which checks visitors: set gateway.enabled = true"
        )
    };
    let default = config.previews.visibility;
    if default.is_checked() {
        return invalid("previews.visibility", &needs(default));
    }
    for (repo, settings) in &config.previews.repositories {
        if let Some(visibility) = settings.visibility.filter(|one| one.is_checked()) {
            let problem = format!("{repo}: visibility = {}", needs(visibility));
            return invalid("previews.repositories", &problem);
        }
    }
    Ok(())
}

/// Checks the labels of pull requests. A label that requests a preview must not approve commits of forks.
fn labels(config: &Config) -> Result<(), ConfigError> {
    let (approval, request) = (
        &config.previews.approval_label,
        &config.previews.request_label,
    );
    for (setting, label) in [
        ("previews.approval_label", approval),
        ("previews.request_label", request),
    ] {
        if label.is_empty() || label.trim() != label {
            return invalid(
                setting,
                "must be a label of GitHub, without spaces around it",
            );
        }
    }
    if approval.to_lowercase() == request.to_lowercase() {
        return invalid(
            "previews.request_label",
            "must differ from previews.approval_label: a request must not approve a commit",
        );
    }
    Ok(())
}

/// Checks the domain of previews, which may be empty.
///
/// # Errors
/// When it is not a plain domain.
pub(crate) fn domain(setting: &'static str, domain: &str) -> Result<(), ConfigError> {
    if domain.is_empty() {
        return Ok(());
    }
    check_domain(domain).map_err(|error| ConfigError::value(setting, &error))
}

/// Requires absolute paths: others would depend on the daemon's working directory.
fn paths(config: &Config) -> Result<(), ConfigError> {
    let optional = |text: &'static str, path| (text, Path::new(path), true);
    let required = |text: &'static str, path| (text, path, false);
    let lists = [
        ("ssh.admin_key_files", &config.ssh.admin_key_files),
        ("legacy.directories", &config.legacy.directories),
        ("webhook.secret_files", &config.webhook.secret_files),
        (
            "webhook.environment_files",
            &config.webhook.environment_files,
        ),
    ];
    let lists = lists.into_iter().flat_map(|(setting, paths)| {
        paths
            .iter()
            .map(move |path| (setting, path.as_path(), false))
    });
    let single = [
        required(
            "previews.secrets_dir",
            config.previews.secrets_dir.as_path(),
        ),
        required("caddy.directory", &config.caddy.directory),
        required("caddy.caddyfile", &config.caddy.caddyfile),
        required("caddy.table", &config.caddy.table),
        required("evaluation.gcroots_dir", &config.evaluation.gcroots_dir),
        optional("caddy.certificate", &config.caddy.certificate),
        optional("caddy.key", &config.caddy.key),
        optional(
            "github.extra_certificates",
            &config.github.extra_certificates,
        ),
        optional("database.socket_dir", &config.database.socket_dir),
        optional("credentials.directory", &config.credentials.directory),
        optional("evaluation.nixpkgs", &config.evaluation.nixpkgs),
        optional("evaluation.base_module", &config.evaluation.base_module),
    ];
    for (setting, path, may_be_empty) in single.into_iter().chain(lists) {
        let is_unset = may_be_empty && path.as_os_str().is_empty();
        if !is_unset && !path.is_absolute() {
            return invalid(
                setting,
                &format!("the path '{}' must start with '/'", path.display()),
            );
        }
    }
    Ok(())
}

fn urls(config: &Config) -> Result<(), ConfigError> {
    let github = &config.github;
    for (setting, url, may_be_empty) in [
        ("github.api_url", &github.api_url, false),
        ("github.clone_url", &github.clone_url, false),
        ("github.webhook_url", &github.webhook_url, true),
    ] {
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme));
        let is_url = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
            && !url.contains(char::is_whitespace);
        let is_unset = may_be_empty && url.is_empty();
        if !is_url && !is_unset {
            return invalid(
                setting,
                &format!("'{url}' is not a URL; write it like https://host.example"),
            );
        }
    }
    Ok(())
}

fn invalid(setting: &'static str, problem: &str) -> Result<(), ConfigError> {
    Err(ConfigError::value(setting, problem))
}
