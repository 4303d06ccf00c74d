//! Findings about settings of the daemon: their effect on guests that exist, on the rules and on previews' URLs.

use std::collections::{BTreeMap, BTreeSet};

use innkeeper_model::api::Setting;

use super::finding::{Class, Effect, Finding, Severity};

type Values = BTreeMap<String, String>;

/// The guests and the previews' URLs of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Existing {
    /// Names of guests that run.
    pub(crate) running: Vec<String>,
    /// Names of all guests.
    pub(crate) guests: Vec<String>,
    /// URLs of all previews.
    pub(crate) urls: Vec<String>,
}

/// Settings that decide whether a daemon finds guests that exist.
const IDENTITY: [&str; 3] = ["state_dir", "supervisor.kind", "supervisor.unit_prefix"];

/// Settings that are part of previews' URLs.
const URL: [&str; 3] = ["previews.domain", "previews.port", "previews.scheme"];

/// Returns the values of both generations by name. A setting that only one release has, with its default, is left out.
pub(crate) fn pair(old: &[Setting], new: &[Setting]) -> (Values, Values) {
    let values = |of: &[Setting], others: &[Setting]| {
        let others: BTreeSet<&str> = others.iter().map(|setting| setting.name.as_str()).collect();
        of.iter()
            .filter(|setting| setting.origin != "default" || others.contains(setting.name.as_str()))
            .map(|setting| (setting.name.clone(), setting.value.clone()))
            .collect()
    };
    (values(old, new), values(new, old))
}

/// Returns the findings about all settings that differ. `domain` is the new domain of previews, if it is known.
pub(crate) fn findings(
    old: &Values,
    new: &Values,
    domain: Option<&str>,
    existing: &Existing,
) -> Vec<Finding> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter_map(|name| {
        let (before, after) = (old.get(name), new.get(name));
        (before != after).then(|| (name.as_str(), shown(before), shown(after)))
    });
    let mut findings = Vec::new();
    let mut moved = false;
    for (name, before, after) in changed {
        let values = format!("{name}: {before} becomes {after}.");
        if URL.contains(&name) && !existing.urls.is_empty() {
            if !std::mem::replace(&mut moved, true) {
                findings.push(routes(domain, &values, existing));
            }
            continue;
        }
        findings.push(setting(name, &values, &before, old, existing));
    }
    findings
}

fn shown(value: Option<&String>) -> String {
    value.map_or("(no such setting)", String::as_str).to_owned()
}

/// Returns the finding about previews' URLs, which follow from several settings.
fn routes(domain: Option<&str>, values: &str, existing: &Existing) -> Finding {
    let urls = existing.urls.clone();
    match domain {
        Some(domain) => Finding::of(
            Class::Route,
            urls,
            Effect::Move,
            Severity::Interruption,
            format!("{values} Each preview gets a URL below {domain} when the daemon has restarted; the URLs above and links to them stop working."),
        )
        .with_remedy("DNS and the certificate must have the new names before the switch."),
        None => Finding::of(
            Class::Route,
            urls,
            Effect::Close,
            Severity::Cut,
            format!("{values} Without a domain, the daemon does not serve previews: no delivery updates them, and their URLs lead to them until Caddy is started again."),
        )
        .with_remedy("Keep previews.domain, or destroy the previews before the switch."),
    }
}

fn setting(name: &str, values: &str, before: &str, old: &Values, existing: &Existing) -> Finding {
    let of = |class, effect, severity, reason: String| {
        Finding::new(class, name, effect, severity, reason)
    };
    let section = name.split('.').next().unwrap_or(name);
    match name {
        _ if IDENTITY.contains(&name) && !existing.running.is_empty() => Finding::of(
            Class::Guest,
            existing.running.clone(),
            Effect::Orphan,
            Severity::Cut,
            format!("{values} The new daemon does not find these guests: they run on without it, and hold their addresses and files."),
        )
        .with_remedy(format!("Keep {name}, or stop the guests before the switch.")),
        "storage.driver" | "storage.volume_group" | "storage.pool"
            if !existing.guests.is_empty() && is_thin(old) =>
        {
            Finding::of(
                Class::Guest,
                existing.guests.clone(),
                Effect::Orphan,
                Severity::Cut,
                format!("{values} The daemon does not find the volumes of these guests: at their next start after a reboot, they have empty file trees."),
            )
            .with_remedy(format!(
                "Keep {name}, or destroy the guests before the switch (`innkeeper backup` keeps their files)."
            ))
        }
        "network.table" => of(
            Class::Firewall,
            Effect::Change,
            Severity::Interruption,
            format!("{values} The former table stays and filters guests, too, until it is deleted."),
        )
        .with_remedy(format!(
            "Delete it after the switch: `nft delete table inet {}`.",
            before.trim_matches('"')
        )),
        "network.host_ports" | "network.refuse" | "network.allow_dns" | "dns.port"
        | "network.connections_per_guest" | "caddy.guest_port" => of(
            Class::Firewall,
            Effect::Change,
            if existing.guests.is_empty() { Severity::Note } else { Severity::Interruption },
            format!("{values} The rules of all guests follow when the daemon restarts."),
        ),
        "guest.user_namespace" | "guest.no_new_privileges" | "supervisor.machine_prefix" => of(
            Class::Setting,
            Effect::Change,
            Severity::Note,
            format!("{values} Guests that run are not affected until their next start."),
        ),
        "nix.gcroots_dir" | "evaluation.gcroots_dir" => of(
            Class::Setting,
            Effect::Change,
            Severity::Note,
            format!("{values} The roots are created again in the new folder; those in the former one stay."),
        )
        .with_remedy("Remove the former folder after the switch."),
        "runtime_dir" | "api.socket" | "api.group" => of(
            Class::Setting,
            Effect::Change,
            Severity::Interruption,
            format!("{values} Programs that use the former socket or group are refused."),
        ),
        _ if section == "guest" || section == "storage" => of(
            Class::Setting,
            Effect::Change,
            Severity::Note,
            format!("{values} It applies to new guests; those that exist keep theirs."),
        ),
        _ if section == "caddy" => of(
            Class::Route,
            Effect::Change,
            Severity::Note,
            format!("{values} The daemon writes the routes again when it restarts, and reloads Caddy."),
        ),
        "network.subnet" | "network.slots" => of(
            Class::Firewall,
            Effect::Change,
            Severity::Note,
            format!("{values} It applies to new guests: the daemon does not start while a guest has an address outside of it."),
        ),
        "network.nameservers" => of(
            Class::Firewall,
            Effect::Change,
            Severity::Note,
            format!("{values} Guests that exist follow when the daemon restarts."),
        ),
        _ => of(
            Class::Setting,
            Effect::Change,
            Severity::Note,
            format!("{values} It takes effect when the daemon restarts."),
        ),
    }
}

