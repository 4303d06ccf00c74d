use axum::Router;
use innkeeper_model::api::{ConfigReport, Setting};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

fn report(file: Option<&str>) -> ConfigReport {
    let setting = |name: &str, value: &str, origin: &str| Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        origin: origin.to_owned(),
    };
    ConfigReport {
        file: file.map(str::to_owned),
        settings: vec![
            setting("network.subnet", "\"10.100.0.0/16\"", "default"),
            setting("limits.tasks", "4096", "INNKEEPER_LIMITS_TASKS"),
        ],
    }
}

fn fake(report: &ConfigReport) -> Fake {
    Fake::new(Router::new().route("/v1/config", respond(report)))
}

#[test]
fn settings_have_origins() {
    let report = report(Some("/etc/innkeeper/config.toml"));
    assert_snapshot!(fake(&report).innkeeper(&["config"]).ok(), @r#"
    File: /etc/innkeeper/config.toml

    SETTING         VALUE            ORIGIN
    network.subnet  "10.100.0.0/16"  default
    limits.tasks    4096             INNKEEPER_LIMITS_TASKS
    "#);
}

#[test]
fn missing_file_has_a_note() {
    let stdout = fake(&report(None)).innkeeper(&["config"]).ok();
    assert!(stdout.starts_with("File: (no file)\n"), "{stdout}");
}

#[test]
fn json_has_the_report() {
    let stdout = fake(&report(None)).innkeeper(&["config", "--json"]).ok();
    assert_eq!(
        serde_json::from_str::<ConfigReport>(&stdout).expect("one value"),
        report(None)
    );
}
