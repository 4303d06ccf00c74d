"""The commands on pages work on a Debian host, in the state that each page assumes.

Needs: nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from blocks import blocks_of
from machine import Machine

# The working directory of the commands: a partial clone of this repository.
CLONE = "/root/innkeeper"


class Pages:
    """Runs the marked blocks of pages on a host."""

    def __init__(self, machine: Machine, repository: Path) -> None:
        self.machine = machine
        self.repository = repository
        self.run_blocks: set[tuple[str, int]] = set()

    def run(self, page: str, first_command: str, variables: str = "") -> None:
        """Runs the block of a page that begins with a command. `variables` are its placeholders."""
        for block in blocks_of(self.repository, page):
            commands = block.commands()
            if block.scenario != "pages" or not commands or not commands[0].startswith(first_command):
                continue
            self.run_blocks.add((page, block.line))
            for command in commands:
                # One shell for each line, as the lines are one for each idea; all begin where the reader stands.
                for placeholder in variables.split():
                    name, value = placeholder.split("=", 1)
                    command = command.replace(name, value)
                self.machine.succeed(f"cd {CLONE} && HOME=/root bash -euo pipefail -c {shlex.quote(command)}")
            return
        raise AssertionError(f"{page} has no block for this scenario that begins with '{first_command}'")

    def all_were_run(self, pages: list[str]) -> None:
        """Fails when a block is marked for this scenario and was not run."""
        for page in pages:
            for block in blocks_of(self.repository, page):
                if block.scenario == "pages" and (page, block.line) not in self.run_blocks:
                    raise AssertionError(f"{page}:{block.line} is marked `run pages`, and nothing here runs it")


def prepare(machine: Machine, repository: Path) -> None:
    """A host as after step 2 of docs/debian.md: everything is installed, and nothing runs yet."""
    machine.start()
    machine.wait_for_unit("innkeeper.service")
    machine.succeed("systemctl disable --now innkeeper.service")
    machine.copy_from_host(str(repository / "initial-install/debian/config.toml"), "/etc/innkeeper/config.toml")
    machine.copy_from_host(str(repository / "tests/fixtures"), f"{CLONE}/tests/fixtures")
    # No network, and so no cache.
    machine.succeed("mkdir -p /etc/nix", "echo 'substituters =' >> /etc/nix/nix.conf", "useradd alice")


def play(machine: Machine, repository: Path) -> None:
    """Runs all blocks."""
    pages = Pages(machine, repository)
    prepare(machine, repository)
    with machine.nested("docs/debian.md, the daemon"):
        pages.run("docs/debian.md", "tests/fixtures/prepare")
        pages.run("docs/debian.md", "innkeeperd --check-config")
        pages.run("docs/debian.md", "usermod")
        machine.succeed("setpriv --reuid=alice --regid=alice --init-groups agent list | grep -w first")
    with machine.nested("docs/guests.md"):
        pages.run("docs/guests.md", "tests/fixtures/prepare")
    with machine.nested("docs/storage.md, snapshots"):
        # Without thin volumes, an agent is stopped for a snapshot.
        machine.succeed("agent create web", "agent stop web")
        pages.run("docs/storage.md", "agent snapshot")
    with machine.nested("docs/rest.md"):
        pages.run("docs/rest.md", "innkeeper top")
    with machine.nested("docs/guests.md, undo"):
        pages.run("docs/guests.md", "agent destroy")
    with machine.nested("docs/debian.md, secrets of previews"):
        pages.run("docs/debian.md", "install -d -m 0711 /var/secrets")
        modes = machine.succeed("stat --format=%a:%U /var/secrets /var/secrets/preview.env /etc/credstore/*").split()
        if modes != ["711:root", "600:root", "600:root"]:
            raise AssertionError(f"others may read the secrets: {modes}")
    with machine.nested("docs/configuration.md"):
        # Run by hand, the webhook has no credentials of systemd.
        machine.succeed("echo GITHUB_WEBHOOK_SECRET=x >> /var/secrets/preview.env")
        pages.run("docs/configuration.md", "innkeeper config", "FILE=/etc/innkeeper/config.toml")
    with machine.nested("docs/previews.md"):
        machine.succeed("echo a-token > /etc/preview-token")
        pages.run("docs/previews.md", "git config")
        filled = machine.succeed("printf 'protocol=https\\nhost=github.com\\n\\n' | HOME=/root git credential fill")
        if "password=a-token" not in filled.splitlines():
            raise AssertionError(f"Git takes no token: {filled}")
    with machine.nested("docs/debian.md, previews"):
        # Steps 1 to 5, without a network: with a fake GitHub and a stand-in for nixpkgs.
        machine.succeed(
            "echo token-of-a-test > /srv/token",
            "systemd-run --quiet --unit=github --setenv=PATH=$PATH innkeeper-fake-github 127.0.0.1:8099 /srv/token",
        )
        machine.wait_for_open_port(8099, "127.0.0.1")
        machine.succeed("/opt/innkeeper/previews/set-up")
        pages.run("docs/debian.md", "systemctl restart caddy")
    pages.all_were_run([f"docs/{page.name}" for page in sorted((repository / "docs").glob("*.md"))] + ["README.md", "CONTRIBUTING.md"])
    # Removes the agents as docs/debian.md describes.
    machine.succeed("agent destroy $(agent list --quiet)", "innkeeper doctor")
