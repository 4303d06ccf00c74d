use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Explain, chain};

/// The contract's example, with all fields.
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

/// Returns `full()` with another value at a place.
fn with(place: &str, value: Value) -> String {
    let mut meta = full();
    let (parent, field) = place.rsplit_once('/').expect("a pointer");
    match meta.pointer_mut(parent).expect("exists") {
        Value::Object(fields) => {
            fields.insert(field.to_owned(), value);
        }
        Value::Array(entries) => entries[field.parse::<usize>().expect("an index")] = value,
        _ => panic!("nothing can be in {parent}"),
    }
    meta.to_string()
}

fn problems(json: &str) -> String {
    MetaProblems(Meta::parse(json).expect_err("invalid"))
        .lines()
        .join("\n")
}

#[test]
fn meta_parses_the_contracts_example() {
    let meta = Meta::parse(&full().to_string()).expect("valid");
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
fn meta_accepts_missing_or_null_optional_fields() {
    for rest in [
        json!({}),
        json!({ "hostSecrets": null, "extraHosts": null }),
    ] {
        let mut meta = full();
        let fields = meta.as_object_mut().expect("an object");
        fields.remove("hostSecrets");
        fields.remove("extraHosts");
        fields.extend(rest.as_object().expect("an object").clone());
        let meta = Meta::parse(&meta.to_string()).expect("valid");
        assert_eq!((meta.host_secrets.len(), meta.extra_hosts.len()), (0, 0));
    }
}

#[test]
fn meta_reports_all_problems_at_once() {
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
    /setupServise: unknown field; did you mean 'setupService'? (write 'setupService', or remove it)
    /zebra: unknown field (remove it; the known fields are setupService, appServices, database, routes, hostSecrets, extraHosts, visibility)
    /setupService: this required field is missing (add it)
    /appServices: expected a list, found a string (make it a list)
    /database: unknown value 'hosts'; did you mean 'host'? (write "host" or "container")
    /routes/0/prot: unknown field; did you mean 'port'? (write 'port', or remove it)
    /routes/0/path: 'api' is not a valid path of a route: it does not start with '/' (write for example "/", "/ws" or "/api/*")
    /routes/0/port: this required field is missing (add it)
    /routes/1/port: 0 is not a port (write the number of the port that the app listens on, 1 to 65535)
    /routes/2/port: expected a number, found a string (make it a number)
    /routes/2/stripPrefix: expected true or false, found a string (make it true or false)
    /routes/3: expected an attribute set, found a number (make it an attribute set)
    /hostSecrets/0: 'A-B' is not a valid name of an environment variable: only letters, digits and '_' are allowed, and no digit first (write the name of an environment variable, for example "STRIPE_SECRET_KEY")
    /hostSecrets/1: 'UID' is not a valid name of an environment variable: bash reserves it (write the name of an environment variable, for example "STRIPE_SECRET_KEY")
    /extraHosts/0/prefix: 'Landing' is not a DNS label of at most 22 characters (write 1 to 22 of a-z, 0-9 and '-', for example "landing")
    /extraHosts/0/routes: this required field is missing (add it)
    "#);
}

#[test]
fn meta_problem_has_place_text_and_remedy() {
    insta::assert_snapshot!(problems("{"), @"not JSON: EOF while parsing an object at line 1 column 1 (write system.build.previewMeta with builtins.toJSON)");
    insta::assert_snapshot!(problems("[]"), @"expected an attribute set, found a list (make it an attribute set)");
    insta::assert_snapshot!(problems("{}"), @r"
    /setupService: this required field is missing (add it)
    /appServices: this required field is missing (add it)
    /database: this required field is missing (add it)
    /routes: this required field is missing (add it)
    ");
    insta::assert_snapshot!(problems(&" ".repeat(Meta::MAX_BYTES + 1)), @"too large: 262145 bytes (keep system.build.previewMeta below 256 KiB)");
    insta::assert_snapshot!(problems(&with("/stripPrefix", json!(true))), @"/stripPrefix: unknown field (remove it; the known fields are setupService, appServices, database, routes, hostSecrets, extraHosts, visibility)");
    insta::assert_snapshot!(problems(&with("/a~0\u{1b}[31m~1b", json!(true))), @r"/a~00\u{1b}[31m~01b: unknown field (remove it; the known fields are setupService, appServices, database, routes, hostSecrets, extraHosts, visibility)");
    insta::assert_snapshot!(problems(&with("/routes/0/Port", json!(1))), @"/routes/0/Port: unknown field; did you mean 'port'? (write 'port', or remove it)");
    insta::assert_snapshot!(problems(&with("/routes", json!([]))), @r#"/routes: the list is empty (add one, for example { path = "/"; port = 3000; })"#);
    insta::assert_snapshot!(problems(&with("/routes", json!({}))), @"/routes: expected a list, found an attribute set (make it a list)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(65536))), @"/routes/0/port: 65536 is not a port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(-1))), @"/routes/0/port: -1 is not a port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/port", json!(80.5))), @"/routes/0/port: 80.5 is not a port (write the number of the port that the app listens on, 1 to 65535)");
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/{env.HOME}"))), @r#"/routes/0/path: '/{env.HOME}' is not a valid path of a route: only letters, digits and / - . _ ~ @ : + are allowed (write for example "/", "/ws" or "/api/*")"#);
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/api*"))), @r#"/routes/0/path: '/api*' is not a valid path of a route: '*' is only allowed at the end, after a '/' (write for example "/", "/ws" or "/api/*")"#);
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/API/*"))), @"/routes/2: '/api/*' duplicates /routes/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/routes/0/path", json!("/admin"))), @"/routes/3: '/admin' duplicates /routes/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/routes/0/healthPath", json!("health"))), @r#"/routes/0/healthPath: 'health' is not a valid health path: it does not start with '/' (write for example "/health")"#);
    insta::assert_snapshot!(problems(&with("/database", json!("sqlite"))), @r#"/database: unknown value 'sqlite' (write "host" or "container")"#);
    insta::assert_snapshot!(problems(&with("/setupService", json!("app-backend"))), @"/appServices/0: 'app-backend.service' duplicates /setupService (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/setupService", json!("a b"))), @r#"/setupService: 'a b' is not a valid systemd service: only letters, digits and : - _ . \ @ are allowed (write the name of a service as in systemd.services, for example "setup-app")"#);
    insta::assert_snapshot!(problems(&with("/appServices/0", json!("app-frontend"))), @"/appServices/1: 'app-frontend.service' duplicates /appServices/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/appServices", json!(vec!["a"; 33]))), @"/appServices: the list has 33 entries; at most 32 are allowed (keep at most 32)");
    insta::assert_snapshot!(problems(&with("/hostSecrets/0", json!(7))), @"/hostSecrets/0: expected a string, found a number (make it a string)");
    insta::assert_snapshot!(problems(&with("/hostSecrets", json!(["A", "A"]))), @"/hostSecrets/1: 'A' duplicates /hostSecrets/0 (remove one of the two)");
    insta::assert_snapshot!(problems(&with("/extraHosts/0/prefix", json!("a".repeat(23)))), @r#"/extraHosts/0/prefix: 'aaaaaaaaaaaaaaaaaaaaaaa' is not a DNS label of at most 22 characters (write 1 to 22 of a-z, 0-9 and '-', for example "landing")"#);
}

#[test]
fn meta_counts_problems_beyond_the_limit() {
    let fields: Vec<_> = (0..60).map(|n| (format!("zzz{n}"), json!(1))).collect();
    let json = Value::Object(fields.into_iter().collect()).to_string();
    let problems = Meta::parse(&json).expect_err("invalid");
    assert_eq!(problems.len(), 51);
    insta::assert_snapshot!(problems[50], @"14 more problems are not listed");
    insta::assert_snapshot!(problems[50].remedy(), @"fix these first");
}

#[test]
fn meta_failure_has_code_and_all_problems() {
    let failure = |json: &str| {
        let problems = MetaProblems(Meta::parse(json).expect_err("invalid"));
        let remedy = problems.remedy().expect("a remedy");
        format!("{}: {} ({remedy})", problems.code(), chain(&problems))
    };
    insta::assert_snapshot!(failure(&with("/database", json!("hosts"))), @r#"preview_config_invalid: system.build.previewMeta in preview-config.nix is invalid: /database: unknown value 'hosts'; did you mean 'host'? (write "host" or "container")"#);
    insta::assert_snapshot!(failure(&with("/routes/0", json!({ "port": 0 }))), @"preview_config_invalid: system.build.previewMeta in preview-config.nix is invalid in 2 places: /routes/0/path: this required field is missing (add it); /routes/0/port: 0 is not a port (write the number of the port that the app listens on, 1 to 65535) (Fix these places and push again.)");
}

#[test]
fn routes_are_ordered_by_specificity() {
    let paths = ["/", "/a/*", "/a/b", "/a/b/*", "/a", "/z", "/a/b/c/d"];
    let routes: Vec<_> = paths
        .iter()
        .map(|path| json!({ "path": path, "port": 1 }))
        .collect();
    let meta = Meta::parse(&with("/routes", json!(routes))).expect("valid");
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
fn route_with_stripped_prefix_is_a_tree() {
    let route = |path: &str| RouteRule::new(RoutePath::parse(path).expect("valid"), 1, true);
    for path in ["/admin", "/admin/", "/admin/*"] {
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
    for exact in ["/ws", "/ws/"] {
        assert!(!RoutePath::parse(exact).expect("valid").is_tree());
    }
}

#[test]
fn route_options_are_read_and_unsupported_ones_reported() {
    let routes = json!([
        { "path": "/grpc/*", "port": 1, "protocol": "h2c" },
        { "path": "/slow/*", "port": 1, "timeout": 30 },
        { "path": "/", "port": 2, "protocol": null, "timeout": null },
    ]);
    let meta = Meta::parse(&with("/routes", routes)).expect("valid");
    let options: Vec<_> = meta
        .routes
        .iter()
        .map(|route| (route.protocol, route.timeout.map(RouteTimeout::seconds)))
        .collect();
    assert_eq!(
        options,
        [
            (RouteProtocol::Http, Some(30)),
            (RouteProtocol::H2c, None),
            (RouteProtocol::Http, None)
        ]
    );
    // Records of former releases have no options.
    let stored = serde_json::to_value(&meta.routes[2]).expect("JSON");
    assert_eq!(
        stored,
        json!({ "path": "/", "port": 2, "stripPrefix": false })
    );
    let routes = json!([
        { "path": "/a", "port": 1, "protocol": "http2", "timeout": 0 },
        { "path": "/b", "port": 1, "protocol": true, "timeout": "30s" },
        { "path": "/c", "port": 1, "timeout": 1.5, "loadBalancing": "random" },
        { "path": "/d", "port": 1, "protocol": "h2c", "timeout": 30 },
    ]);
    let problems = Meta::parse(&with("/routes", routes)).expect_err("invalid");
    insta::assert_snapshot!(MetaProblems(problems).lines().join("\n"));
}

#[test]
fn route_path_has_no_special_characters_of_caddy() {
    for bad in [
        "",
        "api",
        "*",
        "//",
        "/a//b",
        "/a//",
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
        "/a/",
        "/a/*",
        "/.well-known/x",
        "/@vite/*",
        "/a.b-c_d~e:f+g",
    ] {
        assert_eq!(RoutePath::parse(good).expect(good).as_str(), good);
    }
}

#[test]
fn service_name_is_a_service() {
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
fn meta_labels_are_slug_and_extra_hosts() {
    let meta = Meta::parse(&full().to_string()).expect("valid");
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
    fn meta_parses_or_rejects_any_text(text in ".{0,40}") {
        if let Err(problems) = Meta::parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn meta_parses_or_rejects_any_value_at_its_place(
        value in any_json(),
        place in prop::sample::select(vec![
            "/setupService", "/appServices", "/appServices/0", "/database", "/routes", "/routes/0", "/routes/0/path",
            "/routes/0/port", "/routes/0/stripPrefix", "/hostSecrets", "/extraHosts", "/extraHosts/0", "/extraHosts/0/routes",
        ]),
    ) {
        let json = with(place, value);
        match Meta::parse(&json) {
            Ok(meta) => {
                let written = serde_json::to_string(&meta).expect("serializes");
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
