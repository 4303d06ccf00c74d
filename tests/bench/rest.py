"""Measures guests at rest: wakes, density, a start of all guests as after a reboot, and many sleeping guests.

Each has a peer in the same run: an awake guest, bare nspawn with the same closure, or the daemon without guests.
"""

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from contenders import NspawnPrepared
from daemon import Busy
from machine import PATIENCE, Broken, await_end, children, remove_network, remove_tree, resident, settle, spawn

# The time in which a packet wakes a guest, or is taken to wake none.
PACKET_PATIENCE = 10.0

# The number of guests that are paused in turns.
HERD = 20

REQUEST = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n"

# What woke a guest, in the table.
NOTHING, COMMAND, REQUESTED = "–", "`agent wake`", "the request"


@dataclass
class Rest:
    """The measurements, in milliseconds where they are times."""

    # The first byte of an answer, by the guest, its level before, and what woke it.
    wakes: dict = field(default_factory=dict)
    # All guests answer after a start of the daemon without any of their processes: the number of guests, the time; and the
    # time until as many bare nspawn answer, which start at once.
    reboot: tuple | None = None
    # Sleeping guests: their number, the daemon's memory in KiB without guests and with them, the times until one answers.
    asleep: tuple | None = None
    # Memory of a guest in bytes, by the guest and its level, with the programs beside it.
    memory: dict = field(default_factory=dict)


@dataclass
class Scale:
    """The numbers of repetitions and of guests."""

    sweeps: int
    starts: int
    reboot: int
    asleep: int
    density: int


FULL = Scale(sweeps=15, starts=20, reboot=100, asleep=1000, density=20)
QUICK = Scale(sweeps=2, starts=3, reboot=10, asleep=20, density=5)


class Bare(NspawnPrepared):
    """Bare nspawn that boots any closure; process 1 may have children."""

    def destroy(self, boot):
        os.kill(children(boot.process.pid)[-1], signal.SIGKILL)
        await_end(boot)
        remove_network(boot)
        remove_tree(boot.root)

    def launch_in(self, boot, group):
        """Starts the guest in a cgroup."""

        def enter():
            (group / "cgroup.procs").write_text("0")

        spawn(boot, self.words(boot), env=self.environment(), preexec_fn=enter)


def measure(daemon, closures, quick, show):
    """Measures with a daemon that has no guest, and leaves none. `closures` has the guests' by their titles; the first one is
    static."""
    scale = QUICK if quick else FULL
    found = Rest()
    static = next(iter(closures.values()))
    bare = {title: Bare(daemon.place, closure) for title, closure in closures.items()}
    numbers = iter(range(10_000, 20_000))
    show("requests to paused guests")
    paused(daemon, static, scale.sweeps, found)
    for title, closure in closures.items():
        show(f"requests to sleeping guests: {title}")
        sleeping(daemon, (title, closure, bare[title]), scale.starts, numbers, found)
        show(f"memory of guests: {title}")
        density(daemon, (title, closure, bare[title]), scale.density, numbers, found)
    show(f"{scale.reboot} guests after a reboot")
    reboot(daemon, static, next(iter(bare.values())), scale.reboot, numbers, found)
    show(f"{scale.asleep} sleeping guests")
    asleep(daemon, static, scale.asleep, found)
    return found


def create(daemon, closure, names, memory="64M"):
    """Creates guests, and returns their addresses by name."""

    def one(name):
        body = {"name": name, "closure": closure, "memory": memory}
        daemon.finish(daemon.call("POST", "/v1/guests", body)["operation"])

    at_once(one, names)
    views = {view["name"]: view for view in daemon.call("GET", "/v1/guests")}
    return {name: views[name]["guest_address"] for name in names}


def destroy(daemon, names):
    def one(name):
        daemon.finish(daemon.call("DELETE", f"/v1/guests/{name}")["operation"])

    at_once(one, names)


def at_once(job, names):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(job, names))


# The level that each command leaves.
LEVELS = {"pause": "paused", "sleep": "asleep", "wake": "awake"}


def change(daemon, name, verb):
    """Changes a guest's level, and waits until it has that."""
    daemon.finish(request(daemon, name, verb))
    await_level(daemon, name, LEVELS[verb])


