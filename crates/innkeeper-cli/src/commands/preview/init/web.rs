//! Apps in Ruby, Elixir and PHP, and static files.

use super::app::App;
use super::repository::Repository;

fn lines<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).into()
}

pub(super) fn ruby(repository: &Repository) -> App {
    let gemfile = repository.text("Gemfile");
    let uses = |gem: &str| {
        [format!("gem \"{gem}\""), format!("gem '{gem}'")]
            .iter()
            .any(|line| gemfile.contains(line))
    };
    let mut app = App {
        packages: vec!["ruby", "gcc", "gnumake", "pkg-config"],
        setup: lines([
            "bundle config set --local path vendor/bundle",
            "bundle install --quiet",
        ]),
        run: lines(["exec bundle exec rackup --host 0.0.0.0 --port $PORT"]),
        port: 3000,
        has_database: uses("pg"),
        ..App::default()
    };
    if uses("rails") {
        rails(repository, &mut app, uses);
    }
    app
}

fn rails(repository: &Repository, app: &mut App, uses: impl Fn(&str) -> bool) {
    // The key is generated once, so that sessions outlive a push.
    let with_key = |command: &str| format!("SECRET_KEY_BASE=$(cat ~/secret-key-base) {command}");
    app.environment = vec![
        ("RAILS_ENV", "\"production\""),
        ("RAILS_LOG_TO_STDOUT", "1"),
        ("RAILS_SERVE_STATIC_FILES", "1"),
    ];
    app.setup.extend(lines([
        "[ -s ~/secret-key-base ] || bundle exec rails secret > ~/secret-key-base",
        "SECRET_KEY_BASE_DUMMY=1 bundle exec rails assets:precompile",
    ]));
    app.setup.push(with_key("bundle exec rails db:migrate"));
    if repository.has("db/seeds.rb") {
        app.seed = Some(with_key("bundle exec rails db:seed"));
    }
    app.run = vec![with_key("exec bundle exec rails server --binding 0.0.0.0")];
    let worker = [
        (
            "delayed_job_active_record",
            "exec bundle exec rake jobs:work",
        ),
        ("solid_queue", "exec bundle exec bin/jobs"),
        ("good_job", "exec bundle exec good_job start"),
    ]
    .into_iter()
    .find(|(gem, _)| uses(gem));
    if let Some((_, command)) = worker {
        app.workers = vec![("jobs", with_key(command))];
    }
    if repository
        .text("config/routes.rb")
        .contains("rails/health#show")
    {
        app.health_path = Some("/up");
    }
}

pub(super) fn phoenix(repository: &Repository) -> App {
    let project = repository.text("mix.exs");
    let is_phoenix = project.contains(":phoenix");
    let mut app = App {
        packages: vec!["elixir", "gcc", "gnumake"],
        environment: vec![("MIX_ENV", "\"prod\""), ("LANG", "\"C.UTF-8\"")],
        setup: lines([
            "mix local.hex --force --if-missing",
            "mix local.rebar --force --if-missing",
            "mix deps.get --only prod",
        ]),
        run: lines(["exec mix run --no-halt"]),
        port: 4000,
        has_database: project.contains(":postgrex"),
        ..App::default()
    };
    if is_phoenix {
        app.setup.extend(lines([
            "[ -s ~/secret-key-base ] || mix phx.gen.secret > ~/secret-key-base",
            "export SECRET_KEY_BASE=$(cat ~/secret-key-base)",
        ]));
        app.run = lines([
            "export SECRET_KEY_BASE=$(cat ~/secret-key-base) PHX_HOST=$PREVIEW_HOST",
            "exec mix phx.server",
        ]);
    }
    app.setup.push("mix compile".to_owned());
    if project.contains("assets.deploy") {
        app.setup.push("mix assets.deploy".to_owned());
    }
    if app.has_database {
        app.setup.push("mix ecto.migrate".to_owned());
    }
    app
}

pub(super) fn php(repository: &Repository) -> App {
    let is_laravel = repository.has("artisan");
    let mut app = App {
        packages: vec!["php", "phpPackages.composer"],
        setup: lines(["composer install --no-interaction --prefer-dist"]),
        run: lines(["exec php -S 0.0.0.0:$PORT -t public"]),
        port: 8000,
        has_database: is_laravel,
        ..App::default()
    };
    if is_laravel {
        app.environment = vec![("DB_CONNECTION", "\"pgsql\"")];
        app.setup.extend(lines([
            "[ -e .env ] || cp .env.example .env",
            "grep -q '^APP_KEY=.' .env || php artisan key:generate --force",
            "DB_URL=$DATABASE_URL php artisan migrate --force",
        ]));
        app.run = lines([
            "APP_URL=$PREVIEW_URL DB_URL=$DATABASE_URL exec php artisan serve --host=0.0.0.0 --port=$PORT",
        ]);
    }
    app
}

/// Files, served by busybox' web server.
pub(super) fn files(repository: &Repository) -> App {
    let mut app = App {
        packages: vec!["busybox"],
        port: 8080,
        ..App::default()
    };
    let folder = match repository.first(&["public/index.html", "dist/index.html"]) {
        Some(file) => file.trim_end_matches("/index.html"),
        None => {
            // The checkout contains Git's own files, which must not be served.
            app.setup = lines([
                "rm -rf ~/site",
                "git checkout-index --all --prefix=$HOME/site/",
            ]);
            "~/site"
        }
    };
    app.run = vec![format!("exec httpd -f -v -p $PORT -h {folder}")];
    app
}
