//! `innkeeper context`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use innkeeper_model::{Code, Failure};
use serde::Serialize;

use crate::context::Context;
use crate::contexts::{ContextName, Contexts, StoredContext};
use crate::failure::{CommandError, Status};
use crate::server_url::ServerUrl;
use crate::table::{or_dash, table};
use crate::target::{Place, parse_url};
use crate::terminal::HiddenInput;
use crate::tls::Trust;
use crate::token::{Token, TokenSource};

/// Manage the hosts that the programs use from this machine
///
/// A context is the URL of a gateway with a token for it. A command uses, in this order: --socket, --url or --context;
/// INNKEEPER_URL, INNKEEPER_CONTEXT or INNKEEPER_SOCKET; the context of `innkeeper context use`; the socket of this machine's
/// daemon. The token is that of the context; for --url and INNKEEPER_URL, that of INNKEEPER_TOKEN, or in the file that
/// INNKEEPER_TOKEN_FILE names.
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub(crate) struct ContextCommands {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    Add(Add),
    Use(Use),
    List(List),
    Rm(Rm),
}

/// Add a context with the URL of --url, or replace the one of this name
///
/// Reads the token from standard input, unless --token-file is given. A token is never an argument: other users of this machine
/// can read those. Contexts are kept in ${XDG_CONFIG_HOME:-~/.config}/innkeeper/contexts.toml, which only you can read.
#[derive(Args, Debug)]
struct Add {
    /// Name of the context
    #[arg(value_parser = ContextName::parse)]
    name: ContextName,

    /// Read the token from this file at each command, for files that are renewed by another program
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Trust the certificate authorities in this PEM file too [default: that of INNKEEPER_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Use a context from now on
#[derive(Args, Debug)]
struct Use {
    /// Name of the context; `local` for this machine's own daemon
    #[arg(value_parser = ContextName::parse)]
    name: ContextName,
}

/// List the contexts, and show which one is in use and why
#[derive(Args, Debug)]
struct List {}

/// Remove a context and its token
#[derive(Args, Debug)]
struct Rm {
    /// Name of the context
    #[arg(value_parser = ContextName::parse)]
    name: ContextName,
}

impl ContextCommands {
    pub(crate) fn run(self, cx: &Context, url: Option<&str>) -> Status {
        match self.command {
            ContextCommand::Add(command) => command.run(cx, url),
            ContextCommand::Use(command) => command.run(cx),
            ContextCommand::List(List {}) => list(cx),
            ContextCommand::Rm(command) => command.run(cx),
        }
    }
}

impl Add {
    fn run(self, cx: &Context, url: Option<&str>) -> Status {
        let name = &self.name;
        if name.is_local() {
            return Err(reserved().into());
        }
        let Some(url) = url else {
            return Err(Failure::new(Code::InvalidRequest, "a context needs the URL of a gateway")
                .with_remedy(format!("Run `innkeeper context add {name} --url https://api.example.org` with the gateway's URL."))
                .into());
        };
        let url = parse_url(url, "--url")?;
        let ca_file = self.ca_file.as_deref().map(absolute).transpose()?;
        // Fails for a file that cannot be used.
        Trust::new(ca_file.clone(), url.is_tls)?;
        let (token, token_file) = match self.token_file.as_deref().map(absolute).transpose()? {
            Some(path) => {
                Token::read_file(&path)?;
                (None, Some(path))
            }
            None => (Some(read_token(cx, name)?), None),
        };
        let stored = StoredContext {
            url: url.to_string(),
            token: token.map(|token| token.secret.expose().to_owned()),
            token_file,
            ca_file,
            login: None,
        };
        let is_new = Contexts::change(|contexts| {
            let former = contexts.contexts.insert(name.as_str().to_owned(), stored);
            Ok(former.is_none())
        })?;
        let verb = if is_new { "added" } else { "replaced" };
        cx.output.ok(format_args!(
            "Context {name} {verb}. `innkeeper context use {name}` uses it for the next commands."
        ))?;
        print_name(cx, name.as_str())
    }
}

impl Use {
    fn run(self, cx: &Context) -> Status {
        let name = &self.name;
        Contexts::change(|contexts| {
            contexts.current = match name.is_local() {
                true => None,
                false => {
                    contexts.get(name.as_str())?;
                    Some(name.as_str().to_owned())
                }
            };
            Ok(())
        })?;
        cx.output
            .ok(format_args!("Commands use {name} from now on."))?;
        print_name(cx, name.as_str())
    }
}

impl Rm {
    fn run(self, cx: &Context) -> Status {
        let name = &self.name;
        if name.is_local() {
            return Err(reserved().into());
        }
        let was_current = Contexts::change(|contexts| {
            contexts.get(name.as_str())?;
            contexts.contexts.remove(name.as_str());
            let was_current = contexts.current.as_deref() == Some(name.as_str());
            if was_current {
                contexts.current = None;
            }
            Ok(was_current)
        })?;
        let then = match was_current {
            true => " Commands use this machine's own daemon from now on.",
            false => "",
        };
        cx.output
            .ok(format_args!("Context {name} removed.{then}"))?;
        print_name(cx, name.as_str())
    }
}

/// With `--json`, prints the name.
fn print_name(cx: &Context, name: &str) -> Status {
    if cx.output.is_json() {
        cx.output.value(&serde_json::json!({ "name": name }))?;
    }
    Ok(0)
}

fn reserved() -> Failure {
    Failure::new(
        Code::InvalidRequest,
        "'local' is the name of this machine's own daemon",
    )
    .with_remedy("Use another name. `innkeeper context use local` selects this machine's daemon.")
}

/// Returns the path from the root: commands run in other directories.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        let message = format!("cannot find the path of {}: {error}", path.display());
        Failure::new(Code::InvalidRequest, message)
    })
}

