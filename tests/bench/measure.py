"""Measures all contenders and writes the table. Started by `run`, in its own namespaces."""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import garbage
import report
import rest
import routes
from contenders import PEERS, Api, Cli, Crun, Nspawn, NspawnPrepared, Podman, Pooled, Warm, check_flags
from daemon import Daemon
from garbage import Garbage
from machine import Broken, await_answer, await_byte, await_stamp, children, resident, settle, share_processor
from rest import Rest

# The number of concurrently started guests.
CROWD = 20

# The number of guests for the measurement of the daemon's memory.
HOUSE_FULL = 50


@dataclass
class Rounds:
    """The numbers of repetitions."""

    warm_up: int
    measured: int
    crowds: int
    storms: int


FULL = Rounds(warm_up=3, measured=20, crowds=5, storms=10)
QUICK = Rounds(warm_up=1, measured=3, crowds=1, storms=2)


@dataclass
class Results:
    """The measurements. Times are lists of milliseconds, by the contender's letter."""

    first: dict = field(default_factory=dict)
    answer: dict = field(default_factory=dict)
    returned: dict = field(default_factory=dict)
    destroy: dict = field(default_factory=dict)
    crowd: dict = field(default_factory=dict)
    # For each create through the socket: the time of the request, its events, the start of the init.
    created: list = field(default_factory=list)
    # For each destroy through the socket: the time of the request, its events, the time of completion.
    destroyed: list = field(default_factory=list)
    # The same for creates from the door pool, and its contenders' times until the first instruction and the first answer.
    pooled: list = field(default_factory=list)
    pool_first: dict = field(default_factory=dict)
    pool_answer: dict = field(default_factory=dict)
    # Creates from the warm pool, and its contenders: times until the first byte, or until the first instruction without a network.
    warm: dict = field(default_factory=dict)
    # The same until the operation of the create has ended.
    warm_returned: dict = field(default_factory=dict)
    # Guests at rest.
    rest: Rest | None = None
    # Whether guests have the filters that were read from nspawn once, which it therefore does not compile.
    cached_filters: bool = False
    # The daemon's resident memory in KiB: empty, after all rounds, with many guests.
    memory: dict = field(default_factory=dict)
    # Memory of the programs beside each guest in KiB, by name.
    beside: dict = field(default_factory=dict)
    # Time to add a route, by the number of routes: through Innkeeper, and by a reload of Caddy. Throughput of routes.
    routes: tuple = ()
    # Results of each run of a delivery server, as benches/webhook.rs prints them.
    deliveries: list = field(default_factory=list)
    # Commands beside builds that flood: `(idle, busy)` in milliseconds, by the command.
    floods: dict = field(default_factory=dict)
    # The daemon's response times beside a flood of the gateway.
    garbage: Garbage | None = None


