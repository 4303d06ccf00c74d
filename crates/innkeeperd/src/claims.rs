//! Claims: the settings whose values no two daemons of a host may share.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use innkeeper_model::SlotBounds;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::{Config, StorageDriver};

/// A setting and its value, which only one daemon of the host may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) setting: String,
    pub(crate) value: String,
}

/// Two claims that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// This daemon's claim.
    pub(crate) own: Claim,
    /// The other daemon's claim.
    pub(crate) other: Claim,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = \"{}\"", self.setting, self.value)
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, other } = self;
        if own == other {
            return own.fmt(f);
        }
        write!(f, "{own} (it uses {other})")
    }
}

/// The rule by which two claims exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Paths of any settings: equal, or one inside the other.
    Path,
    /// Networks that overlap.
    Subnet,
    /// Slots that overlap: they determine interfaces and user ids.
    Slots,
    /// Prefixes with which names of two guests can be equal.
    Prefix,
    /// Tables that are equal, or one is the other's table for builds.
    Table,
    /// Equal values.
    Equal,
}

fn rule(setting: &str, value: &str) -> Rule {
    match setting {
        "network.subnet" => Rule::Subnet,
        "network.slots" => Rule::Slots,
        "network.table" => Rule::Table,
        "supervisor.unit_prefix" | "supervisor.machine_prefix" => Rule::Prefix,
        // The value includes the port, and the directory belongs to PostgreSQL.
        "database.socket_dir" => Rule::Equal,
        _ if value.starts_with('/') => Rule::Path,
        _ => Rule::Equal,
    }
}

impl Claim {
    fn new(setting: &str, value: impl fmt::Display) -> Self {
        Self {
            setting: setting.to_owned(),
            value: value.to_string(),
        }
    }

    fn rule(&self) -> Rule {
        rule(&self.setting, &self.value)
    }

    /// Reports whether two daemons cannot both have these claims.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        if self.rule() == Rule::Path && other.rule() == Rule::Path {
            let (one, two) = (Path::new(&self.value), Path::new(&other.value));
            return one.starts_with(two) || two.starts_with(one);
        }
        if self.setting != other.setting {
            return false;
        }
        let (one, two) = (&*self.value, &*other.value);
        match self.rule() {
            Rule::Subnet => parsed(one, two, |one: Ipv4Net, two| {
                one.contains(&two) || two.contains(&one)
            }),
            Rule::Slots => parsed(one, two, |one: SlotBounds, two| one.overlaps(two)),
            Rule::Prefix => prefixes_collide(one, two),
            Rule::Table => {
                let of_builds = |table: &str, other: &str| {
                    table
                        .strip_prefix(other)
                        .is_some_and(|rest| rest == "_builds")
                };
                one == two || of_builds(one, two) || of_builds(two, one)
            }
            Rule::Path | Rule::Equal => one.eq_ignore_ascii_case(two),
        }
    }
}

/// Applies a rule to two parsed values. Values that cannot be parsed exclude each other.
fn parsed<T: std::str::FromStr>(one: &str, two: &str, rule: impl FnOnce(T, T) -> bool) -> bool {
    match (one.parse(), two.parse()) {
        (Ok(one), Ok(two)) => rule(one, two),
        _ => true,
    }
}

/// Reports whether the names of two guests can be equal with these prefixes.
fn prefixes_collide(one: &str, two: &str) -> bool {
    let rest = one.strip_prefix(two).or_else(|| two.strip_prefix(one));
    // Names of guests contain no upper-case letters and do not begin with '-'.
    let may_begin_a_name =
        |rest: &str| !rest.starts_with('-') && !rest.bytes().any(|byte| byte.is_ascii_uppercase());
    rest.is_some_and(may_begin_a_name)
}

