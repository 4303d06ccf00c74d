//! `innkeeper token`.

use clap::{Args, Subcommand};
use innkeeper_model::access::{
    CreateToken, CreatedToken, InvalidRole, Role, TokenName, TokenRecord, TokenState,
};
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;

use crate::arguments::token_lifetime;
use crate::context::Context;
use crate::describe::time;
use crate::failure::Status;
use crate::table::{or_dash, table};

/// Create, list and revoke the tokens of other machines
///
/// A token lets a person or program on another machine use this host through the gateway (gateway.enabled), with the rights
/// of a role. Only root and tokens of the role admin can manage tokens.
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

/// List the valid tokens
#[derive(Args, Debug)]
struct List {
    /// List expired and revoked tokens too
    #[arg(long, short)]
    all: bool,
}

/// Revoke a token: it is refused from then on
#[derive(Args, Debug)]
struct Revoke {
    /// Name of the token
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
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
        let name = &self.name;
        let revoked: TokenRecord = cx.client.delete(&format!("/v1/tokens/{name}")).await?;
        if cx.output.is_json() {
            cx.output.value(&revoked)?;
        } else {
            cx.output.ok(format_args!("Token {name} is revoked."))?;
        }
        Ok(0)
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
            format!("token:{}", token.id),
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
