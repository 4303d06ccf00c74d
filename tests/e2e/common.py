"""Helpers of all scenarios. This file is executed before each of them, in the same namespace.

A scenario also has `machine`, a host with the methods of the NixOS test driver, and `subtest`. On the host, innkeeperd is
installed as a unit, with the flake of tests/fixtures at /opt/innkeeper/guests. With `Needs: previews`, it also has Caddy,
PostgreSQL and /opt/innkeeper/previews: the app and the substitute for nixpkgs of tests/fixtures, and on Debian the script
that prepares the host.
"""

import json
import shlex
from typing import Any

# Two kinds of guests. Process 1 is a shell script or systemd.
PLAIN, SYSTEMD = "agent", "systemd"


# Nix, direnv and bash as the guest's part of Debian: the host's packages, with the libraries that they are linked to.
STAGE_NIX = r"""
to=/opt/innkeeper/guests/debian/nix
for program in /usr/bin/nix /usr/bin/direnv /usr/bin/bash-static; do
    install -D -m 555 $program $to$program
done
cp -a /usr/bin/nix-* $to/usr/bin/
ln -s bash-static $to/usr/bin/bash
{ ldd /usr/bin/nix; ldd /usr/bin/direnv || true; } | awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' | while read -r library; do
    directory=$(realpath "$(dirname "$library")")
    install -D -m 555 "$library" "$to$directory/${library##*/}"
done
mkdir -p $to/usr/lib/systemd/system
cp /usr/lib/systemd/system/nix-daemon.* $to/usr/lib/systemd/system/
mkdir -p $to/usr/libexec
cp -a /usr/libexec/nix $to/usr/libexec/
"""


def require(condition: object, description: str) -> None:
    """Fails with the description unless the condition holds."""
    if not condition:
        raise AssertionError(description)


def require_equal(found: object, expected: object, description: str) -> None:
    """Fails with both values if they differ."""
    require(found == expected, f"{description}: {found!r} instead of {expected!r}")


def boot() -> None:
    """Boots the host and waits for the daemon."""
    machine.start()
    machine.wait_for_unit("innkeeperd.service")


def attribute(kind: str) -> str:
    """Returns the flake output of a kind of guest."""
    return f"path:/opt/innkeeper/guests#{kind}"


def create(name: str, kind: str = PLAIN, options: str = "") -> dict[str, Any]:
    """Creates a guest and waits until its web server answers, and with systemd until all units are up."""
    machine.succeed(f"agent create {name} --flake '{attribute(kind)}' --wait --wait-port 80 {options}")
    if kind == SYSTEMD:
        require_healthy(name)
    return guest(name)


def require_healthy(name: str, command: str = "agent") -> None:
    """Fails if a guest with systemd is degraded: its message lists the failed units."""
    state = machine.execute(f"{command} exec {name} -- systemctl is-system-running --wait")[1].strip()
    failed = machine.execute(f"{command} exec {name} -- systemctl --failed --no-legend --plain")[1].strip()
    require_equal((state, failed), ("running", ""), f"the state of {name} and its failed units")


def guests() -> dict[str, dict[str, Any]]:
    """Returns all guests that the daemon lists, by name."""
    return {view["name"]: view for view in json.loads(machine.succeed("agent list --json"))}


def guest(name: str) -> dict[str, Any]:
    """Returns a guest that the daemon lists."""
    return guests()[name]


def use_thin_volumes() -> None:
    """Configures the daemon for volumes of 256 MiB, in a thin pool on the host's second disk."""
    config = "/etc/innkeeper/config.toml"
    # The last disk of this kind.
    disk = machine.succeed("ls --reverse /dev/vd[ab] | head -n 1").strip()
    machine.succeed(
        f"vgcreate --quiet pool {disk}",
        "lvcreate --quiet --yes --type thin-pool --size 1G --name thin pool",
        # The section on storage is the last one of the file.
        f"grep -q lvm-thin {config} || {{ printf 'driver = \"lvm-thin\"\nsize = \"256M\"\n' >> {config} && sync; }}",
        # The drop-in of docs/storage.md for the unit of `make install`.
        "! test -e /usr/local/share/innkeeper/lvm-thin.conf || install -D -m 644 -t /etc/systemd/system/innkeeper.service.d "
        "/usr/local/share/innkeeper/lvm-thin.conf",
        "systemctl daemon-reload",
        "systemctl restart innkeeperd.service",
    )
    wait_until_idle()


def stage_nix(work: str) -> None:
    """Completes the flake of the guest with Nix, and puts the programs and the system for a project of a guest in a folder."""
    machine.succeed(
        STAGE_NIX,
        f"mkdir -p {work}/bin && cp /usr/bin/bash-static {work}/bin/bash && cp /bin/busybox {work}/bin/busybox",
        f"cp /opt/innkeeper/guests/system {work}/system",
    )


