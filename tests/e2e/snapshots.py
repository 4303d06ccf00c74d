"""Snapshots, restores and forks of running agents on thin volumes, with power losses and full pools.

Needs: device-mapper, power-loss.
"""

import statistics


def volumes() -> dict[str, dict[str, str]]:
    """Returns the volumes in the group, by name."""
    columns = "lv_name,lv_size,lv_active,data_percent,metadata_percent"
    report = json.loads(machine.succeed(f"lvs --reportformat json --units b --options {columns} pool 2> /dev/null"))
    return {row["lv_name"]: row for row in report["report"][0]["lv"]}


def guest_volumes() -> list[str]:
    """Returns the volumes of guests and snapshots, and incomplete ones."""
    kinds = ("guest", "snap", "restore", "gone", "new")
    return sorted(name for name in volumes() if name.startswith(tuple(f"innkeeper-{kind}" for kind in kinds)))


def write(name: str, text: str) -> None:
    """Changes a guest's page without a sync: taking a snapshot includes one."""
    machine.succeed(f"agent exec {name} -- sh -c 'echo {text} > /var/www/index.html'")


def require_page(name: str, text: str) -> None:
    """Fails unless a guest serves this page."""
    address = guest(name)["guest_address"]
    machine.wait_for_open_port(80, address)
    require_equal(page(address), f"{text}\n", f"the page of {name}")


def error_of(command: str) -> str:
    """Returns the error of a command that must fail."""
    return machine.fail(f"{command} 2>&1")


