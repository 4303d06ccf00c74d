//! First packets to paused guests, and a server that is really frozen.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use innkeeper_facilities::{FirstPackets, PROBE_MARK};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::super::log_group::LogGroup;
use super::*;

/// A timeout that only a failed test reaches.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Reached = UnboundedReceiver<BTreeSet<Ipv4Addr>>;

/// Returns a driver with its table, and the guests that it reports.
pub(super) async fn following() -> (Arc<NftFirewall>, Reached) {
    let firewall = Arc::new(driver(config()));
    firewall.ensure().await.expect("ensure");
    let (sender, receiver) = mpsc::unbounded_channel();
    let follower = Arc::clone(&firewall);
    tokio::spawn(async move { follower.follow(sender).await });
    (firewall, receiver)
}

pub(super) async fn next(reached: &mut Reached) -> Vec<String> {
    let guests = tokio::time::timeout(TIMEOUT, reached.recv()).await;
    let guests = guests.expect("a packet").expect("it follows");
    guests.iter().map(ToString::to_string).collect()
}

async fn watch(firewall: &NftFirewall, guest: &str) {
    let guest = guest.parse().expect("address");
    firewall.watch(guest).await.expect("watch");
}

/// Sends a datagram to a guest.
pub(super) fn send(guest: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.send_to(b"x", (guest, 9)).expect("send");
}

#[tokio::test]
async fn first_packet_to_each_watched_guest_is_reported_once() {
    if !enter_own_namespace("first_packet_to_each_watched_guest_is_reported_once") {
        return;
    }
    let scene = Scene::build().await;
    let (firewall, mut reached) = following().await;
    send(WEB);
    for round in 0..3 {
        watch(&firewall, WEB).await;
        watch(&firewall, SHOP).await;
        for _ in 0..5 {
            send(WEB);
        }
        assert_eq!(next(&mut reached).await, [WEB], "{round}");
        send(WEB);
        send(SHOP);
        assert_eq!(next(&mut reached).await, [SHOP], "{round}");
    }
    // A guest that is watched no more, then a probe, and an acknowledgment: none is reported.
    watch(&firewall, WEB).await;
    firewall
        .unwatch(WEB.parse().expect("address"))
        .await
        .expect("unwatch");
    send(WEB);
    let address: SocketAddr = "10.100.0.3:80".parse().expect("address");
    let listener = scene.at(Web, move || TcpListener::bind(address).expect("listen"));
    let mut visitor = TcpStream::connect(address).expect("connect");
    let (mut web, _) = listener.accept().expect("accept");
    watch(&firewall, WEB).await;
    let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let probe = probe.expect("socket");
    probe.set_mark(PROBE_MARK).expect("mark");
    probe.connect(&address.into()).expect("connect");
    let to_web = async || {
        let traffic = firewall.traffic().await.expect("traffic");
        traffic[&WEB.parse::<Ipv4Addr>().expect("address")]
            .to
            .packets
    };
    let before = to_web().await;
    web.write_all(b"x").expect("write");
    visitor.read_exact(&mut [0]).expect("read");
    while to_web().await == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    watch(&firewall, SHOP).await;
    send(SHOP);
    assert_eq!(next(&mut reached).await, [SHOP]);
    // Data on the same connection is.
    visitor.write_all(b"x").expect("write");
    assert_eq!(next(&mut reached).await, [WEB]);
}

/// Another program has the group: the set alone shows the packets.
#[tokio::test]
async fn lost_messages_delay_the_report_only() {
    if !enter_own_namespace("lost_messages_delay_the_report_only") {
        return;
    }
    let _scene = Scene::build().await;
    let _other = LogGroup::bind(config().log_group).expect("bind");
    let (firewall, mut reached) = following().await;
    watch(&firewall, WEB).await;
    watch(&firewall, SHOP).await;
    send(WEB);
    assert_eq!(next(&mut reached).await, [WEB]);
    send(SHOP);
    assert_eq!(next(&mut reached).await, [SHOP]);
}

/// Without the table, a packet would go unnoticed.
#[tokio::test]
async fn watched_guests_are_reported_when_the_table_is_replaced() {
    if !enter_own_namespace("watched_guests_are_reported_when_the_table_is_replaced") {
        return;
    }
    let _scene = Scene::build().await;
    let (firewall, mut reached) = following().await;
    watch(&firewall, WEB).await;
    // The set is no part of the rules that are compared.
    assert_eq!(firewall.table.difference().await.expect("nft"), None);
    run_nft(&["flush", "ruleset"]).await;
    assert_eq!(next(&mut reached).await, [WEB]);
    let refused = firewall.watch(WEB.parse().expect("address")).await;
    assert_eq!(refused.expect_err("no table").code(), Code::NetworkFailed);
    firewall.ensure().await.expect("ensure");
    watch(&firewall, WEB).await;
    send(WEB);
    assert_eq!(next(&mut reached).await, [WEB]);
}

