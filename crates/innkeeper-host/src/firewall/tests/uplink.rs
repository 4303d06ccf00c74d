//! Transfers over an uplink with a small MTU.

use super::*;

/// The size of the transfers in bytes.
const LOAD: usize = 64 << 10;

#[tokio::test]
async fn transfers_pass_a_small_mtu_without_icmp() {
    let test = "transfers_pass_a_small_mtu_without_icmp";
    if !enter_own_namespace(test) {
        return;
    }
    // Behind the host's uplink of 1280 bytes is a router, and behind that a server whose own network has 1500.
    let scene = Scene::build().await;
    let (router, server) = (&scene.places[2], Leader::start().await);
    let pid = server.pid.to_string();
    let peer = ["peer", "name", "eth0", "netns", &pid];
    router
        .ip(&[&["link", "add", "lan", "type", "veth"][..], &peer].concat())
        .await;
    router
        .ip(&["addr", "add", "192.0.2.1/24", "dev", "lan"])
        .await;
    router.ip(&["link", "set", "lan", "up"]).await;
    router.ip(&["link", "set", "eth0", "mtu", "1280"]).await;
    server
        .ip(&["addr", "add", "192.0.2.2/24", "dev", "eth0"])
        .await;
    server.ip(&["link", "set", "eth0", "up"]).await;
    server
        .ip(&["route", "add", "default", "via", "192.0.2.1"])
        .await;
    ip(&["link", "set", "wan", "mtu", "1280"]).await;
    ip(&["route", "add", "192.0.2.0/24", "via", WORLD]).await;
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    router.run(&["sh", "-c", forward]).await;
    let silent = "add table ip router; \
        add chain ip router out { type filter hook output priority 0; }; \
        add rule ip router out icmp type destination-unreachable counter drop";
    router.run(&["nft", silent]).await;
    let refused = async || {
        let shown = router
            .run(&["nft", "--json", "list", "table", "ip", "router"])
            .await;
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        let rules = shown["nftables"].as_array().expect("a list").clone();
        let count = |rule: &serde_json::Value| {
            let parts = rule["rule"]["expr"].as_array()?.clone();
            parts
                .iter()
                .find_map(|part| part["counter"]["packets"].as_u64())
        };
        rules.iter().find_map(count).expect("a counter")
    };
    // The guest itself has the default MTU.
    assert_eq!(
        scene.places[0].ip(&["link", "show", "eth0"]).await[0]["mtu"],
        1500
    );

    let address: SocketAddr = "192.0.2.2:80".parse().expect("address");
    let listener = server.inside(move || TcpListener::bind(address).expect("listen"));
    let listener = listener.join().expect("thread");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that has disconnected is ignored.
            connection.and_then(serve).ok();
        }
    });
    let connect = || scene.at(Web, move || TcpStream::connect(address).expect("connect"));

    // Without the rule, the server's packets are too long for the uplink, and it receives no ICMP error.
    let unclamped: Vec<_> = ruleset(&config())
        .lines()
        .filter(|line| !line.contains("maxseg"))
        .map(|line| format!("{line}\n"))
        .collect();
    nft("write", &["--file", "-"], &unclamped.concat())
        .await
        .expect("rules");
    let mut stuck = connect();
    while refused().await < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stuck.set_nonblocking(true).expect("nonblocking");
    let nothing = stuck.read(&mut [0; 1]).expect_err("nothing arrived");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    drop(stuck);

    // It has no daemon's mark.
    run_nft(&["delete table inet innkeeper"]).await;
    scene.ensure().await;
    let mut guest = connect();
    guest
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let mut received = vec![0; LOAD];
    guest.read_exact(&mut received).expect("a download");
    guest.write_all(&received).expect("an upload");
    let mut answer = [0];
    guest.read_exact(&mut answer).expect("all of it arrived");
}

/// Sends the load, receives as much, and confirms that.
fn serve(mut client: TcpStream) -> io::Result<()> {
    client.write_all(&vec![7; LOAD])?;
    client.read_exact(&mut vec![0; LOAD])?;
    client.write_all(&[1])
}
