"""A host is lost, and its agents and previews are restored on a new one from a backup set.

Needs: previews.
"""

SET = "/var/lib/innkeeper-backup"
STATE = "/var/lib/innkeeper"
# The options of NixOS' own modules that matter for a set: modules/backup.nix.
RESTIC = "env RESTIC_PASSWORD=of-a-test restic --no-cache --repo /srv/restic"
BORG = "env BORG_REPO=/srv/borg BORG_BASE_DIR=/srv/borg-home BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes borg"


def back_up(options: str = "") -> list[str]:
    """Makes a backup set, and returns the lines of the output."""
    return machine.succeed(f"innkeeper backup {options}", timeout=120).splitlines()


def manifest() -> dict[str, Any]:
    """Returns the manifest of the backup set."""
    read: dict[str, Any] = json.loads(machine.succeed(f"cat {SET}/set/manifest.json"))
    return read


def as_agent(name: str, command: str) -> str:
    """Runs a command in an agent and returns its output."""
    return machine.succeed(f"agent exec {name} -- sh -c {shlex.quote(command)}")


def refused(command: str) -> str:
    """Returns the error of a command that must fail."""
    return machine.fail(f"{command} 2>&1")


def store_with_restic() -> dict[str, Any]:
    """Stores the set with restic, and returns its summary."""
    machine.succeed(f"test -e /srv/restic || {RESTIC} init", f"echo {SET}/set > /run/paths")
    lines = machine.succeed(f"{RESTIC} backup --json --ignore-inode --files-from /run/paths", timeout=120).splitlines()
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary


def require_files_of_web() -> None:
    """Fails unless the files of the agent have their contents, modes, owners and links."""
    require_equal(as_agent("web", "cat /home/notes /home/same"), "kept\nkept\n", "the file of web and its hard link")
    attributes = as_agent("web", "stat -c '%a %u %h' /home/notes; stat -c '%u %g' /home/other; readlink /home/link; test -p /home/fifo")
    require_equal(attributes, "4751 0 2\n1000 100\n/etc/shadow\n", "modes, owners, links")
    require_equal(page(guest("web")["guest_address"]), "here\n", "the page of web")


def lose_host() -> None:
    """Removes everything that a new host would not have: state, guests, databases, routes, rules, interfaces."""
    names = sorted(guests()) + sorted(previews())
    machine.succeed("systemctl stop innkeeperd.service")
    for name in names:
        machine.succeed(f"systemctl kill --signal=KILL {unit(name)} || true; systemctl stop {unit(name)} || true")
        machine.succeed(f"systemctl reset-failed {unit(name)} || true")
    database = ("drop database preview_web_7", "drop role preview_web_7")
    for statement in database:
        sql(statement)
    machine.succeed(
        # The state directory is a mount point here.
        f"find {STATE} -mindepth 1 -delete; rm -rf /var/lib/innkeeper-daemons /run/innkeeper/guests {SET}",
        "find /var/lib/innkeeper-pages /var/lib/innkeeper-routes /etc/caddy/previews -type f -not -name github.caddy -delete",
        "find /nix/var/nix/gcroots/innkeeper /nix/var/nix/gcroots/innkeeper-evaluations -type l -delete",
        "nft delete table inet innkeeper; nft delete table inet innkeeper_builds; true",
        "for link in /sys/class/net/ve-rest-*; do ip link delete ${link##*/}; done",
        "systemctl start innkeeperd.service",
    )
    wait_until_idle()
    require_equal((guests(), previews()), ({}, {}), "the guests and previews of the new host")


boot_with_previews()
with subtest("a host with two agents and a preview"):
    create("web")
    create("stopped")
    as_agent("stopped", "echo kept > /home/notes")
    machine.succeed("agent stop stopped")
    as_agent("web", "cd /home; echo kept > notes; ln notes same; ln -s /etc/shadow link; chmod 4751 notes; echo here > /var/www/index.html")
    as_agent("web", "mkdir /home/other; chown 1000:100 /home/other; mknod /home/fifo p")
    sha = commit("change", app())
    deliver_event(7, "change", "opened")
    wait_for_preview("web-7", "live", sha)
    query_as_app("web-7", "create table kept (number int, twice int generated always as (number * 2) stored)")
    query_as_app("web-7", "insert into kept values (42)")
    addresses = {name: (guest_of(name)["slot"], guest_of(name)["guest_address"]) for name in ("web", "stopped", "web-7")}
    key = guest_of("web")["ssh_host_key"]
    closure = guest("stopped")["closure"]

