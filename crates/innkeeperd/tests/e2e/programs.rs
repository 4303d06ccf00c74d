//! What people type, against a real daemon and real guests.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Output;

use innkeeper_model::api::GuestView;

use crate::support::{Fixture, Sandbox, closure, flake, wait_until};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails the test unless the program ended well, and returns what it said.
fn fine(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        said(output),
        complained(output)
    );
    said(output)
}

#[test]
fn an_agents_life_in_words() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let agent = |arguments: &[&str]| sandbox.program("agent", arguments, b"");
    assert!(fine(&agent(&["list"])).contains("(no agents)"));
    let created = fine(&agent(&[
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
    assert!(fine(&agent(&["list"])).contains("running"));
    let listed: Vec<GuestView> =
        serde_json::from_str(&fine(&agent(&["list", "--json"]))).expect("JSON");
    assert_eq!(listed[0].guest.limits.memory.to_string(), "64M");
    assert!(fine(&agent(&["logs", "web"])).contains("web is up."));

    assert_eq!(
        fine(&agent(&["exec", "web", "--", "hostname"])).trim(),
        "web"
    );
    let echoed = sandbox.program("agent", &["exec", "web", "--", "cat"], b"through and back");
    assert_eq!(fine(&echoed), "through and back");
    let failed = agent(&["exec", "web", "--", "sh", "-c", "echo no >&2; exit 42"]);
    assert_eq!(
        (failed.status.code(), complained(&failed).trim()),
        (Some(42), "no")
    );

    fine(&agent(&["stop", "web"]));
    assert_eq!(
        agent(&["exec", "web", "--", "true"]).status.code(),
        Some(4),
        "it does not run"
    );
    fine(&agent(&["start", "web"]));
    fine(&agent(&["destroy", "web"]));
    assert_eq!(
        agent(&["destroy", "web"]).status.code(),
        Some(3),
        "it is gone"
    );
}

#[test]
fn an_exec_whose_client_is_killed_ends_with_all_that_it_started() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let sleepers = || {
        let look = ["exec", "web", "--", "sh", "-c", "ps | grep -c '[s]leep 43'"];
        said(&sandbox.program("agent", &look, b""))
            .trim()
            .parse::<u32>()
            .expect("a number")
    };
    // Neither reads its input: one has a short one, the other more than all buffers hold.
    let script = "setsid sleep 4321 & sleep 4322 & exec sleep 4323";
    for size in [10, 4 << 20] {
        let mut client = sandbox.spawn_program("agent", &["exec", "web", "--", "sh", "-c", script]);
        let mut stdin = client.stdin.take().expect("piped");
        let input = vec![b'x'; size];
        // It fails when the client is killed.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        wait_until("the command runs", || sleepers() == 3);
        client.kill().expect("killed");
        client.wait().expect("reaped");
        writer.join().expect("no panic");
        wait_until("the command has ended", || sleepers() == 0);
    }

    let detached = ["exec", "--detach", "web", "--", "sleep", "4324"];
    assert_eq!(fine(&sandbox.program("agent", &detached, b"")), "");
    assert_eq!(sleepers(), 1);
    let mut client = sandbox.spawn_program("agent", &["exec", "web", "--", "sh", "-c", script]);
    wait_until("the command runs", || sleepers() == 4);
    daemon.kill();
    client.wait().expect("it ends without its daemon");
    let _next = sandbox.start();
    wait_until("only the detached one goes on", || sleepers() == 1);
    sandbox.client().destroy("web");
}

#[test]
fn a_log_that_is_followed_ends_well_when_its_guest_stops_or_is_removed() {
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
        fine(&sandbox.program("agent", &[words.as_slice(), &[last.as_str()]].concat(), b""));
        fine(&sandbox.program("agent", &[end, "web"], b""));
        let mut rest = String::new();
        followed.read_to_string(&mut rest).expect("text");
        assert!(rest.contains(&format!("{end} follows")), "{first}{rest}");
        fine(&follower.wait_with_output().expect("it ends"));
        if end == "stop" {
            // A log of a guest that does not run has nothing to come.
            let logs = sandbox.program("agent", &["logs", "--follow", "web"], b"");
            assert!(fine(&logs).contains("stop follows"));
            client.change("web", "start");
        }
    }
    // The name has another guest now.
    client.create("web", &closure);
    let logs = fine(&sandbox.program("agent", &["logs", "web"], b""));
    assert!(!logs.contains("destroy follows"), "{logs}");
    client.destroy("web");
}

