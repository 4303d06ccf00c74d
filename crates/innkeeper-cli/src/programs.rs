//! Command lines of the three programs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, Command, CommandFactory as _, Parser, Subcommand};
use innkeeper_model::{Code, Failure};

use crate::client::Client;
use crate::commands::{
    Apply, Audit, Backup, Build, Completions, Config, Connect, ContextCommands, Cp, Create,
    Deliveries, Destroy, Doctor, Events, Exec, Explain, Fork, Gc, Keepalive, List, Logs, Man,
    Pause, Pool, PortForward, Prefetch, Restore, RestoreBackup, SecretCommands, Set, Show, Sleep,
    Slots, Snapshot, Snapshots, Ssh, Start, Stop, SwitchPreview, TokenCommands, Top, Undelete,
    Usage, Wake,
};
use crate::commands::{Login, Logout, preview, status};
use crate::context::Context;
use crate::contexts::ContextName;
use crate::failure::{self, BROKEN_PIPE, CommandError, INTERRUPTED, Status};
use crate::output::Output;
use crate::target::{self, Choice, Socket};

/// Environment variable with the path of the socket.
const SOCKET: &str = "INNKEEPER_SOCKET";

/// Options of every command of all programs.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Print JSON, for scripts
    ///
    /// Prints one value on standard output (`events` and `logs`: one for each line). A failure is one value on standard
    /// error.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,

    /// Print only results and errors, no progress
    #[arg(long, short, global = true, help_heading = "Global options")]
    quiet: bool,

    /// Path of innkeeperd's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = SOCKET,
        hide_env_values = true,
        default_value = "/run/innkeeper/api.sock",
        help_heading = "Global options"
    )]
    socket: PathBuf,

    /// URL of a gateway, such as https://api.example.org [env: INNKEEPER_URL]
    ///
    /// The token for it is that of INNKEEPER_TOKEN, or in the file that INNKEEPER_TOKEN_FILE names. `innkeeper context --help`
    /// explains which daemon a command uses.
    #[allow(rustdoc::bare_urls, reason = "clap prints the text as it is")]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        conflicts_with = "context",
        help_heading = "Global options"
    )]
    url: Option<String>,

    /// Context to use: a gateway of `innkeeper context list`, or `local` [env: INNKEEPER_CONTEXT]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        value_parser = ContextName::parse,
        help_heading = "Global options"
    )]
    context: Option<ContextName>,
}

impl Global {
    /// Returns the daemon that the options name. `socket` is the source of that option's value.
    fn choice(&self, socket: Option<ValueSource>) -> Result<Choice, Failure> {
        let is_socket = socket == Some(ValueSource::CommandLine);
        match (is_socket, &self.url, &self.context) {
            (false, None, None) => Ok(Choice::None),
            (false, Some(url), _) => Ok(Choice::Url(url.clone())),
            (false, None, Some(name)) => Ok(Choice::Context(name.clone())),
            (true, None, None) => Ok(Choice::Socket(self.socket.clone())),
            (true, ..) => Err(Failure::new(
                Code::InvalidRequest,
                "--socket cannot be used with --url or --context",
            )
            .with_remedy("Use one of them: each names a daemon.")),
        }
    }
}

const EXIT_STATUS: &str = "\
Exit status: 0 success, 1 invalid request, 2 usage error, 3 not found, 4 conflict with the current state, 5 resource \
exhausted, 6 a closure does not build, 7 the host lacks something or an operation on it failed, 8 innkeeperd cannot be \
reached, 9 not allowed, 70 internal error, 130 interrupted or not confirmed, 141 standard output was closed. `exec` and `ssh` exit with \
the status of their command.";

const PREVIEW_EXIT_STATUS: &str = "\
Exit status: 0 success, 1 invalid request (`explain`: a link is broken), 2 usage error, 3 not found, 4 conflict with the \
current state (such as an unapproved commit of a fork), 5 resource exhausted, 6 the configuration or a \
closure does not build, 7 the host lacks something, an operation on it failed or the app does not respond, 8 innkeeperd \
cannot be reached, 9 not allowed, 70 internal error, 130 interrupted or not confirmed, 141 standard output was closed.";