def unit(name: str) -> str:
    """Returns the name of a guest's unit."""
    return f"innkeeper-guest-{name}.service"


def page(address: str) -> str:
    """Returns the response of a guest's web server."""
    return machine.succeed(f"curl --silent --fail --max-time 10 http://{address}/")


def wait_for_state(name: str, state: str) -> None:
    """Waits until a guest is in a state."""
    machine.wait_until_succeeds(
        f"agent list --json | jq -e '.[] | select(.name == \"{name}\") | .state == \"{state}\"'"
    )


def wait_until_idle() -> None:
    """Waits until the daemon responds and no operation is running."""
    machine.wait_until_succeeds(
        "innkeeper status --json | jq -e '.operations == []' && "
        "agent list --json | jq -e 'all(.[]; .state | IN(\"running\", \"stopped\", \"paused\", \"asleep\"))'"
    )


def leader(name: str) -> int:
    """Returns the PID of a guest's first process on the host, from machined."""
    return int(machine.succeed(f"machinectl show --value --property=Leader {name}"))


def has_systemd(name: str) -> bool:
    """Reports whether process 1 of a guest that machined knows is systemd."""
    first = f"/proc/$(machinectl show --value --property=Leader {name})/comm"
    return machine.execute(f"cat {first}")[1].strip() == "systemd"


def doctor() -> None:
    """Fails if doctor reports a broken check, gc finds an orphan, or a running agent with systemd is degraded."""
    report = json.loads(machine.succeed("innkeeper doctor --json"))
    broken = [check for check in report["checks"] if check["verdict"] == "broken"]
    require_equal(broken, [], "broken checks of doctor")
    orphans = json.loads(machine.succeed("innkeeper gc --dry-run --json"))["orphans"]
    require_equal(orphans, [], "orphans")
    for name, view in guests().items():
        if view["state"] == "running" and has_systemd(name):
            require_healthy(name)


