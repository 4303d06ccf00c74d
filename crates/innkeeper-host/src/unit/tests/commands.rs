//! Commands in a guest.

use super::*;

#[tokio::test]
async fn exec_runs_in_the_guest() {
    let Some(host) = Host::new("exec_runs_in_the_guest").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest(
        "web",
        "echo agent:x:1000:100::/home/agent:/bin/sh > /etc/passwd\necho docker:x:131:other,agent > /etc/group",
    );
    let seen = boot(&units, &guest).await;
    await_line(&units, &guest, "").await;

    assert_eq!(
        shell(&units, &guest, "hostname; pwd; id -u; id -G; echo $HOME").await,
        "web\n/\n0\n0\n/root"
    );
    let (status, out, stderr) = run(
        &units,
        &guest,
        &request(&["sh", "-c", "echo out; echo err >&2; exit 5"]),
    )
    .await;
    assert_eq!(
        (status, out.as_str(), stderr.as_str()),
        (5, "out\n", "err\n")
    );
    let (status, ..) = run(&units, &guest, &request(&["sh", "-c", "kill -9 $$"])).await;
    assert_eq!(status, 137);
    let (status, _, stderr) = run(&units, &guest, &request(&["no-such-program"])).await;
    assert_eq!(status, 127);
    assert!(stderr.contains("no-such-program"), "{stderr}");

    // It has access to the guest's processes and files only.
    let of_leader = fs::read_link(format!("/proc/{}/ns/net", seen.leader.expect("alive")))
        .expect("a namespace");
    assert_eq!(
        shell(&units, &guest, "readlink /proc/self/ns/net").await,
        of_leader.to_string_lossy()
    );
    assert_eq!(
        shell(&units, &guest, "ls /proc/1/exe && ls -d /script")
            .await
            .lines()
            .last(),
        Some("/script")
    );
    let environment = shell(&units, &guest, "env").await;
    assert!(!environment.contains("CARGO"), "{environment}");
    let descriptors = shell(&units, &guest, "ls /proc/self/fd").await;
    let leaked: Vec<_> = descriptors
        .lines()
        .filter(|number| {
            number.parse().is_ok_and(|number: u32| number > 3) && !is_inherited(number)
        })
        .collect();
    assert_eq!(leaked, [""; 0], "descriptors of the daemon");

    let mut as_agent = request(&["sh", "-c", "id -u; id -g; id -G; echo $HOME $GREETING"]);
    as_agent.user = Some("agent".to_owned());
    as_agent.environment = vec![("GREETING".to_owned(), "good day".to_owned())];
    assert_eq!(
        run(&units, &guest, &as_agent).await.1,
        "1000\n100\n100 131\n/home/agent good day\n"
    );
    as_agent.user = Some("nobody-here".to_owned());
    let error = units
        .exec(&guest.name, &as_agent)
        .await
        .expect_err("no such user");
    assert_eq!(error.code(), Code::InvalidRequest);
    let error = units
        .exec(&guest.name, &request(&[]))
        .await
        .expect_err("no command");
    assert_eq!(error.code(), Code::InvalidRequest);
    units.remove(&guest.name).await.expect("removed");
}

/// The caller is a member of the API's group, and the programs that enter the guest run as root: they must not load a
/// library from the guest's tree, which the caller can write.
#[tokio::test]
async fn exec_refuses_variables_that_affect_host_programs() {
    let test = "exec_refuses_variables_that_affect_host_programs";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    // The host's loader writes here if it honors LD_DEBUG_OUTPUT.
    let trace = host.config.root(&guest.name).join("tmp/trace");
    for variables in [
        vec![
            ("LD_DEBUG".to_owned(), "libs".to_owned()),
            ("LD_DEBUG_OUTPUT".to_owned(), trace.display().to_string()),
        ],
        vec![("LD_PRELOAD".to_owned(), "/tmp/library.so".to_owned())],
        vec![("GLIBC_TUNABLES".to_owned(), String::new())],
        vec![("GCONV_PATH".to_owned(), "/tmp".to_owned())],
        vec![("LOCALE_ARCHIVE_2_27".to_owned(), "/tmp/x".to_owned())],
    ] {
        let mut request = request(&["true"]);
        request.environment = variables;
        let error = units.exec(&guest.name, &request).await;
        let error = error.expect_err("a variable of the loader");
        assert_eq!(error.code(), Code::InvalidRequest);
        assert!(error.remedy().is_some(), "{error}");
    }
    let dir = fs::read_dir(trace.parent().expect("a directory")).expect("listed");
    assert_eq!(dir.count(), 0, "a program of the host wrote a trace");
    // Inside the guest, every variable can be set.
    assert_eq!(
        shell(&units, &guest, "env LD_DEBUG=x sh -c 'echo $LD_DEBUG'").await,
        "x"
    );
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn exec_passes_a_mebibyte_unchanged() {
    let Some(host) = Host::new("exec_passes_a_mebibyte_unchanged").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let mut session = units
        .exec(&guest.name, &request(&["cat"]))
        .await
        .expect("started");
    let sent: Vec<u8> = (0..1u32 << 20)
        .map(|n| u8::try_from(n * 7 % 251).expect("small"))
        .collect();
    let mut stdin = session.stdin.take().expect("an input");
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            let written = stdin.write_all(&sent).await;
            drop(stdin);
            written
        },
        session.stdout.read_to_end(&mut received),
    );
    written.expect("written");
    read.expect("read");
    assert!(
        received == sent,
        "{} of {} bytes came back unchanged",
        received.len(),
        sent.len()
    );
    assert_eq!(session.command.wait().await.expect("a status"), 0);
    units.remove(&guest.name).await.expect("removed");
}

