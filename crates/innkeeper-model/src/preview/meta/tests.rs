use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Explain, chain};

/// The description in the contract's own words, with everything in it.
fn full() -> Value {
    json!({
        "setupService": "setup-app",
        "appServices": ["app-backend", "app-frontend.service"],
        "database": "host",
        "routes": [
            { "path": "/", "port": 3000 },
            { "path": "/ws", "port": 4000 },
            { "path": "/api/*", "port": 4000, "stripPrefix": false },
            { "path": "/admin/*", "port": 3001, "stripPrefix": true },
        ],
        "hostSecrets": ["STRIPE_SECRET_KEY"],
        "extraHosts": [{ "prefix": "landing", "routes": [{ "path": "/", "port": 3002 }] }],
    })
}

/// `full()` with another value at a place.
fn with(place: &str, value: Value) -> String {
    let mut meta = full();
    let (parent, field) = place.rsplit_once('/').expect("a pointer");
    match meta.pointer_mut(parent).expect("it is there") {
        Value::Object(fields) => {
            fields.insert(field.to_owned(), value);
        }
        Value::Array(entries) => entries[field.parse::<usize>().expect("an index")] = value,
        _ => panic!("nothing can be in {parent}"),
    }
    meta.to_string()
}

fn problems(json: &str) -> String {
    MetaProblems(Meta::parse(json).expect_err("it is wrong"))
        .lines()
        .join("\n")
}

