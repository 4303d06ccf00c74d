use innkeeper_model::preview::{ExtraHost, RoutePath};

use super::super::config::{Admin, Robots, RouteResolver, Tls};
use super::*;

fn config(tls: Tls, port: Option<u16>) -> CaddyConfig {
    CaddyConfig {
        identity: crate::identity::Identity::of('a'),
        directory: "/etc/caddy/previews".into(),
        caddyfile: "/etc/caddy/Caddyfile".into(),
        table: "/var/lib/innkeeper-routes".into(),
        lookup: "127.0.0.1:3180".parse().expect("address"),
        pages: "/run/innkeeper-pages/pages.sock".into(),
        access: None,
        resolver: Some(RouteResolver {
            port: 3053,
            table: "/run/innkeeper-dns/table".into(),
        }),
        admin: Admin::Unix("/run/caddy/admin.sock".into()),
        domain: "preview.example.org".to_owned(),
        guest_port: Some(3443),
        is_https: !matches!(tls, Tls::None),
        tls,
        port,
        trusted_proxies: Vec::new(),
        robots: Robots::parse("noindex"),
    }
}

fn features(has_close_delay: bool) -> Features {
    Features {
        has_close_delay,
        has_catch_all: has_close_delay,
    }
}

fn rule(path: &str, port: u16, strip_prefix: bool) -> RouteRule {
    RouteRule::new(RoutePath::parse(path).expect(path), port, strip_prefix)
}

fn spec(routes: Vec<RouteRule>, extra_hosts: Vec<ExtraHost>) -> RouteSpec {
    RouteSpec {
        slug: GuestName::parse("web-12").expect("name"),
        guest_address: "10.100.0.3".parse().expect("address"),
        routes,
        extra_hosts,
        state: RouteState::Live,
        checked: false,
    }
}

fn full() -> RouteSpec {
    let routes = vec![
        rule("/", 3000, false),
        rule("/api", 4000, true),
        rule("/api/docs/*", 5000, false),
        rule("/Static/*", 3000, false),
        rule("/ws", 4000, false),
    ];
    let admin = ExtraHost {
        prefix: GuestName::parse("admin").expect("name"),
        routes: vec![rule("/", 6000, false)],
    };
    spec(routes, vec![admin])
}

fn live(spec: &RouteSpec, tls: Tls, port: Option<u16>) -> RenderedRoute {
    preview(&config(tls, port), spec).expect("renders")
}

#[test]
fn live_file_lists_the_longest_path_first() {
    insta::assert_snapshot!(
        live(&full(), Tls::Snippet("cloudflare_tls".to_owned()), None).caddyfile
    );
}

#[test]
fn table_has_the_same_rules_as_the_file() {
    insta::assert_debug_snapshot!(live(&full(), Tls::None, None).hosts);
}

#[test]
fn placeholder_has_a_page_and_no_app() {
    let mut spec = full();
    spec.state = RouteState::Placeholder;
    let rendered = live(&spec, Tls::Internal, None);
    insta::assert_snapshot!(rendered.caddyfile);
    assert_eq!(rendered.guest, None);
    assert!(!format!("{rendered:?}").contains("10.100.0.3"));
    let slug = (PAGE_DIR.to_owned(), "web-12".to_owned());
    let mut hosts = rendered.hosts.values();
    assert!(hosts.all(|files| *files == [slug.clone()]), "{rendered:?}");
}

#[test]
fn shared_config() {
    let shared = shared(&config(Tls::OnDemand, None), features(true));
    insta::assert_snapshot!(shared.sites);
}

// tests/nix/run combines this with the Caddyfile of the NixOS module, and Caddy checks the result.
#[test]
fn shared_config_on_nixos() {
    let config = config(Tls::Snippet("cloudflare_tls".to_owned()), None);
    insta::assert_snapshot!(shared(&config, features(false)).sites);
}

#[test]
fn hosts_are_settled_where_the_resolver_can_be_asked() {
    let has_settled = |config: &CaddyConfig| {
        shared(config, features(true))
            .sites
            .matches("@settled")
            .count()
    };
    let possible = config(Tls::None, None);
    // The matcher and the proxy, in the site for browsers and not in that for guests.
    assert_eq!(has_settled(&possible), 2);
    let label = "x".repeat(50);
    let at = |table: &str| {
        Some(RouteResolver {
            port: 3053,
            table: table.into(),
        })
    };
    for impossible in [
        CaddyConfig {
            access: None,
            resolver: None,
            ..possible.clone()
        },
        CaddyConfig {
            access: None,
            resolver: at("/run/a b"),
            ..possible.clone()
        },
        CaddyConfig {
            domain: [label.as_str(); 4].join("."),
            ..possible
        },
    ] {
        assert_eq!(has_settled(&impossible), 0);
    }
}

#[test]
fn shared_config_version_changes_with_its_contents() {
    let version = |tls, close_delay| shared(&config(tls, None), features(close_delay)).version;
    assert_eq!(version(Tls::None, true), version(Tls::None, true));
    assert_ne!(version(Tls::None, true), version(Tls::None, false));
    assert_ne!(version(Tls::None, true), version(Tls::Internal, true));
}

#[test]
fn hosts_must_be_distinct_dns_labels() {
    let extra = |prefix: &str| ExtraHost {
        prefix: GuestName::parse(prefix).expect(prefix),
        routes: Vec::new(),
    };
    let refused = |spec: &RouteSpec| preview(&config(Tls::None, None), spec).expect_err("refused");
    let error = refused(&spec(Vec::new(), vec![extra(&"x".repeat(60))]));
    assert!(matches!(error, RouteError::Host { .. }), "{error}");
    let error = refused(&spec(Vec::new(), vec![extra("a"), extra("a")]));
    assert!(matches!(error, RouteError::HostTaken { .. }), "{error}");
    let mut webhook = spec(Vec::new(), Vec::new());
    webhook.slug = GuestName::parse(RESERVED_SLUGS[0]).expect("name");
    let error = refused(&webhook);
    assert!(matches!(error, RouteError::Reserved { .. }), "{error}");
}

#[test]
fn domains_of_cookies_are_matched_literally() {
    let text = shared(&config(Tls::None, None), features(true)).sites;
    assert!(text.contains(r"(?:preview\.example\.org|example\.org|org)"));
}

/// The programs behind all proxies see visitors' addresses, those that serve pages among them.
#[test]
fn all_proxies_trust_the_servers_in_front() {
    let trusting = CaddyConfig {
        trusted_proxies: vec!["192.0.2.0/24".parse().expect("network")],
        ..config(Tls::None, None)
    };
    let sites = shared(&trusting, features(true)).sites;
    let (front, _) = sites
        .split_once("# Internal queries")
        .expect("the internal site");
    let proxies = front.matches("reverse_proxy ").count();
    let of_apps = front.matches("import innkeeper-app\n").count();
    assert!(of_apps > 4 && proxies > of_apps + 4, "{proxies} {of_apps}");
    let trust = "trusted_proxies 192.0.2.0/24\n";
    assert_eq!(front.matches(trust).count(), proxies - of_apps + 1);
}

/// Caddy prepares all of it at each load, and a slow machine must do so, too.
#[test]
fn shared_config_is_small() {
    let sites = shared(&config(Tls::OnDemand, None), features(true)).sites;
    assert!(sites.len() < 30_000, "{} bytes", sites.len());
}
