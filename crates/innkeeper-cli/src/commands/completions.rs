//! `innkeeper completions`.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::Status;

const NAMES_SCRIPT: &str = include_str!("completions/names.bash");

/// Print shell completions for a program
///
/// The bash completions include names of agents and slugs of previews.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Shell to complete for
    shell: Shell,

    /// Program to complete
    #[arg(long, value_enum, default_value_t = ProgramName::Innkeeper)]
    program: ProgramName,
}

/// Name of a program.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProgramName {
    Agent,
    Preview,
    Innkeeper,
}

impl Completions {
    pub(crate) fn run(self, cx: &Context, programs: [Command; 3]) -> Status {
        let [agent, preview, innkeeper] = programs;
        let mut command = match self.program {
            ProgramName::Agent => agent,
            ProgramName::Preview => preview,
            ProgramName::Innkeeper => innkeeper,
        };
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        let names = (self.shell == Shell::Bash).then(|| name_completions(&command));
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        let script = String::from_utf8_lossy(&script).into_owned() + &names.unwrap_or_default();
        cx.output.text(script)?;
        Ok(0)
    }
}

/// Returns the part of the bash script that completes names of guests, which it requests from the daemon. Empty for a
/// program without commands that take a name.
fn name_completions(program: &Command) -> String {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for command in program.get_subcommands() {
        let first = command.get_positionals().next();
        match first.map(|argument| argument.get_id().as_str()) {
            // These commands take names of agents that do not exist.
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
    NAMES_SCRIPT
        .replace("PROGRAM", program.get_name())
        .replace("ONE)", &format!("{})", pattern(one)))
        .replace("MANY)", &format!("{})", pattern(many)))
}
