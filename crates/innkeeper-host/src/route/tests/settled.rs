//! Hosts that have not changed for a while, which Caddy finds without the table.

use super::*;

/// Starts a rig with settled hosts. `None` if this machine cannot.
async fn settled(test: &str, specs: &[RouteSpec]) -> Option<Rig> {
    let rig = Rig::start(test).await?;
    for spec in specs {
        rig.ensure(spec).await;
    }
    if !rig.settle().await {
        Rig::too_old(test);
        rig.stop().await;
        return None;
    }
    Some(rig)
}

/// Sends a request to the table only: removes the directories that it lists for the usual requests.
fn remove_shortcuts(rig: &Rig, slug: &str) {
    let hosts = rig.path(&format!("table/previews/{slug}/hosts"));
    for host in files::names(&hosts).expect("lists") {
        for dir in ["live", "paths", "rules", "deep"] {
            crate::tree::remove(&hosts.join(&host).join(dir)).expect("removes");
        }
    }
}

#[tokio::test]
async fn settled_hosts_need_no_table() {
    let specs = [full("web"), simple("shop"), placeholder("later")];
    let Some(rig) = settled("settled hosts", &specs).await else {
        return;
    };
    assert_eq!(rig.settled(), ["admin-web", "shop", "web"]);
    check_full("settled").await;
    assert_eq!(get("later.localhost", "/").await.status, 503);
    remove_shortcuts(&rig, "web");
    for (path, port, forwarded) in [
        ("/", 3000, "/"),
        ("/x/y?q=1&r=%20", 3000, "/x/y?q=1&r=%20"),
        ("/api/users/1?q=/api", 4000, "/users/1?q=/api"),
        ("/API/users", 4000, "/users"),
        ("/api/docs/x", 5000, "/api/docs/x"),
        ("/ws", 4000, "/ws"),
        ("/ws/", 3000, "/ws/"),
    ] {
        let response = get("web.localhost", path).await;
        let expected = response_start(port, &format!("GET {forwarded}"));
        assert!(response.body.starts_with(&expected), "{path}: {response:?}");
    }
    // Other paths need the lookup.
    for path in ["/api", "/api//x", "/x.", "/%20"] {
        assert_eq!(get("web.localhost", path).await.status, 404, "{path}");
    }
    let response = get("web.localhost", "/").await;
    assert_eq!(response.header("x-robots-tag"), Some("noindex"));
    rig.stop().await;
}

/// Every change ends the use of the former address at once, also without the daemon's timer.
#[tokio::test]
async fn a_changed_host_is_never_served_from_its_former_address() {
    let before = with_extra("web", "admin");
    let Some(rig) = settled("changed settled hosts", std::slice::from_ref(&before)).await else {
        return;
    };
    let loads = rig.loads();
    let moved = RouteSpec {
        guest_address: OTHER_GUEST.into(),
        ..before.clone()
    };
    rig.ensure(&moved).await;
    let response = get("web.localhost", "/").await;
    assert!(response.body.starts_with("127.0.1.5:3000 "), "{response:?}");
    let response = get("admin-web.localhost", "/").await;
    assert!(response.body.starts_with("127.0.1.5:5000 "), "{response:?}");
    assert_eq!(rig.loads(), loads, "changes do not load");
    // Another preview's hosts stay settled.
    rig.ensure(&simple("shop")).await;
    assert!(rig.settle().await);
    assert_eq!(rig.settled(), ["admin-web", "shop", "web"]);
    rig.ensure(&placeholder("web")).await;
    assert_eq!(get("web.localhost", "/").await.status, 503);
    assert_eq!(get("admin-web.localhost", "/").await.status, 404);
    assert_eq!(rig.settled(), ["shop"]);
    rig.ensure(&before).await;
    assert!(rig.settle().await);
    for state in [RouteState::Held, RouteState::Live] {
        let spec = RouteSpec {
            state: state.clone(),
            ..before.clone()
        };
        rig.ensure(&spec).await;
        assert_eq!(rig.settled(), ["shop"], "{state:?}");
    }
    assert!(rig.settle().await);
    rig.remove("web").await;
    assert_eq!(get("web.localhost", "/").await.status, 404);
    for found in rig.routes.observe().await.expect("observe") {
        rig.routes.sweep(&found).await.expect("sweeps");
    }
    assert_eq!(get("shop.localhost", "/").await.status, 404);
    rig.stop().await;
}

