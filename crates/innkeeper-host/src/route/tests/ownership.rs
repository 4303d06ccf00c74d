//! Foreign files, claims of hosts, orphans, rejected configurations and the check.

use innkeeper_model::Ownership;

use super::*;

#[tokio::test]
async fn foreign_files_stay_and_hosts_have_one_owner() {
    let Some(rig) = Rig::start("foreign routes").await else {
        return;
    };
    rig.ensure(&with_extra("web", "api")).await;
    let foreign = rig.path("previews/dashboard.caddy");
    std::fs::write(
        &foreign,
        "http://dashboard.localhost:8080 {\n\trespond hello\n}\n",
    )
    .expect("write");
    std::fs::write(
        rig.path("previews/webhook.caddy"),
        "# Innkeeper: preview other\n",
    )
    .expect("write");
    let error = rig.refused(&simple("dashboard")).await;
    assert!(matches!(error, RouteError::ForeignFile { .. }), "{error}");
    let error = rig.refused(&simple("api-web")).await;
    assert!(matches!(error, RouteError::HostTaken { .. }), "{error}");
    let error = rig.refused(&simple("webhook")).await;
    assert!(matches!(error, RouteError::Reserved { .. }), "{error}");
    for slug in ["dashboard", "api-web", "webhook"] {
        rig.remove(slug).await;
    }
    assert!(foreign.exists() && rig.path("previews/webhook.caddy").exists());
    assert!(
        get("api-web.localhost", "/")
            .await
            .body
            .starts_with(&response_start(5000, "GET /"))
    );
    // An unclaimed host is available again.
    rig.ensure(&simple("web")).await;
    rig.ensure(&simple("api-web")).await;
    let error = rig.refused(&with_extra("web", "api")).await;
    assert!(matches!(error, RouteError::HostTaken { .. }), "{error}");
    rig.stop().await;
}

#[tokio::test]
async fn sweep_removes_only_orphans() {
    let Some(rig) = Rig::start("route orphans").await else {
        return;
    };
    rig.ensure(&with_extra("web", "api")).await;
    std::fs::write(rig.path("previews/dashboard.caddy"), "").expect("write");
    std::fs::write(rig.path("previews/.web.caddy.new"), "half").expect("write");
    std::fs::create_dir(rig.path("table/previews/.old.new")).expect("directory");
    let web = || Some("web".to_owned());
    let expected = [
        (None, "previews/.web.caddy.new".to_owned()),
        (None, "table/previews/.old.new".to_owned()),
        (web(), "previews/web.caddy".to_owned()),
        (web(), "table/guests/127.0.1.3".to_owned()),
        (web(), "table/hosts/api-web.localhost".to_owned()),
        (web(), "table/hosts/web.localhost".to_owned()),
        (web(), "table/previews/web".to_owned()),
    ];
    assert_eq!(rig.found().await, expected);
    for found in rig.routes.observe().await.expect("observe") {
        rig.routes.sweep(&found).await.expect("sweeps");
        rig.routes.sweep(&found).await.expect("is gone");
    }
    assert_eq!(rig.found().await, []);
    for object in [
        "previews/dashboard.caddy",
        "previews/_innkeeper.caddy",
        "Caddyfile",
        "table",
        "../x",
    ] {
        let found = Found::ours(None, rig.path(object).display().to_string());
        rig.routes.sweep(&found).await.expect_err(object);
    }
    assert!(rig.path("previews/dashboard.caddy").exists() && rig.path("table").exists());
    rig.stop().await;
}