def request(daemon, name, verb):
    """Requests a change, and returns the operation. The wake by a packet may not have ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return daemon.call("POST", f"/v1/guests/{name}/{verb}")["operation"]
        except Busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def await_level(daemon, name, level):
    """Waits until a guest has a level: what a packet wakes is recorded later."""
    deadline = time.monotonic() + PATIENCE
    while (found := daemon.call("GET", f"/v1/guests/{name}"))["level"] != level:
        if time.monotonic() > deadline:
            raise Broken(f"the guest {name} is not {level}: {found}")
        time.sleep(0.005)


def wake(daemon, name, address):
    """Wakes a guest by the API, sends a request when that has returned, and returns the milliseconds to the first byte.

    A request to an address before the guest has its network would make the kernel wait a second for ARP.
    """
    begun = time.time_ns()
    daemon.finish(request(daemon, name, "wake"))
    return answers(address, begun)


def first_byte(address, begun, patience=PATIENCE):
    """Returns the milliseconds from `begun` to the first byte of a response by HTTP; None if none came."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            # Shorter than a SYN is repeated after: the next attempt finds a guest that has started meanwhile.
            attempt.settimeout(0.05 if patience == PATIENCE else patience)
            try:
                attempt.connect((address, 80))
                attempt.settimeout(max(deadline - time.monotonic(), 0.01))
                attempt.sendall(REQUEST)
                if attempt.recv(1):
                    return (time.time_ns() - begun) / 1e6
            except OSError:
                time.sleep(0.001)
    return None


def answers(address, begun):
    """As `first_byte`, of a guest that must answer."""
    milliseconds = first_byte(address, begun)
    if milliseconds is None:
        raise Broken(f"no guest answers at {address}")
    return milliseconds


def record(found, guest, level, by, milliseconds):
    found.wakes.setdefault((guest, level, by), []).append(milliseconds)


def paused(daemon, closure, sweeps, found):
    """In turns: awake guests, and the same guests paused, woken by a request and by the command."""
    names = [f"rest{number}" for number in range(HERD)]
    addresses = create(daemon, closure, names)
    for address in addresses.values():
        answers(address, time.time_ns())
    for _ in range(sweeps):
        for name, address in addresses.items():
            record(found, "static init", "awake", NOTHING, answers(address, time.time_ns()))
            pause(daemon, name)
            milliseconds = first_byte(address, time.time_ns(), PACKET_PATIENCE)
            if milliseconds is None:
                raise Broken("a request did not wake a paused guest")
            record(found, "static init", "paused", REQUESTED, milliseconds)
        # The daemon records these uses within seconds, which would undo a pause.
        for name in names:
            await_level(daemon, name, "awake")
        for name, address in addresses.items():
            pause(daemon, name)
            record(found, "static init", "paused", COMMAND, wake(daemon, name, address))
    destroy(daemon, names)


def pause(daemon, name):
    """Pauses a guest, and makes sure that its processes are frozen: a late packet may have woken them again."""
    for _ in range(20):
        change(daemon, name, "pause")
        if frozen(daemon, name):
            return
        time.sleep(0.5)
        change(daemon, name, "wake")
    raise Broken(f"the guest {name} is not frozen")


def frozen(daemon, name):
    """Reports whether the kernel has frozen a guest, by either version of cgroups."""
    files = (("cgroup.freeze", "1"), ("freezer.state", "FROZEN"))
    own = [group for group in cgroups(daemon) if group.name == "guest" and group.parent.name == name]
    found = [group / file for group in own for file, _ in files]
    return any(path.exists() and (path.name, path.read_text().strip()) in files for path in found)


def sleeping(daemon, contender, rounds, numbers, found):
    """In turns: a start of bare nspawn, and a sleeping guest, woken by the command and by a request."""
    title, closure, bare = contender
    [address] = create(daemon, closure, ["rest"], "256M").values()
    answers(address, time.time_ns())
    by_packet = True
    for _ in range(rounds):
        boot = bare.prepare(next(numbers))
        settle()
        begun = time.time_ns()
        bare.launch(boot)
        record(found, title, "started", "bare nspawn (d)", answers(boot.address, begun))
        bare.destroy(boot)
        change(daemon, "rest", "sleep")
        settle()
        record(found, title, "asleep", COMMAND, wake(daemon, "rest", address))
        if not by_packet:
            continue
        change(daemon, "rest", "sleep")
        settle()
        milliseconds = first_byte(address, time.time_ns(), PACKET_PATIENCE)
        by_packet = milliseconds is not None
        if by_packet:
            record(found, title, "asleep", REQUESTED, milliseconds)
        change(daemon, "rest", "wake")
    destroy(daemon, ["rest"])


