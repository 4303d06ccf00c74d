"""Helpers of all scenarios. It is executed before each of them, in the same namespace.

A scenario also has `machine`, a host with the method names of the NixOS test driver on which innkeeperd is installed as a
unit, with the flake of tests/fixtures at /opt/innkeeper/guests; and `subtest`. With `Needs: previews`, the host also has
Caddy, PostgreSQL and /opt/innkeeper/previews: the app and the stand-in for nixpkgs of tests/fixtures, and on Debian the
script that prepares the host.
"""

import json
import shlex
from typing import Any

# Two kinds of guests. Process 1 is a shell script in the one, and systemd in the other.
PLAIN, SYSTEMD = "agent", "systemd"


def is_true(condition: object, what: str) -> None:
    """Fails with a reason unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def same(found: object, wanted: object, what: str) -> None:
    """Fails with both sides when they differ."""
    is_true(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def boot() -> None:
    """Boots the host and waits for the daemon."""
    machine.start()
    machine.wait_for_unit("innkeeperd.service")


def attribute(kind: str) -> str:
    """The flake output of a kind of guest."""
    return f"path:/opt/innkeeper/guests#{kind}"


def create(name: str, kind: str = PLAIN, options: str = "") -> dict[str, Any]:
    """Creates a guest and waits until its web server answers."""
    machine.succeed(f"agent create {name} --flake '{attribute(kind)}' --wait --wait-port 80 {options}")
    return guest(name)


def guests() -> dict[str, dict[str, Any]]:
    """All guests as the daemon sees them, by name."""
    return {view["name"]: view for view in json.loads(machine.succeed("agent list --json"))}


def guest(name: str) -> dict[str, Any]:
    """One guest as the daemon sees it."""
    return guests()[name]


def use_thin_volumes() -> None:
    """Has the daemon make guests of 256 MiB each, in a thin pool on the host's second disk."""
    config = "/etc/innkeeper/config.toml"
    # The second disk of this kind.
    disk = machine.succeed("ls --reverse /dev/vd[ab] | head -n 1").strip()
    machine.succeed(
        f"vgcreate --quiet pool {disk}",
        "lvcreate --quiet --yes --type thin-pool --size 1G --name thin pool",
        # The last section of the file is the one on storage.
        f"grep -q lvm-thin {config} || {{ printf 'driver = \"lvm-thin\"\nsize = \"256M\"\n' >> {config} && sync; }}",
        # The drop-in of docs/storage.md for the unit of `make install`.
        "! test -e /usr/local/share/innkeeper/lvm-thin.conf || install -D -m 644 -t /etc/systemd/system/innkeeper.service.d "
        "/usr/local/share/innkeeper/lvm-thin.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_quiet()


def unit(name: str) -> str:
    """The unit that is a guest."""
    return f"innkeeper-guest-{name}.service"


def page(address: str) -> str:
    """Returns the response of a guest's web server."""
    return machine.succeed(f"curl --silent --fail --max-time 10 http://{address}/")


def wait_for_state(name: str, state: str) -> None:
    """Waits until a guest is in a state."""
    machine.wait_until_succeeds(
        f"agent list --json | jq -e '.[] | select(.name == \"{name}\") | .state == \"{state}\"'"
    )


def wait_until_quiet() -> None:
    """Waits until the daemon answers and has nothing left to do."""
    machine.wait_until_succeeds(
        "innkeeper status --json | jq -e '.operations == []' && "
        "agent list --json | jq -e 'all(.[]; .state == \"running\" or .state == \"stopped\")'"
    )


def leader(name: str) -> int:
    """The guest's process 1, as machined knows it."""
    return int(machine.succeed(f"machinectl show --value --property=Leader {name}"))


def doctor() -> None:
    """Fails unless doctor finds nothing broken and nothing left over."""
    report = json.loads(machine.succeed("innkeeper doctor --json"))
    broken = [check for check in report["checks"] if check["verdict"] == "broken"]
    same(broken, [], "what doctor finds broken")
    orphans = json.loads(machine.succeed("innkeeper gc --dry-run --json"))["orphans"]
    same(orphans, [], "what belongs to no guest")


def traces() -> set[str]:
    """Everything on the host that a guest consists of, or that could be left over, as the host shows it."""
    return set(
        machine.succeed(
            """
            ip -json link | jq -r '.[] | "interface \\(.ifname)"'
            ip -json route | jq -r '.[] | "route \\(.dst)"'
            nft --json list ruleset | jq -c '.nftables[] | select(.rule or .element or .set) | del(.. | .handle?, .elem?, .counter?)'
            cut -d ' ' -f 5 /proc/1/mountinfo | sed 's/^/mount /'
            find /sys/fs/cgroup -type d -path '*innkeeper*guest*' | sed 's/^/cgroup /'
            busctl --json=short call org.freedesktop.machine1 /org/freedesktop/machine1 \
              org.freedesktop.machine1.Manager ListMachines | jq -r '.data[0][] | "machine \\(.[0])"'
            busctl --json=short call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
              org.freedesktop.systemd1.Manager ListUnitsByPatterns asas 0 1 'innkeeper-guest-*' |
              jq -r '.data[0][] | "unit \\(.[0])"'
            find /var/lib/innkeeper/guests /run/innkeeper/guests /run/systemd/nspawn /run/systemd/machines \
              -mindepth 1 2> /dev/null | grep -v '^/run/systemd/nspawn/\\(propagate\\|locks\\|unix-export\\)$' | sed 's/^/file /' || true
            find /nix/var/nix/gcroots/innkeeper -type l 2> /dev/null | sed 's/^/gc root /' || true
            pgrep --list-full systemd-nspawn | cut -d ' ' -f 2- | sed 's/^/process /' || true
            """
        ).splitlines()
    )


def nothing_left(before: set[str]) -> None:
    """Fails if an object appeared or disappeared since the snapshot."""
    now = traces()
    same(sorted(now - before), [], "left over")
    same(sorted(before - now), [], "lost")


# Previews. GitHub is played by innkeeper-fake-github, and the internet by one web server in a network of its own.

DOMAIN = "preview.example.org"
APP = "/opt/innkeeper/previews/app"
FAKE = "http://127.0.0.1:8099/_fake"
# The authority of Caddy's own, which `tls internal` means.
AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
DELIVERIES = f"""
http://127.0.0.1:8098 {{
	reverse_proxy https://127.0.0.1 {{
		header_up Host webhook.{DOMAIN}
		transport http {{
			tls_server_name webhook.{DOMAIN}
			tls_trusted_ca_certs {AUTHORITY}
		}}
	}}
}}
"""


def boot_with_previews() -> None:
    """Boots the host, and has it ready for previews: servers, GitHub, the internet."""
    boot()
    machine.succeed("! test -x /opt/innkeeper/previews/set-up || /opt/innkeeper/previews/set-up", timeout=180)
    machine.wait_for_unit("caddy.service")
    # The played GitHub delivers without TLS, so its deliveries take a way through Caddy to be encrypted.
    machine.wait_until_succeeds(f"test -e {AUTHORITY}")
    machine.succeed(f"printf %s {shlex.quote(DELIVERIES)} > /etc/caddy/previews/github.caddy", "systemctl reload caddy.service")
    machine.succeed(
        "git init --quiet --bare --initial-branch main /srv/git/web",
        "git clone --quiet /srv/git/web /srv/work 2> /dev/null",
        "git -C /srv/work config user.name octocat && git -C /srv/work config user.email octocat@example.org",
        "cd /srv/work && git commit --quiet --allow-empty --message First && git push --quiet origin HEAD:main",
        "mkdir -p /srv/www/octo /srv/www/mallory && ln -s ../octo/web /srv/www/mallory/web",
        "echo token-of-a-test > /srv/token",
    )
    start_internet()
    start_github()


def start_internet() -> None:
    """Has the internet there, after a reboot too: what guests fetch the files of a commit from."""
    # A unit with a network namespace of its own that has only a loopback interface.
    machine.succeed(
        "systemd-run --quiet --unit=internet --service-type=exec --property=PrivateNetwork=yes "
        "busybox httpd -f -p 80 -h /srv/www"
    )
    internet = machine.get_unit_property("internet.service", "MainPID")
    inside = f"nsenter --target {internet} --net -- ip"
    machine.succeed(
        f"ip link add uplink type veth peer name eth0 netns {internet}",
        "ip address add 198.51.100.1/30 dev uplink && ip link set uplink up",
        f"{inside} address add 198.51.100.2/30 dev eth0 && {inside} link set eth0 up",
    )


def start_github() -> None:
    """Has GitHub there. After a reboot it has forgotten all pull requests."""
    machine.succeed(
        "systemd-run --quiet --unit=github --setenv=PATH=$PATH innkeeper-fake-github 127.0.0.1:8099 /srv/token"
    )
    machine.wait_for_open_port(8099, "127.0.0.1")
    for owner in ("octo", "mallory"):
        tell("PUT", f"/repos/{owner}/web", {"git": "/srv/git/web"})
    tell("PUT", "/hook", {"url": "http://127.0.0.1:8098/webhook/github", "secret": "secret-of-a-test"})


def tell(method: str, path: str, body: object = None) -> str:
    """Sends a command to the fake GitHub: crates/innkeeper-github/src/fake/control.rs."""
    data = "" if body is None else f"--header 'Content-Type: application/json' --data {shlex.quote(json.dumps(body))}"
    return machine.succeed(f"curl --fail --silent --show-error --request {method} {data} {FAKE}{path}")


def commit(branch: str, files: dict[str, str]) -> str:
    """Pushes a commit with these files to a branch, and returns its name."""
    write = "".join(f"printf %s {shlex.quote(text)} > {shlex.quote(name)}; " for name, text in files.items())
    machine.succeed(
        f"cd /srv/work; git switch --quiet {branch} 2> /dev/null || git switch --quiet --create {branch} origin/main; {write}"
        f"git add --all; git commit --quiet --allow-empty --message 'A change'; git push --quiet --force origin {branch} 2> /dev/null"
    )
    sha = machine.succeed("git -C /srv/work rev-parse HEAD").strip()
    # Where guests find the files of a commit: they have no Git.
    raw = f"/srv/www/octo/web/raw/{sha}"
    machine.succeed(f"mkdir -p {raw} && git -C /srv/work archive HEAD | tar -x -C {raw}")
    return sha


def app(page: str = "Branch @branch@, commit @commit@, prepared @count@ times.") -> dict[str, str]:
    """The files of an app with a database, which waits for the internet. The page is filled in where it is prepared."""
    configuration = machine.succeed(f"cat {APP}/preview-config.nix")
    for was, shall_be in {
        'database = "container"': 'database = "host"',
        "mkdir -p ${app}\n": 'mkdir -p ${app}\nfetch() { until timeout 5 wget -q -O template "$1"; do sleep 1; done; }\n',
        "timeout 10 wget -q -O template": "fetch",
    }.items():
        is_true(was in configuration, f"the app's configuration has {was!r}")
        configuration = configuration.replace(was, shall_be)
    return {"preview-config.nix": configuration, "index.html": page}


def describe(number: int, branch: str, owner: str = "octo", closed: bool = False) -> None:
    """Has GitHub know of a pull request."""
    wanted = {"head_branch": branch, "head_repo": f"{owner}/web", "author": owner, "closed": closed}
    tell("PUT", f"/repos/octo/web/pulls/{number}", wanted)


def pull(number: int, branch: str, action: str, owner: str = "octo") -> None:
    """Has GitHub deliver what happened to a pull request."""
    describe(number, branch, owner, action == "closed")
    attempt = json.loads(tell("POST", f"/repos/octo/web/pulls/{number}/events/{action}"))
    same(attempt["status_code"], 202, f"what the webhook answered to `{action}`")


def previews() -> dict[str, dict[str, Any]]:
    """All previews as the daemon sees them, by slug."""
    return {view["slug"]: view for view in json.loads(machine.succeed("preview list --json"))}


def guest_of(slug: str) -> dict[str, Any]:
    """A preview's guest as the daemon sees it. `agent list` shows agents alone."""
    view: dict[str, Any] = json.loads(
        machine.succeed(f"curl --silent --fail --unix-socket /run/innkeeper/api.sock http://localhost/v1/guests/{slug}")
    )
    return view


def wait_for_preview(slug: str, state: str, sha: str) -> None:
    """Waits until a preview is in a state with a commit; in the state `live`, it is the live commit."""
    field = "live_sha" if state == "live" else "wanted_sha"
    machine.wait_until_succeeds(
        f"preview list --json | jq -e '.[] | select(.slug == \"{slug}\") | .state == \"{state}\" and .{field} == \"{sha}\"'"
    )


def look(slug: str, options: str = "--fail") -> str:
    """The command that looks at a preview's URL, and at the certificate."""
    host = f"{slug}.{DOMAIN}"
    return f"curl --silent --max-time 10 {options} --cacert {AUTHORITY} --resolve {host}:443:127.0.0.1 https://{host}/"


def browse(slug: str, options: str = "--fail") -> str:
    """Returns the response of a preview's URL."""
    return machine.succeed(look(slug, options))


def database_url(slug: str) -> str:
    """Returns the DATABASE_URL of a preview's app."""
    return machine.succeed(f"preview exec {slug} -- sh -c '. /etc/preview.env; echo $DATABASE_URL'").strip()


def sql(statement: str, database: str = "postgres") -> str:
    """Runs a query as PostgreSQL's administrator."""
    return machine.succeed(
        f"psql --no-psqlrc --username=postgres --dbname={database} --tuples-only --no-align --quiet --command={shlex.quote(statement)}"
    ).strip()


def ask_as_app(slug: str, statement: str) -> str:
    """Runs a query as a preview's app: over the guest's network, with the app's password."""
    return machine.succeed(
        f"nsenter --target {leader(slug)} --net -- psql --no-psqlrc --tuples-only --no-align --quiet "
        f"--command={shlex.quote(statement)} {shlex.quote(database_url(slug))}"
    ).strip()