class Bench:
    """One run."""

    def __init__(self, rounds, daemon, contenders):
        self.rounds = rounds
        self.daemon = daemon
        self.contenders = contenders
        self.results = Results()
        self.number = 0

    def next(self):
        self.number += 1
        return self.number

    def run(self):
        self.results.memory["without a guest"] = resident(self.daemon.pid)
        for turn in range(-self.rounds.warm_up, self.rounds.measured):
            self.show(f"round {turn + 1} of {self.rounds.measured}" if turn >= 0 else "warming up")
            # In each round every contender runs once, in a different order.
            order = list(self.contenders)
            random.Random(turn).shuffle(order)
            for contender in order:
                self.one(contender, keep=turn >= 0)
        for turn in range(self.rounds.crowds):
            for contender in self.contenders:
                if isinstance(contender, (Cli, Api)) or type(contender) is Nspawn:
                    self.show(f"{CROWD} at once, round {turn + 1} of {self.rounds.crowds}: {contender.letter}")
                    self.crowd(contender)
        self.results.memory["after all rounds"] = resident(self.daemon.pid)
        self.show(f"memory with {HOUSE_FULL} guests")
        self.full_house()
        self.show("")
        return self.results

    @staticmethod
    def show(text):
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def run_pool(self, contenders):
        """Measures creates from the door pool beside others, with a daemon that has one."""
        self.daemon.stop()
        self.daemon.start(pool=Pooled.size)
        for turn in range(-self.rounds.warm_up, self.rounds.measured):
            self.show(f"door pool, round {turn + 1} of {self.rounds.measured}" if turn >= 0 else "warming up")
            order = list(contenders)
            random.Random(turn).shuffle(order)
            for contender in order:
                self.one_beside_pool(contender, keep=turn >= 0)
        self.show("")

    def run_warm(self, closure, contenders):
        """Measures creates from the warm pool beside others."""
        self.daemon.stop()
        self.daemon.start(warm=closure)
        for turn in range(-self.rounds.warm_up, self.rounds.measured):
            self.show(f"warm pool, round {turn + 1} of {self.rounds.measured}" if turn >= 0 else "warming up")
            order = list(contenders)
            random.Random(turn).shuffle(order)
            for contender in order:
                boot = contender.prepare(self.next())
                settle()
                boot.begun = time.time_ns()
                contender.launch(boot)
                answered = await_byte(boot) if boot.address else await_stamp(boot)
                contender.finish(boot)
                returned = time.time_ns()
                contender.destroy(boot)
                if turn >= 0:
                    self.keep(self.results.warm, contender, boot.begun, answered)
                    if isinstance(contender, Warm):
                        self.keep(self.results.warm_returned, contender, boot.begun, returned)
        self.show("")

    def one_beside_pool(self, contender, keep):
        boot = contender.prepare(self.next())
        settle()
        boot.begun = time.time_ns()
        contender.launch(boot)
        started = await_stamp(boot)
        answered = await_answer(boot) if boot.address else None
        contender.finish(boot)
        created = boot.operation
        contender.destroy(boot)
        if not keep:
            return
        self.keep(self.results.pool_first, contender, boot.begun, started)
        if answered:
            self.keep(self.results.pool_answer, contender, boot.begun, answered)
        if isinstance(contender, Pooled):
            self.results.pooled.append((boot.begun, self.daemon.events(created), started))

    def one(self, contender, keep):
        """Creates and destroys one guest."""
        boot = contender.prepare(self.next())
        settle()
        boot.begun = time.time_ns()
        contender.launch(boot)
        started = await_stamp(boot)
        # A request to an address before the guest exists would make the kernel wait a second for ARP.
        answered = await_answer(boot) if boot.address else None
        contender.finish(boot)
        returned, created = time.time_ns(), boot.operation
        settle()
        ending = time.time_ns()
        contender.destroy(boot)
        ended = time.time_ns()
        contender.check_gone(boot)
        if not keep:
            return
        self.keep(self.results.first, contender, boot.begun, started)
        self.keep(self.results.destroy, contender, ending, ended)
        if answered:
            self.keep(self.results.answer, contender, boot.begun, answered)
        if isinstance(contender, Api):
            self.keep(self.results.returned, contender, boot.begun, returned)
            self.results.created.append((boot.begun, self.daemon.events(created), started))
            self.results.destroyed.append((ending, self.daemon.events(boot.operation), ended))

    @staticmethod
    def keep(where, contender, begun, ended):
        where.setdefault(contender.letter, []).append((ended - begun) / 1e6)

    def crowd(self, contender, size=CROWD):
        """Starts many guests concurrently, and measures the time until the last one's init runs."""
        boots = self.many(contender, size)
        last = max(await_stamp(boot) for boot in boots)
        self.keep(self.results.crowd, contender, boots[0].begun, last)
        self.disperse(contender, boots)

    def many(self, contender, size):
        boots = [contender.prepare(self.next()) for _ in range(size)]
        settle()
        begun = time.time_ns()
        for boot in boots:
            boot.begun = begun
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(contender.launch, boots))
        return boots

    @staticmethod
    def disperse(contender, boots):
        for boot in boots:
            await_stamp(boot)
            contender.finish(boot)
        with ThreadPoolExecutor(len(boots)) as pool:
            list(pool.map(contender.destroy, boots))

    def full_house(self):
        contender = next(c for c in self.contenders if isinstance(c, Api))
        boots = self.many(contender, HOUSE_FULL)
        for boot in boots:
            contender.finish(boot)
        self.results.memory[f"with {HOUSE_FULL} guests"] = resident(self.daemon.pid)
        self.results.beside = beside(self.daemon.pid, HOUSE_FULL)
        self.disperse(contender, boots)


def beside(daemon, guests):
    """Returns the average memory of the programs beside each guest in KiB, by name.

    Shared pages are divided among the processes that share them (PSS): all run from the same files.
    """
    sums = {}
    queue = children(daemon)
    while queue:
        pid = queue.pop()
        queue += children(pid)
        program = Path(os.readlink(f"/proc/{pid}/exe"))
        # The shim's file name is a hash of its contents; its folder has the program's name.
        name = "shim" if program.parent.name == "shim" else program.name
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        sums[name] = sums.get(name, 0) + size
    return {name: size / guests for name, size in sums.items()}


