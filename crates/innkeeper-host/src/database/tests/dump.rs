//! Contents of databases in files, for backups.

use super::*;

/// Returns the connection limit of a preview's role.
async fn limit(admin: &tokio_postgres::Client, role: &str) -> i32 {
    let sql = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{role}'");
    one(admin, &sql).await
}

#[tokio::test]
async fn dump_has_the_rights_of_the_preview_and_a_connection_of_its_own() {
    let Some(cluster) = cluster("dump of a database").await else {
        return;
    };
    let databases = &cluster.databases;
    let missing = databases
        .dump(&slug("web"), Path::new("/nonexistent/x"))
        .await;
    missing.expect_err("the preview has no database");
    let web = cluster.ensure("web").await;
    let admin = cluster.admin("postgres").await;
    let set_limit = async |limit: u32| {
        let alter = format!("ALTER ROLE {} CONNECTION LIMIT {limit}", web.role);
        admin
            .batch_execute(&alter)
            .await
            .expect("an administrator may");
    };
    let mut sessions = Vec::new();
    set_limit(8).await;
    for _ in 0..8 {
        sessions.push(cluster.login(&web, &web.name).await.expect("its share"));
    }
    // The share has shrunk. The sessions stay.
    set_limit(5).await;
    sessions[0]
        .batch_execute(
            "CREATE TABLE kept (number int, twice int GENERATED ALWAYS AS (number * 2) STORED);
             INSERT INTO kept VALUES (21);
             SELECT lo_from_bytea(0, 'large')",
        )
        .await
        .expect("an owner may");
    let file = cluster.dir.path().join("web.dump");
    databases.dump(&slug("web"), &file).await.expect("dumps");
    assert_eq!(limit(&admin, &web.role).await, 5);

    let (password, shop) = (Secret::new("x".repeat(24)), slug("shop"));
    databases
        .load(&shop, &password, &file)
        .await
        .expect("loads");
    let shop = cluster.ensure("shop").await;
    let client = cluster.login(&shop, &shop.name).await.expect("login");
    assert_eq!(one::<i32>(&client, "SELECT twice FROM kept").await, 42);

    // The superuser could read this.
    cluster
        .admin(&web.name)
        .await
        .batch_execute("CREATE TABLE foreign_table (number int)")
        .await
        .expect("an administrator may");
    std::fs::remove_file(&file).expect("removes");
    let refused = databases.dump(&slug("web"), &file).await;
    let refused = refused.expect_err("refused");
    let remedy = refused.remedy().expect("a remedy");
    assert!(remedy.contains("pg_hba.conf"), "{remedy}");
    let refused = innkeeper_model::chain(&refused);
    assert!(refused.contains("permission denied"), "{refused}");
    assert_eq!(limit(&admin, &web.role).await, 5);
    cluster.stop().await;
}
