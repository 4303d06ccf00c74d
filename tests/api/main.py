"""Runs Schemathesis against a daemon behind Caddy and the gateway. Called by tests/api/run in namespaces of its own.

Arguments: the folder of the programs, the flake output of a guest, the program schemathesis, and more options for it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# The number of random requests for each call.
EXAMPLES = os.environ.get("EXAMPLES", "5")

# The agent that some of the requests concern, so that they get beyond the check of its name.
AGENT = "web"

PORT = 8080

CONFIG = """
state_dir = '{place}/state'
runtime_dir = '{place}/run'
daemons_dir = '{place}/daemons'
[supervisor]
kind = 'direct'
cgroup = '{cgroup}'
machine_prefix = '{cgroup}-'
[credentials]
directory = '{place}/credentials'
[legacy]
directories = ['{place}/legacy']
[nix]
gcroots_dir = '{place}/gcroots'
flake = '{flake}'
options = {{ substituters = '', sandbox = 'false' }}
[guest]
retention_seconds = 60
[gateway]
enabled = true
host = 'api.test.example'
socket = '{place}/gateway.sock'
access_socket = '{place}/access.sock'
socket_group = 'root'
group = 'root'
metrics_listen = ''
"""

CADDYFILE = """
{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	reverse_proxy unix/{place}/gateway.sock {{
		flush_interval -1
		transport http {{
			keepalive off
		}}
	}}
}}
"""

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "documented_code",
]


def main() -> int:
    binaries, flake, schemathesis, *options = sys.argv[1:]
    run("ip", "link", "set", "lo", "up")
    place = Path(tempfile.mkdtemp(prefix="innkeeper-api."))
    place.chmod(0o755)
    host = Host(Path(binaries), place, flake)
    try:
        return host.test(schemathesis, options)
    except BaseException:
        host.show_log()
        raise
    finally:
        host.remove()


class Host:
    """A daemon with its gateway and Caddy."""

    def __init__(self, binaries: Path, place: Path, flake: str) -> None:
        self.binaries = binaries
        self.place = place
        self.processes: list[subprocess.Popen[bytes]] = []
        self.cgroup = f"innkeeper-api-{os.getpid()}-{time.time_ns() % 10**9}"
        self.config = place / "config.toml"
        self.config.write_text(CONFIG.format(place=place, cgroup=self.cgroup, flake=flake))
        (place / "Caddyfile").write_text(CADDYFILE.format(place=place, port=PORT))

    def test(self, schemathesis: str, options: list[str]) -> int:
        daemon = self.start(self.binaries / "innkeeperd", "--config", self.config)
        wait_until(
            "the daemon responds", lambda: daemon.poll() is not None or self.agent("list", check=False) is not None
        )
        token = self.program("innkeeper", "token", "create", "schemathesis", "--role", "admin").strip()
        self.start(self.binaries / "innkeeper-gateway", "--config", self.config)
        self.start("caddy", "run", "--config", self.place / "Caddyfile")
        self.agent("create", AGENT)
        (self.place / "token").write_text(token)
        wait_until("the gateway responds", lambda: curl(f"{URL}/healthz") == "ok")
        document = curl(f"{URL}/v1/openapi.json", token)
        (self.place / "openapi.json").write_text(document)
        keeper = threading.Thread(target=self.keep_agent, daemon=True)
        keeper.start()
        status = subprocess.run(
            [
                schemathesis,
                "--config-file", HERE / "schemathesis.toml",
                "run", self.place / "openapi.json",
                "--url", URL,
                "--header", f"Authorization:Bearer {token}",
                "--checks", ",".join(CHECKS),
                "--max-examples", EXAMPLES,
                # Several threads fail in Python 3.11: "AST constructor recursion depth mismatch".
                "--workers", "1",
                *options,
            ],
            cwd=self.place,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "INNKEEPER_AGENT": AGENT},
        ).returncode
        self.stopping = True
        keeper.join()
        if daemon.poll() is not None:
            print("the daemon has ended", file=sys.stderr)
            status = 1
        # Hostile input leaves the daemon healthy.
        broken = [check for check in self.doctor() if check["verdict"] == "broken"]
        if broken:
            print(f"doctor: {broken}", file=sys.stderr)
            status = 1
        self.agent("create", "after")
        self.agent("exec", "after", "--", "true")
        if "panicked" in (self.place / "log").read_text():
            print("a program panicked", file=sys.stderr)
            status = 1
        if status:
            self.show_log()
        return status

    def show_log(self) -> None:
        log = (self.place / "log").read_text()
        print(f"---- the log of the programs ----\n{log[-20000:]}", file=sys.stderr)

    stopping = False

    def keep_agent(self) -> None:
        """Creates the agent again after requests have destroyed it."""
        while not self.stopping:
            self.agent("create", AGENT, check=False)
            time.sleep(1)

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self.place / "log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self.place))
        self.processes.append(process)
        return process

    def program(self, *command: str) -> str:
        """Runs a client program as root on the host."""
        name, *arguments = command
        return run(self.binaries / name, *arguments, env=environment(self.place))

    def doctor(self) -> list[dict[str, str]]:
        """Returns the checks of `innkeeper doctor`, which fails if one of them is broken."""
        command: list[str | Path] = [self.binaries / "innkeeper", "doctor", "--json"]
        output = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(self.place)).stdout
        checks: list[dict[str, str]] = json.loads(output)["checks"]
        return checks

    def agent(self, *arguments: str, check: bool = True) -> str | None:
        """Runs `agent`. Without `check`, returns None for a failure."""
        try:
            return self.program("agent", *arguments)
        except subprocess.CalledProcessError as error:
            if check:
                print(error.stderr, (self.place / "log").read_text()[-5000:], file=sys.stderr)
                raise
            return None

    def remove(self) -> None:
        """Removes all guests, and ends the programs."""
        self.stopping = True
        listed = self.agent("list", "--json", check=False)
        for guest in json.loads(listed or "[]"):
            self.agent("destroy", "--yes", "--now", guest["name"], check=False)
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"):
            for directory, _, _ in os.walk(hierarchy, topdown=False):
                os.rmdir(directory)
        shutil.rmtree(self.place, ignore_errors=True)


URL = f"http://127.0.0.1:{PORT}"


def environment(place: Path) -> dict[str, str]:
    """Returns the environment without settings of the caller's Innkeeper."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INNKEEPER_")}
    return {**kept, "INNKEEPER_SOCKET": str(place / "run/api.sock"), "HOME": str(place)}


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def curl(url: str, token: str | None = None) -> str:
    header = ["--header", "@-"] if token else []
    done = subprocess.run(
        ["curl", "--silent", *header, url],
        input=f"Authorization: Bearer {token}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def wait_until(what: str, condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
