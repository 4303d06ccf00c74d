use innkeeper_model::preview::{ExtraHost, RoutePath};

use super::super::config::Admin;
use super::*;

fn config(tls: Tls, port: Option<u16>) -> CaddyConfig {
    CaddyConfig {
        identity: crate::identity::Identity::of('a'),
        directory: "/etc/caddy/previews".into(),
        caddyfile: "/etc/caddy/Caddyfile".into(),
        table: "/var/lib/innkeeper-routes".into(),
        lookup: "127.0.0.1:3180".parse().expect("address"),
        admin: Admin::Unix("/run/caddy/admin.sock".into()),
        domain: "preview.example.org".to_owned(),
        tls,
        port,
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
    }
}

fn whole() -> RouteSpec {
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

fn live(spec: &RouteSpec, tls: Tls, port: Option<u16>) -> Rendered {
    preview(&config(tls, port), spec, false).expect("renders")
}

#[test]
fn a_previews_file_has_the_longest_path_first() {
    insta::assert_snapshot!(
        live(&whole(), Tls::Snippet("cloudflare_tls".to_owned()), None).caddyfile
    );
}

#[test]
fn a_new_caddy_keeps_streams_open() {
    let config = config(Tls::None, Some(8080));
    let spec = spec(vec![rule("/", 3000, false)], Vec::new());
    insta::assert_snapshot!(preview(&config, &spec, true).expect("renders").caddyfile);
}

#[test]
fn the_template_says_the_same_as_the_file() {
    insta::assert_snapshot!(live(&whole(), Tls::None, None).hosts["web-12.preview.example.org"]);
}

#[test]
fn a_placeholder_has_a_page_and_no_app() {
    let mut spec = whole();
    spec.state = RouteState::Placeholder {
        state: "building".to_owned(),
        log: vec!["line".to_owned()],
    };
    let rendered = live(&spec, Tls::Internal, None);
    insta::assert_snapshot!(rendered.caddyfile);
    assert!(!format!("{rendered:?}").contains("10.100.0.3"));
    let files: Vec<_> = rendered.files.keys().collect();
    assert_eq!(files, ["page.html", "page.txt"]);
}

#[test]
fn what_all_previews_share() {
    let front = front(&config(Tls::OnDemand, None), true);
    insta::assert_snapshot!(front.sites);
    insta::assert_snapshot!(front.lookup);
}

// tests/nix/run puts these two beside the Caddyfile of the NixOS module and has Caddy check all of it.
#[test]
fn what_caddy_is_told_on_nixos() {
    let config = config(Tls::Snippet("cloudflare_tls".to_owned()), None);
    insta::assert_snapshot!(front(&config, false).sites);
    insta::assert_snapshot!(front(&config, false).lookup);
}

#[test]
fn the_shared_part_has_another_version_when_it_says_something_else() {
    let version = |tls, close_delay| front(&config(tls, None), close_delay).version;
    assert_eq!(version(Tls::None, true), version(Tls::None, true));
    assert_ne!(version(Tls::None, true), version(Tls::None, false));
    assert_ne!(version(Tls::None, true), version(Tls::Internal, true));
}

#[test]
fn hosts_are_dns_labels_and_differ() {
    let extra = |prefix: &str| ExtraHost {
        prefix: GuestName::parse(prefix).expect(prefix),
        routes: Vec::new(),
    };
    let refused =
        |spec: &RouteSpec| preview(&config(Tls::None, None), spec, false).expect_err("refused");
    let error = refused(&spec(Vec::new(), vec![extra(&"x".repeat(60))]));
    assert!(matches!(error, RouteError::Host { .. }), "{error}");
    let error = refused(&spec(Vec::new(), vec![extra("a"), extra("a")]));
    assert!(matches!(error, RouteError::HostTaken { .. }), "{error}");
    let mut webhook = spec(Vec::new(), Vec::new());
    webhook.slug = GuestName::parse(RESERVED_SLUGS[0]).expect("name");
    let error = refused(&webhook);
    assert!(matches!(error, RouteError::Reserved { .. }), "{error}");
}
