//! The client programs, against a real daemon and real guests.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Output;

use innkeeper_model::api::GuestView;

use crate::support::{Fixture, Sandbox, closure, flake, wait_until};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails the test unless the program succeeded, and returns its output.
fn success(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        stdout(output),
        stderr(output)
    );
    stdout(output)
}

#[test]
fn the_lifecycle_of_an_agent_in_the_cli() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let agent = |arguments: &[&str]| sandbox.program("agent", arguments, b"");
    assert!(success(&agent(&["list"])).contains("(no agents)"));
    let created = success(&agent(&[
        "create",
        "web",
        "--closure",
        &closure,
        "--memory",
        "64M",
        "--wait",
        "--wait-port",
        "80",
    ]));
    assert!(
        created.contains("[OK] Agent web is up at 10.100.0.3"),
        "{created}"
    );
    assert!(success(&agent(&["list"])).contains("running"));
    let listed: Vec<GuestView> =
        serde_json::from_str(&success(&agent(&["list", "--json"]))).expect("JSON");
    assert_eq!(listed[0].guest.limits.memory.to_string(), "64M");
    assert!(success(&agent(&["logs", "web"])).contains("web is up."));

    assert_eq!(
        success(&agent(&["exec", "web", "--", "hostname"])).trim(),
        "web"
    );
    let echoed = sandbox.program("agent", &["exec", "web", "--", "cat"], b"through and back");
    assert_eq!(success(&echoed), "through and back");
    let failed = agent(&["exec", "web", "--", "sh", "-c", "echo no >&2; exit 42"]);
    assert_eq!(
        (failed.status.code(), stderr(&failed).trim()),
        (Some(42), "no")
    );

    success(&agent(&["stop", "web"]));
    assert_eq!(
        agent(&["exec", "web", "--", "true"]).status.code(),
        Some(4),
        "it is not running"
    );
    success(&agent(&["start", "web"]));
    success(&agent(&["destroy", "web"]));
    assert_eq!(
        agent(&["destroy", "web"]).status.code(),
        Some(3),
        "it is gone"
    );
}

#[test]
fn an_exec_ends_with_its_client_including_all_descendants() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let sleepers = || {
        let look = ["exec", "web", "--", "sh", "-c", "ps | grep -c '[s]leep 43'"];
        stdout(&sandbox.program("agent", &look, b""))
            .trim()
            .parse::<u32>()
            .expect("a number")
    };
    // The command does not read its input: a short one, and one that exceeds all buffers.
    let script = "setsid sleep 4321 & sleep 4322 & exec sleep 4323";
    for size in [10, 4 << 20] {
        let mut client = sandbox.spawn_program("agent", &["exec", "web", "--", "sh", "-c", script]);
        let mut stdin = client.stdin.take().expect("piped");
        let input = vec![b'x'; size];
        // Fails when the client is killed.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        wait_until("the command runs", || sleepers() == 3);
        client.kill().expect("killed");
        client.wait().expect("reaped");
        writer.join().expect("no panic");
        wait_until("the command has ended", || sleepers() == 0);
    }

    let detached = ["exec", "--detach", "web", "--", "sleep", "4324"];
    assert_eq!(success(&sandbox.program("agent", &detached, b"")), "");
    assert_eq!(sleepers(), 1);
    let mut client = sandbox.spawn_program("agent", &["exec", "web", "--", "sh", "-c", script]);
    wait_until("the command runs", || sleepers() == 4);
    daemon.kill();
    client.wait().expect("it ends without its daemon");
    let _next = sandbox.start();
    wait_until("only the detached one keeps running", || sleepers() == 1);
    sandbox.client().destroy("web");
}

