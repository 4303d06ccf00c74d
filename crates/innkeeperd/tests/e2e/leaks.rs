//! Leak test: two hundred guests are created and destroyed.

use innkeeper_model::api::SlotReport;
use innkeeper_model::{Slot, SlotRange};

use crate::support::{Fixture, Sandbox, closure, wait_until};

const CYCLES: usize = 200;

#[test]
fn two_hundred_create_destroy_cycles_leak_nothing() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    // One cycle first, which creates the objects that are created only once, such as the parent cgroup.
    client.create("web", &closure);
    client.destroy("web");
    let before = sandbox.traces();
    let counter = client.get::<SlotReport>("/v1/slots").counter;
    let files = open_files(daemon.pid());
    for _ in 0..CYCLES {
        client.create("web", &closure);
        client.destroy("web");
    }
    before.assert_same(&sandbox.traces(), "after all cycles");
    let allocated = SlotRange::default()
        .slots()
        .filter(|slot| slot.number() > counter)
        .take(CYCLES);
    assert_eq!(
        Some(client.get::<SlotReport>("/v1/slots").counter),
        allocated.last().map(Slot::number)
    );
    wait_until("the daemon has closed its files", || {
        open_files(daemon.pid()) <= files
    });
    wait_until("the daemon has reaped all children", || {
        children(daemon.pid()).is_empty()
    });
}

/// The daemon's child processes, including zombies. Any of its threads may be the parent.
fn children(pid: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("readable")
        .flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect()
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("readable")
        .count()
}
