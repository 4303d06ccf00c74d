//! Configurations and their errors.

use super::*;

fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).expect("written");
    innkeeper_service::load(Some(&file), |name| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| (*v).to_owned())
    })
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    let error = load_text(text, variables)
        .expect_err("rejected")
        .to_string();
    // The file's name differs from run to run.
    let start = error.find("config.toml").unwrap_or(0);
    error[start..].to_owned()
}

#[test]
fn an_empty_file_has_the_defaults() {
    let loaded = load_text("", &[]).expect("valid");
    insta::assert_snapshot!(loaded);
}

#[test]
fn the_environment_overrides_the_file() {
    let loaded = load_text(
        "[network]\nsubnet = '10.1.0.0/16'\n[guest]\nmemory = '2G'",
        &[
            ("INNKEEPER_NETWORK_SUBNET", "10.2.0.0/16"),
            ("INNKEEPER_GUEST_TASKS", "7"),
            ("INNKEEPER_SOCKET", "x"),
        ],
    )
    .expect("valid");
    assert_eq!(
        loaded.config.network.subnet.subnet().to_string(),
        "10.2.0.0/16"
    );
    assert_eq!(loaded.config.guest.tasks, 7);
    let origin = |name: &str| {
        loaded
            .report
            .settings
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.origin.clone())
    };
    assert_eq!(
        origin("network.subnet").as_deref(),
        Some("INNKEEPER_NETWORK_SUBNET")
    );
    assert_eq!(origin("guest.memory").as_deref(), Some("file"));
    assert_eq!(origin("guest.cpus").as_deref(), Some("default"));
}

#[test]
fn errors_name_the_setting() {
    insta::assert_snapshot!(error("[guest]\nmemroy = '2G'", &[]));
    insta::assert_snapshot!(error("[guest]\nmemory = 'much'", &[]));
    insta::assert_snapshot!(error("", &[("INNKEEPER_NETWORK_SUBNET", "10.0.0.1/8")]));
    insta::assert_snapshot!(error("state_dir = 'var'", &[]));
    insta::assert_snapshot!(error("[nix]\nflake = '--impure'", &[]));
}

#[test]
fn the_webhooks_section_is_reported() {
    let text =
        "runtime_dir = '/run/x'\n[webhook]\nlisten = '127.0.0.1:1'\nallowed_repos = ['octo/web']";
    let loaded = load_text(text, &[("INNKEEPER_WEBHOOK_GROUP", "www")]).expect("valid");
    assert_eq!(
        loaded.config.intake_socket(),
        Path::new("/run/x/intake.sock")
    );
    let shown = loaded.report.settings.iter();
    let shown = shown.filter(|s| s.name.starts_with("webhook.") && s.origin != "default");
    let lines: Vec<_> = shown
        .map(|s| format!("{} = {} # {}", s.name, s.value, s.origin))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    webhook.group = "www" # INNKEEPER_WEBHOOK_GROUP
    webhook.listen = "127.0.0.1:1" # file
    webhook.allowed_repos = ["octo/web"] # file
    "#);
    let rejected = |text: &str, expected: &str| {
        let error = error(text, &[]);
        assert!(error.contains(expected), "{error}");
    };
    rejected("[webhook]\ngroups = 'www'", "unknown field `groups`");
    rejected("[webhook]\nlisten = '3100'", "<address>:<port>");
    rejected("[webhook]\nintake = 'intake.sock'", "must start with '/'");
    rejected(
        "[webhook]\nintake = '/run/innkeeper/api.sock'",
        "another socket",
    );
}

