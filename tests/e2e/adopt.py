"""A host on which an older installation has guests never gives out their addresses, nor touches what is theirs.

Needs: nothing.
"""

AGENTS, DEPLOYS = "/var/lib/claude-agents", "/var/lib/preview-deploys"
# As an older installation has them: slot, the host's address, the guest's address.
TRACKED = {
    f"{AGENTS}/a-x7f3k2": "3 10.100.0.6 10.100.0.7",
    f"{AGENTS}/a-p9d2m1": "5 10.100.0.10 10.100.0.11",
    f"{DEPLOYS}/shop-12": "6 10.100.0.12 10.100.0.13 octo/shop feature",
}
BESIDE = {
    f"{AGENTS}/.next_slot": "8",
    f"{AGENTS}/.system-path": "/nix/store/of-before",
    f"{DEPLOYS}/shop-12.meta": '{"routes": []}',
    f"{DEPLOYS}/shop-12.sha": "0123456789abcdef0123456789abcdef01234567",
}
ROUTE = "/etc/caddy/previews/shop-12.caddy"


def slots() -> set[int]:
    """The slots of our guests."""
    return {view["slot"] for view in guests().values()}


machine.start()
with subtest("an older installation exists before the daemon"):
    # The daemon that has run here is gone for good, and so are its rules, which another one would not replace.
    machine.succeed(
        "systemctl stop innkeeperd.service",
        "rm -rf /var/lib/innkeeper/innkeeper.db*",
        "nft delete table inet innkeeper",
        "nft delete table inet innkeeper_builds",
    )
    for path, text in (TRACKED | BESIDE | {ROUTE: "shop-12.preview.example.org {\n}"}).items():
        machine.succeed(f"mkdir -p $(dirname {path}); printf '%s\\n' {shlex.quote(text)} > {path}")
    before = machine.succeed(f"sha256sum {AGENTS}/* {AGENTS}/.[!.]* {DEPLOYS}/* {ROUTE}")
    # A guest of theirs, as far as addresses go.
    machine.succeed(
        "ip link add ve-a-x7f3k2 type veth peer name theirs && ip address add 10.100.0.6/32 dev ve-a-x7f3k2 && ip link set ve-a-x7f3k2 up",
        "ip route add 10.100.0.7/32 dev ve-a-x7f3k2",
    )
    machine.succeed("systemctl start innkeeperd.service")
    wait_until_quiet()

with subtest("new guests get other slots, starting at the old counter"):
    first = create("first")
    same((first["slot"], first["guest_address"]), (8, "10.100.0.17"), "the first guest's slot and address")
    create("second")
    same(slots(), {8, 9}, "the slots")
    reserved = json.loads(machine.succeed("innkeeper slots --json"))
    for slot in (3, 5, 6):
        is_true(f"{slot}" in json.dumps(reserved), f"slot {slot} is reserved: {reserved}")

with subtest("slots that the old installation frees become free, and slots that it takes are taken"):
    machine.succeed(
        f"echo '10 10.100.0.20 10.100.0.21' > {AGENTS}/a-later && echo 11 > {AGENTS}/.next_slot",
        "systemctl restart innkeeperd.service",
    )
    wait_until_quiet()
    third = create("third")
    is_true(third["slot"] >= 11, f"the slot after theirs: {third['slot']}")
    machine.succeed(f"rm {AGENTS}/a-later && echo 8 > {AGENTS}/.next_slot")

with subtest("the old installation is untouched, and its objects are not reported as orphans"):
    orphans = json.loads(machine.succeed("innkeeper gc --json"))["orphans"]
    same(orphans, [], "what belongs to no guest")
    same(machine.succeed(f"sha256sum {AGENTS}/* {AGENTS}/.[!.]* {DEPLOYS}/* {ROUTE}"), before, "their files")
    machine.succeed("ip link show ve-a-x7f3k2")
    machine.succeed("agent destroy first second third")
    machine.succeed("ip link show ve-a-x7f3k2")
