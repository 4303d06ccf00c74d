"""A preview whose update a loss of power interrupts is updated after it, and keeps its data.

Needs: previews.
Better with: power-loss.
"""

SLUG = "web-7"


def system(number: int) -> dict[str, str]:
    """The files of an app whose system is another one for each number."""
    files = app(f"Version {number} of @commit@.")
    files["preview-config.nix"] = files["preview-config.nix"].replace(
        "  users.users.preview", f'  environment.etc.version.text = "{number}";\n  users.users.preview', 1
    )
    return files


def up_again() -> None:
    """Boots after a loss of power, and has GitHub and the internet there again."""
    machine.start()
    # GitHub never forgets a repository, not even for the moment that it takes here.
    machine.succeed("systemctl stop innkeeperd.service")
    start_internet()
    start_github()
    describe(7, "change")
    machine.succeed("systemctl start innkeeperd.service")


boot_with_previews()
with subtest("a preview with data"):
    sha = commit("change", system(0))
    pull(7, "change", "opened")
    wait_for_preview(SLUG, "live", sha)
    same(browse(SLUG), f"Version 0 of {sha}.", "the page")
    ask_as_app(SLUG, "create table kept (number int); insert into kept values (42)")
    machine.succeed(f"preview exec {SLUG} -- sh -c 'echo kept > /home/kept; sync'")
    address, slot = guest_of(SLUG)["guest_address"], guest_of(SLUG)["slot"]
    doctor()

# The visible progress of an update.
record = f"curl --silent --unix-socket /run/innkeeper/api.sock http://localhost/v1/guests/{SLUG}"
MOMENTS = {
    "when it was accepted": "true",
    "when the new system is known": f'test "$({record} | jq -r .closure)" != {{closure}}',
    "when the guest runs from it": f'leader=$(machinectl show --value --property=Leader {SLUG}) && test "$leader" -ne {{leader}}',
}

for number, (when, moment) in enumerate(MOMENTS.items(), 1):
    with subtest(f"a loss of power {when}"):
        was = {"closure": guest_of(SLUG)["closure"], "leader": leader(SLUG)}
        sha = commit("change", system(number))
        machine.succeed("sync")
        pull(7, "change", "synchronize")
        machine.succeed(f"until {moment.format(**was)}; do :; done 2> /dev/null", timeout=60)
        machine.crash()
        up_again()
        wait_for_preview(SLUG, "live", sha)
        # A version that was live before may still be starting.
        machine.wait_until_succeeds(f"{look(SLUG)} | grep -Fx 'Version {number} of {sha}.'")
        same(machine.succeed(f"preview exec {SLUG} -- cat /etc/version"), str(number), "the system")
        same(machine.succeed(f"preview exec {SLUG} -- cat /home/kept"), "kept\n", "a file of the guest")
        same(ask_as_app(SLUG, "select number from kept"), "42", "what the app has kept")
        same((guest_of(SLUG)["guest_address"], guest_of(SLUG)["slot"]), (address, slot), "the address, the slot")
        wait_until_quiet()
        doctor()
