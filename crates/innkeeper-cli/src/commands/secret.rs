//! `innkeeper secret`.

use std::io::{self, IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use innkeeper_model::preview::secrets::{
    MAX_SECRET, RepoSecrets, SecretChange, SecretChanged, SecretView, SetSecret,
};
use innkeeper_model::preview::{EnvName, RepoName};
use innkeeper_model::{Code, Failure, GuestName, Secret};

use crate::context::Context;
use crate::failure::{CommandError, Status};
use crate::output::Finding;
use crate::table::{or_dash, table};
use crate::terminal::HiddenInput;

/// Set, list and remove the secrets of a repository's previews
///
/// A preview receives the secrets that its preview-config.nix requests by name (hostSecrets), as environment variables.
/// Previews of forks receive none. Root, members of the group and tokens of the role operator can change secrets; no command
/// shows a value.
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub(crate) struct SecretCommands {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    Set(Set),
    List(List),
    Rm(Remove),
}

/// Set a secret to the value on standard input
///
/// On a terminal, prompts for one line and does not show it. One line break at the end of the input is not part of the
/// value. Running previews that use the secret keep the former value until `preview update` restarts them; they are listed.
#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    secret: SecretArguments,

    /// Read the value from standard input, which is the default: a value is never an argument
    #[arg(value_name = "-", allow_hyphen_values = true)]
    input: Option<Secret>,
}

/// List the secrets of a repository, without their values
///
/// STATE is `set`, `missing` for a secret that a preview requests and the host does not have, or `invalid` for one whose line in
/// the file on the host is invalid. NEEDS RESTART lists the previews that have a former value.
#[derive(Args, Debug)]
struct List {
    /// Repository on GitHub
    #[arg(value_name = "OWNER/REPO", value_parser = RepoName::parse)]
    repo: RepoName,
}

/// Remove a secret
///
/// Running previews that use it keep its value until `preview update` restarts them; they are listed.
#[derive(Args, Debug)]
struct Remove {
    #[command(flatten)]
    secret: SecretArguments,
}

/// A secret of a repository.
#[derive(Args, Debug)]
struct SecretArguments {
    /// Repository on GitHub
    #[arg(value_name = "OWNER/REPO", value_parser = RepoName::parse)]
    repo: RepoName,

    /// Name of the secret, and of the environment variable
    #[arg(value_name = "KEY", value_parser = EnvName::parse)]
    name: EnvName,
}

impl SecretArguments {
    fn path(&self) -> String {
        format!("{}/{}", path(&self.repo), self.name)
    }
}

/// Returns the API path of a repository's secrets.
fn path(repo: &RepoName) -> String {
    format!("/v1/secrets/{repo}")
}

impl SecretCommands {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        match self.command {
            SecretCommand::Set(command) => command.run(cx).await,
            SecretCommand::List(command) => command.run(cx).await,
            SecretCommand::Rm(command) => command.run(cx).await,
        }
    }
}

impl Set {
    async fn run(self, cx: &Context) -> Status {
        if self.input.is_some_and(|input| input.expose() != "-") {
            let message =
                "a secret's value is not an argument: other users of the machine can read those";
            let failure = Failure::new(Code::InvalidRequest, message);
            return Err(failure
                .with_remedy("Change the secret where it is used, since it was shown; then pass the new one on standard input.")
                .into());
        }
        let value = read_value(cx, &self.secret.name)?;
        let path = self.secret.path();
        let changed: SecretChanged = cx.client.post(&path, &SetSecret { value }).await?;
        report(cx, &changed)
    }
}

impl Remove {
    async fn run(self, cx: &Context) -> Status {
        let changed: SecretChanged = cx.client.delete(&self.secret.path()).await?;
        report(cx, &changed)
    }
}

impl List {
    async fn run(self, cx: &Context) -> Status {
        let secrets: RepoSecrets = cx.client.get(&path(&self.repo)).await?;
        cx.output.show(&secrets, render)?;
        Ok(0)
    }
}

/// Reads the value from standard input; on a terminal, one line that is not shown.
fn read_value(cx: &Context, name: &EnvName) -> Result<Secret, CommandError> {
    let unreadable = |error: &io::Error| {
        let message = format!("cannot read the value of {name} from standard input: {error}");
        Failure::new(Code::InvalidRequest, message)
            .with_remedy("Pass the value as text, such as its base64 encoding.")
    };
    let mut stdin = io::stdin();
    let text = if stdin.is_terminal() {
        let prompt = format!("Value of {name} (it is not shown): ");
        let line = HiddenInput::read_line(|| cx.output.prompt(&prompt));
        cx.output.prompt("\n");
        Secret::new(line.map_err(|error| unreadable(&error))?)
    } else {
        let mut text = String::new();
        // A value of the maximum length with a line break, and one byte more, so that a longer one is noticed.
        let limit = u64::try_from(MAX_SECRET + 3).unwrap_or(u64::MAX);
        let read = stdin.by_ref().take(limit).read_to_string(&mut text);
        let text = Secret::new(text);
        read.map_err(|error| unreadable(&error))?;
        text
    };
    let value = without_line_break(text.expose());
    let problem = match value.len() {
        0 => "is empty".to_owned(),
        length if length > MAX_SECRET => format!("has more than {MAX_SECRET} bytes"),
        _ => return Ok(Secret::new(value)),
    };
    let message = format!("the value of {name} on standard input {problem}");
    Err(Failure::new(Code::InvalidRequest, message)
        .with_remedy(format!(
            "Pass a value of 1 to {MAX_SECRET} bytes; `innkeeper secret rm` removes a secret."
        ))
        .into())
}

/// Returns a text without one line break at its end.
fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// Prints the effect of a change, and the previews that need a restart.
fn report(cx: &Context, changed: &SecretChanged) -> Status {
    if cx.output.is_json() {
        cx.output.value(changed)?;
        return Ok(0);
    }
    let SecretChanged { repo, name, .. } = changed;
    let done = match changed.change {
        SecretChange::Created => "is set",
        SecretChange::Replaced => "has the new value",
        SecretChange::Unchanged => "has this value already",
        SecretChange::Removed => "is removed",
    };
    cx.output
        .ok(format_args!("Secret {name} of {repo} {done}."))?;
    for slug in &changed.needs_restart {
        let text = format!("{slug} has a former value of {name} and needs a restart");
        let hint = format!("`preview update {slug}` restarts it.");
        cx.output.finding(Finding::Warning, text, Some(&hint))?;
    }
    Ok(0)
}

fn render(secrets: &RepoSecrets) -> String {
    if secrets.secrets.is_empty() {
        return "(no secrets)\n".to_owned();
    }
    let slugs = |slugs: &[GuestName]| {
        let slugs: Vec<_> = slugs.iter().map(GuestName::as_str).collect();
        or_dash((!slugs.is_empty()).then(|| slugs.join(", ")))
    };
    let row = |secret: &SecretView| {
        [
            secret.name.to_string(),
            secret.state.to_string(),
            slugs(&secret.used_by),
            slugs(&secret.needs_restart),
        ]
    };
    let rows = secrets.secrets.iter().map(row).collect();
    table(["KEY", "STATE", "USED BY", "NEEDS RESTART"], rows, &[2, 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_no_part_of_a_value() {
        for (text, value) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a \n", " a "),
        ] {
            assert_eq!(without_line_break(text), value, "{text:?}");
        }
    }
}