/// Reports whether guests have volumes. Directories are kept under any driver.
fn is_thin(old: &Values) -> bool {
    let driver = old.get("storage.driver");
    driver.is_some_and(|driver| driver.trim_matches('"') == "lvm-thin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn existing() -> Existing {
        Existing {
            running: vec!["web".to_owned()],
            guests: vec!["web".to_owned(), "old".to_owned()],
            urls: vec!["https://web-1.a.example".to_owned()],
        }
    }

    #[test]
    fn settings_of_identity_orphan_running_guests() {
        for name in IDENTITY {
            let (old, new) = (values(&[(name, "\"a\"")]), values(&[(name, "\"b\"")]));
            let findings = findings(&old, &new, None, &existing());
            assert_eq!(findings.len(), 1, "{name}");
            let finding = &findings[0];
            assert_eq!(
                (finding.class, finding.effect),
                (Class::Guest, Effect::Orphan)
            );
            assert_eq!(
                (finding.severity, &finding.objects),
                (Severity::Cut, &vec!["web".to_owned()])
            );
        }
    }

    #[test]
    fn another_storage_loses_the_volumes_of_guests() {
        let of = |driver: &str, name: &str, before: &str, after: &str, existing: &Existing| {
            let driver = ("storage.driver", driver);
            let (old, new) = (
                values(&[driver, (name, before)]),
                values(&[driver, (name, after)]),
            );
            let found = findings(&old, &new, None, existing);
            (found[0].severity, found[0].objects.clone())
        };
        let (thin, dir) = ("\"lvm-thin\"", "\"dir\"");
        let lost = (Severity::Cut, existing().guests);
        for name in ["storage.pool", "storage.volume_group"] {
            assert_eq!(of(thin, name, "\"a\"", "\"b\"", &existing()), lost);
            assert_eq!(
                of(dir, name, "\"a\"", "\"b\"", &existing()).0,
                Severity::Note
            );
        }
        assert_eq!(of(thin, "storage.driver", thin, dir, &existing()), lost);
        let kept = of(dir, "storage.driver", dir, thin, &existing());
        assert_eq!(kept.0, Severity::Note);
        let none = of(thin, "storage.pool", "\"a\"", "\"b\"", &Existing::default());
        assert_eq!(none.0, Severity::Note);
    }

    #[test]
    fn a_new_domain_moves_urls_once_and_a_missing_one_cuts_them() {
        let old = values(&[("previews.domain", "\"a.example\""), ("previews.port", "0")]);
        let new = values(&[
            ("previews.domain", "\"b.example\""),
            ("previews.port", "8443"),
        ]);
        let moved = findings(&old, &new, Some("b.example"), &existing());
        assert_eq!(moved.len(), 1);
        assert_eq!(
            (moved[0].effect, moved[0].severity),
            (Effect::Move, Severity::Interruption)
        );
        let cut = findings(&old, &new, None, &existing());
        assert_eq!(
            (cut[0].effect, cut[0].severity),
            (Effect::Close, Severity::Cut)
        );
        // Without previews it is a setting like any other.
        let alone = findings(&old, &new, Some("b.example"), &Existing::default());
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn defaults_of_settings_that_one_release_lacks_are_left_out() {
        let setting = |name: &str, origin: &str| Setting {
            name: name.to_owned(),
            value: "1".to_owned(),
            origin: origin.to_owned(),
        };
        let (old, new) = pair(
            &[setting("both", "default"), setting("gone", "default")],
            &[
                setting("both", "default"),
                setting("new", "default"),
                setting("set", "file"),
            ],
        );
        assert_eq!(old, values(&[("both", "1")]));
        assert_eq!(new, values(&[("both", "1"), ("set", "1")]));
    }

    #[test]
    fn equal_settings_have_no_findings() {
        let old = values(&[("log.level", "\"info\"")]);
        assert_eq!(findings(&old, &old, None, &existing()), []);
    }

    #[test]
    fn another_table_names_the_command_that_removes_the_former_one() {
        let (old, new) = (
            values(&[("network.table", "\"innkeeper\"")]),
            values(&[("network.table", "\"x\"")]),
        );
        let findings = findings(&old, &new, None, &existing());
        let remedy = findings[0].remedy.as_deref().expect("a remedy");
        assert!(
            remedy.contains("`nft delete table inet innkeeper`"),
            "{remedy}"
        );
    }
}