#[tokio::test]
async fn websockets_and_requests_survive_the_load_of_settled_hosts() {
    let Some(rig) = settled("loads of settled hosts", &[simple("web")]).await else {
        return;
    };
    let mut sockets = Vec::new();
    for round in 0..5 {
        sockets.push(Socket::open("web.localhost", "/ws").await);
        let requests = async {
            for number in 0..50 {
                let response = get("web.localhost", &format!("/{number}")).await;
                assert_eq!(response.status, 200, "round {round}: {response:?}");
            }
        };
        let loads = rig.loads();
        let load = async {
            rig.ensure(&simple(&format!("more-{round}"))).await;
            assert!(rig.settle().await);
        };
        tokio::join!(requests, load);
        assert_eq!(rig.loads(), loads + 1, "round {round}");
        for socket in &mut sockets {
            assert!(socket.echoes().await, "round {round}");
        }
    }
    // A change of the host does not close its WebSockets, either.
    rig.ensure(&full("web")).await;
    for socket in &mut sockets {
        assert!(socket.echoes().await);
    }
    rig.stop().await;
}

/// Neither a new daemon nor a new Caddy changes the settled hosts, and a lost table ends them.
#[tokio::test]
async fn settled_hosts_survive_restarts_and_not_a_lost_table() {
    let Some(mut rig) = settled("restarts with settled hosts", &[full("web")]).await else {
        return;
    };
    rig.routes = CaddyRoutes::new(config(rig.dir.path()));
    let loads = rig.loads();
    rig.routes.settle().await.expect("settles");
    assert!(rig.is_complete(&full("web")).await);
    rig.ensure(&full("web")).await;
    assert_eq!(rig.loads(), loads);
    rig.caddy.kill().await.expect("kill");
    // A removal does not need Caddy, and holds after its restart.
    rig.remove("web").await;
    rig.caddy = run_caddy(rig.dir.path()).await;
    assert_eq!(get("web.localhost", "/").await.status, 404);
    rig.ensure(&full("web")).await;
    assert!(rig.settle().await);
    check_full("settled again").await;
    // Files that are restored from a backup are older than the configuration.
    let other = rig.path("table/previews/web/hosts/web.localhost/host");
    std::fs::write(&other, "page/web\n").expect("write");
    rig.routes.settle().await.expect("settles");
    assert_eq!(rig.settled(), ["admin-web"]);
    crate::tree::remove(&rig.path("table")).expect("remove");
    rig.routes.settle().await.expect("settles");
    assert_eq!(get("web.localhost", "/").await.status, 404);
    rig.ensure(&full("web")).await;
    check_full("restored").await;
    rig.stop().await;
}

#[tokio::test]
async fn loads_that_would_end_requests_settle_nothing() {
    let test = "settled hosts with a grace period";
    let Some(rig) = settled(test, &[simple("web")]).await else {
        return;
    };
    let main = rig.path("Caddyfile");
    let text = std::fs::read_to_string(&main).expect("read");
    let text = text.replacen("{\n", "{\n\tgrace_period 10s\n", 1);
    std::fs::write(&main, text).expect("write");
    assert!(!rig.settle().await);
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.stop().await;
}

/// As if Caddy had lost the permission to read the table.
#[tokio::test]
async fn nothing_is_settled_where_caddy_cannot_read_the_table() {
    let test = "settled hosts without permission";
    let Some(rig) = settled(test, &[simple("web")]).await else {
        return;
    };
    let (hosts, moved) = (rig.path("table/hosts"), rig.path("table/moved"));
    std::fs::rename(&hosts, &moved).expect("rename");
    assert!(!rig.settle().await);
    assert_eq!(get("web.localhost", "/").await.status, 404);
    std::fs::rename(&moved, &hosts).expect("rename");
    assert!(rig.settle().await);
    assert_eq!(get("web.localhost", "/").await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn visits_of_settled_hosts_are_reported() {
    let shop = RouteSpec {
        guest_address: OTHER_GUEST.into(),
        ..simple("shop")
    };
    let specs = [with_extra("web", "admin"), shop];
    let Some(rig) = settled("visits of settled hosts", &specs).await else {
        return;
    };
    let visited = async || {
        let visits = rig.routes.visits().await.expect("visits");
        let slugs = visits.into_iter().map(|(slug, _)| slug.to_string());
        slugs.collect::<Vec<_>>()
    };
    visited().await;
    for _ in 0..2 {
        for host in ["web", "admin-web"] {
            assert_eq!(get(&format!("{host}.localhost"), "/").await.status, 200);
            assert_eq!(visited().await, ["web"], "{host}");
            assert!(rig.is_complete(&specs[0]).await);
            rig.routes.settle().await.expect("settles");
            assert_eq!(visited().await, [""; 0], "{host}");
        }
    }
    rig.stop().await;
}
