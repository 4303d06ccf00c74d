"""Measures the time to add a route to Caddy, with few and with many existing ones, and the throughput of routes.

Beside it, what one would do without Innkeeper: a file for each site, `caddy reload`, and a plain `reverse_proxy`. The variable
`CADDY` names another Caddy than the installed one.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import time

from machine import PATIENCE, Broken

CADDY = os.environ.get("CADDY", "caddy")
COUNTS = [10, 1000]
PORT = 8080

# The preview that is not public.
PRIVATE = "private"

# The address of the app, and the subnet of guests that it is in.
APP = "127.100.0.3"
SUBNET = "127.100.0.0/24"

NODE_APP = """
const respond = (request, response) => response.end("hello from the app");
require("http").createServer(respond).listen(3000, "127.100.0.3");
"""

# The numbers of added routes, by Innkeeper's driver and by a reload, and of rounds of requests.
FULL = (100, 10, 20)
QUICK = (20, 3, 3)


def missing(programs):
    """Returns the reason why this cannot be measured, if any."""
    if not shutil.which(CADDY):
        return f"'{CADDY}' is not installed"
    for program in ["examples/routes", "innkeeper-dns", "innkeeper-gateway"]:
        if not (programs / program).exists():
            return f"there is no {program} in '{programs}'"
    return None


def measure(place, programs, quick):
    """Returns milliseconds by the number of routes, ours and by reload, and requests per second by app and kind of route."""
    ours, by_reload, rounds = QUICK if quick else FULL
    with Caddy(place / "routes") as caddy:
        lines = run(programs, "add", caddy, ours, COUNTS)
    found = {line["routes"]: line["milliseconds"] for line in lines}
    with Caddy(place / "sites") as caddy:
        reloaded = {count: reloads(caddy, count, by_reload) for count in COUNTS}
    with Caddy(place / "throughput") as caddy:
        (caddy.sites / "plain.caddy").write_text(
            f"http://*.localhost:{PORT + 1} {{\n\treverse_proxy {APP}:3000\n}}\n"
        )
        apps = {"an app that does nothing": contextlib.nullcontext}
        if shutil.which("node"):
            apps = {"Node's http server": node, **apps}
        throughput = {}
        for title, app in apps.items():
            with app(), resolver(programs, caddy.root), gateway(programs, caddy.root) as visitor:
                (throughput[title],) = run(programs, "throughput", caddy, rounds, COUNTS[-1:], visitor)
    return found, reloaded, throughput


@contextlib.contextmanager
def node():
    """Runs the app of examples/routes as a server of Node."""
    process = subprocess.Popen(["node", "-e", NODE_APP])
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((APP, 3000), timeout=PATIENCE).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Broken("node did not start") from None
                time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def resolver(programs, root):
    """Runs innkeeper-dns, which resolves settled routes for Caddy."""
    config = root / "dns.toml"
    config.write_text(
        f'[dns]\ndirectory = "{root}/dns"\n[caddy]\ntable = "{root}/table"\n'
        f'[network]\nsubnet = "{SUBNET}"\nnameservers = ["127.0.0.53"]\n[log]\nlevel = "warn"\n'
    )
    process = subprocess.Popen([programs / "innkeeper-dns", "--config", config])
    try:
        deadline = time.monotonic() + PATIENCE
        while not (root / "dns/table").is_symlink():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Broken("innkeeper-dns did not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def gateway(programs, root):
    """Runs innkeeper-gateway, which decides about visitors of the private preview, and returns the cookie of one."""
    token = "ig_1_" + "A" * 43
    host = f"{PRIVATE}.localhost"
    grant = {
        "id": 1,
        "slug": PRIVATE,
        "kind": "bypass",
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
        "expires": "9999-01-01T00:00:00Z",
    }
    preview = {"slug": PRIVATE, "hosts": [host], "visibility": "private", "repo": "octo/web", "fork": False}
    published = root / "gateway"
    published.mkdir(exist_ok=True)
    (published / "tokens.json").write_text(json.dumps({"version": 1, "tokens": []}))
    (published / "access.json").write_text(json.dumps({"version": 1, "previews": [preview], "grants": [grant]}))
    access = root / "access.sock"
    config = root / "gateway.toml"
    config.write_text(
        f'runtime_dir = "{root}"\n[gateway]\nenabled = true\nsocket = "{root}/http.sock"\naccess_socket = "{access}"\n'
        f'socket_group = "root"\nstate_dir = "{root}"\nmetrics_listen = ""\n[log]\nlevel = "warn"\n'
    )
    process = subprocess.Popen([programs / "innkeeper-gateway", "--config", config])
    try:
        deadline = time.monotonic() + PATIENCE
        while not access.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Broken("innkeeper-gateway did not start")
            time.sleep(0.01)
        yield exchange(access, host, token)
    finally:
        process.terminate()
        process.wait()
        access.unlink(missing_ok=True)


def exchange(access, host, token):
    """Exchanges a bypass token for the cookie of a visitor, as Caddy requests it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(access))
        connection.sendall(
            f"GET /.innkeeper-check HTTP/1.1\r\nHost: x\r\nX-Innkeeper-Access: /{PRIVATE}\r\nX-Forwarded-Method: GET\r\n"
            f"X-Forwarded-Host: {host}:{PORT}\r\nX-Forwarded-Uri: /?innkeeper_bypass={token}\r\nConnection: close\r\n\r\n".encode()
        )
        response = http.client.HTTPResponse(connection)
        response.begin()
        cookie = response.headers.get("Set-Cookie", "")
    if response.status != 302 or not cookie:
        raise Broken(f"innkeeper-gateway exchanged no token: {response.status}")
    return cookie.split(";")[0]


def version():
    """Returns the version of Caddy, such as 2.11.2."""
    words = subprocess.run([CADDY, "version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return words[0].lstrip("v")


def run(programs, what, caddy, rounds, counts, visitor=""):
    """Returns the lines of the example `routes`. `visitor` is the cookie of a visitor of the private preview."""
    words = [programs / "examples/routes", what, caddy.root, str(PORT), str(rounds), *map(str, counts)]
    environment = {**os.environ, "VISITOR": visitor}
    process = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if process.returncode != 0:
        raise Broken(f"examples/routes {what} failed")
    return [json.loads(line) for line in process.stdout.splitlines()]


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
        return [CADDY, verb, "--adapter", "caddyfile", "--config", str(self.root / "Caddyfile")]

    def reload(self):
        words = [*self.words("reload"), "--address", f"unix/{self.root}/admin.sock"]
        subprocess.run(words, check=True, env=self.environment, capture_output=True)

    def write(self, name):
        """Returns the sites of a preview, in the form of examples/routes."""
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


def against_plain(throughput, kind):
    """Returns the median ratio to the plain proxy's requests per second in the same round."""
    return statistics.median(ours / plain for ours, plain in zip(throughput[kind], throughput["plain"], strict=True))


def growth(found):
    """Returns the ratio of the cost with many routes to that with few."""
    few, many = (statistics.median(found[count]) for count in COUNTS)
    return many / few
