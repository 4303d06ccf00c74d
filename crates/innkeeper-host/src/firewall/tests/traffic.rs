//! Counters of guests' packets.

use innkeeper_facilities::PROBE_MARK;

use super::*;

type Counted = BTreeMap<Ipv4Addr, GuestTraffic>;

impl Scene {
    async fn traffic(&self) -> Counted {
        self.firewall.traffic().await.expect("traffic")
    }
}

fn of(counted: &Counted, guest: &str) -> GuestTraffic {
    let guest = guest.parse().expect("address");
    counted.get(&guest).copied().unwrap_or_default()
}

/// Sends bytes through a connection and receives as many.
fn exchange(here: &mut TcpStream, there: &mut TcpStream, bytes: &[u8]) {
    let transfer = |from: &mut TcpStream, to: &mut TcpStream| {
        from.write_all(bytes).expect("write");
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received).expect("read");
    };
    transfer(here, there);
    transfer(there, here);
}

#[tokio::test]
async fn packets_of_each_guest_are_counted() {
    if !enter_own_namespace("packets_of_each_guest_are_counted") {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    assert_eq!(scene.traffic().await, Counted::new());
    let address: SocketAddr = "10.100.0.3:80".parse().expect("address");
    let listener = scene.at(Web, move || TcpListener::bind(address).expect("listen"));

    // From the host, as Caddy connects.
    let mut host = TcpStream::connect(address).expect("connect");
    let (mut web, _) = listener.accept().expect("accept");
    let opened = of(&scene.traffic().await, WEB);
    assert_eq!((opened.opened, opened.from.packets), (1, 1), "{opened:?}");
    exchange(&mut host, &mut web, &[7; 5_000]);
    let exchanged = of(&scene.traffic().await, WEB);
    assert_eq!(exchanged.opened, 1);
    for (before, after) in [(opened.to, exchanged.to), (opened.from, exchanged.from)] {
        let bytes = after.bytes - before.bytes;
        assert!((5_000..7_000).contains(&bytes), "{before:?} {after:?}");
    }

    // To the world, which opens no connection to the guest.
    let world: SocketAddr = "198.51.100.2:80".parse().expect("address");
    let at_world = scene.at(World, move || TcpListener::bind(world).expect("listen"));
    let mut shop = scene.at(Shop, move || TcpStream::connect(world).expect("connect"));
    let (mut peer, _) = at_world.accept().expect("accept");
    exchange(&mut shop, &mut peer, &[7; 5_000]);
    let all = scene.traffic().await;
    let downloaded = of(&all, SHOP);
    assert_eq!(downloaded.opened, 0);
    assert!(downloaded.to.bytes > 5_000 && downloaded.from.bytes > 5_000);
    assert_eq!(of(&all, WEB), exchanged);

    // The counters are no change of the rules, so they survive the periodic check.
    scene.ensure().await;
    assert_eq!(scene.firewall.table.difference().await.expect("nft"), None);
    assert_eq!(scene.traffic().await, all);

    // The counters of a guest end with it; a repeated removal is success.
    for _ in 0..2 {
        let web = WEB.parse().expect("address");
        scene.firewall.forget(web).await.expect("forget");
        let left: Vec<_> = scene.traffic().await.into_keys().collect();
        assert_eq!(left, [SHOP.parse::<Ipv4Addr>().expect("address")]);
    }
}

#[tokio::test]
async fn marked_probes_are_not_counted() {
    if !enter_own_namespace("marked_probes_are_not_counted") {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let address: SocketAddr = "10.100.0.3:80".parse().expect("address");
    let listener = scene.at(Web, move || TcpListener::bind(address).expect("listen"));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("socket");
    socket.set_mark(PROBE_MARK).expect("mark");
    socket.connect(&address.into()).expect("connect");
    let (mut web, _) = listener.accept().expect("accept");
    exchange(&mut socket.into(), &mut web, &[7; 5_000]);
    drop(web);
    assert_eq!(scene.traffic().await, Counted::new());
    // A visitor's connection at the same time is.
    drop(TcpStream::connect(address).expect("connect"));
    assert_eq!(of(&scene.traffic().await, WEB).opened, 1);
}

#[tokio::test]
async fn missing_table_is_not_an_empty_list() {
    if !enter_own_namespace("missing_table_is_not_an_empty_list") {
        return;
    }
    let firewall = driver(config());
    let error = firewall.traffic().await.expect_err("no table");
    assert_eq!(error.code(), Code::NetworkFailed);
    let web = WEB.parse().expect("address");
    firewall.forget(web).await.expect("removed with the table");
}

/// Measures one sample with the counters of 1,000 guests. Run it by hand, and see docs/rest.md:
/// `cargo nextest run --workspace --run-ignored only -E 'test(sample_of_a_thousand_guests)' --no-capture`
#[tokio::test]
#[ignore = "a measurement"]
async fn sample_of_a_thousand_guests() {
    if !enter_own_namespace("sample_of_a_thousand_guests") {
        return;
    }
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    let elements: Vec<String> = (0..1000)
        .map(|slot: u32| {
            let address = Ipv4Addr::from(0x0a64_0000 + 2 * slot + 1);
            format!("{address} counter packets {slot} bytes 7")
        })
        .collect();
    for set in ["to_guests", "from_guests", "opened_to_guests"] {
        let add = format!(
            "add element inet innkeeper {set} {{ {} }}",
            elements.join(", ")
        );
        run_nft(&[&add]).await;
    }
    let mut took = Vec::new();
    for _ in 0..100 {
        let started = std::time::Instant::now();
        assert_eq!(firewall.traffic().await.expect("traffic").len(), 1000);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    eprintln!("median {:?}, slowest {:?}", took[50], took[99]);
}
