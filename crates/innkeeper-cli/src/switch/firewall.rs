//! Findings about the host's own firewall and certificate, from the facts of both generations.

use super::facts::Facts;
use super::finding::{Class, Effect, Finding, Severity};

/// Returns the findings. `previews` is whether previews exist.
pub(crate) fn findings(old: &Facts, new: &Facts, previews: bool) -> Vec<Finding> {
    use Severity::{Cut, Interruption, Note};
    let mut findings = Vec::new();
    let (before, after) = (&old.firewall, &new.firewall);
    let mut ports = |from: &std::collections::BTreeSet<String>,
                     to: &std::collections::BTreeSet<String>,
                     effect,
                     severity,
                     reason: &str| {
        let ports: Vec<String> = from.difference(to).cloned().collect();
        if !ports.is_empty() {
            findings.push(Finding::of(
                Class::Firewall,
                ports,
                effect,
                severity,
                reason,
            ));
        }
    };
    ports(
        &after.ports,
        &before.ports,
        Effect::Open,
        Note,
        "The host's firewall opens these ports to everybody.",
    );
    let web = ["tcp/80", "tcp/443"];
    let closes_web = web
        .iter()
        .any(|port| before.ports.contains(*port) && !after.ports.contains(*port));
    let severity = if closes_web && previews {
        Cut
    } else {
        Interruption
    };
    ports(
        &before.ports,
        &after.ports,
        Effect::Close,
        severity,
        "The host's firewall closes these ports: new connections are refused, open ones stay.",
    );
    ports(
        &after.guest_ports,
        &before.guest_ports,
        Effect::Open,
        Note,
        "The host's firewall leaves these ports to Innkeeper's rules for guests.",
    );
    ports(
        &before.guest_ports,
        &after.guest_ports,
        Effect::Close,
        Interruption,
        "Guests do not reach these ports of the host any more.",
    );
    if after.flush_ruleset && after.backend == "nftables" {
        findings.push(
            Finding::new(
                Class::Firewall,
                "table inet innkeeper",
                Effect::Close,
                Cut,
                "networking.nftables.flushRuleset is on: each load of the host's rules removes Innkeeper's table, and guests have no network until the daemon restores it.",
            )
            .with_remedy("Set networking.nftables.flushRuleset = false."),
        );
    }
    if before.backend != after.backend && !before.backend.is_empty() {
        findings.push(Finding::new(
            Class::Firewall,
            "networking.firewall",
            Effect::Change,
            if after.backend == "none" {
                Interruption
            } else {
                Note
            },
            format!(
                "The host's firewall is {} and becomes {}. Innkeeper's own table stays.",
                before.backend, after.backend
            ),
        ));
    }
    if old.certificate != new.certificate
        && let (Some(before), Some(after)) = (&old.certificate, &new.certificate)
    {
        findings.push(Finding::new(
            Class::Route,
            "services.innkeeper.caddy.certificate",
            Effect::Change,
            if previews { Interruption } else { Note },
            format!("Previews' certificate is of the kind {before} and becomes {after}. Until the new one exists, connections fail."),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(json: &str) -> Facts {
        serde_json::from_str(json).expect("valid facts")
    }

    #[test]
    fn ports_open_and_close() {
        let old = facts(
            r#"{"firewall": {"backend": "nftables", "ports": ["tcp/22", "tcp/443"], "guestPorts": ["tcp/5432"]}}"#,
        );
        let new = facts(
            r#"{"firewall": {"backend": "nftables", "ports": ["tcp/22", "tcp/8080"], "guestPorts": []}, "later": 1}"#,
        );
        let found = findings(&old, &new, true);
        let short: Vec<_> = found
            .iter()
            .map(|f| (f.objects.join(" "), f.effect, f.severity))
            .collect();
        assert_eq!(
            short,
            [
                ("tcp/8080".to_owned(), Effect::Open, Severity::Note),
                ("tcp/443".to_owned(), Effect::Close, Severity::Cut),
                ("tcp/5432".to_owned(), Effect::Close, Severity::Interruption),
            ]
        );
        assert_eq!(findings(&old, &old, true), []);
    }

    #[test]
    fn a_flush_cuts_guests_off() {
        let old = facts(r#"{"firewall": {"backend": "iptables"}, "certificate": "files"}"#);
        let new = facts(
            r#"{"firewall": {"backend": "nftables", "flushRuleset": true}, "certificate": "acme"}"#,
        );
        let found = findings(&old, &new, false);
        let effects: Vec<_> = found
            .iter()
            .map(|f| (f.class, f.effect, f.severity))
            .collect();
        assert_eq!(
            effects,
            [
                (Class::Firewall, Effect::Close, Severity::Cut),
                (Class::Firewall, Effect::Change, Severity::Note),
                (Class::Route, Effect::Change, Severity::Note),
            ]
        );
    }
}
