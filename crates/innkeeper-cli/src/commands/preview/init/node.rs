//! Apps of Node.js, and front ends that are built with it.

use serde_json::Value;

use super::app::App;
use super::repository::{Repository, is_plain};

/// Packages that connect to PostgreSQL.
const DATABASES: [&str; 8] = [
    "pg",
    "postgres",
    "@prisma/client",
    "sequelize",
    "typeorm",
    "knex",
    "drizzle-orm",
    "mikro-orm",
];

/// A package manager: the program, its package, and its commands.
struct Manager {
    program: &'static str,
    package: Option<&'static str>,
    install: &'static str,
    /// Runs the script `build` if package.json has one.
    build: &'static str,
}

pub(super) fn app(repository: &Repository) -> App {
    let manifest: Value =
        serde_json::from_str(&repository.text("package.json")).unwrap_or_default();
    let script = |name: &str| manifest["scripts"][name].is_string();
    let depends = |name: &str| {
        ["dependencies", "devDependencies"]
            .iter()
            .any(|kind| !manifest[kind][name].is_null())
    };
    let Manager {
        program,
        package,
        install,
        build,
    } = manager(repository);
    let mut app = App {
        packages: vec![runtime(repository, &manifest)],
        setup: vec![install.to_owned()],
        port: 3000,
        has_database: DATABASES.iter().any(|name| depends(name)),
        ..App::default()
    };
    app.packages.extend(package);
    if script("build") || program == "npm" {
        app.setup.push(build.to_owned());
    }
    if depends("@prisma/client") {
        app.setup.push("npx prisma migrate deploy".to_owned());
    }
    let main = manifest["main"].as_str().filter(|name| is_plain(name));
    let file = main.or_else(|| repository.first(&["server.js", "index.js", "app.js"]));
    app.run = vec![if script("start") {
        format!("exec {program} start")
    } else if let Some(file) = file {
        format!("exec node {file}")
    } else if script("preview") {
        // Vite's server of what it built.
        format!("exec {program} run preview -- --host 0.0.0.0 --port $PORT")
    } else {
        app.notes.push(
            "package.json has no script `start`. Write the command that serves the app as `run`."
                .to_owned(),
        );
        format!("exec {program} run dev")
    }];
    app
}

fn manager(repository: &Repository) -> Manager {
    let npm = Manager {
        program: "npm",
        package: None,
        install: "npm ci",
        build: "npm run build --if-present",
    };
    match repository.first(&[
        "pnpm-lock.yaml",
        "yarn.lock",
        "bun.lock",
        "bun.lockb",
        "package-lock.json",
    ]) {
        Some("pnpm-lock.yaml") => Manager {
            program: "pnpm",
            package: Some("pnpm"),
            install: "pnpm install --frozen-lockfile",
            build: "pnpm run build",
        },
        Some("yarn.lock") => Manager {
            program: "yarn",
            package: Some("yarn"),
            install: "yarn install --frozen-lockfile",
            build: "yarn run build",
        },
        Some("bun.lock" | "bun.lockb") => Manager {
            program: "bun",
            package: Some("bun"),
            install: "bun install --frozen-lockfile",
            build: "bun run build",
        },
        Some(_) => npm,
        None => Manager {
            install: "npm install",
            ..npm
        },
    }
}

/// Returns the package of the version that the repository names.
fn runtime(repository: &Repository, manifest: &Value) -> &'static str {
    let file = repository.text(".nvmrc") + &repository.text(".node-version");
    let wanted = match file.trim() {
        "" => manifest["engines"]["node"].as_str().unwrap_or_default(),
        version => version,
    };
    let major: String = (wanted.chars())
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    match major.as_str() {
        "24" => "nodejs_24",
        _ => "nodejs_22",
    }
}
