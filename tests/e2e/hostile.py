"""A guest, builds of pull requests and a member of the group attack the host concurrently; others are not affected.

Needs: previews.
"""

import hashlib

# The content of a file that only root can read on the host.
SECRET = "a secret that root alone can read"
# Clears the screen, writes to the clipboard (OSC 52), and overwrites the line's beginning.
CONTROL = "\\033[2J\\033]52;c;ZXZpbA==\\007evil\\rgood"
NOWHERE = "unreachable\n"
FLOODS = ("web-11", "web-12", "web-13")


def built(name: str, script: str, more: str = "") -> str:
    """Returns a Nix expression: a derivation that runs a script with busybox."""
    return (
        f'derivation {{ name = "{name}"; system = pkgs.system; builder = "${{pkgs.busybox}}/bin/sh"; '
        f"PATH = \"${{pkgs.busybox}}/bin\"; input = pkgs.busybox; args = [ \"-c\" ''{script}'' ]; {more} }}"
    )


def app_with(derivations: dict[str, str]) -> dict[str, str]:
    """Returns the files of an app whose system has these derivations as files of /etc."""
    files = app("Commit @commit@.")
    entries = "".join(f"  environment.etc.{name}.source = {text};\n" for name, text in derivations.items())
    files["preview-config.nix"] = files["preview-config.nix"].replace("  users.users.preview", entries + "  users.users.preview", 1)
    return files


def download(url: str) -> str:
    """Returns a derivation that must not reach a URL: its output hash is that of the failure, so a success fails the build."""
    digest = hashlib.sha256(NOWHERE.encode()).hexdigest()
    script = f"if timeout 5 wget -q -O /dev/null {url}; then echo reached; else echo unreachable; fi > $out"
    name = "from-" + hashlib.sha256(url.encode()).hexdigest()[:8]
    return built(name, script, f'outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{digest}";')


def as_member(command: str) -> tuple[int, str]:
    """Runs a command as a member of the group `innkeeper` who is not root."""
    return machine.execute(f"runuser -u eve -- {command} 2>&1")


def on_terminal(command: str) -> str:
    """Returns the output of a command on a terminal."""
    return machine.succeed(f"script --quiet --return --command {shlex.quote(command)} /dev/null < /dev/null")


def require_others_unaffected(during: str) -> None:
    """Fails unless the daemon, a neighbor and a preview work as before."""
    with subtest(f"others during {during}"):
        require("Hello from quiet." in page(quiet["guest_address"]), "the neighbor's page")
        require_equal(machine.succeed("agent exec quiet -- sh -c 'date > /when; sync; echo fine'"), "fine\n", "the output of a command")
        require_equal(browse("web-1"), f"Branch good, commit {good}, prepared 1 times.", "a preview's page")
        require_equal(machine.get_unit_property("innkeeperd.service", "MainPID"), daemon, "the daemon's process")


boot_with_previews()
machine.succeed(
    f"umask 077; mkdir /root/private && printf %s '{SECRET}' > /root/private/secret",
    "useradd --create-home --groups innkeeper eve",
)
good = commit("good", app())
deliver_event(1, "good", "opened")
wait_for_preview("web-1", "live", good)
quiet = create("quiet")
daemon = machine.get_unit_property("innkeeperd.service", "MainPID")
require_others_unaffected("nothing")
before = traces()

