"""Measures guests at rest: wakes, a start of all guests as after a reboot, and many sleeping guests."""

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from machine import PATIENCE, Broken, resident

# The time in which a packet wakes a guest, or is taken to wake none.
PACKET_PATIENCE = 10.0


@dataclass
class Rest:
    """The measurements, in milliseconds where they are times."""

    # The first byte of an answer, by what the guest did before and what woke it.
    wakes: dict = field(default_factory=dict)
    # All guests answer after a start of the daemon without any of their processes: the number of guests, the time.
    reboot: tuple | None = None
    # Sleeping guests: their number, the daemon's memory in KiB, the times until one of them answers.
    asleep: tuple | None = None
    # Memory of a guest in bytes by level, with the programs beside it.
    memory: dict = field(default_factory=dict)


@dataclass
class Scale:
    """The numbers of repetitions and of guests."""

    wakes: int
    reboot: int
    asleep: int
    density: int


FULL = Scale(wakes=100, reboot=100, asleep=1000, density=20)
QUICK = Scale(wakes=5, reboot=10, asleep=20, density=5)


def measure(daemon, closure, quick):
    """Measures with a daemon that has no guest, and leaves none."""
    scale = QUICK if quick else FULL
    found = Rest()
    wakes(daemon, closure, scale.wakes, found)
    density(daemon, closure, scale.density, found)
    reboot(daemon, closure, scale.reboot, found)
    asleep(daemon, closure, scale.asleep, found)
    return found


def create(daemon, closure, names):
    """Creates guests, and returns their addresses by name."""

    def one(name):
        limits = {"memory": "64M"}
        body = {"name": name, "closure": closure, **limits}
        daemon.finish(daemon.call("POST", "/v1/guests", body)["operation"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))
    views = {view["name"]: view for view in daemon.call("GET", "/v1/guests")}
    return {name: views[name]["guest_address"] for name in names}


def destroy(daemon, names):
    def one(name):
        daemon.finish(daemon.call("DELETE", f"/v1/guests/{name}")["operation"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))


def change(daemon, name, verb):
    daemon.finish(daemon.call("POST", f"/v1/guests/{name}/{verb}")["operation"])


def first_byte(address, begun, patience=PATIENCE):
    """Returns the milliseconds from `begun` to the first byte of an answer; None if none came."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            attempt.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                attempt.connect((address, 22))
                if attempt.recv(1):
                    return (time.time_ns() - begun) / 1e6
            except OSError:
                time.sleep(0.001)
    return None


def wakes(daemon, closure, rounds, found):
    [address] = create(daemon, closure, ["rest"]).values()
    by_packet = {"paused": True, "asleep": True}
    for _ in range(rounds):
        record(found, "awake", "–", first_byte(address, time.time_ns()))
        for level, verb in (("paused", "pause"), ("asleep", "sleep")):
            change(daemon, "rest", verb)
            begun = time.time_ns()
            accepted = daemon.call("POST", "/v1/guests/rest/wake")
            record(found, level, "`agent wake`", first_byte(address, begun))
            daemon.finish(accepted["operation"])
            if not by_packet[level]:
                continue
            change(daemon, "rest", verb)
            answered = first_byte(address, time.time_ns(), PACKET_PATIENCE)
            by_packet[level] = answered is not None
            record(found, level, "its first packet", answered)
            if answered is None:
                change(daemon, "rest", "wake")
    destroy(daemon, ["rest"])


def record(found, level, by, milliseconds):
    if milliseconds is not None:
        found.wakes.setdefault((level, by), []).append(milliseconds)


def density(daemon, closure, count, found):
    names = [f"dense{number}" for number in range(count)]
    create(daemon, closure, names)
    found.memory["awake"] = taken(daemon, count)
    for name in names:
        change(daemon, name, "pause")
    found.memory["paused"] = taken(daemon, count)
    if reclaim(daemon):
        found.memory["paused, reclaimed"] = taken(daemon, count)
    destroy(daemon, names)


def cgroups(daemon):
    """Returns all cgroups of the daemon's guests. Others come and go meanwhile, so only known places are searched."""
    mount = Path("/sys/fs/cgroup")
    roots = [place / daemon.identity for place in (mount, *mount.iterdir())]
    # A directory that is gone is left out.
    return [Path(place) for root in roots for place, _, _ in os.walk(root)]


def groups(daemon):
    """Returns the guests' own cgroups in the hierarchies that limit memory."""
    usage = ("memory.current", "memory.usage_in_bytes")
    found = (group for group in cgroups(daemon) if group.name == "guest")
    return [group for group in found if any((group / file).exists() for file in usage)]


def taken(daemon, count):
    """Returns the average memory of a guest as the kernel charges it, with its kernel memory."""
    total = 0
    for group in groups(daemon):
        for file in ("memory.current", "memory.usage_in_bytes"):
            if (group / file).exists():
                total += int((group / file).read_text())
                break
    return total / count


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


def reboot(daemon, closure, count, found):
    """Ends the daemon and every guest, as a reboot does, and measures until all guests answer again."""
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
        answers = list(pool.map(lambda address: first_byte(address, begun), addresses.values()))
    if None in answers:
        raise Broken("a guest did not start again")
    found.reboot = (count, max(answers))
    destroy(daemon, names)


def asleep(daemon, closure, count, found):
    names = [f"asleep{number}" for number in range(count)]
    addresses = create(daemon, closure, names)
    for name in names:
        change(daemon, name, "sleep")
    memory = resident(daemon.pid)
    times = []
    for name in names[: min(count, 10)]:
        begun = time.time_ns()
        accepted = daemon.call("POST", f"/v1/guests/{name}/wake")
        times.append(first_byte(addresses[name], begun))
        daemon.finish(accepted["operation"])
    found.asleep = (count, memory, times)
    destroy(daemon, names)
