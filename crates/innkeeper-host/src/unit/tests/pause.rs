//! Paused guests, with the freezers of both versions.

use super::*;

/// Counts in a file, as often as the guest gets the processor.
const COUNT_UP: &str =
    "(while :; do n=$((n + 1)); echo $n > /tmp/count.new; mv /tmp/count.new /tmp/count; done) &";

/// Returns how far a guest has counted.
fn count(guest: &UnitSeen) -> Option<u64> {
    let leader = guest.leader.expect("a first process");
    let file = format!("/proc/{leader}/root/tmp/count");
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Waits until a guest has counted further than `from`.
async fn counted(guest: &UnitSeen, from: Option<u64>) {
    while count(guest) <= from {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn is_frozen(units: &Arc<dyn Units>, guest: &Guest) -> bool {
    let seen = units.phase(&guest.name).await.expect("a look");
    let seen = seen.expect("there");
    assert_eq!(seen.phase, UnitPhase::Running);
    seen.frozen
}

async fn for_both_versions(test: &str, check: impl AsyncFn(&Host)) {
    let Some(mut host) = Host::new(test).await else {
        return;
    };
    check(&host).await;
    if has_systemd() || !Path::new("/sys/fs/cgroup/freezer").is_dir() {
        eprintln!("INNKEEPER-NOT-RUN: {test}: no freezer of version 1 for guests");
        return;
    }
    host.only_version_one = true;
    check(&host).await;
}

#[tokio::test]
async fn paused_guest_does_nothing_until_it_continues() {
    for_both_versions(
        "paused_guest_does_nothing_until_it_continues",
        async |host| {
            let units = host.units().await;
            let guest = host.guest("web", COUNT_UP);
            let seen = boot(&units, &guest).await;
            counted(&seen, None).await;
            assert!(!is_frozen(&units, &guest).await);
            // The commands of sessions, in cgroups of their own, stop too.
            let mut session = units
                .exec(&guest.name, &request(&["cat"]))
                .await
                .expect("runs");

            assert!(
                units.freeze(&guest.name).await.expect("freezes"),
                "it cannot"
            );
            assert!(is_frozen(&units, &guest).await);
            let frozen_at = count(&seen);
            let pids = cgroup::pids(&host.groups(&guest).await.guest).expect("a list");
            for pid in &pids {
                assert!(!proc_status(*pid, "State").starts_with('R'), "{pid} runs");
            }
            assert!(units.freeze(&guest.name).await.expect("frozen already"));
            assert_eq!(count(&seen), frozen_at);

            units.thaw(&guest.name).await.expect("continues");
            assert!(!is_frozen(&units, &guest).await);
            counted(&seen, frozen_at).await;
            drop(session.stdin.take());
            assert_eq!(session.command.wait().await.expect("a status"), 0);
            units.thaw(&guest.name).await.expect("no effect");

            // The next daemon finds it as it is.
            units.freeze(&guest.name).await.expect("freezes");
            let units = host.units().await;
            assert!(is_frozen(&units, &guest).await);
            units.remove(&guest.name).await.expect("removed");
            units.thaw(&guest.name).await.expect("no effect");
            assert!(!units.freeze(&guest.name).await.expect("nothing to freeze"));
        },
    )
    .await;
}

#[tokio::test]
async fn paused_guest_shuts_down_like_any_other() {
    for_both_versions("paused_guest_shuts_down_like_any_other", async |host| {
        let units = host.units().await;
        let guest = host.guest("web", COUNT_UP);
        let seen = boot(&units, &guest).await;
        counted(&seen, None).await;
        units.freeze(&guest.name).await.expect("freezes");
        units.stop(&guest.name).await.expect("stopped");
        assert_eq!(phase(&units, &guest).await, Some(UnitPhase::Exited(0)));
        assert!(console(&units, &guest).await.contains("shutting down"));
        units.remove(&guest.name).await.expect("removed");
    })
    .await;
}

#[tokio::test]
async fn paused_guest_is_removed_without_a_trace() {
    for_both_versions("paused_guest_is_removed_without_a_trace", async |host| {
        let units = host.units().await;
        let guest = host.guest("web", &format!("trap '' 37; {COUNT_UP}"));
        let before = host.traces();
        let seen = boot(&units, &guest).await;
        counted(&seen, None).await;
        units.freeze(&guest.name).await.expect("freezes");
        units.remove(&guest.name).await.expect("removed");
        assert_eq!(host.traces().difference(&before).next(), None);
    })
    .await;
}

#[tokio::test]
async fn command_that_ends_while_its_guest_is_paused_leaves_nothing_behind() {
    for_both_versions(
        "command_that_ends_while_its_guest_is_paused_leaves_nothing_behind",
        async |host| {
            let units = host.units().await;
            let guest = host.guest("web", COUNT_UP);
            boot(&units, &guest).await;
            let session = units
                .exec(&guest.name, &request(&["cat"]))
                .await
                .expect("runs");
            let parents = host.groups(&guest).await.exec;
            let commands = || {
                let dirs = parents.iter().filter_map(|dir| fs::read_dir(dir).ok());
                dirs.flatten()
                    .flatten()
                    .filter(|entry| entry.path().is_dir())
                    .count()
            };
            assert_ne!(commands(), 0);
            units.freeze(&guest.name).await.expect("freezes");
            drop(session);
            units.thaw(&guest.name).await.expect("continues");
            while commands() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            units.remove(&guest.name).await.expect("removed");
        },
    )
    .await;
}

/// Fills the guest's part of the file cache.
const FILL_CACHE: &str =
    "dd if=/dev/zero of=/cached bs=1M count=48 2> /dev/null; sync; touch /tmp/filled; sleep 1000 &";

#[tokio::test]
async fn memory_of_a_paused_guest_is_reclaimed() {
    const TEST: &str = "memory_of_a_paused_guest_is_reclaimed";
    let Some(host) = Host::new(TEST).await else {
        return;
    };
    let units = host.units().await;
    let guest = host.guest("web", FILL_CACHE);
    let seen = boot(&units, &guest).await;
    let leader = seen.leader.expect("a first process");
    while !Path::new(&format!("/proc/{leader}/root/tmp/filled")).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let groups = host.groups(&guest).await;
    if !cgroup::can_reclaim(&groups.memory) {
        eprintln!(
            "INNKEEPER-NOT-RUN: {TEST}: no controller for the memory of guests that can reclaim"
        );
        units.remove(&guest.name).await.expect("removed");
        return;
    }
    let reclaim = async || units.reclaim(&guest.name).await.expect("no error");
    assert_eq!(reclaim().await, Some(0), "a running guest keeps its memory");
    units.freeze(&guest.name).await.expect("freezes");
    let freed = reclaim().await.expect("the kernel can");
    assert!(freed > 24 << 20, "{freed}");
    units.thaw(&guest.name).await.expect("continues");
    // The limits are as before.
    let swap = fs::read_to_string(groups.memory.join("memory.swap.max"));
    assert!(swap.is_err() || swap.is_ok_and(|limit| limit.trim() == "0"));
    units.remove(&guest.name).await.expect("removed");
    assert_eq!(reclaim().await, None, "it is gone");
}
