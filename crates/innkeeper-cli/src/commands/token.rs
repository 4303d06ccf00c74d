//! `innkeeper token`.

use clap::{Args, Subcommand};
use innkeeper_model::access::{
    CreateToken, CreatedToken, InvalidRole, Role, TokenName, TokenRecord, TokenState,
};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Failure};
use jiff::Timestamp;

use crate::arguments::token_lifetime;
use crate::context::Context;
use crate::describe::time;
use crate::failure::{CommandError, Status};
use crate::table::{or_dash, table};

/// Create, list and revoke the tokens of other machines
///
/// A token lets a program on another machine use this host through the gateway (gateway.enabled), with the rights of a role.
/// The sessions of people who have logged in are in the list too, and can be revoked. Only root and the role admin can manage
/// tokens.
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub(crate) struct TokenCommands {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a token and print it, once
///
/// The token is the only line on standard output. The host keeps a digest of it: a token that is lost cannot be shown again.
#[derive(Args, Debug)]
struct Create {
    /// Name of the token, such as that of its person or program
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,

    /// Rights: viewer sees guests, previews, logs and events; developer also creates agents, and changes previews and its
    /// own agents; operator changes all guests and approves pull requests; admin also manages tokens and the host's upkeep
    #[arg(long, value_name = "ROLE", default_value_t = Role::default(), value_parser = role)]
    role: Role,

    /// Allow only the previews of this repository
    #[arg(long, value_name = "OWNER/NAME", value_parser = RepoName::parse)]
    repo: Option<RepoName>,

    /// Lifetime, such as 12h, 30d or 8w [default: unlimited]
    #[arg(long, value_name = "TIME", value_parser = token_lifetime)]
    expires: Option<u64>,
}

/// List the valid tokens, and the sessions of people
#[derive(Args, Debug)]
struct List {
    /// List expired and revoked tokens too
    #[arg(long, short)]
    all: bool,
}

/// Revoke a token, or end sessions of a person: they are refused from then on
#[derive(Args, Debug)]
struct Revoke {
    /// Name of the token or session
    #[arg(value_parser = TokenName::parse, required_unless_present = "person")]
    name: Option<TokenName>,

    /// End all sessions of a person: a login, or github:583231. The person can log in again while the configuration allows it
    #[arg(long, value_name = "LOGIN", conflicts_with = "name")]
    person: Option<String>,
}

fn role(text: &str) -> Result<Role, InvalidRole> {
    text.parse()
}

impl TokenCommands {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        match self.command {
            TokenCommand::Create(command) => command.run(cx).await,
            TokenCommand::List(command) => command.run(cx).await,
            TokenCommand::Revoke(command) => command.run(cx).await,
        }
    }
}

impl Create {
    async fn run(self, cx: &Context) -> Status {
        let request = CreateToken {
            name: self.name,
            role: self.role,
            repo: self.repo,
            expires_seconds: self.expires,
        };
        let created: CreatedToken = cx.client.post("/v1/tokens", &request).await?;
        cx.output
            .show(&created, |created| format!("{}\n", created.token))?;
        if !cx.output.is_silent() {
            cx.output.note(&created_note(&created.record));
        }
        if !created.gateway_enabled && !cx.output.is_json() {
            cx.output
                .note("No client can use it yet: gateway.enabled is not set on this host.");
        }
        Ok(0)
    }
}

/// Describes a new token.
fn created_note(record: &TokenRecord) -> String {
    let TokenRecord { name, role, .. } = record;
    let previews = match &record.repo {
        Some(repo) => format!(" for the previews of {repo}"),
        None => String::new(),
    };
    let end = match record.expires_at {
        Some(end) => format!(" It expires at {}.", time(end)),
        None => String::new(),
    };
    format!(
        "Token {name} ({role}){previews}: keep it secret, it is not shown again.{end} `innkeeper token revoke {name}` revokes it."
    )
}

impl List {
    async fn run(self, cx: &Context) -> Status {
        let mut tokens: Vec<TokenRecord> = cx.client.get("/v1/tokens").await?;
        let now = cx.client.daemon_time(Timestamp::now());
        tokens.retain(|token| self.all || token.state(now) == TokenState::Valid);
        cx.output.show(&tokens, |tokens| render(tokens, now))?;
        Ok(0)
    }
}

impl Revoke {
    async fn run(self, cx: &Context) -> Status {
        let names = match (self.name, self.person) {
            (Some(name), _) => vec![name],
            (None, person) => sessions_of(cx, &person.unwrap_or_default()).await?,
        };
        let mut revoked = Vec::new();
        for name in &names {
            let path = format!("/v1/tokens/{name}");
            let record: TokenRecord = cx.client.delete(&path).await?;
            let what = if record.person.is_some() {
                "Session"
            } else {
                "Token"
            };
            if !cx.output.is_json() {
                cx.output.ok(format_args!("{what} {name} is revoked."))?;
            }
            revoked.push(record);
        }
        match revoked.as_slice() {
            _ if !cx.output.is_json() => {}
            [one] => cx.output.value(one)?,
            all => cx.output.value(&all)?,
        }
        Ok(0)
    }
}

/// Returns the names of a person's valid sessions.
async fn sessions_of(cx: &Context, person: &str) -> Result<Vec<TokenName>, CommandError> {
    let tokens: Vec<TokenRecord> = cx.client.get("/v1/tokens").await?;
    let now = cx.client.daemon_time(Timestamp::now());
    let is_valid = |token: &&TokenRecord| token.state(now) == TokenState::Valid;
    let is_of = |token: &&TokenRecord| {
        token.person.as_ref().is_some_and(|one| {
            one.login.as_str().eq_ignore_ascii_case(person) || one.id.to_string() == person
        })
    };
    let names: Vec<_> = (tokens.iter().filter(is_valid).filter(is_of))
        .map(|token| token.name.clone())
        .collect();
    if names.is_empty() {
        let message = format!("'{}' has no session", person.escape_debug());
        let failure = Failure::new(Code::TokenNotFound, message);
        return Err(failure
            .with_remedy("`innkeeper token list` shows the sessions of all people.")
            .into());
    }
    Ok(names)
}

/// Returns the actor of a token as the audit log has it: for a session, the person.
fn actor(token: &TokenRecord) -> String {
    match &token.person {
        Some(person) => person.to_string(),
        None => format!("token:{}", token.id),
    }
}

fn render(tokens: &[TokenRecord], now: Timestamp) -> String {
    if tokens.is_empty() {
        return "(no tokens)\n".to_owned();
    }
    let row = |token: &TokenRecord| {
        [
            token.name.to_string(),
            token.role.to_string(),
            or_dash(token.repo.as_ref()),
            token.state(now).to_string(),
            token.expires_at.map_or_else(|| "never".to_owned(), time),
            token.last_used_at.map_or_else(|| "never".to_owned(), time),
            actor(token),
        ]
    };
    let rows = tokens.iter().map(row).collect();
    let header = [
        "NAME",
        "ROLE",
        "REPOSITORY",
        "STATE",
        "EXPIRES",
        "LAST USE",
        "ACTOR",
    ];
    table(header, rows, &[6, 2])
}
