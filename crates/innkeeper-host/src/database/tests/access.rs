//! Access rights of previews, secrecy of passwords, and names.

use super::*;

#[tokio::test]
async fn preview_can_access_only_its_own_database() {
    let Some(cluster) = cluster("own database").await else {
        return;
    };
    let (web, shop) = (cluster.ensure("web-1").await, cluster.ensure("shop").await);
    assert_eq!(
        (web.name.as_str(), web.role.as_str()),
        ("preview_web_1", "preview_web_1")
    );
    let host = "10.100.0.2".parse().expect("address");
    let url = format!(
        "postgresql://preview_web_1:{}@10.100.0.2:5432/preview_web_1",
        web.password.expose()
    );
    assert_eq!(web.url(host, 5432).expose(), url);
    let client = cluster.login(&web, &web.name).await.expect("its own");
    client
        .batch_execute(
            "CREATE TABLE notes (text text); CREATE SCHEMA more; INSERT INTO notes VALUES ('kept')",
        )
        .await
        .expect("its own");
    let error = cluster
        .login(&web, &shop.name)
        .await
        .expect_err("another's");
    assert!(error.contains("permission denied for database"), "{error}");
    for forbidden in [
        "CREATE DATABASE other",
        "CREATE ROLE other",
        "ALTER ROLE preview_shop PASSWORD 'x'",
        "DROP DATABASE preview_shop",
        "COPY notes TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE postgres",
        "COMMENT ON ROLE preview_web_1 IS 'mine'",
        "COMMENT ON DATABASE preview_shop IS 'mine'",
        "SELECT * FROM pg_authid",
    ] {
        let error = refused(&client, forbidden).await;
        assert!(
            error.contains("permission denied") || error.contains("must "),
            "{forbidden}: {error}"
        );
    }
    assert_eq!(
        one::<String>(&client, "SHOW statement_timeout").await,
        "30s"
    );
    // Updates keep contents, password and open connections.
    let again = cluster.ensure("web-1").await;
    assert_eq!(again.password.expose(), web.password.expose());
    assert_eq!(
        one::<String>(&client, "SELECT text FROM notes").await,
        "kept"
    );
    cluster
        .login(&again, &web.name)
        .await
        .expect("the same password");
    cluster.stop().await;
}

#[tokio::test]
async fn password_is_in_no_log_and_no_system_table() {
    let Some(cluster) = cluster("password secrecy").await else {
        return;
    };
    let access = cluster.ensure("web").await;
    // PostgreSQL logs failing statements in more detail.
    let client = cluster.admin("postgres").await;
    client
        .batch_execute("CREATE DATABASE preview_shop")
        .await
        .expect("create");
    let error = database_error(cluster.databases.ensure(&empty("shop")).await);
    assert!(
        matches!(
            error,
            DatabaseError::Foreign {
                kind: "database",
                ..
            }
        ),
        "{error}"
    );
    let log = cluster.log();
    assert!(
        log.contains("CREATE DATABASE preview_shop"),
        "statements are logged"
    );
    let shown =
        std::fs::read_to_string(cluster.dir.path().join("passwords/shop")).expect("password");
    for password in [access.password.expose(), &shown] {
        assert!(!log.contains(password) && !format!("{access:?}").contains(password));
    }
    assert!(!log.contains("SCRAM-SHA-256$"), "not even the verifier");
    let stored: String = one(
        &client,
        "SELECT rolpassword FROM pg_authid WHERE rolname = 'preview_web'",
    )
    .await;
    assert!(stored.starts_with("SCRAM-SHA-256$4096:"), "{stored}");
    cluster.stop().await;
}

#[tokio::test]
async fn database_accepts_only_its_own_guest() {
    let Some(cluster) = cluster("database over the network").await else {
        return;
    };
    let network = VethNetwork::new(NetworkConfig {
        range: SUBNET.parse().expect("range"),
        identity: Identity::of('a'),
    });
    let leaders = [Leader::start().await, Leader::start().await];
    for (guest, leader) in [guest("web", 1), guest("shop", 2)].iter().zip(&leaders) {
        network.ensure(guest, leader.pid).await.expect("network");
    }
    let (web, shop) = (cluster.ensure("web").await, cluster.ensure("shop").await);
    let from_web = |access: &DatabaseAccess, database: &str, password: &str| {
        let mut config = tokio_postgres::Config::new();
        config
            .host("10.100.0.2")
            .port(PORT)
            .user(&access.role)
            .dbname(database)
            .password(password);
        let thread = leaders[0].inside(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("runtime");
            runtime.block_on(async { connect(&config).await.map(drop) })
        });
        thread.join().expect("thread")
    };
    let (own, others) = (web.password.expose(), shop.password.expose());
    from_web(&web, &web.name, own).expect("its own");
    for (access, database, password, expected) in [
        (&web, &*web.name, others, "password authentication failed"),
        (&shop, &*shop.name, own, "password authentication failed"),
        (&web, &*shop.name, own, "no pg_hba.conf entry"),
        (&web, "postgres", own, "no pg_hba.conf entry"),
        (&web, "template1", own, "no pg_hba.conf entry"),
    ] {
        let error = from_web(access, database, password).expect_err(expected);
        assert!(error.contains(expected), "{database}: {error}");
    }
    for leader in leaders {
        leader.stop().await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn quoting_matches_postgresqls_parser() {
    let Some(cluster) = cluster("quoting").await else {
        return;
    };
    let admin = cluster.admin("postgres").await;
    let mut runner = TestRunner::deterministic();
    let texts = proptest::collection::vec(
        proptest::sample::select(vec![
            "'", "\"", "\\", "a", ";", "--", "/*", "$$", "\n", "é", "E'", " ",
        ]),
        1..12,
    );
    for standard in ["on", "off"] {
        admin
            .batch_execute(&format!(
                "SET standard_conforming_strings = {standard}; SET escape_string_warning = off"
            ))
            .await
            .expect("set");
        for _ in 0..200 {
            let text = texts
                .new_tree(&mut runner)
                .expect("value")
                .current()
                .concat();
            let sql = format!("SELECT {} AS {}", literal(&text), identifier(&text));
            let row = admin.query_one(&sql, &[]).await.expect(&sql);
            assert_eq!(row.get::<_, String>(0), text, "{sql}");
            assert_eq!(row.columns()[0].name(), text, "{sql}");
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn long_slugs_get_distinct_databases() {
    let Some(cluster) = cluster("long slugs").await else {
        return;
    };
    let (one, two) = (
        format!("{}-1", "x".repeat(61)),
        format!("{}-2", "x".repeat(61)),
    );
    let (first, second) = (cluster.ensure(&one).await, cluster.ensure(&two).await);
    assert_ne!(first.name, second.name);
    cluster.login(&first, &first.name).await.expect("login");
    let guests: Vec<_> = cluster
        .found()
        .await
        .into_iter()
        .map(|(guest, _)| guest)
        .collect();
    assert!(guests.contains(&Some(one.clone())) && guests.contains(&Some(two.clone())));
    cluster.remove(&one).await;
    cluster.login(&second, &second.name).await.expect("login");
    cluster.stop().await;
}
