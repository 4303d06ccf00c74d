"""On thin volumes, agents that run have snapshots, go back to them and are copied, whatever happens meanwhile.

Needs: device-mapper, power-loss.
"""

import statistics


def volumes() -> dict[str, dict[str, str]]:
    """The volumes in the group, by name."""
    columns = "lv_name,lv_size,lv_active,data_percent,metadata_percent"
    report = json.loads(machine.succeed(f"lvs --reportformat json --units b --options {columns} pool 2> /dev/null"))
    return {row["lv_name"]: row for row in report["report"][0]["lv"]}


def ours() -> list[str]:
    """The volumes that are guests' or snapshots, or were left half-made."""
    kinds = ("guest", "snap", "restore", "gone", "new")
    return sorted(name for name in volumes() if name.startswith(tuple(f"innkeeper-{kind}" for kind in kinds)))


def write(name: str, text: str) -> None:
    """Changes a guest's page without a sync: taking a snapshot includes one."""
    machine.succeed(f"agent exec {name} -- sh -c 'echo {text} > /var/www/index.html'")


def says(name: str, text: str) -> None:
    """Fails unless that is a guest's page."""
    address = guest(name)["guest_address"]
    machine.wait_for_open_port(80, address)
    same(page(address), f"{text}\n", f"the page of {name}")


def refused(command: str) -> str:
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
    wait_until_quiet()


boot()
with subtest("a pool, and a daemon that uses it"):
    use_thin_volumes()
    limit(85)
    create("web")
    machine.succeed("agent destroy web")
    doctor()
    before = traces()

