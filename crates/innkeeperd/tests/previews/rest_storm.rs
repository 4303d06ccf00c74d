//! Requests at random moments to guests that are paused, put to sleep and woken at random moments, while the daemon is killed
//! repeatedly: each is answered once. `make soak` runs the long form.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use innkeeper_model::GuestState;
use innkeeper_model::api::GuestView;
use innkeeper_model::preview::{PreviewState, PreviewView};

use crate::host::{PreviewHost, WEB, app};
use crate::support::{Client, wait_until};

/// Variables of the long form, and of a repetition.
const REQUESTS: &str = "INNKEEPER_STORM_REQUESTS";
const GUESTS: &str = "INNKEEPER_STORM_GUESTS";
const KILLS: &str = "INNKEEPER_STORM_KILLS";
const SEED: &str = "INNKEEPER_STORM_SEED";

/// Concurrent requests.
const CLIENTS: usize = 12;

/// A response that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// An app starts slowly while others are started, too.
const PATIENT: &str = "hold_seconds = 60\nwake_timeout_seconds = 300\nwake_page_seconds = 300";

/// The longest wait for a guest that is put to sleep.
const SLEEP_LIMIT: Duration = Duration::from_secs(10);

/// The longest body of a request, in bytes.
const LONGEST: u64 = 48 << 10;

/// The ports of the app: requests, connections that are upgraded, and commands.
const UPGRADES: u16 = 3001;
const COMMANDS: u16 = 2222;

/// Errors of canceled work are expected.
const QUIET: &[(&str, &str)] = &[("INNKEEPER_LOG_LEVEL", "error")];

/// The fixtures' app, which also counts: each request adds a line with its number and the length of its body to a log. A
/// connection that is upgraded to a WebSocket returns what it receives, and a raw connection is a shell.
pub(crate) fn counting_app() -> String {
    const SETUP: &str = r##"
      mkdir -p cgi-bin
      {
        echo "#!${pkgs.busybox}/bin/sh"
        echo 'size=$(head -c "''${CONTENT_LENGTH:-0}" | wc -c)'
        echo 'echo "$QUERY_STRING $((size))" >> /home/preview/log'
        echo 'printf "Content-Type: text/plain\r\n\r\n%s %s\n" "$QUERY_STRING" "$((size))"'
      } > cgi-bin/count
      {
        echo "#!${pkgs.busybox}/bin/sh"
        echo 'read -r line; path=''${line#GET *\?}; id=''${path% HTTP*}'
        echo 'while read -r line && [ ''${#line} -gt 1 ]; do :; done'
        echo 'echo "$id 0" >> /home/preview/log'
        echo 'printf "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"'
        echo 'exec cat'
      } > echo
      chmod 755 cgi-bin/count echo
      echo "prepared ''${PREVIEW_COMMIT-none}""##;
    let app = app();
    let start = "exec httpd -f -p 3000";
    let servers = format!(
        "nc -ll -p {UPGRADES} -e ${{app}}/echo &\n      nc -ll -p {COMMANDS} -e ${{pkgs.busybox}}/bin/sh &\n      {start}"
    );
    let routes = format!("routes = [\n      {{ path = \"/ws\"; port = {UPGRADES}; }}");
    let changed = app
        .replacen("routes = [", &routes, 1)
        .replacen(
            "echo \"prepared ''${PREVIEW_COMMIT-none}\"",
            SETUP.trim(),
            1,
        )
        .replacen(start, &servers, 1);
    assert!(
        changed.contains("cgi-bin") && changed.contains("nc -ll"),
        "{changed}"
    );
    changed
}

/// A sequence of numbers that follows from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("small")
    }

    fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.below(milliseconds)));
    }
}

/// A guest under test.
struct Target {
    slug: String,
    address: Ipv4Addr,
    /// Held for reading by requests in progress. Nothing puts a guest to sleep that is in use, so neither does the test.
    used: RwLock<()>,
    /// The servers for upgrades and commands queue few connections.
    narrow: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    Post(u64),
    Upgrade,
    Command,
}

/// One request, which follows from the seed and its number.
#[derive(Clone, Copy, Debug)]
struct Job {
    number: usize,
    target: usize,
    kind: Kind,
}

