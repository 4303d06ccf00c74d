//! Marks, foreign objects, orphans and the server's check.

use super::*;

#[tokio::test]
async fn foreign_objects_are_left_alone() {
    let Some(cluster) = cluster("foreign database").await else {
        return;
    };
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("CREATE ROLE preview_web")
        .await
        .expect("role");
    admin
        .batch_execute("CREATE DATABASE preview_web OWNER preview_web")
        .await
        .expect("database");
    admin
        .batch_execute("CREATE DATABASE preview_shop")
        .await
        .expect("database");
    let error = database_error(cluster.databases.ensure(&empty("web")).await);
    assert!(
        matches!(error, DatabaseError::Foreign { kind: "role", .. }),
        "{error}"
    );
    assert_eq!(error.code(), Code::DatabaseFailed);
    for outcome in [
        cluster.databases.ensure(&empty("shop")).await,
        cluster.databases.reset(&empty("shop")).await,
    ] {
        let error = database_error(outcome);
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
    }
    // Removal skips foreign objects.
    cluster.remove("web").await;
    cluster.remove("shop").await;
    assert_eq!(cluster.found().await, []);
    let count: i64 = one(
        &admin,
        "SELECT count(*) FROM pg_database WHERE datname LIKE 'preview%'",
    )
    .await;
    assert_eq!(count, 2);
    for object in [
        "role postgres",
        "database postgres",
        "role preview_web",
        "/etc/passwd",
    ] {
        let found = Found::ours(Some(slug("other")), object.to_owned());
        cluster.databases.sweep(&found).await.expect_err(object);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn roles_of_other_daemons_stay_and_legacy_ones_are_adopted() {
    let Some(cluster) = cluster("database of another daemon").await else {
        return;
    };
    let theirs = PostgresDatabases::new(PostgresConfig {
        identity: Identity::of('b'),
        passwords: cluster.dir.path().join("theirs"),
        ..PostgresConfig::clone(&cluster.databases.config)
    });
    theirs.ensure(&empty("web")).await.expect("made");
    let admin = cluster.admin("postgres").await;
    let ownerships = async || {
        let found = cluster.databases.observe().await.expect("observes");
        let all: std::collections::BTreeSet<_> = found.iter().map(|one| one.ownership).collect();
        all.into_iter().collect::<Vec<_>>()
    };
    let other = cluster.databases.observe().await.expect("observes");
    assert_eq!(ownerships().await, [Ownership::Other]);
    let error = database_error(cluster.databases.ensure(&empty("web")).await);
    assert!(matches!(error, DatabaseError::Foreign { .. }), "{error}");
    let count = "SELECT count(*) FROM pg_database WHERE datname = 'preview_web'";
    for ours in [cluster.databases.clone(), cluster.databases.adopting()] {
        ours.adopt(&slug("web")).await.expect("skips it");
        ours.remove(&slug("web")).await.expect("skips it");
        for found in &other {
            ours.sweep(found).await.expect("skips it");
        }
        assert_eq!(one::<i64>(&admin, count).await, 1);
    }

    // Marks of a former release.
    for kind in ["ROLE", "DATABASE"] {
        let sql = format!("COMMENT ON {kind} preview_web IS 'innkeeper: preview web'");
        admin
            .batch_execute(&sql)
            .await
            .expect("an administrator may");
    }
    assert_eq!(ownerships().await, [Ownership::Unmarked]);
    cluster.remove("web").await;
    cluster
        .databases
        .adopt(&slug("shop"))
        .await
        .expect("another preview");
    assert_eq!(ownerships().await, [Ownership::Unmarked]);
    cluster.databases.adopt(&slug("web")).await.expect("adopts");
    assert_eq!(ownerships().await, [Ownership::Ours]);
    cluster.remove("web").await;
    assert_eq!(one::<i64>(&admin, count).await, 0);
    cluster.stop().await;
}

#[tokio::test]
async fn previews_cannot_prevent_removal() {
    let Some(cluster) = cluster("stubborn previews").await else {
        return;
    };
    let (shop, web) = (cluster.ensure("shop").await, cluster.ensure("web").await);
    let client = cluster.login(&shop, &shop.name).await.expect("login");
    // Statements that the owner may run.
    client
        .batch_execute(
            "CREATE TABLE t (); GRANT SELECT ON t TO preview_web; CREATE POLICY p ON t TO preview_web;
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO preview_web;
             GRANT CONNECT, CREATE ON DATABASE preview_shop TO preview_web;
             ALTER DATABASE preview_shop IS_TEMPLATE true",
        )
        .await
        .expect("an owner may");
    // The administrator's statements in another database.
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("CREATE TABLE shared (); GRANT SELECT ON shared TO preview_web")
        .await
        .expect("an administrator may");
    cluster.remove("web").await;
    cluster.remove("shop").await;
    assert_eq!(cluster.found().await, []);
    assert!(cluster.login(&web, "postgres").await.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn objects_in_foreign_databases_are_not_dropped() {
    let Some(cluster) = cluster("guests of others").await else {
        return;
    };
    cluster.ensure("web").await;
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("CREATE TABLE lent (); ALTER TABLE lent OWNER TO preview_web")
        .await
        .expect("an administrator may");
    let outcome = cluster.databases.remove(&slug("web")).await;
    let error = innkeeper_model::chain(&outcome.expect_err("refused"));
    assert!(error.contains("owner of table public.lent"), "{error}");
    admin
        .batch_execute("DROP TABLE lent")
        .await
        .expect("still there");
    cluster.remove("web").await;
    assert_eq!(cluster.found().await, []);
    cluster.stop().await;
}

#[tokio::test]
async fn orphans_are_swept() {
    let Some(cluster) = cluster("database orphans").await else {
        return;
    };
    for name in ["web", "shop"] {
        cluster.ensure(name).await;
    }
    std::fs::write(cluster.dir.path().join("passwords/.old.new"), "half").expect("write");
    // A lost password file.
    std::fs::remove_file(cluster.dir.path().join("passwords/shop")).expect("remove");
    assert_eq!(cluster.found().await.len(), 6);
    for found in cluster.databases.observe().await.expect("observe") {
        cluster.databases.sweep(&found).await.expect("sweeps");
        cluster.databases.sweep(&found).await.expect("is gone");
    }
    assert_eq!(cluster.found().await, []);
    cluster.stop().await;
}

#[tokio::test]
async fn check_reports_configuration_problems() {
    use innkeeper_model::api::Verdict;
    let Some(cluster) = cluster("database check").await else {
        return;
    };
    let findings = async |databases: &PostgresDatabases| -> Vec<_> {
        let checks = databases.check().await;
        checks
            .into_iter()
            .map(|check| (check.verdict, check.finding))
            .collect()
    };
    let good = findings(&cluster.databases).await;
    assert!(
        good.len() == 2 && good.iter().all(|(verdict, _)| *verdict == Verdict::Ok),
        "{good:?}"
    );
    let elsewhere = cluster.with(|config| config.subnet = "10.200.0.0/16".parse().expect("net"));
    let seen = findings(&elsewhere).await;
    assert!(
        seen[1].0 == Verdict::Broken
            && seen[1]
                .1
                .contains("has no line for connections from 10.200.0.0/16"),
        "{seen:?}"
    );
    let hba = cluster.dir.path().join("data/pg_hba.conf");
    let lines = std::fs::read_to_string(&hba).expect("lines");
    let without: String = lines
        .split_inclusive('\n')
        .filter(|line| !line.contains("127.0.0.1"))
        .collect();
    std::fs::write(&hba, without).expect("write");
    let seen = findings(&cluster.databases).await;
    assert!(
        seen.iter()
            .any(|(verdict, finding)| *verdict == Verdict::Warning
                && finding.contains("no line for previews' roles from 127.0.0.1")),
        "{seen:?}"
    );
    let unreachable = cluster.with(|config| config.port = 1);
    let seen = findings(&unreachable).await;
    assert!(
        seen[0].0 == Verdict::Broken && seen[0].1.starts_with("cannot connect to PostgreSQL"),
        "{seen:?}"
    );
    let stranger = cluster.with(|config| config.role = "somebody".to_owned());
    let error = database_error(stranger.ensure(&empty("web")).await);
    assert!(
        error.remedy().expect("remedy").contains("pg_ident.conf"),
        "{error}"
    );
    cluster.stop().await;
}
