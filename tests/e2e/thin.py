"""With the driver `lvm-thin` a guest's files lie on a volume of its own, which a loss of power does not hurt.

Needs: device-mapper, power-loss.
"""

VOLUME_SIZE = 256 << 20


def volumes() -> dict[str, dict[str, str]]:
    """The volumes in the group, by name."""
    columns = "lv_name,lv_size,data_percent,pool_lv"
    report = json.loads(
        machine.succeed(f"lvs --reportformat json --units b --nosuffix --options {columns} pool 2> /dev/null")
    )
    return {row["lv_name"]: row for row in report["report"][0]["lv"]}


def guest_volumes() -> list[str]:
    """The guests that have a volume."""
    prefix = "innkeeper-guest-"
    return sorted(name.removeprefix(prefix) for name in volumes() if name.startswith(prefix))


def used() -> float:
    """How full the pool is, in percent."""
    return float(volumes()["thin"]["data_percent"])


def tree(name: str) -> str:
    """Where a guest's files are."""
    return f"/var/lib/innkeeper/guests/{name}/rootfs"


def as_wanted() -> None:
    """Fails unless each guest has a volume, no other volume exists, and `innkeeper doctor` finds no problem."""
    same(guest_volumes(), sorted(guests()), "the guests with volumes")
    same([name for name in volumes() if name == "innkeeper-new"], [], "what was left half-made")
    doctor()


def up_again() -> None:
    """Boots after a crash."""
    machine.start()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_quiet()


boot()
with subtest("a pool, and a daemon that uses it"):
    use_thin_volumes()
    doctor()
    create("web")
    machine.succeed("agent destroy web")
    as_wanted()
    before = traces()

with subtest("a guest's files are on a volume"):
    web = create("web")
    is_true("Hello from web." in page(web["guest_address"]), "its page")
    same(guest_volumes(), ["web"], "the guests with volumes")
    same(int(volumes()["innkeeper-guest-web"]["lv_size"]), VOLUME_SIZE, "the size of its volume")
    mount = json.loads(machine.succeed(f"findmnt --json --mountpoint {tree('web')}"))["filesystems"][0]
    same(mount["source"], "/dev/mapper/pool-innkeeper--guest--web", "what is mounted")
    is_true({"nodev", "discard"} <= set(mount["options"].split(",")), f"how it is mounted: {mount['options']}")
    same(machine.succeed(f"stat --format=%u {tree('web')}/etc"), "0\n", "whose the files are")

with subtest("a guest fills only its own disk, and deleted space returns to the pool"):
    empty = used()
    machine.fail("agent exec web -- dd if=/dev/zero of=/big bs=1M count=1000")
    machine.succeed("agent exec web -- sync")
    is_true(used() > empty + 15, f"the pool is at {used()} % after {empty} %")
    machine.succeed("agent exec web -- sh -c 'rm /big; sync'", f"fstrim {tree('web')}")
    is_true(used() < empty + 5, f"the pool is at {used()} % after {empty} %")
    is_true("Hello from web." in page(web["guest_address"]), "its page")

with subtest("stop, start and a restart of the daemon keep the files"):
    machine.succeed("agent exec web -- sh -c 'echo kept > /var/www/index.html'", "agent stop web")
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_quiet()
    machine.succeed("agent start web")
    machine.wait_for_open_port(80, web["guest_address"])
    same(page(web["guest_address"]), "kept\n", "its page")
    same(machine.succeed(f"findmnt --noheadings --mountpoint {tree('web')} | wc -l").strip(), "1", "mounts")

with subtest("a loss of power"):
    machine.succeed("agent exec web -- sync")
    machine.crash()
    up_again()
    machine.wait_for_open_port(80, web["guest_address"])
    same(page(web["guest_address"]), "kept\n", "its page")
    as_wanted()

with subtest("blocks lost in a loss of power do not keep the pool from starting"):
    # From here on the pool's data are written after 100 s, its metadata and whatever is flushed at once.
    slow = "$start $length delay $device $offset 0 $device $offset 100000 $device $offset 0"
    machine.succeed(
        "modprobe dm-delay",
        'read -r start length _ device offset <<< "$(dmsetup table pool-thin_tdata)"\n'
        f'dmsetup suspend --noflush --nolockfs pool-thin_tdata; dmsetup load pool-thin_tdata --table "{slow}"',
        "dmsetup resume pool-thin_tdata",
    )
    # With --noflush, looking does not have the metadata committed.
    blocks = "dmsetup status --noflush pool-thin-tpool | awk '{ split($6, used, \"/\"); print used[1] }'"
    had = machine.succeed(blocks).strip()
    # Blocks are taken for what the guest writes, but do not get to belong to its volume: the write takes 100 s.
    machine.succeed("systemd-run --quiet agent exec web -- dd if=/dev/zero of=/lost bs=1M count=8 oflag=direct")
    machine.wait_until_succeeds(f"test $({blocks}) -gt {had}", timeout=150)
    # Now they are committed.
    machine.succeed("dmsetup status pool-thin-tpool")
    machine.crash()
    up_again()
    machine.succeed("journalctl --boot --grep 'Check of pool pool/thin failed'")
    machine.wait_for_open_port(80, web["guest_address"])
    as_wanted()

