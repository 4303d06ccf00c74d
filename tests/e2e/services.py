"""Pages and databases of previews work after restarts of Caddy and PostgreSQL, also while the daemon is down.

Needs: previews.
"""

SLUG = "web-1"


def require_preview_works(when: str) -> None:
    """Fails unless the page and the database have the expected content."""
    global count
    count += 1
    machine.wait_until_succeeds(f"curl --silent --fail --cacert {AUTHORITY} --resolve {SLUG}.{DOMAIN}:443:127.0.0.1 "
                                f"https://{SLUG}.{DOMAIN}/ | grep -F {sha}")
    require_equal(leader(SLUG), first, f"the guest's first process {when}")
    query_as_app(SLUG, f"insert into kept values ({count})")
    require_equal(query_as_app(SLUG, "select count(*) from kept"), str(count), f"the app's data {when}")
    doctor()


boot_with_previews()
sha = commit("change", app())
deliver_event(1, "change", "opened")
wait_for_preview(SLUG, "live", sha)
query_as_app(SLUG, "create table kept (number int)")
first, count = leader(SLUG), 0
require_preview_works("at first")

for unit_name in ("caddy.service", "postgresql.service", "innkeeper-webhook.service"):
    with subtest(f"{unit_name} is restarted"):
        machine.succeed(f"systemctl restart {unit_name}")
        machine.wait_for_unit(unit_name)
        require_preview_works(f"after a restart of {unit_name}")

with subtest("Caddy is restarted while the daemon is down"):
    machine.succeed("systemctl stop innkeeperd.service", "systemctl restart caddy.service")
    machine.wait_for_unit("caddy.service")
    machine.wait_until_succeeds(f"curl --silent --fail --cacert {AUTHORITY} --resolve {SLUG}.{DOMAIN}:443:127.0.0.1 "
                                f"https://{SLUG}.{DOMAIN}/ | grep -F {sha}")
    machine.succeed("systemctl start innkeeperd.service")
    require_preview_works("after the daemon was down")

with subtest("a push while both are down is deployed after their start"):
    machine.succeed("systemctl stop postgresql.service")
    sha = commit("change", app("Later: @commit@."))
    deliver_event(1, "change", "synchronize")
    machine.succeed("systemctl stop caddy.service", "systemctl start postgresql.service caddy.service")
    wait_for_preview(SLUG, "live", sha)
    require_preview_works("after both were down")

with subtest("a pull request closed while PostgreSQL is down is cleaned up after its start"):
    machine.succeed("systemctl stop postgresql.service")
    deliver_event(1, "change", "closed")
    machine.wait_until_fails(f"machinectl show {SLUG}")
    machine.succeed("systemctl start postgresql.service")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    require("preview_" not in sql("select datname from pg_database union select rolname from pg_roles"), "its database is gone")
    doctor()