/// Returns the claims of a configuration. `systemd` is whether systemd supervises the guests, `domain` that of previews.
pub(crate) fn of(config: &Config, systemd: bool, domain: Option<&str>) -> Vec<Claim> {
    let path = |setting, path: &Path| Claim::new(setting, resolved(path).display());
    let mut claims = vec![
        path("state_dir", &config.state_dir),
        path("runtime_dir", &config.runtime_dir),
    ];
    let sockets = [
        ("api.socket", config.socket()),
        ("webhook.intake", config.intake_socket()),
    ];
    let outside = sockets
        .into_iter()
        .filter(|(_, socket)| !socket.starts_with(&config.runtime_dir));
    claims.extend(outside.map(|(setting, socket)| path(setting, &socket)));
    let slots = config.network.range().bounds();
    claims.extend(slots.map(|slots| Claim::new("network.slots", slots)));
    claims.extend([
        Claim::new("network.subnet", config.network.subnet.subnet()),
        Claim::new("network.table", &config.network.table),
        Claim::new(
            "supervisor.machine_prefix",
            &config.supervisor.machine_prefix,
        ),
        if systemd {
            Claim::new("supervisor.unit_prefix", &config.supervisor.unit_prefix)
        } else {
            Claim::new("supervisor.cgroup", &config.supervisor.cgroup)
        },
        path("nix.gcroots_dir", &config.nix.gcroots_dir),
    ]);
    if config.storage.driver == StorageDriver::LvmThin {
        claims.push(Claim::new(
            "storage.volume_group",
            &config.storage.volume_group,
        ));
    }
    if let Some(domain) = domain {
        claims.extend([
            Claim::new("previews.domain", domain),
            path("evaluation.gcroots_dir", &config.evaluation.gcroots_dir),
            path("caddy.directory", &config.caddy.directory),
            path("caddy.table", &config.caddy.table),
            path("pages.directory", &config.pages.directory),
            Claim::new("caddy.lookup", config.caddy.lookup),
            Claim::new("caddy.admin", &config.caddy.admin),
        ]);
        if config.dns.port != 0 {
            claims.push(path("dns.directory", &config.dns.directory));
        }
        if !config.database.socket_dir.is_empty() {
            let (folder, port) = (&config.database.socket_dir, config.database.port);
            claims.push(Claim::new(
                "database.socket_dir",
                format_args!("{folder}:{port}"),
            ));
        }
    }
    claims
}

/// Resolves the symbolic links of the existing part of a path.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(above).ok()?))
    });
    // Collecting the components removes the slash of an empty last one.
    existing.map_or_else(|| path.to_owned(), |path| path.components().collect())
}

