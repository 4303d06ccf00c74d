"""An administrator's actions on systemd and its bus do not affect guests.

Needs: nothing.
"""


def require_guests_work(when: str) -> None:
    """Fails unless the guests are unchanged and all operations work."""
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    for name, view in running.items():
        machine.require_unit_state(unit(name))
        require(f"Hello from {name}." in page(view["guest_address"]), f"the page of {name} {when}")
    create("later")
    machine.succeed("agent stop later", "agent start later", "agent exec later -- true", "agent destroy later")
    doctor()
    require_no_leaks(before)


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
        require_guests_work(f"after `{command}`")
        for name, pid in pids.items():
            machine.succeed(f"test -d /proc/{pid}")

with subtest("a guest cannot nest cgroups deeper than the daemon can follow"):
    # A path of more than 4096 bytes cannot be opened, and each name can have 255 bytes.
    nest = 'while mkdir $(printf %0250d $n) && cd $(printf %0250d $n); do n=$((n + 1)); done 2> /dev/null'
    create("deep", SYSTEMD)
    depth = int(machine.succeed(f"agent exec deep -- sh -c 'cd /sys/fs/cgroup && n=0 && {nest}; echo $n'"))
    require(0 < depth < 16, f"nesting depth {depth}")
    machine.succeed("systemctl restart innkeeperd.service", "agent destroy deep")
    require_guests_work("after nested cgroups")

with subtest("the console is still in the journal"):
    machine.succeed("agent exec web -- sh -c 'echo still logged > /proc/1/fd/1'")
    machine.wait_until_succeeds("agent logs web | grep -qF 'still logged'")

with subtest("a unit that is stopped externally is restarted"):
    # A shutdown of the host does the same, and the guests must be restored after it.
    for _ in range(5):
        for name, view in running.items():
            first = leader(name)
            machine.succeed(f"systemctl stop {unit(name)}")
            machine.wait_until_succeeds(
                f"pid=$(machinectl show --value --property=Leader {name}) && test $pid -ne {first}"
            )
            machine.wait_for_open_port(80, view["guest_address"])
            require_equal(guest(name)["want"], "running", f"the desired state of {name}")

with subtest("the same while another unit keeps the stopped unit loaded"):
    # A reference from another unit keeps a unit loaded after its end, with the exit status of its process.
    first = leader("web")
    number = json.loads(machine.succeed("innkeeper events --json | tail -n 1"))["seq"]
    machine.succeed(
        f"systemd-run --quiet --unit=watcher --property=After={unit('web')} sleep infinity",
        f"systemctl stop {unit('web')}",
    )
    machine.wait_until_succeeds(f"innkeeper events --json --guest web --after {number} | grep .")
    require_equal(guest("web")["want"], "running", "the desired state of web")
    machine.succeed("systemctl stop watcher.service")
    machine.wait_until_succeeds(f"pid=$(machinectl show --value --property=Leader web) && test $pid -ne {first}")
    machine.wait_for_open_port(80, running["web"]["guest_address"])

with subtest("the bus is stopped for a while"):
    machine.succeed("systemctl stop dbus.socket dbus.service")
    require("Hello from web." in page(running["web"]["guest_address"]), "a guest keeps running")
    machine.succeed("systemctl start dbus.socket dbus.service")
    require_guests_work("after the bus was down")

machine.succeed("agent destroy web full")
doctor()