def limit(percent: int) -> None:
    """Restarts the daemon with another limit of the pool."""
    unit = "/run/systemd/system/innkeeperd.service.d"
    machine.succeed(
        f"mkdir -p {unit}",
        f"printf '[Service]\\nEnvironment=INNKEEPER_STORAGE_POOL_LIMIT_PERCENT={percent}\\n' > {unit}/limit.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()


boot()
with subtest("a pool, and a daemon that uses it"):
    use_thin_volumes()
    limit(85)
    create("web")
    machine.succeed("agent destroy web")
    doctor()
    before = traces()

with subtest("a running agent is snapshotted and restored"):
    create("web")
    write("web", "before")
    machine.succeed("agent snapshot web --label one")
    require_equal(guest_volumes(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    require_equal(volumes()["innkeeper-snap-web.one"]["lv_active"], "", "the snapshot's activation")
    write("web", "after")
    require_page("web", "after")
    key = guest("web")["ssh_host_key"]
    machine.succeed("agent restore web one")
    require_page("web", "before")
    require_equal(guest("web")["ssh_host_key"], key, "its host key")
    require_equal(guest_volumes(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    doctor()

with subtest("forks of its current state and of a snapshot"):
    write("web", "after")
    machine.succeed("agent fork web now", "agent fork web then --from one")
    require_page("now", "after")
    require_page("then", "before")
    require_page("web", "after")
    for field in ("ssh_host_key", "guest_address", "slot"):
        require(len({view[field] for view in guests().values()}) == 3, f"{field}: {guests()}")
    ids = {machine.succeed(f"agent exec {name} -- cat /etc/hostname") for name in ("now", "then")}
    require_equal(ids, {"now\n", "then\n"}, "their host names")
    machine.succeed("agent destroy now then")
    doctor()

with subtest("LVM's own snapshot takes most of the time until a new guest's files are mounted"):
    # Alternating, so that load on the machine affects both alike.
    own_times, bare_times = [], []
    for turn in range(5):
        create(f"g{turn}")
        events = machine.succeed(f"innkeeper events --guest g{turn} --json").splitlines()
        steps = {event.get("step"): event for event in map(json.loads, events) if event["event"] == "step_done"}
        own_times.append(steps["ensure-rootfs"]["micros"] / 1000)
        bare = "lvcreate --quiet --yes --snapshot --setactivationskip n --name bare pool/innkeeper-template-268435456"
        took = machine.succeed(f"start=$(date +%s%N); {bare}; echo $(($(date +%s%N) - start))").split()[-1]
        bare_times.append(int(took) / 1_000_000)
        machine.succeed("lvremove --quiet --yes pool/bare", f"agent destroy g{turn}")
    own_median, bare_median = statistics.median(own_times), statistics.median(bare_times)
    print(f"ensure-rootfs {own_median:.0f} ms, lvcreate {bare_median:.0f} ms: {own_median / bare_median:.2f} times")
    require(own_median < 10 * bare_median, f"{own_times} beside {bare_times}")

with subtest("`innkeeper pool` lists the volumes"):
    report = json.loads(machine.succeed("innkeeper pool --json"))
    require_equal((report["driver"], report["place"], report["limit_percent"]), ("lvm-thin", "pool/thin", 85), "the pool")
    require(0 < report["data_percent"] < 85 and 0 < report["metadata_percent"] < 85, f"the usage: {report}")
    owned = {volume["name"]: volume["guest"] for volume in report["volumes"] if volume["guest"]}
    require_equal(owned, {"innkeeper-guest-web": "web", "innkeeper-snap-web.one": "web"}, "the volumes of guests")

with subtest("a power loss during a restore"):
    # The steps: the new volume exists; the agent's volume is renamed; the new one gets its name.
    new, gone, tree = (f"pool/innkeeper-{kind}-web" for kind in ("restore", "gone", "guest"))
    for moment in (new, gone, f"{gone} {tree}"):
        write("web", "after")
        machine.succeed(
            "systemd-run --quiet --unit return agent restore web one",
            # The restore may end before the state is observed.
            f"until lvs {moment} > /dev/null 2>&1 || ! systemctl is-active --quiet return; do :; done",
        )
        machine.crash()
        machine.start()
        wait_until_idle()
        require_page("web", "before")
        require_equal(guest_volumes(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
        doctor()

with subtest("a pool with nearly full metadata rejects new volumes"):
    write("web", "after")
    percent = int(float(volumes()["thin"]["metadata_percent"]))
    require(percent > float(volumes()["thin"]["data_percent"]), "its metadata are fuller than its data")
    limit(percent)
    for command in ("snapshot web", "fork web copy", "restore web one"):
        error = error_of(f"agent {command}")
        require("the thin pool 'pool/thin' is nearly full" in error, f"the cause: {error}")
        require("lvextend --poolmetadatasize +256M pool/thin" in error, f"the remedy: {error}")
    require("poolmetadatasize" in machine.succeed("innkeeper pool"), "the remedy of `innkeeper pool`")
    require_page("web", "after")
    require_equal(guest_volumes(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    machine.succeed("agent snapshot web --delete one")
    limit(85)

with subtest("an orphaned snapshot is found, and an agent's snapshots are removed with it"):
    machine.succeed(
        "agent snapshot web --label two",
        "lvcreate --quiet --yes --snapshot --name innkeeper-snap-web.lost pool/innkeeper-guest-web",
    )
    # It has no daemon's mark.
    orphans = json.loads(machine.succeed("innkeeper gc --json"))["orphans"]
    require_equal([orphan["removed"] for orphan in orphans], [False], "removed without --unmarked")
    orphans = json.loads(machine.succeed("innkeeper gc --unmarked --json"))["orphans"]
    require_equal([orphan["object"] for orphan in orphans], ["pool/innkeeper-snap-web.lost"], "the orphans")
    doctor()
    machine.succeed("agent destroy web")
    require_equal(guest_volumes(), [], "the volumes")
    doctor()

with subtest("a destroyed agent's volume is retained and restored"):
    retention = "/run/systemd/system/innkeeperd.service.d/keep.conf"
    machine.succeed(
        f"printf '[Service]\\nEnvironment=INNKEEPER_GUEST_RETENTION_SECONDS=3600\\n' > {retention}",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()
    create("back")
    write("back", "kept")
    machine.succeed("agent destroy back")
    require_equal(guest_volumes(), [], "the volumes of guests")
    kept = [name for name in volumes() if name.startswith("innkeeper-retained-")]
    require_equal(len(kept), 1, f"the retained volumes: {kept}")
    doctor()
    machine.succeed("agent undelete back")
    require_page("back", "kept")
    require_equal(guest_volumes(), ["innkeeper-guest-back"], "the volumes")
    doctor()
    machine.succeed("agent destroy --now back", f"rm {retention}", "systemctl daemon-reload", "systemctl restart innkeeperd.service")
    wait_until_idle()
    require_equal([name for name in volumes() if name.startswith("innkeeper-retained-")], [], "the retained volumes")
require_no_leaks(before)
