"""A Debian host that a test drives, with the method names of the NixOS test driver.

The native tier: the host is a systemd-nspawn container with a systemd of its own as process 1, a network
of its own and nothing of this machine's. It boots in half a second. What it lacks: device-mapper, and the
cgroup controllers of a machine that has them mounted elsewhere.

What the host consists of lies in one folder, the place of a run:

    upper/      what this run has changed of the tree that tests/vm/image made: it outlives a crash
    lib/        /var/lib/innkeeper, which lies on the disk itself: file trees cannot be id-mapped on an overlay
    console.log what process 1 printed, all boots

Everything that runs in the host is in a process namespace that ends with its first process, and in a cgroup
of its own; everything that is mounted is mounted in a mount namespace that ends with its last process. So
there is nothing to unmount afterwards, and nothing of this machine below what is removed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# How long anything may take that ought to take no time. Only a test that fails waits that long.
PATIENCE = 60.0

# The pause between two looks at what does not announce itself.
PAUSE = 0.05

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RequestedAssertionFailed(AssertionError):
    """A command of a test did not do what the test says that it does."""


class CannotRun(Exception):
    """This machine lacks something that the tier needs."""


def retry(look: Callable[[], bool], timeout: float, what: str) -> None:
    """Looks until there is something to see."""
    end = time.monotonic() + timeout
    while not look():
        if time.monotonic() > end:
            raise RequestedAssertionFailed(f"{what}: not within {timeout:g} s")
        time.sleep(PAUSE)


class Machine:
    """A host in the native tier. `root` is the file tree under its own changes; `layer` is put on top."""

    def __init__(self, name: str, root: Path, layer: Path, place: Path) -> None:
        self.name = name
        self.lower = [layer, root]
        self.place = place
        self.console = place / "console.log"
        self.cgroup = cgroup2_mount() / f"innkeeper-test-{place.name}"
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = 0
        self.began = time.monotonic()
        self.depth = 0
        for folder in ("upper", "work", "merged", "lib"):
            (place / folder).mkdir(parents=True)

    # The log.

    def log(self, message: str) -> None:
        """Prints a line with the time since the machine was made."""
        print(f"{time.monotonic() - self.began:7.2f}  {'  ' * self.depth}{message}", flush=True)

    @contextmanager
    def nested(self, message: str) -> Iterator[None]:
        """Says what is being done, and how long it took."""
        self.log(message)
        began = time.monotonic()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self.log(f"({time.monotonic() - began:.2f} s)")

    # Its life.

    def start(self) -> None:
        """Boots the host, and returns when its systemd says that it is up."""
        if self.process is not None:
            return
        began = time.monotonic()
        # A socket's path has at most 107 bytes; the place's own may be longer.
        with tempfile.TemporaryDirectory(prefix="innkeeper-") as short, socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM
        ) as notify:
            address = f"{short}/notify"
            notify.bind(address)
            notify.settimeout(0.1)
            self.cgroup.mkdir(exist_ok=True)
            with open(self.console, "ab") as console:
                self.process = subprocess.Popen(
                    # Whatever ends this program ends the host.
                    ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
                    + ["--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash", "-euc", self._boot()],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={"PATH": PATH, "NOTIFY_SOCKET": address, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes"},
                )
            self._await_ready(notify)
        self.leader = self._find_leader()
        self.log(f"{self.name}: up ({time.monotonic() - began:.2f} s)")

    def _boot(self) -> str:
        place = shlex.quote(str(self.place))
        # The guests have their file trees on a plain file system, as on any host.
        binds = f"--bind={place}/lib:/var/lib/innkeeper"
        for device in ("/dev/fuse", "/dev/net/tun"):
            if os.path.exists(device):
                binds += f" --bind={device}"
        lower = shlex.quote(":".join(map(str, self.lower)))
        return f"""
            echo $$ > {shlex.quote(str(self.cgroup))}/cgroup.procs
            mount -t overlay overlay -o lowerdir={lower},upperdir={place}/upper,workdir={place}/work {place}/merged
            mount -t cgroup2 none /sys/fs/cgroup
            exec systemd-nspawn --quiet --register=no --keep-unit --settings=no --machine={self.name} \
              --directory={place}/merged --private-network --resolv-conf=off --timezone=off --link-journal=no \
              --capability=all --system-call-filter='@raw-io @module keyctl bpf perf_event_open' \
              {binds} --console=read-only --notify-ready=yes --boot
        """

    def _await_ready(self, notify: socket.socket) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if b"READY=1" in notify.recv(4096).splitlines():
                    return
            except TimeoutError:
                pass
            if self._process().poll() is not None or time.monotonic() > end:
                self.crash()
                raise RuntimeError(f"the host did not boot:\n{tail(self.console)}")

    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError("the host is not running")
        return self.process

    def _find_leader(self) -> int:
        """The host's process 1, as this machine counts: the child of nspawn, which is the child of unshare."""
        for nspawn in children(self._process().pid):
            for candidate in children(nspawn):
                status = Path(f"/proc/{candidate}/status").read_text()
                if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                    return candidate
        raise RuntimeError("the host has no process 1")

    def shutdown(self) -> None:
        """Shuts the host down in good order, as `systemctl poweroff` would."""
        if self.process is None:
            return
        with self.nested("shutdown"):
            # systemd(1), SIGRTMIN+4: powers off.
            os.kill(self.leader, signal.SIGRTMIN + 4)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.crash()
                raise RequestedAssertionFailed("the host did not shut down") from None
            self.crash()

    def crash(self) -> None:
        """Ends the host at once. What was written to files stays: this is no loss of power to the disk."""
        if self.process is None:
            return
        # All processes of the host, and commands that were run in it, go with their namespace's first one.
        for nspawn in children(self.process.pid):
            os.kill(nspawn, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process = None
        self.leader = 0
        if (self.cgroup / "cgroup.kill").exists():
            (self.cgroup / "cgroup.kill").write_text("1")
        retry(lambda: remove_cgroup(self.cgroup), PATIENCE, "the end of the host's processes")
        self.log("gone")

    def remove(self) -> None:
        """Removes the run's place. The host must be gone."""
        self.crash()
        remove_tree(self.place)

    def keep_logs(self, target: Path) -> None:
        """Copies the journal and the console to where they are looked for."""
        target.mkdir(parents=True, exist_ok=True)
        if self.console.exists():
            shutil.copy(self.console, target / "console.log")
        journal = self.place / "upper/var/log/journal"
        if self.process is not None:
            self.execute("journalctl --sync", timeout=10)
        with open(target / "journal.log", "wb") as log:
            subprocess.run(
                ["journalctl", "--no-pager", "--output=short-precise", f"--directory={journal}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )

    # Commands.

    def _command(self, command: str) -> list[str]:
        """What runs a command as root in the host."""
        environment = ["HOME=/root", "USER=root", "LANG=C.UTF-8", f"PATH={PATH}", "SYSTEMD_COLORS=0", "PAGER="]
        return (
            ["nsenter", "--target", str(self.leader), "--all", "--", "/usr/bin/env", "-i", *environment]
            + ["bash", "-c", f"cd /root; set -euo pipefail; {command}"]
        )

    def execute(
        self, command: str, check_return: bool = True, timeout: float | None = 900, quiet: bool = False
    ) -> tuple[int, str]:
        """Runs a command and returns its status and its standard output; standard error goes to the log.

        The status is 124 when it took too long.
        """
        del check_return  # The NixOS test driver has it.
        self.start()
        began = time.monotonic()
        try:
            done = subprocess.run(
                self._command(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
            status, output, errors = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as expired:
            status, output, errors = 124, expired.stdout or b"", expired.stderr or b""
        if not quiet:
            self.log(f"$ {shortened(command)}  -> {status} ({time.monotonic() - began:.2f} s)")
            self._log_errors(errors)
        return status, output.decode(errors="replace")

    def _log_errors(self, errors: bytes) -> None:
        for line in errors.decode(errors="replace").splitlines():
            self.log(f"  | {line}")

    def succeed(self, *commands: str, timeout: float | None = PATIENCE) -> str:
        """Runs commands that must succeed, and returns what they printed."""
        printed = ""
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status != 0:
                raise RequestedAssertionFailed(f"`{command}` failed with status {status}:\n{output}")
            printed += output
        return printed

    def fail(self, *commands: str, timeout: float | None = PATIENCE) -> str:
        """Runs commands that must fail, and returns what they printed."""
        printed = ""
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status == 0:
                raise RequestedAssertionFailed(f"`{command}` succeeded:\n{output}")
            printed += output
        return printed

    def wait_until_succeeds(self, command: str, timeout: float = PATIENCE) -> str:
        """Runs a command again and again until it succeeds."""
        return self._wait_until(command, timeout, lambda status: status == 0, "succeeds")

    def wait_until_fails(self, command: str, timeout: float = PATIENCE) -> str:
        """Runs a command again and again until it fails."""
        return self._wait_until(command, timeout, lambda status: status != 0, "fails")

    def _wait_until(self, command: str, timeout: float, wanted: Callable[[int], bool], word: str) -> str:
        output = ""

        def look() -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout, quiet=True)
            return wanted(status)

        with self.nested(f"until `{shortened(command)}` {word}"):
            try:
                retry(look, timeout, f"`{command}` {word}")
            except RequestedAssertionFailed as failure:
                raise RequestedAssertionFailed(f"{failure}\n{output}") from None
        return output

    # Units and ports.

    def get_unit_property(self, unit: str, name: str) -> str:
        """A unit's property, as `systemctl show` prints it."""
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

    def wait_for_unit(self, unit: str, timeout: float = PATIENCE) -> None:
        """Waits until a unit is active, and fails as soon as it cannot become so any more."""

        def look() -> bool:
            state = self.get_unit_property(unit, "ActiveState")
            if state == "failed" or (state == "inactive" and not self.get_unit_property(unit, "Job").strip("0")):
                # A job may have ended between the two questions.
                state = self.get_unit_property(unit, "ActiveState")
                if state in ("failed", "inactive"):
                    report = self.execute(f"systemctl status --no-pager --lines=30 {unit}", quiet=True)[1]
                    raise RequestedAssertionFailed(f"{unit} is {state}, and nothing is starting it:\n{report}")
            return state == "active"

        with self.nested(f"until {unit} is active"):
            retry(look, timeout, f"{unit} is active")

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: float = PATIENCE) -> None:
        """Waits until something in the host, or a guest with that address, accepts connections."""
        self.wait_until_succeeds(f"exec 3<> /dev/tcp/{addr}/{port}", timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: float = PATIENCE) -> None:
        """Waits until nothing accepts connections there."""
        self.wait_until_fails(f"timeout 5 bash -c 'exec 3<> /dev/tcp/{addr}/{port}'", timeout)

    # Files.

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or a tree of this machine into the host, in the place of what was there."""
        self.start()
        quoted = shlex.quote(target)
        into = f"mkdir -p $(dirname {quoted}); rm -rf {quoted}; "
        if os.path.isdir(source):
            command = into + f"mkdir {quoted}; tar -x -C {quoted}"
            with subprocess.Popen(["tar", "-c", "-C", source, "."], stdout=subprocess.PIPE) as packer:
                subprocess.run(self._command(command), stdin=packer.stdout, check=True)
            if packer.returncode != 0:
                raise RequestedAssertionFailed(f"copying {source} failed")
        else:
            command = into + f"cat > {quoted}; chmod {os.stat(source).st_mode & 0o777:o} {quoted}"
            with open(source, "rb") as content:
                subprocess.run(self._command(command), stdin=content, check=True)
        self.log(f"copied {source} to {target}")


def children(pid: int) -> list[int]:
    """The child processes of a process that may have ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found.extend(map(int, (task / "children").read_text().split()))
        except OSError:
            pass
    return found


def cgroup2_mount() -> Path:
    """Where this machine has version 2 of cgroups mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split(" ")
        if words[2] == "cgroup2" and "rw" in words[3].split(","):
            return Path(words[1])
    raise CannotRun("no cgroup2 is mounted that can be written")


def remove_cgroup(cgroup: Path) -> bool:
    """Removes a cgroup with all that it has; `False` when there are still processes in it."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True


def remove_tree(tree: Path) -> None:
    """Removes a folder, if nothing is mounted below it."""
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [mount for mount in mounts if mount == str(tree) or mount.startswith(f"{tree}/")]
    if mounts:
        raise RuntimeError(f"something is mounted below {tree}, so it is not removed: {mounts}")
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(tree)], check=True)


def shortened(command: str) -> str:
    """A command on one line that is not too long."""
    line = " ".join(command.split())
    return line if len(line) <= 140 else f"{line[:137]}..."


def tail(path: Path, lines: int = 30) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def missing() -> list[str]:
    """What this machine lacks for the native tier."""
    lacks = [f"no {word} (run .ci/install)" for word in programs() if shutil.which(word, path=PATH) is None]
    if os.geteuid() != 0:
        lacks.append("root")
    try:
        cgroup2_mount()
    except CannotRun as reason:
        lacks.append(str(reason))
    filesystems = Path("/proc/filesystems").read_text()
    if not lacks and "overlay" not in filesystems:
        subprocess.run(["modprobe", "-q", "overlay"], check=False)
        if "overlay" not in Path("/proc/filesystems").read_text():
            lacks.append("overlayfs in the kernel")
    return lacks


def programs() -> list[str]:
    """What the native tier runs on this machine."""
    return ["systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "setpriv", "journalctl", "flock"]


if __name__ == "__main__":
    sys.exit("this is a library: tests/vm/run uses it")