with subtest("builders of the Nix daemon have limits"):
    memory = int(machine.get_unit_property("nix-daemon.service", "MemoryMax"))
    total = int(machine.succeed("awk '/^MemTotal:/ { print $2 * 1024 }' /proc/meminfo"))
    require(0 < memory <= total // 2, f"half of {total} bytes at most: {memory}")
    require_equal(machine.get_unit_property("nix-daemon.service", "TasksMax"), "4096", "processes")

with subtest("a stranger's build, approved by mistake"):
    probes = {
        # The host's loopback, a neighbor's and the host's address on the guests' network.
        "loopback": download(FAKE + "/requests"),
        "neighbor": download(f"http://{quiet['guest_address']}/"),
        "rewritten": built("rewritten", "chmod u+w $input/bin/busybox; if echo evil >> $input/bin/busybox; then echo yes; else echo no; fi > $out"),
        "read": built("read", "cat /root/private/secret /var/secrets/preview.env > $out || echo nothing > $out"),
    }
    theirs = commit("theirs", app_with(probes))
    deliver_event(8, "theirs", "opened", "mallory")
    wait_for_preview("web-8", "waiting-for-approval", theirs)
    machine.succeed(f"preview approve web-8 --sha {theirs}")
    wait_for_preview("web-8", "live", theirs)
    found = {name: machine.succeed(f"preview exec web-8 -- cat /etc/{name}") for name in probes}
    expected = {"loopback": NOWHERE, "neighbor": NOWHERE, "rewritten": "no\n", "read": "nothing\n"}
    require_equal(found, expected, "the results of the build")

with subtest("builds that flood the daemon and never end"):
    # Progress as Nix reports it, forged by the builder.
    line = '@nix {"action":"start","id":$i,"level":3,"text":"","type":101,"fields":[]}'
    flood = "i=0; while [ $i -lt 60000 ]; do printf \"%s\\n\" \"" + line.replace('"', '\\"') + "\" >&2; i=$((i+1)); done; sleep 100000"
    for slug in FLOODS:
        sha = commit(slug, app_with({"flood": built(f"flood-{slug}", flood)}))
        deliver_event(int(slug.removeprefix("web-")), slug, "opened")
    machine.wait_until_succeeds("pgrep --full '^sleep 100000$'")

with subtest("a guest that attacks at the same time"):
    create("evil")
    machine.succeed(
        f"agent exec --detach evil -- sh -c 'while :; do printf \"{CONTROL}\\n\" > /dev/console; done'",
        # Files in the tree that the host and nspawn open before the next start.
        "agent exec evil -- sh -c 'rm -rf /etc/os-release /etc/machine-id /usr/lib/os-release; mkdir -p /usr/lib; "
        "mkfifo /etc/os-release /etc/machine-id /usr/lib/os-release'",
    )
    for attempt in ("mknod /dev/evil b 8 0", "date -s 2030-01-01 > /dev/null; test $(date +%Y) = 2030", "echo 1 > /proc/sys/kernel/panic"):
        machine.fail(f"agent exec evil -- sh -c '{attempt}'")

with subtest("a member of the group that attacks at the same time"):
    machine.succeed(
        "runuser -u eve -- mkdir /home/eve/flake && runuser -u eve -- tee /home/eve/flake/flake.nix <<'NIX'\n"
        '{ inputs.stolen = { url = "path:/root/private"; flake = false; };\n'
        '  outputs = { stolen, ... }: { nixosConfigurations.agent = throw (builtins.readFile "${stolen}/secret"); }; }\nNIX'
    )
    for command, code in {
        "agent build path:/home/eve/flake#agent": "flake_refused",
        "agent create eve --flake path:/home/eve/flake#agent": "flake_refused",
        "agent create eve --closure /root/private": "",
        "agent destroy web-1": "guest_is_preview",
        "agent stop web-1": "guest_is_preview",
    }.items():
        status, output = as_member(f"{command} --json" if code else command)
        require(status != 0 and code in output and SECRET not in output, f"{command}: {status}: {output}")
    machine.fail(f"grep --recursive --quiet --fixed-strings '{SECRET}' /nix/store")

with subtest("all attacks concurrently"):
    require_others_unaffected("all attacks")
    shown = on_terminal("agent logs -n 5 evil; agent list; preview list")
    require("\x1b]52" not in shown and "\x07" not in shown and "evil" in shown, f"the output on a terminal: {shown!r}")
    require_equal(
        machine.succeed(
            "curl --silent --output /dev/null --write-out '%{http_code}' --max-time 10 --request POST --upload-file - "
            "http://127.0.0.1:3100/webhook/github < /dev/zero || true"
        ),
        "401",
        "an endless delivery without a signature",
    )
    # FIFOs in its tree do not delay its next start.
    machine.succeed("agent stop evil", "agent start evil")
    for slug in FLOODS:
        require(slug in previews(), f"{slug} is still being built")
    machine.succeed(f"preview destroy {FLOODS[0]}")
    machine.wait_until_succeeds(f"preview list --json | jq -e 'all(.[]; .slug != \"{FLOODS[0]}\")'")
    require_equal([slug for slug in FLOODS if slug in previews()], list(FLOODS[1:]), "the other builds keep running")

with subtest("the attackers are removed, and no one else"):
    machine.succeed("agent destroy --now evil")
    for number, slug, owner in ((8, "theirs", "mallory"), (12, "web-12", "octo"), (13, "web-13", "octo")):
        deliver_event(number, slug, "closed", owner)
    machine.wait_until_succeeds("preview list --json | jq -e 'map(.slug) == [\"web-1\"]'")
    machine.wait_until_fails("pgrep --full '^sleep 100000$'")
    wait_until_idle()
    require_no_leaks(before)
    require_others_unaffected("nothing")
    doctor()
