"""Guests are paused and put to sleep, and woken.

Needs: nothing.
"""

import json


def show(name: str) -> tuple[str, str]:
    """Returns the level and the state of a guest."""
    view = guest(name)
    return view["level"], view["state"]


boot()
before = traces()
web = create("web")
create("full", SYSTEMD)
for name in ("web", "full"):
    machine.succeed(f"agent exec {name} -- sh -c 'echo {name} was here > /var/www/index.html'")
leaders = {name: leader(name) for name in ("web", "full")}

with subtest("paused: the processes are frozen"):
    machine.succeed("agent pause web", "agent pause full")
    for name in ("web", "full"):
        require_equal(show(name), ("paused", "paused"), f"the level and the state of {name}")
    doctor()

with subtest("a new daemon leaves them frozen"):
    machine.succeed("systemctl kill --signal=KILL innkeeperd.service")
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    require_equal({name: show(name) for name in leaders}, dict.fromkeys(leaders, ("paused", "paused")), "the levels")
    doctor()

with subtest("a policy of its own, and a keepalive"):
    machine.succeed("agent set full --idle always-on", "agent keepalive full --for 1h")
    report = json.loads(machine.succeed("agent explain full --json"))
    require_equal(report["idle_policy"], "always_on", "the policy of full")
    require_equal(report["state"], "running", "a keepalive wakes")
    if not 3500 < report["keepalive_seconds"] <= 3600:
        raise AssertionError(f"the keepalive lasts {report['keepalive_seconds']} s")
    machine.succeed("agent explain full | grep -q 'Kept awake by: its idle policy is always-on'")
    machine.fail("agent keepalive full --for 25h")
    machine.succeed("agent keepalive full --for 0s", "agent set full --idle pause", "agent pause full")

with subtest("woken by a request or a command: the same processes answer"):
    require_equal(page(guest("web")["guest_address"]), "web was here\n", "the page of a paused guest")
    machine.succeed("agent exec full -- true")
    address = guest("full")["guest_address"]
    for name in ("web", "full"):
        machine.wait_until_succeeds(f"agent show {name} --json | jq -e '.level == \"awake\"'")
        require_equal(show(name), ("awake", "running"), f"the level and the state of {name}")
    require_equal({name: leader(name) for name in leaders}, leaders, "the guests' first processes")
    require_healthy("full")

with subtest("asleep: no processes, and all else is kept"):
    machine.succeed("agent pause full", "agent sleep web", "agent sleep full")
    for name in ("web", "full"):
        require_equal(show(name), ("asleep", "asleep"), f"the level and the state of {name}")
        machine.fail(f"machinectl show {name}")
    # It was shut down in order, although it was frozen.
    require("Reached target" in machine.succeed("agent logs full"), "the console of the shutdown")
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_idle()
    require_equal(show("web"), ("asleep", "asleep"), "the level after a restart of the daemon")
    doctor()
    machine.succeed("agent wake web", "agent exec full -- true")
    for name in ("web", "full"):
        require_equal(guest(name)["guest_address"], web["guest_address"] if name == "web" else address, "the address")
        machine.wait_for_open_port(80, guest(name)["guest_address"])
        require_equal(page(guest(name)["guest_address"]), f"{name} was here\n", f"the page of {name}")
    doctor()

with subtest("asleep: the first packet of a connection wakes it, and the connection waits"):
    pages = {"web": "web was here\n", "full": "full was here\n"}
    addresses = {name: guest(name)["guest_address"] for name in pages}
    for name, text in pages.items():
        machine.succeed(f"agent sleep {name}")
        # An echo request does not wake it.
        machine.fail(f"ping -c 1 -W 1 {addresses[name]}")
        require_equal(show(name), ("asleep", "asleep"), f"the level and the state of {name} after a ping")
        require_equal(machine.succeed(f"curl --silent --max-time 120 http://{addresses[name]}/"), text, f"the page of {name}")
        machine.wait_until_succeeds(f"agent show {name} --json | jq -e '.level == \"awake\"'")
    require_healthy("full")

with subtest("asleep: a datagram wakes it, and a scan wakes it once; without a daemon, at its next start"):
    machine.succeed("agent sleep web", "systemctl stop innkeeperd.service")
    for port in range(1, 40):
        machine.succeed(f"echo x > /dev/udp/{addresses['web']}/{port}")
    machine.succeed("systemctl start innkeeperd.service")
    machine.wait_until_succeeds("agent show web --json | jq -e '.level == \"awake\"'")
    machine.wait_for_open_port(80, addresses["web"])
    doctor()

with subtest("stopped and destroyed while they are paused"):
    machine.succeed("agent pause web", "agent stop web", "agent pause full")
    require_equal(show("web"), ("awake", "stopped"), "the level and the state of a stopped guest")
    machine.fail("agent wake web", "agent pause web")
    machine.succeed("agent start web", "agent pause web", "agent destroy --now web full")
    require_no_leaks(before)

with subtest("a reboot: who rested is asleep"):
    create("web")
    create("full", SYSTEMD)
    create("awake")
    machine.succeed("agent pause web", "agent sleep full")
    machine.shutdown()
    machine.start()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    require_equal(show("awake"), ("awake", "running"), "the guest that was awake")
    for name in ("web", "full"):
        require_equal(show(name), ("asleep", "asleep"), f"the level and the state of {name}")
    machine.succeed("agent wake web")
    machine.wait_for_open_port(80, guest("web")["guest_address"])
    doctor()
