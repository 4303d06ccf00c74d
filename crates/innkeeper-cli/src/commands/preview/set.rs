//! `preview set`.

use clap::Args;
use innkeeper_model::preview::Visibility;
use innkeeper_model::preview::api::{SetVisibility, VisibilityReport};
use innkeeper_model::{IdlePolicy, IdleRequest, RestReport};

use super::PreviewArgument;
use crate::arguments::{VisibilityWord, idle_policy, visibility};
use crate::context::Context;
use crate::failure::Status;

/// Change what happens to a preview while it is idle, or who may visit it
///
/// The settings end when the preview is removed.
#[derive(Args, Debug)]
pub(crate) struct Set {
    #[command(flatten)]
    preview: PreviewArgument,

    /// sleep (paused, then put to sleep), pause, or always-on
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = idle_policy,
        required_unless_present = "visibility",
        conflicts_with = "visibility"
    )]
    idle: Option<IdlePolicy>,

    /// Visitors of its URLs: public, team, private or default. The host's setting and the repository's own apply if they are
    /// stricter; default leaves it to them
    #[arg(long, value_name = "VISIBILITY", value_parser = visibility)]
    visibility: Option<VisibilityWord>,
}

impl Set {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        match (self.visibility, self.idle) {
            (Some(VisibilityWord(visibility)), _) => self.set_visibility(cx, visibility).await,
            (None, idle) => self.set_idle(cx, idle).await,
        }
    }

    async fn set_idle(&self, cx: &Context, idle: Option<IdlePolicy>) -> Status {
        let request = IdleRequest { idle_policy: idle };
        let response = cx.client.post(&self.preview.path("/idle"), &request).await;
        let report: RestReport = self.preview.suggest(cx, response).await?;
        let slug = &self.preview.slug;
        if let Some(idle) = idle {
            cx.output
                .ok(format_args!("Preview {slug} has the idle policy {idle}."))?;
        }
        if cx.output.is_json() {
            cx.output.value(&report)?;
        }
        Ok(0)
    }

    async fn set_visibility(&self, cx: &Context, visibility: Option<Visibility>) -> Status {
        let request = SetVisibility { visibility };
        let path = self.preview.path("/visibility");
        let response = cx.client.post(&path, &request).await;
        let report: VisibilityReport = self.preview.suggest(cx, response).await?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
            return Ok(0);
        }
        let (slug, visibility) = (&self.preview.slug, report.visibility);
        let visitors = visibility.visitors();
        cx.output.ok(format_args!(
            "Preview {slug} is {visibility}: its URLs serve {visitors}."
        ))?;
        if report.closed {
            cx.output.note(
                "It is closed: this host has no gateway to check visitors (gateway.enabled).",
            );
        }
        Ok(0)
    }
}
