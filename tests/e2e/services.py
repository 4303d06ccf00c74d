"""Caddy and PostgreSQL are restarted beside previews: pages and databases are there again, without the daemon's help too.

Needs: previews.
"""

SLUG = "web-1"


def all_works(when: str) -> None:
    """Fails unless the page and the database are what they were, and a new version comes."""
    global count
    count += 1
    machine.wait_until_succeeds(f"curl --silent --fail --cacert {AUTHORITY} --resolve {SLUG}.{DOMAIN}:443:127.0.0.1 "
                                f"https://{SLUG}.{DOMAIN}/ | grep -F {sha}")
    same(leader(SLUG), first, f"the guest's first process {when}")
    ask_as_app(SLUG, f"insert into kept values ({count})")
    same(ask_as_app(SLUG, "select count(*) from kept"), str(count), f"what the app has kept {when}")
    doctor()


boot_with_previews()
sha = commit("change", app())
pull(1, "change", "opened")
wait_for_preview(SLUG, "live", sha)
ask_as_app(SLUG, "create table kept (number int)")
first, count = leader(SLUG), 0
all_works("at first")

for unit_name in ("caddy.service", "postgresql.service", "innkeeper-webhook.service"):
    with subtest(f"{unit_name} is restarted"):
        machine.succeed(f"systemctl restart {unit_name}")
        machine.wait_for_unit(unit_name)
        all_works(f"after a restart of {unit_name}")

with subtest("Caddy comes back while the daemon is away"):
    machine.succeed("systemctl stop innkeeperd.service", "systemctl restart caddy.service")
    machine.wait_for_unit("caddy.service")
    machine.wait_until_succeeds(f"curl --silent --fail --cacert {AUTHORITY} --resolve {SLUG}.{DOMAIN}:443:127.0.0.1 "
                                f"https://{SLUG}.{DOMAIN}/ | grep -F {sha}")
    machine.succeed("systemctl start innkeeperd.service")
    all_works("after the daemon was away")

with subtest("a push while both are away is there when they are back"):
    machine.succeed("systemctl stop postgresql.service")
    sha = commit("change", app("Later: @commit@."))
    pull(1, "change", "synchronize")
    machine.succeed("systemctl stop caddy.service", "systemctl start postgresql.service caddy.service")
    wait_for_preview(SLUG, "live", sha)
    all_works("after both were away")

with subtest("a pull request that is closed while PostgreSQL is away leaves nothing when it is back"):
    machine.succeed("systemctl stop postgresql.service")
    pull(1, "change", "closed")
    machine.wait_until_fails(f"machinectl show {SLUG}")
    machine.succeed("systemctl start postgresql.service")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    is_true("preview_" not in sql("select datname from pg_database union select rolname from pg_roles"), "its database is gone")
    doctor()