#[test]
fn a_followed_log_ends_when_its_guest_stops() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    for end in ["stop", "destroy"] {
        let mut follower = sandbox.spawn_program("agent", &["logs", "--follow", "web"]);
        let mut followed = BufReader::new(follower.stdout.take().expect("piped"));
        let mut first = String::new();
        followed.read_line(&mut first).expect("a line");
        let words = ["exec", "web", "--", "sh", "-c"];
        let last = format!("echo {end} follows > /proc/1/fd/1");
        success(&sandbox.program("agent", &[words.as_slice(), &[last.as_str()]].concat(), b""));
        success(&sandbox.program("agent", &[end, "web"], b""));
        let mut rest = String::new();
        followed.read_to_string(&mut rest).expect("text");
        assert!(rest.contains(&format!("{end} follows")), "{first}{rest}");
        success(&follower.wait_with_output().expect("it ends"));
        if end == "stop" {
            // Following the log of a stopped guest ends at once.
            let logs = sandbox.program("agent", &["logs", "--follow", "web"], b"");
            assert!(success(&logs).contains("stop follows"));
            client.change("web", "start");
        }
    }
    // A new guest with the same name has its own log.
    client.create("web", &closure);
    let logs = success(&sandbox.program("agent", &["logs", "web"], b""));
    assert!(!logs.contains("destroy follows"), "{logs}");
    client.destroy("web");
}

#[test]
fn a_followed_log_breaks_off_with_an_error_when_the_daemon_stops() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let mut follower = sandbox.spawn_program("agent", &["logs", "--follow", "web"]);
    let mut followed = BufReader::new(follower.stdout.take().expect("piped"));
    followed.read_line(&mut String::new()).expect("a line");
    daemon.stop();
    let ended = follower.wait_with_output().expect("it ends");
    let message = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(8), "{message}");
    assert!(message.contains("lost the connection"), "{message}");
    let _next = sandbox.start();
    sandbox.client().destroy("web");
}

#[test]
fn innkeeper_commands_report_the_whole_host() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let innkeeper = |arguments: &[&str]| sandbox.program("innkeeper", arguments, b"");
    assert!(success(&innkeeper(&["status"])).contains(&daemon.pid().to_string()));
    assert!(success(&innkeeper(&["doctor"])).contains("guest web"));
    assert!(success(&innkeeper(&["slots"])).contains("10.100.0.3"));
    assert!(success(&innkeeper(&["events"])).contains("creating the file tree"));
    assert!(success(&innkeeper(&["config"])).contains("network.subnet"));
    assert_eq!(success(&innkeeper(&["gc", "--dry-run"])), "(no orphans)\n");
    for command in ["status", "doctor", "slots", "config"] {
        let json = success(&innkeeper(&[command, "--json"]));
        serde_json::from_str::<serde_json::Value>(&json)
            .unwrap_or_else(|error| panic!("{command}: {error}"));
    }
    sandbox.client().destroy("web");
    daemon.kill();
    let unreachable = innkeeper(&["status"]);
    assert_eq!(unreachable.status.code(), Some(8));
    assert!(
        stderr(&unreachable).contains("Hint: "),
        "{}",
        stderr(&unreachable)
    );
}

#[test]
fn a_guests_programs_do_not_inherit_ignored_signals() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    // As a shell does for background jobs, and nohup(1).
    let daemon = sandbox.start_after("trap '' HUP INT QUIT USR1");
    sandbox.client().create("web", &closure);
    let look = ["exec", "web", "--", "cat", "/proc/self/status"];
    let status = success(&sandbox.program("agent", &look, b""));
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(mask.expect("there").trim(), 16).expect("a mask")
    };
    assert_eq!(mask("SigBlk:"), 0, "{status}");
    // The two signals of the C library may be ignored in the test's own environment.
    assert_eq!(mask("SigIgn:") & !0x1_8000_0000, 0, "{status}");
    daemon.stop();
}

#[test]
fn a_build_reports_its_result_or_its_error() {
    let (good, bad) = (
        flake(Fixture::Agent),
        flake(Fixture::Agent).replace("#agent", "#failing"),
    );
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let built = success(&sandbox.program("agent", &["build", &good], b""));
    assert!(built.contains(&closure), "{built}");
    let built = success(&sandbox.program("agent", &["build", &good, "--json"], b""));
    let built: serde_json::Value = serde_json::from_str(&built).expect("JSON");
    assert_eq!(built["closure"], closure);
    let failed = sandbox.program("agent", &["build", &bad], b"");
    assert_eq!(failed.status.code(), Some(6));
    assert!(
        stderr(&failed).contains("line 50 of a build"),
        "{}",
        stderr(&failed)
    );
}