/// Reads the token from standard input; on a terminal, one line that is not shown.
fn read_token(cx: &Context, name: &ContextName) -> Result<Token, CommandError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(Token::read(stdin, TokenSource::StandardInput)?);
    }
    let prompt = format!("Token for {name} (it is not shown): ");
    let line = HiddenInput::read_line(|| cx.output.prompt(&prompt));
    cx.output.prompt("\n");
    let line = line.map_err(|error| {
        Failure::new(
            Code::Internal,
            format!("cannot read from the terminal: {error}"),
        )
    })?;
    Ok(Token::parse(&line, TokenSource::StandardInput)?)
}

/// A daemon in the list.
#[derive(Debug, Serialize)]
struct Row {
    /// `None` for a URL or a socket that is selected without a context.
    name: Option<String>,
    /// The gateway's URL. `None` for a socket.
    url: Option<String>,
    /// The path of this machine's socket. `None` for a gateway.
    socket: Option<PathBuf>,
    /// `login`, `stored`, `file`, `environment` or `none`.
    token: &'static str,
    /// The person of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    in_use: bool,
    /// The option, variable or command that selected it.
    reason: Option<String>,
}

fn list(cx: &Context) -> Status {
    let contexts = Contexts::load()?;
    let selection = cx.client.selection()?;
    let mut rows = vec![Row {
        name: Some(ContextName::LOCAL.to_owned()),
        url: None,
        socket: Some(cx.socket.clone()),
        token: "none",
        person: None,
        in_use: false,
        reason: None,
    }];
    rows.extend(contexts.contexts.iter().map(|(name, context)| Row {
        name: Some(name.clone()),
        url: Some(context.url.clone()),
        socket: None,
        token: token_kind(context),
        person: context.login.as_ref().map(|login| login.person.clone()),
        in_use: false,
        reason: None,
    }));
    let found = rows.iter().position(|row| match &selection.place {
        Place::Socket(path) => row.socket.as_ref() == Some(path),
        Place::Context(name) => row.name.as_ref() == Some(name),
        Place::Url(_) => false,
    });
    let at = found.unwrap_or_else(|| {
        rows.push(selected(&selection.place));
        rows.len() - 1
    });
    if let Some(row) = rows.get_mut(at) {
        row.in_use = true;
        row.reason = Some(selection.reason.to_string());
    }
    cx.output.show(&rows, |rows| render(rows))?;
    Ok(0)
}

fn token_kind(context: &StoredContext) -> &'static str {
    match (&context.token, &context.token_file) {
        (Some(_), _) if context.login.is_some() => "login",
        (Some(_), _) => "stored",
        (None, Some(_)) => "file",
        (None, None) => environment_kind(),
    }
}

fn environment_kind() -> &'static str {
    match Token::from_environment() {
        Some(_) => "environment",
        None => "none",
    }
}

/// Returns the row of a daemon that no context names.
fn selected(place: &Place) -> Row {
    let (name, url, socket) = match place {
        Place::Socket(path) => (None, None, Some(path.clone())),
        Place::Context(name) => (Some(name.clone()), None, None),
        // A URL that cannot be used may contain a password.
        Place::Url(url) => (
            None,
            ServerUrl::parse(url).ok().map(|url| url.to_string()),
            None,
        ),
    };
    Row {
        name,
        token: url.as_ref().map_or("none", |_| environment_kind()),
        person: None,
        url,
        socket,
        in_use: true,
        reason: None,
    }
}

fn render(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let place = (row.url.clone())
            .or_else(|| row.socket.as_ref().map(|path| path.display().to_string()));
        [
            or_dash(row.name.as_ref()),
            or_dash(place),
            match &row.person {
                Some(person) => format!("{}: {person}", row.token),
                None => row.token.to_owned(),
            },
            if row.in_use { "yes" } else { "" }.to_owned(),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    let rows = rows.iter().map(row).collect();
    table(["NAME", "DAEMON", "TOKEN", "IN USE", "BY"], rows, &[2])
}