/// Manage guests for coding agents
///
/// A guest boots from a system closure that Nix has built, has its own address, and exists until it is destroyed.
#[derive(Debug, Parser)]
#[command(name = "agent", version, max_term_width = 100, after_long_help = EXIT_STATUS)]
pub struct Agent {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    Create(Create),
    Destroy(Destroy),
    Undelete(Undelete),
    List(List),
    Show(Show),
    Ssh(Ssh),
    Exec(Exec),
    Cp(Cp),
    PortForward(PortForward),
    Connect(Connect),
    Logs(Logs),
    Start(Start),
    Stop(Stop),
    Pause(Pause),
    Sleep(Sleep),
    Wake(Wake),
    Keepalive(Keepalive),
    Explain(Explain),
    Set(Set),
    Snapshot(Snapshot),
    Snapshots(Snapshots),
    Restore(Restore),
    Fork(Fork),
    Build(Build),
}

/// Inspect and maintain the host and its daemon
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, max_term_width = 100, after_long_help = EXIT_STATUS)]
pub struct Innkeeper {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: InnkeeperCommand,
}

#[derive(Debug, Subcommand)]
enum InnkeeperCommand {
    Status(status::Status),
    Doctor(Doctor),
    Gc(Gc),
    Slots(Slots),
    Pool(Pool),
    Top(Top),
    Usage(Usage),
    Events(Events),
    Apply(Apply),
    SwitchPreview(SwitchPreview),
    Deliveries(Deliveries),
    Prefetch(Prefetch),
    Backup(Backup),
    #[command(name = "restore")]
    RestoreBackup(RestoreBackup),
    Config(Config),
    Token(TokenCommands),
    Secret(SecretCommands),
    Audit(Audit),
    Login(Login),
    Logout(Logout),
    Context(ContextCommands),
    Completions(Completions),
    Man(Man),
}

/// Manage previews of branches and pull requests
///
/// A preview is a guest that runs a web app at its own URL. Its closure is built from `preview-config.nix` in the
/// repository. GitHub's webhook deliveries create, update and destroy the previews of pull requests.
#[derive(Debug, Parser)]
#[command(name = "preview", version, max_term_width = 100, after_long_help = PREVIEW_EXIT_STATUS)]
pub struct Preview {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: PreviewCommand,
}

#[derive(Debug, Subcommand)]
enum PreviewCommand {
    Init(preview::Init),
    Check(preview::Check),
    Create(preview::Create),
    Destroy(preview::Destroy),
    Update(preview::Update),
    List(preview::List),
    Logs(preview::Logs),
    Ssh(preview::Ssh),
    Exec(preview::Exec),
    Cp(preview::Cp),
    PortForward(preview::PortForward),
    Connect(preview::Connect),
    Start(preview::Start),
    Stop(preview::Stop),
    Pause(preview::Pause),
    Sleep(preview::Sleep),
    Wake(preview::Wake),
    Keepalive(preview::Keepalive),
    Set(preview::Set),
    Share(preview::Share),
    Shares(preview::Shares),
    Unshare(preview::Unshare),
    Token(preview::Token),
    Build(preview::Build),
    Approve(preview::Approve),
    Open(preview::Open),
    Explain(preview::Explain),
    Db(preview::Db),
}

/// Returns the command-line definitions of all programs.
#[must_use]
pub fn commands() -> [Command; 3] {
    [Agent::command(), Preview::command(), Innkeeper::command()]
}

/// A program: its command line and its commands.
pub trait Program: Parser {
    #[doc(hidden)]
    fn global(&self) -> &Global;

    #[doc(hidden)]
    #[expect(
        async_fn_in_trait,
        reason = "called in this module only, on one thread"
    )]
    async fn run(self, cx: &Context) -> Outcome;
}

/// Result of a command, before it is reported.
#[derive(Debug)]
pub struct Outcome(Status);

impl Program for Agent {
    fn global(&self) -> &Global {
        &self.global
    }