def density(daemon, contender, count, numbers, found):
    """The memory of guests by level, and that of bare nspawn in cgroups of its own."""
    title, closure, bare = contender
    names = [f"dense{number}" for number in range(count)]
    for address in create(daemon, closure, names, "256M").values():
        answers(address, time.time_ns())
    found.memory[(title, "awake")] = taken(groups(daemon)) / count
    at_once(lambda name: change(daemon, name, "pause"), names)
    found.memory[(title, "paused")] = taken(groups(daemon)) / count
    if reclaim(daemon):
        found.memory[(title, "paused and reclaimed")] = taken(groups(daemon)) / count
    destroy(daemon, names)
    found.memory[(title, "bare nspawn (d), awake")] = bare_memory(daemon, bare, count, numbers)


def bare_memory(daemon, bare, count, numbers):
    """Returns the average memory of bare nspawn with a guest; None where its cgroups cannot be made."""
    root = next((place for place in mounts() if (place / "memory.usage_in_bytes").exists() or is_unified(place)), None)
    if root is None:
        return None
    boots, made = [], []
    for _ in range(count):
        boot = bare.prepare(next(numbers))
        group = root / f"{daemon.identity}-peer{boot.number}"
        group.mkdir()
        made.append(group)
        bare.launch_in(boot, group)
        boots.append(boot)
    for boot in boots:
        answers(boot.address, time.time_ns())
    size = taken(made) / count
    for boot in boots:
        bare.destroy(boot)
    for group in reversed([Path(place) for one in made for place, _, _ in os.walk(one)]):
        group.rmdir()
    return size


def mounts():
    mount = Path("/sys/fs/cgroup")
    return [mount, *(place for place in mount.iterdir() if place.is_dir())]


def is_unified(place):
    """Reports whether cgroups below it have memory by version 2."""
    control = place / "cgroup.subtree_control"
    return control.exists() and "memory" in control.read_text().split()


def cgroups(daemon):
    """Returns all cgroups of the daemon's guests. Others come and go meanwhile, so only known places are searched."""
    roots = [place / daemon.identity for place in mounts()]
    # A directory that is gone is left out.
    return [Path(place) for root in roots for place, _, _ in os.walk(root)]


USAGE = ("memory.current", "memory.usage_in_bytes")


def groups(daemon):
    """Returns the guests' own cgroups in the hierarchies that limit memory."""
    found = (group for group in cgroups(daemon) if group.name == "guest")
    return [group for group in found if any((group / file).exists() for file in USAGE)]


def taken(those):
    """Returns the memory of cgroups as the kernel charges it, with their kernel memory."""
    files = [[group / file for file in USAGE if (group / file).exists()] for group in those]
    return sum(int(found[0].read_text()) for found in files if found)


def reclaim(daemon):
    """Reclaims what the kernel can; reports whether it knows how."""
    done = False
    for group in groups(daemon):
        for file, text in (("memory.reclaim", str(1 << 30)), ("memory.force_empty", "0")):
            try:
                (group / file).write_text(text)
                done = True
            except OSError:
                # Less than that was there, or the version of cgroups has no such file.
                done = done or (group / file).exists()
    return done


def processes(daemon):
    """Returns the processes of guests and of the programs beside them."""
    found = set()
    for group in cgroups(daemon):
        try:
            found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        except FileNotFoundError:
            # Removed meanwhile.
            pass
    return found


def reboot(daemon, closure, bare, count, numbers, found):
    """Ends the daemon and every guest, as a reboot does, and measures until all guests answer again."""
    boots = [bare.prepare(next(numbers)) for _ in range(count)]
    settle()
    begun = time.time_ns()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(bare.launch, boots))
        peers = list(pool.map(lambda boot: answers(boot.address, begun), boots))
    for boot in boots:
        bare.destroy(boot)

    names = [f"boot{number}" for number in range(count)]
    addresses = create(daemon, closure, names)
    daemon.stop()
    while left := processes(daemon):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    begun = time.time_ns()
    daemon.start()
    with ThreadPoolExecutor(count) as pool:
        ours = list(pool.map(lambda address: answers(address, begun), addresses.values()))
    found.reboot = (count, max(ours), max(peers))
    destroy(daemon, names)


def asleep(daemon, closure, count, found):
    """A daemon that has started with none, then with many sleeping guests: its memory, and the wake of one."""
    daemon.stop()
    daemon.start()
    without = resident(daemon.pid)
    names = [f"asleep{number}" for number in range(count)]
    addresses = {}
    # Few are awake at a time: this measures no crowd.
    for begin in range(0, count, 50):
        some = names[begin : begin + 50]
        addresses.update(create(daemon, closure, some))
        at_once(lambda name: change(daemon, name, "sleep"), some)
    memory = resident(daemon.pid)
    times = []
    for name in names[: min(count, 20)]:
        settle()
        times.append(wake(daemon, name, addresses[name]))
    found.asleep = (count, without, memory, times)
    destroy(daemon, names)
