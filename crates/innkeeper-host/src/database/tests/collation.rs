//! Encoding of databases, and collation mismatches after an upgrade of the system's library.

use innkeeper_model::api::Verdict;

use super::*;

/// Waits until the template has no connections.
async fn unused(admin: &tokio_postgres::Client) {
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'seed'";
    while one::<i64>(admin, busy).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn new_database_is_empty_and_in_utf8() {
    let Some(cluster) = cluster_in("encoding of databases", "SQL_ASCII").await else {
        return;
    };
    // A connection to template1 does not matter: it is not copied.
    let common = cluster.admin("template1").await;
    common
        .batch_execute("CREATE TABLE of_the_host ()")
        .await
        .expect("create");
    let access = cluster.ensure("web").await;
    let client = cluster.login(&access, &access.name).await.expect("login");
    assert_eq!(one::<String>(&client, "SHOW server_encoding").await, "UTF8");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(one::<i64>(&client, tables).await, 0);
    assert_eq!(one::<i32>(&client, "SELECT length('å')").await, 1);
    // A configured template keeps its encoding.
    let admin = cluster.admin("postgres").await;
    admin
        .batch_execute("CREATE DATABASE seed ENCODING 'LATIN1' TEMPLATE template0")
        .await
        .expect("create");
    let copy = copy_of(Some("seed"), "shop");
    let access = cluster.databases.ensure(&copy).await.expect("ensure");
    let client = cluster.login(&access, &access.name).await.expect("login");
    assert_eq!(
        one::<String>(&client, "SHOW server_encoding").await,
        "LATIN1"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn collation_mismatch_is_reported_and_the_remedy_works() {
    let test = "collation of databases";
    let Some(cluster) = cluster(test).await else {
        return;
    };
    let admin = cluster.admin("postgres").await;
    let make = "CREATE DATABASE seed TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
    if let Err(error) = admin.batch_execute(make).await {
        eprintln!(
            "INNKEEPER-NOT-RUN: {test}: PostgreSQL cannot create a database with ICU: {error}"
        );
        return cluster.stop().await;
    }
    let found = async || {
        let checks = cluster.databases.check().await;
        let is_about = |check: &Check| check.finding.contains("collation version");
        checks.into_iter().find(is_about)
    };
    let (web, shop) = (copy_of(Some("seed"), "web"), copy_of(Some("seed"), "shop"));
    let databases = &cluster.databases;
    let access = databases.ensure(&web).await.expect("ensure");
    assert_eq!(found().await, None);

    // Simulates an upgrade of the library.
    admin
        .batch_execute(
            "UPDATE pg_database SET datcollversion = '1.0' WHERE datname IN ('seed', 'preview_web')",
        )
        .await
        .expect("update");
    let check = found().await.expect("a finding");
    assert_eq!(check.verdict, Verdict::Warning);
    assert!(check.finding.contains("'preview_web', 'seed'"), "{check:?}");
    // An existing database stays usable. A copy is refused with a remedy.
    let again = databases.ensure(&web).await.expect("ensure");
    assert_eq!(again.name, access.name);
    let error = database_error(databases.ensure(&shop).await);
    assert!(
        matches!(&error, DatabaseError::TemplateCollation { recorded, .. } if recorded == "1.0"),
        "{error}"
    );
    // Without a template, the mismatch does not matter.
    cluster.ensure("empty").await;

    // Runs each statement of the remedies, as psql does.
    let remedies = [check.remedy, error.remedy()];
    for remedy in remedies.map(|remedy| remedy.expect("a remedy")) {
        let mut session = cluster.admin("postgres").await;
        for statement in remedy.split('`').skip(1).step_by(2) {
            match statement.strip_prefix("\\connect ") {
                Some(name) => session = cluster.admin(name.trim_matches('"')).await,
                None => session.batch_execute(statement).await.expect(statement),
            }
        }
    }
    assert_eq!(found().await, None);
    let closed = "SELECT NOT datallowconn FROM pg_database WHERE datname = 'seed'";
    assert!(one::<bool>(&admin, closed).await);
    unused(&admin).await;
    databases.ensure(&shop).await.expect("ensure");
    cluster.stop().await;
}
