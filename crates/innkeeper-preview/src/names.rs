//! Findings of `innkeeper doctor` about names: reserved names from before their reservation, and hosts that two objects
//! claim. Each object keeps the host that it has.

use std::collections::BTreeMap;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::reserved::{prefix_reservation, reservation};
use innkeeper_model::{Guest, GuestKind, GuestName};
use innkeeper_store::Preview;

/// Checks the names of previews, of their extra hosts and of agents.
pub(crate) fn checks(previews: &[Preview], guests: &[Guest]) -> Vec<Check> {
    let agents: Vec<&GuestName> = guests
        .iter()
        .filter(|guest| guest.kind == GuestKind::Agent)
        .map(|guest| &guest.name)
        .collect();
    let mut checks = reserved(previews, &agents);
    checks.extend(conflicts(previews, &agents));
    checks
}

/// Reports names that new objects would not get.
fn reserved(previews: &[Preview], agents: &[&GuestName]) -> Vec<Check> {
    let mut checks = Vec::new();
    for preview in previews {
        let slug = &preview.record.slug;
        if let Some(reason) = reservation(slug.as_str()) {
            checks.push(warning(
                format!("preview {slug}"),
                format!("{reason}; the preview is older and keeps its host"),
                format!("`preview destroy {slug}` frees the name; the next push creates the preview under another one."),
            ));
        }
        for host in preview.live_meta.iter().flat_map(|meta| &meta.extra_hosts) {
            if let Some(reason) = prefix_reservation(&host.prefix) {
                let prefix = &host.prefix;
                checks.push(warning(
                    format!("preview {slug}"),
                    format!(
                        "the prefix '{prefix}' of its extraHosts: {reason}; it is older and stays"
                    ),
                    "Choose another prefix in extraHosts of its preview-config.nix.".to_owned(),
                ));
            }
        }
    }
    for agent in agents {
        if let Some(reason) = reservation(agent.as_str()) {
            checks.push(warning(
                format!("agent {agent}"),
                format!("{reason}; the agent is older and keeps its name"),
                format!("`agent fork {agent} NAME` copies it to another name."),
            ));
        }
    }
    checks
}

/// Reports hosts that several objects claim.
fn conflicts(previews: &[Preview], agents: &[&GuestName]) -> Vec<Check> {
    let mut claims: BTreeMap<GuestName, Vec<String>> = BTreeMap::new();
    for preview in previews {
        let slug = &preview.record.slug;
        claims
            .entry(slug.clone())
            .or_default()
            .push(format!("preview {slug}"));
        for host in preview.live_meta.iter().flat_map(|meta| &meta.extra_hosts) {
            if let Ok(label) = host.label(slug) {
                let claim = format!("preview {slug} with extraHosts");
                claims.entry(label).or_default().push(claim);
            }
        }
    }
    for agent in agents {
        let claim = format!("agent {agent}");
        claims.entry((*agent).clone()).or_default().push(claim);
    }
    let conflicts = claims.into_iter().filter(|(_, claims)| claims.len() > 1);
    conflicts
        .map(|(label, claims)| {
            warning(
                format!("host {label}"),
                format!("several claim it, and the one that had it first keeps it: {}", claims.join(", ")),
                "Choose another prefix in extraHosts, or destroy one of them and create it under another name.".to_owned(),
            )
        })
        .collect()
}

fn warning(subject: String, finding: String, remedy: String) -> Check {
    Check {
        subject,
        verdict: Verdict::Warning,
        finding,
        remedy: Some(remedy),
    }
}

#[cfg(test)]
mod tests;
