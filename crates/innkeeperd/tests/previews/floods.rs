//! Builds that print progress lines without end: the daemon answers, and a preview can be removed, while they go on.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::wait_until;
use crate::town::Town;

/// Pull requests whose builds flood the daemon.
const FLOODS: [u64; 3] = [1, 2, 3];

/// How often each command is run.
const RUNS: usize = 5;

/// A pull request whose build never ends and prints nothing.
const QUIET: u64 = 4;

/// What a builder runs for ever. Its command line has the test's folder and the pull request's number.
fn builder(town: &Town, number: u64) -> String {
    let mark = mark(town, number);
    if number == QUIET {
        return format!("exec busybox sh -c 'while :; do busybox sleep 100; done' '{mark}'");
    }
    let line = format!(
        r#"@nix {{"action":"start","id":1,"level":3,"type":101,"fields":["https://a/b"],"text":"{mark}"}}"#
    );
    format!("exec busybox yes '{line}' >&2")
}

/// A preview with such a build.
fn building(town: &Town, number: u64) -> String {
    let builder = builder(town, number);
    format!(
        "{{ pkgs, ... }}: {{\n\
           system.build.previewMeta = {{ setupService = \"setup\"; appServices = [ \"app\" ]; \
             database = \"host\"; routes = [ {{ path = \"/\"; port = 3000; }} ]; }};\n\
           environment.etc.flood.source = pkgs.runCommand \"flood\" {{ }} ''{builder} '';\n\
         }}\n"
    )
}

fn mark(town: &Town, number: u64) -> String {
    format!("{}-flood-{number};", town.root().display())
}

/// Whether a builder of a pull request runs.
fn builds(town: &Town, number: u64) -> bool {
    let mark = mark(town, number);
    let processes = fs::read_dir("/proc").expect("list").flatten();
    processes.into_iter().any(|process| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.starts_with(b"busybox\0") && String::from_utf8_lossy(&words).contains(&mark)
    })
}

/// How long `agent list` takes, in the median.
fn list(town: &Town) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            let listed = town.sandbox.program("agent", &["list"], b"");
            assert!(listed.status.success(), "{listed:?}");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn open(town: &Town, number: u64) {
    let branch = format!("topic-{number}");
    let config = building(town, number);
    let sha = town.commit(&branch, &[("preview-config.nix", &config)]);
    let action = town.pull(number, &branch, &sha);
    town.deliver(number, action);
}

/// How long `preview destroy` takes until nothing of the preview is left.
fn remove(town: &Town, number: u64) -> Duration {
    let begun = Instant::now();
    let slug = Town::slug(number);
    let destroyed = town.sandbox.program("preview", &["destroy", &slug], b"");
    assert!(destroyed.status.success(), "{destroyed:?}");
    town.gone(number);
    begun.elapsed()
}

/// The same, with nothing else to do.
fn destroy(town: &Town, number: u64) -> Duration {
    open(town, number);
    wait_until("it builds", || builds(town, number));
    remove(town, number)
}

#[test]
fn three_builds_that_flood_the_daemon_delay_no_command() {
    // The output of a builder has no limit that ends it before the test does.
    let mut town = Town::with("[builds]\nlog_limit = '1T'");
    let daemon = town.start();
    town.start_webhook();
    let idle = [list(&town), destroy(&town, QUIET)];
    for number in FLOODS {
        open(&town, number);
    }
    wait_until("all of them build", || {
        FLOODS.iter().all(|number| builds(&town, *number))
    });

    let busy = [list(&town), remove(&town, 1)];
    // None of the builds has ended but the one that was to end.
    assert!(builds(&town, 2) && builds(&town, 3), "a build has ended");
    wait_until("its build ends with the preview", || !builds(&town, 1));
    // For tests/bench.
    let [list, destroy] = [0, 1].map(|command| {
        let times = [idle, busy].map(|times| 1e3 * times[command].as_secs_f64());
        format!("[{:.1}, {:.1}]", times[0], times[1])
    });
    println!("floods: {{\"agent list\": {list}, \"preview destroy\": {destroy}}}");

    daemon.kill();
    wait_until("the builds end with the daemon", || {
        !builds(&town, 2) && !builds(&town, 3)
    });
}