async fn read_until(session: &mut ExecSession, expected: &str) -> String {
    let mut text = String::new();
    let mut piece = [0; 256];
    while !text.contains(expected) {
        let length = session.stdout.read(&mut piece).await.expect("output");
        assert_ne!(length, 0, "the end came before {expected:?}: {text:?}");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    text
}

#[tokio::test]
async fn exec_opens_a_terminal_of_the_guest() {
    let Some(host) = Host::new("exec_opens_a_terminal_of_the_guest").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let script =
        "tty; echo hi > $(tty); stty size; read word; echo got $word; stty size; sleep 1000";
    let mut with_terminal = request(&["sh", "-c", script]);
    with_terminal.tty = true;
    with_terminal.size = Some((30, 100));
    let mut session = units
        .exec(&guest.name, &with_terminal)
        .await
        .expect("started");
    let text = read_until(&mut session, "30 100").await;
    assert!(
        text.starts_with("/dev/pts/") && text.contains("hi"),
        "{text:?}"
    );
    session.command.resize(40, 120);
    let mut stdin = session.stdin.take().expect("an input");
    stdin.write_all(b"word\n").await.expect("typed");
    let text = read_until(&mut session, "40 120").await;
    assert!(text.contains("got word"), "{text:?}");
    // The interrupt key reaches the command, so the terminal controls it.
    stdin.write_all(&[3]).await.expect("typed");
    let mut rest = Vec::new();
    session
        .stdout
        .read_to_end(&mut rest)
        .await
        .expect("the end");
    assert_eq!(session.command.wait().await.expect("a status"), 130);
    units.remove(&guest.name).await.expect("removed");
}

/// Returns the number of processes of commands in a guest.
async fn count(host: &Host, guest: &Guest) -> usize {
    let cgroup = host.groups(guest).await.exec.remove(0);
    cgroup::pids(&cgroup).expect("listed").len()
}

/// Waits until no command and no cgroup of one is left in a guest.
async fn commands_are_gone(host: &Host, guest: &Guest) {
    for cgroup in host.groups(guest).await.exec {
        cgroup::emptied(&cgroup).await.expect("ended");
        while !cgroup::children(&cgroup).expect("listed").is_empty() {
            tokio::time::sleep(cgroup::PAUSE).await;
        }
    }
}

#[tokio::test]
async fn dropped_session_kills_all_processes_of_its_command() {
    let Some(host) = Host::new("dropped_session_kills_all_processes_of_its_command").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    // A grandchild in its own session, which signals to the command do not reach.
    let script = "setsid sh -c 'sleep 4321 & echo up; exec sleep 4322' & wait; sleep 4323";
    let mut session = units
        .exec(&guest.name, &request(&["sh", "-c", script]))
        .await
        .expect("started");
    read_until(&mut session, "up").await;
    assert!(count(&host, &guest).await >= 3);
    drop(session);
    commands_are_gone(&host, &guest).await;
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn exec_ends_with_its_command_despite_open_outputs() {
    let Some(host) = Host::new("exec_ends_with_its_command_despite_open_outputs").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let script = "sleep 4321 & (setsid sleep 4322 &); echo x; exit 3";
    let mut with_terminal = request(&["sh", "-c", script]);
    assert_eq!(run(&units, &guest, &with_terminal).await.0, 3);
    assert_eq!(run(&units, &guest, &with_terminal).await.1, "x\n");
    with_terminal.tty = true;
    assert_eq!(run(&units, &guest, &with_terminal).await.1, "x\r\n");
    // A long output is complete, even if the command ends before it is read.
    let long = "yes | head -c 60000; sleep 4321 & exit 0";
    let (_, out, _) = run(&units, &guest, &request(&["sh", "-c", long])).await;
    assert_eq!(out.len(), 60_000);
    commands_are_gone(&host, &guest).await;
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn detached_command_outlives_its_session_and_the_daemon() {
    let Some(host) = Host::new("detached_command_outlives_its_session_and_the_daemon").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "mkfifo /fifo");
    boot(&units, &guest).await;
    let detached = |script: &str| {
        let mut detached = request(&["sh", "-c", script]);
        detached.detached = true;
        detached
    };
    let script = "read word < /fifo; echo $word > /word";
    assert_eq!(run(&units, &guest, &detached(script)).await.0, 0);
    let mut missing = detached("");
    missing.command = vec!["no-such-program".to_owned()];
    let (status, _, stderr) = run(&units, &guest, &missing).await;
    assert_eq!(status, 127);
    assert!(stderr.contains("127"), "{stderr}");

    // A session whose daemon was killed before it ended its command.
    let mut session = units
        .exec(
            &guest.name,
            &request(&["sh", "-c", "sleep 4321 & echo up; wait"]),
        )
        .await
        .expect("started");
    read_until(&mut session, "up").await;
    std::mem::forget(session);
    assert!(count(&host, &guest).await >= 5);
    let next = host.units().await;
    // nsenter and the detached shell are left.
    while count(&host, &guest).await > 2 {
        tokio::time::sleep(cgroup::PAUSE).await;
    }
    let script = "echo done > /fifo; until [ -s /word ]; do sleep 0.01; done; cat /word";
    assert_eq!(shell(&next, &guest, script).await, "done");
    commands_are_gone(&host, &guest).await;
    run(&next, &guest, &detached("sleep 4321")).await;
    next.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn exec_works_at_the_guests_limit_of_cgroups() {
    let Some(host) = Host::new("exec_works_at_the_guests_limit_of_cgroups").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    assert_eq!(shell(&units, &guest, "echo first").await, "first");
    commands_are_gone(&host, &guest).await;
    let limit = host.groups(&guest).await.exec.remove(0);
    let limit = limit.join("cgroup.max.descendants");
    if !limit.exists() {
        eprintln!(
            "INNKEEPER-NOT-RUN: exec_works_at_the_guests_limit_of_cgroups: cgroups have no limit here"
        );
        return;
    }
    fs::write(limit, "0").expect("a limit");
    let mut session = units
        .exec(
            &guest.name,
            &request(&["sh", "-c", "echo up; exec sleep 4321"]),
        )
        .await
        .expect("started");
    read_until(&mut session, "up").await;
    drop(session);
    commands_are_gone(&host, &guest).await;
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn oom_kills_are_counted() {
    const HOG: &str = "word=word; while :; do word=$word$word; done";
    let Some(host) = Host::new("oom_kills_are_counted").await else {
        return;
    };
    let units = host.units().await;
    let script = format!(
        "(until [ -e /go ]; do sleep 0.05; done; sh -c '{HOG}'; echo survived it) & echo started"
    );
    let mut guest = host.guest("web", &script);
    guest.limits.memory = MemorySize::from_bytes(64 << 20);
    boot(&units, &guest).await;
    await_line(&units, &guest, "started").await;
    assert_eq!(units.oom_kills(&guest.name), 0);

    // A process of the guest itself.
    shell(&units, &guest, "touch /go").await;
    await_line(&units, &guest, "survived it").await;
    let own = units.oom_kills(&guest.name);
    assert!(own >= 1, "{own}");

    let calm = request(&["true"]);
    let calm = units.exec(&guest.name, &calm).await;
    let calm = calm.expect("started");
    assert_eq!(calm.command.wait().await.expect("a status"), 0);
    assert_eq!(calm.command.oom_kills(), (0, own));

    // A command from outside, and the child of a command that continues.
    for (command, expected) in [(HOG.to_owned(), 137), (format!("sh -c '{HOG}'; exit 3"), 3)] {
        let request = request(&["sh", "-c", &command]);
        let session = units.exec(&guest.name, &request).await;
        let session = session.expect("started");
        assert_eq!(session.command.wait().await.expect("a status"), expected);
        let (kills, all) = session.command.oom_kills();
        assert!(kills >= 1 && all > own, "{kills} {all}");
    }
    innkeeper_facilities::Resource::remove(&*units, &guest.name)
        .await
        .expect("removed");
}
