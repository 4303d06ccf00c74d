"""An agent from the warm pool is as new, and its systemd is up at once.

Needs: debian-guests.
"""

import json

CONFIG = "/etc/innkeeper/config.toml"


def warm(size: int, kind: str = SYSTEMD) -> None:
    """Configures the pool, and restarts the daemon. 0: no pool."""
    section = f'[pool]\nbusy_percent = 100\n[[pool.warm]]\nflake = "{attribute(kind)}"\nsize = {size}\n' if size else ""
    machine.succeed(
        f"cp {CONFIG}.before {CONFIG} && printf %s {shlex.quote(section)} >> {CONFIG}",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()


def finding() -> str:
    """Returns the finding of doctor about the pool."""
    return machine.succeed("innkeeper doctor --json | jq -r '.checks[] | select(.subject == \"warm pool\") | .finding'").strip()


def wait_until_full(size: int) -> None:
    """Waits until all guests of the pool are ready."""
    machine.wait_until_succeeds(
        "innkeeper doctor --json | "
        f"jq -e '.checks[] | select(.subject == \"warm pool\") | .finding | startswith(\"{size} of {size} \")'"
    )


def seats() -> list[str]:
    """Returns the names of the guests that wait."""
    taken = json.loads(machine.succeed("innkeeper slots --json"))["taken"]
    return sorted(slot["owner"] for slot in taken if slot["owner"].startswith("0-door-"))


def inside(name: str, command: str) -> str:
    """Returns the output of a command in a guest."""
    return machine.succeed(f"agent exec {name} -- {command}").strip()


def take(name: str) -> dict[str, Any]:
    """Creates an agent from the pool, and checks that its systemd was up before."""
    slots = seats()
    machine.succeed(f"agent create {name} --flake '{attribute(SYSTEMD)}'")
    view = guest(name)
    require(f"0-door-{view['slot']}" in slots, f"{name} has slot {view['slot']}, and {slots} waited")
    # Without --wait: it does not start up any more.
    require_equal(inside(name, "systemctl is-system-running"), "running", f"the state of {name}")
    require_healthy(name)
    return view


boot()
machine.succeed(f"cp {CONFIG} {CONFIG}.before", f"agent build '{attribute(SYSTEMD)}'", f"agent build '{attribute(PLAIN)}'")
before = traces()

with subtest("guests wait, and are not listed"):
    warm(2)
    wait_until_full(2)
    require_equal(guests(), {}, "the guests")
    require_equal(len(seats()), 2, "the number of seats")
    for seat in seats():
        machine.fail(f"agent exec {seat} -- true")
    doctor()

with subtest("an agent takes one, with an identity of its own"):
    identities = {}
    for name in ("one", "two", "three"):
        wait_until_full(2)
        view = take(name)
        require_equal(inside(name, "hostname"), name, "the host name")
        require_equal(inside(name, "cat /etc/hostname"), name, "/etc/hostname")
        require(f"127.0.0.2 {name}" in inside(name, "cat /etc/hosts"), "/etc/hosts")
        key = inside(name, "cat /etc/ssh/ssh_host_ed25519_key.pub")
        require_equal(key, f"{view['ssh_host_key']} {name}", "the public host key")
        identities[name] = (inside(name, "cat /etc/machine-id"), key)
    for which in zip(*identities.values(), strict=True):
        require_equal(len(set(which)), 3, f"different ones of {which}")
        require(all(which), "none is empty")

with subtest("the journal of the guest has its name"):
    machine.succeed("agent exec one -- systemctl restart fixture-oneshot.service")
    names = "journalctl --boot --output=json --unit=fixture-oneshot.service"
    machine.wait_until_succeeds(f"agent exec one -- {names} | jq -r ._HOSTNAME | tail -n 1 | grep -qx one")
    require("0-door-" in inside("one", "journalctl --boot --output=json"), "lines of the boot have the former name")
    require("systemd" in machine.succeed("agent logs one"), "the console begins with the boot")

with subtest("the host's tools find it by its name"):
    show = "machinectl show --value --property"
    require_equal(machine.succeed(f"{show}=Unit one").strip(), f"innkeeper-guest-0-door-{guest('one')['slot']}.service", "its unit")
    require_equal(machine.succeed(f"cat /proc/{leader('one')}/comm").strip(), "systemd", "its leader")
    machine.succeed("agent exec one -- sh -c 'mkdir -p /var/log/journal && journalctl --flush'")
    machine.succeed("journalctl --machine=one --output=json --lines=1 | jq -e '._HOSTNAME == \"one\"'")

with subtest("an agent that differs is started as ever"):
    wait_until_full(2)
    waiting = seats()
    create("small", SYSTEMD, "--memory 200M")
    create("plain", PLAIN)
    require_equal(seats(), waiting, "the guests that wait")
    machine.succeed("agent destroy small plain")

with subtest("a killed daemon continues them, and forgets the guests that wait"):
    wait_until_full(2)
    machine.succeed("systemctl kill --signal=KILL innkeeperd.service")
    machine.wait_for_unit("innkeeperd.service")
    wait_until_full(2)
    require_equal(sorted(guests()), ["one", "three", "two"], "the agents")
    for name in guests():
        require_equal(inside(name, "hostname"), name, "the host name")

with subtest("after a restart of its own, an agent has its own names on the host"):
    machine.succeed("agent stop one", "agent start one")
    require_healthy("one")
    machine.require_unit_state(unit("one"))
    require_equal(machine.succeed(f"{show}=Unit one").strip(), unit("one"), "its unit")
    require_equal(inside("one", "hostname"), "one", "the host name")

with subtest("another pool replaces it, and without one nothing is left"):
    warm(1, PLAIN)
    wait_until_full(1)
    machine.succeed(f"agent create web --flake '{attribute(PLAIN)}'")
    require_equal(inside("web", "hostname"), "web", "the host name")
    machine.wait_for_open_port(80, guest("web")["guest_address"])
    warm(0)
    machine.succeed("agent destroy one two three web")
    machine.wait_until_succeeds("innkeeper slots --json | jq -e '.taken == []'")
    doctor()
    require_no_leaks(before)
