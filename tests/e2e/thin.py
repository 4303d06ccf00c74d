"""With the driver `lvm-thin`, each guest has its own volume, which survives power losses.

Needs: device-mapper, power-loss.
"""

VOLUME_SIZE = 256 << 20


def volumes() -> dict[str, dict[str, str]]:
    """Returns the volumes in the group, by name."""
    columns = "lv_name,lv_size,data_percent,pool_lv"
    report = json.loads(
        machine.succeed(f"lvs --reportformat json --units b --nosuffix --options {columns} pool 2> /dev/null")
    )
    return {row["lv_name"]: row for row in report["report"][0]["lv"]}


def guest_volumes() -> list[str]:
    """Returns the guests that have a volume."""
    prefix = "innkeeper-guest-"
    return sorted(name.removeprefix(prefix) for name in volumes() if name.startswith(prefix))


def used() -> float:
    """Returns the usage of the pool, in percent."""
    return float(volumes()["thin"]["data_percent"])


def tree(name: str) -> str:
    """Returns the directory of a guest's files."""
    return f"/var/lib/innkeeper/guests/{name}/rootfs"


def require_consistent_volumes() -> None:
    """Fails unless each guest has a volume, no other volume exists, and `innkeeper doctor` finds no problem."""
    require_equal(guest_volumes(), sorted(guests()), "the guests with volumes")
    require_equal([name for name in volumes() if name == "innkeeper-next"], [], "incomplete volumes")
    doctor()


def boot_again() -> None:
    """Boots after a crash."""
    machine.start()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()


boot()
with subtest("a pool, and a daemon that uses it"):
    use_thin_volumes()
    doctor()
    create("web")
    machine.succeed("agent destroy web")
    require_consistent_volumes()
    before = traces()

with subtest("a guest's files are on a volume"):
    web = create("web")
    require("Hello from web." in page(web["guest_address"]), "its page")
    require_equal(guest_volumes(), ["web"], "the guests with volumes")
    require_equal(int(volumes()["innkeeper-guest-web"]["lv_size"]), VOLUME_SIZE, "the size of its volume")
    mount = json.loads(machine.succeed(f"findmnt --json --mountpoint {tree('web')}"))["filesystems"][0]
    require_equal(mount["source"], "/dev/mapper/pool-innkeeper--guest--web", "the mounted volume")
    require({"nodev", "discard"} <= set(mount["options"].split(",")), f"the mount options: {mount['options']}")
    require_equal(machine.succeed(f"stat --format=%u {tree('web')}/etc"), "0\n", "the owner of the files")

with subtest("a guest fills only its own disk, and deleted space returns to the pool"):
    empty = used()
    machine.fail("agent exec web -- dd if=/dev/zero of=/big bs=1M count=1000")
    machine.succeed("agent exec web -- sync")
    require(used() > empty + 15, f"the pool is at {used()} % after {empty} %")
    machine.succeed("agent exec web -- sh -c 'rm /big; sync'", f"fstrim {tree('web')}")
    require(used() < empty + 5, f"the pool is at {used()} % after {empty} %")
    require("Hello from web." in page(web["guest_address"]), "its page")

with subtest("stop, start and a restart of the daemon keep the files"):
    machine.succeed("agent exec web -- sh -c 'echo kept > /var/www/index.html'", "agent stop web")
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_idle()
    machine.succeed("agent start web")
    machine.wait_for_open_port(80, web["guest_address"])
    require_equal(page(web["guest_address"]), "kept\n", "its page")
    require_equal(machine.succeed(f"findmnt --noheadings --mountpoint {tree('web')} | wc -l").strip(), "1", "mounts")

with subtest("a power loss"):
    machine.succeed("agent exec web -- sync")
    machine.crash()
    boot_again()
    machine.wait_for_open_port(80, web["guest_address"])
    require_equal(page(web["guest_address"]), "kept\n", "its page")
    require_consistent_volumes()

with subtest("blocks lost in a power loss do not prevent the pool from starting"):
    # From here on, the pool's data are written after 100 s; its metadata and flushed data at once.
    slow = "$start $length delay $device $offset 0 $device $offset 100000 $device $offset 0"
    machine.succeed(
        "modprobe dm-delay",
        'read -r start length _ device offset <<< "$(dmsetup table pool-thin_tdata)"\n'
        f'dmsetup suspend --noflush --nolockfs pool-thin_tdata; dmsetup load pool-thin_tdata --table "{slow}"',
        "dmsetup resume pool-thin_tdata",
    )
    # With --noflush, reading the status does not commit the metadata.
    blocks = "dmsetup status --noflush pool-thin-tpool | awk '{ split($6, used, \"/\"); print used[1] }'"
    had = machine.succeed(blocks).strip()
    # The guest's write allocates blocks, which are not mapped to its volume for 100 s.
    machine.succeed("systemd-run --quiet agent exec web -- dd if=/dev/zero of=/lost bs=1M count=8 oflag=direct")
    machine.wait_until_succeeds(f"test $({blocks}) -gt {had}", timeout=150)
    # This commits the metadata.
    machine.succeed("dmsetup status pool-thin-tpool")
    machine.crash()
    boot_again()
    machine.succeed("journalctl --boot --grep 'Check of pool pool/thin failed'")
    machine.wait_for_open_port(80, web["guest_address"])
    require_consistent_volumes()

