"""A second machine with only the client programs: a network namespace with its own user, programs and hosts file, and without the
daemon's sockets.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from machine import Machine

# Runs a command on the laptop. The folder of the daemon's sockets is empty there.
ON_LAPTOP = "ip netns exec laptop unshare --mount sh -c {}"
AS_USER = (
    "mount -t tmpfs none /run/innkeeper && exec setpriv --reuid=laptop --regid=laptop --clear-groups "
    "env -i HOME=/home/laptop PATH=/home/laptop/.local/bin:/usr/bin:/bin LANG=C.UTF-8 {variables} bash -euo pipefail -c {command}"
)


# The time for the output of a command, in seconds. Only a failing test reaches it.
LIMIT = 30


class Laptop:
    """The second machine. `variables` is the environment of its commands."""

    def __init__(self, machine: Machine, variables: str) -> None:
        self.machine = machine
        self.variables = variables

    def command(self, command: str) -> str:
        """Returns the host's command that runs one on the laptop."""
        return ON_LAPTOP.format(shlex.quote(AS_USER.format(variables=self.variables, command=shlex.quote(command))))

    def succeed(self, command: str) -> str:
        """Runs a command that must succeed, and returns its output."""
        self.machine.log(f"laptop: {command}")
        return self.machine.succeed(self.command(command))

    def status(self, command: str) -> int:
        """Runs a command, and returns its exit status."""
        self.machine.log(f"laptop: {command}")
        return self.machine.execute(self.command(command))[0]

    def start(self, name: str, command: str) -> Job:
        """Starts a command in the background."""
        job = Job(self.machine, name)
        self.machine.succeed(
            f"rm -f {job.output}",
            f"systemd-run --quiet --unit={job.unit} --remain-after-exit --service-type=exec "
            f"--property=StandardOutput=append:{job.output} --property=StandardError=append:{job.output} "
            f"bash -c {shlex.quote(self.command(command))}",
        )
        return job


class Job:
    """A command in the background."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.unit = f"laptop-{name}.service"
        self.output = f"/srv/laptop-{name}"

    def wait_for(self, text: str) -> None:
        """Waits until its output, on either stream, contains a text."""
        found = f"grep --quiet --fixed-strings -- {shlex.quote(text)} {self.output}"
        self.machine.wait_until_succeeds(f"{found} || {{ systemctl status {self.unit}; cat {self.output}; false; }}", LIMIT)

    def wait_until_ended(self) -> tuple[int, str]:
        """Waits for its end, and returns its exit status and its output."""
        self.machine.wait_until_succeeds(f"systemctl show --value --property=SubState {self.unit} | grep -x -e exited -e failed")
        status = int(self.machine.get_unit_property(self.unit, "ExecMainStatus"))
        output = self.machine.succeed(f"cat {self.output}")
        self.stop()
        return status, output

    def is_running(self) -> bool:
        """Reports whether it has not ended."""
        return self.machine.get_unit_property(self.unit, "SubState") == "running"

    def stop(self) -> None:
        """Ends it, and forgets its result."""
        self.machine.execute(f"systemctl stop {self.unit}; systemctl reset-failed {self.unit} 2> /dev/null", quiet=True)


def require_equal(found: object, expected: object, description: str) -> None:
    """Fails with both values if they differ."""
    if found != expected:
        raise AssertionError(f"{description}: {found!r} instead of {expected!r}")


def use_guest(laptop: Laptop) -> None:
    """Uses the guest `web` by each command that needs a connection."""
    require_equal(laptop.succeed("agent exec web -- echo hello").strip(), "hello", "the output of a command")
    require_equal(laptop.status("agent exec web -- sh -c 'exit 42'"), 42, "the exit status of a command")
    shown = laptop.succeed("script --quiet --return --command 'agent exec -t web -- tty' /dev/null < /dev/null")
    require_equal("/dev/pts/" in shown, True, f"a terminal in {shown!r}")
    require_equal(laptop.succeed("agent ssh web echo hello").strip(), "hello", "the output of a command over SSH")
    require_equal(laptop.status("agent ssh web exit 42"), 42, "the exit status of a command over SSH")
    copied = "cd && echo hello > notes && agent cp notes web:/home/agent && agent cp web:/home/agent/notes back && cat back"
    require_equal(laptop.succeed(copied).strip(), "hello", "a file that was copied there and back")
    with following(laptop, "logs", "agent logs --follow web") as logs:
        logs.wait_for("web is up.")
        require_equal(logs.is_running(), True, "the log is followed")
    with following(laptop, "forward", "agent port-forward web 8080:80") as forward:
        forward.wait_for("127.0.0.1:8080 leads to port 80")
        require_equal(laptop.succeed("curl --silent --fail http://127.0.0.1:8080/").strip(), "Hello from web.", "the guest's page")


@contextmanager
def following(laptop: Laptop, name: str, command: str) -> Iterator[Job]:
    """Runs a command in the background meanwhile."""
    job = laptop.start(name, command)
    try:
        yield job
    finally:
        job.stop()


def use_secrets(laptop: Laptop) -> None:
    """Sets, lists and removes a secret of a repository."""
    laptop.succeed("echo a-secret-of-a-test | innkeeper secret set octo/web API_KEY")
    listed = laptop.succeed("innkeeper secret list octo/web --json")
    require_equal("a-secret-of-a-test" in listed, False, "the list has a value")
    require_equal([one["name"] for one in json.loads(listed)["secrets"]], ["API_KEY"], "the secrets")
    laptop.succeed("innkeeper secret rm octo/web API_KEY")
    require_equal(json.loads(laptop.succeed("innkeeper secret list octo/web --json"))["secrets"], [], "the secrets")


def restart_under_streams(laptop: Laptop, unit: str) -> None:
    """Restarts a program on the host while streams are open: events are resumed, and all others end."""
    machine = laptop.machine
    events = laptop.start("events", "innkeeper events --follow --json")
    forward = laptop.start("forward", "agent port-forward web 8080:80")
    forward.wait_for("leads to port 80")
    streams = {
        "logs": (laptop.start("logs", "agent logs --follow web"), "is up."),
        "exec": (laptop.start("exec", "agent exec web -- sh -c 'echo begun; sleep 1000'"), "begun"),
        "ssh": (laptop.start("ssh", "agent ssh web 'echo begun; sleep 1000'"), "begun"),
        # A connection through the forwarded port, without a request.
        "open": (laptop.start("open", "echo begun; exec 3<> /dev/tcp/127.0.0.1/8080; cat <&3"), "begun"),
    }
    for job, text in streams.values():
        job.wait_for(text)
    machine.succeed(f"systemctl restart {unit}")
    for name, (job, _) in streams.items():
        status, output = job.wait_until_ended()
        # Caddy 2.6 ends a response that broke off as if it were whole.
        if status == 0 and name != "logs":
            raise AssertionError(f"{name} ended with status 0 after the restart of {unit}: {output!r}")
        if name != "logs" and not {"exec": "[ERROR]", "ssh": "onnection", "open": "reset"}[name] in output:
            raise AssertionError(f"{name} ended without a message after the restart of {unit}: {output!r}")
    machine.wait_until_succeeds(laptop.command("agent list"))
    # Both go on: the events with one of after the restart, the port with new connections.
    laptop.succeed("agent stop web && agent start web")
    events.wait_for('"stop"')
    require_equal((events.is_running(), forward.is_running()), (True, True), f"events and ports after the restart of {unit}")
    machine.wait_until_succeeds(laptop.command("curl --silent --fail http://127.0.0.1:8080/ | grep 'Hello from web.'"))
    events.stop()
    forward.stop()
