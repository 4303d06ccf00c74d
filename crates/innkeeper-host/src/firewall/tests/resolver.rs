//! The guests' resolver behind the firewall, with real packets.

use std::os::unix::fs::symlink;

use crate::resolver::Resolver;

use super::*;

/// The port of the resolver in this test's own namespace.
const PORT: u16 = 3053;
/// The address of every name at the name server.
const ELSEWHERE: &str = "203.0.113.80";
/// The query for the version, which the resolver answers to the host alone.
const PROBE: &[u8] = b"IK\0\0\0\x01\0\0\0\0\0\0\x07version\x06server\0\0\x10\0\x03";

/// Returns a query for the address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend(label.as_bytes());
    }
    query.extend(b"\0\0\x01\0\x01");
    query
}

/// Returns the address in a response, which is at its end.
fn answer(response: &[u8]) -> String {
    assert_eq!(response[..2], [0x12, 0x34], "another query's");
    assert_eq!(response[7], 1, "one answer: {response:?}");
    let address: [u8; 4] = *response.last_chunk().expect("an address");
    IpAddr::from(address).to_string()
}

/// Resolves a name over UDP, from a connected socket: a reply from another address or port would not be received.
fn over_udp(target: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.connect(target)?;
    socket.send(query)?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn over_tcp(target: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
    let length = u16::try_from(query.len()).expect("short").to_be_bytes();
    stream.write_all(&[&length, query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut response)?;
    Ok(response)
}

impl Scene {
    /// Resolves a name over UDP and TCP.
    fn resolve(&self, from: Place, server: &str, port: u16, name: &str) -> [io::Result<String>; 2] {
        let target = SocketAddr::new(server.parse().expect("address"), port);
        let query = question(name);
        [over_udp, over_tcp].map(|exchange| {
            let query = query.clone();
            let response = self.at(from, move || exchange(target, &query));
            response.map(|response| answer(&response))
        })
    }
}

/// Starts a name server in the network behind the host.
fn start_name_server(scene: &Scene) {
    let socket = scene.udp(World, "192.168.77.1:53");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut response = buffer[..length].to_vec();
            response[2] |= 0x80;
            response[7] = 1;
            response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
            let address: Ipv4Addr = ELSEWHERE.parse().expect("address");
            response.extend(address.octets());
            socket.send_to(&response, peer).ok();
        }
    });
}

/// Writes the hosts of a preview as the route driver does.
fn write_route(table: &Path, guest: &str, slug: &str) {
    let guests = table.join("guests");
    std::fs::create_dir_all(&guests).expect("made");
    let host = format!("previews/{slug}/hosts/{slug}.example.org");
    std::fs::create_dir_all(table.join(host)).expect("made");
    symlink(format!("../previews/{slug}/hosts"), guests.join(guest)).expect("linked");
}

/// Returns how many packets the rule has dropped that keeps others than guests from the resolver.
async fn kept_out() -> u64 {
    let shown = run_nft(&["--json", "list", "chain", "inet", "innkeeper", "input"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
    let rules = shown["nftables"].as_array().expect("a list");
    let counts = rules.iter().filter_map(|rule| {
        let parts = rule["rule"]["expr"].as_array()?;
        parts
            .iter()
            .find_map(|part| part["counter"]["packets"].as_u64())
    });
    counts.sum()
}

/// A guest's queries to its own gateway reach the resolver, and nothing else does.
#[tokio::test]
async fn guests_reach_the_resolver_at_their_own_gateway_only() {
    if !enter_own_namespace("guests_reach_the_resolver_at_their_own_gateway_only") {
        return;
    }
    let mut scene = Scene::build().await;
    ip(&["link", "set", "lo", "up"]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let resolver = Resolver {
        port: PORT,
        listening: dir.path().join("run/listening"),
        table: dir.path().join("table"),
    };
    write_route(&resolver.table, WEB, "web");
    write_route(&resolver.table, SHOP, "shop");
    start_name_server(&scene);
    let servers = NameServers::new(vec![TRAPS[0].parse().expect("address")]);
    scene.firewall = scene
        .firewall
        .following(servers.behind(Some(resolver.clone())));
    let names = |results: [io::Result<String>; 2]| results.map(|result| result.expect("resolved"));

    // Without rules, the port is open to everybody: the rules below close it.
    let open = scene.udp(Host, "0.0.0.0:3053");
    let at_public: SocketAddr = "198.51.100.1:3053".parse().expect("address");
    let knock = |scene: &Scene| {
        let knock = move || UdpSocket::bind("0.0.0.0:0")?.send_to(PROBE, at_public);
        scene.at(World, knock).expect("sent");
    };
    knock(&scene);
    open.recv(&mut [0; 64]).expect("arrived");
    drop(open);

    // Reported to listen, and dead: guests are refused at once, and turn to their next name server.
    std::fs::create_dir(dir.path().join("run")).expect("made");
    std::fs::write(&resolver.listening, "").expect("written");
    scene.ensure().await;
    for dead in scene.resolve(Web, GATEWAY, 53, "web.example.org") {
        let error = dead.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    std::fs::remove_file(&resolver.listening).expect("removed");

    let config = dir.path().join("config.toml");
    let text = format!(
        "[dns]\nport = {PORT}\ndirectory = '{0}/run'\n[caddy]\ntable = '{0}/table'\n[network]\nnameservers = ['{1}']\n[log]\nlevel = 'warn'\n",
        dir.path().display(),
        TRAPS[0]
    );
    std::fs::write(&config, text).expect("written");
    let loaded = innkeeper_service::load(Some(&config), |_| None).expect("valid");
    std::thread::spawn(move || innkeeper_dns::run(&loaded).expect("runs"));
    while !resolver.is_listening() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.ensure().await;

    for (from, gateway, name, expected) in [
        (Web, GATEWAY, "web.example.org", GATEWAY),
        (Shop, SHOPS_GATEWAY, "shop.example.org", SHOPS_GATEWAY),
    ] {
        let resolved = names(scene.resolve(from, gateway, 53, name));
        assert_eq!(resolved, [expected; 2], "{from:?} {name}");
    }
    // Hosts of others are names like any other. The name server has no TCP.
    for (from, gateway, name) in [
        (Web, GATEWAY, "shop.example.org"),
        (Shop, SHOPS_GATEWAY, "web.example.org"),
        (Web, GATEWAY, "example.org"),
    ] {
        let resolved = names(scene.resolve(from, gateway, 53, name));
        assert_eq!(resolved, [ELSEWHERE; 2], "{from:?} {name}");
    }
    // Other gateways, the host's other addresses, and the resolver's own port.
    for (server, port) in [
        (SHOPS_GATEWAY, 53),
        (HOSTS_PUBLIC, 53),
        (GATEWAY, PORT),
        (SHOPS_GATEWAY, PORT),
        (HOSTS_PUBLIC, PORT),
    ] {
        for refused in scene.resolve(Web, server, port, "web.example.org") {
            let error = refused.expect_err("refused");
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "{server}:{port} waits");
        }
    }
    let before = kept_out().await;
    knock(&scene);
    while kept_out().await == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(resolver.check().await.verdict, Verdict::Ok);
}
