//! Encodes the rules of a host as names of files.
//!
//! Caddy's `file` matcher can list a directory and use the name of a file in it as a placeholder, which is the only data
//! that Caddy 2.6 reads at each request without a subrequest. Each directory that is listed has one file. Its contents have
//! no meaning.
//!
//! ```text
//! live/10.100.0.3:3000                    the only rule: all paths go to this address
//! paths/api=/10.100.0.3:4000=strip        paths below /api/
//! paths/=ws/10.100.0.3:4000               the path /ws
//! paths/=/10.100.0.3:3000                 all other paths
//! rules/api/,/10.100.0.3:4000=strip=http  paths below /api/
//! rules/api=/10.100.0.3:4000=redirect=http
//! rules/ws=/10.100.0.3:4000==http-30      the path /ws, with a transport
//! rules/,/10.100.0.3:3000==http           all other paths
//! ```
//!
//! `rules` is complete: a path for each pattern, with its address, action and transport. Caddy looks up a request's own path
//! and then its parents, so the longest pattern applies. If a pattern has many segments, the directory is [`DEEP_DIR`]
//! instead. [`RoutePath`] excludes `,` and `=`.
//!
//! `live` and `paths` are shortcuts for the usual requests, and absent while a host is held. `paths` has an entry for each
//! first segment; it is [`OTHER`] if only `rules` can tell the address.
//!
//! [`RoutePath`]: innkeeper_model::preview::RoutePath

use std::collections::BTreeMap;
use std::net::SocketAddr;

use innkeeper_model::preview::{RoutePath, RouteProtocol, RouteRule, RouteTimeout};

/// Directory of the address of a host with one rule for all paths.
pub(in crate::route) const LIVE_DIR: &str = "live";

/// Directory of the addresses of a live host by the first segment of the path.
pub(super) const PATHS_DIR: &str = "paths";

/// Directory of all rules of a host.
pub(super) const RULES_DIR: &str = "rules";

/// Directory of all rules of a host with a pattern of more than [`SEGMENTS`] segments.
pub(super) const DEEP_DIR: &str = "deep";

/// Maximum number of segments of a pattern in [`RULES_DIR`].
pub(super) const SEGMENTS: usize = 4;

/// Maximum number of segments of a pattern.
pub(super) const MAX_SEGMENTS: usize = RoutePath::MAX_LENGTH / 2;

/// End of the name of a directory for the paths below a pattern in [`RULES_DIR`].
pub(super) const TREE: char = ',';

/// End of the name of a directory for one path in [`RULES_DIR`]. Separates the two kinds in [`PATHS_DIR`].
pub(super) const EXACT: char = '=';

/// Name in [`PATHS_DIR`] in place of an address.
const OTHER: &str = "other";

/// The action that redirects to the same path with `/` at its end.
pub(super) const REDIRECT: &str = "redirect";

/// The action that removes the pattern's base from the path.
pub(super) const STRIP: &str = "strip";

/// The options of the proxy to an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) protocol: RouteProtocol,
    pub(super) timeout: Option<RouteTimeout>,
}

impl Transport {
    /// Returns all transports that a route can have: `h2c` excludes timeouts.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let without = RouteProtocol::ALL.into_iter().map(|protocol| Self {
            protocol,
            timeout: None,
        });
        without.chain(RouteTimeout::all().map(|timeout| Self {
            protocol: RouteProtocol::default(),
            timeout: Some(timeout),
        }))
    }

    pub(super) fn of(route: &RouteRule) -> Self {
        Self {
            protocol: route.protocol,
            timeout: route.timeout,
        }
    }

    /// Returns the name in the table: `http`, `h2c`, `http-30`.
    pub(super) fn name(self) -> String {
        let protocol = self.protocol.name();
        self.timeout.map_or_else(
            || protocol.to_owned(),
            |timeout| format!("{protocol}-{}", timeout.seconds()),
        )
    }

    /// Reports whether this is not the default.
    pub(super) fn has_options(self) -> bool {
        self != Self::default()
    }
}

/// A rule and its upstream.
pub(super) struct Rule<'a> {
    pub(super) route: &'a RouteRule,
    pub(super) upstream: SocketAddr,
}

