//! Stacks of apps, and the files that identify them.

use clap::ValueEnum;
use serde::Serialize;

use super::app::App;
use super::repository::Repository;
use super::{compiled, image, node, python, web};

/// A language or a framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stack {
    /// Elixir, with or without Phoenix
    Phoenix,
    /// Ruby, with or without Rails
    Ruby,
    /// PHP, with or without Laravel
    Php,
    /// Python, such as Django, Flask or FastAPI
    Python,
    /// Go
    Go,
    /// Rust
    Rust,
    /// Node.js, or a front end that is built with it
    Node,
    /// A container image that your CI builds
    Image,
    /// Files that are served as they are
    Static,
}

impl Stack {
    /// All stacks, in the order in which they are looked for: a Rails app often has a package.json, too.
    const ALL: [Self; 9] = [
        Self::Phoenix,
        Self::Ruby,
        Self::Php,
        Self::Python,
        Self::Go,
        Self::Rust,
        Self::Node,
        Self::Image,
        Self::Static,
    ];

    /// The files that identify the stack.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Phoenix => &["mix.exs"],
            Self::Ruby => &["Gemfile"],
            Self::Php => &["composer.json"],
            Self::Python => &["manage.py", "pyproject.toml", "requirements.txt"],
            Self::Go => &["go.mod"],
            Self::Rust => &["Cargo.toml"],
            Self::Node => &["package.json"],
            Self::Image => &["Dockerfile", "Containerfile"],
            Self::Static => &["public/index.html", "dist/index.html", "index.html"],
        }
    }

    /// Returns the stacks whose files exist, each with the first of its files.
    pub(super) fn found(repository: &Repository) -> Vec<(Self, &'static str)> {
        (Self::ALL.into_iter())
            .filter_map(|stack| Some((stack, repository.first(stack.files())?)))
            .collect()
    }

    /// The stack's name in messages.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Phoenix => "Elixir",
            Self::Ruby => "Ruby",
            Self::Php => "PHP",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::Rust => "Rust",
            Self::Node => "Node.js",
            Self::Image => "a container image",
            Self::Static => "static files",
        }
    }

    /// Returns the app of the repository.
    pub(super) fn app(self, repository: &Repository) -> App {
        match self {
            Self::Phoenix => web::phoenix(repository),
            Self::Ruby => web::ruby(repository),
            Self::Php => web::php(repository),
            Self::Python => python::app(repository),
            Self::Go => compiled::go(repository),
            Self::Rust => compiled::rust(repository),
            Self::Node => node::app(repository),
            Self::Image => image::app(repository),
            Self::Static => web::files(repository),
        }
    }
}