#[test]
fn what_the_contract_says_is_read() {
    let meta = Meta::parse(&full().to_string()).expect("right");
    insta::assert_json_snapshot!(meta, @r#"
    {
      "setupService": "setup-app.service",
      "appServices": [
        "app-backend.service",
        "app-frontend.service"
      ],
      "database": "host",
      "routes": [
        {
          "path": "/admin/*",
          "port": 3001,
          "stripPrefix": true
        },
        {
          "path": "/api/*",
          "port": 4000,
          "stripPrefix": false
        },
        {
          "path": "/ws",
          "port": 4000,
          "stripPrefix": false
        },
        {
          "path": "/",
          "port": 3000,
          "stripPrefix": false
        }
      ],
      "hostSecrets": [
        "STRIPE_SECRET_KEY"
      ],
      "extraHosts": [
        {
          "prefix": "landing",
          "routes": [
            {
              "path": "/",
              "port": 3002,
              "stripPrefix": false
            }
          ]
        }
      ]
    }
    "#);
}

#[test]
fn the_last_two_fields_may_be_missing_or_null() {
    for rest in [
        json!({}),
        json!({ "hostSecrets": null, "extraHosts": null }),
    ] {
        let mut meta = full();
        let fields = meta.as_object_mut().expect("an object");
        fields.remove("hostSecrets");
        fields.remove("extraHosts");
        fields.extend(rest.as_object().expect("an object").clone());
        let meta = Meta::parse(&meta.to_string()).expect("right");
        assert_eq!((meta.host_secrets.len(), meta.extra_hosts.len()), (0, 0));
    }
}

#[test]
fn all_problems_are_said_at_once() {
    let json = json!({
        "setupServise": "setup",
        "appServices": "web",
        "database": "hosts",
        "routes": [
            { "path": "api", "prot": 1 },
            { "path": "/x", "port": 0 },
            { "path": "/y", "port": "80", "stripPrefix": "yes" },
            7,
        ],
        "hostSecrets": ["A-B", "UID"],
        "extraHosts": [{ "prefix": "Landing" }],
        "zebra": 1,
    });
    insta::assert_snapshot!(problems(&json.to_string()), @r#"
    /setupServise: there is no such field; is 'setupService' meant? (write 'setupService', or remove it)
    /zebra: there is no such field (remove it; there are setupService, appServices, database, routes, hostSecrets, extraHosts)
    /setupService: this field is required and missing (add it)
    /appServices: it must be a list and is a string (make it a list)
    /database: 'hosts' is not known here; is 'host' meant? (write "host" or "container")
    /routes/0/prot: there is no such field; is 'port' meant? (write 'port', or remove it)
    /routes/0/path: 'api' is no path of a route: it does not start with '/' (write for example "/", "/ws" or "/api/*")
    /routes/0/port: this field is required and missing (add it)
    /routes/1/port: 0 is no port (write the number of the port that the app listens on, 1 to 65535)
    /routes/2/port: it must be a number and is a string (make it a number)
    /routes/2/stripPrefix: it must be true or false and is a string (make it true or false)
    /routes/3: it must be an attribute set and is a number (make it an attribute set)
    /hostSecrets/0: 'A-B' is no name of an environment variable: only letters, digits and '_' are allowed, and no digit first (write the name of an environment variable, for example "STRIPE_SECRET_KEY")
    /hostSecrets/1: 'UID' is no name of an environment variable: bash keeps it for itself (write the name of an environment variable, for example "STRIPE_SECRET_KEY")
    /extraHosts/0/prefix: 'Landing' is no DNS label of at most 22 characters (write 1 to 22 of a-z, 0-9 and '-', for example "landing")
    /extraHosts/0/routes: this field is required and missing (add it)
    "#);
}

#[test]
fn each_problem_says_where_what_and_what_to_do() {
    insta::assert_snapshot!(problems("{"), @"it is not JSON: EOF while parsing an object at line 1 column 1 (write system.build.previewMeta with builtins.toJSON)");
    insta::assert_snapshot!(problems("[]"), @"it must be an attribute set and is a list (make it an attribute set)");
    insta::assert_snapshot!(problems("{}"), @r"
    /setupService: this field is required and missing (add it)
    /appServices: this field is required and missing (add it)
    /database: this field is required and missing (add it)
    /routes: this field is required and missing (add it)
    ");
    insta::assert_snapshot!(problems(&" ".repeat(Meta::MAX_BYTES + 1)), @"it has 262145 bytes, which is too much (keep system.build.previewMeta below 256 KiB)");
    insta::assert_snapshot!(problems(&with("/stripPrefix", json!(true))), @"/stripPrefix: there is no such field (remove it; there are setupService, appServices, database, routes, hostSecrets, extraHosts)");
    insta::assert_snapshot!(problems(&with("/a~0\u{1b}[31m~1b", json!(true))), @r"/a~00\u{1b}[31m~01b: there is no such field (remove it; there are setupService, appServices, database, routes, hostSecrets, extraHosts)");
    insta::assert_snapshot!(problems(&with("/routes/0/Port", json!(1))), @"/routes/0/Port: there is no such field; is 'port' meant? (write 'port', or remove it)");
    insta::assert_snapshot!(problems(&with("/routes", json!([]))), @r#"/routes: the list is empty (add one, for example { path = "/"; port = 3000; })"#);
    insta::assert_snapshot!(problems(&with("/routes", json!({}))), @"/routes: it must be a list and is an attribute set (make it a list)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(65536))), @"/routes/0/port: 65536 is no port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(-1))), @"/routes/0/port: -1 is no port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(80.5))), @"/routes/0/port: 80.5 is no port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/{env.HOME}"))), @r#"/routes/0/path: '/{env.HOME}' is no path of a route: only letters, digits and / - . _ ~ @ : + are allowed (write for example "/", "/ws" or "/api/*")"#);
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/api*"))), @r#"/routes/0/path: '/api*' is no path of a route: '*' can only stand at the end, after a '/' (write for example "/", "/ws" or "/api/*")"#);
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/API/*"))), @"/routes/2: '/api/*' stands already at /routes/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/admin"))), @"/routes/3: '/admin' stands already at /routes/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/database", json!("sqlite"))), @r#"/database: 'sqlite' is not known here (write "host" or "container")"#);
    insta::assert_snapshot!(problems(&with("/setupService", json!("app-backend"))), @"/appServices/0: 'app-backend.service' stands already at /setupService (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/setupService", json!("a b"))), @r#"/setupService: 'a b' is no systemd service: only letters, digits and : - _ . \ @ are allowed (write the name of a service as in systemd.services, for example "setup-app")"#);
    insta::assert_snapshot!(problems(&with("/appServices/0", json!("app-frontend"))), @"/appServices/1: 'app-frontend.service' stands already at /appServices/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/appServices", json!(vec!["a"; 33]))), @"/appServices: the list has 33 entries; at most 32 are allowed (keep the first 32 or fewer)");
    insta::assert_snapshot!(problems(&with("/hostSecrets/0", json!(7))), @"/hostSecrets/0: it must be a string and is a number (make it a string)");
    insta::assert_snapshot!(problems(&with("/hostSecrets", json!(["A", "A"]))), @"/hostSecrets/1: 'A' stands already at /hostSecrets/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/extraHosts/0/prefix", json!("a".repeat(23)))), @r#"/extraHosts/0/prefix: 'aaaaaaaaaaaaaaaaaaaaaaa' is no DNS label of at most 22 characters (write 1 to 22 of a-z, 0-9 and '-', for example "landing")"#);
}

#[test]
fn more_problems_than_anybody_reads_are_counted() {
    let fields: Vec<_> = (0..60).map(|n| (format!("zzz{n}"), json!(1))).collect();
    let json = Value::Object(fields.into_iter().collect()).to_string();
    let problems = Meta::parse(&json).expect_err("it is wrong");
    assert_eq!(problems.len(), 51);
    insta::assert_snapshot!(problems[50], @"14 more problems are not listed");
    insta::assert_snapshot!(problems[50].remedy(), @"repair these first");
}

#[test]
fn as_a_failure_it_has_its_code_and_all_problems() {
    let failure = |json: &str| {
        let problems = MetaProblems(Meta::parse(json).expect_err("it is wrong"));
        let remedy = problems.remedy().expect("a remedy");
        format!("{}: {} ({remedy})", problems.code(), chain(&problems))
    };
    insta::assert_snapshot!(failure(&with("/database", json!("hosts"))), @r#"preview_config_invalid: system.build.previewMeta in preview-config.nix is wrong: /database: 'hosts' is not known here; is 'host' meant? (write "host" or "container")"#);
    insta::assert_snapshot!(failure(&with("/routes/0", json!({ "port": 0 }))), @"preview_config_invalid: system.build.previewMeta in preview-config.nix is wrong in 2 places: /routes/0/path: this field is required and missing (add it); /routes/0/port: 0 is no port (write the number of the port that the app listens on, 1 to 65535) (repair these places and push again)");
}

#[test]
fn routes_are_tried_from_the_most_specific_to_the_least() {
    let paths = ["/", "/a/*", "/a/b", "/a/b/*", "/a", "/z", "/a/b/c/d"];
    let routes: Vec<_> = paths
        .iter()
        .map(|path| json!({ "path": path, "port": 1 }))
        .collect();
    let meta = Meta::parse(&with("/routes", json!(routes))).expect("right");
    let sorted: Vec<_> = meta
        .routes
        .iter()
        .map(|route| route.path.as_str())
        .collect();
    assert_eq!(
        sorted,
        ["/a/b/c/d", "/a/b/*", "/a/b", "/a/*", "/z", "/a", "/"]
    );
}

#[test]
fn a_stripped_prefix_is_always_a_tree() {
    let route = |path: &str| RouteRule::new(RoutePath::parse(path).expect("valid"), 1, true);
    for path in ["/admin", "/admin/*"] {
        let route = route(path);
        assert_eq!(
            (route.path.as_str(), route.path.base()),
            ("/admin/*", "/admin")
        );
        assert!(route.strip_prefix && route.path.is_tree());
    }
    for path in ["/", "/*"] {
        let route = route(path);
        assert_eq!((route.path.as_str(), route.path.base()), ("/", ""));
        assert!(!route.strip_prefix && route.path.is_tree());
    }
    assert!(!RoutePath::parse("/ws").expect("valid").is_tree());
}

#[test]
fn paths_mean_nothing_to_caddy() {
    for bad in [
        "",
        "api",
        "*",
        "//",
        "/a//b",
        "/a/",
        "/./a",
        "/a/..",
        "/a/../*",
        "/a*",
        "/*/a",
        "/a/**",
        "/a b",
        "/a\n",
        "/{x}",
        "/a\"",
        "/a`",
        "/a#",
        "/a\\b",
        "/a?b",
        "/%2e",
        "/ä",
        "/$",
        "/(x)",
        "/<",
        "/a/*/",
        &format!("/{}", "a".repeat(200)),
    ] {
        assert!(RoutePath::parse(bad).is_err(), "{bad:?} was accepted");
    }
    for good in [
        "/",
        "/a",
        "/a/*",
        "/.well-known/x",
        "/@vite/*",
        "/a.b-c_d~e:f+g",
    ] {
        assert_eq!(RoutePath::parse(good).expect(good).as_str(), good);
    }
}

#[test]
fn services_are_services() {
    for (text, name) in [
        ("web", "web.service"),
        ("web.service", "web.service"),
        ("a@b", "a@b.service"),
        ("a\\x2db", "a\\x2db.service"),
    ] {
        assert_eq!(ServiceName::parse(text).expect(text).as_str(), name);
    }
    for bad in [
        "",
        ".service",
        "web.socket",
        "default.target",
        "a.target.service",
        "a@",
        "a@.service",
        "@a",
        "-web",
        "--now",
        "a b",
        "a/b",
        "a*",
        "ä",
        &"a".repeat(248),
    ] {
        assert!(ServiceName::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn a_preview_answers_to_its_slug_and_its_extra_hosts() {
    let meta = Meta::parse(&full().to_string()).expect("right");
    let slug = GuestName::parse("web-7").expect("valid");
    let labels: Vec<_> = meta
        .labels(&slug)
        .expect("short")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(labels, ["web-7", "landing-web-7"]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "setupService",
        "appServices",
        "database",
        "routes",
        "hostSecrets",
        "extraHosts",
        "path",
        "port",
        "stripPrefix",
        "prefix",
        "host",
        "container",
        "/",
        "/api/*",
        "web",
        "A",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1i64..70_000).prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        let key = prop_oneof![word.clone().prop_map(str::to_owned), ".{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_reason(text in ".{0,40}") {
        if let Err(problems) = Meta::parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn any_value_anywhere_is_read_or_refused_at_a_place_that_exists(
        value in any_json(),
        place in prop::sample::select(vec![
            "/setupService", "/appServices", "/appServices/0", "/database", "/routes", "/routes/0", "/routes/0/path",
            "/routes/0/port", "/routes/0/stripPrefix", "/hostSecrets", "/extraHosts", "/extraHosts/0", "/extraHosts/0/routes",
        ]),
    ) {
        let json = with(place, value);
        match Meta::parse(&json) {
            Ok(meta) => {
                let written = serde_json::to_string(&meta).expect("serialises");
                prop_assert_eq!(Meta::parse(&written), Ok(meta.clone()));
                prop_assert_eq!(serde_json::from_str::<Meta>(&written).expect("reads back"), meta);
            }
            Err(problems) => {
                let json: Value = serde_json::from_str(&json).expect("JSON");
                for problem in problems {
                    let parent = problem.place.rsplit_once('/').map_or("", |(parent, _)| parent);
                    prop_assert!(json.pointer(parent).is_some(), "{}", problem);
                    prop_assert!(!problem.to_string().chars().any(char::is_control));
                }
            }
        }
    }
}
