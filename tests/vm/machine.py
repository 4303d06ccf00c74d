"""A Debian host that a test drives, with the method names of the NixOS test driver.

The common part of all tiers. A tier defines how a host boots and how commands reach it: `native` in a
container (native.py), `vm` in a virtual machine (virtual.py).

All parts of a host are in one folder, the run's folder, and are removed with it.
"""

from __future__ import annotations

import abc
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

# Default timeout of operations that take no time: only a failing test reaches it. Slower tiers scale it.
TIMEOUT = 60.0

# The polling interval.
PAUSE = 0.05

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The environment of commands on a host.
ENVIRONMENT = ["HOME=/root", "USER=root", "LANG=C.UTF-8", f"PATH={PATH}", "SYSTEMD_COLORS=0", "PAGER="]


class RequestedAssertionFailed(AssertionError):
    """A command of a test did not behave as the test expects."""


class CannotRun(Exception):
    """This machine lacks something that the tier needs."""


def retry(condition: Callable[[], bool], timeout: float, description: str) -> None:
    """Polls until a condition holds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise RequestedAssertionFailed(f"{description}: not within {timeout:g} s")
        time.sleep(PAUSE)


class Machine(abc.ABC):
    """A host of a tier."""

    # Factor for timeouts, compared with this machine.
    slowness: ClassVar[float] = 1

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.place = place
        self.console = place / "console.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.began = time.monotonic()
        self.depth = 0
        place.mkdir(parents=True)

    # Methods that a tier implements.

    @abc.abstractmethod
    def start(self) -> None:
        """Boots the host, and returns when its systemd reports that it is up."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """Shuts the host down, like `systemctl poweroff`."""

    @abc.abstractmethod
    def crash(self) -> None:
        """Stops the host immediately, without a shutdown."""

    @abc.abstractmethod
    def keep_journal(self, target: Path) -> None:
        """Copies the journal's files into a folder. May stop the host."""

    @abc.abstractmethod
    def run(self, command: str, timeout: float | None, stdin: IO[bytes] | None = None) -> tuple[int, bytes, bytes]:
        """Runs a command on the host, which is up, and returns its status and what it printed on either stream.

        The status is 124 when it took longer than `timeout` seconds. Its standard input is a file of this machine.
        """

    # The log.

    def log(self, message: str) -> None:
        """Prints a line with the time since the machine was created."""
        print(f"{time.monotonic() - self.began:7.2f}  {'  ' * self.depth}{message}", flush=True)

    @contextmanager
    def nested(self, message: str) -> Iterator[None]:
        """Prints the current action and its duration."""
        self.log(message)
        began = time.monotonic()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self.log(f"({time.monotonic() - began:.2f} s)")

    # Cleanup.

    def remove(self) -> None:
        """Stops the host and removes the run's folder."""
        self.crash()
        remove_tree(self.place)

    def keep_logs(self, target: Path) -> None:
        """Copies the journal and the console to the folder of logs."""
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.place) as journal, open(target / "journal.log", "wb") as log:
            self.keep_journal(Path(journal))
            subprocess.run(
                ["journalctl", "--no-pager", "--output=short-precise", f"--directory={journal}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if self.console.exists():
            (target / "console.log").write_bytes(self.console.read_bytes())

    def running(self) -> subprocess.Popen[bytes]:
        """Returns the process on this machine that runs the host."""
        if self.process is None:
            raise RuntimeError("the host is not running")
        return self.process

    # Commands.

    def execute(
        self, command: str, check_return: bool = True, timeout: float | None = 900, quiet: bool = False
    ) -> tuple[int, str]:
        """Runs a command and returns its status and its standard output; standard error goes to the log.

        The status is 124 when it took too long.
        """
        del check_return  # The NixOS test driver has it.
        self.start()
        began = time.monotonic()
        status, output, errors = self.run(command, timeout and timeout * self.slowness)
        if not quiet:
            self.log(f"$ {shortened(command)}  -> {status} ({time.monotonic() - began:.2f} s)")
            self._log_errors(errors)
        return status, output.decode(errors="replace")

    def _log_errors(self, errors: bytes) -> None:
        for line in errors.decode(errors="replace").splitlines():
            self.log(f"  | {line}")

    def succeed(self, *commands: str, timeout: float | None = TIMEOUT) -> str:
        """Runs commands that must succeed, and returns their output."""
        printed = ""
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status != 0:
                raise RequestedAssertionFailed(f"`{command}` failed with status {status}:\n{output}")
            printed += output
        return printed

    def fail(self, *commands: str, timeout: float | None = TIMEOUT) -> str:
        """Runs commands that must fail, and returns their output."""
        printed = ""
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status == 0:
                raise RequestedAssertionFailed(f"`{command}` succeeded:\n{output}")
            printed += output
        return printed

    def wait_until_succeeds(self, command: str, timeout: float = TIMEOUT) -> str:
        """Retries a command until it succeeds."""
        return self._wait_until(command, timeout, lambda status: status == 0, "succeeds")

    def wait_until_fails(self, command: str, timeout: float = TIMEOUT) -> str:
        """Retries a command until it fails."""
        return self._wait_until(command, timeout, lambda status: status != 0, "fails")

    def _wait_until(self, command: str, timeout: float, wanted: Callable[[int], bool], word: str) -> str:
        output = ""

        def look() -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout, quiet=True)
            return wanted(status)

        with self.nested(f"until `{shortened(command)}` {word}"):
            try:
                retry(look, timeout * self.slowness, f"`{command}` {word}")
            except RequestedAssertionFailed as failure:
                raise RequestedAssertionFailed(f"{failure}\n{output}") from None
        return output

    # Units and ports.

    def get_unit_property(self, unit: str, name: str) -> str:
        """Returns a unit's property, as printed by `systemctl show`."""
        command = f"systemctl show --value --property={name} -- {shlex.quote(unit)}"
        status, output = self.execute(command, quiet=True)
        if status != 0:
            raise RequestedAssertionFailed(f"`{command}` failed with status {status}:\n{output}")
        return output.strip()

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Fails unless the unit is in the state."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise RequestedAssertionFailed(f"{unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, timeout: float = TIMEOUT) -> None:
        """Waits until a unit is active, and fails at once if it cannot become active."""

        def look() -> bool:
            state = self.get_unit_property(unit, "ActiveState")
            if state == "failed" or (state == "inactive" and not self.get_unit_property(unit, "Job").strip("0")):
                # The job may have ended between the two queries.
                state = self.get_unit_property(unit, "ActiveState")
                if state in ("failed", "inactive"):
                    report = self.execute(f"systemctl status --no-pager --lines=30 {unit}", quiet=True)[1]
                    raise RequestedAssertionFailed(f"{unit} is {state}, and nothing is starting it:\n{report}")
            return state == "active"

        with self.nested(f"until {unit} is active"):
            retry(look, timeout * self.slowness, f"{unit} is active")

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: float = TIMEOUT) -> None:
        """Waits until the host, or a guest with that address, accepts connections."""
        self.wait_until_succeeds(f"exec 3<> /dev/tcp/{addr}/{port}", timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: float = TIMEOUT) -> None:
        """Waits until connections are no longer accepted."""
        self.wait_until_fails(f"timeout 5 bash -c 'exec 3<> /dev/tcp/{addr}/{port}'", timeout)

    # Files.

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or a tree from this machine to the host, replacing the target."""
        self.start()
        quoted = shlex.quote(target)
        into = f"mkdir -p $(dirname {quoted}); rm -rf {quoted}; "
        with tempfile.TemporaryFile(dir=self.place) as content:
            if os.path.isdir(source):
                into += f"mkdir {quoted}; tar -x -C {quoted}"
                subprocess.run(["tar", "-c", "-C", source, "."], stdout=content, check=True)
            else:
                into += f"cat > {quoted}; chmod {os.stat(source).st_mode & 0o777:o} {quoted}"
                content.write(Path(source).read_bytes())
            content.seek(0)
            status, _, errors = self.run(into, TIMEOUT * self.slowness, content)
        if status != 0:
            raise RequestedAssertionFailed(f"copying {source} failed with status {status}:\n{errors.decode()}")
        self.log(f"copied {source} to {target}")


def remove_tree(tree: Path) -> None:
    """Removes a folder, if nothing is mounted below it."""
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [mount for mount in mounts if mount == str(tree) or mount.startswith(f"{tree}/")]
    if mounts:
        raise RuntimeError(f"something is mounted below {tree}, so it is not removed: {mounts}")
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(tree)], check=True)


def shortened(command: str) -> str:
    """Returns a command as one line of limited length."""
    line = " ".join(command.split())
    return line if len(line) <= 140 else f"{line[:137]}..."


def tail(path: Path, lines: int = 30) -> str:
    """Returns the end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def lacking(programs: list[str]) -> list[str]:
    """Returns the requirements that this machine lacks: some of these programs, root, overlays."""
    lacks = [f"no {word} (run .ci/deps)" for word in programs if shutil.which(word, path=PATH) is None]
    if os.geteuid() != 0:
        lacks.append("root")
    filesystems = Path("/proc/filesystems")
    if not lacks and "overlay" not in filesystems.read_text():
        subprocess.run(["modprobe", "-q", "overlay"], check=False)
        if "overlay" not in filesystems.read_text():
            lacks.append("overlayfs in the kernel")
    return lacks


if __name__ == "__main__":
    sys.exit("this is a library: tests/vm/run uses it")