/// A server in a guest, in a cgroup of its own that can be frozen. It returns what it receives at port 80, by TCP and UDP.
struct Server {
    child: tokio::process::Child,
    cgroup: PathBuf,
}

const SERVER: &str = r#"
import select, socket
tcp = socket.create_server(("10.100.0.3", 80))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("10.100.0.3", 80))
print("ready", flush=True)
while True:
    for ready in select.select([tcp, udp], [], [])[0]:
        if ready is udp:
            data, sender = udp.recvfrom(100)
            udp.sendto(data, sender)
        else:
            connection, _ = tcp.accept()
            connection.sendall(connection.recv(100))
            connection.close()
"#;

impl Server {
    /// Starts it. Fails with the reason if this machine cannot freeze cgroups of version 2.
    async fn start(place: &Leader) -> Result<Self, String> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mount = mounts.into_iter().map(Path::new);
        let mut mount = mount.filter(|mount| mount.join("cgroup.controllers").exists());
        let mount = mount.next().ok_or("no cgroups of version 2")?;
        let cgroup = mount.join(format!("innkeeper-frozen-{}", std::process::id()));
        std::fs::create_dir(&cgroup).map_err(|error| error.to_string())?;
        let (pid, procs) = (place.pid, cgroup.join("cgroup.procs"));
        let script = format!(
            "echo $$ > {} && exec nsenter --target {pid} --net python3 -c \"$SERVER\"",
            procs.display()
        );
        let mut child = command::command("sh")
            .args(["-c", &script])
            .env("SERVER", SERVER)
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut ready = [0; 6];
        let mut output = child.stdout.take().expect("piped");
        tokio::io::AsyncReadExt::read_exact(&mut output, &mut ready)
            .await
            .expect("it starts");
        Ok(Self { child, cgroup })
    }

    async fn freeze(&self) {
        std::fs::write(self.cgroup.join("cgroup.freeze"), "1").expect("freeze");
        let events = || std::fs::read_to_string(self.cgroup.join("cgroup.events"));
        while !events().expect("events").contains("frozen 1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn thaw(&self) {
        std::fs::write(self.cgroup.join("cgroup.freeze"), "0").expect("thaw");
    }

    async fn stop(mut self) {
        self.thaw();
        self.child.kill().await.expect("kill");
        while std::fs::remove_dir(&self.cgroup).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn frozen_server_answers_what_arrived_before_the_thaw() {
    let test = "frozen_server_answers_what_arrived_before_the_thaw";
    if !enter_own_namespace(test) {
        return;
    }
    let scene = Scene::build().await;
    let server = match Server::start(&scene.places[0]).await {
        Ok(server) => server,
        Err(reason) => {
            eprintln!("INNKEEPER-NOT-RUN: {test}: {reason}");
            return;
        }
    };
    let (firewall, mut reached) = following().await;
    let address: SocketAddr = "10.100.0.3:80".parse().expect("address");
    let mut waits = Vec::new();
    for round in 0..20 {
        let question = format!("question {round}");
        let mut answer = vec![0; question.len()];
        watch(&firewall, WEB).await;
        server.freeze().await;
        let sent = std::time::Instant::now();
        if round % 2 == 0 {
            let mut client = TcpStream::connect_timeout(&address, TIMEOUT).expect("connect");
            client.write_all(question.as_bytes()).expect("write");
            assert_eq!(next(&mut reached).await, [WEB]);
            client.set_nonblocking(true).expect("set");
            let early = client.read(&mut answer).expect_err("frozen");
            assert_eq!(early.kind(), ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("set");
            server.thaw();
            client.read_exact(&mut answer).expect("read");
        } else {
            let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
            client.send_to(question.as_bytes(), address).expect("send");
            assert_eq!(next(&mut reached).await, [WEB]);
            client.set_nonblocking(true).expect("set");
            let early = client.recv(&mut answer).expect_err("frozen");
            assert_eq!(early.kind(), ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("set");
            client.set_read_timeout(Some(TIMEOUT)).expect("set");
            server.thaw();
            client.recv(&mut answer).expect("receive");
        }
        waits.push(sent.elapsed());
        assert_eq!(answer, question.as_bytes());
    }
    waits.sort_unstable();
    eprintln!(
        "from the packet to the answer: median {:?}, slowest {:?}",
        waits[10], waits[19]
    );
    server.stop().await;
}
