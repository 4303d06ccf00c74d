//! What a guest may not.

use super::*;

#[tokio::test]
async fn limits_are_in_effect() {
    let Some(host) = Host::new("limits_are_in_effect").await else {
        return;
    };
    let missing = host.cgroups().missing();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        eprintln!("INNKEEPER-NOT-RUN: limits_are_in_effect: no cgroup controller {missing}");
        return;
    }
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let groups = host.groups(&guest).await;
    let machine = host.cgroups().machine(&host.config.machine(&guest.name));
    let dirs = if has_systemd() {
        vec![groups.guest.clone()]
    } else {
        machine.guests()
    };
    let read = |files: &[&str]| {
        let found = files.iter().find_map(|file| {
            dirs.iter()
                .find_map(|dir| fs::read_to_string(dir.join(file)).ok())
        });
        found.expect("a limit").trim().to_owned()
    };
    assert_eq!(
        read(&["memory.max", "memory.limit_in_bytes"]),
        (256u64 << 20).to_string()
    );
    assert_eq!(read(&["pids.max"]), "60");
    assert!(matches!(
        read(&["cpu.max", "cpu.cfs_quota_us"]).as_str(),
        "150000 100000" | "150000"
    ));

    // A loop that forks meets the limit, also when it comes from outside.
    let forks = "i=0; while [ $i -lt 200 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; echo forked them all";
    let (status, out, complaint) = run(
        &units,
        &guest,
        &request(&["sh", "-c", &format!("exec 2>&1; ({forks}) </dev/null")]),
    )
    .await;
    assert!(
        out.contains("can't fork") && !out.contains("forked them all"),
        "{status} {out} {complaint}"
    );
    let count = cgroup::pids(&groups.guest).expect("listed").len();
    assert!(count <= 60, "{count} processes");
    // And it can still be ended.
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces(), BTreeSet::new());
}

#[tokio::test]
async fn a_guest_has_its_own_users_and_only_the_capabilities_it_was_given() {
    let Some(host) =
        Host::new("a_guest_has_its_own_users_and_only_the_capabilities_it_was_given").await
    else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let leader = boot(&units, &guest).await.leader.expect("alive");
    let first = guest.slot.first_user_id().to_string();
    assert_eq!(
        proc_status(leader, "Uid").split('\t').next(),
        Some(first.as_str())
    );
    assert_eq!(say(&units, &guest, "id -u").await, "0");

    // CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME are never nspawn's; the others are those that we drop.
    let bounding = u64::from_str_radix(&proc_status(leader, "CapBnd"), 16).expect("a mask");
    for (number, name) in [
        (16, "SYS_MODULE"),
        (17, "SYS_RAWIO"),
        (25, "SYS_TIME"),
        (9, "LINUX_IMMUTABLE"),
        (26, "SYS_TTY_CONFIG"),
        (27, "MKNOD"),
        (30, "AUDIT_CONTROL"),
    ] {
        assert_eq!(bounding >> number & 1, 0, "CAP_{name}");
    }
    assert_eq!(
        bounding >> 12 & 1,
        1,
        "CAP_NET_ADMIN, over its own network only"
    );
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    // Its network belongs to its own user namespace, so its root may change it, and nothing of ours.
    assert_eq!(
        say(
            &units,
            &guest,
            "ip link set lo up && ip -o link show lo | grep -c 'UP'"
        )
        .await,
        "1"
    );
    let (status, ..) = run(
        &units,
        &guest,
        &request(&["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]),
    )
    .await;
    assert_ne!(status, 0);
    // The store can be read and not written.
    assert_ne!(
        run(&units, &guest, &request(&["touch", "/nix/store/x"]))
            .await
            .0,
        0
    );
    assert_eq!(host.config.user_ids, UserIds::Mapped);
    units.remove(&guest.name).await.expect("removed");
}

/// The table in docs/security.md, "Commands from outside", row by row.
#[tokio::test]
async fn a_command_from_outside_differs_from_the_guests_own_as_documented_and_reaches_no_further() {
    let Some(host) = Host::new(
        "a_command_from_outside_differs_from_the_guests_own_as_documented_and_reaches_no_further",
    )
    .await
    else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let leader = boot(&units, &guest).await.leader.expect("alive");

    // The same: every namespace, user and limit.
    for kind in ["user", "mnt", "uts", "ipc", "net", "cgroup", "pid"] {
        let own = fs::read_link(format!("/proc/{leader}/ns/{kind}")).expect("a namespace");
        let of_command = say(&units, &guest, &format!("readlink /proc/self/ns/{kind}")).await;
        assert_eq!(of_command, own.to_string_lossy(), "{kind}");
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
        assert_ne!(own, ours, "{kind}");
    }
    let map = fs::read_to_string(format!("/proc/{leader}/uid_map")).expect("a map");
    assert_eq!(
        say(&units, &guest, "cat /proc/self/uid_map").await,
        map.trim()
    );
    let status = say(&units, &guest, "cat /proc/self/status").await;
    let field = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("a field").trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), proc_status(leader, "NoNewPrivs"));

    // Different: capabilities over the guest's user namespace, and the filter of system calls.
    let set = |text: String| u64::from_str_radix(&text, 16).expect("a mask");
    let (own, of_command) = (set(proc_status(leader, "CapBnd")), set(field("CapBnd")));
    assert_eq!(of_command & own, own, "it has what the guest's root has");
    assert_ne!(of_command, own);
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    assert_eq!(field("Seccomp"), proc_status(std::process::id(), "Seccomp"));

    // What the additional capabilities would allow to the host's root is refused.
    for forbidden in [
        "mknod /device c 1 1",
        "mknod /device b 7 0",
        // busybox complains and returns 0.
        "! date -s @$(date +%s) 2>&1 | grep -q 'not permitted'",
        "echo 1 > /proc/sys/kernel/panic",
        "echo h > /proc/sysrq-trigger",
        "cat /proc/kcore",
    ] {
        let (status, out, _) = run(&units, &guest, &request(&["sh", "-c", forbidden])).await;
        assert_ne!(status, 0, "{forbidden}: {out}");
    }
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn cgroups_of_version_one_are_enough() {
    let Some(mut host) = Host::new("cgroups_of_version_one_are_enough").await else {
        return;
    };
    if has_systemd() {
        eprintln!(
            "INNKEEPER-NOT-RUN: cgroups_of_version_one_are_enough: systemd keeps the guests here"
        );
        return;
    }
    let has_one = fs::read_to_string("/proc/self/mounts")
        .expect("mounts")
        .contains(" cgroup rw");
    if !has_one {
        eprintln!(
            "INNKEEPER-NOT-RUN: cgroups_of_version_one_are_enough: this host has only version 2"
        );
        return;
    }
    host.only_version_one = true;
    let units = host.units().await;
    let guest = host.guest(
        "web",
        "trap '' 37; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done",
    );
    let before = host.traces();
    boot(&units, &guest).await;
    assert_eq!(say(&units, &guest, "id -u").await, "0");
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces().difference(&before).next(), None);
}

