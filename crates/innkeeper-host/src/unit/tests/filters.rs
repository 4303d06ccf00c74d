//! System call filters: those of a guest are those of nspawn.

use super::super::leader;
use super::super::nspawn::Command;
use super::super::shim::Shim;
use super::*;

/// The filters of a process, in their order, encoded for the shim.
async fn filters_of(host: &Host, pid: u32) -> Vec<u8> {
    let shim = Shim::install(&host.config.runtime_dir).expect("installed");
    let output = command::command(shim.path())
        .args(["filters-of", &pid.to_string()])
        .output()
        .await
        .expect("it runs");
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reason}");
    output.stdout
}

/// Reports whether nspawn, the parent of a guest's first process, was started without filters.
fn is_at_door(leader: u32) -> bool {
    let nspawn = leader::parent(leader).expect("alive");
    let environment = fs::read(format!("/proc/{nspawn}/environ")).expect("an environment");
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == b"SYSTEMD_SECCOMP=0")
}

/// Returns the finding of `innkeeper doctor`.
async fn finding(units: &Arc<dyn Units>) -> String {
    let checks = units.check().await;
    let check = checks
        .into_iter()
        .find(|check| check.subject == "unit: system call filters");
    check.expect("a check").finding
}

/// Reports whether the kernel shows filters to this process.
fn can_read(test: &str) -> bool {
    let can = has_systemd() || proc_status(std::process::id(), "Seccomp") == "0";
    if !can {
        eprintln!("INNKEEPER-NOT-RUN: {test}: this process has a system call filter itself");
    }
    can
}

