"""The contenders. Each prepares, starts and destroys a guest that boots the same init.

`prepare` is not measured; the clock runs during `launch`, and again during `destroy`.
"""

import json
import shutil
import socket
import subprocess
from pathlib import Path

from machine import (
    NETWORK_SCRIPT,
    Boot,
    await_end,
    kill_guest,
    make_network,
    make_tree,
    remove_network,
    remove_tree,
    spawn,
)

# The nspawn arguments of an Innkeeper guest (crates/innkeeper-host/src/unit/nspawn.rs), without the guest-specific ones.
# `check_flags` fails when they differ.
NSPAWN_FLAGS = [
    "--quiet",
    "--settings=no",
    "--register=no",
    "--keep-unit",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--kill-signal=SIGRTMIN+3",
    "--console=read-only",
    "--drop-capability=CAP_AUDIT_CONTROL,CAP_LINUX_IMMUTABLE,CAP_MKNOD,CAP_SYS_TTY_CONFIG,CAP_SYS_RESOURCE",
    "--bind-ro=/nix/store:/nix/store",
]
NSPAWN_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

# Far above the slots that the daemon allocates meanwhile.
FIRST_USER_ID = 0x80000 + 20000 * 0x10000


class Contender:
    """A way to run a guest."""

    # Its letter in tables.
    letter = ""
    title = ""
    # Its Debian package.
    program: str | None = None
    package: str | None = None
    has_network = True

    def __init__(self, place, closure):
        self.place = place
        self.init = f"{closure}/init"

    def missing(self):
        """Returns the reason why it cannot be measured here, or None."""
        if self.program and not shutil.which(self.program):
            return f"{self.program} is not installed (Debian: apt-get install {self.package})"
        return None

    def prepare(self, number):
        """Prepares the guest before the clock starts."""
        name = f"{self.letter}{number}"
        home = self.place / "peers" / name
        boot = Boot(number, name, home / "root", home / "log")
        make_tree(boot.root)
        if self.has_network:
            boot.host_address = f"10.201.{number * 2 // 256}.{number * 2 % 256}"
            boot.address = f"10.201.{number * 2 // 256}.{number * 2 % 256 + 1}"
        self.prepare_rest(boot)
        return boot

    def prepare_rest(self, boot):
        """Creates the requirements besides a file tree, before the clock starts."""

    def launch(self, boot):
        """Starts the guest, possibly without waiting."""
        raise NotImplementedError

    def finish(self, boot):
        """Waits until a guest that answers has reached its final state."""

    def check_gone(self, boot):
        """Fails if a destroyed guest has left something."""

    def destroy(self, boot):
        """Destroys the guest and all its objects."""
        kill_guest(boot)
        if self.has_network:
            remove_network(boot)
        remove_tree(boot.root)


class Nspawn(Contender):
    letter = "c"
    title = "systemd-nspawn, user namespace, no address"
    program, package = "systemd-nspawn", "systemd-container"
    has_network = False

    def isolation(self, boot):
        first = FIRST_USER_ID + boot.number % 5000 * 0x10000
        return ["--private-network", f"--private-users={first}:65536", "--private-users-ownership=map"]

    def words(self, boot):
        own = [f"--machine={boot.name}", f"--hostname={boot.name}", f"--directory={boot.root}"]
        return ["systemd-nspawn", *NSPAWN_FLAGS, *self.isolation(boot), *own, "--", self.init]

    def launch(self, boot):
        spawn(boot, self.words(boot), env=self.environment())

    @staticmethod
    def environment():
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **NSPAWN_ENVIRONMENT}


class NspawnVeth(Nspawn):
    letter = "i"
    title = "systemd-nspawn, user namespace, veth pair without addresses"

    def isolation(self, boot):
        return ["--network-veth", *super().isolation(boot)[1:]]


class NspawnPrepared(Nspawn):
    letter = "d"
    title = "systemd-nspawn, prepared network namespace"
    has_network = True

    def isolation(self, boot):
        return [f"--network-namespace-path=/run/netns/{boot.namespace}"]

    def prepare_rest(self, boot):
        make_network(boot)


class NspawnScript(NspawnPrepared):
    letter = "e"
    title = "a script: `ip`, then systemd-nspawn"

    def prepare_rest(self, boot):
        """The namespace is created while the clock runs."""

    def launch(self, boot):
        script = NETWORK_SCRIPT + 'shift 4\nexec "$@"\n'
        words = ["sh", "-c", script, "sh", *boot.network_arguments(), *self.words(boot)]
        spawn(boot, words, env=self.environment())


class Unshare(Contender):
    letter = "f"
    title = "a script: `ip`, `unshare`, `chroot`"
    program, package = "unshare", "util-linux"

    # $1 is the root, $2 the init.
    INSIDE = """set -eu
mount --rbind /nix/store "$1/nix/store"
mount -o remount,bind,ro "$1/nix/store"
mount -t proc proc "$1/proc"
exec chroot "$1" "$2"
"""

    def launch(self, boot):
        script = NETWORK_SCRIPT + 'namespace=$1\nshift 4\nexec nsenter --net=/run/netns/$namespace -- "$@"\n'
        words = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--"]
        words += ["sh", "-c", self.INSIDE, "sh", str(boot.root), self.init]
        spawn(boot, ["sh", "-c", script, "sh", *boot.network_arguments(), *words])


