"""A guest that takes all that it can get has its limits, and nobody else notices.

Needs: device-mapper, limits.
"""

LIMITS = {"MemoryMax": 96 << 20, "TasksMax": 60, "CPUQuotaPerSecUSec": "500ms", "MemorySwapMax": 0}


def in_greedy(script: str) -> tuple[int, str]:
    """Runs a shell script in the guest, which is expected to get into trouble."""
    return machine.execute(f"timeout 240 agent exec greedy -- sh -c '{script}'")


def events(file: str, word: str) -> int:
    """How often the guest came up against a limit, as the kernel counts it."""
    cgroup = machine.get_unit_property(unit("greedy"), "ControlGroup")
    return int(machine.succeed(f"awk '$1 == \"{word}\" {{ print $2 }}' /sys/fs/cgroup{cgroup}/{file}"))


def others_go_on(during: str) -> None:
    """Fails unless the neighbor, the host and the daemon work as before."""
    with subtest(f"others during {during}"):
        is_true("Hello from quiet." in page(quiet["guest_address"]), "the neighbour's page")
        same(machine.succeed("agent exec quiet -- sh -c 'date > /when; sync; echo fine'"), "fine\n", "what it writes")
        same((leader("quiet"), machine.get_unit_property("innkeeperd.service", "MainPID")), before, "processes")
        same({name: view["state"] for name, view in guests().items()}, {"greedy": "running", "quiet": "running"}, "states")
        for name, value in LIMITS.items():
            same(machine.get_unit_property(unit("greedy"), name), str(value), name)


boot()
use_thin_volumes()
quiet = create("quiet")
greedy = create("greedy", options="--memory 96M --cpus 0.5 --tasks 60")
same(greedy["limits"]["tasks"], 60, "what the list shows")
before = (leader("quiet"), machine.get_unit_property("innkeeperd.service", "MainPID"))
others_go_on("nothing")

with subtest("a fork bomb of busy loops"):
    # The outer shell stays, and with it the command: what a command leaves behind ends with it.
    bomb = "(while :; do (while :; do :; done) > /dev/null 2>&1 & done); exec sleep 100000"
    machine.succeed(f"agent exec --detach greedy -- sh -c '{bomb}'")
    cgroup = machine.get_unit_property(unit("greedy"), "ControlGroup")
    reached = "awk '$1 == \"max\" && $2 > 0 { found = 1 } END { exit !found }'"
    machine.wait_until_succeeds(f"{reached} /sys/fs/cgroup{cgroup}/pids.events")
    is_true(50 < int(machine.get_unit_property(unit("greedy"), "TasksCurrent")) <= 60, "it has what it may have")
    others_go_on("a fork bomb")
    # The periods in which it was held back.
    is_true(events("cpu.stat", "nr_throttled") > 0, "it is held back")
    machine.succeed("agent stop greedy", "agent start greedy")
    machine.wait_for_open_port(80, greedy["guest_address"])

with subtest("unbounded memory use"):
    first = leader("greedy")
    killed = events("memory.events", "oom_kill")
    status, _ = in_greedy("word=word; while :; do word=$word$word; done")
    is_true(status != 0, "the program is ended")
    is_true(events("memory.events", "oom_kill") > killed, "by the kernel, for want of memory")
    is_true(guests()["greedy"]["oom_kills"] > 0, "what the list shows")
    is_true("which had used all of its 96M of memory" in machine.succeed("innkeeper events --guest greedy"), "an event")
    same(leader("greedy"), first, "the guest goes on")
    is_true("Hello from greedy." in page(greedy["guest_address"]), "its page")
    others_go_on("want of memory")

with subtest("it fills its disk"):
    status, _ = in_greedy("dd if=/dev/zero of=/big bs=1M")
    is_true(status != 0, "its disk is full")
    size = int(machine.succeed("stat --format=%s /var/lib/innkeeper/guests/greedy/rootfs/big"))
    is_true(size < 256 << 20, f"it got {size} bytes")
    others_go_on("a full disk")
    machine.succeed("agent exec greedy -- rm /big")

with subtest("it fills the journal"):
    free = "df --output=avail --block-size=1 /var/log/journal | tail -n 1"
    had = int(machine.succeed(free))
    machine.succeed("agent exec greedy -- sh -c 'timeout 20 yes > /proc/1/fd/1 || true'", timeout=120)
    is_true(had - int(machine.succeed(free)) < 256 << 20, "the journal grows without end")
    machine.succeed("agent exec quiet -- sh -c 'echo heard > /proc/1/fd/1'")
    machine.wait_until_succeeds("agent logs quiet | grep -qx heard")
    others_go_on("a flood of words")

machine.succeed("agent destroy greedy quiet")
doctor()
