"""Guests are restored after a reboot and after a crash of the host.

Needs: nothing.
Better with: power-loss.
"""


def persistent_state() -> dict[str, object]:
    """Returns the state that must survive the reboot."""
    return {name: (view["state"], view["guest_address"], view["interface"]) for name, view in guests().items()}


def require_restored(when: str) -> None:
    """Fails unless the guests are restored."""
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    require_equal(persistent_state(), before, f"the guests {when}")
    for name in ("web", "full"):
        machine.wait_for_open_port(80, guest(name)["guest_address"])
        require_equal(page(guest(name)["guest_address"]), f"{name} was here\n", f"the page of {name} {when}")
        machine.require_unit_state(unit(name))
    machine.fail("machinectl show quiet")
    doctor()


boot()
for name, kind in {"web": PLAIN, "full": SYSTEMD, "gone": PLAIN, "quiet": PLAIN}.items():
    create(name, kind)
    machine.succeed(f"agent exec {name} -- sh -c 'echo {name} was here > /var/www/index.html; sync'")
machine.succeed("agent stop quiet", "agent destroy gone")
before = persistent_state()
# An orderly reboot, then a loss of power. Unsynced data is not part of this test.
for end, when in ((machine.shutdown, "after a reboot"), (machine.crash, "after a crash")):
    with subtest(when):
        end()
        machine.start()
        require_restored(when)

with subtest("the daemon sees guests end while the host shuts down"):
    drop_in = "/run/systemd/system/innkeeper.service.d"
    order = f"[Unit]\\nBefore={unit('web')} {unit('full')}\\n"
    # Units stop in reverse order. The directory does not outlive the reboot.
    machine.succeed(f"mkdir -p {drop_in} && printf '{order}' > {drop_in}/last.conf && systemctl daemon-reload")
    seen = json.loads(machine.succeed("innkeeper events --json | tail -n 1"))["seq"]
    machine.shutdown()
    machine.start()
    require_restored("after guests ended before the daemon")
    events = [json.loads(line) for line in machine.succeed(f"innkeeper events --json --after {seen}").splitlines()]
    ended = [event for event in events if event["event"] in ("exited", "failed")]
    require_equal(ended, [], "the recorded ends and failures")

with subtest("a crash while guests are restored"):
    machine.crash()
    machine.start()
    machine.crash()
    machine.start()
    require_restored("after two crashes")

with subtest("a crash in the middle of creating and destroying"):
    machine.succeed(
        f"agent build '{attribute(SYSTEMD)}'",
        f"systemd-run --quiet agent create next --flake '{attribute(SYSTEMD)}'",
        "systemd-run --quiet agent destroy quiet",
        # Waits until both are accepted: then they are on the disk.
        "until innkeeper events --json | jq -se '[.[] | .guest] | index(\"next\")'; do :; done",
        "until agent list --json | jq -e 'all(.[]; .name != \"quiet\" or .state == \"destroying\")'; do :; done",
    )
    machine.crash()
    machine.start()
    machine.wait_for_unit("innkeeperd.service")
    wait_until_idle()
    require_equal(sorted(guests()), ["full", "next", "web"], "the guests")
    machine.wait_for_open_port(80, guest("next")["guest_address"])
    doctor()

machine.succeed("agent destroy web full next")
require_equal(guests(), {}, "the guests")
doctor()
