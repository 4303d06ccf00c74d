//! Commands of `preview`, one file for each.

mod approve;
mod build;
mod check;
mod connect;
mod cp;
mod create;
mod db;
mod destroy;
mod exec;
mod explain;
mod init;
mod keepalive;
mod list;
mod logs;
mod open;
mod pause;
mod port_forward;
mod set;
mod share;
mod sleep;
mod ssh;
mod start;
mod stop;
mod update;
mod wake;

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::preview::api::PreviewAccepted;
use innkeeper_model::preview::{BranchName, PreviewView, RepoName};

pub(crate) use self::approve::Approve;
pub(crate) use self::build::Build;
pub(crate) use self::check::Check;
pub(crate) use self::connect::Connect;
pub(crate) use self::cp::Cp;
pub(crate) use self::create::Create;
pub(crate) use self::db::Db;
pub(crate) use self::destroy::Destroy;
pub(crate) use self::exec::Exec;
pub(crate) use self::explain::Explain;
pub(crate) use self::init::Init;
pub(crate) use self::keepalive::Keepalive;
pub(crate) use self::list::List;
pub(crate) use self::logs::Logs;
pub(crate) use self::open::Open;
pub(crate) use self::pause::Pause;
pub(crate) use self::port_forward::PortForward;
pub(crate) use self::set::Set;
pub(crate) use self::share::{Share, Shares, Token, Unshare};
pub(crate) use self::sleep::Sleep;
pub(crate) use self::ssh::Ssh;
pub(crate) use self::start::Start;
pub(crate) use self::stop::Stop;
pub(crate) use self::update::Update;
pub(crate) use self::wake::Wake;
use crate::arguments::existing_slug;
use crate::client::preview_path;
use crate::context::Context;
use crate::failure::CommandError;
use crate::preview_change::PreviewChange;
use crate::suggest::suggest;

/// The preview to which a command applies.
#[derive(Args, Debug)]
struct PreviewArgument {
    /// Slug of the preview (`preview list`)
    #[arg(value_parser = existing_slug)]
    slug: GuestName,
}

impl PreviewArgument {
    /// Returns the preview's API path, with `rest` appended.
    fn path(&self, rest: &str) -> String {
        preview_path(&self.slug, rest)
    }

    /// Returns the preview.
    async fn view(&self, cx: &Context) -> Result<PreviewView, CommandError> {
        self.suggest(cx, cx.client.get(&self.path("")).await).await
    }

    /// Sends the request for a change. `verb` is a participle such as `Updating`.
    async fn change(
        &self,
        cx: &Context,
        verb: &str,
        request: impl Future<Output = Result<PreviewAccepted, CommandError>>,
    ) -> Result<PreviewChange, CommandError> {
        PreviewChange::request(verb, async { self.suggest(cx, request.await).await }).await
    }

    /// Adds a suggestion to a response if no preview has this slug.
    async fn suggest<T>(
        &self,
        cx: &Context,
        response: Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        suggest(&cx.client, &self.slug, response).await
    }
}

/// A branch of a repository on GitHub.
#[derive(Args, Debug)]
struct BranchArguments {
    /// Repository on GitHub
    #[arg(value_name = "OWNER/REPO")]
    repo: RepoName,

    /// Name of the branch
    branch: BranchName,
}
