"""Measures the daemon's response time on its own socket while strangers flood innkeeper-gateway, and without a flood.

Quiet and flooded turns alternate in one run, so that both see the same machine: the ratio counts, not the milliseconds. Meanwhile
clients with half a request hang on the gateway; they must be gone after its timeout, with everything that they occupied.

    tests/bench/garbage.py BIN    measures with the programs in BIN, and prints the table; as root, in a network namespace
"""

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from daemon import Daemon
from machine import PATIENCE, Broken, resident

# The rate that counts as a flood, in requests per second. A sender that reaches it pauses.
RATE = 10_000
# Requests that are sent at once on each of the connections.
BATCH, CONNECTIONS = 50, 4
# Clients with half a request.
HANGING = 100
# The gateway's timeout, in seconds.
TIMEOUT = 2
# The numbers of pairs of turns, and the length of a turn in seconds.
FULL, QUICK = (10, 4.0), (2, 1.0)


@dataclass
class Garbage:
    """Response times in milliseconds, requests per second of the flood, and the gateway's memory in KiB before and after."""

    quiet: list
    flooded: list
    rate: float
    memory: tuple


def missing(programs):
    """Returns the reason why this cannot be measured, if any."""
    return None if (programs / "innkeeper-gateway").exists() else f"there is no innkeeper-gateway in '{programs}'"


def requests(sender):
    """Returns a batch of requests without a valid token, from many addresses."""
    paths = ["/v1/guests", "/wp-login.php", "/v1/%00%ff", "/v1/previews"]
    values = ["Bearer x", "Basic Og==", "Bearer ik_1_x", f"Bearer ik_7_{'A' * 43}"]
    return "".join(
        f"GET {paths[number % 4]} HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: {values[number % 4]}\r\n"
        f"X-Forwarded-For: 198.51.{sender}.{number}\r\n\r\n"
        for number in range(BATCH)
    ).encode()


def flood(path, counted, running):
    """Sends garbage while `running` is set, and counts the responses."""
    batches = [requests(sender) for sender in range(CONNECTIONS)]
    while running.wait():
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS)]
            for connection in connections:
                connection.settimeout(PATIENCE)
                connection.connect(path)
            while running.is_set():
                send(connections, batches, counted)


def send(connections, batches, counted):
    """Sends one batch on each connection, and waits for the responses. Pauses if that was faster than the rate."""
    begun = time.monotonic()
    for connection, batch in zip(connections, batches):
        connection.sendall(batch)
    for connection in connections:
        responses, rest = 0, b""
        while responses < BATCH:
            received = connection.recv(1 << 16)
            if not received:
                raise Broken("the gateway has closed a connection of the flood")
            received = rest + received
            responses += received.count(b"HTTP/1.1 ")
            # The beginning of the next response may be in two parts.
            rest = received[-8:]
        counted.value += responses
    time.sleep(max(0.0, begun + CONNECTIONS * BATCH / RATE - time.monotonic()))


def hang(path):
    """Returns clients that have sent half a request."""
    clients = []
    for _ in range(HANGING):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(b"GET /v1/guests HTTP/1.1\r\nHost: api.exa")
        clients.append(client)
    return clients


@contextlib.contextmanager
def gateway(daemon, programs):
    """Runs the gateway of a daemon."""
    log = daemon.place / "innkeeper-gateway.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [programs / "innkeeper-gateway", "--config", daemon.place / "innkeeper.toml"], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not Path(daemon.run / "http.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"innkeeper-gateway did not start\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait()


def open_files(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def turn(daemon, seconds):
    """Returns the milliseconds of each request for the list of guests, one after the other."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        daemon.call("GET", "/v1/guests")
        taken.append((time.monotonic() - begun) * 1000)
        time.sleep(0.005)
    return taken


def measure(daemon, programs, quick, show=lambda text: None):
    """Measures with a daemon that serves a gateway; see `Daemon.start`."""
    turns, seconds = QUICK if quick else FULL
    path = str(daemon.run / "http.sock")
    counted, running = multiprocessing.Value("Q", 0), multiprocessing.Event()
    quiet, flooded, spent = [], [], 0.0
    with gateway(daemon, programs) as program:
        sender = multiprocessing.Process(target=flood, args=(path, counted, running), daemon=True)
        sender.start()
        try:
            turn(daemon, seconds / 2)
            before = resident(program.pid), open_files(program)
            hanging = hang(path)
            for number in range(turns):
                show(f"garbage, turn {number + 1} of {turns}")
                quiet += turn(daemon, seconds)
                running.set()
                begun = time.monotonic()
                flooded += turn(daemon, seconds)
                running.clear()
                spent += time.monotonic() - begun
            if not sender.is_alive():
                raise Broken("the flood has ended early")
            deadline = time.monotonic() + PATIENCE
            while open_files(program) > before[1]:
                if time.monotonic() > deadline:
                    raise Broken(f"hanging clients still occupy the gateway: {open_files(program)} files, {before[1]} before")
                time.sleep(0.05)
            for client in hanging:
                client.close()
            memory = before[0], resident(program.pid)
        finally:
            sender.kill()
            sender.join()
    show("")
    return Garbage(quiet, flooded, counted.value / spent, memory)


def main():
    """Measures with a daemon of its own, and prints the table."""
    import report

    programs = Path(sys.argv[1]).resolve()
    if reason := missing(programs):
        raise Broken(reason)
    with tempfile.TemporaryDirectory(prefix="innkeeper-garbage.", dir="/var/tmp") as place:
        # The names of cgroups are in lower case.
        daemon = Daemon(Path(place), f"innkeeper-garbage-{os.getpid()}", programs, gateway_timeout=TIMEOUT)
        try:
            print(report.garbage(measure(daemon, programs, "--quick" in sys.argv)))
        finally:
            daemon.stop()


if __name__ == "__main__":
    try:
        main()
    except Broken as broken:
        sys.exit(f"bench: {broken}")