with subtest("losses of power in the middle of creating and destroying"):
    for wait in ("true", "lvs pool/innkeeper-guest-new", f"mountpoint --quiet {tree('new')}"):
        machine.succeed(
            f"systemd-run --quiet agent create new --flake '{attribute(PLAIN)}'",
            "until innkeeper events --json | jq -se '[.[] | .guest] | index(\"new\")' > /dev/null; do :; done",
            f"until {wait} 2> /dev/null > /dev/null; do :; done",
        )
        machine.crash()
        up_again()
        same(sorted(guests()), ["new", "web"], "the guests")
        machine.wait_for_open_port(80, guest("new")["guest_address"])
        as_wanted()
        machine.succeed(
            "systemd-run --quiet agent destroy new",
            "until agent list --json | jq -e 'all(.[]; .name != \"new\" or .state == \"destroying\")' > /dev/null; do :; done",
        )
        machine.crash()
        up_again()
        same(sorted(guests()), ["web"], "the guests")
        as_wanted()

with subtest("a daemon that is killed takes no LVM command with it"):
    # A process that was changing the pool could leave it half changed.
    restarts = "systemctl show --value --property=NRestarts innkeeperd.service"
    earlier = machine.succeed(restarts).strip()
    machine.succeed(
        f"systemd-run --quiet agent create new --flake '{attribute(PLAIN)}'",
        "until pkill -STOP -x lvcreate; do :; done",
        "systemctl kill --kill-whom=main --signal=KILL innkeeperd.service",
    )
    machine.wait_until_succeeds(f"test $({restarts}) -gt {earlier}")
    machine.succeed("pkill -CONT -x lvcreate")
    machine.wait_for_unit("innkeeperd.service")
    wait_until_quiet()
    machine.wait_for_open_port(80, guest("new")["guest_address"])
    as_wanted()
    machine.succeed("agent destroy new")

with subtest("no guest is added to a pool that is nearly full, and the others go on"):
    machine.succeed(
        "lvcreate --quiet --yes --type thin --virtualsize 1G --thinpool thin --name ballast pool",
        "dd if=/dev/zero of=/dev/pool/ballast bs=1M count=900 oflag=direct",
    )
    refused = machine.fail(f"agent create new --flake '{attribute(PLAIN)}' 2>&1")
    is_true("the thin pool 'pool/thin' is nearly full" in refused, f"why: {refused}")
    is_true("lvextend --size +10G pool/thin" in refused, f"what to do: {refused}")
    checks = json.loads(machine.execute("innkeeper doctor --json")[1])["checks"]
    same([check["verdict"] for check in checks if check["subject"] == "pool"], ["broken"], "what doctor says")
    machine.succeed("agent stop web", "agent start web")
    machine.wait_for_open_port(80, web["guest_address"])
    machine.succeed("agent destroy new || true", "lvremove --quiet --yes pool/ballast")
    same(guest_volumes(), ["web"], "the guests with volumes")
    create("new")

with subtest("orphans are found and removed"):
    machine.succeed("lvcreate --quiet --yes --snapshot --name innkeeper-guest-lost pool/innkeeper-guest-web")
    orphans = json.loads(machine.succeed("innkeeper gc --dry-run --json"))["orphans"]
    is_true("pool/innkeeper-guest-lost" in json.dumps(orphans), f"what is found: {orphans}")
    # It has no daemon's mark.
    machine.succeed("innkeeper gc", "lvs pool/innkeeper-guest-lost", "innkeeper gc --unmarked")
    as_wanted()

with subtest("after all that, the guest's file system is whole"):
    machine.succeed(
        "agent stop web",
        "lvchange --activate y pool/innkeeper-guest-web",
        "e2fsck -fn /dev/pool/innkeeper-guest-web",
    )

machine.succeed("agent destroy web new")
as_wanted()
nothing_left(before)
# The template is not active while nobody looks at it, and its file system is whole.
machine.succeed("lvchange --activate y --ignoreactivationskip pool/innkeeper-template-268435456")
machine.succeed("e2fsck -fn /dev/pool/innkeeper-template-268435456")
