"""A daemon that is killed in the middle of creating or destroying a guest ends what it began.

The points are those of crates/innkeeperd/tests/e2e/crash.rs, of which these are the ones where systemd has
a part; a release has none of them.

Needs: debug-build.
"""

# Where to kill it, for each kind of guest; those with systemd take longer, and differ only while they stop.
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
    """Runs a command of which the daemon is killed at a point, and starts the daemon again."""
    machine.succeed(f"echo INNKEEPER_CRASH_AT={point} > {POINT}; systemctl restart innkeeperd.service")
    # The caller waits until the daemon is back, and need not.
    machine.succeed(f"systemd-run --quiet --collect {command}")
    machine.wait_until_succeeds("systemctl is-failed --quiet innkeeperd.service")
    same(machine.get_unit_property("innkeeperd.service", "Result"), "signal", f"how the daemon ended at {point}")
    machine.succeed(f"rm {POINT}; systemctl reset-failed innkeeperd.service; systemctl start innkeeperd.service")
    wait_until_quiet()


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
            same(guest("web")["state"], "running", "the state")
            machine.wait_for_open_port(80, guest("web")["guest_address"])
            doctor()
            machine.succeed("agent destroy web")
            nothing_left(before)
    for point in DESTROY[kind]:
        with subtest(f"{kind}: {point}"):
            create("web", kind)
            killed_at(point, "agent destroy web")
            same(guests(), {}, "the guests")
            doctor()
            nothing_left(before)

    for point in STOP[kind]:
        with subtest(f"{kind}: {point}"):
            create("web", kind)
            killed_at(point, "agent stop web")
            same(guest("web")["state"], "stopped", "the state")
            doctor()
            machine.succeed("agent destroy web")
            nothing_left(before)

with subtest("nspawn of a guest is killed"):
    # Its processes would continue, and no supervisor would report their exit.
    web = create("web")
    nspawn = machine.get_unit_property(unit("web"), "MainPID")
    first = leader("web")
    machine.succeed(f"kill -KILL {nspawn}")
    machine.wait_until_succeeds(f"! test -d /proc/{first}")
    wait_until_quiet()
    wait_for_state("web", "running")
    machine.wait_for_open_port(80, web["guest_address"])
    machine.succeed("agent destroy web")
    nothing_left(before)