#[test]
fn paths_of_configurations_are_texts_or_lists() {
    let text = "[previews.repositories.'octo/web']\nconfig_path = './deploy/preview.nix'";
    let loaded = load_text(text, &[]).expect("valid");
    let of_web = loaded.config.previews.repositories.values().next();
    let paths = of_web.and_then(|settings| settings.config_path.as_ref());
    let paths: Vec<_> = paths
        .expect("set")
        .paths()
        .iter()
        .map(innkeeper_model::preview::sources::SourcePath::as_str)
        .collect();
    assert_eq!(paths, ["deploy/preview.nix"]);
    for (value, expected) in [
        ("'/etc/x.nix'", "a component is empty"),
        ("'../x.nix'", "a component is '.' or '..'"),
        ("'x'", "is not the path of a Nix file"),
        ("[]", "write 1 to"),
        ("['a.nix', './a.nix']", "is listed twice"),
        ("7", "expected a path in the repository, or a list of paths"),
    ] {
        let error = error(&format!("[previews]\nconfig_path = {value}"), &[]);
        assert!(error.contains(expected), "{value}: {error}");
    }
    let error = error("[previews]\nfile_types = ['a/b']", &[]);
    assert!(
        error.contains("previews.file_types: 'a/b' is not a valid file type"),
        "{error}"
    );
}

