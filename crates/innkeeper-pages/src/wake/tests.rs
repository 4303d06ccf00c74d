use std::net::{SocketAddrV4, TcpListener};
use std::os::unix::net::UnixDatagram;

use innkeeper_model::SlotRange;

use super::*;
use crate::hold::Holds;

struct Rig {
    directory: tempfile::TempDir,
    wakes: Wakes,
    holds: Holds,
    daemon: UnixDatagram,
    app: App,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Pages {
            wake_timeout_seconds: 60,
            ..Pages::default()
        };
        let path = directory.path().join("wake.sock");
        let daemon = UnixDatagram::bind(&path).expect("binds");
        daemon.set_nonblocking(true).expect("set");
        let guests: SlotRange = "127.0.0.0/16".parse().expect("a subnet");
        let port = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = port.local_addr().expect("an address").port();
        Self {
            wakes: Wakes::new(&settings, path, Statuses::new(directory.path())),
            holds: Holds::new(&settings, guests),
            daemon,
            app: App {
                slug: GuestName::parse("web-7").expect("a name"),
                ports: vec![SocketAddrV4::new([127, 0, 0, 1].into(), port)],
            },
            directory,
        }
    }

    fn put(&self, more: &str) {
        let text = format!(
            r#"{{"slug":"web-7","state":"live","since":"2026-11-20T10:00:00Z","started_at":"2026-11-20T10:00:00Z"{more}}}"#
        );
        let temporary = self.directory.path().join(".new");
        std::fs::write(&temporary, text).expect("written");
        let file = self.directory.path().join("web-7.json");
        std::fs::rename(&temporary, file).expect("renamed");
    }

    async fn asked(&self) {
        let mut buffer = [0; 64];
        loop {
            if let Ok(length) = self.daemon.recv(&mut buffer) {
                assert_eq!(&buffer[..length], b"web-7");
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn request(&self) -> tokio::task::JoinHandle<Held> {
        let (wakes, app) = (self.wakes.clone(), self.app.clone());
        let place = self.holds.place(None).expect("a place");
        tokio::spawn(async move { wakes.wait(&app, Duration::from_secs(60), place).await })
    }
}

#[tokio::test]
async fn a_hundred_requests_share_one_task() {
    let rig = Rig::new();
    rig.put(r#","interruption":"asleep""#);
    let requests: Vec<_> = (0..100).map(|_| rig.request()).collect();
    rig.asked().await;
    assert_eq!(rig.wakes.apps.lock().len(), 1);
    rig.put(r#","interruption":"restarting","wake":{"since":"2026-11-20T10:00:00Z"}"#);
    let listener = TcpListener::bind(rig.app.ports[0]).expect("binds");
    for request in requests {
        assert_eq!(request.await.expect("ends"), Held::Ready);
    }
    assert!(rig.wakes.apps.lock().is_empty());
    drop(listener);
}

#[tokio::test]
async fn the_wake_goes_on_without_its_request() {
    let rig = Rig::new();
    rig.put(r#","interruption":"asleep""#);
    let place = rig.holds.place(None).expect("a place");
    let held = rig.wakes.wait(&rig.app, Duration::ZERO, place).await;
    assert_eq!(held, Held::GivenUp);
    rig.asked().await;
    // A lost datagram is repeated.
    rig.asked().await;
    assert_eq!(rig.wakes.apps.lock().len(), 1);
    rig.put(r#","interruption":"stopped""#);
    while !rig.wakes.apps.lock().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// The old app of a preview that falls asleep has open ports until it ends, and those of a frozen one are always open.
#[tokio::test]
async fn ports_of_a_preview_that_falls_asleep_do_not_count() {
    let rig = Rig::new();
    rig.put(r#","interruption":"asleep""#);
    let listener = TcpListener::bind(rig.app.ports[0]).expect("binds");
    listener.set_nonblocking(true).expect("set");
    let request = rig.request();
    for _ in 0..2 {
        rig.asked().await;
    }
    assert!(!request.is_finished());
    listener.accept().expect_err("no connection");
    rig.put(r#","interruption":"asleep","wake":{"since":"2026-11-20T10:00:00Z"}"#);
    assert_eq!(request.await.expect("ends"), Held::Ready);
}

#[test]
fn phases_follow_the_status() {
    let now: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    let phase = |state: &str, more: &str| {
        let text = format!(
            r#"{{"slug":"web-7","state":"{state}","since":"2026-11-20T10:00:00Z","started_at":"2026-11-20T10:00:00Z"{more}}}"#
        );
        let status: PageStatus = serde_json::from_str(&text).expect("a status");
        (
            concerns(&Some(Arc::new(status.clone()))),
            Phase::of(Some(&status), now),
        )
    };
    let wake = |retry_at: &str| {
        format!(r#","interruption":"asleep","wake":{{"since":"2026-11-20T09:00:00Z"{retry_at}}}"#)
    };
    let retry = |time: &str| wake(&format!(r#","retry_at":"2026-11-20T{time}Z""#));
    for (state, more, expected) in [
        (
            "live",
            r#","interruption":"asleep""#.to_owned(),
            (true, Phase::Asleep),
        ),
        ("live", wake(""), (true, Phase::Waking)),
        ("live", retry("10:00:01"), (true, Phase::Down)),
        ("live", retry("10:00:00"), (true, Phase::Asleep)),
        (
            "live",
            wake("").replace("asleep", "restarting"),
            (true, Phase::Waking),
        ),
        (
            "live",
            r#","interruption":"restarting""#.to_owned(),
            (false, Phase::Waking),
        ),
        (
            "live",
            r#","interruption":"stopped""#.to_owned(),
            (false, Phase::Down),
        ),
        ("live", String::new(), (false, Phase::Waking)),
        ("updating", String::new(), (false, Phase::Waking)),
        ("failed", String::new(), (false, Phase::Settled)),
    ] {
        assert_eq!(phase(state, &more), expected, "{state} {more}");
    }
    assert_eq!(Phase::of(None, now), Phase::Down);
    assert!(!concerns(&None));
}
