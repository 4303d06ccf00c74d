//! Routes come, change and go: at once, together, across restarts and crashes.

use super::*;

#[tokio::test]
async fn open_websockets_survive_the_changes_of_other_previews() {
    let Some(rig) = Rig::start("route websockets").await else {
        return;
    };
    rig.ensure(&simple("steady")).await;
    let mut socket = Socket::open("steady.localhost", "/ws").await;
    for round in 0..20 {
        let slug = format!("other-{}", round % 3);
        rig.ensure(&placeholder(&slug)).await;
        rig.ensure(&whole(&slug)).await;
        assert!(
            get(&format!("{slug}.localhost"), "/")
                .await
                .body
                .starts_with(&asked(3000, "GET /"))
        );
        rig.remove(&slug).await;
        assert!(socket.echoes().await, "round {round}");
    }
    // Its own route's change does not cut it either.
    rig.ensure(&whole("steady")).await;
    assert!(socket.echoes().await);
    assert_eq!(rig.loads(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn many_at_once_share_one_load() {
    let Some(rig) = Rig::start("route batch").await else {
        return;
    };
    let slugs: Vec<_> = (0..40).map(|n| format!("web-{n}")).collect();
    let ensures = slugs.iter().map(async |slug| {
        rig.ensure(&with_extra(slug, "admin")).await;
        let host = format!("{slug}.localhost");
        let answer = get(&host, "/").await;
        assert_eq!(answer.status, 200, "{slug} is not in force: {answer:?}");
    });
    futures_util::future::join_all(ensures).await;
    assert_eq!(rig.loads(), 1);
    rig.reload().await;
    assert_eq!(get("admin-web-39.localhost", "/").await.status, 200);
    let removals = slugs.iter().map(|slug| rig.remove(slug));
    futures_util::future::join_all(removals).await;
    assert_eq!(rig.found().await, []);
    assert_eq!(get("admin-web-39.localhost", "/").await.status, 404);
    rig.stop().await;
}

#[tokio::test]
async fn routes_survive_a_restart_of_caddy_and_go_without_it() {
    let Some(mut rig) = Rig::start("route restart").await else {
        return;
    };
    rig.ensure(&whole("web")).await;
    rig.ensure(&simple("shop")).await;
    rig.caddy.kill().await.expect("kill");
    // Nobody is asked when something goes.
    rig.remove("shop").await;
    let error = rig.refused(&simple("late")).await;
    assert!(matches!(error, RouteError::Unreachable { .. }), "{error}");
    assert_eq!(error.code(), Code::RouteFailed);
    let loads = rig.loads();
    rig.caddy = run_caddy(rig.dir.path()).await;
    check_whole("after a restart").await;
    assert_eq!(get("shop.localhost", "/").await.status, 404);
    rig.ensure(&simple("late")).await;
    assert_eq!(get("late.localhost", "/").await.status, 200);
    assert_eq!(rig.loads(), loads, "the restart has loaded everything");
    rig.stop().await;
}

#[tokio::test]
async fn what_all_previews_share_comes_back_when_it_is_lost() {
    let Some(rig) = Rig::start("lost table").await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    for lost in ["table", "previews"] {
        crate::tree::remove(&rig.path(lost)).expect("remove");
        assert!(!rig.is_complete(&simple("web")).await, "{lost}");
        rig.ensure(&simple("web")).await;
        assert!(rig.is_complete(&simple("web")).await, "{lost}");
        assert_eq!(get("web.localhost", "/").await.status, 200, "{lost}");
    }
    // Caddy had not forgotten it.
    assert_eq!(rig.loads(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_route_is_complete_as_it_was_asked_for_and_not_otherwise() {
    let Some(mut rig) = Rig::start("complete route").await else {
        return;
    };
    let wanted = with_extra("web", "admin");
    assert!(!rig.is_complete(&wanted).await);
    rig.ensure(&wanted).await;
    assert!(rig.is_complete(&wanted).await);
    for other in [simple("web"), placeholder("web"), whole("web")] {
        assert!(!rig.is_complete(&other).await, "{other:?}");
    }
    rig.remove("web").await;
    assert!(!rig.is_complete(&wanted).await);
    rig.ensure(&wanted).await;
    rig.caddy.kill().await.expect("kill");
    assert!(!rig.is_complete(&wanted).await);
    rig.stop().await;
}

/// What stands on the disk when the machine stops between two steps.
type Crash = (&'static str, fn(&Path));

#[tokio::test]
async fn whatever_a_crash_left_the_next_try_finishes() {
    let Some(rig) = Rig::start("route crash").await else {
        return;
    };
    let (former, wanted) = (with_extra("web", "old"), with_extra("web", "new"));
    let crashes: [Crash; 7] = [
        ("a file aside", |root| {
            std::fs::write(root.join("previews/.web.caddy.new"), "half").expect("write");
        }),
        ("Caddy's file is new", |root| {
            let file = root.join("previews/web.caddy");
            let text = std::fs::read_to_string(&file).expect("read");
            std::fs::write(file, text.replace("old-", "new-")).expect("write");
        }),
        ("a claim", |root| {
            let link = root.join("table/hosts/new-web.localhost");
            std::os::unix::fs::symlink("../previews/web/hosts/new-web.localhost", link)
                .expect("link");
        }),
        ("a half tree aside", |root| {
            std::fs::create_dir_all(root.join("table/previews/.web.new/hosts")).expect("directory");
        }),
        ("the tree is away", |root| {
            let previews = root.join("table/previews");
            std::fs::rename(previews.join("web"), previews.join(".web.new")).expect("rename");
        }),
        ("Caddy's file is away", |root| {
            std::fs::remove_file(root.join("previews/web.caddy")).expect("remove");
        }),
        ("a file was cut off", |root| {
            std::fs::write(root.join("table/previews/web/hosts/web.localhost"), "").expect("write");
        }),
    ];
    for (crash, make) in crashes {
        rig.ensure(&former).await;
        make(rig.dir.path());
        rig.ensure(&wanted).await;
        for (host, status) in [("web", 200), ("new-web", 200), ("old-web", 404)] {
            assert_eq!(
                get(&format!("{host}.localhost"), "/").await.status,
                status,
                "{crash}: {host}"
            );
        }
        make_again_and_remove(&rig, &former, make, crash).await;
    }
    rig.stop().await;
}

async fn make_again_and_remove(rig: &Rig, former: &RouteSpec, make: fn(&Path), crash: &str) {
    rig.remove("web").await;
    rig.ensure(former).await;
    make(rig.dir.path());
    rig.remove("web").await;
    assert_eq!(rig.found().await, [], "{crash}");
    rig.remove("web").await;
    assert_eq!(get("web.localhost", "/").await.status, 404, "{crash}");
}