with subtest("a backup set, while the guests run"):
    pid = leader("web")
    output = back_up("--with-closures")
    require(any("web: " in line and "suspended" in line for line in output), f"the guests are listed: {output}")
    require_equal({one["name"] for one in manifest()["guests"]}, set(addresses), "the guests of the set")
    require_equal(leader("web"), pid, "the first process of web")
    require_equal(page(guest("web")["guest_address"]), "here\n", "web runs on")
    require_equal(machine.succeed(f"find {SET} -maxdepth 1 -mindepth 1 -printf '%f %m\n'"), "set 700\n", "the directory")
    require_equal(machine.succeed(f"stat -c '%a %u %g %h' {SET}/set/guests/web/rootfs/home/notes"), "4751 0 0 2\n", "a file")
    secret = machine.succeed(f"find {SET}/set -maxdepth 2 -type f -not -path '*/closures/*' -perm /077")
    require_equal(secret, "", "files that others can read")
    doctor()

with subtest("an interrupted backup leaves nothing, and the former set stays"):
    created = manifest()["created_at"]
    as_agent("web", "head -c 200000000 /dev/urandom > /home/large")
    machine.succeed(
        "systemd-run --quiet --unit=backup innkeeper backup",
        f"until test -e {SET}/.innkeeper-new/guests/web/rootfs/home/large; do :; done 2> /dev/null",
        "systemctl kill --signal=KILL innkeeperd.service",
        timeout=60,
    )
    machine.wait_until_succeeds("innkeeper status")
    machine.wait_until_succeeds(f"! test -e {SET}/.innkeeper-new && ! test -e {STATE}/backup")
    require_equal(manifest()["created_at"], created, "the set")
    require_equal(page(guest("web")["guest_address"]), "here\n", "web runs on")
    as_agent("web", "rm /home/large")
    machine.wait_until_succeeds("! systemctl is-active backup.service")
    wait_until_idle()
    doctor()

with subtest("the next set replaces it, and only root may make one"):
    back_up("--with-closures --quiet")
    require(manifest()["created_at"] != created, "the set is another one")
    require("only root" in refused("setpriv --reuid=65534 --regid=$(getent group innkeeper | cut -d: -f3) --clear-groups innkeeper backup"), "refused")
    require("that only root can enter" in refused("mkdir -m 755 /srv/open; innkeeper backup --to /srv/open"), "refused")

with subtest("a disk without space is refused, and one that fills up during a copy keeps its former set"):
    full = "/srv/full"
    as_agent("web", "head -c 8000000 /dev/urandom > /home/large")
    machine.succeed(f"mkdir {full} && mount -t tmpfs -o size=4M,mode=700 none {full}")
    require("MiB left" in refused(f"innkeeper backup --to {full}"), "refused before anything is copied")
    require_equal(machine.succeed(f"ls -A {full}"), "", "the disk")
    machine.succeed(f"mount -o remount,size=200M {full}")
    back_up(f"--to {full}")
    created = machine.succeed(f"jq .created_at {full}/set/manifest.json")
    # Fewer files than one guest has.
    machine.succeed(f"mount -o remount,nr_inodes=$(($(df --output=iused {full} | tail -n 1) + 12)) {full}")
    status, printed = machine.execute(f"innkeeper --json backup --allow-incomplete --to {full} 2>&1")
    require(status != 0 and '"code":"disk_full"' in printed, f"the failure: {status} {printed}")
    require_equal(machine.succeed(f"ls -A {full}; jq .created_at {full}/set/manifest.json"), f"set\n{created}", "the former set")
    machine.succeed(f"umount {full}")
    as_agent("web", "rm /home/large")
    require_equal(page(guest("web")["guest_address"]), "here\n", "web runs on")

with subtest("a database that cannot be copied is left out, and everything else is in the set"):
    sql("alter database preview_web_7 with allow_connections false")
    require("the backup set has no database of web-7" in refused("innkeeper backup"), "the command fails")
    require_equal(manifest()["missing"], ["database of web-7"], "the missing parts")
    require_equal({one["name"] for one in manifest()["guests"]}, set(addresses), "the guests of the set")
    back_up("--allow-incomplete")
    sql("alter database preview_web_7 with allow_connections true")
    back_up("--with-closures --quiet")
    require_equal(manifest()["missing"], [], "the missing parts")

with subtest("a directory that is no set is not replaced"):
    machine.succeed("mkdir -m 700 /srv/data && mkdir /srv/data/set && touch /srv/data/set/notes")
    require("/srv/data/set is no backup set" in refused("innkeeper backup --to /srv/data"), "refused")
    machine.succeed("test -e /srv/data/set/notes")

with subtest("restic stores the set, and of the next one only what is new"):
    store_with_restic()
    back_up("--with-closures --quiet")
    summary = store_with_restic()
    new = summary["files_new"] + summary["files_changed"]
    require(new < summary["files_unmodified"], f"most files of a set are as in the former one: {summary}")
    machine.succeed(f"{RESTIC} forget --prune --keep-last 1", f"{RESTIC} check")