/// Boots nspawn with the options of a guest's nspawn, its own name and tree, and nothing of Innkeeper's; returns the filters of
/// its first process.
async fn filters_of_bare_nspawn(host: &Host, guest: &Guest, leader: u32) -> Vec<u8> {
    let nspawn = leader::parent(leader).expect("alive");
    let line = fs::read(format!("/proc/{nspawn}/cmdline")).expect("a command line");
    let line = String::from_utf8(line).expect("text");
    let root = host.config.guests_dir.join(format!("bare-{}", guest.name));
    for dir in ["etc", "usr", "root", "nix/store"] {
        fs::create_dir_all(root.join(dir)).expect("made");
    }
    let (machine, directory) = (
        format!("--machine={}", host.config.machine_of("bare")),
        format!("--directory={}", root.display()),
    );
    let mut words: Vec<String> = line
        .split('\0')
        .take_while(|word| *word != "--")
        .filter(|word| !word.contains("/run/host/innkeeper/"))
        .map(|word| match word.split('=').next() {
            Some("--machine") => machine.clone(),
            Some("--directory") => directory.clone(),
            _ => word.to_owned(),
        })
        .collect();
    let script = "until [ -e /stop ]; do sleep 0.05; done";
    let bin = host.closure.as_path().join("bin");
    let sh = bin.join("sh").display().to_string();
    words.extend(["--".to_owned(), sh, "-c".to_owned()]);
    words.push(format!("PATH={}; {script}", bin.display()));
    let command = Command {
        words: words.into_iter().map(Into::into).collect(),
        environment: vec![("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")],
    };
    let direct = host.direct(&host.config);
    let cgroup = host
        .cgroups()
        .machine(&host.config.machine_of("bare"))
        .guest();
    let looking = async {
        let sh = loop {
            // Until it has executed the shell, it installs filters.
            let found = leader::find(&cgroup).ok().flatten();
            let program =
                found.and_then(|leader| fs::read_link(format!("/proc/{}/exe", leader.pid)).ok());
            match found {
                Some(leader) if program.is_some_and(|path| path.ends_with("busybox")) => {
                    break leader.pid;
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let filters = filters_of(host, sh).await;
        fs::write(root.join("stop"), "").expect("written");
        filters
    };
    let (ended, filters) = tokio::join!(direct.run_apart("bare", &command), looking);
    ended.expect("nspawn ended");
    filters
}

#[tokio::test]
async fn guest_has_the_filters_of_bare_nspawn() {
    let test = "guest_has_the_filters_of_bare_nspawn";
    let Some(host) = Host::new(test).await else {
        return;
    };
    if has_systemd() || !can_read(test) {
        return;
    }
    let units = host.units().await;
    let mut all = Vec::new();
    for (name, nesting, kind) in [
        ("web", false, GuestKind::Agent),
        ("nests", true, GuestKind::Agent),
        ("preview", false, GuestKind::Preview),
    ] {
        let mut guest = host.guest(name, "");
        guest.limits.nesting = nesting;
        guest.kind = kind;
        let leader = boot(&units, &guest).await.leader.expect("alive");
        assert!(is_at_door(leader), "{}", finding(&units).await);
        // The same bytes: number, order and instructions.
        let filters = filters_of(&host, leader).await;
        let bare = filters_of_bare_nspawn(&host, &guest, leader).await;
        assert!(
            filters == bare,
            "{name}: {} and {} bytes",
            filters.len(),
            bare.len()
        );
        assert!(filters.len() > 1000, "{name}: {} bytes", filters.len());
        assert_eq!(proc_status(leader, "NoNewPrivs"), "0");
        all.push(filters);
        units.remove(&guest.name).await.expect("removed");
    }
    assert!(all[0] != all[1], "nesting allows more calls");
    assert_eq!(all[0], all[2]);
    assert!(
        finding(&units)
            .await
            .contains("installed at each guest's door")
    );
}

#[tokio::test]
async fn another_daemon_installs_the_filters_of_a_guest_at_the_door() {
    let test = "another_daemon_installs_the_filters_of_a_guest_at_the_door";
    let Some(host) = Host::new(test).await else {
        return;
    };
    if !can_read(test) {
        return;
    }
    let guest = host.guest("web", "");
    let leader = {
        let units = host.units().await;
        let seen = units.ensure(&guest, None).await.expect("at the door");
        seen.leader.expect("alive")
    };
    assert!(is_at_door(leader));
    assert_eq!(proc_status(leader, "Seccomp"), "0", "only the shim runs");
    // The filters in store may be those of another nspawn meanwhile.
    for entry in fs::read_dir(host.config.filters_dir()).expect("listed") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    let units = host.units().await;
    units.ensure(&guest, None).await.expect("at the door");
    units.release(&guest.name, None).await.expect("released");
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn guest_without_its_filters_does_not_start() {
    let test = "guest_without_its_filters_does_not_start";
    let Some(host) = Host::new(test).await else {
        return;
    };
    if !can_read(test) {
        return;
    }
    let units = host.units().await;
    let guest = host.guest("web", "echo init ran");
    units.ensure(&guest, None).await.expect("at the door");
    // As for a daemon of an earlier release, which knows nothing of filters.
    fs::remove_file(host.config.run_dir(&guest.name).filters()).expect("removed");
    let refused = units
        .release(&guest.name, None)
        .await
        .expect_err("no filters");
    assert!(
        refused.to_string().contains("no system call filters"),
        "{refused}"
    );
    assert!(!console(&units, &guest).await.contains("init ran"));
    assert!(finding(&units).await.contains("no system call filters"));
    units.remove(&guest.name).await.expect("removed");
    // The next start does without the door.
    let leader = boot(&units, &guest).await.leader.expect("alive");
    assert!(!is_at_door(leader));
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    units.remove(&guest.name).await.expect("removed");
}

/// The report of one guest decides about all others, so it counts only if the kernel shows the same.
#[tokio::test]
async fn report_of_a_process_with_filters_changes_nothing_for_others() {
    let test = "report_of_a_process_with_filters_changes_nothing_for_others";
    let Some(host) = Host::new(test).await else {
        return;
    };
    if !can_read(test) {
        return;
    }
    let units = host.units().await;
    let guest = host.guest("web", "");
    units.ensure(&guest, None).await.expect("at the door");
    // One filter more, which the kernel rejects: the process has the others, and reports that it has none.
    let file = host.config.run_dir(&guest.name).filters();
    let mut list = fs::read(&file).expect("filters");
    list[0] += 1;
    list.extend(1u32.to_le_bytes());
    list.extend([0xff; 8]);
    fs::write(&file, list).expect("written");
    let refused = units.release(&guest.name, None).await;
    let refused = refused.expect_err("a filter is missing").to_string();
    assert!(refused.contains("cannot install"), "{refused}");
    let finding = finding(&units).await;
    assert!(
        finding.contains("installed at each guest's door"),
        "{finding}"
    );
    units.remove(&guest.name).await.expect("removed");
}

#[tokio::test]
async fn nspawn_compiles_filters_that_the_door_cannot_install() {
    let test = "nspawn_compiles_filters_that_the_door_cannot_install";
    let Some(host) = Host::new(test).await else {
        return;
    };
    let mut config = host.config.clone();
    config.drop_capabilities.push("CAP_SYS_ADMIN".to_owned());
    let units = host.units_with(config).await;
    let guest = host.guest("web", "");
    let leader = boot(&units, &guest).await.leader.expect("alive");
    assert!(!is_at_door(leader));
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    let finding = finding(&units).await;
    assert!(
        finding.contains("CAP_SYS_ADMIN") || !can_read(test),
        "{finding}"
    );
    units.remove(&guest.name).await.expect("removed");
}

/// A guest's `/run` that leads to a program of its own at the shim's path. Unless it is replaced, nspawn fails or executes that.
#[tokio::test]
async fn guest_cannot_replace_its_first_process() {
    let Some(host) = Host::new("guest_cannot_replace_its_first_process").await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", "");
    let root = host.config.root(&guest.name);
    // The guest's root can unmount its `/proc` and write below it. nspawn's `/run` is mounted there; once `/proc` is mounted,
    // the link leads to the guest's own directory.
    for dir in ["proc/self/root/own", "own/host/innkeeper"] {
        fs::create_dir_all(root.join(dir)).expect("made");
    }
    std::os::unix::fs::symlink("proc/self/root/own", root.join("run")).expect("linked");
    let shell = host.closure.as_path().join("bin/sh");
    let program = root.join("own/host/innkeeper/shim");
    fs::write(&program, format!("#!{}\necho > /owned\n", shell.display())).expect("written");
    fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("made executable");
    let leader = boot(&units, &guest).await.leader.expect("alive");
    assert_eq!(proc_status(leader, "Seccomp"), "2");
    assert!(
        !root.join("owned").exists(),
        "the guest's program ran without filters"
    );
    assert!(root.join("run").symlink_metadata().expect("there").is_dir());
    units.remove(&guest.name).await.expect("removed");
}