/// Returns the files of a host, each as directory and name. The rules must be in order of precedence.
pub(super) fn files(rules: &[Rule<'_>], is_held: bool) -> Vec<(String, String)> {
    let entries = entries(rules);
    let is_deep = rules.iter().any(|rule| segments(rule).count() > SEGMENTS);
    let dir = if is_deep { DEEP_DIR } else { RULES_DIR };
    let file = |(key, name): (&String, &String)| (format!("{dir}/{key}"), name.clone());
    let mut files: Vec<_> = entries.iter().map(file).collect();
    if is_held {
        return files;
    }
    if let [rule] = rules
        && rule.route.path.base().is_empty()
        && !Transport::of(rule.route).has_options()
    {
        files.push((LIVE_DIR.to_owned(), rule.upstream.to_string()));
    } else {
        let shortcuts = shortcuts(rules).into_iter();
        files.extend(shortcuts.map(|(key, name)| (format!("{PATHS_DIR}/{key}"), name)));
    }
    files
}

/// Reports whether Caddy lists the directory with this name below [`PATHS_DIR`], [`RULES_DIR`] or [`DEEP_DIR`], rather than
/// those below it.
pub(in crate::route) fn is_listed_pattern(name: &str) -> bool {
    name.contains([TREE, EXACT])
}

/// Returns the rules by their directories in [`RULES_DIR`].
fn entries(rules: &[Rule<'_>]) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for rule in rules {
        let base = base(rule);
        let mut insert = |key: String, action: &str| {
            let transport = Transport::of(rule.route).name();
            let name = format!("{}={action}={transport}", rule.upstream);
            // The first rule wins.
            entries.entry(key).or_insert(name);
        };
        let tree = match base.as_str() {
            "" => TREE.to_string(),
            base => format!("{base}/{TREE}"),
        };
        if rule.route.strip_prefix && !base.is_empty() {
            insert(format!("{base}{EXACT}"), REDIRECT);
            insert(tree, STRIP);
        } else if rule.route.path.is_tree() {
            insert(tree, "");
        } else if rule.route.path.as_str().ends_with('/') {
            insert(format!("{base}/{EXACT}"), "");
        } else {
            insert(format!("{base}{EXACT}"), "");
        }
    }
    // The pattern `/x/*` has precedence over `/x/`, which is shorter.
    let hidden: Vec<_> = entries
        .keys()
        .filter_map(|key| Some(format!("{}{EXACT}", key.strip_suffix(TREE)?)))
        .collect();
    for key in hidden {
        entries.remove(&key);
    }
    entries
}

/// Returns the addresses by their directories in [`PATHS_DIR`].
fn shortcuts(rules: &[Rule<'_>]) -> BTreeMap<String, String> {
    let mut shortcuts: BTreeMap<String, Option<String>> = BTreeMap::new();
    // Two rules of the same directory need all rules.
    let mut insert = |key: String, name: Option<String>| {
        shortcuts
            .entry(key)
            .and_modify(|name| *name = None)
            .or_insert(name);
    };
    for rule in rules {
        let path = &rule.route.path;
        let is_plain = !Transport::of(rule.route).has_options();
        let address = is_plain.then(|| rule.upstream.to_string());
        let mut segments = segments(rule);
        let first = segments.next().unwrap_or_default();
        let is_single = segments.next().is_none();
        if first.is_empty() {
            insert(EXACT.to_string(), address);
        } else if !is_single {
            insert(format!("{first}{EXACT}"), None);
        } else if rule.route.strip_prefix {
            insert(format!("{EXACT}{first}"), None);
            let name = address.map(|address| format!("{address}={STRIP}"));
            insert(format!("{first}{EXACT}"), name);
        } else if path.is_tree() {
            insert(format!("{first}{EXACT}"), address);
        } else if path.as_str().ends_with('/') {
            insert(format!("{first}{EXACT}"), None);
        } else {
            insert(format!("{EXACT}{first}"), address);
        }
    }
    let name = |name: Option<String>| name.unwrap_or_else(|| OTHER.to_owned());
    let shortcuts = shortcuts.into_iter();
    shortcuts.map(|(key, found)| (key, name(found))).collect()
}

/// Returns the base of a rule's path without the `/` at its start, in lower case as Caddy compares paths.
fn base(rule: &Rule<'_>) -> String {
    let base = rule.route.path.base().trim_start_matches('/');
    base.to_ascii_lowercase()
}

/// Returns the segments of a rule's path in lower case, or one empty segment.
fn segments(rule: &Rule<'_>) -> impl Iterator<Item = String> {
    let segments: Vec<_> = base(rule).split('/').map(str::to_owned).collect();
    segments.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(routes: &[RouteRule]) -> Vec<(String, String)> {
        let rules: Vec<_> = routes
            .iter()
            .map(|route| Rule {
                route,
                upstream: SocketAddr::from(([10, 100, 255, 255], route.port)),
            })
            .collect();
        files(&rules, false)
    }

    fn route(path: &str, strip_prefix: bool) -> RouteRule {
        RouteRule::new(RoutePath::parse(path).expect(path), 65535, strip_prefix)
    }

    fn listed(files: &[(String, String)]) -> Vec<String> {
        let path = |(dir, name): &(String, String)| format!("{dir}/{name}");
        files.iter().map(path).collect()
    }

    #[test]
    fn one_rule_for_all_paths_is_an_address() {
        assert_eq!(
            listed(&names(&[route("/", true)])),
            [
                "rules/,/10.100.255.255:65535==http",
                "live/10.100.255.255:65535"
            ]
        );
        assert_eq!(names(&[]), []);
    }

    #[test]
    fn rules_have_a_directory_for_each_pattern() {
        let routes = [
            route("/Api", true),
            route("/docs/v1/*", false),
            route("/ws", false),
            route("/x/*", false),
            route("/x/", false),
            route("/", false),
        ];
        let names = listed(&names(&routes)).join("\n");
        insta::assert_snapshot!(names.replace("10.100.255.255:65535", "APP"), @r"
        rules/,/APP==http
        rules/api/,/APP=strip=http
        rules/api=/APP=redirect=http
        rules/docs/v1/,/APP==http
        rules/ws=/APP==http
        rules/x/,/APP==http
        paths/=/APP
        paths/=api/other
        paths/=ws/APP
        paths/api=/APP=strip
        paths/docs=/other
        paths/x=/other
        ");
    }

    #[test]
    fn options_are_part_of_a_rule() {
        let slow = RouteRule {
            timeout: RouteTimeout::try_from(30).ok(),
            ..route("/", false)
        };
        assert_eq!(
            listed(&names(&[slow])),
            ["rules/,/10.100.255.255:65535==http-30", "paths/=/other"]
        );
    }

    #[test]
    fn deep_patterns_have_a_directory_of_their_own() {
        let longest = "/x".repeat(MAX_SEGMENTS);
        let names = names(&[route(&longest, false), route("/", false)]);
        assert_eq!(names[0].0, "deep/,");
        assert_eq!(names[1].0, format!("deep{longest}="));
    }
}
