//! Encodes the rules of a host as names of files.
//!
//! Caddy's `file` matcher can list a directory and use the name of a file in it as a placeholder, which is the only data
//! that Caddy 2.6 reads at each request without a subrequest. Contents of the files have no meaning.
//!
//! ```text
//! live/10.100.0.3:3000                                   the only rule: all paths go to this address
//! rules.1/,api,*=10.100.0.3:4000==http;,*=10.100.0.3:3000==http
//! rules.2/…                                              further rules
//! ```
//!
//! A rule is `<path pattern>=<address>=<action>=<transport>`, with `,` in place of `/`. [`RoutePath`] excludes `,`, `;`
//! and `=`. The first matching rule wins.
//!
//! [`RoutePath`]: innkeeper_model::preview::RoutePath

use std::net::SocketAddr;

use innkeeper_model::preview::{RouteProtocol, RouteRule, RouteTimeout};

/// Maximum number of rules in one name. Each increment adds four groups to Caddy's regular expression.
pub(super) const RULES_PER_PAGE: usize = 4;

/// Maximum number of pages. Sufficient for two entries, of maximum length, for each route of a host.
pub(super) const MAX_PAGES: usize = 2 * innkeeper_model::preview::Meta::MAX_ROUTES;

/// Maximum length of a file's name on Linux, in bytes.
const MAX_NAME: usize = 255;

/// Placeholder for `/` in names.
pub(super) const SLASH: char = ',';

/// Directory of the address of a host with one rule for all paths.
pub(super) const LIVE_DIR: &str = "live";

/// The action that redirects to the same path with `/` at its end.
pub(super) const REDIRECT: &str = "redirect";

/// The action that removes the pattern's base from the path.
pub(super) const STRIP: &str = "strip";

/// The options of the proxy to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) protocol: RouteProtocol,
    pub(super) timeout: Option<RouteTimeout>,
}

impl Transport {
    /// Returns all transports, that without options first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        RouteProtocol::ALL.into_iter().flat_map(|protocol| {
            let timeouts = std::iter::once(None).chain(RouteTimeout::all().map(Some));
            timeouts.map(move |timeout| Self { protocol, timeout })
        })
    }

    pub(super) fn of(route: &RouteRule) -> Self {
        Self {
            protocol: route.protocol,
            timeout: route.timeout,
        }
    }

    /// Returns the name in the table: `http`, `h2c`, `http-30`, `h2c-30`.
    pub(super) fn name(self) -> String {
        let protocol = self.protocol.name();
        self.timeout.map_or_else(
            || protocol.to_owned(),
            |timeout| format!("{protocol}-{}", timeout.seconds()),
        )
    }

    fn has_options(self) -> bool {
        self.protocol != RouteProtocol::default() || self.timeout.is_some()
    }
}

/// A rule and its upstream.
pub(super) struct Rule<'a> {
    pub(super) route: &'a RouteRule,
    pub(super) upstream: SocketAddr,
}

/// Returns the directory of a page, counted from 1.
pub(super) fn page_dir(number: usize) -> String {
    format!("rules.{number}")
}

/// Returns the files of a host, each as directory and name. The rules must be in order of precedence. Those of a held host
/// are never in [`LIVE_DIR`], which is looked up before the hold.
pub(super) fn files(rules: &[Rule<'_>], is_held: bool) -> Vec<(String, String)> {
    if let [rule] = rules
        && !is_held
        && rule.route.path.base().is_empty()
        && !Transport::of(rule.route).has_options()
    {
        return vec![(LIVE_DIR.to_owned(), rule.upstream.to_string())];
    }
    let mut pages: Vec<(usize, String)> = Vec::new();
    for entry in rules.iter().flat_map(entries) {
        match pages.last_mut() {
            Some((count, name))
                if *count < RULES_PER_PAGE && name.len() + 1 + entry.len() <= MAX_NAME =>
            {
                *count += 1;
                name.push(';');
                name.push_str(&entry);
            }
            _ => pages.push((1, entry)),
        }
    }
    let dirs = (1..).map(page_dir);
    dirs.zip(pages.into_iter().map(|(_, name)| name)).collect()
}

/// Returns the entries of a rule.
fn entries(rule: &Rule<'_>) -> Vec<String> {
    let path = &rule.route.path;
    let base = path.base();
    let entry = |pattern: &str, action: &str| {
        // Caddy compares patterns with paths in lower case.
        let pattern = pattern
            .to_ascii_lowercase()
            .replace('/', &SLASH.to_string());
        let transport = Transport::of(rule.route).name();
        format!("{pattern}={}={action}={transport}", rule.upstream)
    };
    if base.is_empty() {
        vec![entry("/*", "")]
    } else if rule.route.strip_prefix {
        vec![entry(base, REDIRECT), entry(&format!("{base}/*"), STRIP)]
    } else {
        vec![entry(path.as_str(), "")]
    }
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::{Meta, RoutePath};

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

    #[test]
    fn one_rule_for_all_paths_is_an_address() {
        assert_eq!(
            names(&[route("/", true)]),
            [("live".to_owned(), "10.100.255.255:65535".to_owned())]
        );
        assert_eq!(names(&[]), []);
    }

    #[test]
    fn rules_are_listed_in_order() {
        let names = names(&[route("/Api", true), route("/ws", false), route("/", false)]);
        assert_eq!(
            names,
            [(
                "rules.1".to_owned(),
                ",api=10.100.255.255:65535=redirect=http;,api,*=10.100.255.255:65535=strip=http;\
                 ,ws=10.100.255.255:65535==http;,*=10.100.255.255:65535==http"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn options_are_part_of_a_rule() {
        let slow = RouteRule {
            protocol: RouteProtocol::H2c,
            timeout: RouteTimeout::try_from(30).ok(),
            ..route("/", false)
        };
        assert_eq!(
            names(&[slow]),
            [(
                "rules.1".to_owned(),
                ",*=10.100.255.255:65535==h2c-30".to_owned()
            )]
        );
    }

    #[test]
    fn the_longest_rules_fit() {
        let long = |n: usize| {
            let path = format!("/{n:03}{}", "x".repeat(RoutePath::MAX_LENGTH - 4));
            RouteRule {
                timeout: RouteTimeout::all().last(),
                ..route(&path, true)
            }
        };
        let routes: Vec<_> = (0..Meta::MAX_ROUTES).map(long).collect();
        let names = names(&routes);
        assert_eq!(names.len(), MAX_PAGES);
        assert!(names.iter().all(|(_, name)| name.len() <= MAX_NAME));
        assert_eq!(names.last().expect("a page").0, page_dir(MAX_PAGES));
    }
}