def storms(program, given, rounds):
    """Sends GitHub's deliveries to the programs and to the baseline server, alternating."""
    words = [program, "--bin", given.bin, "--id", f"{given.id}-webhook", "--rounds", str(rounds)]
    # The database must be on the disk, as on a host.
    environment = {**os.environ, "TMPDIR": str(given.place)}
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [json.loads(line) for line in said.stdout.splitlines()]


def compare_flags(bench, contender):
    """Boots an Innkeeper guest, and compares the arguments of its nspawn with those of bare nspawn.

    Returns whether it has the filters that were read from an earlier nspawn.
    """
    # The first guest waits until they are read.
    for _ in range(2):
        boot = contender.prepare(bench.next())
        contender.launch(boot)
        await_stamp(boot)
        contender.finish(boot)
        lines = {path.parent: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
        # The path of the file tree is on the command line of nspawn and of the shim that waits for it.
        process, words = next(
            (process, line.decode().split("\0")[:-1])
            for process, line in lines.items()
            if b"nspawn" in line.split(b"\0")[0] and f"--directory={boot.root}".encode() in line
        )
        cached = b"SYSTEMD_SECCOMP=0" in (process / "environ").read_bytes().split(b"\0")
        [guest] = children(process.name)
        filters = next(
            int(line.split()[1])
            for line in Path(f"/proc/{guest}/status").read_text().splitlines()
            if line.startswith("Seccomp_filters:")
        )
        contender.destroy(boot)
    if filters == 0:
        raise Broken("an Innkeeper guest has no system call filter")
    if differences := check_flags(words):
        raise Broken(f"bare nspawn is not started as a guest's is; adapt contenders.py: {' '.join(differences)}")
    if not cached:
        print("INNKEEPER-NOT-RUN: bench: cached filters: the daemon cannot read nspawn's here", file=sys.stderr)
    return cached


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--closure", required=True)
    parser.add_argument("--systemd", help="the closure of a guest with systemd, where it can be made")
    parser.add_argument("--deliveries", type=Path, required=True, help="the benchmark of innkeeper-webhook")
    parser.add_argument("--floods", type=Path, required=True, help="what the test of builds that flood has printed")
    parser.add_argument("--documents", type=Path, required=True, help="the folder of the pages with tables")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def main():
    given = arguments()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"bench: the load is {load:.1f}: others are at work here, and these numbers show it", file=sys.stderr)
    peers = [kind(given.place, given.closure) for kind in PEERS]
    missing = {peer.letter: (peer.title, why) for peer in peers if (why := peer.missing())}
    for _, why in missing.values():
        print(f"INNKEEPER-NOT-RUN: bench: {why}", file=sys.stderr)
    daemon = Daemon(given.place, given.id, given.bin)
    share_processor(f"{given.id}-peers")
    ours = [Cli(daemon, given.closure), Api(daemon, given.closure)]
    contenders = ours + [peer for peer in peers if peer.letter not in missing]
    bench = Bench(QUICK if given.quick else FULL, daemon, contenders)
    bench.results.cached_filters = compare_flags(bench, ours[1])
    results = bench.run()
    closures = {"static init": given.closure}
    if given.systemd:
        closures["systemd"] = given.systemd
    results.rest = rest.measure(daemon, closures, given.quick, bench.show)
    beside_pool = (Nspawn, Crun, Podman)
    bench.run_pool([Pooled(daemon, given.closure)] + [c for c in contenders if type(c) in beside_pool])
    beside_warm = (Nspawn, NspawnPrepared, Crun, Podman)
    bench.run_warm(given.closure, [Warm(daemon, given.closure)] + [c for c in contenders if type(c) in beside_warm])
    if why := garbage.missing(given.bin):
        print(f"INNKEEPER-NOT-RUN: bench: garbage: {why}", file=sys.stderr)
    else:
        daemon.stop()
        daemon.gateway_timeout = garbage.TIMEOUT
        daemon.start()
        results.garbage = garbage.measure(daemon, given.bin, given.quick, bench.show)
    daemon.stop()
    if why := routes.missing(given.bin):
        print(f"INNKEEPER-NOT-RUN: bench: routes: {why}", file=sys.stderr)
    else:
        results.routes = routes.measure(given.place, given.bin, given.quick)
    bench.show("deliveries")
    results.floods = json.loads(given.floods.read_text())
    results.deliveries = storms(given.deliveries, given, bench.rounds.storms)
    bench.show("")
    text = report.table(results, contenders, missing, bench.rounds, load)
    print(text)
    if not given.quick:
        report.write(given.documents, results, text)


if __name__ == "__main__":
    try:
        main()
    except (Broken, subprocess.CalledProcessError) as broken:
        sys.exit(f"bench: {broken}")
