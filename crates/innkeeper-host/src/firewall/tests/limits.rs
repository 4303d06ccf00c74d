//! Limits of connections.

use super::*;

/// Opens TCP connections until one is refused, and returns how many were accepted.
fn open_many(target: SocketAddr, most: usize) -> Vec<TcpStream> {
    let timeout = Duration::from_secs(10);
    let open = || TcpStream::connect_timeout(&target, timeout).ok();
    std::iter::from_fn(open).take(most).collect()
}

/// Closes a connection at once, at both ends.
fn reset(connection: TcpStream) {
    set_socket_linger(&connection, Some(Duration::ZERO)).expect("linger");
    drop(connection);
}

#[tokio::test]
async fn connection_limit_affects_one_guest_only() {
    let test = "connection_limit_affects_one_guest_only";
    if !enter_own_namespace(test) {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let accept_all = |listener: TcpListener| {
        std::thread::spawn(move || {
            let accepted: Vec<_> = listener.incoming().map_while(Result::ok).collect();
            drop(accepted);
        })
    };
    let world: SocketAddr = "198.51.100.2:80".parse().expect("address");
    let gateway: SocketAddr = "10.100.0.2:5432".parse().expect("address");
    for (place, address) in [(World, world), (Host, gateway)] {
        accept_all(scene.at(place, move || TcpListener::bind(address).expect("listen")));
    }

    // Both ways count: to the world and to the gateway.
    let mut open = scene.at(Web, move || open_many(gateway, 5));
    assert_eq!(open.len(), 5);
    open.extend(scene.at(Web, move || open_many(world, 1000)));
    assert_eq!(open.len(), 20);
    // A second ensure does not reset the count or change the rules.
    scene.ensure().await;
    assert_eq!(scene.firewall.table.difference().await.expect("nft"), None);
    assert_eq!(scene.at(Web, move || open_many(world, 1000)).len(), 0);
    // Open connections continue, and so do those of the neighbor and of the host.
    open[0].write_all(b"still here").expect("write");
    assert_eq!(scene.at(Shop, move || open_many(world, 20)).len(), 20);
    assert_eq!(scene.at(Host, move || open_many(world, 1000)).len(), 1000);
    // A closed connection frees one of the limit.
    for connection in open {
        reset(connection);
    }
    let mut again = Vec::new();
    for _ in 0..1000 {
        again.extend(scene.at(Web, move || open_many(world, 1)));
        if !again.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(again.len(), 1);
}

#[tokio::test]
async fn rate_of_new_connections_is_limited() {
    if !enter_own_namespace("rate_of_new_connections_is_limited") {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let world: SocketAddr = "198.51.100.2:80".parse().expect("address");
    let listener = scene.at(World, move || TcpListener::bind(world).expect("listen"));
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
    // Each is reset before the next starts, so that none counts as open.
    let accepted = scene.at(Web, move || {
        let open = || {
            let timeout = Duration::from_secs(10);
            TcpStream::connect_timeout(&world, timeout).map(reset)
        };
        (0..1000).take_while(|_| open().is_ok()).count()
    });
    assert!((20..1000).contains(&accepted), "{accepted} connections");
}
