"""The lifecycle of a preview with a database: opened, updated, closed. One from a fork waits for approval.

Needs: previews.
"""


def traces_of_previews() -> set[str]:
    """Objects that previews may leave in addition to those of guests."""
    found = sql("select datname from pg_database union select rolname from pg_roles").split()
    files = machine.succeed("find /etc/caddy/previews /var/lib/innkeeper-routes -type f").split()
    return traces() | set(found) | set(files)


def comments() -> str:
    """Returns the comments on the pull requests."""
    return json.dumps(json.loads(github_request("GET", "/repos/octo/web"))["comments"])


def configurations_read() -> int:
    """Returns how often the configuration of a commit was requested."""
    return sum("/git/blobs/" in request["path"] for request in json.loads(github_request("GET", "/requests")))


def address_in(slug: str, name: str) -> str:
    """Returns the address that a name has for the programs of a preview's guest."""
    found = machine.succeed(f"preview exec {slug} -- nslookup {name}")
    return str(found.rsplit("Address:", 1)[-1].split()[0])


def fetch_in(slug: str, host: str) -> str:
    """Returns the page of a preview, as a program of a preview's guest sees it."""
    # The guest does not have the authority's certificate.
    return machine.succeed(f"preview exec {slug} -- wget -q -O - --no-check-certificate https://{host}.{DOMAIN}/")


def name_servers(slug: str) -> list[str]:
    """Returns the name servers of a preview's guest."""
    lines = machine.succeed(f"preview exec {slug} -- cat /etc/resolv.conf").splitlines()
    return [line.split()[1] for line in lines if line.startswith("nameserver ")]


boot_with_previews()
start_name_server()
with subtest("the host is ready"):
    # The firewall follows the change of the name servers.
    machine.wait_until_succeeds("innkeeper doctor")
    doctor()
    machine.succeed(f"curl --fail --silent --cacert {AUTHORITY} --resolve webhook.{DOMAIN}:443:127.0.0.1 "
                    f"https://webhook.{DOMAIN}/health")
    # The first preview creates the shared objects.
    first = commit("first", app())
    deliver_event(1, "first", "opened")
    wait_for_preview("web-1", "live", first)
    deliver_event(1, "first", "closed")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    wait_until_idle()
    before = traces_of_previews()

with subtest("opened: a page, over TLS"):
    sha = commit("change", app())
    deliver_event(7, "change", "opened")
    wait_for_preview("web-7", "live", sha)
    require_equal(browse("web-7"), f"Branch change, commit {sha}, prepared 1 times.", "the page")
    require(f"https://web-7.{DOMAIN}" in comments(), f"the comments: {comments()}")
    require_equal(guest_of("web-7")["state"], "running", "its guest")
    doctor()

with subtest("it reaches its own URL through its gateway, although the name leads elsewhere"):
    gateway = guest_of("web-7")["host_address"]
    require_equal(name_servers("web-7"), [gateway, INTERNET], "its name servers")
    require_equal(address_in("web-7", f"web-7.{DOMAIN}"), gateway, "the address of its own host")
    require_equal(fetch_in("web-7", "web-7"), browse("web-7"), "its own page")
    for name in (f"web-8.{DOMAIN}", "example.org"):
        require_equal(address_in("web-7", name), INTERNET, f"the address of {name}")

with subtest("the resolver is dead, and names have the addresses that they have outside"):
    # systemd starts it again after a second otherwise.
    drop_in = "/run/systemd/system/innkeeper-dns.service.d"
    machine.succeed(
        f"mkdir -p {drop_in} && printf '[Service]\nRestartSec=1h\n' > {drop_in}/later.conf && systemctl daemon-reload",
        "systemctl kill --signal=KILL innkeeper-dns.service",
    )
    require_equal(name_servers("web-7"), [gateway, INTERNET], "its name servers")
    for name in (f"web-7.{DOMAIN}", "example.org"):
        require_equal(address_in("web-7", name), INTERNET, f"the address of {name}")
    report = json.loads(machine.succeed("innkeeper doctor --json || true"))
    verdicts = [check["verdict"] for check in report["checks"] if check["subject"] == "resolver"]
    require_equal(verdicts, ["broken"], "doctor's verdict")
    # Stopped on purpose, it is no name server of guests; started again, it is.
    machine.succeed(f"rm -r {drop_in} && systemctl daemon-reload && systemctl stop innkeeper-dns.service")
    machine.wait_until_succeeds(f"! preview exec web-7 -- grep -qxF 'nameserver {gateway}' /etc/resolv.conf")
    machine.succeed("systemctl start innkeeper-dns.service")
    machine.wait_until_succeeds(f"preview exec web-7 -- grep -qxF 'nameserver {gateway}' /etc/resolv.conf")
    require_equal(fetch_in("web-7", "web-7"), browse("web-7"), "its own page")

with subtest("unchanged for a minute, it is settled, with and without the resolver"):
    link = f"/run/innkeeper-dns/table/hosts/web-7.{DOMAIN}/settled"
    machine.wait_until_succeeds(f"runuser -u caddy -- test -e {link}", timeout=120)
    text = f"Branch change, commit {sha}, prepared 1 times."
    require_equal(browse("web-7"), text, "the page")
    # It crashes, and does not start again.
    machine.succeed(
        f"mkdir -p {drop_in} && printf '[Service]\nRestartSec=1h\n' > {drop_in}/later.conf && systemctl daemon-reload",
        "systemctl kill --kill-whom=main --signal=KILL innkeeper-dns.service",
    )
    machine.wait_until_succeeds("! test -e /run/innkeeper-dns/table")
    require_equal(browse("web-7"), text, "the page after a crash")
    machine.succeed("test -e /run/innkeeper-dns/listening")
    machine.succeed(f"rm -r {drop_in} && systemctl daemon-reload && systemctl stop innkeeper-dns.service")
    machine.fail(f"test -e {link}")
    require_equal(browse("web-7"), text, "the page without the resolver")
    machine.succeed("systemctl start innkeeper-dns.service")
    machine.wait_until_succeeds(f"test -e {link}")
    require_equal(browse("web-7"), text, "the page with the resolver")

