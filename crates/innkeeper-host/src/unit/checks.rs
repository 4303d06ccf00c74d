//! Checks of the host's requirements of units, for `doctor`.

use std::path::Path;

use innkeeper_model::Explain;
use innkeeper_model::api::{Check, Verdict};

use super::process::find_program;

/// Returns a check without a remedy.
pub(super) fn check(subject: &str, verdict: Verdict, finding: impl Into<String>) -> Check {
    Check {
        subject: format!("unit: {subject}"),
        verdict,
        finding: finding.into(),
        remedy: None,
    }
}

/// Checks that the programs are installed.
pub(super) fn programs(programs: &[&Path]) -> Vec<Check> {
    programs
        .iter()
        .map(|program| {
            let subject = program.display().to_string();
            match find_program(program) {
                Ok(path) => check(&subject, Verdict::Ok, path.display().to_string()),
                Err(error) => Check {
                    remedy: error.remedy(),
                    ..check(&subject, Verdict::Broken, error.to_string())
                },
            }
        })
        .collect()
}