/// Returns a remedy that suggests a value for each setting in conflict. `all` are the claims of the other daemons.
pub(crate) fn remedy(conflicts: &[Conflict], all: &[Claim]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for Conflict { own, .. } in conflicts {
        let line = suggestion(own, all);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    format!(
        "Configure this daemon with its own values: {}.",
        lines.join("; ")
    )
}

fn suggestion(own: &Claim, all: &[Claim]) -> String {
    let setting = &own.setting;
    let free = |value: &String| {
        let claim = Claim::new(setting, value);
        !all.iter().any(|other| claim.excludes(other))
    };
    let numbered = |write: &dyn Fn(u32) -> String| (2..1000).map(write).find(free);
    let value = &own.value;
    let found = match own.rule() {
        Rule::Path if setting != "caddy.admin" => numbered(&|n| format!("{value}-{n}")),
        Rule::Subnet => (101..256).map(|n| format!("10.{n}.0.0/16")).find(free),
        Rule::Slots => return suggest_slots(all),
        Rule::Prefix if setting == "supervisor.machine_prefix" => numbered(&|n| format!("I{n}-")),
        Rule::Prefix => numbered(&|n| format!("innkeeper{n}-guest-")),
        _ => match &**setting {
            "network.table" => numbered(&|n| format!("innkeeper_{n}")),
            "supervisor.cgroup" => numbered(&|n| format!("innkeeper-{n}")),
            "caddy.lookup" => value.parse().ok().and_then(|address: SocketAddr| {
                (1..100)
                    .map(|n| {
                        SocketAddr::new(address.ip(), address.port().saturating_add(n)).to_string()
                    })
                    .find(free)
            }),
            _ => None,
        },
    };
    match (found, &**setting) {
        (Some(value), _) => format!("{setting} = \"{value}\""),
        (None, "storage.volume_group") => {
            format!("{setting} of another volume group, or storage.driver = \"dir\"")
        }
        (None, "database.socket_dir") => {
            format!("{setting} and database.port of another PostgreSQL, or {setting} = \"\"")
        }
        (None, "caddy.admin") => format!("{setting} of another Caddy"),
        (None, _) => format!("another {setting}"),
    }
}

/// Suggests the largest free range of slots, or how to divide them if none is free.
fn suggest_slots(all: &[Claim]) -> String {
    let mut taken: Vec<SlotBounds> = all
        .iter()
        .filter(|claim| claim.setting == "network.slots")
        .filter_map(|claim| claim.value.parse().ok())
        .collect();
    taken.sort_unstable();
    let whole = SlotBounds::default();
    let (mut free, mut next) = (Vec::new(), whole.first());
    for bounds in taken {
        free.extend(SlotBounds::new(next, bounds.first().saturating_sub(1)));
        next = next.max(bounds.last().saturating_add(1));
    }
    free.extend(SlotBounds::new(next, whole.last()));
    match free
        .into_iter()
        .max_by_key(|bounds| bounds.last() - bounds.first())
    {
        Some(bounds) => format!("network.slots = \"{bounds}\""),
        None => {
            let middle = whole.last() / 2;
            format!(
                "network.slots = \"{}-{}\", after setting network.slots of the other daemon to \"{}-{middle}\"",
                middle + 1,
                whole.last(),
                whole.first()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(setting: &str, value: &str) -> Claim {
        Claim::new(setting, value)
    }

    #[test]
    fn claims_exclude_each_other_if_objects_could_collide() {
        for (setting, one, two, excludes) in [
            ("state_dir", "/var/lib/a", "/var/lib/a", true),
            ("state_dir", "/var/lib/a", "/var/lib/a/b", true),
            ("state_dir", "/var/lib/a", "/var/lib/a-2", false),
            ("network.subnet", "10.1.0.0/16", "10.0.0.0/8", true),
            ("network.subnet", "10.1.0.0/16", "10.2.0.0/16", false),
            ("network.slots", "1-10", "10-20", true),
            ("network.slots", "1-10", "11-20", false),
            ("network.slots", "1-10", "of a newer version", true),
            ("supervisor.machine_prefix", "", "b-", true),
            ("supervisor.machine_prefix", "", "B-", false),
            ("supervisor.machine_prefix", "b", "b-", false),
            (
                "supervisor.unit_prefix",
                "innkeeper-guest-",
                "innkeeper-guest-b-",
                true,
            ),
            (
                "supervisor.unit_prefix",
                "innkeeper-guest-",
                "innkeeper2-guest-",
                false,
            ),
            ("network.table", "innkeeper", "innkeeper", true),
            ("network.table", "innkeeper", "innkeeper_2", false),
            ("network.table", "innkeeper", "innkeeper_builds", true),
            ("previews.domain", "Example.org", "example.org", true),
            (
                "database.socket_dir",
                "/run/postgresql:5432",
                "/run/postgresql:5433",
                false,
            ),
        ] {
            let (one, two) = (claim(setting, one), claim(setting, two));
            assert_eq!(one.excludes(&two), excludes, "{one} {two}");
            assert_eq!(two.excludes(&one), excludes, "{two} {one}");
        }
        // Paths are compared across settings, other values only within one.
        assert!(claim("caddy.table", "/srv/a/t").excludes(&claim("state_dir", "/srv/a")));
        assert!(!claim("network.table", "a").excludes(&claim("supervisor.cgroup", "a")));
    }

    #[test]
    fn remedies_for_default_settings_resolve_the_conflict() {
        let config = Config::default();
        for systemd in [false, true] {
            let all = of(&config, systemd, Some("preview.example.com"));
            for own in &all {
                let conflicts = [Conflict {
                    own: own.clone(),
                    other: own.clone(),
                }];
                let text = remedy(&conflicts, &all);
                assert!(text.contains(&own.setting), "{text}");
                let start = format!("{} = \"", own.setting);
                let Some((_, rest)) = text.split_once(&start) else {
                    continue;
                };
                let value = rest.split('"').next().expect("quoted");
                if own.setting == "network.slots" {
                    assert!(text.contains("of the other daemon"), "{text}");
                } else if !value.is_empty() {
                    let other = claim(&own.setting, value);
                    assert!(!all.iter().any(|one| one.excludes(&other)), "{other}");
                }
            }
        }
    }

    #[test]
    fn suggested_slots_are_the_largest_free_range() {
        let all = [
            claim("network.slots", "100-200"),
            claim("network.slots", "1-10"),
        ];
        assert_eq!(suggest_slots(&all), "network.slots = \"201-32757\"");
        assert!(suggest_slots(&[claim("network.slots", "1-32757")]).contains("16379-32757"));
    }
}
