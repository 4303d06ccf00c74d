//! `innkeeper audit`.

use clap::Args;
use innkeeper_model::access::{AuditEntry, DEFAULT_AUDIT_ENTRIES, TokenName};
use jiff::Timestamp;

use crate::context::Context;
use crate::describe::{plain, time};
use crate::failure::Status;
use crate::preview_log::parse_since;
use crate::table::{or_dash, table};

/// Show who changed what
///
/// The host records each request for a change before it is carried out: its actor, the address of a client on another
/// machine, the object and the result. A request without a result had no response yet, or innkeeperd ended before it. Only
/// root and tokens of the role admin can read the log.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// Show only requests of this actor: uid:1000, token:7, file:ci, github:583231, the name of a token or the login of a
    /// person
    #[arg(long, value_name = "ACTOR", value_parser = actor)]
    actor: Option<String>,

    /// Show only requests since a time (2026-11-20T10:00:00Z) or younger than an age (2h)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,

    /// Show at most the newest NUMBER requests
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = DEFAULT_AUDIT_ENTRIES)]
    limit: usize,
}

/// Parses an actor, the name of a token or a login.
fn actor(text: &str) -> Result<String, String> {
    let name = match text.split_once(':') {
        Some(("uid" | "token" | "file" | "github", name)) => name,
        _ => text,
    };
    match TokenName::parse(name) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            "write uid:1000, token:7, file:ci, github:583231, the name of a token or a login"
                .to_owned(),
        ),
    }
}

impl Audit {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let mut path = format!("/v1/audit?limit={}", self.limit);
        if let Some(actor) = &self.actor {
            path.push_str(&format!("&actor={actor}"));
        }
        if let Some(since) = self.since {
            let since = cx.client.daemon_time(since);
            path.push_str(&format!("&since={since}"));
        }
        let entries: Vec<AuditEntry> = cx.client.get(&path).await?;
        cx.output.show(&entries, |entries| render(entries))?;
        Ok(0)
    }
}

fn render(entries: &[AuditEntry]) -> String {
    if entries.is_empty() {
        return "(no entries)\n".to_owned();
    }
    let row = |entry: &AuditEntry| {
        let actor = match (&entry.token, &entry.login) {
            (Some(name), _) => format!("{} ({name})", entry.actor),
            (None, Some(login)) => format!("{login} ({})", entry.actor),
            (None, None) => entry.actor.clone(),
        };
        [
            time(entry.time),
            plain(&actor),
            or_dash(entry.source.as_deref().map(plain)),
            plain(&entry.verb),
            or_dash(entry.object.as_deref().map(plain)),
            or_dash(entry.result.as_deref().map(plain)),
        ]
    };
    let rows = entries.iter().map(row).collect();
    table(
        ["TIME", "ACTOR", "SOURCE", "VERB", "OBJECT", "RESULT"],
        rows,
        &[2],
    )
}
