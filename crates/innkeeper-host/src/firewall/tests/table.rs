//! The table: its owner, its rules, its checks.

use super::*;

#[tokio::test]
async fn foreign_or_unmarked_table_is_not_replaced() {
    if !enter_own_namespace("foreign_or_unmarked_table_is_not_replaced") {
        return;
    }
    let (ours, theirs) = (driver(config()), driver_of(Identity::of('b'), config()));
    let rules = async || run_nft(&["list", "ruleset"]).await;
    theirs.ensure().await.expect("alone");
    theirs.ensure().await.expect("their own");
    let before = rules().await;
    let adopting = driver_of(Identity::of('a').adopting(), config());
    for ours in [&ours, &adopting] {
        let refused = ours.ensure().await.expect_err("another daemon's");
        assert_eq!(refused.code(), Code::DaemonConflict);
        ours.remove().await.expect_err("another daemon's");
        assert!(
            ours.check()
                .await
                .iter()
                .any(|one| one.verdict == Verdict::Broken)
        );
    }
    assert_eq!(rules().await, before);

    // A former release's table has no mark: it is adopted once.
    theirs.remove().await.expect("their own");
    run_nft(&["add", "table", "inet", "innkeeper"]).await;
    let refused = ours.ensure().await.expect_err("unmarked");
    assert_eq!(refused.code(), Code::InvalidConfig);
    adopting.ensure().await.expect("adopts");
    ours.ensure().await.expect("marked by now");
    assert!(String::from_utf8_lossy(&rules().await).contains(&"a".repeat(32)));
}

/// Each daemon's rules apply to its own guests, independently of the other's.
#[tokio::test]
async fn rules_apply_to_one_daemons_guests_only() {
    if !enter_own_namespace("rules_apply_to_one_daemons_guests_only") {
        return;
    }
    let scene = Scene::build().await;
    let closed = FirewallConfig {
        subnet: "10.101.0.0/16".parse().expect("net"),
        table: "innkeeper_2".to_owned(),
        allow_dns: false,
        allowed_host_ports: Vec::new(),
        web: None,
        nameservers: Vec::new(),
        ..config()
    };
    let other = driver_of(Identity::of('b'), closed);
    let theirs = VethNetwork::new(NetworkConfig {
        range: "10.101.0.0/16".parse().expect("range"),
        identity: Identity::of('b'),
    });
    let leader = Leader::start().await;
    theirs
        .ensure(&guest("web", 9), leader.pid)
        .await
        .expect("network");
    scene.ensure().await;
    other.ensure().await.expect("ensure");
    for row in PASSES {
        assert!(scene.try_tcp(row).is_some(), "{row:?}");
    }
    for row in REFUSED {
        assert_eq!(scene.try_tcp(row), None, "{row:?}");
    }
    let connect = |from: &Leader, address: &'static str| {
        let target: SocketAddr = address.parse().expect("address");
        let job = move || TcpStream::connect_timeout(&target, Duration::from_secs(10));
        from.inside(job).join().expect("thread").is_ok()
    };
    // The other daemon's guest: its gateway's port is closed, and it cannot reach this daemon's guests, nor they it.
    let _database = TcpListener::bind("10.101.0.18:5432").expect("listen");
    let _theirs = leader.inside(|| TcpListener::bind("10.101.0.19:80").expect("listen"));
    let _ours = scene.at(Web, || TcpListener::bind("10.100.0.3:80").expect("listen"));
    assert!(!connect(&leader, "10.101.0.18:5432"));
    assert!(!connect(&leader, "10.100.0.3:80"));
    assert!(!connect(&scene.places[0], "10.101.0.19:80"));
    other.remove().await.expect("remove");
    scene.firewall.remove().await.expect("remove");
    assert!(
        connect(&leader, "10.101.0.18:5432"),
        "nothing else refuses it"
    );
}

#[tokio::test]
async fn ensure_keeps_connections_and_other_tables() {
    if !enter_own_namespace("ensure_keeps_connections_and_other_tables") {
        return;
    }
    let scene = Scene::build().await;
    run_nft(&["add table ip neighbor; add chain ip neighbor c { type filter hook forward priority 5; }; add rule ip neighbor c ip ttl 1 drop"]).await;
    let foreign = run_nft(&["list", "table", "ip", "neighbor"]).await;
    scene.ensure().await;
    let ours = scene
        .firewall
        .table
        .fingerprint()
        .await
        .expect("fingerprint");

    let listener = scene.at(World, || {
        TcpListener::bind("198.51.100.2:80").expect("listen")
    });
    let mut guest = scene.at(Web, || {
        TcpStream::connect("198.51.100.2:80").expect("connect")
    });
    let (mut world, _) = listener.accept().expect("accept");
    for round in 0..3u8 {
        scene.ensure().await;
        guest.write_all(&[round]).expect("write");
        let mut byte = [99];
        world.read_exact(&mut byte).expect("read");
        world.write_all(&byte).expect("write");
        guest.read_exact(&mut byte).expect("read");
        assert_eq!(byte, [round]);
    }
    assert_eq!(
        scene
            .firewall
            .table
            .fingerprint()
            .await
            .expect("fingerprint"),
        ours
    );
    assert_eq!(run_nft(&["list", "table", "ip", "neighbor"]).await, foreign);

    scene.firewall.remove().await.expect("remove");
    scene
        .firewall
        .remove()
        .await
        .expect("remove what is absent");
    let left = run_nft(&["list", "ruleset"]).await;
    assert_eq!(left, foreign, "{}", String::from_utf8_lossy(&left));
}

