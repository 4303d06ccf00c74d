//! Creation, copying, reset and removal of databases, with interruptions and blockers.

use super::*;

#[tokio::test]
async fn interrupted_operations_are_finished_by_the_next_try() {
    let Some(cluster) = cluster("database crash").await else {
        return;
    };
    let template = cluster.admin("postgres").await;
    template
        .batch_execute("CREATE DATABASE seed")
        .await
        .expect("create");
    let (databases, web) = (&cluster.databases, copy_of(Some("seed"), "web"));
    let mut counts = BTreeMap::new();
    for verb in ["ensure", "reset", "remove"] {
        for statement in 0.. {
            if verb != "ensure" {
                databases.ensure(&web).await.expect("ensure");
            }
            let failing = cluster.failing_before(statement);
            let outcome = match verb {
                "ensure" => failing.ensure(&web).await.map(drop),
                "reset" => failing.reset(&web).await.map(drop),
                _ => failing.remove(&web.slug).await,
            };
            let completed = outcome.is_ok();
            // Incomplete objects have the preview's mark.
            for (guest, object) in cluster.found().await {
                assert_eq!(
                    guest.as_deref(),
                    Some("web"),
                    "{verb} {statement}: {object}"
                );
            }
            if statement % 2 == 0 {
                let access = databases.ensure(&web).await.expect("ensure");
                let client = cluster.login(&access, &access.name).await.expect("login");
                client
                    .batch_execute("CREATE TABLE t ()")
                    .await
                    .expect("create");
            }
            databases.remove(&web.slug).await.expect("remove");
            assert_eq!(cluster.found().await, [], "{verb} {statement}");
            if completed {
                counts.insert(verb, statement);
                break;
            }
        }
    }
    assert_eq!(
        counts,
        BTreeMap::from([("ensure", 5), ("reset", 8), ("remove", 4)])
    );
    cluster.stop().await;
}

