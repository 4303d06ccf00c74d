//! Nix's settings for preview builds: an allowlist.
//!
//! Only the host's settings in [`KEPT`] apply. All others get Nix's default, including settings that are newer than this
//! list, or the value in [`FIXED`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::BuildLimits;

/// One setting, as `nix show-config --json` prints it.
#[derive(Debug, Deserialize)]
pub(super) struct Setting {
    pub(super) value: Value,
    #[serde(rename = "defaultValue", default)]
    default: Value,
}

/// Reports whether Nix builds without a daemon or another machine. For root, "auto" does if the store is writable.
pub(super) fn builds_by_itself(settings: &Settings) -> bool {
    let store = settings.get("store").and_then(|store| store.value.as_str());
    let store = store.unwrap_or("auto");
    store == "auto" || store.starts_with("local") || store.starts_with('/')
}

/// Settings of the host's Nix, by name.
pub(super) type Settings = BTreeMap<String, Setting>;

/// The host's settings that apply: substituters and their keys, build users, and resources. They must not give a build
/// access to the host.
const KEPT: [&str; 43] = [
    "auto-allocate-uids",
    "auto-optimise-store",
    "build-dir",
    "build-poll-interval",
    "build-users-group",
    "compress-build-log",
    "connect-timeout",
    "cores",
    "download-attempts",
    "download-buffer-size",
    "download-speed",
    "extra-platforms",
    "fsync-metadata",
    "fsync-store-paths",
    "gc-reserved-space",
    "http-connections",
    "http2",
    "id-count",
    "keep-build-log",
    "keep-derivations",
    "keep-outputs",
    "log-lines",
    "max-free",
    "max-jobs",
    "max-substitution-jobs",
    "min-free",
    "min-free-check-interval",
    "narinfo-cache-negative-ttl",
    "narinfo-cache-positive-ttl",
    "preallocate-contents",
    "sandbox-build-dir",
    "sandbox-dev-shm-size",
    "ssl-cert-file",
    "stalled-download-timeout",
    "start-id",
    "store",
    "substitute",
    "substituters",
    "system",
    "system-features",
    "trusted-public-keys",
    "trusted-substituters",
    "use-cgroups",
];

/// Mandatory values for preview builds. Passed even if they equal the client's settings, because a running Nix daemon may
/// have read others.
const FIXED: [(&str, &str); 16] = [
    ("access-tokens", ""),
    ("allow-new-privileges", "false"),
    // Remote builders may lack a sandbox.
    ("builders", ""),
    ("diff-hook", ""),
    ("filter-syscalls", "true"),
    ("impure-env", ""),
    ("keep-failed", "false"),
    ("netrc-file", "/dev/null"),
    ("plugin-files", ""),
    ("post-build-hook", ""),
    ("pre-build-hook", ""),
    ("require-sigs", "true"),
    ("run-diff-hook", "false"),
    ("sandbox", "true"),
    ("sandbox-fallback", "false"),
    ("secret-key-files", ""),
];

/// The setting that names the build users' group.
pub(super) const GROUP: &str = "build-users-group";

/// The setting, and the experimental feature of the same name, that allocates UIDs from a range instead.
pub(super) const ALLOCATE: &str = "auto-allocate-uids";

/// Nix's limits of a builder's output and of its time without output. Nix kills a builder that exceeds them.
const LOG_SIZE: &str = "max-build-log-size";
const SILENCE: &str = "max-silent-time";

/// Settings that select the build users. Like [`FIXED`], passed even if they equal the host's: the values that were checked
/// must be the ones that apply.
const USERS: [&str; 2] = [GROUP, ALLOCATE];

/// Experimental features that [`KEPT`] settings need.
const FEATURES: [&str; 2] = [ALLOCATE, "cgroups"];

