//! Findings about the server.

use innkeeper_model::api::{Check, Verdict};

/// Returns a finding. An empty remedy means none.
pub(super) fn check(verdict: Verdict, finding: String, remedy: &str) -> Check {
    Check {
        subject: "databases".to_owned(),
        verdict,
        finding,
        remedy: (!remedy.is_empty()).then(|| remedy.to_owned()),
    }
}
