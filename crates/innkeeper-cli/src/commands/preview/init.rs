//! `preview init`.

mod app;
mod compiled;
mod image;
mod node;
mod python;
mod repository;
mod stack;
mod web;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use innkeeper_model::{Code, Failure};
use serde::Serialize;

use self::repository::Repository;
use self::stack::Stack;
use crate::context::Context;
use crate::failure::{CommandError, Status};

/// Name of the file.
const FILE: &str = "preview-config.nix";

/// Write a preview-config.nix for the app in a directory
///
/// Recognizes the stack from files such as package.json or Gemfile. Needs no daemon, and runs nothing of the repository.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Directory of the repository
    #[arg(default_value = ".")]
    directory: PathBuf,

    /// Stack of the app, if it is not recognized
    #[arg(long)]
    stack: Option<Stack>,

    /// Replace an existing preview-config.nix
    #[arg(long)]
    force: bool,

    /// Print the file and write nothing
    #[arg(long)]
    stdout: bool,
}

/// The written file, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Written<'a> {
    /// The path; absent with `--stdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    stack: Stack,
    /// The file that identifies the stack; absent with `--stack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'static str>,
    /// Assumptions that the author must check.
    notes: &'a [String],
    text: &'a str,
}

impl Init {
    pub(crate) fn run(self, cx: &Context) -> Status {
        let repository = Repository::new(&self.directory);
        if !self.directory.is_dir() {
            let message = format!("'{}' is not a directory", self.directory.display());
            return Err(Failure::new(Code::InvalidRequest, message)
                .with_remedy("Name the directory of a clone of the repository.")
                .into());
        }
        let found = Stack::found(&repository);
        let (stack, file) = match (self.stack, found.first()) {
            (Some(stack), _) => (stack, None),
            (None, Some((stack, file))) => (*stack, Some(*file)),
            (None, None) => return Err(self.unknown_stack().into()),
        };
        let mut app = stack.app(&repository);
        let others: Vec<_> = (found.iter())
            .filter(|(other, _)| *other != stack && *other != Stack::Static)
            .map(|(_, file)| *file)
            .collect();
        if self.stack.is_none() && !others.is_empty() {
            app.notes.push(format!(
                "The repository also has {}: `--stack` selects another stack.",
                others.join(" and ")
            ));
        }
        let text = app.render();
        let path = self.directory.join(FILE);
        if !self.stdout {
            write(&path, &text, self.force)?;
        }
        let written = Written {
            path: (!self.stdout).then(|| path.display().to_string()),
            stack,
            found: file,
            notes: &app.notes,
            text: &text,
        };
        self.print(cx, &written)?;
        Ok(0)
    }

    fn print(&self, cx: &Context, written: &Written<'_>) -> Result<(), CommandError> {
        if cx.output.is_json() {
            return cx.output.value(written);
        }
        if self.stdout {
            return cx.output.text(written.text);
        }
        let title = written.stack.title();
        let reason =
            (written.found).map_or_else(String::new, |file| format!(" ({file} was found)"));
        let path = written.path.as_deref().unwrap_or(FILE);
        cx.output
            .ok(format_args!("Wrote {path} for {title}{reason}."))?;
        for note in written.notes {
            cx.output.info(note)?;
        }
        cx.output
            .info("Next: read the file, run `preview check`, commit it and open a pull request.")
    }

    /// Returns the failure for a repository without a file that identifies its stack.
    fn unknown_stack(&self) -> Failure {
        let message = format!(
            "cannot recognize the stack of '{}': it has no package.json, Gemfile, go.mod or similar file",
            self.directory.display()
        );
        Failure::new(Code::InvalidRequest, message)
            .with_remedy("Name the stack, for example `preview init --stack node`.")
    }
}

/// Writes the file. Replaces an existing one only with `force`, and never follows a link.
fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::new(Code::InvalidRequest, format!("{shown} exists already"))
                    .with_remedy("`preview init --force` replaces it, `--stdout` prints a new one.")
            }
            _ => Failure::new(
                Code::InvalidRequest,
                format!("cannot write {shown}: {error}"),
            )
            .with_remedy("Use a directory that you can write to."),
        }
    };
    let create = |path: &Path| fs::File::create_new(path)?.write_all(text.as_bytes());
    if !force {
        return create(path).map_err(failed);
    }
    let new = path.with_extension("nix.new");
    fs::remove_file(&new).ok();
    create(&new).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