/// Returns the options to pass to Nix. `host` are its settings, including the `configured` options.
pub(super) fn for_previews(
    host: &Settings,
    configured: &BTreeMap<String, String>,
    limits: &BuildLimits,
) -> BTreeMap<String, String> {
    let mut options: BTreeMap<_, _> = configured
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, setting) in host {
        let kept = KEPT.contains(&name.as_str());
        if !kept && setting.value != setting.default {
            options.insert(name.clone(), text(&setting.default));
        }
    }
    for (name, value) in FIXED {
        if host.contains_key(name) {
            options.insert(name.to_owned(), value.to_owned());
        }
    }
    for name in USERS {
        if let Some(setting) = host.get(name) {
            options.insert(name.to_owned(), text(&setting.value));
        }
    }
    for (name, limit) in [
        (LOG_SIZE, limits.log.bytes()),
        (SILENCE, limits.silent.as_secs()),
    ] {
        if let Some(setting) = host.get(name) {
            // A lower limit of the host wins. For Nix, 0 is no limit.
            let host_limit = setting.value.as_u64().filter(|value| *value > 0);
            let limit = host_limit.map_or(limit, |own| own.min(limit)).max(1);
            options.insert(name.to_owned(), limit.to_string());
        }
    }
    // Subsets of the host's values.
    let subset = |name: &str, keep: &dyn Fn(&str) -> bool| {
        let all = host
            .get(name)
            .map_or(&[][..], |setting| words(&setting.value));
        let all = all.iter().filter_map(Value::as_str);
        all.filter(|word| keep(word)).collect::<Vec<_>>().join(" ")
    };
    let shell = |path: &str| path.split('=').next() == Some("/bin/sh");
    for (name, value) in [
        ("sandbox-paths", subset("sandbox-paths", &shell)),
        // recursive-nix would give builds access to the store's socket.
        (
            "system-features",
            subset("system-features", &|word| word != "recursive-nix"),
        ),
        (
            "experimental-features",
            subset("experimental-features", &|word| FEATURES.contains(&word)),
        ),
    ] {
        if host.contains_key(name) {
            options.insert(name.to_owned(), value);
        }
    }
    options
}

pub(super) fn words(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Formats a value as in Nix's configuration file.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| format!("{name}={}", text(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn build_options_keep_only_listed_host_settings() {
        let setting =
            |value: Value, default: Value| json!({"value": value, "defaultValue": default});
        let host = json!({
            "access-tokens": setting(json!({"github.com": "secret"}), json!({})),
            "auto-allocate-uids": setting(json!(false), json!(false)),
            "build-users-group": setting(json!("nixbld"), json!("nixbld")),
            "cores": setting(json!(4), json!(0)),
            "experimental-features": setting(json!(["cgroups", "recursive-nix"]), json!([])),
            "max-build-log-size": setting(json!(0), json!(0)),
            "max-silent-time": setting(json!(60), json!(0)),
            "netrc-file": setting(json!("/etc/nix/netrc"), json!("/etc/nix/netrc")),
            "post-build-hook": setting(json!("/root/upload"), json!("")),
            "sandbox": setting(json!(false), json!(true)),
            "sandbox-paths": setting(json!(["/bin/sh=/nix/store/x/bin/sh", "/root/keys"]), json!([])),
            "secret-key-files": setting(json!(["/root/key"]), json!([])),
            "substituters": setting(json!(["https://cache"]), json!([])),
            "system-features": setting(json!(["kvm", "recursive-nix"]), json!([])),
            "a-setting-of-tomorrow": setting(json!(["/root/secret"]), json!(["a", "b"])),
            "another": setting(json!(true), json!(false)),
            "as-usual": setting(json!(1), json!(1)),
        });
        let host = serde_json::from_value(host).expect("settings");
        let configured = [
            ("netrc-file", "/root/netrc"),
            ("substituters", "https://cache"),
        ];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = for_previews(&host, &configured.into(), &BuildLimits::default());
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            options,
            [
                ("a-setting-of-tomorrow", "a b"),
                ("access-tokens", ""),
                ("another", "false"),
                ("auto-allocate-uids", "false"),
                ("build-users-group", "nixbld"),
                ("experimental-features", "cgroups"),
                ("max-build-log-size", "16777216"),
                ("max-silent-time", "60"),
                ("netrc-file", "/dev/null"),
                ("post-build-hook", ""),
                ("sandbox", "true"),
                ("sandbox-paths", "/bin/sh=/nix/store/x/bin/sh"),
                ("secret-key-files", ""),
                ("substituters", "https://cache"),
                ("system-features", "kvm"),
            ]
        );
    }

    #[test]
    fn build_log_limit_is_the_lower_one_of_host_and_innkeeper() {
        for (own, limit) in [(0, "16777216"), (65_536, "65536"), (u64::MAX, "16777216")] {
            let host = json!({LOG_SIZE: {"value": own, "defaultValue": 0}});
            let host = serde_json::from_value(host).expect("settings");
            let configured = [(LOG_SIZE.to_owned(), own.to_string())];
            let options = for_previews(&host, &configured.into(), &BuildLimits::default());
            assert_eq!(options[LOG_SIZE], limit);
        }
    }
}