impl Job {
    fn of(seed: u64, number: usize, targets: usize) -> (Self, Random) {
        let mut random = Random(seed ^ (number as u64).wrapping_mul(0xd134_2543_de82_ef95));
        let kind = match random.below(4) {
            0 => Kind::Get,
            1 => Kind::Post(1 + random.below(LONGEST)),
            2 => Kind::Upgrade,
            _ => Kind::Command,
        };
        let target = random.index(targets);
        let job = Self {
            number,
            target,
            kind,
        };
        (job, random)
    }

    /// The line in the log of the guest.
    fn line(self) -> String {
        let length = match self.kind {
            Kind::Post(length) => length,
            Kind::Get | Kind::Upgrade | Kind::Command => 0,
        };
        format!("{} {length}", self.number)
    }

    /// Makes the request, and checks the response.
    fn run(self, target: &Target, random: &mut Random) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let _used = target.used.read().map_err(|error| error.to_string())?;
        match self.kind {
            Kind::Get => self.require_count(&self.exchange(target, "GET", 0).map_err(failed)?),
            Kind::Post(length) => {
                self.require_count(&self.exchange(target, "POST", length).map_err(failed)?)
            }
            Kind::Upgrade => {
                let _narrow = target.narrow.lock().map_err(|error| error.to_string())?;
                self.upgrade(target, random)
            }
            Kind::Command => {
                let _narrow = target.narrow.lock().map_err(|error| error.to_string())?;
                self.command(target).map_err(failed)
            }
        }
    }

    fn require_count(self, response: &str) -> Result<(), String> {
        // The body may be in chunks.
        let has_line = response.lines().any(|line| line == self.line());
        let is_good = response.starts_with("HTTP/1.1 200 ") && has_line;
        is_good.then_some(()).ok_or_else(|| response.to_owned())
    }

    fn exchange(self, target: &Target, method: &str, length: u64) -> std::io::Result<String> {
        let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], WEB)))?;
        let (slug, number) = (&target.slug, self.number);
        write!(
            stream,
            "{method} /cgi-bin/count?{number} HTTP/1.1\r\nHost: {slug}.localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        // A response that comes before the whole body was sent says more than the failure to send it.
        let sent = std::io::copy(&mut std::io::repeat(b'x').take(length), &mut stream);
        let mut response = Vec::new();
        match stream.read_to_end(&mut response) {
            Err(error) if response.is_empty() => Err(sent.err().unwrap_or(error)),
            _ => Ok(String::from_utf8_lossy(&response).into_owned()),
        }
    }

    /// Sends messages over an upgraded connection, one after the other, with pauses in which the guest may be paused.
    fn upgrade(self, target: &Target, random: &mut Random) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let number = self.number;
        let mut stream = upgraded(&target.slug, number).map_err(failed)?;
        for message in 0..1 + random.below(3) {
            random.pause(30);
            let sent = format!("message {message} of {number}");
            stream.write_all(sent.as_bytes()).map_err(failed)?;
            let mut echo = vec![0; sent.len()];
            stream.read_exact(&mut echo).map_err(failed)?;
            if echo != sent.as_bytes() {
                return Err(format!("{sent:?}: {:?}", String::from_utf8_lossy(&echo)));
            }
        }
        Ok(())
    }

    /// Runs a command over a raw connection to the guest's address.
    fn command(self, target: &Target) -> std::io::Result<()> {
        let mut stream = connect(SocketAddr::from((target.address, COMMANDS)))?;
        let line = self.line();
        writeln!(
            stream,
            "echo '{line}' >> /home/preview/log; echo done; exit"
        )?;
        let mut output = String::new();
        stream.read_to_string(&mut output)?;
        match output.as_str() {
            "done\n" => Ok(()),
            other => Err(std::io::Error::other(other.to_owned())),
        }
    }
}

/// Opens an upgraded connection to a preview's app.
pub(crate) fn upgraded(slug: &str, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], WEB)))?;
    write!(
        stream,
        "GET /ws?{number} HTTP/1.1\r\nHost: {slug}.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    match head.starts_with(b"HTTP/1.1 101 ") {
        true => Ok(stream),
        false => Err(std::io::Error::other(
            String::from_utf8_lossy(&head).into_owned(),
        )),
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Changes levels at random until the end. The daemon may be away, or refuse: nothing depends on a single change.
fn disturb(client: &Client, targets: &[Target], mut random: Random, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        random.pause(40);
        let target = &targets[random.index(targets.len())];
        let call = |verb: &str| {
            let path = format!("/v1/previews/{}/{verb}", target.slug);
            drop(client.try_call("POST", &path, ""));
        };
        match random.below(10) {
            0..4 => call("pause"),
            4..7 => {
                if let Ok(_unused) = target.used.try_write() {
                    call("sleep");
                    await_sleep(client, &target.slug);
                }
            }
            _ => call("wake"),
        }
    }
}

