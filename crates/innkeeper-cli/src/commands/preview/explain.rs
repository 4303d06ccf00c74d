//! `preview explain`.

use clap::Args;
use innkeeper_model::api::Check;
use innkeeper_model::preview::api::{Link, PreviewExplanation};

use super::PreviewArgument;
use crate::checks;
use crate::context::Context;
use crate::failure::{CommandError, Status};
use crate::output::Finding;

/// Exit code if a link is broken.
const BROKEN: u8 = 1;

/// Check each link from a preview's URL to its delivery
///
/// The links are URL, route, address, unit, closure, commit and delivery. The first broken link is repeated at the end,
/// with its remedy. Exits with 1 if a link is broken.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Explain {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let response = cx.client.get(&self.preview.path("/explain")).await;
        let explanation: PreviewExplanation = self.preview.suggest(cx, response).await?;
        if cx.output.is_json() {
            cx.output.value(&explanation)?;
        } else {
            print(cx, &explanation)?;
        }
        Ok(explanation.first_broken().map_or(0, |_| BROKEN))
    }
}

fn print(cx: &Context, explanation: &PreviewExplanation) -> Result<(), CommandError> {
    let Some(first) = explanation.first_broken() else {
        let chain: Vec<Check> = explanation.chain.iter().map(check).collect();
        return checks::print(cx, &chain);
    };
    // The remedy of the first broken link appears at the end only.
    let chain: Vec<Check> = (explanation.chain.iter())
        .map(|link| match std::ptr::eq(link, first) {
            true => Check {
                remedy: None,
                ..check(link)
            },
            false => check(link),
        })
        .collect();
    checks::print(cx, &chain)?;
    let text = format!("The first broken link is the {}.", first.link);
    cx.output
        .finding(Finding::Broken, text, first.remedy.as_deref())
}

fn check(link: &Link) -> Check {
    let subject = match link.object.as_str() {
        "" => link.link.to_string(),
        object => format!("{} {object}", link.link),
    };
    Check {
        subject,
        verdict: link.verdict,
        finding: link.finding.clone(),
        remedy: link.remedy.clone(),
    }
}
