"""An administrator's actions on systemd and its bus do not affect guests.

Needs: nothing.
"""


def all_works(when: str) -> None:
    """Fails unless the guests are the same, and the daemon can still do everything with them."""
    machine.wait_for_unit("innkeeperd.service")
    wait_until_quiet()
    for name, view in running.items():
        machine.require_unit_state(unit(name))
        is_true(f"Hello from {name}." in page(view["guest_address"]), f"the page of {name} {when}")
    create("later")
    machine.succeed("agent stop later", "agent start later", "agent exec later -- true", "agent destroy later")
    doctor()
    nothing_left(before)


boot()
running = {"web": create("web"), "full": create("full", SYSTEMD)}
pids = {name: leader(name) for name in running}
create("later")
machine.succeed("agent destroy later")
before = traces()

for command in (
    "systemctl daemon-reload",
    "systemctl daemon-reexec",
    "systemctl restart dbus.service",
    "systemctl restart systemd-machined.service",
    "systemctl restart systemd-journald.service",
    "systemctl restart dbus.service innkeeperd.service",
):
    with subtest(command):
        machine.succeed(command)
        all_works(f"after `{command}`")
        for name, pid in pids.items():
            machine.succeed(f"test -d /proc/{pid}")

with subtest("a guest cannot nest cgroups deeper than the daemon can follow"):
    # A path of more than 4096 bytes is one that nobody can open, and each name can have 255.
    nest = 'while mkdir $(printf %0250d $n) && cd $(printf %0250d $n); do n=$((n + 1)); done 2> /dev/null'
    create("deep", SYSTEMD)
    depth = int(machine.succeed(f"agent exec deep -- sh -c 'cd /sys/fs/cgroup && n=0 && {nest}; echo $n'"))
    is_true(0 < depth < 16, f"{depth} below each other")
    machine.succeed("systemctl restart innkeeperd.service", "agent destroy deep")
    all_works("after these")

with subtest("the console is still in the journal"):
    machine.succeed("agent exec web -- sh -c 'echo still heard > /proc/1/fd/1'")
    machine.wait_until_succeeds("agent logs web | grep -qF 'still heard'")

with subtest("a unit that is stopped from outside starts again"):
    # So does a host that shuts down, after which the guests must come back.
    for _ in range(5):
        for name, view in running.items():
            first = leader(name)
            machine.succeed(f"systemctl stop {unit(name)}")
            machine.wait_until_succeeds(
                f"pid=$(machinectl show --value --property=Leader {name}) && test $pid -ne {first}"
            )
            machine.wait_for_open_port(80, view["guest_address"])
            same(guest(name)["want"], "running", f"what {name} shall be")

with subtest("the same, when systemd remembers the unit for longer"):
    # A unit that names another one keeps it loaded after its end, with the status that its process had.
    first = leader("web")
    number = json.loads(machine.succeed("innkeeper events --json | tail -n 1"))["seq"]
    machine.succeed(
        f"systemd-run --quiet --unit=watcher --property=After={unit('web')} sleep infinity",
        f"systemctl stop {unit('web')}",
    )
    machine.wait_until_succeeds(f"innkeeper events --json --guest web --after {number} | grep .")
    same(guest("web")["want"], "running", "what web shall be")
    machine.succeed("systemctl stop watcher.service")
    machine.wait_until_succeeds(f"pid=$(machinectl show --value --property=Leader web) && test $pid -ne {first}")
    machine.wait_for_open_port(80, running["web"]["guest_address"])

with subtest("the bus is away for a while"):
    machine.succeed("systemctl stop dbus.socket dbus.service")
    is_true("Hello from web." in page(running["web"]["guest_address"]), "a guest goes on")
    machine.succeed("systemctl start dbus.socket dbus.service")
    all_works("after the bus was away")

machine.succeed("agent destroy web full")
doctor()
