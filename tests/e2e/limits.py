"""A guest that exhausts its limits does not affect others.

Needs: device-mapper, limits.
"""

LIMITS = {"MemoryMax": 96 << 20, "TasksMax": 60, "CPUQuotaPerSecUSec": "500ms", "MemorySwapMax": 0}


def in_greedy(script: str) -> tuple[int, str]:
    """Runs a shell script in the guest, which is expected to fail."""
    return machine.execute(f"timeout 240 agent exec greedy -- sh -c '{script}'")


def events(file: str, word: str) -> int:
    """Returns the kernel's count of a limit's events in the guest."""
    cgroup = machine.get_unit_property(unit("greedy"), "ControlGroup")
    return int(machine.succeed(f"awk '$1 == \"{word}\" {{ print $2 }}' /sys/fs/cgroup{cgroup}/{file}"))


def require_others_unaffected(during: str) -> None:
    """Fails unless the neighbor, the host and the daemon work as before."""
    with subtest(f"others during {during}"):
        require("Hello from quiet." in page(quiet["guest_address"]), "the neighbor's page")
        require_equal(machine.succeed("agent exec quiet -- sh -c 'date > /when; sync; echo fine'"), "fine\n", "the output of a command")
        require_equal((leader("quiet"), machine.get_unit_property("innkeeperd.service", "MainPID")), before, "processes")
        require_equal({name: view["state"] for name, view in guests().items()}, {"greedy": "running", "quiet": "running"}, "states")
        for name, value in LIMITS.items():
            require_equal(machine.get_unit_property(unit("greedy"), name), str(value), name)


boot()
use_thin_volumes()
quiet = create("quiet")
greedy = create("greedy", options="--memory 96M --cpus 0.5 --tasks 60")
require_equal(greedy["limits"]["tasks"], 60, "the list's fields")
before = (leader("quiet"), machine.get_unit_property("innkeeperd.service", "MainPID"))
require_others_unaffected("nothing")

with subtest("a fork bomb of busy loops"):
    # The outer shell stays, because the processes of a command end with it.
    bomb = "(while :; do (while :; do :; done) > /dev/null 2>&1 & done); exec sleep 100000"
    machine.succeed(f"agent exec --detach greedy -- sh -c '{bomb}'")
    cgroup = machine.get_unit_property(unit("greedy"), "ControlGroup")
    reached = "awk '$1 == \"max\" && $2 > 0 { found = 1 } END { exit !found }'"
    machine.wait_until_succeeds(f"{reached} /sys/fs/cgroup{cgroup}/pids.events")
    require(50 < int(machine.get_unit_property(unit("greedy"), "TasksCurrent")) <= 60, "it has reached its limit")
    require_others_unaffected("a fork bomb")
    # The number of throttled periods.
    require(events("cpu.stat", "nr_throttled") > 0, "it is throttled")
    machine.succeed("agent stop greedy", "agent start greedy")
    machine.wait_for_open_port(80, greedy["guest_address"])

with subtest("unbounded memory use"):
    first = leader("greedy")
    killed = events("memory.events", "oom_kill")
    status, _ = in_greedy("word=word; while :; do word=$word$word; done")
    require(status != 0, "the program was killed")
    require(events("memory.events", "oom_kill") > killed, "by the kernel, for lack of memory")
    require(guests()["greedy"]["oom_kills"] > 0, "the list's fields")
    require("which had used all of its 96M of memory" in machine.succeed("innkeeper events --guest greedy"), "an event")
    require_equal(leader("greedy"), first, "the guest keeps running")
    require("Hello from greedy." in page(greedy["guest_address"]), "its page")
    require_others_unaffected("a lack of memory")

with subtest("it fills its disk"):
    status, _ = in_greedy("dd if=/dev/zero of=/big bs=1M")
    require(status != 0, "its disk is full")
    size = int(machine.succeed("stat --format=%s /var/lib/innkeeper/guests/greedy/rootfs/big"))
    require(size < 256 << 20, f"it got {size} bytes")
    require_others_unaffected("a full disk")
    machine.succeed("agent exec greedy -- rm /big")

with subtest("it fills the journal"):
    free = "df --output=avail --block-size=1 /var/log/journal | tail -n 1"
    had = int(machine.succeed(free))
    machine.succeed("agent exec greedy -- sh -c 'timeout 20 yes > /proc/1/fd/1 || true'", timeout=120)
    require(had - int(machine.succeed(free)) < 256 << 20, "the journal's growth is limited")
    machine.succeed("agent exec quiet -- sh -c 'echo logged > /proc/1/fd/1'")
    machine.wait_until_succeeds("agent logs quiet | grep -qx logged")
    require_others_unaffected("a flood of log lines")

machine.succeed("agent destroy greedy quiet")
doctor()
