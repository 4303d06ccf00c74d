"""The virtual tier: the host is a virtual machine under QEMU, with Debian's own kernel. It has all
features of a server: device-mapper, all cgroup controllers, and a power supply that can be cut. The processor is emulated in
software, so it needs no KVM, and is ten to twenty times slower than this machine.

Files in a run's folder:

    disk.img    the host's disk, with this run's changes
    data.img    a second disk, empty, for a volume group: /dev/vda
    console.log the output of the kernel and process 1, of all boots

Commands go through a virtual serial port to the program `commands` on the host; their standard input goes through a second
one. Both ports are sockets that QEMU inherits from this program, so no files are needed, and the host ends with this program.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from machine import TIMEOUT, Machine, RequestedAssertionFailed, lacking, tail

# The size of both disks. They are sparse files.
DISK = 8 << 30

KERNEL_ARGUMENTS = (
    "root=/dev/nvme0n1 rootfstype=ext4 rw console=ttyS0 quiet loglevel=4 panic=-1 systemd.show_status=0 "
    # Features that cost time under emulation and are not tested.
    "mitigations=off tsc=reliable no_timer_check random.trust_cpu=on audit=0 apparmor=0 selinux=0 nokaslr "
    "init_on_alloc=0 rcupdate.rcu_expedited=1 cryptomgr.notests=1"
)


class VirtualMachine(Machine):
    """A host of the virtual tier. `root` is the tree of tests/vm/image, `disk` the initial content of its disk."""

    slowness = 5

    def __init__(self, name: str, root: Path, disk: Path, place: Path) -> None:
        super().__init__(name, place)
        self.kernel = root / "boot/vmlinuz"
        self.emulator = emulator(root)
        self.commands: socket.socket | None = None
        self.input: socket.socket | None = None
        self.answers: IO[bytes] | None = None
        copy_sparse(disk, place / "disk.img")
        make_sparse(place / "data.img")

    def start(self) -> None:
        """Boots the host, and returns when its systemd reports that it is up."""
        if self.process is not None:
            return
        began = time.monotonic()
        self.commands, commands = socket.socketpair()
        self.input, stdin = socket.socketpair()
        with commands, stdin, open(self.place / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(
                # The host is killed with this program.
                ["setpriv", "--pdeathsig", "KILL", *self._qemu(commands.fileno(), stdin.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(commands.fileno(), stdin.fileno()),
            )
        self.answers = self.commands.makefile("rb")
        self.commands.settimeout(TIMEOUT * self.slowness)
        try:
            line = self._line()
        except OSError as error:
            self.crash()
            said = tail(self.place / "qemu.log") + tail(self.console)
            raise RuntimeError(f"the host did not boot: {error}\n{said}") from None
        if line != b"ready\n":
            raise RuntimeError(f"the host says {line!r}")
        # Failed units are left for the scenario to check.
        self.run("systemctl is-system-running --wait || true", TIMEOUT * self.slowness)
        self.log(f"{self.name}: up ({time.monotonic() - began:.2f} s)")

    def _qemu(self, commands: int, stdin: int) -> list[str]:
        arguments = [*self.emulator, "-name", self.name, "-M", "q35", "-accel", "tcg,tb-size=512"]
        # No vector extensions: their emulation is slow. One processor: scenarios run in parallel.
        arguments += ["-cpu", "max,la57=off,avx=off,avx2=off", "-smp", "1", "-m", "3072"]
        arguments += ["-nodefaults", "-display", "none", "-no-reboot"]
        arguments += ["-kernel", str(self.kernel), "-append", KERNEL_ARGUMENTS]
        arguments += ["-chardev", f"file,id=console,path={self.place}/console.log,append=on", "-serial", "chardev:console"]
        # The kernel supports NVMe without modules. Only one such disk, because the order of two is undefined.
        for disk, device in (("disk", "nvme,serial=disk"), ("data", "virtio-blk-pci")):
            # Data that the host has synced survives a power loss of the host, whatever happens to this machine.
            file = f"if=none,id={disk},file={self.place}/{disk}.img,format=raw,cache=unsafe,discard=unmap"
            arguments += ["-drive", file, "-device", f"{device},drive={disk}"]
        arguments += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        for port, descriptor in (("commands", commands), ("input", stdin)):
            arguments += ["-chardev", f"socket,id={port},fd={descriptor}"]
            arguments += ["-device", f"virtserialport,chardev={port},name={port}"]
        return arguments

    def shutdown(self) -> None:
        """Shuts the host down, like `systemctl poweroff`."""
        if self.process is None:
            return
        with self.nested("shutdown"):
            try:
                self.run("systemctl poweroff --no-block", TIMEOUT)
            except OSError:
                # The host may be off before it has responded.
                pass
            try:
                self.process.wait(TIMEOUT * self.slowness)
            except subprocess.TimeoutExpired:
                self.crash()
                raise RequestedAssertionFailed("the host did not shut down") from None
            self.crash()

    def crash(self) -> None:
        """Cuts the power. Data that the host had not yet synced is lost."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None
        for end in (self.answers, self.commands, self.input):
            if end is not None:
                end.close()
        self.answers = self.commands = self.input = None
        self.log("gone")

    def keep_journal(self, target: Path) -> None:
        """Copies the journal's files into a folder. Stops the host, because its disk must not be mounted twice."""
        if self.process is not None:
            try:
                self.run("journalctl --sync && sync", TIMEOUT)
            except (OSError, RuntimeError, ValueError) as error:
                self.log(f"what was not on the disk yet is not in the journal: {error}")
            self.crash()
        disk = str(self.place / "disk.img")
        quietly = subprocess.DEVNULL
        # Synced data is at least in the file system's own journal.
        subprocess.run(["e2fsck", "-y", "-E", "journal_only", disk], stdout=quietly, stderr=quietly, check=False)
        command = f"rdump /var/log/journal {target}"
        subprocess.run(["debugfs", "-R", command, disk], stdout=quietly, stderr=quietly, check=False)
        # It also creates the folder.
        for folder in (target / "journal").glob("*"):
            folder.rename(target / folder.name)

    def run(self, command: str, timeout: float | None, stdin: IO[bytes] | None = None) -> tuple[int, bytes, bytes]:
        """Runs a command through the program at the other end of the port."""
        if self.commands is None or self.input is None:
            raise RuntimeError("the host is not running")
        limit = f"{timeout:g}" if timeout else "infinity"
        reads = f"head -c {os.fstat(stdin.fileno()).st_size} < $INPUT | " if stdin else ""
        script = f"cd /root; set -euo pipefail; {reads}{{ {command}\n}}"
        encoded = base64.b64encode(script.encode()).decode()
        self.commands.settimeout(timeout + TIMEOUT if timeout else None)
        self.commands.sendall(f"{limit} {encoded}\n".encode())
        if stdin:
            # The command may end before it has read its whole input.
            threading.Thread(target=feed, args=(self.input, stdin.read()), daemon=True).start()
        try:
            status, output, errors = self._line().removesuffix(b"\n").split(b" ")
        except TimeoutError:
            raise RuntimeError(f"the host does not answer:\n{tail(self.console)}") from None
        return int(status), base64.b64decode(output), base64.b64decode(errors)

    def _line(self) -> bytes:
        """Returns the next line that the host sends."""
        if self.answers is None:
            raise RuntimeError("the host is not running")
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(f"the host is gone:\n{tail(self.console)}")
        return line


