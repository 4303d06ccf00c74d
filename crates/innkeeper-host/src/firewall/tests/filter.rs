//! Connections that pass and that are refused.

use super::*;

#[tokio::test]
async fn filter_passes_and_refuses_connections_by_table() {
    if !enter_own_namespace("filter_passes_and_refuses_connections_by_table") {
        return;
    }
    let scene = Scene::build().await;
    // Without the rules, every row passes: the rules refuse.
    for row in PASSES.into_iter().chain(REFUSED) {
        assert!(scene.try_tcp(row).is_some(), "{row:?} cannot work");
    }
    scene.ensure().await;
    for row in PASSES {
        let seen = scene.try_tcp(row);
        let as_whom = match row {
            (Host, ..) => GATEWAY,
            (_, World, ..) => HOSTS_PUBLIC,
            _ => WEB,
        };
        assert_eq!(seen, Some(as_whom.parse().expect("address")), "{row:?}");
    }
    for row in REFUSED {
        assert_eq!(scene.try_tcp(row), None, "{row:?}");
    }
}

#[tokio::test]
async fn filter_follows_the_hosts_name_servers() {
    if !enter_own_namespace("filter_follows_the_hosts_name_servers") {
        return;
    }
    let mut scene = Scene::build().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resolv.conf");
    let [first, second, ..] = TRAPS;
    let write = |server: &str| std::fs::write(&file, format!("nameserver {server}\n"));
    write(first).expect("written");
    let source = NameServers::in_files(vec![file.clone()]);
    scene.firewall = scene.firewall.following(source);
    let asks = |scene: &Scene, server| scene.try_tcp((Web, World, server, 53)).is_some();
    scene.ensure().await;
    assert!(asks(&scene, first) && !asks(&scene, second));
    write(second).expect("written");
    scene.ensure().await;
    assert!(!asks(&scene, first) && asks(&scene, second));
    let healthy = scene.firewall.check().await;
    assert_eq!(healthy[0].verdict, Verdict::Ok, "{healthy:?}");

    // While it cannot be read, the former ones stay; a new daemon does not begin without.
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("made");
    scene.ensure().await;
    assert!(asks(&scene, second));
    let source = NameServers::in_files(vec![file.clone()]);
    let error = driver(config()).following(source).ensure().await;
    assert!(error.expect_err("a folder").remedy().is_some());
}

/// Guests reach the web server only through the port that they are redirected from.
#[tokio::test]
async fn connections_to_the_web_server_are_redirected() {
    if !enter_own_namespace("connections_to_the_web_server_are_redirected") {
        return;
    }
    let mut scene = Scene::build().await;
    scene.firewall = driver(FirewallConfig {
        web: Some(WebPorts {
            public: 443,
            url: 8443,
            guests: 3443,
        }),
        ..config()
    });
    scene.ensure().await;
    let listener = scene.at(Host, || TcpListener::bind("0.0.0.0:3443").expect("listen"));
    for address in [GATEWAY, HOSTS_PUBLIC] {
        let target = |port| SocketAddr::new(address.parse().expect("address"), port);
        let seen = scene.connect(Web, target(443), &listener);
        assert_eq!(seen, Some(WEB.parse().expect("address")), "{address}");
        assert_eq!(
            scene.connect(Web, target(3443), &listener),
            None,
            "{address}"
        );
        // Previews' URLs have this port, and lead guests to their gateway.
        let seen = scene.connect(Web, target(8443), &listener);
        assert_eq!(seen.is_some(), address == GATEWAY, "{address}");
    }
}

#[tokio::test]
async fn spoofed_source_addresses_are_dropped() {
    if !enter_own_namespace("spoofed_source_addresses_are_dropped") {
        return;
    }
    let scene = Scene::build().await;
    let receiver = scene.udp(World, "198.51.100.2:7");
    let sources = [SHOP, "8.8.8.8", HOSTS_PUBLIC, WEB];
    for source in &sources[..3] {
        scene.places[0]
            .ip(&["addr", "add", source, "dev", "lo"])
            .await;
    }
    let received = |scene: &Scene| {
        for source in sources {
            let socket = scene.udp(Web, &format!("{source}:0"));
            socket
                .send_to(source.as_bytes(), "198.51.100.2:7")
                .expect("send");
        }
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        // The last packet has the guest's own address, and always arrives.
        while received.last().is_none_or(|last| last != WEB) {
            let length = receiver.recv(&mut buffer).expect("receive");
            received.push(String::from_utf8(buffer[..length].to_vec()).expect("text"));
        }
        received
    };
    assert!(
        received(&scene).len() > 1,
        "spoofing does not work in this scene anyway"
    );
    scene.ensure().await;
    assert_eq!(received(&scene), [WEB]);
}

#[tokio::test]
async fn inbound_connections_are_dropped_and_replies_pass() {
    if !enter_own_namespace("inbound_connections_are_dropped_and_replies_pass") {
        return;
    }
    let scene = Scene::build().await;
    let received = |scene: &Scene| {
        let server = scene.udp(World, "198.51.100.2:0");
        let intruder = scene.udp(World, "198.51.100.2:0");
        let guest = scene.udp(Web, "10.100.0.3:0");
        guest
            .send_to(b"question", server.local_addr().expect("address"))
            .expect("send");
        let mut buffer = [0; 64];
        let (_, client) = server.recv_from(&mut buffer).expect("question");
        intruder
            .send_to(b"intrusion", guest.local_addr().expect("address"))
            .expect("send");
        server.send_to(b"answer", client).expect("send");
        let length = guest.recv(&mut buffer).expect("receive");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    };
    assert_eq!(received(&scene), "intrusion");
    scene.ensure().await;
    assert_eq!(received(&scene), "answer");
}

#[tokio::test]
async fn ipv6_of_guests_is_dropped() {
    if !enter_own_namespace("ipv6_of_guests_is_dropped") {
        return;
    }
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("INNKEEPER-NOT-RUN: ipv6_of_guests_is_dropped: the kernel has no IPv6");
        return;
    }
    let scene = Scene::build().await;
    ip(&["addr", "add", "fd00::1/64", "dev", "ve-1", "nodad"]).await;
    scene.places[0]
        .ip(&["addr", "add", "fd00::2/64", "dev", "eth0", "nodad"])
        .await;
    let receiver = scene.udp(Host, "[::]:9999");
    let received = |scene: &Scene| {
        let old = scene.udp(Web, "10.100.0.3:0");
        let new = scene.udp(Web, "[fd00::2]:0");
        new.send_to(b"IPv6", "[fd00::1]:9999").expect("send");
        old.send_to(b"IPv4", "10.100.0.2:9999").expect("send");
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        while received.last().is_none_or(|last| last != "IPv4") {
            let length = receiver.recv(&mut buffer).expect("receive");
            received.push(String::from_utf8(buffer[..length].to_vec()).expect("text"));
        }
        received
    };
    // The neighbor is known, so that only the rules can drop the packet.
    let mac = ip(&["link", "show", "ve-1"]).await[0]["address"]
        .as_str()
        .expect("mac")
        .to_owned();
    scene.places[0]
        .ip(&["neigh", "add", "fd00::1", "lladdr", &mac, "dev", "eth0"])
        .await;
    // The kernel activates a new IPv6 address asynchronously.
    for _ in 0..1000 {
        if received(&scene).len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(received(&scene), ["IPv6", "IPv4"]);
    scene.ensure().await;
    assert_eq!(received(&scene), ["IPv4"]);
}
