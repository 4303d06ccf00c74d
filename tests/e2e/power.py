"""A guest can power itself off and reboot itself; one that dies is restarted.

Needs: nothing.
"""

OFF = {PLAIN: "poweroff -f", SYSTEMD: "systemctl poweroff"}
AGAIN = {PLAIN: "reboot -f", SYSTEMD: "systemctl reboot"}


def wait_for_restart(name: str, address: str, first: int) -> None:
    """Waits until the guest has another first process and answers at the same address."""
    machine.wait_until_succeeds(
        f"pid=$(machinectl show --value --property=Leader {name}) && test $pid -ne {first}"
    )
    wait_for_state(name, "running")
    machine.wait_for_open_port(80, address)
    machine.require_unit_state(unit(name))


boot()
create("web")
machine.succeed("agent destroy web")
before = traces()

for kind in (PLAIN, SYSTEMD):
    web = create("web", kind)
    address = web["guest_address"]

    with subtest(f"{kind}: it reboots"):
        first = leader("web")
        # The command goes down with the guest.
        machine.execute(f"timeout 20 agent exec web -- {AGAIN[kind]}")
        wait_for_restart("web", address, first)

    with subtest(f"{kind}: it powers itself off"):
        machine.execute(f"timeout 20 agent exec web -- {OFF[kind]}")
        wait_for_state("web", "stopped")
        machine.fail("machinectl show web")
        machine.succeed("systemctl restart innkeeperd.service")
        wait_until_idle()
        require_equal(guest("web")["state"], "stopped", "after a restart of the daemon")
        doctor()

    with subtest(f"{kind}: it is started again"):
        machine.succeed("agent start web")
        machine.wait_for_open_port(80, address)

    if kind == SYSTEMD:
        with subtest("a guest powers off while the daemon is down"):
            machine.succeed("systemctl stop innkeeperd.service", "machinectl poweroff web")
            machine.wait_until_fails("machinectl show web")
            machine.succeed("systemctl start innkeeperd.service")
            wait_for_state("web", "stopped")
            wait_until_idle()
            require_equal(guest("web")["want"], "stopped", "its desired state")
            machine.succeed("agent start web")
            machine.wait_for_open_port(80, address)

    with subtest(f"{kind}: its first process dies, which is a fault"):
        first = leader("web")
        machine.succeed(f"kill -KILL {first}")
        wait_for_restart("web", address, first)
        doctor()

    machine.succeed("agent destroy web")
    require_no_leaks(before)
doctor()
