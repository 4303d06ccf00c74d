//! `innkeeper man`.

mod examples;
mod markdown;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};
use innkeeper_model::{Code, Failure, Kind};

use crate::context::Context;
use crate::describe::count;
use crate::failure::{BROKEN_PIPE, INTERRUPTED, Status};

/// Manual pages of the long-running programs, which are in other crates.
const DAEMONS: [(&str, &str); 5] = [
    ("innkeeperd.8", include_str!("man/innkeeperd.8")),
    (
        "innkeeper-webhook.8",
        include_str!("man/innkeeper-webhook.8"),
    ),
    (
        "innkeeper-gateway.8",
        include_str!("man/innkeeper-gateway.8"),
    ),
    ("innkeeper-pages.8", include_str!("man/innkeeper-pages.8")),
    ("innkeeper-dns.8", include_str!("man/innkeeper-dns.8")),
];

/// The page with the table of settings.
const CONFIGURATION: &str = include_str!("../../../../docs/configuration.md");

/// Write the manual pages of all programs and of the configuration file
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Directory to write to; it is created if necessary
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn run(self, cx: &Context, programs: [Command; 3]) -> Status {
        let pages = write_all(programs, &self.out).map_err(|error| {
            let directory = self.out.display();
            Failure::new(
                Code::InvalidRequest,
                format!("cannot write manual pages to {directory}: {error}"),
            )
            .with_remedy("Use a writable directory, for example `--out man`.")
        })?;
        let pages: Vec<String> = pages
            .iter()
            .map(|page| page.display().to_string())
            .collect();
        if cx.output.is_json() {
            cx.output.value(&pages)?;
        } else {
            let (pages, directory) = (count(pages.len(), "manual page"), self.out.display());
            cx.output
                .ok(format_args!("{pages} written to {directory}."))?;
        }
        Ok(0)
    }
}

fn write_all(programs: [Command; 3], directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let mut pages = Vec::new();
    for program in programs {
        // The page agent-create is also the one for `agent help create`.
        let mut program = program.disable_help_subcommand(true);
        program.build();
        write(&program, program.get_name(), directory, &mut pages)?;
    }
    let mut add = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        pages.push(path);
        io::Result::Ok(())
    };
    for (name, text) in DAEMONS {
        add(name, text)?;
    }
    add("innkeeper-config.5", &markdown::page(CONFIGURATION))?;
    Ok(pages)
}

/// Writes the pages of a command and of its subcommands. `path` is its full name, such as `preview db reset`.
fn write(
    command: &Command,
    path: &str,
    directory: &Path,
    pages: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let page = Page::new(command.clone()).manual("Innkeeper");
    let file = directory.join(page.get_filename());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    exit_status(path).to_writer(&mut text)?;
    if let Some(examples) = examples::section(path) {
        examples.to_writer(&mut text)?;
    }
    see_also(path).to_writer(&mut text)?;
    std::fs::File::create(&file)?.write_all(&text)?;
    pages.push(file);
    command.get_subcommands().try_for_each(|below| {
        write(
            below,
            &format!("{path} {}", below.get_name()),
            directory,
            pages,
        )
    })
}

fn exit_status(path: &str) -> Roff {
    let mut rows: Vec<(u8, &str)> = vec![
        (0, "Success."),
        (2, "Usage error: an unknown option, argument or command."),
        (
            INTERRUPTED,
            "Interrupted by Ctrl-C, or a prompt was not confirmed. Accepted operations continue.",
        ),
        (BROKEN_PIPE, "Standard output was closed by its reader."),
    ];
    for code in Code::ALL {
        let row = (code.kind().exit_code(), meaning(code.kind()));
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.sort_unstable();
    let mut section = Roff::new();
    section.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in rows {
        section.control("TP", []);
        section.text([bold(code.to_string())]);
        section.text([roman(meaning)]);
    }
    let special = match path {
        "agent exec" | "agent ssh" | "preview exec" | "preview ssh" => {
            "Once the command runs in the guest, the exit status is the command's."
        }
        "preview explain" => "1 also means that a link is broken.",
        "innkeeper doctor" => "7 also means that a check is BROKEN.",
        _ => return section,
    };
    section.control("PP", []);
    section.text([roman(special)]);
    section
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "Invalid request.",
        Kind::NotFound => "The named object does not exist.",
        Kind::Conflict => "Conflict with the current state.",
        Kind::Exhausted => "A resource is exhausted.",
        Kind::Build => "A closure or its configuration does not build.",
        Kind::Host => "The host lacks something, or an operation on it failed.",
        Kind::Unavailable => "innkeeperd cannot be reached.",
        Kind::Denied => "The caller may not make the request.",
        Kind::Internal => "Internal error.",
    }
}

fn see_also(path: &str) -> Roff {
    let own = path.replace(' ', "-");
    let pages = [
        "agent(1)",
        "preview(1)",
        "innkeeper(1)",
        "innkeeper-config(5)",
        "innkeeperd(8)",
    ];
    let others: Vec<_> = pages
        .into_iter()
        .filter(|page| page.split('(').next() != Some(own.as_str()))
        .collect();
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    section.text([roman(others.join(", "))]);
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_examples_that_parse() {
        let programs = crate::commands();
        let mut without_examples = Vec::new();
        for program in &programs {
            leaves(program, program.get_name(), &mut without_examples);
        }
        for (path, lines) in examples::all() {
            assert!(
                without_examples.iter().any(|leaf| leaf == path),
                "unknown command '{path}'"
            );
            without_examples.retain(|leaf| leaf != path);
            for (line, _) in *lines {
                assert!(
                    line.starts_with(path),
                    "'{line}' is not an example of '{path}'"
                );
                let arguments = line.split(" > ").next().unwrap_or(line).split(' ');
                let arguments = arguments.map(|argument| argument.trim_matches('\''));
                let name = path.split(' ').next().unwrap_or_default();
                let program = programs.iter().find(|program| program.get_name() == name);
                let parsed = program
                    .expect("a program")
                    .clone()
                    .try_get_matches_from(arguments);
                assert!(parsed.is_ok(), "'{line}': {}", parsed.expect_err("invalid"));
            }
        }
        assert_eq!(
            without_examples,
            Vec::<String>::new(),
            "commands without examples"
        );
    }

    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        let mut below = command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
            .peekable();
        if below.peek().is_none() {
            found.push(path.to_owned());
        }
        for below in below {
            leaves(below, &format!("{path} {}", below.get_name()), found);
        }
    }
}
