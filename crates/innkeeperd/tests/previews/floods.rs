//! Builds that print progress lines endlessly. Meanwhile, the daemon must respond and previews must be removable.

use std::fs;
use std::time::{Duration, Instant};

use crate::host::PreviewHost;
use crate::support::wait_until;

/// Pull requests whose builds flood the log.
const FLOODS: [u64; 3] = [1, 2, 3];

/// Measurements of each command.
const RUNS: usize = 5;

/// A pull request whose build never ends and prints nothing.
const QUIET: u64 = 4;

/// Returns the endless command of a builder. Its arguments contain the test's folder and the pull request's number.
fn builder(host: &PreviewHost, number: u64) -> String {
    let mark = mark(host, number);
    if number == QUIET {
        return format!("exec busybox sh -c 'while :; do busybox sleep 100; done' '{mark}'");
    }
    let line = format!(
        r#"@nix {{"action":"start","id":1,"level":3,"type":101,"fields":["https://a/b"],"text":"{mark}"}}"#
    );
    format!("exec busybox yes '{line}' >&2")
}

/// Returns a configuration with such a build.
fn building(host: &PreviewHost, number: u64) -> String {
    let builder = builder(host, number);
    format!(
        "{{ pkgs, ... }}: {{\n\
           system.build.previewMeta = {{ setupService = \"setup\"; appServices = [ \"app\" ]; \
             database = \"host\"; routes = [ {{ path = \"/\"; port = 3000; }} ]; }};\n\
           environment.etc.flood.source = pkgs.runCommand \"flood\" {{ }} ''{builder} '';\n\
         }}\n"
    )
}

fn mark(host: &PreviewHost, number: u64) -> String {
    format!("{}-flood-{number};", host.root().display())
}

/// Reports whether a builder of a pull request runs.
fn builds(host: &PreviewHost, number: u64) -> bool {
    let mark = mark(host, number);
    let processes = fs::read_dir("/proc").expect("list").flatten();
    processes.into_iter().any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments.starts_with(b"busybox\0") && String::from_utf8_lossy(&arguments).contains(&mark)
    })
}

/// Returns the median duration of `agent list`.
fn list(host: &PreviewHost) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let listed = host.sandbox.program("agent", &["list"], b"");
            assert!(listed.status.success(), "{listed:?}");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn open(host: &PreviewHost, number: u64) {
    let branch = format!("topic-{number}");
    let config = building(host, number);
    let sha = host.commit(&branch, &[("preview-config.nix", &config)]);
    let action = host.pull(number, &branch, &sha);
    host.deliver(number, action);
}

/// Returns the duration of `preview destroy` until the preview is gone.
fn remove(host: &PreviewHost, number: u64) -> Duration {
    let start = Instant::now();
    let slug = PreviewHost::slug(number);
    let destroyed = host.sandbox.program("preview", &["destroy", &slug], b"");
    assert!(destroyed.status.success(), "{destroyed:?}");
    host.wait_until_gone(number);
    start.elapsed()
}

/// The same on an idle host.
fn destroy(host: &PreviewHost, number: u64) -> Duration {
    open(host, number);
    wait_until("it builds", || builds(host, number));
    remove(host, number)
}

#[test]
fn three_builds_that_flood_the_log_delay_no_command() {
    // The output of a builder has no limit that ends it before the test does.
    let mut host = PreviewHost::with("[builds]\nlog_limit = '1T'");
    let daemon = host.start();
    host.start_webhook();
    let idle = [list(&host), destroy(&host, QUIET)];
    for number in FLOODS {
        open(&host, number);
    }
    wait_until("all of them build", || {
        FLOODS.iter().all(|number| builds(&host, *number))
    });

    let busy = [list(&host), remove(&host, 1)];
    // Only the build of the removed preview has ended.
    assert!(builds(&host, 2) && builds(&host, 3), "a build has ended");
    wait_until("its build ends with the preview", || !builds(&host, 1));
    // For tests/bench.
    let [list, destroy] = [0, 1].map(|command| {
        let times = [idle, busy].map(|times| 1e3 * times[command].as_secs_f64());
        format!("[{:.1}, {:.1}]", times[0], times[1])
    });
    println!("floods: {{\"agent list\": {list}, \"preview destroy\": {destroy}}}");

    daemon.kill();
    wait_until("the builds end with the daemon", || {
        !builds(&host, 2) && !builds(&host, 3)
    });
}