#[tokio::test]
async fn files_of_other_daemons_stay_and_legacy_ones_are_adopted() {
    let Some(rig) = Rig::start("route of another daemon").await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    let file = rig.path("previews/web.caddy");
    let ours = std::fs::read_to_string(&file).expect("read");
    let (first, rest) = ours.split_once('\n').expect("lines");
    assert_eq!(
        first,
        format!("# Innkeeper: preview web (daemon {})", "a".repeat(32))
    );
    let ownership = async || {
        let found = rig.routes.observe().await.expect("observe");
        let of_file = |one: &&Found| one.object == file.display().to_string();
        found.iter().find(of_file).cloned().expect("found")
    };
    let others = format!(
        "# Innkeeper: preview web (daemon {})\n{rest}",
        "b".repeat(32)
    );
    std::fs::write(&file, &others).expect("write");
    let theirs = ownership().await;
    assert_eq!(theirs.ownership, Ownership::Other);
    let error = rig.refused(&simple("web")).await;
    assert!(matches!(error, RouteError::ForeignFile { .. }), "{error}");
    let web = theirs.guest.clone().expect("a preview");
    rig.routes.adopt(&web).await.expect("skips it");
    rig.routes.sweep(&theirs).await.expect("skips it");
    rig.routes.remove(&web).await.expect("skips it");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), others);

    std::fs::write(&file, format!("# Innkeeper: preview web\n{rest}")).expect("write");
    assert_eq!(ownership().await.ownership, Ownership::Unmarked);
    rig.refused(&simple("web")).await;
    rig.routes.adopt(&web).await.expect("adopts");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), ours);
    rig.ensure(&simple("web")).await;
    rig.routes.remove(&web).await.expect("ours");
    assert_eq!(rig.found().await, []);
    rig.stop().await;
}

#[tokio::test]
async fn rejected_configuration_is_rolled_back() {
    let line = "http://*.localhost:8080 {\n\trespond mine\n}";
    let Some(rig) = Rig::start_with("broken routes", line).await else {
        return;
    };
    let error = rig.refused(&simple("web")).await;
    assert!(matches!(error, RouteError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("ambiguous site definition"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(rig.path("previews"))
            .expect("list")
            .count(),
        0
    );
    assert_eq!(get("x.localhost", "/").await.body, "mine");
    rig.reload().await;
    // A preview's file is checked before it is put in place, too.
    std::fs::write(
        rig.path("Caddyfile"),
        format!(
            "{{\n\tadmin unix/{0}/admin.sock\n}}\nimport {0}/previews/*.caddy\n",
            rig.dir.path().display()
        ),
    )
    .expect("write");
    let mut config = config(rig.dir.path());
    config.tls = Tls::Snippet("no_such_snippet".to_owned());
    let error = CaddyRoutes::new(config)
        .put(&simple("web"))
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("no_such_snippet"), "{error}");
    assert_eq!(
        std::fs::read_dir(rig.path("previews"))
            .expect("list")
            .count(),
        0
    );
    rig.ensure(&simple("web")).await;
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn missing_import_in_the_main_file_is_reported() {
    let Some(rig) = Rig::start("route import").await else {
        return;
    };
    let main = format!(
        "{{\n\tadmin unix/{}/admin.sock\n}}\n",
        rig.dir.path().display()
    );
    std::fs::write(rig.path("Caddyfile"), main).expect("write");
    let error = rig.refused(&simple("web")).await;
    assert!(matches!(error, RouteError::NotImported { .. }), "{error}");
    assert!(error.remedy().expect("remedy").contains("previews/*.caddy"));
    rig.stop().await;
}

#[tokio::test]
async fn check_reports_whether_caddy_can_restart() {
    let Some(rig) = Rig::start("route check").await else {
        return;
    };
    let verdicts = async |routes: &CaddyRoutes| -> Vec<_> {
        routes
            .check()
            .await
            .into_iter()
            .map(|check| (check.verdict, check.finding))
            .collect()
    };
    let before = verdicts(&rig.routes).await;
    assert!(before[0].0 == Verdict::Warning, "{before:?}");
    rig.ensure(&simple("web")).await;
    let after = verdicts(&rig.routes).await;
    assert!(after[0].0 == Verdict::Ok, "{after:?}");
    std::fs::write(rig.path("previews/mine.caddy"), "nonsense {\n").expect("write");
    let broken = verdicts(&rig.routes).await;
    assert!(
        broken[0].0 == Verdict::Broken && broken[0].1.contains("Caddy rejects"),
        "{broken:?}"
    );
    let mut elsewhere = config(rig.dir.path());
    elsewhere.admin = Admin::Unix(rig.path("nowhere.sock"));
    let unreachable = verdicts(&CaddyRoutes::new(elsewhere)).await;
    assert!(
        unreachable[0].0 == Verdict::Broken && unreachable[0].1.contains("does not respond"),
        "{unreachable:?}"
    );
    rig.stop().await;
}
