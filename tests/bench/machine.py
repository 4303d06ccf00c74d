"""Building blocks of contenders: file trees, network namespaces, processes."""

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

# The timeout of all operations.
PATIENCE = 60.0

# A guest's tree before its first boot, as in crates/innkeeper-host/src/rootfs/skeleton.rs.
DIRECTORIES = "dev etc home mnt nix nix/store proc root run sys tmp usr var".split()
FILES = {"etc/machine-id": "", "etc/os-release": 'ID=innkeeper-guest\nNAME="Innkeeper guest"\n'}

# A script that assigns an address to a guest: $1 is the namespace, $2 the interface, $3 the host's
# address, $4 the guest's. Batches avoid one `ip` process per line.
NETWORK_SCRIPT = """set -eu
ip netns add "$1"
ip -batch - << END
link add $2 type veth peer name host0 netns $1
address add $3/32 dev $2
link set $2 up
route add $4/32 dev $2
END
ip -n "$1" -batch - << END
link set lo up
address add $4/32 dev host0
link set host0 up
route add $3/32 dev host0
route add default via $3 dev host0
END
"""


class Broken(Exception):
    """A failure of a contender, with the end of its output."""


@dataclass
class Boot:
    """One guest of one contender."""

    number: int
    name: str
    root: Path
    log: Path
    # The guest's address, or None.
    address: str | None = None
    host_address: str | None = None
    process: subprocess.Popen | None = None
    operation: int | None = None
    # Clock readings in nanoseconds since 1970.
    begun: int = 0
    stamps: dict = field(default_factory=dict)

    @property
    def namespace(self):
        return f"bench{self.number}"

    @property
    def interface(self):
        return f"vb-{self.number}"

    def network_arguments(self):
        return [self.namespace, self.interface, self.host_address, self.address]

    def broken(self, what):
        output = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return Broken(f"{self.name}: {what}\n{output}")


def make_tree(root):
    """Creates the file tree of a guest."""
    root.mkdir(parents=True)
    for directory in DIRECTORIES:
        (root / directory).mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    for path, content in FILES.items():
        (root / path).write_text(content)


def remove_tree(root):
    """Removes the file tree of a guest, and its contender's files beside it."""
    shutil.rmtree(root.parent)


def make_network(boot):
    """Creates a network namespace with an address, before the clock starts."""
    subprocess.run(["sh", "-c", NETWORK_SCRIPT, "sh", *boot.network_arguments()], check=True)


def remove_network(boot):
    """Removes the namespace, and waits until the kernel has removed the pair of interfaces with it."""
    subprocess.run(["ip", "netns", "del", boot.namespace], check=True)
    deadline = time.monotonic() + PATIENCE
    # Until then the guest's address is routed, and the interface's name is taken.
    while boot.interface in (name for _, name in socket.if_nameindex()):
        if time.monotonic() > deadline:
            raise boot.broken(f"its interface {boot.interface} is not gone")
        time.sleep(0.0005)


def spawn(boot, words, **more):
    """Starts a program with its output in the boot's log."""
    with open(boot.log, "ab") as log:
        boot.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
        )


def children(pid):
    """Returns the children of all threads of `pid`."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for children in lists for word in children.read_text().split()]


def first_process(boot):
    """Returns the PID of the guest's process 1 on the host: the last of a chain of only children."""
    pid = boot.process.pid
    while found := children(pid):
        pid = found[-1]
    if pid == boot.process.pid:
        raise boot.broken("it has no process")
    return pid


def await_end(boot):
    """Waits until the program that runs the guest has ended; returns its status.

    `Popen.wait` with a timeout polls, with pauses that become longer than the measured time.
    """
    if boot.process.poll() is not None:
        return boot.process.returncode
    descriptor = os.pidfd_open(boot.process.pid)
    try:
        if not select.select([descriptor], [], [], PATIENCE)[0]:
            raise boot.broken("it does not end")
    finally:
        os.close(descriptor)
    return boot.process.wait()


def kill_guest(boot):
    """Kills the guest's process 1 and waits until the program that ran it has ended."""
    os.kill(first_process(boot), signal.SIGKILL)
    await_end(boot)


def await_stamp(boot):
    """Returns the time that the guest's process 1 recorded, in nanoseconds since 1970."""
    deadline = time.monotonic() + PATIENCE
    path = boot.root / "stamp"
    while True:
        try:
            text = path.read_text()
        except OSError:
            text = ""
        if text.endswith("\n"):
            break
        if time.monotonic() > deadline:
            raise boot.broken("its process 1 did not start in time")
        if boot.process and boot.process.poll() not in (None, 0):
            raise boot.broken(f"it ended with status {boot.process.returncode}")
        time.sleep(0.0005)
    pid, nanoseconds = text.split()
    if pid != "1":
        raise boot.broken(f"its init was process {pid}")
    return int(nanoseconds)


def await_answer(boot):
    """Returns the time of the first accepted connection, in nanoseconds since 1970."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as attempt:
            attempt.settimeout(0.05)
            if attempt.connect_ex((boot.address, 22)) == 0:
                return time.time_ns()
        if time.monotonic() > deadline:
            raise boot.broken(f"it does not answer at {boot.address}")


def await_byte(boot):
    """Returns the time of the first byte from port 22. The kernel of a paused guest accepts connections, and none of its programs responds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as attempt:
            attempt.settimeout(1)
            try:
                attempt.connect((boot.address, 22))
                if attempt.recv(1):
                    return time.time_ns()
            except OSError:
                pass
        if time.monotonic() > deadline:
            raise boot.broken(f"it sends nothing at {boot.address}")


def settle():
    """Waits for the kernel's cleanup after the last guest.

    The kernel removes network namespaces in the background, under a lock that creating one needs as well: without this, the
    cost would be added to the next contender.
    """
    time.sleep(0.1)
    subprocess.run(["unshare", "--net", "true"], check=True)


def share_processor(name):
    """Moves this process and its later children into one cgroup for processor time.

    Innkeeper guests share one cgroup. On a machine with other load, each process without a cgroup would get as much time as
    all of them. Version 2 shares in the same way, but there such a cgroup would conflict with those that nspawn creates.
    """
    hierarchies = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for _, mount, kind, options, *_ in hierarchies:
        if kind == "cgroup" and "cpu" in options.split(","):
            group = Path(mount) / name
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text(str(os.getpid()))


def resident(pid):
    """Returns the resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Broken(f"process {pid} has no memory")
