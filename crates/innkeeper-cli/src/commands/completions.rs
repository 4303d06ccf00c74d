//! `innkeeper completions`.

use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::Context;
use crate::failure::Status;
use crate::{Agent, Innkeeper, Preview};

const WITH_NAMES: &str = include_str!("completions/names.bash");

/// Print a shell's completions for one of the programs
///
/// Those of bash complete names of agents and previews, too. For example: `innkeeper completions bash --program agent > /etc/bash_completion.d/agent`.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,

    /// The program
    #[arg(long, value_enum, default_value_t = ProgramName::Innkeeper)]
    program: ProgramName,
}

/// One of our programs.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProgramName {
    Agent,
    Preview,
    Innkeeper,
}

impl Completions {
    pub(crate) fn run(self, cx: &Context) -> Status {
        let mut command = match self.program {
            ProgramName::Agent => Agent::command(),
            ProgramName::Preview => Preview::command(),
            ProgramName::Innkeeper => Innkeeper::command(),
        };
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        let names = (self.shell == Shell::Bash).then(|| with_names(&command));
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        let script = String::from_utf8_lossy(&script).into_owned() + &names.unwrap_or_default();
        cx.output.text(script)?;
        Ok(0)
    }
}

/// The end of bash's script: it completes names of guests, which only the daemon knows. Empty for a program without
/// commands that take one.
fn with_names(program: &Command) -> String {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for command in program.get_subcommands() {
        let first = command.get_positionals().next();
        match first.map(|argument| argument.get_id().as_str()) {
            // These take names of agents that are not there.
            _ if matches!(command.get_name(), "create" | "undelete") => {}
            Some("name" | "slug") => one.push(command.get_name()),
            Some("names" | "slugs") => many.push(command.get_name()),
            _ => {}
        }
    }
    if one.is_empty() {
        return String::new();
    }
    let pattern = |commands: Vec<&str>| match commands.is_empty() {
        true => "''".to_owned(),
        false => commands.join(" | "),
    };
    WITH_NAMES
        .replace("PROGRAM", program.get_name())
        .replace("ONE)", &format!("{})", pattern(one)))
        .replace("MANY)", &format!("{})", pattern(many)))
}