#[test]
fn ssh_accepts_only_the_recorded_host_key() {
    let closure = closure(Fixture::Ssh);
    let mut sandbox = Sandbox::new();
    let key = sandbox.path().join("key").display().to_string();
    sandbox.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("made");
    sandbox.configure(&format!("[ssh]\nauthorized_keys = ['{}']", public.trim()));
    fs::create_dir(sandbox.path().join("credentials")).expect("made");
    fs::write(sandbox.path().join("credentials/oauth_token"), "sesame").expect("written");
    let _daemon = sandbox.start();
    let agent = |arguments: &[&str]| sandbox.program("agent", arguments, b"");
    success(&agent(&["create", "web", "--closure", &closure, "--wait"]));
    let ssh = |command: &str| {
        let options = [
            "ssh",
            "web",
            "--",
            "-i",
            &key,
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            command,
        ];
        agent(&options)
    };
    assert_eq!(success(&ssh("id -un")).trim(), "agent");
    assert_eq!(ssh("exit 9").status.code(), Some(9));
    // Only the agent's user may read the credentials.
    let token = "cat /mnt/claude-creds/oauth_token; stat -c '%a %u' /mnt/claude-creds/oauth_token";
    assert_eq!(success(&ssh(token)), "sesame400 1000\n");
    let stranger = agent(&[
        "exec",
        "--user",
        "nobody",
        "web",
        "--",
        "cat",
        "/mnt/claude-creds/oauth_token",
    ]);
    assert!(
        !stranger.status.success() && stdout(&stranger).is_empty(),
        "{stranger:?}"
    );

    // Another host key at the same address.
    let other = sandbox.path().join("other").display().to_string();
    sandbox.run(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-f", &other],
    );
    for (from, to) in [
        ("other", "ssh_host_ed25519_key"),
        ("other.pub", "ssh_host_ed25519_key.pub"),
    ] {
        let place = sandbox.state().join("guests/web/rootfs/etc/ssh").join(to);
        fs::write(place, fs::read(sandbox.path().join(from)).expect("read")).expect("written");
    }
    success(&agent(&["exec", "web", "--", "killall", "sshd"]));
    wait_until("the other host key is rejected", || {
        let rejected = ssh("id -un");
        !rejected.status.success() && stderr(&rejected).contains("HOST IDENTIFICATION HAS CHANGED")
    });
    success(&agent(&["destroy", "web"]));
}

#[test]
fn an_out_of_memory_kill_is_reported_to_the_user() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let agent = |arguments: &[&str]| sandbox.program("agent", arguments, b"");
    let create = [
        "create",
        "web",
        "--closure",
        &closure,
        "--memory",
        "64M",
        "--wait",
        "--wait-port",
        "80",
    ];
    success(&agent(&create));
    let unaffected = agent(&["exec", "web", "--", "true"]);
    assert_eq!(stderr(&unaffected), "");
    let hog = "word=word; while :; do word=$word$word; done";
    let killed = agent(&["exec", "web", "--", "sh", "-c", hog]);
    assert_eq!(killed.status.code(), Some(137));
    let report = "the kernel killed 1 process of guest 'web', which had used all of its 64M of memory. \
                  Create it again with `agent create --memory`";
    let message = stderr(&killed);
    assert!(message.contains(report), "{message}");
    let list = success(&agent(&["list"]));
    assert!(list.contains(report), "{list}");
    let listed: Vec<GuestView> =
        serde_json::from_str(&success(&agent(&["list", "--json"]))).expect("JSON");
    assert_eq!(listed[0].oom_kills, 1);
    let logs = stderr(&agent(&["logs", "web"]));
    assert!(logs.contains(report), "{logs}");
    let events = success(&sandbox.program("innkeeper", &["events", "--guest", "web"], b""));
    let line = "the kernel killed 1 process of the guest, which had used all of its 64M of memory";
    assert_eq!(events.matches(line).count(), 1, "{events}");
    // A start resets the count.
    success(&agent(&["stop", "web"]));
    success(&agent(&["start", "web"]));
    assert!(!success(&agent(&["list"])).contains("the kernel killed"));
}