def feed(port: socket.socket, content: bytes) -> None:
    """Sends a command's standard input."""
    try:
        port.sendall(content)
    except OSError:
        pass


def emulator(root: Path) -> list[str]:
    """Returns the QEMU beside a tree, with its own libraries."""
    qemu = Path(f"{root}.qemu/usr")
    (loader,) = qemu.glob("lib64/ld-linux-*.so.2")
    (libraries,) = qemu.glob("lib/*-linux-gnu")
    firmware = ["-L", f"{qemu}/share/qemu", "-L", f"{qemu}/share/seabios"]
    return [str(loader), "--library-path", str(libraries), f"{qemu}/bin/qemu-system-x86_64", *firmware]


def make_disk(root: Path, layer: Path, place: Path) -> Path:
    """Creates a disk with an installed host: the tree, the layer on top of it, and the built closures of guests."""
    disk = place / "disk.img"
    make_sparse(disk)
    with tempfile.TemporaryDirectory(dir=place) as work:
        # Mounted in its own namespace, which ends with its last process.
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "bash", "-euc", MAKE_DISK]
            + ["make-disk", str(root), str(layer), work, str(disk)],
            check=True,
        )
    return disk


# Builds with the host's own Nix, which would take half a minute in each scenario.
MAKE_DISK = """
    root=$1 layer=$2 work=$3 disk=$4
    mkdir "$work"/{upper,work,tree}
    mount -t overlay overlay -o "lowerdir=$layer:$root,upperdir=$work/upper,workdir=$work/work" "$work/tree"
    mount -t proc proc "$work/tree/proc"
    mount -t tmpfs dev "$work/tree/dev"
    mknod -m 666 "$work/tree/dev/null" c 1 3
    mknod -m 666 "$work/tree/dev/urandom" c 1 9
    mkdir "$work/tree/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$work/tree/dev/pts"
    ln -s pts/ptmx "$work/tree/dev/ptmx"
    guests=path:/opt/innkeeper/guests
    # With the daemon's cache, which also caches evaluated flakes.
    env -i HOME=/root XDG_CACHE_HOME=/var/cache/innkeeper PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$work/tree" \\
      nix --extra-experimental-features 'nix-command flakes' --option sandbox false \\
      --option substituters '' build --quiet --no-link "$guests#agent" "$guests#systemd" < /dev/null
    umount --recursive "$work/tree/dev" "$work/tree/proc"
    mke2fs -q -F -t ext4 -L root -m 0 -O ^metadata_csum -E lazy_itable_init=1,nodiscard -d "$work/tree" "$disk"
"""


def make_sparse(file: Path) -> None:
    """Creates an empty disk."""
    with open(file, "wb") as disk:
        disk.truncate(DISK)


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a sparse disk."""
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", str(source), str(target)], check=True)


def missing() -> list[str]:
    """Returns the requirements of the virtual tier that this machine lacks."""
    return lacking(
        ["mmdebstrap", "mke2fs", "debugfs", "e2fsck", "unshare", "setpriv", "journalctl", "flock"]
    )