/// Waits until a guest is asleep. Gives up after a time: the sleep may have been refused.
fn await_sleep(client: &Client, slug: &str) {
    let path = format!("/v1/guests/{slug}");
    let end = Instant::now() + SLEEP_LIMIT;
    while Instant::now() < end {
        let view = client.try_call("GET", &path, "");
        let view = view.ok().filter(|response| response.status == 200);
        let state = view.map(|response| response.read::<GuestView>().state);
        if state == Some(GuestState::Asleep) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn requests_to_resting_guests_are_answered_once() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
    let seed = setting(SEED, usize::try_from(now.subsec_nanos()).expect("small")) as u64;
    let (requests, guests) = (setting(REQUESTS, 400), setting(GUESTS, 4));
    let kills = setting(KILLS, 2);
    println!("{SEED}={seed} {REQUESTS}={requests} {GUESTS}={guests} {KILLS}={kills}");

    let host = PreviewHost::with_pages(PATIENT);
    let mut daemon = host.sandbox.start_with(QUIET);
    let client = host.client();
    let slugs: Vec<_> = (0..guests).map(|guest| format!("storm-{guest}")).collect();
    for slug in &slugs {
        host.commit(slug, &[("preview-config.nix", &counting_app())]);
        let create = format!(r#"{{"repo":"octo/web","branch":"{slug}","slug":"{slug}"}}"#);
        let created = client.call("POST", "/v1/previews", &create);
        assert_eq!(created.status, 202, "{created:?}");
    }
    wait_until("all are live", || {
        let views: Vec<PreviewView> = client.get("/v1/previews");
        let is_live = |view: &PreviewView| view.preview.state == PreviewState::Live;
        views.len() == guests && views.iter().all(is_live)
    });
    let target = |slug: String| Target {
        address: client.guest(&slug).guest_address.expect("an address"),
        slug,
        used: RwLock::default(),
        narrow: Mutex::default(),
    };
    let targets: Vec<_> = slugs.into_iter().map(target).collect();

    let (next, done, ended) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return;
            }
            let (job, mut random) = Job::of(seed, number, guests);
            random.pause(60);
            if let Err(problem) = job.run(&targets[job.target], &mut random) {
                let failure = format!("{job:?}: {problem}");
                failures.lock().expect("no panic").push(failure);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let daemon = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
        let disturbance = scope.spawn(|| disturb(&client, &targets, Random(!seed), &ended));
        for kill in 1..=kills {
            let reached = requests * kill / (kills + 1);
            while done.load(Ordering::Relaxed) < reached {
                std::thread::sleep(Duration::from_millis(5));
            }
            daemon.kill();
            daemon = host.sandbox.start_with(QUIET);
        }
        for client in clients {
            client.join().expect("no panic");
        }
        ended.store(true, Ordering::Relaxed);
        disturbance.join().expect("no panic");
        daemon
    });

    let failures = failures.into_inner().expect("no panic");
    assert!(
        failures.is_empty(),
        "{SEED}={seed}: {} of {requests} failed: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let mut expected: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for number in 0..requests {
        let (job, _) = Job::of(seed, number, guests);
        expected.entry(job.target).or_default().push(job.line());
    }
    for (index, target) in targets.iter().enumerate() {
        let log = host.exec(&target.slug, &["cat", "/home/preview/log"]);
        let mut lines: Vec<_> = log.lines().map(str::to_owned).collect();
        // The probes of the ports have no number.
        lines.retain(|line| line.starts_with(|first: char| first.is_ascii_digit()));
        lines.sort();
        let mut expected = expected.remove(&index).unwrap_or_default();
        expected.sort();
        assert_eq!(lines, expected, "{SEED}={seed} {}", target.slug);
    }
    daemon.stop();
}
