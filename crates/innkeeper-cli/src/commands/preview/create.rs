//! `preview create`.

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::preview::api::{CreatePreview, PreviewAccepted};
use innkeeper_model::preview::parse_slug;

use super::{Context, Source};
use crate::failure::Status;
use crate::settle::{Asked, Task, Waiting};

/// Make a preview of a branch
///
/// Returns when the app answers at its URL, which is the last line then. Previews of pull requests are made by
/// themselves.
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    source: Source,

    /// Its name and the first label of its URL: 1 to 40 of a-z, 0-9 and '-'; made from repository and branch when none is given
    #[arg(long, value_parser = parse_slug)]
    slug: Option<GuestName>,

    #[command(flatten)]
    waiting: Waiting,
}

impl Create {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let request = CreatePreview {
            repo: self.source.repo,
            branch: self.source.branch,
            slug: self.slug.map(String::from),
        };
        let asked = Asked::now();
        let accepted: PreviewAccepted = cx.client.post("/v1/previews", &request).await?;
        Task::new("Creating", asked, accepted)
            .bring_up(cx, self.waiting)
            .await
    }
}