with subtest("an agent that runs has a snapshot, and goes back to it"):
    create("web")
    write("web", "before")
    machine.succeed("agent snapshot web --label one")
    same(ours(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    same(volumes()["innkeeper-snap-web.one"]["lv_active"], "", "whether the snapshot is active")
    write("web", "after")
    says("web", "after")
    key = guest("web")["ssh_host_key"]
    machine.succeed("agent restore web one")
    says("web", "before")
    same(guest("web")["ssh_host_key"], key, "its host key")
    same(ours(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    doctor()

with subtest("copies of its present and of its former state"):
    write("web", "after")
    machine.succeed("agent fork web now", "agent fork web then --from one")
    says("now", "after")
    says("then", "before")
    says("web", "after")
    for thing in ("ssh_host_key", "guest_address", "slot"):
        is_true(len({view[thing] for view in guests().values()}) == 3, f"{thing}: {guests()}")
    ids = {machine.succeed(f"agent exec {name} -- cat /etc/hostname") for name in ("now", "then")}
    same(ids, {"now\n", "then\n"}, "their names")
    machine.succeed("agent destroy now then")
    doctor()

with subtest("LVM's own snapshot takes most of the time until a new guest's files are mounted"):
    # Both in turns, so that a busy moment hits both alike.
    ours_took, bare_took = [], []
    for turn in range(5):
        create(f"g{turn}")
        events = machine.succeed(f"innkeeper events --guest g{turn} --json").splitlines()
        steps = {event.get("step"): event for event in map(json.loads, events) if event["event"] == "step_done"}
        ours_took.append(steps["ensure-rootfs"]["micros"] / 1000)
        bare = "lvcreate --quiet --yes --snapshot --setactivationskip n --name bare pool/innkeeper-template-268435456"
        took = machine.succeed(f"began=$(date +%s%N); {bare}; echo $(($(date +%s%N) - began))").split()[-1]
        bare_took.append(int(took) / 1_000_000)
        machine.succeed("lvremove --quiet --yes pool/bare", f"agent destroy g{turn}")
    ours_median, bare_median = statistics.median(ours_took), statistics.median(bare_took)
    print(f"ensure-rootfs {ours_median:.0f} ms, lvcreate {bare_median:.0f} ms: {ours_median / bare_median:.2f} times")
    is_true(ours_median < 10 * bare_median, f"{ours_took} beside {bare_took}")

with subtest("the pool shows its volumes"):
    report = json.loads(machine.succeed("innkeeper pool --json"))
    same((report["driver"], report["place"], report["limit_percent"]), ("lvm-thin", "pool/thin", 85), "the pool")
    is_true(0 < report["data_percent"] < 85 and 0 < report["metadata_percent"] < 85, f"how full: {report}")
    owned = {volume["name"]: volume["guest"] for volume in report["volumes"] if volume["guest"]}
    same(owned, {"innkeeper-guest-web": "web", "innkeeper-snap-web.one": "web"}, "the volumes of guests")

with subtest("a loss of power while an agent goes back"):
    # The new volume is there; the agent's has another name; the new one has its name.
    new, gone, tree = (f"pool/innkeeper-{kind}-web" for kind in ("restore", "gone", "guest"))
    for moment in (new, gone, f"{gone} {tree}"):
        write("web", "after")
        machine.succeed(
            "systemd-run --quiet --unit return agent restore web one",
            # It may be over before anybody has looked.
            f"until lvs {moment} > /dev/null 2>&1 || ! systemctl is-active --quiet return; do :; done",
        )
        machine.crash()
        machine.start()
        wait_until_quiet()
        says("web", "before")
        same(ours(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
        doctor()

with subtest("a pool whose metadata are nearly full refuses more of everything"):
    write("web", "after")
    percent = int(float(volumes()["thin"]["metadata_percent"]))
    is_true(percent > float(volumes()["thin"]["data_percent"]), "its metadata are fuller than its data")
    limit(percent)
    for command in ("snapshot web", "fork web copy", "restore web one"):
        said = refused(f"agent {command}")
        is_true("the thin pool 'pool/thin' is nearly full" in said, f"why: {said}")
        is_true("lvextend --poolmetadatasize +256M pool/thin" in said, f"what to do: {said}")
    is_true("poolmetadatasize" in machine.succeed("innkeeper pool"), "what the pool says")
    says("web", "after")
    same(ours(), ["innkeeper-guest-web", "innkeeper-snap-web.one"], "the volumes")
    machine.succeed("agent snapshot web --delete one")
    limit(85)

with subtest("an orphaned snapshot is found, and an agent's snapshots are removed with it"):
    machine.succeed(
        "agent snapshot web --label two",
        "lvcreate --quiet --yes --snapshot --name innkeeper-snap-web.lost pool/innkeeper-guest-web",
    )
    # It has no daemon's mark.
    orphans = json.loads(machine.succeed("innkeeper gc --json"))["orphans"]
    same([orphan["removed"] for orphan in orphans], [False], "what goes unasked")
    orphans = json.loads(machine.succeed("innkeeper gc --unmarked --json"))["orphans"]
    same([orphan["object"] for orphan in orphans], ["pool/innkeeper-snap-web.lost"], "what belonged to nobody")
    doctor()
    machine.succeed("agent destroy web")
    same(ours(), [], "the volumes")
    doctor()

with subtest("a destroyed agent's volume is kept for a while, and brought back"):
    keep = "/run/systemd/system/innkeeperd.service.d/keep.conf"
    machine.succeed(
        f"printf '[Service]\\nEnvironment=INNKEEPER_GUEST_RETENTION_SECONDS=3600\\n' > {keep}",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_quiet()
    create("back")
    write("back", "kept")
    machine.succeed("agent destroy back")
    same(ours(), [], "the volumes of guests")
    kept = [name for name in volumes() if name.startswith("innkeeper-retained-")]
    same(len(kept), 1, f"the volumes that are kept: {kept}")
    doctor()
    machine.succeed("agent undelete back")
    says("back", "kept")
    same(ours(), ["innkeeper-guest-back"], "the volumes")
    doctor()
    machine.succeed("agent destroy --now back", f"rm {keep}", "systemctl daemon-reload", "systemctl restart innkeeperd.service")
    wait_until_quiet()
    same([name for name in volumes() if name.startswith("innkeeper-retained-")], [], "what is kept")
nothing_left(before)
