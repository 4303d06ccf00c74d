"""A running agent changes to another closure in place, by a restart, and not at all if it does not come up.

Needs: debian-guests.
"""


def system(name: str) -> str:
    """Returns the closure that a guest runs."""
    return machine.succeed(f"agent exec {name} -- readlink /run/current-system").strip()


def change(name: str, kind: str, outcome: str) -> None:
    """Changes an agent to another closure, and checks the outcome."""
    machine.succeed(f"agent set {name} --flake '{attribute(kind)}'")
    view = guest(name)
    require_equal(view["last_change"]["outcome"], outcome, f"the outcome of {kind}")
    require_equal(system(name), view["closure"], f"the system of {name}")
    require(view["closure"].endswith(f"agent-{kind}"), f"the closure of {name}: {view['closure']}")


def refuse(name: str, kind: str, code: str) -> None:
    """Changes an agent to a closure with which it does not come up, and checks that it runs its former one."""
    former = system(name)
    status, output = machine.execute(f"agent set {name} --flake '{attribute(kind)}' --json 2>&1")
    require(status == 7 and f'"code":"{code}"' in output, f"the failure of {kind}: {status}, {output}")
    view = guest(name)
    require_equal(view["last_change"]["outcome"], "rolled_back", f"the outcome of {kind}")
    require_equal((view["closure"], system(name)), (former, former), f"the closure of {name}")
    require(code in machine.succeed(f"agent show {name}"), "the failure in `agent show`")


def apply(agents: dict[str, object], remove: bool = False, status: int = 0) -> dict[str, str]:
    """Applies a declaration of agents. Returns the action for each."""
    text = json.dumps({"agents": agents, "removeUndeclared": remove})
    found, output = machine.execute(
        f"echo {shlex.quote(text)} > /run/agents.json && innkeeper --json apply /run/agents.json 2> /run/failures"
    )
    require_equal(found, status, f"the exit status: {output} {machine.succeed('cat /run/failures')}")
    return {applied["name"]: applied["action"] for applied in json.loads(output)}


boot()
before = traces()

with subtest("a system with systemd switches in place"):
    address = create("web", SYSTEMD)["guest_address"]
    machine.succeed("agent exec web -- touch /root/kept")
    pid = leader("web")
    change("web", "systemd-next", "switched")
    require_healthy("web")
    machine.succeed("agent exec web -- test -e /run/next -a -e /root/kept")
    require_equal(leader("web"), pid, "the first process")

with subtest("a system with a unit that fails is switched back in place"):
    refuse("web", "systemd-broken", "guest_unhealthy")
    require_healthy("web")
    require_equal(leader("web"), pid, "the first process")

with subtest("a system that cannot take over is booted"):
    change("web", "systemd-restart", "restarted")
    require_healthy("web")
    require(leader("web") != pid, "it was not restarted")
    require_equal(guest("web")["guest_address"], address, "the address")
    machine.succeed("agent exec web -- test -e /root/kept")

with subtest("a closure whose init exits is replaced by the former one"):
    refuse("web", "agent-broken", "guest_unhealthy")
    require_healthy("web")

with subtest("other limits, and a change that is none"):
    machine.succeed("agent set web --memory 300M")
    require_equal(guest("web")["limits"]["memory"], "300M", "the limit")
    pid = leader("web")
    machine.succeed("agent set web --memory 300M | grep -F 'is unchanged'")
    require_equal(leader("web"), pid, "the first process")

with subtest("declared agents"):
    own = apply({"declared": {"flake": attribute(PLAIN), "memory": "128M"}, "web": {"memory": "1G"}}, status=4)
    require_equal(own, {"declared": "create", "web": "keep"}, "the actions")
    require_equal(guest("web")["limits"]["memory"], "300M", "the limit of an agent created by hand")
    require_equal(apply({"declared": {"flake": attribute("agent-next")}}), {"declared": "set"}, "the actions")
    require(guest("declared")["closure"].endswith("agent-next"), "the closure of a declared agent")
    pid = leader("declared")
    require_equal(apply({"declared": {"flake": attribute("agent-next")}}), {"declared": "set"}, "the actions")
    require_equal(leader("declared"), pid, "the first process of an agent that is as declared")
    require_equal(apply({}), {}, "the actions")
    require_equal(apply({}, remove=True), {"declared": "destroy"}, "the actions")
    require_equal(set(guests()), {"web"}, "the agents that are left")

machine.succeed("agent destroy --now web")
doctor()
require_no_leaks(before)