#[tokio::test]
async fn incomplete_database_rejects_connections() {
    let Some(cluster) = cluster("half a database").await else {
        return;
    };
    let shop = cluster.ensure("shop").await;
    cluster
        .failing_before(2)
        .ensure(&empty("web"))
        .await
        .expect_err("interrupted");
    assert_eq!(cluster.found().await.len(), 6);
    let error = cluster
        .login(&shop, "preview_web")
        .await
        .expect_err("another preview's");
    assert!(
        error.contains("too many connections for database"),
        "{error}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn concurrent_operations_do_not_conflict() {
    let Some(cluster) = cluster("databases at once").await else {
        return;
    };
    let names: Vec<_> = (0..20).map(|n| format!("web-{n}")).collect();
    let twin = PostgresDatabases::new((*cluster.databases.config).clone());
    let all = names.iter().map(|name| cluster.ensure(name));
    let same = (0..20).map(async |n: usize| {
        let databases = if n < 10 { &twin } else { &cluster.databases };
        databases.ensure(&empty("same")).await.expect("ensure")
    });
    let (all, same) = tokio::join!(
        futures_util::future::join_all(all),
        futures_util::future::join_all(same)
    );
    for access in all.iter().chain(&same) {
        cluster.login(access, &access.name).await.expect("usable");
    }
    let removals = names.iter().map(|name| cluster.remove(name));
    futures_util::future::join_all(removals).await;
    cluster.remove("same").await;
    assert_eq!(cluster.found().await, []);
    cluster.stop().await;
}

#[tokio::test]
async fn reset_empties_the_database_and_keeps_the_password() {
    let Some(cluster) = cluster("database reset").await else {
        return;
    };
    let access = cluster.ensure("web").await;
    let client = cluster.login(&access, &access.name).await.expect("login");
    client
        .batch_execute("CREATE TABLE notes ()")
        .await
        .expect("create");
    let again = cluster.databases.reset(&empty("web")).await.expect("reset");
    assert_eq!(again.password.expose(), access.password.expose());
    assert_eq!(cluster.ensure("web").await.id, again.id);
    assert_ne!(again.id, access.id);
    client
        .batch_execute("SELECT 1")
        .await
        .expect_err("the connection was ended");
    let client = cluster.login(&access, &access.name).await.expect("login");
    assert_eq!(
        one::<i64>(
            &client,
            "SELECT count(*) FROM pg_tables WHERE tablename = 'notes'"
        )
        .await,
        0
    );
    let size = async |slug| {
        let slug = GuestName::parse(slug).expect(slug);
        cluster.databases.size(&slug).await.expect("an answer")
    };
    assert!(size("web").await.is_some_and(|bytes| bytes > 1 << 20));
    assert_eq!(size("shop").await, None);
    // Without a database, reset creates one.
    let fresh = cluster
        .databases
        .reset(&empty("shop"))
        .await
        .expect("reset");
    cluster.login(&fresh, &fresh.name).await.expect("login");
    cluster.stop().await;
}

#[tokio::test]
async fn removal_ends_connections_and_removes_all_objects() {
    let Some(cluster) = cluster("database removal").await else {
        return;
    };
    let access = cluster.ensure("web").await;
    let client = cluster.login(&access, &access.name).await.expect("login");
    client
        .batch_execute("BEGIN; CREATE TABLE t ()")
        .await
        .expect("busy");
    let objects: Vec<_> = cluster
        .found()
        .await
        .into_iter()
        .map(|(_, object)| object)
        .collect();
    assert_eq!(
        objects,
        ["database preview_web", "passwords/web", "role preview_web"]
    );
    cluster.remove("web").await;
    assert_eq!(cluster.found().await, []);
    cluster.remove("web").await;
    assert!(cluster.login(&access, "postgres").await.is_err());
    // A new database has a new password.
    let next = cluster.ensure("web").await;
    assert_ne!(next.password.expose(), access.password.expose());
    cluster.stop().await;
}

#[tokio::test]
async fn template_copy_belongs_to_the_preview() {
    let Some(cluster) = cluster("template database").await else {
        return;
    };
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("CREATE ROLE author")
        .await
        .expect("role");
    admin
        .batch_execute("CREATE DATABASE seed")
        .await
        .expect("database");
    let seed = cluster.admin("seed").await;
    seed.batch_execute(
        "CREATE SCHEMA \"My Shop\" AUTHORIZATION author;
         CREATE TYPE mood AS ENUM ('good');
         CREATE DOMAIN \"Price\" AS int;
         CREATE TYPE pair AS (a int, b int);
         CREATE TABLE notes (id serial, n int GENERATED ALWAYS AS IDENTITY, mood mood, text text);
         CREATE TABLE \"My Shop\".\"Things\" (id int);
         CREATE SEQUENCE free;
         CREATE VIEW seen AS SELECT * FROM notes;
         CREATE MATERIALIZED VIEW kept AS SELECT 1;
         CREATE FUNCTION f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE PROCEDURE p() LANGUAGE sql AS '';
         CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
         CREATE TABLE parts (id int) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
         SELECT lo_from_bytea(4711, 'large');
         INSERT INTO notes (text) VALUES ('from the template')",
    )
    .await
    .expect("seed");
    let (databases, spec) = (&cluster.databases, copy_of(Some("seed"), "web"));
    // A template with connections: they stay open.
    let error = database_error(databases.ensure(&spec).await);
    assert!(
        matches!(error, DatabaseError::TemplateInUse { .. }),
        "{error}"
    );
    drop(seed);
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'seed'";
    while one::<i64>(&admin, busy).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let access = databases.ensure(&spec).await.expect("ensure");
    let client = cluster.login(&access, &access.name).await.expect("login");
    assert_eq!(
        one::<String>(&client, "SELECT text FROM notes").await,
        "from the template"
    );
    client
        .batch_execute(
            "ALTER TABLE notes ADD more int; INSERT INTO notes (text) VALUES ('mine'); DROP SCHEMA \"My Shop\" CASCADE;
             DROP VIEW seen; REFRESH MATERIALIZED VIEW kept; DROP FUNCTION f; DROP PROCEDURE p; DROP AGGREGATE total(int);
             ALTER TYPE mood ADD VALUE 'bad'; DROP DOMAIN \"Price\"; DROP TYPE pair; DROP SEQUENCE free; DROP TABLE parts;
             SELECT lo_unlink(4711)",
        )
        .await
        .expect("everything is its own");
    // A reset copies the template again.
    databases.reset(&spec).await.expect("reset");
    let client = cluster.login(&access, &access.name).await.expect("login");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM notes").await, 1);
    let nowhere = copy_of(Some("nowhere"), "shop");
    let error = database_error(databases.ensure(&nowhere).await);
    assert!(matches!(error, DatabaseError::NoTemplate { .. }), "{error}");
    cluster.stop().await;
}

#[tokio::test]
async fn removal_succeeds_despite_blockers_in_the_database() {
    let Some(cluster) = cluster("database blockers").await else {
        return;
    };
    let access = cluster.ensure("web").await;
    let admin = cluster.admin("preview_web").await;
    let maintenance = cluster.admin("postgres").await;
    let owner = cluster.login(&access, &access.name).await.expect("login");
    // Before the prepared transaction: a new slot would wait for it.
    let slot = "SELECT pg_create_logical_replication_slot('used', 'test_decoding')::text";
    one::<String>(&admin, slot).await;
    let reader = cluster.start_slot_reader("preview_web", "used").await;
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    while one::<i64>(&maintenance, active).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for sql in [
        "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s left'",
        "ALTER DATABASE preview_web SET local_preload_libraries = 'missing'",
        "ALTER DATABASE preview_web SET role = 'preview_web'",
    ] {
        owner.batch_execute(sql).await.expect(sql);
    }
    admin
        .batch_execute(
            "CREATE SUBSCRIPTION \"My Feed\" CONNECTION 'host=/nowhere dbname=x' PUBLICATION p \
             WITH (connect = false); ALTER DATABASE preview_web IS_TEMPLATE true",
        )
        .await
        .expect("subscription");
    maintenance
        .batch_execute("ALTER DATABASE preview_web ALLOW_CONNECTIONS false")
        .await
        .expect("closed");
    // An open transaction on the database object itself makes ALTER DATABASE wait.
    owner
        .batch_execute("BEGIN; COMMENT ON DATABASE preview_web IS 'mine'")
        .await
        .expect("lock");
    cluster.remove("web").await;
    assert_eq!(cluster.found().await, []);
    drop(reader);
    for left in [
        "SELECT count(*) FROM pg_prepared_xacts",
        "SELECT count(*) FROM pg_replication_slots",
        "SELECT count(*) FROM pg_subscription",
    ] {
        assert_eq!(one::<i64>(&maintenance, left).await, 0, "{left}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn role_removal_succeeds_despite_rights_from_other_previews() {
    let Some(cluster) = cluster("role blockers").await else {
        return;
    };
    let (web, shop) = (cluster.ensure("web").await, cluster.ensure("shop").await);
    let shop = cluster.login(&shop, &shop.name).await.expect("login");
    shop.batch_execute(
        "CREATE TABLE notes (); GRANT SELECT ON notes TO preview_web;
         ALTER DATABASE preview_shop SET local_preload_libraries = 'missing'",
    )
    .await
    .expect("grant");
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("ALTER DATABASE preview_shop ALLOW_CONNECTIONS false")
        .await
        .expect("closed");
    shop.batch_execute("BEGIN; CREATE TABLE more (); GRANT SELECT ON more TO preview_web")
        .await
        .expect("open transaction");
    cluster.remove("web").await;
    assert!(cluster.login(&web, &web.name).await.is_err());
    let names: Vec<_> = cluster.found().await.into_iter().map(|one| one.1).collect();
    assert_eq!(
        names,
        [
            "database preview_shop",
            "passwords/shop",
            "role preview_shop"
        ]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn half_dropped_database_is_removed_or_recreated() {
    let Some(cluster) = cluster("invalid database").await else {
        return;
    };
    let admin = cluster.admin("postgres").await;
    let invalid = "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'preview_web'";
    cluster.ensure("web").await;
    admin.batch_execute(invalid).await.expect("invalid");
    let access = cluster.ensure("web").await;
    let login = cluster.login(&access, &access.name).await;
    login.expect("recreated");
    admin.batch_execute(invalid).await.expect("invalid");
    cluster.remove("web").await;
    assert_eq!(cluster.found().await, []);
    cluster.stop().await;
}

#[tokio::test]
async fn unresponsive_server_is_reported_within_the_timeout() {
    let Some(cluster) = cluster("stopped server").await else {
        return;
    };
    let id = Pid::from_raw(i32::try_from(cluster.server.id().expect("runs")).expect("pid"));
    let id = id.expect("pid");
    kill_process(id, Signal::STOP).expect("stop");
    let (checks, found) = tokio::join!(cluster.databases.check(), cluster.databases.observe());
    kill_process(id, Signal::CONT).expect("continue");
    let finding = &checks.first().expect("a finding").finding;
    assert!(finding.contains("PostgreSQL does not respond"), "{finding}");
    let error = found.expect_err("no response");
    let error = error.downcast().expect("an error of the database");
    assert!(matches!(error, DatabaseError::Connect { .. }), "{error}");
    cluster.stop().await;
}
