//! `innkeeper completions`.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::Context;
use crate::failure::Status;
use crate::{Agent, Innkeeper, Preview};

/// Print a shell's completions for one of the programs
///
/// For example: `innkeeper completions bash --program agent > /etc/bash_completion.d/agent`.
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
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        cx.output.text(String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
