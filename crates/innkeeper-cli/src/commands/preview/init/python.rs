//! Apps in Python.

use super::app::App;
use super::repository::Repository;

/// The libraries that compiled packages from `PyPI` expect on a usual Linux.
const LIBRARIES: &str = "lib.makeLibraryPath [
  pkgs.stdenv.cc.cc
  pkgs.zlib
]";

pub(super) fn app(repository: &Repository) -> App {
    let dependencies = repository.text("requirements.txt") + &repository.text("pyproject.toml");
    let uses = |name: &str| dependencies.to_lowercase().contains(name);
    let mut app = App {
        packages: vec!["python3"],
        environment: vec![("LD_LIBRARY_PATH", LIBRARIES)],
        port: 8000,
        has_database: uses("psycopg") || uses("asyncpg"),
        ..App::default()
    };
    let server = if uses("fastapi") || uses("starlette") {
        "uvicorn"
    } else {
        "gunicorn"
    };
    let requirements = match repository.has("requirements.txt") {
        true => "--requirement requirements.txt",
        false => ".",
    };
    app.setup = vec![
        r#"[ ~/venv/bin/python -ef "$(command -v python3)" ] || python3 -m venv --clear ~/venv"#
            .to_owned(),
        format!("~/venv/bin/pip install --quiet {requirements} {server}"),
    ];
    let module = if repository.has("manage.py") {
        app.setup
            .push("~/venv/bin/python manage.py migrate".to_owned());
        app.notes.push(
            "Django must accept the preview's host name: ALLOWED_HOSTS = [os.environ[\"PREVIEW_HOST\"]]."
                .to_owned(),
        );
        let projects = repository.directories_with("wsgi.py");
        if projects.len() != 1 {
            app.notes
                .push("Replace `mysite` by the package that contains wsgi.py.".to_owned());
        }
        let project = match projects.as_slice() {
            [only] => only.as_str(),
            _ => "mysite",
        };
        format!("{project}.wsgi")
    } else {
        let file = repository.first(&["app.py", "main.py", "wsgi.py"]);
        if file.is_none() {
            app.notes
                .push("Replace `app:app` by the module and the name of your app.".to_owned());
        }
        format!("{}:app", file.unwrap_or("app.py").trim_end_matches(".py"))
    };
    app.run = vec![match server {
        "uvicorn" => format!("exec ~/venv/bin/uvicorn --host 0.0.0.0 --port $PORT {module}"),
        _ => format!("exec ~/venv/bin/gunicorn --bind 0.0.0.0:$PORT {module}"),
    }];
    app
}
