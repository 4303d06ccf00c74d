//! `preview explain`.

use clap::Args;
use innkeeper_model::api::Check;
use innkeeper_model::preview::api::{Link, PreviewExplanation};

use super::{Context, Which};
use crate::checks;
use crate::failure::{CommandError, Status};
use crate::output::Finding;

/// The exit code when the chain is broken.
const BROKEN: u8 = 1;

/// Check every link from a preview's URL to the delivery that asked for it
///
/// URL, route, address, unit, closure, commit, delivery: the first broken one is named at the end, with what to do
/// about it. Exits with 1 when one is broken.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    #[command(flatten)]
    which: Which,
}

impl Explain {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let answer = cx.client.get(&self.which.path("/explain")).await;
        let explanation: PreviewExplanation = self.which.suggest(cx, answer).await?;
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
    // What to do first stands at the end, and there alone.
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
        .finding(Finding::Bad, text, first.remedy.as_deref())
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
