//! Findings of checks, as people read them.

use innkeeper_model::api::{Check, Verdict};

use crate::commands::Context;
use crate::describe::{count, plain};
use crate::failure::CommandError;
use crate::output::Finding;

/// Prints each link of a chain with its remedy, and how many there are.
pub(crate) fn print(cx: &Context, checks: &[Check]) -> Result<(), CommandError> {
    for check in checks {
        print_check(cx, check)?;
    }
    let number = |verdict| checks.iter().filter(|c| c.verdict == verdict).count();
    let (broken, doubtful) = (number(Verdict::Broken), number(Verdict::Warning));
    let doubtful = match doubtful {
        0 => String::new(),
        _ => format!(", {}", count(doubtful, "warning")),
    };
    let links = count(checks.len(), "link");
    cx.output.text(match broken {
        0 => format!("{links} checked: nothing is broken{doubtful}.\n"),
        _ => format!("{links} checked: {broken} broken{doubtful}.\n"),
    })
}

fn print_check(cx: &Context, check: &Check) -> Result<(), CommandError> {
    let finding = match check.verdict {
        // Whoever wants to see little wants to see what is not as it should be.
        Verdict::Ok if cx.output.is_quiet() => return Ok(()),
        Verdict::Ok => Finding::Good,
        Verdict::Warning => Finding::Doubtful,
        Verdict::Broken => Finding::Bad,
    };
    let text = plain(&format!("{}: {}", check.subject, check.finding));
    cx.output.finding(finding, text, check.remedy.as_deref())
}
