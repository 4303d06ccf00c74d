"""Words that all scenarios share. It is executed before each of them, in the same namespace.

What a scenario finds there besides: `machine`, a host with the method names of the NixOS test driver, on
which innkeeperd is installed as a unit, and /opt/innkeeper/guests, the flake of tests/fixtures; `subtest`.
"""

import json
from typing import Any

# Two kinds of guests. Process 1 is a shell script in the one, and systemd in the other.
PLAIN, SYSTEMD = "agent", "systemd"


def is_true(condition: object, what: str) -> None:
    """Fails with a reason unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def same(found: object, wanted: object, what: str) -> None:
    """Fails with both sides when they differ."""
    is_true(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def boot() -> None:
    """Boots the host and waits for the daemon."""
    machine.start()
    machine.wait_for_unit("innkeeperd.service")


def attribute(kind: str) -> str:
    """The flake output of a kind of guest."""
    return f"path:/opt/innkeeper/guests#{kind}"


def create(name: str, kind: str = PLAIN, options: str = "") -> dict[str, Any]:
    """Creates a guest and waits until its web server answers."""
    machine.succeed(f"agent create {name} --flake '{attribute(kind)}' --wait --wait-port 80 {options}")
    return guest(name)


def guests() -> dict[str, dict[str, Any]]:
    """All guests as the daemon sees them, by name."""
    return {view["name"]: view for view in json.loads(machine.succeed("agent list --json"))}


def guest(name: str) -> dict[str, Any]:
    """One guest as the daemon sees it."""
    return guests()[name]


def unit(name: str) -> str:
    """The unit that is a guest."""
    return f"innkeeper-guest-{name}.service"


def page(address: str) -> str:
    """What a guest's web server answers."""
    return machine.succeed(f"curl --silent --fail --max-time 10 http://{address}/")


def wait_for_state(name: str, state: str) -> None:
    """Waits until a guest is in a state."""
    machine.wait_until_succeeds(
        f"agent list --json | jq -e '.[] | select(.name == \"{name}\") | .state == \"{state}\"'"
    )


def wait_until_quiet() -> None:
    """Waits until the daemon answers and has nothing left to do."""
    machine.wait_until_succeeds(
        "innkeeper status --json | jq -e '.operations == []' && "
        "agent list --json | jq -e 'all(.[]; .state == \"running\" or .state == \"stopped\")'"
    )


def leader(name: str) -> int:
    """The guest's process 1, as machined knows it."""
    return int(machine.succeed(f"machinectl show --value --property=Leader {name}"))


def doctor() -> None:
    """Fails unless doctor finds nothing broken and nothing left over."""
    report = json.loads(machine.succeed("innkeeper doctor --json"))
    broken = [check for check in report["checks"] if check["verdict"] == "broken"]
    same(broken, [], "what doctor finds broken")
    orphans = json.loads(machine.succeed("innkeeper gc --dry-run --json"))["orphans"]
    same(orphans, [], "what belongs to no guest")


def traces() -> set[str]:
    """Everything on the host that a guest consists of, or that could be left over, as the host shows it."""
    return set(
        machine.succeed(
            """
            ip -json link | jq -r '.[] | "interface \\(.ifname)"'
            ip -json route | jq -r '.[] | "route \\(.dst)"'
            nft --json list ruleset | jq -c '.nftables[] | select(.rule or .element or .set) | del(.. | .handle?)'
            cut -d ' ' -f 5 /proc/1/mountinfo | sed 's/^/mount /'
            find /sys/fs/cgroup -type d -path '*innkeeper*guest*' | sed 's/^/cgroup /'
            busctl --json=short call org.freedesktop.machine1 /org/freedesktop/machine1 \
              org.freedesktop.machine1.Manager ListMachines | jq -r '.data[0][] | "machine \\(.[0])"'
            busctl --json=short call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
              org.freedesktop.systemd1.Manager ListUnitsByPatterns asas 0 1 'innkeeper-guest-*' |
              jq -r '.data[0][] | "unit \\(.[0])"'
            find /var/lib/innkeeper/guests /run/innkeeper/guests /run/systemd/nspawn /run/systemd/machines \
              -mindepth 1 2> /dev/null | grep -v '^/run/systemd/nspawn/\\(propagate\\|locks\\|unix-export\\)$' | sed 's/^/file /' || true
            find /nix/var/nix/gcroots/innkeeper -type l 2> /dev/null | sed 's/^/gc root /' || true
            pgrep --list-full systemd-nspawn | cut -d ' ' -f 2- | sed 's/^/process /' || true
            """
        ).splitlines()
    )


def nothing_left(before: set[str]) -> None:
    """Fails when there is something now that was not there before, or the other way round."""
    now = traces()
    same(sorted(now - before), [], "left over")
    same(sorted(before - now), [], "lost")
