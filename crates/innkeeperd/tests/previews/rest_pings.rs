//! A connection with a ping every 25 seconds and nothing else, such as a hidden tab's: each ping is answered, and the guest is
//! paused nearly all the time. `make soak` runs it for an hour.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use innkeeper_model::GuestState;
use innkeeper_model::preview::{PreviewState, PreviewView};

use crate::host::PreviewHost;
use crate::rest_storm::{counting_app, upgraded};
use crate::support::wait_until;

/// The variable with the duration in seconds.
const SECONDS: &str = "INNKEEPER_PINGS_SECONDS";

const INTERVAL: Duration = Duration::from_secs(25);

/// The interval at which the guest's state is read.
const SAMPLE: Duration = Duration::from_millis(100);

/// A frame of a WebSocket with a ping of 125 bytes: the head, the mask and the data.
const PING: [u8; 2 + 4 + 125] = [b'p'; 2 + 4 + 125];

/// The time of sleep is short: a guest with an open connection is paused, and does not fall asleep.
const REST: &str =
    "[rest.previews]\nidle = \"sleep\"\npause_after_seconds = 5\nsleep_after_seconds = 60";

#[test]
#[ignore = "takes an hour: `make soak` runs it"]
fn guest_with_a_hidden_tab_is_paused_and_answers() {
    let seconds = std::env::var(SECONDS).map_or(3600, |text| text.parse().expect("a number"));
    let host = PreviewHost::with_all(REST, "", "");
    let _daemon = host.sandbox.start();
    let client = host.client();
    host.commit("tab", &[("preview-config.nix", &counting_app())]);
    let create = r#"{"repo":"octo/web","branch":"tab","slug":"tab"}"#;
    assert_eq!(client.call("POST", "/v1/previews", create).status, 202);
    wait_until("it is live", || {
        let views: Vec<PreviewView> = client.get("/v1/previews");
        let is_live = |view: &PreviewView| view.preview.state == PreviewState::Live;
        views.iter().any(is_live)
    });
    let mut tab = upgraded("tab", 0).expect("upgraded");
    let state = || client.guest("tab").state;
    wait_until("it is paused", || state() == GuestState::Paused);

    let (ended, samples, paused) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let end = Instant::now() + Duration::from_secs(seconds);
    let sample = || {
        // Also if a ping fails.
        while !ended.load(Ordering::Relaxed) && Instant::now() < end + 8 * INTERVAL {
            let is_paused = state() == GuestState::Paused;
            samples.fetch_add(1, Ordering::Relaxed);
            paused.fetch_add(usize::from(is_paused), Ordering::Relaxed);
            std::thread::sleep(SAMPLE);
        }
    };
    let times = std::thread::scope(|scope| {
        let sampling = scope.spawn(sample);
        let mut times = Vec::new();
        while Instant::now() < end {
            std::thread::sleep(INTERVAL);
            let sent = Instant::now();
            tab.write_all(&PING).expect("sent");
            let mut echo = [0; PING.len()];
            tab.read_exact(&mut echo).expect("answered");
            assert_eq!(echo, PING);
            times.push(sent.elapsed());
        }
        ended.store(true, Ordering::Relaxed);
        sampling.join().expect("no panic");
        times
    });

    let (samples, paused) = (samples.into_inner(), paused.into_inner());
    let percent = 100 * paused / samples;
    let mut sorted = times;
    sorted.sort_unstable();
    println!(
        "{seconds} s: paused in {paused} of {samples} samples ({percent} %); {} pings, answered after {:?} (median), {:?} at most",
        sorted.len(),
        sorted[sorted.len() / 2],
        sorted.last().expect("one")
    );
    assert!(percent >= 90, "{percent} %");
}
