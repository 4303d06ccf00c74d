"""Agents on thin volumes are backed up while they run, and restored on a host that has lost them.

Needs: device-mapper.
"""

SET = "/var/lib/innkeeper-backup"


def volumes() -> list[str]:
    """Returns the names of the guests' volumes in the group, complete or not."""
    names = machine.succeed("lvs --noheadings --options lv_name pool 2> /dev/null").split()
    return sorted(name for name in names if name.startswith("innkeeper-") and not name.startswith("innkeeper-template-"))


def as_agent(name: str, command: str) -> str:
    """Runs a command in an agent and returns its output."""
    return machine.succeed(f"agent exec {name} -- sh -c {shlex.quote(command)}")


boot()
with subtest("a host with thin volumes, a running and a stopped agent"):
    use_thin_volumes()
    before = traces()
    create("web")
    create("stopped")
    as_agent("stopped", "echo kept > /home/notes")
    machine.succeed("agent stop stopped")
    as_agent("web", "cd /home; echo kept > notes; ln notes same; chmod 4751 notes; mkdir other; chown 1000:100 other; echo here > /var/www/index.html")
    closures = {name: guest(name)["closure"] for name in ("web", "stopped")}
    slots = {name: guest(name)["slot"] for name in ("web", "stopped")}

with subtest("a backup does not suspend the agent, and leaves no volume"):
    pid = leader("web")
    output = machine.succeed("innkeeper backup", timeout=300)
    require("web: " in output and "suspended" not in output, f"web was not suspended: {output}")
    require_equal(volumes(), ["innkeeper-guest-stopped", "innkeeper-guest-web"], "the volumes after a backup")
    require_equal(leader("web"), pid, "the first process of web")
    files = f"{SET}/set/guests/web/rootfs/home"
    require_equal(machine.succeed(f"stat -c '%a %u %h' {files}/notes").split(), ["4751", "0", "2"], "a file in the set")
    doctor()

with subtest("the agents are lost and restored on volumes"):
    machine.succeed("agent destroy --now web stopped")
    wait_until_idle()
    require_equal(volumes(), [], "the volumes of no agent")
    machine.succeed("innkeeper restore", timeout=300)
    wait_for_state("web", "running")
    machine.wait_for_open_port(80, guest("web")["guest_address"])
    require_equal(page(guest("web")["guest_address"]), "here\n", "the page of web")
    seen = as_agent("web", "cat /home/notes /home/same; stat -c '%a %u %h' /home/notes; stat -c '%u %g' /home/other")
    require_equal(seen, "kept\nkept\n4751 0 2\n1000 100\n", "the files of web")
    require_equal(guest("stopped")["state"], "stopped", "the state of stopped")
    require_equal({name: guest(name)["slot"] for name in slots}, slots, "the slots")
    require_equal({name: guest(name)["closure"] for name in closures}, closures, "the closures")
    require_equal(volumes(), ["innkeeper-guest-stopped", "innkeeper-guest-web"], "the volumes")
    machine.succeed("agent start stopped")
    require_equal(as_agent("stopped", "cat /home/notes"), "kept\n", "the file of stopped")
    doctor()

with subtest("a daemon that is killed during a copy removes its temporary snapshot"):
    as_agent("web", "head -c 60000000 /dev/urandom > /home/large")
    machine.succeed(
        "systemd-run --quiet --unit=backup innkeeper backup",
        f"until test -e {SET}/.innkeeper-new/guests/web/rootfs/home/large; do :; done 2> /dev/null",
        "systemctl kill --signal=KILL innkeeperd.service",
        timeout=120,
    )
    machine.wait_until_succeeds("innkeeper status")
    machine.wait_until_succeeds(f"! test -e {SET}/.innkeeper-new")
    wait_until_idle()
    require_equal(volumes(), ["innkeeper-guest-stopped", "innkeeper-guest-web"], "the volumes")
    doctor()

with subtest("a disk without space for another set is refused, and the former set stays"):
    created = json.loads(machine.succeed(f"cat {SET}/set/manifest.json"))["created_at"]
    machine.succeed("mkdir -m 700 /srv/small && mount -t tmpfs -o size=16M,mode=700 none /srv/small")
    refused = machine.fail("innkeeper backup --to /srv/small 2>&1")
    require("MiB left" in refused, f"refused before anything is copied: {refused}")
    require_equal(machine.succeed("ls -A /srv/small"), "", "what is left on the full disk")
    machine.succeed("umount /srv/small")
    require_equal(json.loads(machine.succeed(f"cat {SET}/set/manifest.json"))["created_at"], created, "the former set")

with subtest("a destroy cancels the copy of its agent, and the others are in the set"):
    machine.succeed(
        "systemd-run --quiet --unit=copy innkeeper backup",
        f"until test -e {SET}/.innkeeper-new/guests/web/rootfs/home/large; do :; done 2> /dev/null",
        "agent destroy --now web",
        timeout=120,
    )
    machine.wait_until_succeeds("! systemctl is-active copy.service")
    found = json.loads(machine.succeed(f"cat {SET}/set/manifest.json"))
    require_equal([one["name"] for one in found["guests"]], ["stopped"], "the guests in the set")
    require_equal((found["missing"], volumes()), ([], ["innkeeper-guest-stopped"]), "what is missing, and the volumes")

machine.succeed("agent destroy --now stopped")
wait_until_idle()
doctor()
require_no_leaks(before)
