"""Guests and their connections survive any end of the daemon.

Needs: nothing.
"""


def main_pid() -> str:
    """Returns the daemon's PID."""
    return machine.get_unit_property("innkeeperd.service", "MainPID")


def require_unchanged(when: str) -> None:
    """Fails unless the guests' processes, units and the open connection are the same as before."""
    wait_until_idle()
    require_equal({name: leader(name) for name in leaders}, leaders, f"the guests' first processes {when}")
    for name in leaders:
        machine.require_unit_state(unit(name))
        require_equal(guest(name)["state"], "running", f"the state of {name} {when}")
    # The connection is the same one: the guest still echoes on it.
    word = when.replace(" ", "-")
    machine.succeed(f"echo {word} > /run/talk.in")
    machine.wait_until_succeeds(f"grep -qx {word} /run/talk.out")
    machine.require_unit_state("talk.service")


boot()
require_equal(machine.get_unit_property("innkeeperd.service", "Type"), "notify", "the unit's type")
machine.require_unit_state("innkeeperd.service")

web = create("web")
create("full", SYSTEMD)
leaders = {name: leader(name) for name in ("web", "full")}

with subtest("a connection into a guest"):
    # An echo server in the guest, and a persistent client: lines written to talk.in appear in talk.out.
    machine.succeed("agent exec --detach web -- nc -ll -p 7 -e cat")
    machine.wait_for_open_port(7, web["guest_address"])
    machine.succeed(
        "mkfifo /run/talk.in",
        f"systemd-run --quiet --unit=talk bash -c 'exec 3<> /dev/tcp/{web['guest_address']}/7 4<> /run/talk.in; "
        "cat <&4 >&3 & exec cat <&3 > /run/talk.out'",
    )
    require_unchanged("at first")
    first = main_pid()

with subtest("restart"):
    machine.succeed("systemctl restart innkeeperd.service")
    require(main_pid() != first, "a new process")
    require_unchanged("after a restart")

with subtest("stop and start"):
    machine.succeed("systemctl stop innkeeperd.service")
    machine.require_unit_state("innkeeperd.service", "inactive")
    machine.require_unit_state(unit("web"))
    page(web["guest_address"])
    machine.succeed("systemctl start innkeeperd.service")
    require_unchanged("after a stop")

with subtest("kill -9"):
    killed = main_pid()
    machine.succeed(f"kill -KILL {killed}")
    # systemd restarts it, and it reports readiness.
    machine.wait_until_succeeds(
        f"test $(systemctl show --value --property=MainPID innkeeperd.service) -ne {killed} && "
        "systemctl is-active innkeeperd.service"
    )
    require_equal(machine.get_unit_property("innkeeperd.service", "NRestarts"), "1", "restarts by systemd")
    require_unchanged("after a kill")

with subtest("the watchdog kills a hanging daemon, and a new one takes over"):
    machine.succeed(
        "mkdir -p /run/systemd/system/innkeeperd.service.d",
        "printf '[Service]\\nWatchdogSec=1s\\nWatchdogSignal=SIGKILL\\n' "
        "> /run/systemd/system/innkeeperd.service.d/hang.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    hanging = main_pid()
    # The absence of a restart can only be checked by waiting: several times the limit.
    machine.succeed("sleep 3")
    require_equal(main_pid(), hanging, "the daemon that feeds the watchdog")
    machine.succeed(f"kill -STOP {hanging}")
    machine.wait_until_succeeds(
        "systemctl show --value --property=Result innkeeperd.service | grep -qx success && "
        f"test $(systemctl show --value --property=MainPID innkeeperd.service) -ne {hanging} && "
        "systemctl is-active innkeeperd.service"
    )
    require_unchanged("after a hang")

with subtest("the daemon still manages earlier guests"):
    machine.succeed("agent exec full -- true")
    machine.succeed("systemctl stop talk.service")
    machine.succeed("agent stop full", "agent start full")
    require_healthy("full")
    machine.succeed("agent destroy web full")
    doctor()
