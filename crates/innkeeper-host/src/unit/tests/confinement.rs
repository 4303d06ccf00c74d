//! The confinement of guests.

use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

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

    // A fork loop reaches the limit, also in a command from outside.
    let forks = "i=0; while [ $i -lt 200 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; echo forked them all";
    let (status, out, stderr) = run(
        &units,
        &guest,
        &request(&["sh", "-c", &format!("exec 2>&1; ({forks}) </dev/null")]),
    )
    .await;
    assert!(
        out.contains("can't fork") && !out.contains("forked them all"),
        "{status} {out} {stderr}"
    );
    let count = cgroup::pids(&groups.guest).expect("listed").len();
    assert!(count <= 60, "{count} processes");
    // It can still be removed.
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(host.traces(), BTreeSet::new());
}

#[tokio::test]
async fn guest_has_its_own_users_and_few_capabilities() {
    let Some(host) = Host::new("guest_has_its_own_users_and_few_capabilities").await else {
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
    assert_eq!(shell(&units, &guest, "id -u").await, "0");

    // CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME are never nspawn's; the others are dropped by Innkeeper.
    let bounding = u64::from_str_radix(&proc_status(leader, "CapBnd"), 16).expect("a mask");
    for (number, name) in [
        (16, "SYS_MODULE"),
        (17, "SYS_RAWIO"),
        (25, "SYS_TIME"),
        (9, "LINUX_IMMUTABLE"),
        (26, "SYS_TTY_CONFIG"),
        (27, "MKNOD"),
        (30, "AUDIT_CONTROL"),
        (24, "SYS_RESOURCE"),
    ] {
        assert_eq!(bounding >> number & 1, 0, "CAP_{name}");
    }
    assert_eq!(
        bounding >> 12 & 1,
        1,
        "CAP_NET_ADMIN, over its own network only"
    );
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    // Its network belongs to its own user namespace, so its root may change it, but not the host's.
    assert_eq!(
        shell(
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
    // The store is read-only.
    assert_ne!(
        run(&units, &guest, &request(&["touch", "/nix/store/x"]))
            .await
            .0,
        0
    );
    assert_eq!(host.config.user_ids, UserIds::Mapped);
    units.remove(&guest.name).await.expect("removed");
}

/// Checks each row of the table in docs/security.md, "Commands from outside".
#[tokio::test]
async fn exec_is_confined_as_documented() {
    let Some(host) = Host::new("exec_is_confined_as_documented").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let leader = boot(&units, &guest).await.leader.expect("alive");

    // The same: every namespace, user and limit.
    for kind in ["user", "mnt", "uts", "ipc", "net", "cgroup", "pid"] {
        let own = fs::read_link(format!("/proc/{leader}/ns/{kind}")).expect("a namespace");
        let of_command = shell(&units, &guest, &format!("readlink /proc/self/ns/{kind}")).await;
        assert_eq!(of_command, own.to_string_lossy(), "{kind}");
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
        assert_ne!(own, ours, "{kind}");
    }
    let map = fs::read_to_string(format!("/proc/{leader}/uid_map")).expect("a map");
    assert_eq!(
        shell(&units, &guest, "cat /proc/self/uid_map").await,
        map.trim()
    );
    let status = shell(&units, &guest, "cat /proc/self/status").await;
    let field = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("a field").trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), proc_status(leader, "NoNewPrivs"));

    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(field(set), proc_status(leader, set), "{set}");
    }

    // Different: the filter of system calls.
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    assert_eq!(field("Seccomp"), proc_status(std::process::id(), "Seccomp"));

    // The calls that the filter refuses need a capability over the host.
    for forbidden in [
        "mknod /device c 1 1",
        "mknod /device b 7 0",
        // busybox reports the error and returns 0.
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

/// Allocates kernel objects up to a number, prints how many it got, and keeps them until its input ends:
/// `KIND NUMBER SYSCALL FILE`.
const HOG: &str = r#"
my ($kind, $most, $call, $file) = @ARGV;
my ($count, @held) = (0);
while ($count < $most) {
    if ($kind eq "inotify") {
        last if syscall($call + 0, 0) < 0;
    } elsif ($kind eq "keys") {
        my ($type, $name, $value) = ("user", "innkeeper-test-$count", "x");
        # In the keyring of the process, which ends with it.
        last if syscall($call + 0, $type, $name, $value, 1, -2) < 0;
    } else {
        open(my $terminal, "+<", $file) or last;
        push @held, $terminal;
    }
    $count++;
}
$| = 1;
print "$count\n";
<STDIN>;
"#;

/// A process that holds kernel objects until this is dropped.
struct Hog {
    _process: tokio::process::Child,
    got: u32,
}

impl Hog {
    /// Starts it as the root of the guest with this first process; without one, as the host's.
    async fn start(of: Option<u32>, kind: &str, most: u32) -> Self {
        // add_key and inotify_init1 in the kernel's tables of system calls.
        let call = match (kind, std::env::consts::ARCH) {
            ("keys", "x86_64") => 248,
            ("keys", _) => 217,
            (_, "x86_64") => 294,
            _ => 26,
        };
        let root = of.map_or_else(
            || "/proc/self/root".to_owned(),
            |pid| format!("/proc/{pid}/root"),
        );
        let mut command = command::command(if of.is_some() { "nsenter" } else { "perl" });
        if let Some(pid) = of {
            command.args([
                &format!("--user=/proc/{pid}/ns/user"),
                "--",
                "setpriv",
                "--bounding-set=-sys_resource",
                "perl",
            ]);
        }
        command
            .args(["-e", HOG, kind, &most.to_string(), &call.to_string()])
            .arg(format!("{root}/dev/pts/ptmx"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut process = command.spawn().expect("started");
        let mut stdout = process.stdout.take().expect("an output");
        let mut line = String::new();
        while !line.ends_with('\n') {
            let mut byte = [0];
            assert_ne!(stdout.read(&mut byte).await.expect("read"), 0, "no number");
            line.push(byte[0].into());
        }
        Self {
            _process: process,
            got: line.trim().parse().expect("a number"),
        }
    }
}

/// The kernel charges all guests to the host's root, so only the limits of their namespaces separate them.
#[tokio::test]
async fn shared_kernel_limits_apply_to_each_guest() {
    let test = "shared_kernel_limits_apply_to_each_guest";
    let Some(mut host) = Host::new(test).await else {
        return;
    };
    if find_program("perl".as_ref()).is_err() {
        eprintln!("INNKEEPER-NOT-RUN: {test}: perl is not installed");
        return;
    }
    host.config
        .user_limits
        .iter_mut()
        .filter(|(file, _)| *file == "max_inotify_instances")
        .for_each(|(_, limit)| *limit = 10);
    let units = host.units().await;
    let raise = "mount -o remount,bind,rw /proc/sys; \
         echo 99 > /proc/sys/user/max_inotify_instances; \
         cat /proc/sys/user/max_inotify_instances";
    let script = format!("echo limit $({raise})");
    let (greedy, quiet) = (host.guest("greedy", &script), host.guest("quiet", ""));
    let leader = boot(&units, &greedy).await.leader.expect("alive");
    let neighbor = boot(&units, &quiet).await.leader.expect("alive");

    // Neither its root nor a command from outside or from a nested namespace can raise the limit.
    await_line(&units, &greedy, "limit 10").await;
    let out = run(&units, &greedy, &request(&["sh", "-c", raise])).await.1;
    assert_eq!(out, "10\n");
    let below = format!("unshare -r -m -p -f sh -c '{raise}'");
    run(&units, &greedy, &request(&["sh", "-c", &below])).await;
    let show = "cat /proc/sys/user/max_inotify_instances";
    assert_eq!(shell(&units, &greedy, show).await, "10");
    let set = |text: String| u64::from_str_radix(&text, 16).expect("a mask");
    assert_eq!(set(proc_status(leader, "CapBnd")) >> 24 & 1, 0);

    // At its limits, a neighbor and the host can still allocate. The host's limits must be higher.
    let neighbor = Some(neighbor);
    let quota = fs::read_to_string("/proc/sys/kernel/keys/maxkeys").expect("a quota");
    let quota = quota.trim().parse().expect("a number");
    for (kind, at_limit, of_others) in [
        ("inotify", 10, 10),
        ("keys", quota, 150),
        ("terminals", 512, 10),
    ] {
        let hog = Hog::start(Some(leader), kind, 5000).await;
        assert!(
            (of_others..=at_limit).contains(&hog.got),
            "{kind}: {}",
            hog.got
        );
        for other in [neighbor, None] {
            let other = Hog::start(other, kind, of_others).await;
            assert_eq!(other.got, of_others, "{kind}");
        }
    }

    // Its limit of terminals is below the kernel's, and nspawn's mount options are kept.
    let options = shell(&units, &greedy, "grep ' /dev/pts devpts ' /proc/mounts").await;
    for option in ["max=512", "mode=620", "ptmxmode=666"] {
        assert!(options.contains(option), "{option}: {options}");
    }
    units.remove(&greedy.name).await.expect("removed");
    units.remove(&quiet.name).await.expect("removed");
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
    assert_eq!(shell(&units, &guest, "id -u").await, "0");
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
        assert_eq!(shell(&units, &guest, "touch /made; id -u").await, "0");
        let made = fs::metadata(host.config.root(&guest.name).join("made")).expect("made");
        assert_eq!(made.uid(), user_ids.on_disk(guest.slot, 0), "{user_ids:?}");

        // Without a user namespace, a command must not have more than the guest.
        let capabilities = shell(&units, &guest, "grep CapBnd /proc/self/status").await;
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

/// nspawn opens the file by its path on the host, as root.
#[tokio::test]
async fn hostile_machine_id_cannot_delay_a_start_or_leak() {
    let test = "hostile_machine_id_cannot_delay_a_start_or_leak";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let root = host.config.root(&guest.name);
    let outside = host.config.guests_dir.join("outside");
    fs::create_dir_all(&outside).expect("made");
    let stolen = "0123456789abcdef0123456789abcdef";
    fs::write(outside.join("machine-id"), stolen).expect("written");
    mkfifo(&outside.join("fifo"), Mode::S_IRUSR).expect("made");
    let file = root.join("etc/machine-id");
    let leave: [&dyn Fn(); 4] = [
        &|| {
            for path in ["etc/machine-id", "etc/os-release", "usr/lib/os-release"] {
                fs::create_dir_all(root.join("usr/lib")).expect("made");
                mkfifo(&root.join(path), Mode::S_IRUSR).expect("made");
            }
        },
        &|| symlink(outside.join("fifo"), &file).expect("linked"),
        &|| symlink(outside.join("machine-id"), &file).expect("linked"),
        &|| {
            crate::tree::remove(&root.join("etc")).expect("removed");
            symlink(&outside, root.join("etc")).expect("linked");
        },
    ];
    for leave in leave {
        leave();
        boot(&units, &guest).await;
        let environment = shell(&units, &guest, "cat /proc/1/environ").await;
        assert!(environment.contains("container_uuid="), "{environment}");
        let dashed = environment.replace('-', "");
        assert!(!dashed.contains(stolen), "{environment}");
        units.remove(&guest.name).await.expect("removed");
        assert!(file.symlink_metadata().expect("there").is_file());
        fs::remove_file(&file).expect("removed");
    }
}

/// The guest's own link, as NixOS creates them, is resolved inside the guest.
#[tokio::test]
async fn machine_id_link_of_the_guest_is_kept() {
    let Some(host) = Host::new("machine_id_link_of_the_guest_is_kept").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let root = host.config.root(&guest.name);
    let id = "0123456789abcdef0123456789abcdef";
    fs::write(root.join("var/id"), format!("{id}\n")).expect("written");
    symlink("/var/id", root.join("etc/machine-id")).expect("linked");
    boot(&units, &guest).await;
    let environment = shell(&units, &guest, "cat /proc/1/environ").await;
    assert!(environment.replace('-', "").contains(id), "{environment}");
    units.remove(&guest.name).await.expect("removed");
}
