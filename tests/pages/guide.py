"""docs/previews.md, word for word: from an installed Debian host to a live pull request.

The host is set up with the texts and commands of docs/debian.md and docs/previews-host.md. GitHub is innkeeper-fake-github, and
nixpkgs is the stand-in of tests/fixtures, whose programs are one busybox: a download of the real one needs a network.

Needs: previews.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from blocks import Block, blocks_of
from machine import Machine

HOST_PAGE, DEBIAN_PAGE, GUIDE = "docs/previews-host.md", "docs/debian.md", "docs/previews.md"
DOMAIN = "preview.example.org"
CERTIFICATE = "/var/secrets/cloudflare-origin.pem"
NIXPKGS = "/opt/innkeeper/previews/nixpkgs"
# The author's clone.
CLONE = "/root/web"
# GitHub delivers without TLS; this passes its deliveries on with TLS.
DELIVERIES = f"""
http://127.0.0.1:8098 {{
	reverse_proxy https://127.0.0.1 {{
		header_up Host webhook.{DOMAIN}
		transport http {{
			tls_server_name webhook.{DOMAIN}
			tls_trusted_ca_certs {CERTIFICATE}
		}}
	}}
}}
"""


class Walk:
    """A walk through the pages on one host."""

    def __init__(self, machine: Machine, repository: Path) -> None:
        self.machine = machine
        self.repository = repository

    def text(self, page: str, beginning: str) -> str:
        """Returns the block of a page, of any language, whose text contains a beginning."""
        found: list[str] = []
        inside: list[str] | None = None
        indent = ""
        for line in (self.repository / page).read_text().splitlines():
            if not line.strip().startswith("```"):
                if inside is not None:
                    inside.append(line.removeprefix(indent))
            elif inside is None:
                indent, inside = line[: line.index("`")], []
            else:
                found.append("\n".join(inside) + "\n")
                inside = None
        matching = [text for text in found if beginning in text]
        if len(matching) != 1:
            raise AssertionError(f"{page} has {len(matching)} blocks with '{beginning}'")
        return matching[0]

    def block(self, page: str, beginning: str) -> Block:
        """Returns the block of commands of which one has a beginning."""
        for block in blocks_of(self.repository, page):
            if any(command.startswith(beginning) for command in block.commands()):
                return block
        raise AssertionError(f"{page} has no block with a command '{beginning}'")

    def run(self, commands: list[str], folder: str = "/root") -> str:
        """Runs commands as the reader does, and returns their output."""
        return "".join(
            self.machine.succeed(f"cd {folder} && HOME=/root bash -euo pipefail -c {shlex.quote(command)}")
            for command in commands
        )

    def write(self, path: str, text: str, mode: str = ">") -> None:
        """Writes a text to a file, or appends it (`>>`)."""
        self.machine.succeed(f"printf %s {shlex.quote(text)} {mode} {path}")

    def github(self, method: str, path: str, body: object = None) -> str:
        """Sends a control request to the fake GitHub."""
        data = "" if body is None else f"--header 'Content-Type: application/json' --data {shlex.quote(json.dumps(body))}"
        url = f"http://127.0.0.1:8099/_fake{path}"
        return self.machine.succeed(f"curl --fail --silent --show-error --request {method} {data} {url}")


def start_outside(walk: Walk) -> None:
    """Starts what is outside of the host: the internet with the repository, and GitHub."""
    machine = walk.machine
    machine.succeed(
        "git init --quiet --bare --initial-branch main /srv/git/web",
        f"git clone --quiet /srv/git/web {CLONE} 2> /dev/null",
        f"git -C {CLONE} config user.name octocat && git -C {CLONE} config user.email octocat@example.org",
        f"cd {CLONE} && git commit --quiet --allow-empty --message First && git push --quiet origin HEAD:main",
        "mkdir -p /srv/www/octo/web/archive && echo token-of-a-test > /srv/token",
        # A network namespace of its own, with an address that is not private.
        "systemd-run --quiet --unit=internet --service-type=exec --property=PrivateNetwork=yes busybox httpd -f -p 80 -h /srv/www",
    )
    internet = machine.get_unit_property("internet.service", "MainPID")
    inside = f"nsenter --target {internet} --net -- ip"
    machine.succeed(
        f"ip link add uplink type veth peer name eth0 netns {internet}",
        "ip address add 198.51.100.1/30 dev uplink && ip link set uplink up",
        f"{inside} address add 198.51.100.2/30 dev eth0 && {inside} link set eth0 up",
        "systemd-run --quiet --unit=github --setenv=PATH=$PATH innkeeper-fake-github 127.0.0.1:8099 /srv/token",
    )
    machine.wait_for_open_port(8099, "127.0.0.1")
    walk.github("PUT", "/repos/octo/web", {"git": "/srv/git/web"})


def set_up_caddy(walk: Walk) -> None:
    """Follows steps 1 and 2 of the section "Previews" of docs/debian.md. Packages are installed already."""
    machine = walk.machine
    # 1. The folders, and the socket's folder, as `systemctl edit` would write it.
    folders = walk.block(DEBIAN_PAGE, "install -d -m 0750").commands()
    walk.run([command for command in folders if command.startswith("install ")])
    machine.succeed("mkdir -p /etc/systemd/system/caddy.service.d")
    walk.write(
        "/etc/systemd/system/caddy.service.d/override.conf", "[Service]\nRuntimeDirectory=caddy\nRuntimeDirectoryMode=0700\n"
    )
    # 2. The Caddyfile.
    walk.write("/etc/caddy/Caddyfile", walk.text(HOST_PAGE, "admin unix//") + walk.text(DEBIAN_PAGE, f"webhook.{DOMAIN} {{"))


def set_up_host(walk: Walk) -> None:
    """Follows the section "Previews" of docs/debian.md."""
    machine = walk.machine
    set_up_caddy(walk)
    # 3. PostgreSQL: the first lines of pg_hba.conf precede all others.
    cluster = machine.succeed("echo /etc/postgresql/*/main").strip()
    walk.write(f"{cluster}/pg_ident.conf", walk.text(HOST_PAGE, "innkeeper   root"), ">>")
    machine.succeed(f"mv {cluster}/pg_hba.conf {cluster}/pg_hba.rest")
    walk.write(f"{cluster}/pg_hba.conf", walk.text(HOST_PAGE, "peer map=innkeeper"))
    machine.succeed(
        f"cat {cluster}/pg_hba.rest >> {cluster}/pg_hba.conf",
        f"chown postgres: {cluster}/pg_hba.conf && chmod 640 {cluster}/pg_hba.conf",
    )
    walk.write(f"{cluster}/conf.d/innkeeper.conf", walk.text(HOST_PAGE, "listen_addresses"))
    # 4. The secrets.
    secrets = walk.block(DEBIAN_PAGE, "install -d -m 0711 /var/secrets").commands()
    walk.run([command.replace("=TOKEN ", "=token-of-a-test ") for command in secrets])
    machine.succeed(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test "
        f"-addext 'subjectAltName=DNS:*.{DOMAIN}' -keyout /var/secrets/cloudflare-origin-key.pem -out {CERTIFICATE} 2> /dev/null",
        "chown root:caddy /var/secrets/cloudflare-* && chmod 640 /var/secrets/cloudflare-*",
    )
    # 5. The configuration, with the fake GitHub.
    settings = walk.text(DEBIAN_PAGE, "[evaluation]\nnixpkgs").replace("/nix/store/…-source", NIXPKGS)
    settings += '\n[github]\napi_url = "http://127.0.0.1:8099"\nclone_url = "http://198.51.100.2"\n'
    walk.write("/etc/innkeeper/config.toml", "\n" + settings, ">>")
    # 6. Start.
    machine.succeed("systemctl daemon-reload", "systemctl enable --quiet caddy.service postgresql.service")
    walk.run(walk.block(DEBIAN_PAGE, "systemctl restart caddy").commands())
    # The webhook on GitHub.
    walk.write("/etc/caddy/previews/github.caddy", DELIVERIES)
    machine.succeed("systemctl reload caddy.service")
    secret = machine.succeed("cat /etc/credstore/innkeeper.webhook-secret").strip()
    walk.github("PUT", "/hook", {"url": "http://127.0.0.1:8098/webhook/github", "secret": secret})


def open_pull_request(walk: Walk) -> None:
    """Opens the pull request of the pushed branch, and waits until its preview is live."""
    machine = walk.machine
    sha = machine.succeed("git -C /srv/git/web rev-parse first-preview").strip()
    # The stand-in for git fetches a commit's files as an archive.
    machine.succeed(
        f"mkdir /srv/files && git -C /srv/git/web archive {sha} | tar -x -C /srv/files",
        f"tar -c -C /srv/files -f /srv/www/octo/web/archive/{sha}.tar .",
    )
    fields = {"head_branch": "first-preview", "head_repo": "octo/web", "author": "octo", "closed": False}
    walk.github("PUT", "/repos/octo/web/pulls/1", fields)
    attempt = json.loads(walk.github("POST", "/repos/octo/web/pulls/1/events/opened"))
    if attempt["status_code"] != 202:
        raise AssertionError(f"the webhook's response: {attempt}")
    query = "preview list --json | jq -r '.[] | select(.slug == \"web-1\") | .state'"
    machine.wait_until_succeeds(f"{query} | grep -x -e live -e failed", timeout=180)
    if machine.succeed(query).strip() != "live":
        raise AssertionError(machine.succeed("preview explain web-1; preview logs web-1"))


def play(machine: Machine, repository: Path) -> None:
    """Follows the pages."""
    walk = Walk(machine, repository)
    machine.start()
    machine.wait_for_unit("innkeeper.service")
    start_outside(walk)
    with machine.nested("docs/debian.md and docs/previews-host.md: the host"):
        set_up_host(walk)
    guide = [block for block in blocks_of(repository, GUIDE) if block.scenario == "guide"]
    *writing, following = guide
    if not following.commands()[0].startswith("preview list"):
        raise AssertionError(f"{GUIDE}: the last block of the first preview follows it")
    with machine.nested("docs/previews.md: the file, checked and pushed"):
        for block in writing:
            walk.run(block.commands(), CLONE)
        written = machine.succeed(f"cat {CLONE}/preview-config.nix")
        if written != walk.text(GUIDE, "httpd -f -v -p $PORT -h public"):
            raise AssertionError(f"`preview init` wrote another file than the guide shows: {written}")
    with machine.nested("docs/previews.md: the pull request is live"):
        open_pull_request(walk)
        shown = walk.run(following.commands(), CLONE)
        if f"https://web-1.{DOMAIN}" not in shown:
            raise AssertionError(f"the commands of the guide show no URL: {shown}")
        page = machine.succeed(
            f"curl --fail --silent --cacert {CERTIFICATE} --resolve web-1.{DOMAIN}:443:127.0.0.1 https://web-1.{DOMAIN}/"
        )
        if page.strip() != "<h1>Hello from a preview</h1>":
            raise AssertionError(f"the preview's page: {page}")
        comments = json.dumps(json.loads(walk.github("GET", "/repos/octo/web"))["comments"])
        if f"https://web-1.{DOMAIN}" not in comments:
            raise AssertionError(f"the comment has no URL: {comments}")
    with machine.nested("docs/previews.md: closed, nothing is left"):
        walk.github("PUT", "/repos/octo/web/pulls/1", {"head_branch": "first-preview", "head_repo": "octo/web", "author": "octo", "closed": True})
        walk.github("POST", "/repos/octo/web/pulls/1/events/closed")
        machine.wait_until_succeeds("preview list --json | jq -e '. == []'")
    machine.succeed("innkeeper doctor")
