"""Guests and their connections outlive the daemon, however it ends.

Needs: nothing.
"""


def main_pid() -> str:
    """The daemon's process."""
    return machine.get_unit_property("innkeeperd.service", "MainPID")


def still_there(when: str) -> None:
    """Fails unless the guests' processes, units and the open connection are the same as before."""
    wait_until_quiet()
    same({name: leader(name) for name in leaders}, leaders, f"the guests' first processes {when}")
    for name in leaders:
        machine.require_unit_state(unit(name))
        same(guest(name)["state"], "running", f"the state of {name} {when}")
    # The connection is the same one: the guest still echoes on it.
    word = when.replace(" ", "-")
    machine.succeed(f"echo {word} > /run/talk.in")
    machine.wait_until_succeeds(f"grep -qx {word} /run/talk.out")
    machine.require_unit_state("talk.service")


boot()
same(machine.get_unit_property("innkeeperd.service", "Type"), "notify", "how the daemon says that it is ready")
machine.require_unit_state("innkeeperd.service")

web = create("web")
create("full", SYSTEMD)
leaders = {name: leader(name) for name in ("web", "full")}

with subtest("a connection into a guest"):
    # An echo in the guest, and a client of it that stays: what is written to talk.in comes back in talk.out.
    machine.succeed("agent exec --detach web -- nc -ll -p 7 -e cat")
    machine.wait_for_open_port(7, web["guest_address"])
    machine.succeed(
        "mkfifo /run/talk.in",
        f"systemd-run --quiet --unit=talk bash -c 'exec 3<> /dev/tcp/{web['guest_address']}/7 4<> /run/talk.in; "
        "cat <&4 >&3 & exec cat <&3 > /run/talk.out'",
    )
    still_there("at first")
    first = main_pid()

with subtest("restart"):
    machine.succeed("systemctl restart innkeeperd.service")
    is_true(main_pid() != first, "there is a new process")
    still_there("after a restart")

with subtest("stop and start"):
    machine.succeed("systemctl stop innkeeperd.service")
    machine.require_unit_state("innkeeperd.service", "inactive")
    machine.require_unit_state(unit("web"))
    page(web["guest_address"])
    machine.succeed("systemctl start innkeeperd.service")
    still_there("after a stop")

with subtest("kill -9"):
    killed = main_pid()
    machine.succeed(f"kill -KILL {killed}")
    # systemd restarts it, and it reports readiness.
    machine.wait_until_succeeds(
        f"test $(systemctl show --value --property=MainPID innkeeperd.service) -ne {killed} && "
        "systemctl is-active innkeeperd.service"
    )
    same(machine.get_unit_property("innkeeperd.service", "NRestarts"), "1", "how often systemd started it again")
    still_there("after a kill")

with subtest("a daemon that hangs is ended by the watchdog, and another one takes over"):
    machine.succeed(
        "mkdir -p /run/systemd/system/innkeeperd.service.d",
        "printf '[Service]\\nWatchdogSec=1s\\nWatchdogSignal=SIGKILL\\n' "
        "> /run/systemd/system/innkeeperd.service.d/hang.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    hanging = main_pid()
    # That nothing happens can only be seen by waiting: several times the limit.
    machine.succeed("sleep 3")
    same(main_pid(), hanging, "the daemon that tells the watchdog that it is alive")
    machine.succeed(f"kill -STOP {hanging}")
    machine.wait_until_succeeds(
        "systemctl show --value --property=Result innkeeperd.service | grep -qx success && "
        f"test $(systemctl show --value --property=MainPID innkeeperd.service) -ne {hanging} && "
        "systemctl is-active innkeeperd.service"
    )
    still_there("after a hang")

with subtest("the daemon still manages earlier guests"):
    machine.succeed("agent exec full -- true")
    machine.succeed("systemctl stop talk.service")
    machine.succeed("agent stop full", "agent start full", "agent destroy web full")
    doctor()