#[tokio::test]
async fn check_reports_missing_changed_and_conflicting_rules() {
    if !enter_own_namespace("check_reports_missing_changed_and_conflicting_rules") {
        return;
    }
    let firewall = driver(config());
    let verdicts = async || {
        let checks = firewall.check().await;
        checks
            .into_iter()
            .filter(|check| check.subject == SUBJECT)
            .map(|c| (c.verdict, c.finding))
            .collect::<Vec<_>>()
    };
    let has = |checks: &[(Verdict, String)], verdict, word: &str| {
        checks
            .iter()
            .any(|(v, finding)| *v == verdict && finding.contains(word))
    };
    std::fs::write(FORWARDING, "0").expect("forwarding");
    let seen = verdicts().await;
    assert!(has(&seen, Verdict::Broken, "is missing"), "{seen:?}");
    assert!(has(&seen, Verdict::Broken, "forwarding is off"), "{seen:?}");

    firewall.ensure().await.expect("ensure");
    let healthy = [(
        Verdict::Ok,
        "the table inet innkeeper is in force".to_owned(),
    )];
    assert_eq!(verdicts().await, healthy);

    run_nft(&["insert rule inet innkeeper forward accept"]).await;
    let seen = verdicts().await;
    assert!(has(&seen, Verdict::Broken, "was changed"), "{seen:?}");
    firewall.ensure().await.expect("ensure");
    assert_eq!(verdicts().await, healthy);

    // As Docker leaves it.
    run_nft(&["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]).await;
    let seen = verdicts().await;
    assert!(
        has(&seen, Verdict::Warning, "ip filter FORWARD"),
        "{seen:?}"
    );

    let restarted = driver(config());
    let seen = restarted.check().await;
    assert!(
        seen[0].finding.contains("not written by this daemon"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn disturbed_reports_foreign_removals_only() {
    if !enter_own_namespace("disturbed_reports_foreign_removals_only") {
        return;
    }
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    for removal in ["flush ruleset", "delete table inet innkeeper"] {
        let unrelated_changes = async {
            firewall.ensure().await.expect("ensure");
            run_nft(&["add table ip other; delete table ip other"]).await;
            firewall.ensure().await.expect("ensure");
        };
        tokio::select! {
            biased;
            () = firewall.disturbed() => panic!("the table was not removed"),
            () = unrelated_changes => {}
        }
        let removed = async {
            run_nft(&[removal]).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = firewall.disturbed() => {}
            () = removed => {}
        }
        assert_eq!(
            firewall.table.difference().await.expect("nft"),
            Some("is missing")
        );
        firewall.ensure().await.expect("ensure");
    }
}

#[tokio::test]
async fn refused_rules_keep_the_former_ones_in_force() {
    if !enter_own_namespace("refused_rules_keep_the_former_ones_in_force") {
        return;
    }
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    let before = run_nft(&["list", "ruleset"]).await;
    let bad = ruleset(&config()).replace("accept\n\t}", "accept\n\t\tjump nowhere\n\t}");
    assert_ne!(bad, ruleset(&config()));
    nft("write", &["--file", "-"], &bad)
        .await
        .expect_err("a chain that does not exist");
    assert_eq!(run_nft(&["list", "ruleset"]).await, before);
}

#[tokio::test]
async fn table_name_cannot_inject_commands() {
    for table in ["", "1up", "a b", "x; flush ruleset", "a{", &"a".repeat(33)] {
        let config = FirewallConfig {
            table: table.to_owned(),
            ..config()
        };
        let error = driver(config).ensure().await.expect_err(table);
        assert_eq!(error.code(), Code::InvalidConfig, "{table:?}");
    }
}

#[test]
fn ruleset_matches_its_documentation() {
    insta::assert_snapshot!(ruleset(&FirewallConfig {
        resolver: Some(3053),
        ..config()
    }));
}

#[test]
fn another_port_of_urls_adds_a_rule() {
    let without = ruleset(&config());
    let with = ruleset(&FirewallConfig {
        web: Some(WebPorts {
            public: 8443,
            url: 443,
            guests: 3443,
        }),
        ..config()
    });
    let added = with.lines().filter(|line| !without.contains(*line));
    insta::assert_snapshot!(added.collect::<Vec<_>>().join("\n"));
}

#[test]
fn overlapping_networks_are_merged() {
    let config = FirewallConfig {
        subnet: "100.100.0.0/16".parse().expect("net"),
        extra_private: [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "198.51.100.0/24",
            "198.51.100.7/24",
        ]
        .map(|net| net.parse().expect("net"))
        .to_vec(),
        allowed_host_ports: Vec::new(),
        web: None,
        allow_dns: false,
        log_refusals: false,
        ..config()
    };
    insta::assert_snapshot!(ruleset(&config));
}