    async fn run(self, cx: &Context) -> Outcome {
        Outcome(match self.command {
            AgentCommand::Create(command) => command.run(cx).await,
            AgentCommand::Destroy(command) => command.run(cx).await,
            AgentCommand::Undelete(command) => command.run(cx).await,
            AgentCommand::List(command) => command.run(cx).await,
            AgentCommand::Show(command) => command.run(cx).await,
            AgentCommand::Ssh(command) => command.run(cx).await,
            AgentCommand::Exec(command) => command.run(cx).await,
            AgentCommand::Cp(command) => command.run(cx).await,
            AgentCommand::PortForward(command) => command.run(cx).await,
            AgentCommand::Connect(command) => command.run(cx).await,
            AgentCommand::Logs(command) => command.run(cx).await,
            AgentCommand::Start(command) => command.run(cx).await,
            AgentCommand::Stop(command) => command.run(cx).await,
            AgentCommand::Pause(command) => command.run(cx).await,
            AgentCommand::Sleep(command) => command.run(cx).await,
            AgentCommand::Wake(command) => command.run(cx).await,
            AgentCommand::Keepalive(command) => command.run(cx).await,
            AgentCommand::Explain(command) => command.run(cx).await,
            AgentCommand::Set(command) => command.run(cx).await,
            AgentCommand::Snapshot(command) => command.run(cx).await,
            AgentCommand::Snapshots(command) => command.run(cx).await,
            AgentCommand::Restore(command) => command.run(cx).await,
            AgentCommand::Fork(command) => command.run(cx).await,
            AgentCommand::Build(command) => command.run(cx).await,
        })
    }
}

impl Program for Preview {
    fn global(&self) -> &Global {
        &self.global
    }

    async fn run(self, cx: &Context) -> Outcome {
        Outcome(match self.command {
            PreviewCommand::Init(command) => command.run(cx),
            PreviewCommand::Check(command) => command.run(cx).await,
            PreviewCommand::Create(command) => command.run(cx).await,
            PreviewCommand::Destroy(command) => command.run(cx).await,
            PreviewCommand::Update(command) => command.run(cx).await,
            PreviewCommand::List(command) => command.run(cx).await,
            PreviewCommand::Logs(command) => command.run(cx).await,
            PreviewCommand::Ssh(command) => command.run(cx).await,
            PreviewCommand::Exec(command) => command.run(cx).await,
            PreviewCommand::Cp(command) => command.run(cx).await,
            PreviewCommand::PortForward(command) => command.run(cx).await,
            PreviewCommand::Connect(command) => command.run(cx).await,
            PreviewCommand::Start(command) => command.run(cx).await,
            PreviewCommand::Stop(command) => command.run(cx).await,
            PreviewCommand::Pause(command) => command.run(cx).await,
            PreviewCommand::Sleep(command) => command.run(cx).await,
            PreviewCommand::Wake(command) => command.run(cx).await,
            PreviewCommand::Keepalive(command) => command.run(cx).await,
            PreviewCommand::Set(command) => command.run(cx).await,
            PreviewCommand::Share(command) => command.run(cx).await,
            PreviewCommand::Shares(command) => command.run(cx).await,
            PreviewCommand::Unshare(command) => command.run(cx).await,
            PreviewCommand::Token(command) => command.run(cx).await,
            PreviewCommand::Build(command) => command.run(cx).await,
            PreviewCommand::Approve(command) => command.run(cx).await,
            PreviewCommand::Open(command) => command.run(cx).await,
            PreviewCommand::Explain(command) => command.run(cx).await,
            PreviewCommand::Db(command) => command.run(cx).await,
        })
    }
}

impl Program for Innkeeper {
    fn global(&self) -> &Global {
        &self.global
    }

    async fn run(self, cx: &Context) -> Outcome {
        Outcome(match self.command {
            InnkeeperCommand::Status(command) => command.run(cx).await,
            InnkeeperCommand::Doctor(command) => command.run(cx).await,
            InnkeeperCommand::Gc(command) => command.run(cx).await,
            InnkeeperCommand::Slots(command) => command.run(cx).await,
            InnkeeperCommand::Pool(command) => command.run(cx).await,
            InnkeeperCommand::Top(command) => command.run(cx).await,
            InnkeeperCommand::Usage(command) => command.run(cx).await,
            InnkeeperCommand::Events(command) => command.run(cx).await,
            InnkeeperCommand::Apply(command) => command.run(cx).await,
            InnkeeperCommand::SwitchPreview(command) => command.run(cx).await,
            InnkeeperCommand::Deliveries(command) => command.run(cx).await,
            InnkeeperCommand::Prefetch(command) => command.run(cx).await,
            InnkeeperCommand::Backup(command) => command.run(cx).await,
            InnkeeperCommand::RestoreBackup(command) => command.run(cx).await,
            InnkeeperCommand::Config(command) => command.run(cx).await,
            InnkeeperCommand::Token(command) => command.run(cx).await,
            InnkeeperCommand::Secret(command) => command.run(cx).await,
            InnkeeperCommand::Audit(command) => command.run(cx).await,
            InnkeeperCommand::Login(command) => command.run(cx).await,
            InnkeeperCommand::Logout(command) => command.run(cx).await,
            InnkeeperCommand::Context(command) => command.run(cx, self.global.url.as_deref()),
            InnkeeperCommand::Completions(command) => command.run(cx, commands()),
            InnkeeperCommand::Man(command) => command.run(cx, commands()),
        })
    }
}

