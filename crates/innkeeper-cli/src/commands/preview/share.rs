//! `preview share`, `preview shares`, `preview unshare` and `preview token`.

use clap::Args;
use innkeeper_model::access::{
    BYPASS_LIFETIME, CreateGrant, CreatedGrant, GrantId, GrantKind, GrantRecord, InvalidGrant,
};

use super::PreviewArgument;
use crate::arguments::grant_lifetime;
use crate::context::Context;
use crate::describe::time;
use crate::failure::Status;
use crate::table::table;

/// Create a link with which a person may visit a preview that is not public
///
/// The link is the only line on standard output. The host keeps a digest of it: a link that is lost cannot be shown again.
#[derive(Args, Debug)]
pub(crate) struct Share {
    #[command(flatten)]
    preview: PreviewArgument,

    /// Lifetime, such as 12h, 30d or 8w; at most a year [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = grant_lifetime)]
    expires: Option<u64>,
}

/// Create a token with which a program, such as a test in CI, may visit a preview that is not public
///
/// The program sends it in the header X-Innkeeper-Bypass, or as `Authorization: Bearer TOKEN`. The token is the only line on standard
/// output. The host keeps a digest of it: a token that is lost cannot be shown again.
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(flatten)]
    preview: PreviewArgument,

    /// Lifetime, such as 12h, 30d or 8w; at most a year [default: 90d]
    #[arg(long, value_name = "TIME", value_parser = grant_lifetime)]
    expires: Option<u64>,
}

/// List the share links and tokens of a preview that have not expired
#[derive(Args, Debug)]
pub(crate) struct Shares {
    #[command(flatten)]
    preview: PreviewArgument,
}

/// Revoke a share link or token of a preview, also for those who have used it
#[derive(Args, Debug)]
pub(crate) struct Unshare {
    #[command(flatten)]
    preview: PreviewArgument,

    /// Number of the share link or token (`preview shares`)
    #[arg(value_parser = grant_id)]
    id: GrantId,
}

fn grant_id(text: &str) -> Result<GrantId, InvalidGrant> {
    text.parse()
}

impl Share {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        create(cx, &self.preview, GrantKind::Share, self.expires).await
    }
}

impl Token {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let expires = self.expires.or(Some(BYPASS_LIFETIME.0));
        create(cx, &self.preview, GrantKind::Bypass, expires).await
    }
}

async fn create(
    cx: &Context,
    preview: &PreviewArgument,
    kind: GrantKind,
    expires_seconds: Option<u64>,
) -> Status {
    let request = CreateGrant {
        kind,
        expires_seconds,
    };
    let response = cx.client.post(&preview.path("/grants"), &request).await;
    let created: CreatedGrant = preview.suggest(cx, response).await?;
    cx.output
        .show(&created, |created| format!("{}\n", created.secret))?;
    if !cx.output.is_silent() {
        let (slug, record) = (&preview.slug, &created.record);
        let (what, end) = (name(kind), time(record.expires_at));
        cx.output.note(&format!(
            "This {what} opens preview {slug} until {end}: it is not shown again. `preview unshare {slug} {}` revokes it.",
            record.id
        ));
    }
    if created.is_public && !cx.output.is_json() {
        cx.output
            .note("The preview is public: everybody may visit it.");
    }
    Ok(0)
}

fn name(kind: GrantKind) -> &'static str {
    match kind {
        GrantKind::Share => "link",
        GrantKind::Bypass => "token",
    }
}

impl Shares {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let response = cx.client.get(&self.preview.path("/grants")).await;
        let grants: Vec<GrantRecord> = self.preview.suggest(cx, response).await?;
        cx.output.show(&grants, |grants| render(grants))?;
        Ok(0)
    }
}

fn render(grants: &[GrantRecord]) -> String {
    if grants.is_empty() {
        return "(no share links or tokens)\n".to_owned();
    }
    let row = |grant: &GrantRecord| {
        [
            grant.id.to_string(),
            name(grant.kind).to_owned(),
            time(grant.expires_at),
            time(grant.created_at),
            grant.created_by.clone(),
        ]
    };
    let rows = grants.iter().map(row).collect();
    table(["ID", "KIND", "EXPIRES", "CREATED", "BY"], rows, &[4, 3])
}

impl Unshare {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let (slug, id) = (&self.preview.slug, self.id);
        let path = self.preview.path(&format!("/grants/{id}"));
        let response = cx.client.delete(&path).await;
        let revoked: GrantRecord = self.preview.suggest(cx, response).await?;
        if cx.output.is_json() {
            cx.output.value(&revoked)?;
        } else {
            let what = name(revoked.kind);
            cx.output.ok(format_args!(
                "The {what} {id} of preview {slug} is revoked."
            ))?;
        }
        Ok(0)
    }
}