with subtest("its database is its own"):
    query_as_app("web-7", "create table kept (number int); insert into kept values (42)")
    require_equal(query_as_app("web-7", "select current_user"), "preview_web_7", "the app's role")
    address = database_url("web-7").replace("/preview_web_7", "/postgres")
    machine.fail(f"nsenter --target {leader('web-7')} --net -- psql {shlex.quote(address)} --command='select 1'")

with subtest("paused and asleep: a request wakes it"):
    machine.succeed("preview pause web-7")
    require_equal(guest_of("web-7")["state"], "paused", "its guest")
    # The worker looks at it, and leaves it.
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_idle()
    require_equal(guest_of("web-7")["state"], "paused", "its guest")
    machine.succeed("preview list | grep -q 'web-7 *paused'")
    require_equal(browse("web-7"), f"Branch change, commit {sha}, prepared 1 times.", "the page")
    machine.wait_until_succeeds("preview list | grep -q 'web-7 *live'")
    was = leader("web-7")
    machine.succeed("preview sleep web-7")
    require_equal(guest_of("web-7")["state"], "asleep", "its guest")
    # Crawlers do not.
    require("asleep" in browse("web-7", "--user-agent Googlebot/2.1"), "the response names the level")
    status = curl_command("web-7", "--user-agent Googlebot/2.1 --output /dev/null --write-out '%{http_code}'")
    require_equal(machine.succeed(status), "503", "the status")
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_idle()
    require("asleep" in machine.succeed("preview explain web-7 || true"), "the explanation")
    require_equal(guest_of("web-7")["state"], "asleep", "its guest")
    slow = curl_command("web-7", "--fail --max-time 100")
    machine.succeed(f"systemd-run --quiet --unit=wakes sh -c {shlex.quote(slow + ' > /run/wakes')}")
    machine.wait_until_succeeds("! preview list | grep -q 'web-7 *asleep'")
    # The program that holds the request dies: it is held again.
    machine.succeed("systemctl kill --kill-whom=main --signal=KILL innkeeper-pages.service")
    # The setup service runs in a guest that was started, as after `preview start`.
    machine.wait_until_succeeds(f"grep -qF 'Branch change, commit {sha}, prepared 2 times.' /run/wakes")
    require(leader("web-7") != was, "it was started")
    # A command wakes it too, and a push in the next test.
    machine.succeed("preview pause web-7", "preview exec web-7 -- true")
    require_equal(guest_of("web-7")["state"], "running", "its guest")
    machine.succeed("preview pause web-7")

with subtest("pushed to: the same guest has the new page"):
    was = leader("web-7")
    sha = commit("change", app("Now @commit@, prepared @count@ times."))
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", sha)
    require_equal(browse("web-7"), f"Now {sha}, prepared 3 times.", "the page")
    require_equal(leader("web-7"), was, "the guest's first process")

with subtest("pushed to, with another system: files, database and address stay"):
    address, closure = guest_of("web-7")["guest_address"], guest_of("web-7")["closure"]
    files = app("Then @commit@, prepared @count@ times.")
    files["preview-config.nix"] = files["preview-config.nix"].replace(
        "  users.users.preview", '  environment.etc.changed.text = "yes";\n  users.users.preview', 1
    )
    sha = commit("change", files)
    deliver_event(7, "change", "synchronize")
    wait_for_preview("web-7", "live", sha)
    require_equal(browse("web-7"), f"Then {sha}, prepared 4 times.", "the page")
    require(guest_of("web-7")["closure"] != closure, "it runs from another closure")
    require_equal(machine.succeed("preview exec web-7 -- cat /etc/changed"), "yes", "a file of the new system")
    require_equal(guest_of("web-7")["guest_address"], address, "the address")
    require_equal(query_as_app("web-7", "select number from kept"), "42", "the app's data")
    doctor()

with subtest("a fork's configuration is not read before its commit is approved"):
    read = configurations_read()
    theirs = commit("theirs", app("From a stranger: @commit@."))
    deliver_event(8, "theirs", "opened", "mallory")
    wait_for_preview("web-8", "waiting-for-approval", theirs)
    require_equal(configurations_read(), read, "the number of reads of a configuration")
    machine.fail("machinectl show web-8")
    require("web-8" not in sql("select datname from pg_database").replace("_", "-"), "it has no database")

with subtest("approved, it runs"):
    machine.succeed(f"preview approve web-8 --sha {theirs}")
    wait_for_preview("web-8", "live", theirs)
    require_equal(browse("web-8"), f"From a stranger: {theirs}.", "the page")
    # The next commit waits, and the approved one stays in service.
    later = commit("theirs", app("Worse."))
    deliver_event(8, "theirs", "synchronize", "mallory")
    wait_for_preview("web-8", "waiting-for-approval", later)
    require_equal(browse("web-8"), f"From a stranger: {theirs}.", "the page")

with subtest("closed: nothing is left"):
    deliver_event(8, "theirs", "closed", "mallory")
    deliver_event(7, "change", "closed")
    machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    wait_until_idle()
    now = traces_of_previews()
    require_equal((sorted(now - before), sorted(before - now)), ([], []), "leaked, lost")
    require_equal(browse("web-7", "--output /dev/null --write-out '%{http_code}'"), "404", "the status of its URL")
    doctor()
