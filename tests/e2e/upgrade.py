"""Running guests and their connections survive an upgrade of the daemon.

Needs: previews.
"""

NEWER = "/var/lib/newer"
DROP_IN = "/run/systemd/system/innkeeperd.service.d"

boot_with_previews()
web, full = create("web"), create("full", SYSTEMD)
sha = commit("change", app())
deliver_event(1, "change", "opened")
wait_for_preview("web-1", "live", sha)
names = ("web", "full", "web-1")
leaders = {name: leader(name) for name in names}
running = machine.get_unit_property("innkeeperd.service", "MainPID")
program = machine.succeed(f"readlink /proc/{running}/exe").strip()

with subtest("a connection into a guest"):
    machine.succeed("agent exec --detach web -- nc -ll -p 7 -e cat")
    machine.wait_for_open_port(7, web["guest_address"])
    machine.succeed(
        "mkfifo /run/talk.in",
        f"systemd-run --quiet --unit=talk bash -c 'exec 3<> /dev/tcp/{web['guest_address']}/7 4<> /run/talk.in; "
        "cat <&4 >&3 & exec cat <&3 > /run/talk.out'",
    )

with subtest("an upgrade replaces the program file while it runs"):
    for build in ("second", "third"):
        machine.succeed(
            f"mkdir -p {NEWER} {DROP_IN}",
            # With the same file name; written under another name and renamed, as installers do.
            f"cp {program} {NEWER}/innkeeperd.new && echo {build} >> {NEWER}/innkeeperd.new",
            f"mv {NEWER}/innkeeperd.new {NEWER}/innkeeperd",
            f"printf '[Service]\\nExecStart=\\nExecStart={NEWER}/innkeeperd --config /etc/innkeeper/config.toml\\n' > {DROP_IN}/newer.conf",
            "systemctl daemon-reload",
            "systemctl restart innkeeperd.service",
        )
        now = machine.get_unit_property("innkeeperd.service", "MainPID")
        require_equal(machine.succeed(f"readlink /proc/{now}/exe").strip(), f"{NEWER}/innkeeperd", "the running program")
        require_equal(machine.succeed(f"tail --bytes {len(build) + 1} /proc/{now}/exe").strip(), build, "the running build")
        wait_until_idle()
        require_equal({name: leader(name) for name in names}, leaders, "the guests' first processes")
        machine.succeed(f"echo {build} > /run/talk.in")
        machine.wait_until_succeeds(f"grep -qx {build} /run/talk.out")
        machine.require_unit_state("talk.service")
        require(sha in browse("web-1"), "the preview's page")
        doctor()

with subtest("the new daemon adopts all existing objects"):
    machine.succeed("systemctl stop talk.service")
    machine.succeed("agent exec full -- true", "agent stop web", "agent start web")
    machine.wait_for_open_port(80, web["guest_address"])
    sha = commit("change", app("Newer: @commit@."))
    deliver_event(1, "change", "synchronize")
    wait_for_preview("web-1", "live", sha)
    machine.succeed("agent destroy web full")
    deliver_event(1, "change", "closed")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    doctor()
