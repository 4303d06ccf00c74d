//! Findings about declared agents: the changes of `innkeeper-agents.service`.

use innkeeper_model::GuestName;

use super::finding::{Class, Effect, Finding, Severity};
use crate::commands::apply::Outlook;

/// Returns the findings about the agents that `innkeeper apply` would change.
pub(crate) fn findings(outlook: Vec<(GuestName, Outlook)>) -> Vec<Finding> {
    outlook
        .into_iter()
        .filter_map(|(name, outlook)| finding(&name, outlook))
        .collect()
}

fn finding(name: &GuestName, outlook: Outlook) -> Option<Finding> {
    let of = |effect, severity, reason: String| {
        Finding::new(Class::Agent, name.as_str(), effect, severity, reason)
    };
    Some(match outlook {
        Outlook::Keep => return None,
        Outlook::Create => of(
            Effect::Create,
            Severity::Note,
            "It is declared, and does not exist yet.".to_owned(),
        ),
        Outlook::Limits => of(
            Effect::Update,
            Severity::Interruption,
            "Its declaration has other limits: it restarts with them if it runs.".to_owned(),
        ),
        Outlook::Retry => of(
            Effect::Update,
            Severity::Note,
            "Its last change failed, and is requested again.".to_owned(),
        ),
        Outlook::Rebuild => of(
            Effect::Update,
            Severity::Note,
            "Its flake is built again. If it has changed, the agent switches in place where it can, and restarts where it cannot.".to_owned(),
        ),
        Outlook::Closure => of(
            Effect::Update,
            Severity::Interruption,
            "It gets another closure: it switches in place where it can, and restarts where it cannot.".to_owned(),
        ),
        Outlook::Destroy => of(
            Effect::Destroy,
            Severity::Interruption,
            "It is not declared any more, and services.innkeeper.removeUndeclaredAgents is on.".to_owned(),
        )
        .with_remedy(format!(
            "Keep its declaration; or `agent undelete {name}` brings it back while its files are retained."
        )),
        Outlook::Refuse(failure) => {
            let finding = of(Effect::Keep, Severity::Note, format!("{}.", failure.message));
            match failure.remedy {
                Some(remedy) => finding.with_remedy(remedy),
                None => finding,
            }
        }
    })
}