/// Runs a program with the process's arguments and returns its exit code.
#[must_use]
pub fn start<P: Program>() -> ExitCode {
    let parsed = command_for::<P>().try_get_matches().and_then(|matches| {
        let source = matches.value_source("socket");
        Ok((P::from_arg_matches(&matches)?, source))
    });
    let (program, source) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return report_parse_error(&without_destructive_suggestions(error)),
    };
    let global = program.global();
    let output = Output::new(global.json, global.quiet);
    let choice = match global.choice(source) {
        Ok(choice) => choice,
        Err(failure) => return ExitCode::from(report_outcome(Err(failure.into()), &output)),
    };
    let socket = Socket {
        path: global.socket.clone(),
        is_from_environment: source == Some(ValueSource::EnvVariable),
    };
    let cx = Context {
        client: Client::of(target::select(&choice, &socket)),
        output,
        socket: socket.path,
    };
    let outcome = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let Outcome(outcome) = runtime.block_on(program.run(&cx));
            // A blocked read of standard input must not delay the exit.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            Err(Failure::new(Code::Internal, format!("cannot start the program: {error}")).into())
        }
    };
    ExitCode::from(report_outcome(outcome, &cx.output))
}

/// Returns a program's command-line definition. Its help shows the socket from the environment, if that is set.
fn command_for<P: Program>() -> Command {
    P::command().mut_arg("socket", |argument| match std::env::var_os(SOCKET) {
        Some(_) => argument.hide_env_values(false).hide_default_value(true),
        None => argument,
    })
}

/// Reports the outcome and returns the exit code.
fn report_outcome(outcome: Status, output: &Output) -> u8 {
    match outcome {
        Ok(status) => status,
        Err(CommandError::Failure(failure)) => {
            output.failure(&failure);
            failure::exit_code(&failure)
        }
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            BROKEN_PIPE
        }
        Err(error @ CommandError::Output(_)) => {
            let failure = Failure::new(Code::Internal, innkeeper_model::chain(&error)).with_remedy(
                "Check the target of standard output, such as the free space on its disk.",
            );
            output.failure(&failure);
            failure::exit_code(&failure)
        }
        Err(CommandError::Interrupted { note }) => {
            output.note(&note);
            INTERRUPTED
        }
    }
}

/// Commands that delete or overwrite data, or interrupt a service.
const DESTRUCTIVE: [&str; 9] = [
    "destroy", "restore", "stop", "pause", "sleep", "reset", "gc", "revoke", "rm",
];

/// Removes destructive commands from clap's suggestions for an unknown command, which users may run without a second look.
fn without_destructive_suggestions(mut error: clap::Error) -> clap::Error {
    let kind = ContextKind::SuggestedSubcommand;
    let harmless = |name: &String| !DESTRUCTIVE.contains(&name.as_str());
    let names: Vec<String> = match error.get(kind) {
        Some(ContextValue::Strings(names)) => (names.iter())
            .filter(|name| harmless(name))
            .cloned()
            .collect(),
        Some(ContextValue::String(name)) if !harmless(name) => Vec::new(),
        _ => return error,
    };
    match names.is_empty() {
        true => error.remove(kind),
        false => error.insert(kind, ContextValue::Strings(names)),
    };
    error
}

/// Reports a command line that cannot be parsed: an invalid value as a failure, all other errors as clap does. Help and
/// version are such errors too.
fn report_parse_error(error: &clap::Error) -> ExitCode {
    // Without parsed arguments, --json must be searched for.
    let json = std::env::args_os()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    let output = Output::new(json, false);
    if let Some(failure) = failure::from_parse_error(error) {
        output.failure(&failure);
        return ExitCode::from(failure::exit_code(&failure));
    }
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if json && !is_help {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        output.failure(&Failure::new(Code::InvalidRequest, text));
    } else {
        // A write error cannot be reported.
        error.print().ok();
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_definitions_are_consistent() {
        commands().into_iter().for_each(Command::debug_assert);
    }
}