class Crun(Contender):
    letter = "g"
    title = "crun, prepared network namespace"
    program = package = "crun"

    def prepare_rest(self, boot):
        make_network(boot)
        (boot.root.parent / "config.json").write_text(json.dumps(self.configuration(boot)))

    def missing(self):
        """crun rejects a host with both cgroup versions if version 2 has a controller; it uses neither here."""
        controllers = Path("/sys/fs/cgroup/unified/cgroup.controllers")
        if controllers.exists() and controllers.read_text().strip():
            # In this mount namespace only. On such a host, version 1 has the controllers that limit guests.
            subprocess.run(["mount", "--bind", "/dev/null", controllers], check=True)
        return super().missing()

    def configuration(self, boot):
        """Returns the bundle's config.json (OCI runtime specification 1.0)."""
        capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        kernel = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ]
        store = {
            "destination": "/nix/store",
            "type": "bind",
            "source": "/nix/store",
            "options": ["rbind", "ro"],
        }
        namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
        namespaces.append({"type": "network", "path": f"/run/netns/{boot.namespace}"})
        return {
            "ociVersion": "1.0.2",
            "hostname": boot.name,
            "root": {"path": "root"},
            "process": {
                "args": [self.init],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            },
            "mounts": [*kernel, store],
            "linux": {"namespaces": namespaces},
        }

    def options(self):
        return ["crun", "--root", "/run/bench-crun", "--cgroup-manager=disabled"]

    def launch(self, boot):
        spawn(boot, [*self.options(), "run", "--bundle", str(boot.root.parent), boot.name])

    def destroy(self, boot):
        # `crun run` runs as long as its guest, and then removes its state.
        subprocess.run([*self.options(), "kill", boot.name, "KILL"], check=True)
        await_end(boot)
        remove_network(boot)
        remove_tree(boot.root)


class Podman(Contender):
    letter = "h"
    title = "podman, prepared network namespace"
    program = package = "podman"

    def prepare_rest(self, boot):
        make_network(boot)

    def options(self):
        return [
            "podman",
            f"--root={self.place}/podman",
            "--runroot=/run/bench-podman",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]

    def launch(self, boot):
        words = [
            "run",
            f"--name={boot.name}",
            f"--hostname={boot.name}",
            f"--network=ns:/run/netns/{boot.namespace}",
            "--cgroups=disabled",
            "--log-driver=none",
            "--no-hosts",
            "--volume=/nix/store:/nix/store:ro",
            "--rootfs",
            str(boot.root),
            self.init,
        ]
        spawn(boot, [*self.options(), *words])

    def destroy(self, boot):
        command = [*self.options(), "rm", "--force", "--time=0", boot.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        await_end(boot)
        remove_network(boot)
        remove_tree(boot.root)


class Ours(Contender):
    """Innkeeper: the file tree and the network are created while the clock runs."""

    def __init__(self, daemon, closure):
        super().__init__(daemon.place, closure)
        self.daemon = daemon
        self.closure = closure

    def prepare(self, number):
        name = f"{self.letter}{number}"
        boot = Boot(number, name, self.daemon.guests / name / "rootfs", self.place / f"{name}.log")
        boot.address = self.daemon.next_address()
        return boot

    def check_gone(self, boot):
        """Fails if the tree or the interface of a guest is left that was created alone: a peer's time ends when those are gone."""
        _, _, third, fourth = boot.address.split(".")
        interface = f"ve-{(int(third) * 256 + int(fourth)) // 2}"
        if boot.root.exists() or interface in (name for _, name in socket.if_nameindex()):
            raise boot.broken(f"its tree or {interface} is left")


class Cli(Ours):
    letter = "a"
    title = "**innkeeper**, by `agent create`"

    def launch(self, boot):
        spawn(boot, [self.daemon.agent, "create", boot.name, "--closure", self.closure], env=self.daemon.environment())

    def finish(self, boot):
        if await_end(boot) != 0:
            raise boot.broken(f"it ended with status {boot.process.returncode}")

    def destroy(self, boot):
        spawn(boot, [self.daemon.agent, "destroy", boot.name], env=self.daemon.environment())
        self.finish(boot)


class Api(Ours):
    letter = "b"
    title = "**innkeeper**, by its socket"

    def launch(self, boot):
        accepted = self.daemon.call("POST", "/v1/guests", {"name": boot.name, "closure": self.closure})
        boot.operation = accepted["operation"]

    def finish(self, boot):
        self.daemon.finish(boot.operation)

    def destroy(self, boot):
        boot.operation = self.daemon.call("DELETE", f"/v1/guests/{boot.name}")["operation"]
        self.finish(boot)


class Pooled(Api):
    """Innkeeper with a door pool: tree, unit and network exist before the clock starts."""

    letter = "p"
    title = "**innkeeper**, by its socket, from its door pool"
    size = 2

    def prepare(self, number):
        boot = super().prepare(number)
        boot.address = self.daemon.await_pool(self.size)
        return boot

    def finish(self, boot):
        super().finish(boot)
        # The next seat is made after an operation, and not while the clock runs.
        self.daemon.await_pool(self.size)


class Warm(Api):
    """Innkeeper with a warm pool: the guest is booted and paused before the clock starts."""

    letter = "w"
    title = "**innkeeper**, by its socket, from its warm pool"

    def prepare(self, number):
        boot = super().prepare(number)
        boot.address = self.daemon.await_pool(1, "warm pool")
        return boot


def check_flags(words):
    """Returns the difference between the command line of a real guest's nspawn and bare nspawn's; empty is expected."""
    flags = words[1 : words.index("--")]
    own = ("--machine=", "--hostname=", "--directory=", "--private-users=", "--bind-ro=/run/")
    shared = {*NSPAWN_FLAGS, "--private-network", "--private-users-ownership=map"}
    ours = {flag for flag in flags if not flag.startswith(own) and ":/run/host/innkeeper/" not in flag}
    return sorted(ours ^ shared)


PEERS = [Nspawn, NspawnVeth, NspawnPrepared, NspawnScript, Unshare, Crun, Podman]
