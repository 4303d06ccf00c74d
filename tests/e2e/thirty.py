"""After a reboot thirty guests are back, a few at a time and each where it was: previews with their routes and databases.

Needs: previews.
"""

AGENTS = [f"agent-{number}" for number in range(1, 27)]
PREVIEWS = [f"web-{number}" for number in range(1, 5)]


def all_guests() -> dict[str, dict[str, Any]]:
    """Agents and guests of previews, by name."""
    answer = machine.succeed("curl --silent --fail --unix-socket /run/innkeeper/api.sock http://localhost/v1/guests")
    return {view["name"]: view for view in json.loads(answer)}


def known() -> dict[str, object]:
    """State that must survive the reboot."""
    return {
        name: [view[field] for field in ("state", "slot", "guest_address", "host_address", "interface", "closure")]
        for name, view in all_guests().items()
    }


def pages() -> list[str]:
    """Returns the agents' responses in order; the requests run concurrently."""
    views = all_guests()
    asked = " ".join(f"{name}={views[name]['guest_address']}" for name in AGENTS)
    return machine.succeed(
        f"for agent in {asked}; do curl --silent --fail --retry 20 --retry-connrefused --retry-delay 1 "
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
        pull(number, f"branch-{slug}", "opened")
    for slug, sha in shas.items():
        wait_for_preview(slug, "live", sha)
        ask_as_app(slug, f"create table kept (name text); insert into kept values ('{slug}')")
    before = known()
    same(len(before), 30, "the number of guests")
    same(pages(), [f"Hello from {name}." for name in AGENTS], "the agents' pages")
    doctor()

with subtest("a reboot while GitHub is unreachable"):
    seen = json.loads(machine.succeed("innkeeper events --json | tail -n 1"))["seq"]
    machine.shutdown()
    machine.start()
    start_internet()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_quiet()
    same(known(), before, "the guests")
    same(pages(), [f"Hello from {name}." for name in AGENTS], "the agents' pages")
    for slug, sha in shas.items():
        machine.wait_until_succeeds(f"{look(slug)} | grep -F {sha}")
        same(ask_as_app(slug, "select name from kept"), slug, "what the app has kept")

with subtest("they were started a few at a time"):
    limit = 2 * int(machine.succeed("nproc"))
    most = most_at_once(seen)
    is_true(1 < most <= limit, f"{most} guests were starting at the same time; {limit} may")

with subtest("later updates work as before"):
    start_github()
    sha = commit("branch-web-1", app("After the reboot: @commit@."))
    for number, slug in enumerate(PREVIEWS, start=1):
        describe(number, f"branch-{slug}")
    machine.succeed("preview update web-1")
    wait_for_preview("web-1", "live", sha)
    same(browse("web-1"), f"After the reboot: {sha}.", "the page")
    same(ask_as_app("web-1", "select name from kept"), "web-1", "what the app has kept")
    doctor()
