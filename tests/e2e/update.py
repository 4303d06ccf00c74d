"""A preview update that a power loss interrupts is completed after it, with the preview's data.

Needs: previews.
Better with: power-loss.
"""

SLUG = "web-7"


def system(number: int) -> dict[str, str]:
    """Returns the files of an app with a different system for each number."""
    files = app(f"Version {number} of @commit@.")
    files["preview-config.nix"] = files["preview-config.nix"].replace(
        "  users.users.preview", f'  environment.etc.version.text = "{number}";\n  users.users.preview', 1
    )
    return files


def boot_again() -> None:
    """Boots after a power loss, and restarts GitHub and the internet."""
    machine.start()
    # The daemon is stopped until the fake GitHub has the repository again: the real one never loses it.
    machine.succeed("systemctl stop innkeeperd.service")
    start_internet()
    start_github()
    set_pull_request(7, "change")
    machine.succeed("systemctl start innkeeperd.service")


boot_with_previews()
with subtest("a preview with data"):
    sha = commit("change", system(0))
    deliver_event(7, "change", "opened")
    wait_for_preview(SLUG, "live", sha)
    require_equal(browse(SLUG), f"Version 0 of {sha}.", "the page")
    query_as_app(SLUG, "create table kept (number int); insert into kept values (42)")
    machine.succeed(f"preview exec {SLUG} -- sh -c 'echo kept > /home/kept; sync'")
    address, slot = guest_of(SLUG)["guest_address"], guest_of(SLUG)["slot"]
    doctor()

# The visible progress of an update.
record = f"curl --silent --unix-socket /run/innkeeper/api.sock http://localhost/v1/guests/{SLUG}"
MOMENTS = {
    "after it was accepted": "true",
    "after the new system is recorded": f'test "$({record} | jq -r .closure)" != {{closure}}',
    "after the guest runs from it": f'leader=$(machinectl show --value --property=Leader {SLUG}) && test "$leader" -ne {{leader}}',
}

for number, (when, moment) in enumerate(MOMENTS.items(), 1):
    with subtest(f"a power loss {when}"):
        was = {"closure": guest_of(SLUG)["closure"], "leader": leader(SLUG)}
        sha = commit("change", system(number))
        machine.succeed("sync")
        deliver_event(7, "change", "synchronize")
        machine.succeed(f"until {moment.format(**was)}; do :; done 2> /dev/null", timeout=60)
        machine.crash()
        boot_again()
        wait_for_preview(SLUG, "live", sha)
        # A version that was live before may still be starting.
        machine.wait_until_succeeds(f"{curl_command(SLUG)} | grep -Fx 'Version {number} of {sha}.'")
        require_equal(machine.succeed(f"preview exec {SLUG} -- cat /etc/version"), str(number), "the system")
        require_equal(machine.succeed(f"preview exec {SLUG} -- cat /home/kept"), "kept\n", "a file of the guest")
        require_equal(query_as_app(SLUG, "select number from kept"), "42", "the app's data")
        require_equal((guest_of(SLUG)["guest_address"], guest_of(SLUG)["slot"]), (address, slot), "the address, the slot")
        wait_until_idle()
        doctor()
