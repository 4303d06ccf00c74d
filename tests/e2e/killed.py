"""A daemon that is killed while it creates or destroys a guest completes the operation after its restart.

The crash points are those of crates/innkeeperd/tests/e2e/crash.rs that involve systemd. Release builds have none.

Needs: debug-build.
"""

# The crash points for each kind of guest. Guests with systemd take longer, and differ only while they stop.
CREATE = {
    PLAIN: (
        "create:ensure-unit:before",
        "create:ensure-unit:after",
        "create:ensure-network:after",
        "create:release:after",
    ),
    SYSTEMD: ("create:ensure-unit:after",),
}
STOP = {PLAIN: ("stop:stop-unit:after", "stop:remove-unit:after"), SYSTEMD: ("stop:stop-unit:before",)}
DESTROY = {
    PLAIN: (
        "destroy:remove-unit:before",
        "destroy:remove-unit:after",
        "destroy:forget:before",
        "destroy:finish:before",
    ),
    SYSTEMD: ("destroy:remove-unit:before",),
}
POINT = "/run/crash-at"


def killed_at(point: str, command: str) -> None:
    """Runs a command during which the daemon is killed at a point, and restarts the daemon."""
    machine.succeed(f"echo INNKEEPER_CRASH_AT={point} > {POINT}; systemctl restart innkeeperd.service")
    # In the background, because the command waits for the daemon.
    machine.succeed(f"systemd-run --quiet --collect {command}")
    machine.wait_until_succeeds("systemctl is-failed --quiet innkeeperd.service")
    require_equal(machine.get_unit_property("innkeeperd.service", "Result"), "signal", f"the daemon's exit at {point}")
    machine.succeed(f"rm {POINT}; systemctl reset-failed innkeeperd.service; systemctl start innkeeperd.service")
    wait_until_idle()


boot()
machine.succeed(
    "mkdir -p /run/systemd/system/innkeeperd.service.d",
    f"printf '[Service]\\nRestart=no\\nEnvironmentFile=-{POINT}\\n' "
    "> /run/systemd/system/innkeeperd.service.d/crash.conf",
    "systemctl daemon-reload",
)
create("web")
machine.succeed("agent destroy web")
before = traces()

for kind in (PLAIN, SYSTEMD):
    for point in CREATE[kind]:
        with subtest(f"{kind}: {point}"):
            killed_at(point, f"agent create web --flake '{attribute(kind)}'")
            require_equal(guest("web")["state"], "running", "the state")
            machine.wait_for_open_port(80, guest("web")["guest_address"])
            doctor()
            machine.succeed("agent destroy web")
            require_no_leaks(before)
    for point in DESTROY[kind]:
        with subtest(f"{kind}: {point}"):
            create("web", kind)
            killed_at(point, "agent destroy web")
            require_equal(guests(), {}, "the guests")
            doctor()
            require_no_leaks(before)

    for point in STOP[kind]:
        with subtest(f"{kind}: {point}"):
            create("web", kind)
            killed_at(point, "agent stop web")
            require_equal(guest("web")["state"], "stopped", "the state")
            doctor()
            machine.succeed("agent destroy web")
            require_no_leaks(before)

with subtest("nspawn of a guest is killed"):
    # Its processes would continue, and no supervisor would report their exit.
    web = create("web")
    nspawn = machine.get_unit_property(unit("web"), "MainPID")
    first = leader("web")
    machine.succeed(f"kill -KILL {nspawn}")
    machine.wait_until_succeeds(f"! test -d /proc/{first}")
    wait_until_idle()
    wait_for_state("web", "running")
    machine.wait_for_open_port(80, web["guest_address"])
    machine.succeed("agent destroy web")
    require_no_leaks(before)
