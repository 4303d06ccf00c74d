//! Human-readable reports of checks.

use innkeeper_model::api::{Check, Verdict};

use crate::context::Context;
use crate::describe::{count, plain};
use crate::failure::CommandError;
use crate::output::Finding;

/// Prints each check with its remedy, then a summary.
pub(crate) fn print(cx: &Context, checks: &[Check]) -> Result<(), CommandError> {
    for check in checks {
        print_check(cx, check)?;
    }
    let number = |verdict| checks.iter().filter(|c| c.verdict == verdict).count();
    let (broken, warnings) = (number(Verdict::Broken), number(Verdict::Warning));
    let warnings = match warnings {
        0 => String::new(),
        _ => format!(", {}", count(warnings, "warning")),
    };
    let links = count(checks.len(), "link");
    cx.output.text(match broken {
        0 => format!("{links} checked: nothing is broken{warnings}.\n"),
        _ => format!("{links} checked: {broken} broken{warnings}.\n"),
    })
}

fn print_check(cx: &Context, check: &Check) -> Result<(), CommandError> {
    let finding = match check.verdict {
        // With --quiet, only problems are printed.
        Verdict::Ok if cx.output.is_quiet() => return Ok(()),
        Verdict::Ok => Finding::Ok,
        Verdict::Warning => Finding::Warning,
        Verdict::Broken => Finding::Broken,
    };
    let text = plain(&format!("{}: {}", check.subject, check.finding));
    cx.output.finding(finding, text, check.remedy.as_deref())
}
