//! `innkeeper man`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;
use innkeeper_model::{Code, Failure};

use super::Context;
use crate::describe::count;
use crate::failure::Status;

/// Write the manual pages of all programs and commands
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The directory to write them to; it is made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn run(self, cx: &Context) -> Status {
        let pages = write_all(&self.out).map_err(|error| {
            let directory = self.out.display();
            Failure::new(
                Code::InvalidRequest,
                format!("cannot write manual pages to {directory}: {error}"),
            )
            .with_remedy("Give a directory that you may write to, for example `--out man`.")
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

fn write_all(directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let mut pages = Vec::new();
    for program in crate::commands() {
        // `agent help create` is `man agent-create`: pages of its own would say nothing.
        let mut program = program.disable_help_subcommand(true);
        program.build();
        write(&program, directory, &mut pages)?;
    }
    Ok(pages)
}

/// Writes the page of a command and those of the commands below it.
fn write(command: &Command, directory: &Path, pages: &mut Vec<PathBuf>) -> io::Result<()> {
    pages.push(
        Page::new(command.clone())
            .manual("Innkeeper")
            .generate_to(directory)?,
    );
    command
        .get_subcommands()
        .try_for_each(|below| write(below, directory, pages))
}
