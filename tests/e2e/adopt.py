"""Innkeeper does not allocate the addresses of a legacy installation's guests, and does not touch its objects.

Needs: nothing.
"""

AGENTS, DEPLOYS = "/var/lib/claude-agents", "/var/lib/preview-deploys"
# The tracking files of a legacy installation: slot, the host's address, the guest's address.
TRACKED = {
    f"{AGENTS}/a-x7f3k2": "3 10.100.0.6 10.100.0.7",
    f"{AGENTS}/a-p9d2m1": "5 10.100.0.10 10.100.0.11",
    f"{DEPLOYS}/shop-12": "6 10.100.0.12 10.100.0.13 octo/shop feature",
}
OTHER_FILES = {
    f"{AGENTS}/.next_slot": "8",
    f"{AGENTS}/.system-path": "/nix/store/of-before",
    f"{DEPLOYS}/shop-12.meta": '{"routes": []}',
    f"{DEPLOYS}/shop-12.sha": "0123456789abcdef0123456789abcdef01234567",
}
ROUTE = "/etc/caddy/previews/shop-12.caddy"


def slots() -> set[int]:
    """Returns the slots of Innkeeper's guests."""
    return {view["slot"] for view in guests().values()}


machine.start()
with subtest("a legacy installation exists before the daemon"):
    # Removes the database of the daemon that has run here, and its rules, which a new daemon would not replace.
    machine.succeed(
        "systemctl stop innkeeperd.service",
        "rm -rf /var/lib/innkeeper/innkeeper.db*",
        "nft delete table inet innkeeper",
        "nft delete table inet innkeeper_builds",
    )
    for path, text in (TRACKED | OTHER_FILES | {ROUTE: "shop-12.preview.example.org {\n}"}).items():
        machine.succeed(f"mkdir -p $(dirname {path}); printf '%s\\n' {shlex.quote(text)} > {path}")
    before = machine.succeed(f"sha256sum {AGENTS}/* {AGENTS}/.[!.]* {DEPLOYS}/* {ROUTE}")
    # The interface and route of a legacy guest.
    machine.succeed(
        "ip link add ve-a-x7f3k2 type veth peer name theirs && ip address add 10.100.0.6/32 dev ve-a-x7f3k2 && ip link set ve-a-x7f3k2 up",
        "ip route add 10.100.0.7/32 dev ve-a-x7f3k2",
    )
    machine.succeed("systemctl start innkeeperd.service")
    wait_until_idle()

with subtest("new guests get other slots, starting at the old counter"):
    first = create("first")
    require_equal((first["slot"], first["guest_address"]), (8, "10.100.0.17"), "the first guest's slot and address")
    create("second")
    require_equal(slots(), {8, 9}, "the slots")
    reserved = json.loads(machine.succeed("innkeeper slots --json"))
    for slot in (3, 5, 6):
        require(f"{slot}" in json.dumps(reserved), f"slot {slot} is reserved: {reserved}")

with subtest("slots that the legacy installation frees become free, and slots that it takes are taken"):
    machine.succeed(
        f"echo '10 10.100.0.20 10.100.0.21' > {AGENTS}/a-later && echo 11 > {AGENTS}/.next_slot",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()
    third = create("third")
    require(third["slot"] >= 11, f"the slot after the legacy ones: {third['slot']}")
    machine.succeed(f"rm {AGENTS}/a-later && echo 8 > {AGENTS}/.next_slot")

with subtest("the legacy installation is untouched, and its objects are not reported as orphans"):
    orphans = json.loads(machine.succeed("innkeeper gc --json"))["orphans"]
    require_equal(orphans, [], "orphans")
    require_equal(machine.succeed(f"sha256sum {AGENTS}/* {AGENTS}/.[!.]* {DEPLOYS}/* {ROUTE}"), before, "the legacy files")
    machine.succeed("ip link show ve-a-x7f3k2")
    machine.succeed("agent destroy first second third")
    machine.succeed("ip link show ve-a-x7f3k2")
