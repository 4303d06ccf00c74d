//! Shares of the server's connections.

use super::*;

/// Returns the connection limits of all previews' roles.
async fn limits(admin: &tokio_postgres::Client) -> Vec<i32> {
    let sql = "SELECT rolconnlimit FROM pg_roles WHERE starts_with(rolname, 'preview_')";
    let rows = admin.query(sql, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn previews_share_the_servers_connections() {
    let Some(cluster) = cluster("shares of connections").await else {
        return;
    };
    let databases = cluster.with(|config| config.connections = None);
    let specs: Vec<_> = (1..=6).map(|n| empty(&format!("web-{n}"))).collect();
    let ensure = async |n: usize| databases.ensure(&specs[n - 1]).await.expect("ensure");
    let admin = cluster.admin("postgres").await;
    // 60, less 3 for superusers and a reserve of 10: 47, of which a quarter is 11.
    let first = ensure(1).await;
    assert_eq!(limits(&admin).await, [11]);
    let others = specs[1..].iter().map(|spec| databases.ensure(spec));
    for other in futures_util::future::join_all(others).await {
        other.expect("ensure");
    }
    let last = ensure(6).await;
    assert_eq!(limits(&admin).await, [7; 6]);

    let mut open = Vec::new();
    for access in [&first, &last] {
        for _ in 0..7 {
            let login = cluster.login(access, &access.name).await;
            open.push(login.expect("its share"));
        }
        let refused = cluster.login(access, &access.name).await;
        let error = refused.expect_err("more than its share");
        assert!(error.contains("too many connections for role"), "{error}");
    }

    // The share of a removed preview goes to the others.
    cluster.remove("web-2").await;
    ensure(3).await;
    assert_eq!(limits(&admin).await, [9; 5]);

    // One preview more than connections.
    for n in 1..=42 {
        let mark = sql::mark(&slug(&format!("crowd-{n}")), Identity::of('a').daemon());
        let role =
            format!("CREATE ROLE preview_crowd_{n}; COMMENT ON ROLE preview_crowd_{n} IS '{mark}'");
        admin.batch_execute(&role).await.expect("role");
    }
    let error = database_error(databases.ensure(&empty("late")).await);
    assert_eq!(error.code(), Code::DatabaseFailed);
    assert_eq!(
        error.to_string(),
        "PostgreSQL has 47 connections for previews, and this would be preview number 48"
    );
    let remedy = error.remedy().expect("a remedy");
    assert!(remedy.contains("`max_connections = 253`"), "{remedy}");
    // Existing previews can still be updated.
    ensure(1).await;
    assert_eq!(limits(&admin).await, [1; 47]);
    cluster.stop().await;
}
