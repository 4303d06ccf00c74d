"""People visit a private preview in Chromium: docs/remote.md, its section People, and docs/private-previews.md.

The host is that of docs/debian.md with the gateway of docs/remote.md: all programs are the installed ones, behind Caddy and TLS.
GitHub is innkeeper-fake-github. Chromium runs on this machine, in the host's network: tests/browser/people.mjs has the steps.

Needs: previews, chromium.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from blocks import blocks_of
from guide import CLONE, DOMAIN, Walk, open_pull_request, set_up_host, start_outside
from laptop import Laptop, require_equal, use_secrets
from machine import ENVIRONMENT, Machine
from native import NativeMachine
from remote import API, CERTIFICATES, PAGE, set_up_laptop, start_gateway

VISITORS_PAGE = "docs/private-previews.md"
# The preview of the pull request, and its name on the page.
SLUG, SLUG_OF_PAGE = "web-1", "web-7"
# The time for the browser, in seconds. Only a failing test reaches it.
LIMIT = 300


def set_up_people(walk: Walk) -> None:
    """Follows the section People. An organization's member without a role of their own may read no repository."""
    oauth = {"client_id": "client", "client_secret": "secret-of-the-app", "callback": f"https://{API}/login/callback"}
    walk.github("PUT", "/oauth", oauth)
    walk.github("PUT", "/accounts/octocat", {"id": 1001, "organizations": ["octo"], "teams": ["octo/platform"]})
    walk.github("PUT", "/accounts/mona", {"id": 1002, "organizations": ["octo"]})
    walk.github("PUT", "/repos/octo/web/permissions/octocat", "read")
    secrets = f"GITHUB_CLIENT_ID={oauth['client_id']}\nGITHUB_CLIENT_SECRET={oauth['client_secret']}\n"
    walk.machine.succeed("install -m 600 /dev/null /var/secrets/dashboard.env")
    walk.write("/var/secrets/dashboard.env", secrets)
    settings = walk.text(PAGE, "[people]\noauth_file") + 'github_url = "http://127.0.0.1:8099"\n'
    walk.write("/etc/innkeeper/config.toml", "\n" + settings, ">>")
    walk.machine.succeed("systemctl restart innkeeper")


def open_previews(walk: Walk) -> None:
    """Makes a private preview of a pull request and a public one of the same commit, with the app of tests/browser/app."""
    machine = walk.machine
    machine.copy_from_host(str(walk.repository / "tests/browser/app"), "/srv/app")
    walk.run(
        [
            "git switch --quiet --create first-preview",
            "cp /srv/app/* .",
            "git add . && git commit --quiet --message 'An app'",
            "git push --quiet --set-upstream origin first-preview first-preview:hostile",
        ],
        CLONE,
    )
    open_pull_request(walk)
    machine.succeed(f"preview set {SLUG} --visibility private", "preview create octo/web hostile --slug hostile")


def use_secrets_remotely(walk: Walk, token: str) -> None:
    """Uses the repository's secrets through the gateway, which needs the role operator. `token` has the role developer."""
    laptop = set_up_laptop(walk)
    variables = f"{laptop.variables} INNKEEPER_URL=https://{API}"
    developer = Laptop(walk.machine, f"{variables} INNKEEPER_TOKEN={token}")
    require_equal(developer.status("innkeeper secret list octo/web"), 9, "the exit status with the role developer")
    token = walk.machine.succeed("innkeeper token create operator --role operator").strip()
    use_secrets(Laptop(walk.machine, f"{variables} INNKEEPER_TOKEN={token}"))


def follow_visitors_page(walk: Walk) -> None:
    """Runs the commands about share links and tokens of docs/private-previews.md."""
    share, visit = (block for block in blocks_of(walk.repository, VISITORS_PAGE) if block.scenario == "people")
    *sharing, unsharing = (command.replace(SLUG_OF_PAGE, SLUG) for command in share.commands())
    shown = walk.run(sharing)
    token = next(line for line in shown.splitlines() if line.startswith("ig_"))
    (curl,) = (command.replace(SLUG_OF_PAGE, SLUG) for command in visit.commands())
    status = "--silent --output /dev/null --write-out '%{http_code}'"
    for command, expected in ((f"TOKEN={token}; {curl}", "200"), (f"TOKEN={token}x; {curl}", "401")):
        require_equal(walk.run([f"{command} {status}"]), expected, "the status of a visit")
    views = json.loads(walk.machine.succeed(f"preview shares {SLUG} --json"))
    for view in views:
        walk.run([unsharing.rsplit(" ", 1)[0] + f" {view['id']}"])


def visit(machine: NativeMachine, repository: Path) -> None:
    """Runs the steps in Chromium."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", repository / "target")).resolve()
    network = ["nsenter", "--target", str(machine.leader)]
    on_host = [*network, "--all", "--", "/usr/bin/env", "-i", *ENVIRONMENT, "bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*network, "--net", "--", "node", str(target / "browser/tests/people.mjs")],
        env={**os.environ, "HOST": json.dumps(on_host)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    for line in done.stdout.splitlines():
        machine.log(line)
    if done.returncode != 0:
        raise AssertionError(f"the steps in the browser failed with status {done.returncode}")


def play(machine: Machine, repository: Path) -> None:
    """Follows the pages."""
    if not isinstance(machine, NativeMachine):
        raise TypeError("Chromium runs in the network of a container only")
    walk = Walk(machine, repository)
    machine.start()
    machine.wait_for_unit("innkeeper.service")
    start_outside(walk)
    with machine.nested("docs/debian.md and docs/previews-host.md: the host"):
        set_up_host(walk)
    with machine.nested("docs/remote.md: the gateway and its people"):
        machine.succeed(CERTIFICATES, f"echo '127.0.0.1 {SLUG}.{DOMAIN}' >> /etc/hosts", "systemctl restart caddy")
        token = start_gateway(walk)
        set_up_people(walk)
    with machine.nested("a preview is private"):
        open_previews(walk)
    with machine.nested("secrets from a second machine"):
        use_secrets_remotely(walk, token)
    with machine.nested(f"{VISITORS_PAGE}: share links and tokens"):
        follow_visitors_page(walk)
    with machine.nested("Chromium"):
        visit(machine, repository)
    machine.succeed("innkeeper doctor")
