"""The measured daemon, and a client of its API with negligible cost."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from machine import PATIENCE, Broken


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Busy(Broken):
    """An operation of the guest has not ended."""


class Daemon:
    """A daemon for the benchmark."""

    def __init__(self, place, identity, programs, gateway_timeout=None):
        self.place = place
        # As on a host: state on the disk, sockets in memory.
        self.run = Path("/run/innkeeper-bench")
        self.socket = str(self.run / "api.sock")
        self.guests = place / "state/guests"
        self.agent = str(programs / "agent")
        self.log = place / "innkeeperd.log"
        self.process = None
        self.identity, self.program = identity, programs / "innkeeperd"
        # The timeout of innkeeper-gateway in seconds, or None without a gateway.
        self.gateway_timeout = gateway_timeout
        self.start()

    def start(self, pool=0, warm=None):
        """Starts it with a door pool of this size, or with one warm guest of a closure."""
        for directory in (self.place / "state", self.place / "credentials", self.run):
            directory.mkdir(exist_ok=True)
        self._write_configuration(self.identity, pool, warm)
        self._start(self.program)

    def _write_configuration(self, identity, pool, warm):
        guests = f'[{{ closure = "{warm}", size = 1 }}]' if warm else "[]"
        (self.place / "innkeeper.toml").write_text(
            f"""state_dir = "{self.place}/state"
runtime_dir = "{self.run}"
daemons_dir = "{self.place}/daemons"

[api]
socket = "{self.socket}"

[nix]
gcroots_dir = "/nix/var/nix/gcroots/{identity}/guests"
options = {{ substituters = "", sandbox = "false" }}

[supervisor]
kind = "direct"
cgroup = "{identity}"

[guest]
retention_seconds = 0

[pool]
size = {pool}
warm = {guests}
busy_percent = 100

[storage]
min_free = "64M"

[credentials]
directory = "{self.place}/credentials"

[legacy]
directories = []
"""
            + self._gateway()
        )

    def _gateway(self):
        if self.gateway_timeout is None:
            return ""
        return f"""
[gateway]
enabled = true
group = "root"
host = "api.example.org"
socket = "{self.run}/http.sock"
access_socket = "{self.run}/access.sock"
metrics_listen = ""
timeout_seconds = {self.gateway_timeout}
"""

    def _start(self, program):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "--config", self.place / "innkeeper.toml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.call("GET", "/v1/status")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise self.broken("innkeeperd did not start") from None
                time.sleep(0.01)

    def broken(self, what):
        return Broken(f"{what}\n{self.log.read_text(errors='replace')[-3000:]}")

    @property
    def pid(self):
        return self.process.pid

    def environment(self):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("INNKEEPER_")}
        return {**inherited, "INNKEEPER_SOCKET": self.socket}

    def call(self, method, path, body=None):
        """Calls the API on a new connection, like a client, and returns the response."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status >= 300:
            broken = self.broken(f"{method} {path}: {content}")
            raise Busy(*broken.args) if content.get("code") == "guest_busy" else broken
        return content

    def events(self, operation):
        """Returns the events of an operation, and waits for its last one."""
        connection = UnixConnection(self.socket)
        try:
            connection.request("GET", f"/v1/events?operation={operation}&follow=true")
            answer = connection.getresponse()
            lines = answer.read().decode().splitlines()
        finally:
            connection.close()
        return [json.loads(line[5:]) for line in lines if line.startswith("data:")]

    def finish(self, operation):
        """Waits for the end of an operation."""
        events = self.events(operation)
        if not events or events[-1]["event"] != "finished":
            raise self.broken(f"operation {operation}: {events[-1:]}")
        return events

    def next_address(self):
        """Returns the address of the next guest, before the clock starts."""
        slots = self.call("GET", "/v1/slots")
        base, slot = slots["subnet"].split("/")[0].split("."), slots["counter"] + 1
        # Slots with an address that ends in .0 or .255 are not used.
        while slot * 2 % 256 in (0, 254):
            slot += 1
        return f"{base[0]}.{base[1]}.{slot * 2 // 256}.{slot * 2 % 256 + 1}"

    def await_pool(self, size, subject="door pool"):
        """Waits until a pool is full, and returns the address of the guest that takes the next seat."""
        deadline = time.monotonic() + PATIENCE
        full = f"{size} of {size} "
        while True:
            checks = self.call("GET", "/v1/doctor")["checks"]
            if any(check["subject"] == subject and check["finding"].startswith(full) for check in checks):
                break
            if time.monotonic() > deadline:
                raise self.broken(f"the {subject} is not full")
            time.sleep(0.05)
        taken = self.call("GET", "/v1/slots")["taken"]
        seats = [slot for slot in taken if slot["owner"].startswith("0-door-")]
        return min(seats, key=lambda slot: slot["slot"])["guest_address"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        shutil.rmtree(self.run, ignore_errors=True)
