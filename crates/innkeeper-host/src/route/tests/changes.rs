//! Changes of routes: concurrent, across restarts, after crashes.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;

#[tokio::test]
async fn websockets_survive_changes_of_other_routes() {
    let Some(rig) = Rig::start("route websockets").await else {
        return;
    };
    rig.ensure(&simple("steady")).await;
    let mut socket = Socket::open("steady.localhost", "/ws").await;
    for round in 0..20 {
        let slug = format!("other-{}", round % 3);
        rig.ensure(&placeholder(&slug)).await;
        rig.ensure(&full(&slug)).await;
        assert!(
            get(&format!("{slug}.localhost"), "/")
                .await
                .body
                .starts_with(&response_start(3000, "GET /"))
        );
        rig.remove(&slug).await;
        assert!(socket.echoes().await, "round {round}");
    }
    // A change of its own route does not close it, either.
    rig.ensure(&full("steady")).await;
    assert!(socket.echoes().await);
    assert_eq!(rig.loads(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn concurrent_changes_share_one_load() {
    let Some(rig) = Rig::start("route batch").await else {
        return;
    };
    let slugs: Vec<_> = (0..40).map(|n| format!("web-{n}")).collect();
    let ensures = slugs.iter().map(async |slug| {
        rig.ensure(&with_extra(slug, "admin")).await;
        let host = format!("{slug}.localhost");
        let response = get(&host, "/").await;
        assert_eq!(response.status, 200, "{slug} is not in force: {response:?}");
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

/// Forwards connections to Caddy's admin API. Loads wait for a permit. Returns the number of loads that have arrived.
fn relay_admin(
    socket: &Path,
    admin: PathBuf,
    permits: Arc<Semaphore>,
) -> tokio::sync::watch::Receiver<usize> {
    let listener = tokio::net::UnixListener::bind(socket).expect("binds");
    let (arrived, arrivals) = tokio::sync::watch::channel(0);
    let arrived = Arc::new(arrived);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let (admin, permits, arrived) = (admin.clone(), permits.clone(), arrived.clone());
            tokio::spawn(async move {
                let mut start = [0; 10];
                stream.read_exact(&mut start).await.expect("a request");
                if start == *b"POST /load" {
                    arrived.send_modify(|count| *count += 1);
                    permits.acquire().await.expect("open").forget();
                }
                let mut caddy = tokio::net::UnixStream::connect(admin)
                    .await
                    .expect("connect");
                caddy.write_all(&start).await.expect("write");
                tokio::io::copy_bidirectional(&mut stream, &mut caddy)
                    .await
                    .ok();
            });
        }
    });
    arrivals
}

#[tokio::test]
async fn a_load_goes_on_without_those_who_wait_for_it() {
    let Some(mut rig) = Rig::start("slow load").await else {
        return;
    };
    let permits = Arc::new(Semaphore::new(0));
    let socket = rig.path("relay.sock");
    let mut arrivals = relay_admin(&socket, rig.path("admin.sock"), permits.clone());
    rig.routes = CaddyRoutes::new(CaddyConfig {
        admin: Admin::Unix(socket),
        ..config(rig.dir.path())
    });
    for slug in ["web", "shop"] {
        let routes = rig.routes.clone();
        let setup = tokio::spawn(async move { routes.ensure(&simple(slug)).await });
        drop(
            arrivals
                .wait_for(|arrived| *arrived > 0)
                .await
                .expect("a load"),
        );
        setup.abort();
        assert!(setup.await.expect_err("canceled").is_cancelled());
    }
    let checks = rig.routes.check().await;
    let finding = checks.first().expect("a finding");
    assert_eq!(finding.verdict, Verdict::Warning, "{checks:?}");
    assert!(
        finding.finding.starts_with("Caddy has been loading"),
        "{checks:?}"
    );
    permits.add_permits(1);
    rig.ensure(&simple("web")).await;
    assert_eq!(get("web.localhost", "/").await.status, 200);
    assert_eq!(*arrivals.borrow(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn routes_survive_a_restart_and_are_removed_without_caddy() {
    let Some(mut rig) = Rig::start("route restart").await else {
        return;
    };
    rig.ensure(&full("web")).await;
    rig.ensure(&simple("shop")).await;
    rig.caddy.kill().await.expect("kill");
    // A removal does not need Caddy.
    rig.remove("shop").await;
    let error = rig.refused(&simple("late")).await;
    assert!(matches!(error, RouteError::Unreachable { .. }), "{error}");
    assert_eq!(error.code(), Code::RouteFailed);
    let loads = rig.loads();
    rig.caddy = run_caddy(rig.dir.path()).await;
    check_full("after a restart").await;
    assert_eq!(get("shop.localhost", "/").await.status, 404);
    rig.ensure(&simple("late")).await;
    assert_eq!(get("late.localhost", "/").await.status, 200);
    assert_eq!(rig.loads(), loads, "the restart loaded everything");
    rig.stop().await;
}

#[tokio::test]
async fn shared_config_is_restored_when_lost() {
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
    // Caddy still had it in memory.
    assert_eq!(rig.loads(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn is_complete_compares_with_the_desired_route() {
    let Some(mut rig) = Rig::start("complete route").await else {
        return;
    };
    let desired = with_extra("web", "admin");
    assert!(!rig.is_complete(&desired).await);
    rig.ensure(&desired).await;
    assert!(rig.is_complete(&desired).await);
    for other in [simple("web"), placeholder("web"), full("web")] {
        assert!(!rig.is_complete(&other).await, "{other:?}");
    }
    rig.remove("web").await;
    assert!(!rig.is_complete(&desired).await);
    rig.ensure(&desired).await;
    rig.caddy.kill().await.expect("kill");
    assert!(!rig.is_complete(&desired).await);
    rig.stop().await;
}

/// Simulates the files on disk after a crash between two steps.
type Crash = (&'static str, fn(&Path));

#[tokio::test]
async fn interrupted_changes_are_finished_by_the_next_try() {
    let Some(rig) = Rig::start("route crash").await else {
        return;
    };
    let (previous, desired) = (with_extra("web", "old"), with_extra("web", "new"));
    let crashes: [Crash; 7] = [
        ("a temporary file", |root| {
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
        ("an incomplete temporary tree", |root| {
            std::fs::create_dir_all(root.join("table/previews/.web.new/hosts")).expect("directory");
        }),
        ("the tree was renamed", |root| {
            let previews = root.join("table/previews");
            std::fs::rename(previews.join("web"), previews.join(".web.new")).expect("rename");
        }),
        ("Caddy's file is missing", |root| {
            std::fs::remove_file(root.join("previews/web.caddy")).expect("remove");
        }),
        ("a directory is missing", |root| {
            let host = root.join("table/previews/web/hosts/web.localhost");
            #[expect(clippy::disallowed_methods, reason = "no guest wrote this tree")]
            std::fs::remove_dir_all(host.join("live")).expect("remove");
        }),
    ];
    for (crash, simulate) in crashes {
        rig.ensure(&previous).await;
        simulate(rig.dir.path());
        rig.ensure(&desired).await;
        for (host, status) in [("web", 200), ("new-web", 200), ("old-web", 404)] {
            assert_eq!(
                get(&format!("{host}.localhost"), "/").await.status,
                status,
                "{crash}: {host}"
            );
        }
        remove_after_crash(&rig, &previous, simulate, crash).await;
    }
    rig.stop().await;
}

async fn remove_after_crash(rig: &Rig, previous: &RouteSpec, simulate: fn(&Path), crash: &str) {
    rig.remove("web").await;
    rig.ensure(previous).await;
    simulate(rig.dir.path());
    rig.remove("web").await;
    assert_eq!(rig.found().await, [], "{crash}");
    rig.remove("web").await;
    assert_eq!(get("web.localhost", "/").await.status, 404, "{crash}");
}