with subtest("power losses during create and destroy"):
    for wait in ("true", "lvs pool/innkeeper-guest-next", f"mountpoint --quiet {tree('next')}"):
        machine.succeed(
            f"systemd-run --quiet agent create next --flake '{attribute(PLAIN)}'",
            "until innkeeper events --json | jq -se '[.[] | .guest] | index(\"next\")' > /dev/null; do :; done",
            f"until {wait} 2> /dev/null > /dev/null; do :; done",
        )
        machine.crash()
        boot_again()
        require_equal(sorted(guests()), ["next", "web"], "the guests")
        machine.wait_for_open_port(80, guest("next")["guest_address"])
        require_consistent_volumes()
        machine.succeed(
            "systemd-run --quiet agent destroy next",
            "until agent list --json | jq -e 'all(.[]; .name != \"next\" or .state == \"destroying\")' > /dev/null; do :; done",
        )
        machine.crash()
        boot_again()
        require_equal(sorted(guests()), ["web"], "the guests")
        require_consistent_volumes()

with subtest("killing the daemon does not kill a running LVM command"):
    # An interrupted command could leave the pool in an inconsistent state.
    restarts = "systemctl show --value --property=NRestarts innkeeperd.service"
    earlier = machine.succeed(restarts).strip()
    machine.succeed(
        f"systemd-run --quiet agent create next --flake '{attribute(PLAIN)}'",
        "until pkill -STOP -x lvcreate; do :; done",
        "systemctl kill --kill-whom=main --signal=KILL innkeeperd.service",
    )
    machine.wait_until_succeeds(f"test $({restarts}) -gt {earlier}")
    machine.succeed("pkill -CONT -x lvcreate")
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    machine.wait_for_open_port(80, guest("next")["guest_address"])
    require_consistent_volumes()
    machine.succeed("agent destroy next")

with subtest("a nearly full pool rejects new guests, and the others keep running"):
    machine.succeed(
        "lvcreate --quiet --yes --type thin --virtualsize 1G --thinpool thin --name ballast pool",
        "dd if=/dev/zero of=/dev/pool/ballast bs=1M count=900 oflag=direct",
    )
    error = machine.fail(f"agent create next --flake '{attribute(PLAIN)}' 2>&1")
    require("the thin pool 'pool/thin' is nearly full" in error, f"the cause: {error}")
    require("lvextend --size +10G pool/thin" in error, f"the remedy: {error}")
    checks = json.loads(machine.execute("innkeeper doctor --json")[1])["checks"]
    require_equal([check["verdict"] for check in checks if check["subject"] == "pool"], ["broken"], "the verdict of doctor")
    machine.succeed("agent stop web", "agent start web")
    machine.wait_for_open_port(80, web["guest_address"])
    machine.succeed("agent destroy next || true", "lvremove --quiet --yes pool/ballast")
    require_equal(guest_volumes(), ["web"], "the guests with volumes")
    create("next")

with subtest("orphans are found and removed"):
    machine.succeed("lvcreate --quiet --yes --snapshot --name innkeeper-guest-lost pool/innkeeper-guest-web")
    orphans = json.loads(machine.succeed("innkeeper gc --dry-run --json"))["orphans"]
    require("pool/innkeeper-guest-lost" in json.dumps(orphans), f"the orphans: {orphans}")
    # It has no daemon's mark.
    machine.succeed("innkeeper gc", "lvs pool/innkeeper-guest-lost", "innkeeper gc --unmarked")
    require_consistent_volumes()

with subtest("the guest's file system is consistent"):
    machine.succeed(
        "agent stop web",
        "lvchange --activate y pool/innkeeper-guest-web",
        "e2fsck -fn /dev/pool/innkeeper-guest-web",
    )

machine.succeed("agent destroy web next")
require_consistent_volumes()
require_no_leaks(before)
# The unused template is inactive, and its file system is consistent.
machine.succeed("lvchange --activate y --ignoreactivationskip pool/innkeeper-template-268435456")
machine.succeed("e2fsck -fn /dev/pool/innkeeper-template-268435456")
