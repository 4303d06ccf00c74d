"""The native tier: the host is a systemd-nspawn container with its own systemd as process 1 and its own network, isolated from
this machine. It boots in half a second. It lacks device-mapper, and cgroup controllers that the machine has mounted
elsewhere.

Files in a run's folder:

    upper/      this run's changes to the tree of tests/vm/image, which survive a crash
    lib/        /var/lib/innkeeper, outside of the overlay: file trees cannot be id-mapped on one
    nix/        /nix, for the same reason
    console.log the output of process 1, of all boots

All processes of the host are in a PID namespace that ends with its first process, and in their own cgroup. All mounts are
in a mount namespace that ends with its last process. So no unmount is needed, and the removed folder never contains a mount
of this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from machine import (
    ENVIRONMENT,
    PATH,
    TIMEOUT,
    CannotRun,
    Machine,
    RequestedAssertionFailed,
    lacking,
    retry,
    tail,
)


class NativeMachine(Machine):
    """A host of the native tier. `root` is the read-only file tree; `layer` is put on top of it."""

    def __init__(self, name: str, root: Path, layer: Path, place: Path) -> None:
        super().__init__(name, place)
        self.lower = [layer, root]
        self.cgroup = cgroup2_mount() / f"innkeeper-test-{place.name}"
        self.leader = 0
        for folder in ("upper", "work", "merged", "lib"):
            (place / folder).mkdir()
        subprocess.run(["cp", "--archive", root / "nix", place / "nix"], check=True)

    def start(self) -> None:
        """Boots the host, and returns when its systemd reports that it is up."""
        if self.process is not None:
            return
        began = time.monotonic()
        # A socket's path has at most 107 bytes; the run's folder may have a longer one.
        with tempfile.TemporaryDirectory(prefix="innkeeper-") as short, socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM
        ) as notify:
            address = f"{short}/notify"
            notify.bind(address)
            notify.settimeout(0.1)
            self.cgroup.mkdir(exist_ok=True)
            with open(self.console, "ab") as console:
                self.process = subprocess.Popen(
                    # The host is killed with this program.
                    ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
                    + ["--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash", "-euc", self._boot()],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={
                        "PATH": PATH,
                        "NOTIFY_SOCKET": address,
                        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
                        # Processes with a system call filter cannot read those of others; a real host's process 1 has none.
                        "SYSTEMD_SECCOMP": "0",
                    },
                )
            self._await_ready(notify)
        self.leader = self._find_leader()
        self.log(f"{self.name}: up ({time.monotonic() - began:.2f} s)")

    def _boot(self) -> str:
        place = shlex.quote(str(self.place))
        # Guests' file trees are on a plain file system, as on a real host.
        binds = f"--bind={place}/lib:/var/lib/innkeeper --bind={place}/nix:/nix"
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
              --capability=all --system-call-filter='@raw-io @module keyctl add_key bpf perf_event_open' \
              {binds} --console=read-only --notify-ready=yes --boot
        """

    def _await_ready(self, notify: socket.socket) -> None:
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                if b"READY=1" in notify.recv(4096).splitlines():
                    return
            except TimeoutError:
                pass
            if self.running().poll() is not None or time.monotonic() > end:
                self.crash()
                raise RuntimeError(f"the host did not boot:\n{tail(self.console)}")

    def _find_leader(self) -> int:
        """Returns the PID of the host's process 1 on this machine: the child of nspawn, which is the child of unshare."""
        for nspawn in children(self.running().pid):
            for candidate in children(nspawn):
                status = Path(f"/proc/{candidate}/status").read_text()
                if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                    return candidate
        raise RuntimeError("the host has no process 1")

    def shutdown(self) -> None:
        """Shuts the host down, like `systemctl poweroff`."""
        if self.process is None:
            return
        with self.nested("shutdown"):
            # systemd(1), SIGRTMIN+4: powers off.
            os.kill(self.leader, signal.SIGRTMIN + 4)
            try:
                self.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.crash()
                raise RequestedAssertionFailed("the host did not shut down") from None
            self.crash()

    def crash(self) -> None:
        """Kills the host. Written files stay: the disk does not lose power."""
        if self.process is None:
            return
        # All processes of the host, and commands in it, end with the first process of their namespace.
        for nspawn in children(self.process.pid):
            os.kill(nspawn, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process = None
        self.leader = 0
        if (self.cgroup / "cgroup.kill").exists():
            (self.cgroup / "cgroup.kill").write_text("1")
        retry(lambda: remove_cgroup(self.cgroup), TIMEOUT, "the end of the host's processes")
        self.log("gone")

    def keep_journal(self, target: Path) -> None:
        """Copies the journal's files into a folder."""
        if self.process is not None:
            self.execute("journalctl --sync", timeout=10)
        journal = self.place / "upper/var/log/journal"
        if journal.exists():
            shutil.copytree(journal, target, dirs_exist_ok=True)

    def run(self, command: str, timeout: float | None, stdin: IO[bytes] | None = None) -> tuple[int, bytes, bytes]:
        """Runs a command as root in all namespaces of the host."""
        try:
            done = subprocess.run(
                ["nsenter", "--target", str(self.leader), "--all", "--", "/usr/bin/env", "-i", *ENVIRONMENT]
                + ["bash", "-c", f"cd /root; set -euo pipefail; {command}"],
                stdin=stdin or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            return 124, expired.stdout or b"", expired.stderr or b""
        return done.returncode, done.stdout, done.stderr


def children(pid: int) -> list[int]:
    """Returns the child processes of a process that may have ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found.extend(map(int, (task / "children").read_text().split()))
        except OSError:
            pass
    return found


def cgroup2_mount() -> Path:
    """Returns the mount point of cgroups of version 2 on this machine."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split(" ")
        if words[2] == "cgroup2" and "rw" in words[3].split(","):
            return Path(words[1])
    raise CannotRun("no cgroup2 is mounted that can be written")


def remove_cgroup(cgroup: Path) -> bool:
    """Removes a cgroup with its children; returns `False` if it still has processes."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True


def missing() -> list[str]:
    """Returns the requirements of the native tier that this machine lacks."""
    lacks = lacking(["systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "setpriv", "journalctl", "flock"])
    try:
        cgroup2_mount()
    except CannotRun as reason:
        lacks.append(str(reason))
    return lacks
