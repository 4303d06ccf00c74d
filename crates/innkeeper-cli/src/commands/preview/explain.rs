//! `preview explain`.

use clap::Args;
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::api::{Link, PreviewExplanation, SituationCause};

use super::PreviewArgument;
use crate::checks;
use crate::commands::explain::render;
use crate::context::Context;
use crate::describe::plain;
use crate::failure::{CommandError, Status};
use crate::output::Finding;

/// Exit code if a link is broken.
const BROKEN: u8 = 1;

/// Show the cause of a preview's state, and check each link from its URL to its delivery
///
/// The cause comes first, with the decisive lines of its log and the remedy. The links are URL, route, address, unit,
/// closure, commit, report and delivery. Exits with 1 if a link is broken.
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
            if let Some(rest) = &explanation.rest {
                cx.output.text(format_args!("\n{}", render(rest)))?;
            }
        }
        Ok(explanation.first_broken().map_or(0, |_| BROKEN))
    }
}

fn print(cx: &Context, explanation: &PreviewExplanation) -> Result<(), CommandError> {
    if let Some(cause) = &explanation.cause {
        print_cause(cx, explanation, cause)?;
    }
    let remedy_of_cause = explanation
        .cause
        .as_ref()
        .and_then(|cause| cause.remedy.as_ref());
    // The remedy of the cause appears with it only.
    let chain: Vec<Check> = (explanation.chain.iter())
        .map(|link| match link.remedy.as_ref() == remedy_of_cause {
            true => Check {
                remedy: None,
                ..check(link)
            },
            false => check(link),
        })
        .collect();
    checks::print(cx, &chain)
}

fn print_cause(
    cx: &Context,
    explanation: &PreviewExplanation,
    cause: &SituationCause,
) -> Result<(), CommandError> {
    let finding = match cause.verdict {
        Verdict::Ok if cx.output.is_quiet() => return Ok(()),
        Verdict::Ok => Finding::Ok,
        Verdict::Warning => Finding::Warning,
        Verdict::Broken => Finding::Broken,
    };
    let code = cause
        .code
        .map_or(String::new(), |code| format!(" ({code})"));
    let text = plain(&format!("{}: {}{code}", explanation.slug, cause.finding));
    cx.output.finding(finding, text, cause.remedy.as_deref())?;
    for line in &cause.log {
        cx.output.text(format_args!("        {}\n", plain(line)))?;
    }
    Ok(())
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