#[test]
fn settings_are_documented_with_their_defaults() {
    let page = include_str!("../../../../docs/configuration.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
    let documented: Vec<(&str, &str)> = rows
        .map(|(name, rest)| (name, rest.split("` |").next().unwrap_or(rest)))
        .collect();
    let loaded = load_text("", &[]).expect("valid");
    for setting in &loaded.report.settings {
        let row = (setting.name.as_str(), setting.value.as_str());
        assert!(
            documented.contains(&row),
            "docs/configuration.md lacks the row | `{}` | `{}` |",
            row.0,
            row.1
        );
    }
    assert_eq!(
        documented.len(),
        loaded.report.settings.len(),
        "a row names no setting"
    );
}

#[test]
fn invalid_values_are_rejected_with_a_suggestion() {
    for (text, expected) in [
        (
            "[previews]\ndomain = 'https://preview.example.com'",
            "previews.domain: 'https://preview.example.com' is a URL instead of a domain; write preview.example.com",
        ),
        ("[previews]\ndomain = '*.example.com'", "is a wildcard"),
        (
            "[previews]\ndomain = 'example.com.'",
            "ends with a dot; write example.com",
        ),
        (
            "[previews]\ndomain = 'bücher.example'",
            "write xn--bcher-kva.example",
        ),
        (
            "[previews]\napproval_label = ''",
            "previews.approval_label: must be",
        ),
        (
            "[previews]\nrequest_label = ' preview'",
            "previews.request_label: must be",
        ),
        (
            "[previews]\nrequest_label = 'Preview-Approved'",
            "previews.request_label: must differ",
        ),
        (
            "[previews]\ndrafts = 'maybe'",
            "expected one of `on`, `off`, `until-ready`",
        ),
        (
            "[previews]\nsecrets_dir = 'secrets'",
            "previews.secrets_dir: the path 'secrets' must start with '/'",
        ),
        (
            "[webhook]\nenvironment_files = ['/a', 'b']",
            "webhook.environment_files: the path 'b'",
        ),
        (
            "[github]\napi_url = 'api.github.com'",
            "github.api_url: 'api.github.com' is not a URL",
        ),
        ("[github]\nclone_url = ''", "github.clone_url"),
        ("[github]\nwebhook_url = 'https:///x'", "github.webhook_url"),
        (
            "[caddy]\nadmin = 'localhost'",
            "caddy.admin: write the path",
        ),
        ("[caddy]\ntls = ''", "caddy.tls"),
        ("[previews]\nscheme = 'ftp'", "previews.scheme"),
        ("[previews]\nscheme = 'http'", "previews.scheme"),
        ("[previews]\nrobots = 'a\"b'", "previews.robots"),
        (
            "[caddy]\ntls = 'files'",
            "caddy.certificate and caddy.key must be set",
        ),
        (
            "[caddy]\nlookup = '0.0.0.0:3180'",
            "caddy.lookup: must be a loopback address",
        ),
        (
            "[network]\nnameservers = ['9.9.9.9', '127.0.0.53']",
            "guests cannot reach 127.0.0.53",
        ),
        ("[network]\ntable = 'a b'", "network.table"),
    ] {
        let error = error(text, &[]);
        assert!(error.contains(expected), "{error}");
    }
    let good = "[previews]\ndomain = 'xn--bcher-kva.example'\n[caddy]\nadmin = '127.0.0.1:2019'\n\
                [github]\nwebhook_url = 'https://hook.example/x'\n[database]\nsocket_dir = ''";
    load_text(good, &[]).expect("valid");
}

#[test]
fn variables_that_override_no_setting_are_rejected() {
    let check = |name: &str| innkeeper_service::check_variables::<Config>([name.to_owned()]);
    for good in [
        "PATH",
        "INNKEEPER_NIX_OPTIONS",
        "INNKEEPER_WEBHOOK_ALLOWED_REPOS",
        "INNKEEPER_STATE_DIR",
    ] {
        assert!(check(good).is_ok(), "{good}");
    }
    let error = check("INNKEEPER_PREVIEW_DOMAIN").expect_err("rejected");
    assert!(
        error
            .to_string()
            .ends_with("did you mean INNKEEPER_PREVIEWS_DOMAIN?"),
        "{error}"
    );
}

#[test]
fn storage_that_lvm_would_reject_is_rejected() {
    let rejected = |text: &str, expected: &str| {
        let error = error(&format!("[storage]\n{text}"), &[]);
        assert!(error.contains(expected), "{error}");
    };
    rejected("driver = 'lvm'", "`lvm-thin`");
    for name in ["", "-f", ".", "a/b", "a b"] {
        rejected(&format!("pool = '{name}'"), "storage.pool");
        rejected(&format!("volume_group = '{name}'"), "storage.volume_group");
    }
    rejected("size = '32M'", "at least 64M");
    rejected("size = '65M'", "a multiple of 4M");
    rejected("pool_limit_percent = 0", "between 1 and 100");
    rejected("pool_limit_percent = 101", "between 1 and 100");
    let loaded = load_text("[storage]\ndriver = 'lvm-thin'\nsize = '64M'", &[]);
    assert_eq!(
        loaded.expect("valid").config.storage.driver,
        StorageDriver::LvmThin
    );
}

#[test]
fn warm_guests_have_a_flake_or_a_closure() {
    let closure = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-agent";
    let text = format!(
        "[nix]\nflake = '/fleet#x'\n[pool]\nwarm = [{{ size = 1 }}, {{ closure = '{closure}', size = 2 }}, {{ flake = 'github:a/b#c', size = 3 }}]"
    );
    let config = load_text(&text, &[]).expect("valid").config;
    let warm = config.pool.warm(&config.nix.flake, &config.nix.attribute);
    let sources = warm.expect("valid").guests.into_iter().map(|guests| {
        let source = serde_json::to_string(&guests.source).expect("JSON");
        (source, guests.size)
    });
    let expected = [
        (r#"{"flake":"/fleet#x"}"#.to_owned(), 1),
        (format!(r#"{{"path":"{closure}"}}"#), 2),
        (r#"{"flake":"github:a/b#c"}"#.to_owned(), 3),
    ];
    assert_eq!(sources.collect::<Vec<_>>(), expected);
    let refused = |warm: &str, part: &str| {
        let error = error(&format!("[pool]\nwarm = [{warm}]"), &[]);
        assert!(
            error.contains("pool.warm") && error.contains(part),
            "{error}"
        );
    };
    refused("{ size = 1 }", "nix.flake");
    refused(
        &format!("{{ closure = '{closure}', flake = '/fleet', size = 1 }}"),
        "not both",
    );
    refused("{ flake = '/fleet', size = 101 }", "at most 100");
    let busy = error("[pool]\nbusy_percent = 101", &[]);
    assert!(busy.contains("pool.busy_percent"), "{busy}");
}
