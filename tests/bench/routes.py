"""Measures the time to add a route to Caddy, with few and with many existing ones.

Beside it, what one would do without Innkeeper: a file for each site, and `caddy reload`.
"""

import http.client
import json
import os
import shutil
import statistics
import subprocess
import time

from machine import PATIENCE, Broken

COUNTS = [10, 1000]
PORT = 8080

# The numbers of added routes: by Innkeeper's driver, and by a reload.
FULL = (100, 10)
QUICK = (20, 3)


def missing(programs):
    """Returns the reason why this cannot be measured, if any."""
    if not shutil.which("caddy"):
        return "caddy is not installed"
    if not (programs / "examples/routes").exists():
        return f"there is no examples/routes in '{programs}'"
    return None


def measure(place, programs, quick):
    """Lists of milliseconds by the number of routes: `(ours, by reload)`."""
    ours, by_reload = QUICK if quick else FULL
    with Caddy(place / "routes") as caddy:
        words = [programs / "examples/routes", caddy.root, str(PORT), str(ours), *map(str, COUNTS)]
        lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {line["routes"]: line["milliseconds"] for line in map(json.loads, lines)}
    with Caddy(place / "sites") as caddy:
        return found, {count: reloads(caddy, count, by_reload) for count in COUNTS}


class Caddy:
    """A Caddy whose main file imports a folder of sites."""

    def __init__(self, root):
        self.root = root
        self.sites = root / "previews"
        self.environment = {**os.environ, "HOME": str(root), "XDG_DATA_HOME": str(root), "XDG_CONFIG_HOME": str(root)}

    def __enter__(self):
        self.sites.mkdir(parents=True)
        (self.root / "Caddyfile").write_text(
            f"{{\n\tadmin unix/{self.root}/admin.sock\n}}\nimport {self.sites}/*.caddy\n"
        )
        with open(self.root / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.words("run"), env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not (self.root / "admin.sock").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"caddy did not start: {(self.root / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def words(self, verb):
        return ["caddy", verb, "--adapter", "caddyfile", "--config", str(self.root / "Caddyfile")]

    def reload(self):
        words = [*self.words("reload"), "--address", f"unix/{self.root}/admin.sock"]
        subprocess.run(words, check=True, env=self.environment, capture_output=True)

    def write(self, name):
        """Returns the sites of a preview, in the form of examples/routes.rs."""
        proxy = "reverse_proxy 127.0.0.1:3000"
        site = (
            f"http://{name}.localhost:{PORT} {{\n\thandle /api/* {{\n\t\t{proxy}\n\t}}\n"
            f"\thandle {{\n\t\trespond hello\n\t}}\n}}\n"
            f"http://admin-{name}.localhost:{PORT} {{\n\t{proxy}\n}}\n"
        )
        (self.sites / f"{name}.caddy").write_text(site)


def reloads(caddy, count, rounds):
    """Measures the time until one more site answers after a reload."""
    for number in range(count):
        caddy.write(f"web-{number}")
    milliseconds = []
    for number in range(rounds):
        name = f"more-{count}-{number}"
        begun = time.monotonic()
        caddy.write(name)
        caddy.reload()
        await_hello(name)
        milliseconds.append((time.monotonic() - begun) * 1000)
        (caddy.sites / f"{name}.caddy").unlink()
    return milliseconds


def await_hello(name):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("localhost", PORT, timeout=PATIENCE)
            connection.request("GET", "/", headers={"Host": f"{name}.localhost:{PORT}"})
            if connection.getresponse().read() == b"hello":
                return
        except OSError:
            pass
        time.sleep(0.001)
    raise Broken(f"caddy never answered for {name}")


def growth(found):
    """Returns the ratio of the cost with many routes to that with few."""
    few, many = (statistics.median(found[count]) for count in COUNTS)
    return many / few