#[test]
fn the_hosts_owner_sees_everything() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure);
    let innkeeper = |arguments: &[&str]| sandbox.program("innkeeper", arguments, b"");
    assert!(fine(&innkeeper(&["status"])).contains(&daemon.pid().to_string()));
    assert!(fine(&innkeeper(&["doctor"])).contains("guest web"));
    assert!(fine(&innkeeper(&["slots"])).contains("10.100.0.3"));
    assert!(fine(&innkeeper(&["events"])).contains("creating the file tree"));
    assert!(fine(&innkeeper(&["config"])).contains("network.subnet"));
    assert_eq!(fine(&innkeeper(&["gc", "--dry-run"])), "(no orphans)\n");
    for command in ["status", "doctor", "slots", "config"] {
        let json = fine(&innkeeper(&[command, "--json"]));
        serde_json::from_str::<serde_json::Value>(&json)
            .unwrap_or_else(|error| panic!("{command}: {error}"));
    }
    sandbox.client().destroy("web");
    daemon.kill();
    let unreachable = innkeeper(&["status"]);
    assert_eq!(unreachable.status.code(), Some(8));
    assert!(
        complained(&unreachable).contains("Hint: "),
        "{}",
        complained(&unreachable)
    );
}

#[test]
fn a_guests_programs_do_not_inherit_which_signals_the_daemon_ignores() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    // As a shell does with what it starts in the background, and nohup(1).
    let daemon = sandbox.start_after("trap '' HUP INT QUIT USR1");
    sandbox.client().create("web", &closure);
    let look = ["exec", "web", "--", "cat", "/proc/self/status"];
    let status = fine(&sandbox.program("agent", &look, b""));
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(mask.expect("there").trim(), 16).expect("a mask")
    };
    assert_eq!(mask("SigBlk:"), 0, "{status}");
    // The C library's own two can be ignored where the test itself is run.
    assert_eq!(mask("SigIgn:") & !0x1_8000_0000, 0, "{status}");
    daemon.stop();
}

#[test]
fn a_build_says_what_it_does_and_a_failed_one_why() {
    let (good, bad) = (
        flake(Fixture::Agent),
        flake(Fixture::Agent).replace("#agent", "#failing"),
    );
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let built = fine(&sandbox.program("agent", &["build", &good], b""));
    assert!(built.contains(&closure), "{built}");
    let built = fine(&sandbox.program("agent", &["build", &good, "--json"], b""));
    let built: serde_json::Value = serde_json::from_str(&built).expect("JSON");
    assert_eq!(built["closure"], closure);
    let failed = sandbox.program("agent", &["build", &bad], b"");
    assert_eq!(failed.status.code(), Some(6));
    assert!(
        complained(&failed).contains("line 50 of a build"),
        "{}",
        complained(&failed)
    );
}

#[test]
fn ssh_knows_the_hosts_key_and_refuses_any_other() {
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
    fine(&agent(&["create", "web", "--closure", &closure, "--wait"]));
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
    assert_eq!(fine(&ssh("id -un")).trim(), "agent");
    assert_eq!(ssh("exit 9").status.code(), Some(9));
    // The credentials are the agent's, and nobody else's.
    let token = "cat /mnt/claude-creds/oauth_token; stat -c '%a %u' /mnt/claude-creds/oauth_token";
    assert_eq!(fine(&ssh(token)), "sesame400 1000\n");
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
        !stranger.status.success() && said(&stranger).is_empty(),
        "{stranger:?}"
    );

    // Somebody else answers at the address.
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
    fine(&agent(&["exec", "web", "--", "killall", "sshd"]));
    wait_until("the impostor is refused", || {
        let refused = ssh("id -un");
        !refused.status.success()
            && complained(&refused).contains("HOST IDENTIFICATION HAS CHANGED")
    });
    fine(&agent(&["destroy", "web"]));
}

#[test]
fn a_command_that_is_killed_for_want_of_memory_is_explained() {
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
    fine(&agent(&create));
    let calm = agent(&["exec", "web", "--", "true"]);
    assert_eq!(complained(&calm), "");
    let hog = "word=word; while :; do word=$word$word; done";
    let killed = agent(&["exec", "web", "--", "sh", "-c", hog]);
    assert_eq!(killed.status.code(), Some(137));
    let report = "the kernel killed 1 process of guest 'web', which had used all of its 64M of memory. \
                  Create it anew with `agent create --memory`";
    let complaint = complained(&killed);
    assert!(complaint.contains(report), "{complaint}");
    let list = fine(&agent(&["list"]));
    assert!(list.contains(report), "{list}");
    let listed: Vec<GuestView> =
        serde_json::from_str(&fine(&agent(&["list", "--json"]))).expect("JSON");
    assert_eq!(listed[0].oom_kills, 1);
    let logs = complained(&agent(&["logs", "web"]));
    assert!(logs.contains(report), "{logs}");
    let events = fine(&sandbox.program("innkeeper", &["events", "--guest", "web"], b""));
    let line = "the kernel killed 1 process of the guest, which had used all of its 64M of memory";
    assert_eq!(events.matches(line).count(), 1, "{events}");
    // Another start begins at none.
    fine(&agent(&["stop", "web"]));
    fine(&agent(&["start", "web"]));
    assert!(!fine(&agent(&["list"])).contains("the kernel killed"));
}
