use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use innkeeper_model::Code;
use insta::assert_snapshot;
use tempfile::TempDir;

use crate::fake::{Run, command, run};

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

fn init(directory: &TempDir, options: &[&str]) -> Run {
    let mut arguments = vec!["init", directory.path().to_str().expect("text")];
    // No daemon: a socket that does not exist.
    arguments.extend(["--socket", "/nonexistent/api.sock"]);
    arguments.extend(options);
    run(command("preview", &arguments))
}

/// Returns the files of the guide by name.
fn guide() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/previews.md");
    let page = fs::read_to_string(page).expect("the guide");
    (page.split("<!-- file: ").skip(1))
        .map(|part| {
            let (name, rest) = part.split_once(" -->\n```nix\n").expect("a block of Nix");
            let (text, _) = rest.split_once("```\n").expect("the end of the block");
            (name.to_owned(), text.to_owned())
        })
        .collect()
}

const RAILS: &str = "gem \"rails\"\ngem \"pg\"\ngem \"delayed_job_active_record\"\n";
const DOCKERFILE: &str = "FROM scratch\nEXPOSE 8080/tcp\nENTRYPOINT [\"/usr/local/bin/server\"]\n";
const NODE: &str = r#"{ "scripts": { "start": "node server.js", "build": "true" } }"#;

#[test]
fn files_are_those_of_the_guide() {
    let guide = guide();
    for (stack, files) in [
        ("static", vec![("public/index.html", "x")]),
        (
            "node",
            vec![("package.json", NODE), ("package-lock.json", "{}")],
        ),
        (
            "python",
            vec![
                ("manage.py", "x"),
                ("requirements.txt", "Django\npsycopg[binary]\n"),
                ("mysite/wsgi.py", "x"),
            ],
        ),
        (
            "ruby",
            vec![
                ("Gemfile", RAILS),
                ("db/seeds.rb", "x"),
                ("config/routes.rb", "get \"up\" => \"rails/health#show\"\n"),
                ("package.json", "{}"),
            ],
        ),
        (
            "phoenix",
            vec![(
                "mix.exs",
                "{:phoenix, \"~> 1.7\"},\n{:postgrex, \">= 0.0.0\"}\n\"assets.deploy\": []\n",
            )],
        ),
        ("go", vec![("go.mod", "module x\n"), ("main.go", "x")]),
        (
            "rust",
            vec![
                (
                    "Cargo.toml",
                    "[package]\nname = \"server\"\nversion = \"1.0.0\"\n",
                ),
                ("Cargo.lock", "x"),
            ],
        ),
        ("php", vec![("composer.json", "{}"), ("artisan", "x")]),
        (
            "image",
            vec![
                ("Dockerfile", DOCKERFILE),
                (
                    ".git/config",
                    "[remote \"origin\"]\n\turl = git@github.com:Octo/web.git\n",
                ),
            ],
        ),
    ] {
        let directory = repository(&files);
        let shown = init(&directory, &["--stdout"]);
        assert_eq!(shown.status, 0, "{stack}: {}", shown.transcript());
        assert_eq!(shown.stdout, guide[stack], "{stack}");
        assert!(!directory.path().join("preview-config.nix").exists());
    }
}

#[test]
fn file_is_written_once() {
    let directory = repository(&[("package.json", NODE), ("Dockerfile", DOCKERFILE)]);
    let file = directory.path().join("preview-config.nix");
    let shown = |run: Run| {
        run.transcript()
            .replace(directory.path().to_str().expect("text"), "REPOSITORY")
    };
    assert_snapshot!(shown(init(&directory, &[])));
    fs::write(&file, "mine").expect("write");
    assert_snapshot!(shown(init(&directory, &[])));
    assert_eq!(fs::read_to_string(&file).expect("file"), "mine");
    let replaced = init(&directory, &["--force", "--stack", "image", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&replaced.stdout).expect("JSON");
    assert_eq!(value["stack"], "image");
    assert_eq!(value["text"], fs::read_to_string(&file).expect("file"));
    assert!(
        value["notes"][0]
            .as_str()
            .expect("a note")
            .contains("Your CI")
    );
}

#[test]
fn file_never_replaces_the_target_of_a_link() {
    let directory = repository(&[("go.mod", "x"), ("other", "kept")]);
    let file = directory.path().join("preview-config.nix");
    std::os::unix::fs::symlink("other", &file).expect("a link");
    assert_ne!(init(&directory, &[]).status, 0);
    assert_eq!(init(&directory, &["--force"]).status, 0);
    assert!(!file.is_symlink());
    assert_eq!(
        fs::read_to_string(directory.path().join("other")).expect("file"),
        "kept"
    );
}

#[test]
fn unknown_repository_is_refused() {
    let run = init(&repository(&[("README.md", "x")]), &["--json"]);
    assert_eq!(run.failure().code, Code::InvalidRequest);
    let remedy = run.failure().remedy.expect("a remedy");
    assert!(remedy.contains("--stack node"), "{remedy}");
}

#[test]
fn names_that_a_shell_would_interpret_are_not_written() {
    for files in [
        vec![("package.json", r#"{ "main": "x; reboot" }"#)],
        vec![("Cargo.toml", "[package]\nname = \"$(reboot)\"\n")],
        vec![("manage.py", ""), ("$(reboot)/wsgi.py", "")],
        vec![(
            "Dockerfile",
            "ENTRYPOINT [\"/bin/sh\", \"-c\", \"reboot; x\"]\n",
        )],
        vec![("go.mod", ""), ("cmd/$(reboot)/main.go", "")],
    ] {
        let shown = init(&repository(&files), &["--stdout"]);
        assert_eq!(shown.status, 0);
        assert!(!shown.stdout.contains("reboot"), "{}", shown.stdout);
    }
}