with subtest("the host is lost"):
    lose_host()
    machine.succeed(f"nix-store --delete {closure}")
    machine.succeed(f"{RESTIC} restore latest --target /", timeout=120)

with subtest("a set that is damaged, incomplete or has links is refused, and nothing is restored"):
    home = f"{SET}/set/guests/web/rootfs/home"
    for change, undo, problem in (
        (f"echo other > {home}/notes", f"echo kept > {home}/notes", "damaged"),
        (f"chmod 755 {home}/notes", f"chmod 4751 {home}/notes", "damaged"),
        (f"mv {SET}/set/manifest.json /srv", f"mv /srv/manifest.json {SET}/set", "no complete backup set"),
        (f"mv {SET}/set/guests/web /srv && ln -s /srv/web {SET}/set/guests", f"rm {SET}/set/guests/web && mv /srv/web {SET}/set/guests", "not a directory"),
    ):
        machine.succeed(change)
        require(problem in refused(f"innkeeper restore --from {SET}"), f"refused after: {change}")
        machine.succeed(undo)
    require("no guest or preview 'other'" in refused("innkeeper restore other"), "an unknown guest is refused")
    require_equal((guests(), previews()), ({}, {}), "the guests and previews")
    require("preview_web_7" not in sql("select datname from pg_database"), "no database is left")

with subtest("one agent is restored by its name"):
    machine.succeed("innkeeper restore stopped", timeout=60)
    require_equal(sorted(guests()), ["stopped"], "the agents")
    require_equal(guest("stopped")["state"], "stopped", "its state")
    require("already exists" in refused("innkeeper restore stopped"), "it is not restored twice")
    require("without guests and previews" in refused("innkeeper restore"), "everything is not restored over it")
    machine.succeed("agent start stopped")
    require_equal(as_agent("stopped", "cat /home/notes"), "kept\n", "its file")
    require_equal((guest("stopped")["slot"], guest("stopped")["guest_address"]), addresses["stopped"], "its address")
    machine.succeed("agent destroy --now stopped")
    wait_until_idle()

with subtest("everything is restored"):
    machine.succeed(f"innkeeper restore --from {SET}", timeout=120)
    wait_for_state("web", "running")
    require_files_of_web()
    require_equal(guest_of("web")["ssh_host_key"], key, "the host key of web")
    require_equal(guest("stopped")["state"], "stopped", "the state of stopped")
    found = {name: (guest_of(name)["slot"], guest_of(name)["guest_address"]) for name in addresses}
    require_equal(found, addresses, "slots and addresses")

with subtest("the preview has its page and its rows, and follows GitHub again"):
    machine.wait_until_succeeds(f"{curl_command('web-7')} | grep -F {sha}")
    require_equal(query_as_app("web-7", "select number, twice from kept"), "42|84", "the rows")
    pushed = commit("change", app("Then @commit@, prepared @count@ times."))
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", pushed)
    machine.wait_until_succeeds(f"{curl_command('web-7')} | grep -F 'Then {pushed}'")
    require_equal(query_as_app("web-7", "select number from kept"), "42", "the rows after a push")
    wait_until_idle()
    doctor()

with subtest("everything else is restored although a database cannot be loaded, from borg"):
    query_as_app("web-7", "create function odd(int) returns bool language sql as 'select true'")
    query_as_app("web-7", "create table poisoned (number int check (odd(number)))")
    query_as_app("web-7", "insert into poisoned values (1)")
    query_as_app("web-7", "create or replace function odd(int) returns bool language sql as 'select false'")
    back_up("--quiet")
    machine.succeed(f"{BORG} init --encryption=none", f"{BORG} create ::set {SET}/set", timeout=120)
    lose_host()
    machine.succeed(f"cd / && {BORG} extract ::set", timeout=120)
    printed = machine.succeed(f"innkeeper restore --from {SET} 2>&1", timeout=120)
    require("web-7 is not restored, because its database cannot be loaded" in printed, f"the output names it: {printed}")
    wait_for_state("web", "running")
    require_files_of_web()
    pushed = commit("change", app("Again @commit@, prepared @count@ times."))
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", pushed)
    require_equal(query_as_app("web-7", "select count(*) from pg_tables where tablename in ('kept', 'poisoned')"), "0", "its tables")
    wait_until_idle()
    doctor()

with subtest("the preview is removed with its pull request"):
    deliver_event(7, "change", "closed")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    require("preview_web_7" not in sql("select rolname from pg_roles"), "the restored role is removed with the preview")