def traces() -> set[str]:
    """Returns the objects on the host that belong to guests or could be leaked."""
    return set(
        machine.succeed(
            """
            ip -json link | jq -r '.[] | "interface \\(.ifname)"'
            ip -json route | jq -r '.[] | "route \\(.dst)"'
            nft --json list ruleset | jq -c '.nftables[] | select(.rule or .element or .set) | del(.. | .handle?, .elem?, .counter?)'
            cut -d ' ' -f 5 /proc/1/mountinfo | sed 's/^/mount /'
            # `exec` exists from a guest's first command until the daemon cleans up; each command's own cgroup is below it.
            find /sys/fs/cgroup -type d -path '*innkeeper*guest*' -not -path '*/exec' | sed 's/^/cgroup /'
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


def require_no_leaks(before: set[str]) -> None:
    """Fails if an object appeared or disappeared since `before`."""
    now = traces()
    require_equal(sorted(now - before), [], "leaked")
    require_equal(sorted(before - now), [], "lost")


# Previews. innkeeper-fake-github is GitHub; a web server in its own network namespace is the internet.

DOMAIN = "preview.example.org"
APP = "/opt/innkeeper/previews/app"
FAKE = "http://127.0.0.1:8099/_fake"
# Caddy's own certificate authority, for `tls internal`.
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
    """Boots the host and prepares it for previews: servers, GitHub, the internet."""
    boot()
    machine.succeed("! test -x /opt/innkeeper/previews/set-up || /opt/innkeeper/previews/set-up", timeout=180)
    machine.wait_for_unit("caddy.service")
    # The fake GitHub delivers without TLS, so Caddy proxies its deliveries over TLS.
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
    """Starts the internet, also after a reboot: the server from which guests download the files of a commit."""
    # A unit with its own network namespace, which initially has only a loopback interface.
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


# The internet's address.
INTERNET = "198.51.100.2"

# Responds to every address query with the internet's address: RFC 1035, section 4.1.
RESOLVER = r'''
socket(my $server, PF_INET, SOCK_DGRAM, 0) or die $!;
bind($server, sockaddr_in(53, INADDR_ANY)) or die $!;
while (defined(my $client = recv($server, my $query, 512, 0))) {
    my ($question) = substr($query, 12) =~ /^(.*?\0.{4})/s or next;
    my $header = substr($query, 0, 2) . pack("n5", 0x8180, 1, 1, 0, 0);
    my $answer = pack("n3Nn", 0xc00c, 1, 1, 60, 4) . inet_aton("198.51.100.2");
    send($server, $header . $question . $answer, 0, $client);
}
'''


def start_name_server() -> None:
    """Starts the host's name server, in the internet. Guests use it too."""
    internet = machine.get_unit_property("internet.service", "MainPID")
    machine.succeed(
        f"printf %s {shlex.quote(RESOLVER)} > /run/resolver.pl",
        f"systemd-run --quiet --unit=resolver nsenter --target {internet} --net -- perl -MSocket /run/resolver.pl",
        f"echo 'nameserver {INTERNET}' > /etc/resolv.conf",
    )


def start_github(pull_requests: dict[int, str] | None = None) -> None:
    """Starts GitHub. It has no pull requests after a reboot except these, given as branches by number."""
    machine.succeed(
        "systemd-run --quiet --unit=github --setenv=PATH=$PATH innkeeper-fake-github 127.0.0.1:8099 /srv/token"
    )
    machine.wait_for_open_port(8099, "127.0.0.1")
    # Out of order until it has its pull requests: the daemon removes the preview of one that GitHub does not know.
    github_request("POST", "/failures", {"times": 1_000_000, "kind": {"status": 502}})
    for owner in ("octo", "mallory"):
        github_request("PUT", f"/repos/{owner}/web", {"git": "/srv/git/web"})
    for number, branch in (pull_requests or {}).items():
        set_pull_request(number, branch)
    github_request("DELETE", "/failures")
    github_request("PUT", "/hook", {"url": "http://127.0.0.1:8098/webhook/github", "secret": "secret-of-a-test"})


def github_request(method: str, path: str, body: object = None) -> str:
    """Sends a control request to the fake GitHub: crates/innkeeper-github/src/fake/control.rs."""
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
    # Guests download the files of a commit from here: they have no Git.
    raw = f"/srv/www/octo/web/raw/{sha}"
    machine.succeed(f"mkdir -p {raw} && git -C /srv/work archive HEAD | tar -x -C {raw}")
    return sha


def app(page: str = "Branch @branch@, commit @commit@, prepared @count@ times.") -> dict[str, str]:
    """Returns the files of an app with a database, which waits for the internet. The setup service fills in the page."""
    configuration = machine.succeed(f"cat {APP}/preview-config.nix")
    for original, replacement in {
        'database = "container"': 'database = "host"',
        "mkdir -p ${app}\n": 'mkdir -p ${app}\nfetch() { until timeout 5 wget -q -O template "$1"; do sleep 1; done; }\n',
        "timeout 10 wget -q -O template": "fetch",
    }.items():
        require(original in configuration, f"the app's configuration contains {original!r}")
        configuration = configuration.replace(original, replacement)
    return {"preview-config.nix": configuration, "index.html": page}


def set_pull_request(number: int, branch: str, owner: str = "octo", closed: bool = False) -> None:
    """Creates or updates a pull request on GitHub."""
    fields = {"head_branch": branch, "head_repo": f"{owner}/web", "author": owner, "closed": closed}
    github_request("PUT", f"/repos/octo/web/pulls/{number}", fields)


def deliver_event(number: int, branch: str, action: str, owner: str = "octo") -> None:
    """Delivers an event of a pull request."""
    set_pull_request(number, branch, owner, action == "closed")
    attempt = json.loads(github_request("POST", f"/repos/octo/web/pulls/{number}/events/{action}"))
    require_equal(attempt["status_code"], 202, f"the webhook's response to `{action}`")


def previews() -> dict[str, dict[str, Any]]:
    """Returns all previews that the daemon lists, by slug."""
    return {view["slug"]: view for view in json.loads(machine.succeed("preview list --json"))}


def guest_of(slug: str) -> dict[str, Any]:
    """Returns a preview's guest from the API. `agent list` lists only agents."""
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


def curl_command(slug: str, options: str = "--fail") -> str:
    """Returns a command that requests a preview's URL and verifies its certificate."""
    host = f"{slug}.{DOMAIN}"
    return f"curl --silent --max-time 10 {options} --cacert {AUTHORITY} --resolve {host}:443:127.0.0.1 https://{host}/"


def browse(slug: str, options: str = "--fail") -> str:
    """Returns the response of a preview's URL."""
    return machine.succeed(curl_command(slug, options))


def database_url(slug: str) -> str:
    """Returns the DATABASE_URL of a preview's app."""
    return machine.succeed(f"preview exec {slug} -- sh -c '. /etc/preview.env; echo $DATABASE_URL'").strip()


def sql(statement: str, database: str = "postgres") -> str:
    """Runs a query as PostgreSQL's administrator."""
    return machine.succeed(
        f"psql --no-psqlrc --username=postgres --dbname={database} --tuples-only --no-align --quiet --command={shlex.quote(statement)}"
    ).strip()


def query_as_app(slug: str, statement: str) -> str:
    """Runs a query as a preview's app: over the guest's network, with the app's password."""
    return machine.succeed(
        f"nsenter --target {leader(slug)} --net -- psql --no-psqlrc --tuples-only --no-align --quiet "
        f"--command={shlex.quote(statement)} {shlex.quote(database_url(slug))}"
    ).strip()