#[tokio::test]
async fn guests_run_with_each_kind_of_user_ids() {
    use std::os::unix::fs::MetadataExt;
    for user_ids in [UserIds::Host, UserIds::Shifted, UserIds::Mapped] {
        let Some(mut host) = Host::new("guests_run_with_each_kind_of_user_ids").await else {
            return;
        };
        host.config.user_ids = user_ids;
        let units = host.units().await;
        let guest = host.guest("web", "");
        let leader = boot(&units, &guest).await.leader.expect("alive");
        assert_eq!(say(&units, &guest, "touch /made; id -u").await, "0");
        let made = fs::metadata(host.config.root(&guest.name).join("made")).expect("made");
        assert_eq!(made.uid(), user_ids.on_disk(guest.slot, 0), "{user_ids:?}");

        // Without a user namespace, a command must not have more than the guest.
        let capabilities = say(&units, &guest, "grep CapBnd /proc/self/status").await;
        let is_guests = capabilities.ends_with(&proc_status(leader, "CapBnd"));
        assert!(is_guests || user_ids != UserIds::Host, "{capabilities}");
        let write = "echo > /run/host/innkeeper/door/x || echo > /run/host/innkeeper/shim";
        assert_ne!(
            run(&units, &guest, &request(&["sh", "-c", write])).await.0,
            0
        );
        units.remove(&guest.name).await.expect("removed");
    }
}

#[tokio::test]
async fn limits_reach_systemd() {
    if !has_systemd() {
        eprintln!("INNKEEPER-NOT-RUN: limits_reach_systemd: systemd is not PID 1");
        return;
    }
    let Some(host) = Host::new("limits_reach_systemd").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    boot(&units, &guest).await;
    let unit = format!("{}web.service", host.config.unit_prefix);
    let properties = [
        "MemoryMax",
        "MemorySwapMax",
        "TasksMax",
        "CPUQuotaPerSecUSec",
    ];
    let shown = command::command("systemctl")
        .args([
            "show",
            "--value",
            "--property",
            &properties.join(","),
            &unit,
        ])
        .output()
        .await
        .expect("properties");
    let shown = String::from_utf8(shown.stdout).expect("text");
    let shown: BTreeSet<_> = shown.split_whitespace().collect();
    assert_eq!(shown, BTreeSet::from(["268435456", "0", "60", "1.500000s"]));
    units.remove(&guest.name).await.expect("removed");
}
