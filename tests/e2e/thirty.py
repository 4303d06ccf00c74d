"""Thirty guests are restored after a reboot, a few at a time, with the routes and databases of previews.

Needs: previews.
"""

AGENTS = [f"agent-{number}" for number in range(1, 27)]
PREVIEWS = [f"web-{number}" for number in range(1, 5)]


def all_guests() -> dict[str, dict[str, Any]]:
    """Returns agents and guests of previews, by name."""
    answer = machine.succeed("curl --silent --fail --unix-socket /run/innkeeper/api.sock http://localhost/v1/guests")
    return {view["name"]: view for view in json.loads(answer)}


def persistent_state() -> dict[str, object]:
    """Returns the state that must survive the reboot."""
    return {
        name: [view[field] for field in ("state", "slot", "guest_address", "host_address", "interface", "closure")]
        for name, view in all_guests().items()
    }


def pages() -> list[str]:
    """Returns the agents' responses in order; the requests run concurrently."""
    views = all_guests()
    targets = " ".join(f"{name}={views[name]['guest_address']}" for name in AGENTS)
    return machine.succeed(
        f"for agent in {targets}; do curl --silent --fail --retry 20 --retry-connrefused --retry-delay 1 "
        "--output /run/page-${agent%%=*} http://${agent#*=}/ & done; wait; "
        f"for agent in {' '.join(AGENTS)}; do cat /run/page-$agent; done"
    ).splitlines()


def most_at_once(after: int) -> int:
    """Returns the largest number of guests that were starting at the same time, from the events after a given one."""
    changes = {("step_started", "ensure-unit"): 1, ("step_done", "release"): -1}
    starting = most = 0
    for line in machine.succeed(f"innkeeper events --json --after {after}").splitlines():
        event = json.loads(line)
        starting += changes.get((event["event"], event.get("step")), 0)
        most = max(most, starting)
    return most


boot_with_previews()
with subtest("thirty guests"):
    machine.succeed(f"agent build '{attribute(PLAIN)}'")
    for name in AGENTS:
        machine.succeed(f"agent create {name} --flake '{attribute(PLAIN)}'")
    shas = {slug: commit(f"branch-{slug}", app()) for slug in PREVIEWS}
    for number, slug in enumerate(PREVIEWS, start=1):
        deliver_event(number, f"branch-{slug}", "opened")
    for slug, sha in shas.items():
        wait_for_preview(slug, "live", sha)
        query_as_app(slug, f"create table kept (name text); insert into kept values ('{slug}')")
    before = persistent_state()
    require_equal(len(before), 30, "the number of guests")
    require_equal(pages(), [f"Hello from {name}." for name in AGENTS], "the agents' pages")
    doctor()

with subtest("a reboot while GitHub is unreachable"):
    seen = json.loads(machine.succeed("innkeeper events --json | tail -n 1"))["seq"]
    machine.shutdown()
    machine.start()
    start_internet()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    require_equal(persistent_state(), before, "the guests")
    require_equal(pages(), [f"Hello from {name}." for name in AGENTS], "the agents' pages")
    for slug, sha in shas.items():
        machine.wait_until_succeeds(f"{curl_command(slug)} | grep -F {sha}")
        require_equal(query_as_app(slug, "select name from kept"), slug, "the app's data")

with subtest("they were started a few at a time"):
    limit = 4 * int(machine.succeed("nproc"))
    most = most_at_once(seen)
    require(1 < most <= limit, f"{most} guests were starting concurrently; the limit is {limit}")

with subtest("later updates work as before"):
    sha = commit("branch-web-1", app("After the reboot: @commit@."))
    start_github({number: f"branch-{slug}" for number, slug in enumerate(PREVIEWS, start=1)})
    machine.succeed("preview update web-1")
    wait_for_preview("web-1", "live", sha)
    require_equal(browse("web-1"), f"After the reboot: {sha}.", "the page")
    require_equal(query_as_app("web-1", "select name from kept"), "web-1", "the app's data")
    doctor()
