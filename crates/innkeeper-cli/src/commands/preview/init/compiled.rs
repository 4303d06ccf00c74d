//! Apps in Go and Rust.

use super::app::App;
use super::repository::{Repository, is_plain};

pub(super) fn go(repository: &Repository) -> App {
    let mut notes = Vec::new();
    let commands = repository.directories_in("cmd");
    let package = if repository.has("main.go") || commands.is_empty() {
        ".".to_owned()
    } else {
        if commands.len() > 1 {
            notes.push(format!(
                "cmd/ has several programs: {}. The file builds the first one.",
                commands.join(", ")
            ));
        }
        format!("./cmd/{}", commands[0])
    };
    App {
        packages: vec!["go"],
        environment: vec![("CGO_ENABLED", "0")],
        setup: vec![format!("go build -o ~/server {package}")],
        run: vec!["exec ~/server".to_owned()],
        port: 8080,
        has_database: ["lib/pq", "jackc/pgx"]
            .iter()
            .any(|name| repository.text("go.mod").contains(name)),
        notes,
        ..App::default()
    }
}

pub(super) fn rust(repository: &Repository) -> App {
    let manifest = repository.text("Cargo.toml");
    let mut notes = Vec::new();
    let name = package_name(&manifest).unwrap_or_else(|| {
        notes.push(
            "Cargo.toml names no package. Replace `server` by the name of your program.".to_owned(),
        );
        "server".to_owned()
    });
    let locked = if repository.has("Cargo.lock") {
        " --locked"
    } else {
        ""
    };
    App {
        packages: vec!["cargo", "rustc", "gcc"],
        setup: vec![format!("cargo build --release{locked}")],
        run: vec![format!("exec target/release/{name}")],
        port: 8080,
        has_database: ["sqlx", "tokio-postgres", "diesel"]
            .iter()
            .any(|name| manifest.contains(name)),
        notes,
        ..App::default()
    }
}

/// Returns the package's name: the key `name` of the table `[package]`.
fn package_name(manifest: &str) -> Option<String> {
    let (_, package) = manifest.split_once("[package]")?;
    let name = (package.lines().skip(1))
        .take_while(|line| !line.trim_start().starts_with('['))
        .find_map(|line| {
            line.trim()
                .strip_prefix("name")?
                .trim_start()
                .strip_prefix('=')
        })?;
    let name = name.trim().trim_matches('"');
    is_plain(name).then(|| name.to_owned())
}
