use std::fs;

use axum::routing::post;
use axum::{Json, Router};
use innkeeper_model::Code;
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::check::{CheckSettings, CheckedConfig, CheckedProblem};
use innkeeper_model::preview::sources::SourcePath;
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::fake::{Fake, Run};

/// Creates a repository with these files.
fn repository(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn daemon(checked: &CheckedConfig) -> Fake {
    let settings = CheckSettings {
        file_types: vec!["*.tmpl".to_owned()],
    };
    let checked = checked.clone();
    let check = post(async move || Json(checked)).get(async move || Json(settings));
    Fake::new(Router::new().route("/v1/preview-checks", check))
}

fn valid() -> CheckedConfig {
    let meta = r#"{"setupService":"preview-setup","appServices":["preview-app"],"database":"host",
                   "routes":[{"path":"/","port":3000}]}"#;
    CheckedConfig {
        problems: Vec::new(),
        preview: Some(Meta::parse(meta).expect("valid")),
    }
}

fn check(fake: &Fake, directory: &TempDir, path: &str, options: &[&str]) -> Run {
    let path = directory.path().join(path);
    let mut arguments = vec!["check", path.to_str().expect("text")];
    arguments.extend(options);
    fake.preview(&arguments)
}

#[test]
fn files_that_are_referred_to_are_sent() {
    let directory = repository(&[
        (
            "preview-config.nix",
            "{ imports = [ ./nix ../outside.nix ]; x = ./data/a.json; }",
        ),
        ("nix/default.nix", "{ }"),
        ("nix/logo.png", "x"),
        ("nix/site.tmpl", "x"),
        ("nix/node_modules/x.nix", "x"),
        ("data/a.json", "1"),
        ("data/b.json", "2"),
        ("src/main.js", "x"),
    ]);
    std::os::unix::fs::symlink("../data/b.json", directory.path().join("nix/b.json"))
        .expect("a link");
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("nix/c.json")).expect("a link");
    let fake = daemon(&valid());
    assert_snapshot!(check(&fake, &directory, "", &[]).transcript());
    let request = fake.requests().remove(1);
    let body = request
        .strip_prefix("POST /v1/preview-checks ")
        .expect("a request");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let names = |field: &str| -> Vec<String> {
        let fields = body[field].as_object().expect("an object");
        fields.keys().cloned().collect()
    };
    assert_eq!(body["main"], "preview-config.nix");
    assert_eq!(
        names("files"),
        [
            "data/a.json",
            "data/b.json",
            "nix/default.nix",
            "nix/site.tmpl",
            "preview-config.nix"
        ]
    );
    assert_eq!(names("links"), ["nix/b.json"]);
    assert_eq!(
        body["omitted"],
        serde_json::json!(["nix/c.json", "nix/logo.png"])
    );
}

#[test]
fn problems_are_listed_with_their_places() {
    let problem = |line, message: &str, remedy: Option<&str>| CheckedProblem {
        text: format!("preview-config.nix:{line}:5: {message}"),
        file: Some(SourcePath::parse("preview-config.nix").expect("valid")),
        line: Some(line),
        column: Some(5),
        field: None,
        message: message.to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let checked = CheckedConfig {
        problems: vec![
            problem(3, "0 is not a port", Some("write a port")),
            problem(4, "unexpected \u{1b}[31m", None),
        ],
        preview: None,
    };
    let fake = daemon(&checked);
    let directory = repository(&[("preview-config.nix", "{ }")]);
    assert_snapshot!(check(&fake, &directory, "preview-config.nix", &[]).transcript());
    let run = check(&fake, &directory, "", &["--json"]);
    assert_eq!(run.status, 6);
    let printed: CheckedConfig = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(printed, checked);
}

#[test]
fn file_in_a_folder_belongs_to_the_repository() {
    let directory = repository(&[
        (
            "apps/web/preview-config.nix",
            "{ imports = [ ../../nix/a.nix ]; }",
        ),
        ("nix/a.nix", "{ }"),
    ]);
    let fake = daemon(&valid());
    let root = directory.path().to_str().expect("text").to_owned();
    let run = check(&fake, &directory, "apps/web", &["--repository", &root]);
    assert_eq!(run.status, 0, "{}", run.transcript());
    let request = fake.requests().remove(1);
    assert!(
        request.contains(r#""main":"apps/web/preview-config.nix""#),
        "{request}"
    );
    assert!(request.contains("nix/a.nix"), "{request}");
}

#[test]
fn missing_file_is_reported_without_a_request() {
    let fake = daemon(&valid());
    let directory = repository(&[("README.md", "x")]);
    let run = check(&fake, &directory, "", &["--json"]);
    assert_eq!(run.failure().code, Code::InvalidRequest);
    assert_eq!(fake.requests(), Vec::<String>::new());
}
