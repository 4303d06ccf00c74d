"""`innkeeper switch-preview` predicts the effect of a switch: each prediction is compared with a real restart.

Needs: previews.
"""

OLD, NEW = "/var/lib/old-system", "/var/lib/new-system"
UNITS = ("innkeeper.service", "innkeeper-webhook.service", "innkeeper-webhook.socket", "caddy.service")
# An upgraded connection, as that of a WebSocket, through Caddy. The options are those of a preview's site, which Caddy has
# since 2.7.
SITE = """
http://socket.example.org {
	reverse_proxy 127.0.0.1:8096 {
		stream_close_delay 5m
	}
}
"""
OLD_SITE = SITE.replace("stream_close_delay 5m", "")
SERVER = r"""#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
printf 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'
exec cat
"""
REQUEST = (
    r"GET / HTTP/1.1\r\nHost: socket.example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    r"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def build(place: str) -> None:
    """Writes the host's units and settings as a NixOS system has them."""
    units = f"{place}/etc/systemd/system"
    machine.succeed(
        f"rm -rf {place} && mkdir -p {units}/multi-user.target.wants {place}/etc/innkeeper",
        f"cp -L /etc/innkeeper/config.toml {place}/etc/innkeeper/",
    )
    for name in UNITS:
        fragment = machine.get_unit_property(name, "FragmentPath")
        machine.succeed(f"cp -L {fragment} {units}/{name}", f"ln -s ../{name} {units}/multi-user.target.wants/")
        for drop_in in machine.get_unit_property(name, "DropInPaths").split():
            machine.succeed(f"mkdir -p {units}/{name}.d && cp -L {drop_in} {units}/{name}.d/")


def change(unit: str, text: str) -> None:
    """Adds a drop-in to a unit of the new system."""
    folder = f"{NEW}/etc/systemd/system/{unit}.d"
    machine.succeed(f"mkdir -p {folder} && printf %s {shlex.quote(text)} > {folder}/zz-next.conf")


def switch(unit: str) -> None:
    """Installs the new system's drop-in of a unit, and restarts the unit. The restart may fail."""
    machine.succeed(
        f"mkdir -p /run/systemd/system/{unit}.d",
        f"cp {NEW}/etc/systemd/system/{unit}.d/zz-next.conf /run/systemd/system/{unit}.d/ && systemctl daemon-reload",
    )
    machine.execute(f"timeout 20 systemctl restart {unit}")


def switch_back(unit: str) -> None:
    """Removes the drop-in again."""
    machine.succeed(f"rm /run/systemd/system/{unit}.d/zz-next.conf && systemctl daemon-reload && systemctl restart {unit}")


def predict(status: int = 0) -> dict[str, Any]:
    """Returns the report about the new system. The command must exit with this status."""
    found, output = machine.execute(f"innkeeper switch-preview {NEW} --from {OLD} --json")
    require_equal(found, status, f"the exit status, with {output}")
    report: dict[str, Any] = json.loads(output)
    return report


def finding(report: dict[str, Any], effect: str, *objects: str) -> dict[str, Any]:
    """Returns the finding with an effect on objects."""
    found = [one for one in report["findings"] if one["effect"] == effect and sorted(one["objects"]) == sorted(objects)]
    require_equal(len(found), 1, f"the findings '{effect}' about {objects} in {json.dumps(report['findings'], indent=1)}")
    return dict(found[0])


boot_with_previews()
create("web")
sha = commit("change", app())
deliver_event(1, "change", "opened")
wait_for_preview("web-1", "live", sha)
names = ("web", "web-1")
leaders = {name: leader(name) for name in names}
build(OLD)

with subtest("the same system changes nothing"):
    build(NEW)
    report = predict()
    require_equal(report["findings"], [], "the findings")
    require_equal(
        (report["guests_from"], report["settings_from"], report["units_from"]), ("daemon", "daemon", "systemd"), "the sources"
    )

with subtest("a restart of the daemon keeps guests, as predicted"):
    change("innkeeper.service", "[Service]\nEnvironment=INNKEEPER_ENGINE_INTERVAL_SECONDS=59\nEnvironment=X=1\n")
    report = predict()
    require_equal(finding(report, "restart", "innkeeper.service")["severity"], "note", "the severity")
    require_equal(finding(report, "keep", *names)["class"], "guest", "the class")
    require("becomes 59" in finding(report, "change", "engine.interval_seconds")["reason"], "the setting")
    switch("innkeeper.service")
    wait_until_idle()
    require_equal({name: leader(name) for name in names}, leaders, "the guests' first processes")
    require("59" in machine.succeed("innkeeper config --json | jq -r '.settings[] | select(.name == \"engine.interval_seconds\").value'"), "the setting in force")
    switch_back("innkeeper.service")
    wait_until_idle()

with subtest("a subnet that guests do not fit in is refused, as predicted"):
    build(NEW)
    change("innkeeper.service", "[Service]\nEnvironment=INNKEEPER_NETWORK_SUBNET=10.9.0.0/16\n")
    refused = finding(predict(4), "refuse", "innkeeper.service")
    require_equal((refused["class"], refused["severity"]), ("setting", "cut"), "the finding")
    require("would change the addresses of 2 guest" in refused["reason"], refused["reason"])
    require("Set network.subnet back" in refused["remedy"], refused["remedy"])
    switch("innkeeper.service")
    machine.fail("innkeeper status")
    machine.wait_until_succeeds("journalctl --unit=innkeeper.service | grep -q 'would change the addresses of 2 guest'")
    switch_back("innkeeper.service")
    wait_until_idle()
    require_equal({name: leader(name) for name in names}, leaders, "the guests' first processes")

with subtest("another prefix of units loses running guests, as predicted"):
    build(NEW)
    change("innkeeper.service", "[Service]\nEnvironment=INNKEEPER_SUPERVISOR_UNIT_PREFIX=other-\n")
    orphaned = finding(predict(4), "orphan", *names)
    require_equal((orphaned["class"], orphaned["severity"]), ("guest", "cut"), "the finding")

with subtest("a restart of Caddy closes WebSockets, and a reload keeps them, as predicted"):
    survives = machine.execute(f"printf %s {shlex.quote(SITE)} > /run/site && caddy adapt --config /run/site --adapter caddyfile")[0] == 0
    machine.succeed(
        f"printf %s {shlex.quote(SITE if survives else OLD_SITE)} > /etc/caddy/previews/socket.caddy",
        "systemctl reload caddy.service",
        f"printf %s {shlex.quote(SERVER)} > /run/upgrade && chmod +x /run/upgrade",
        "systemd-run --quiet --unit=upgrade busybox nc -ll -p 8096 -e /run/upgrade",
        "mkfifo /run/socket.in",
        "systemd-run --quiet --unit=socket bash -c 'exec 3<> /dev/tcp/127.0.0.1/80 4<> /run/socket.in; "
        f"printf \"{REQUEST}\" >&3; cat <&4 >&3 & exec cat <&3 > /run/socket.out'",
    )
    machine.wait_until_succeeds("grep -q '101 Switching Protocols' /run/socket.out")
    build(NEW)
    change("caddy.service", "[Unit]\nX-Reload-Triggers=/next\n")
    require_equal(finding(predict(), "reload", "caddy.service")["severity"], "note", "the severity")
    if survives:
        machine.succeed("systemctl reload caddy.service", "echo reloaded > /run/socket.in")
        machine.wait_until_succeeds("grep -q reloaded /run/socket.out")
    change("caddy.service", "[Service]\nEnvironment=X=1\n")
    restart = finding(predict(), "restart", "caddy.service")
    require_equal(restart["severity"], "interruption", "the severity")
    require("1 connection is open now" in restart["reason"], restart["reason"])
    switch("caddy.service")
    machine.wait_until_succeeds("! systemctl is-active --quiet socket.service")
    machine.wait_until_succeeds(curl_command("web-1") + " > /dev/null")
    switch_back("caddy.service")

with subtest("routes, rules, ports and agents"):
    build(NEW)
    change("innkeeper.service", "[Service]\nEnvironment=INNKEEPER_PREVIEWS_DOMAIN=other.example.org INNKEEPER_NETWORK_HOST_PORTS=[]\n")
    for place, ports in ((OLD, ["tcp/443"]), (NEW, ["tcp/8443"])):
        facts = json.dumps({"firewall": {"backend": "nftables", "ports": ports}})
        machine.succeed(f"printf %s {shlex.quote(facts)} > {place}/etc/innkeeper/host.json")
    agents = json.dumps({"agents": {"web": {"memory": "1G"}, "worker": {"flake": attribute(PLAIN)}}})
    units = f"{NEW}/etc/systemd/system"
    machine.succeed(
        f"printf %s {shlex.quote(agents)} > {NEW}/etc/innkeeper/agents.json",
        f"printf '[Service]\\nType=oneshot\\nExecStart=innkeeper apply /etc/innkeeper/agents.json\\n' > {units}/innkeeper-agents.service",
        f"ln -s ../innkeeper-agents.service {units}/multi-user.target.wants/",
    )
    report = predict(4)
    require_equal(finding(report, "move", f"https://web-1.{DOMAIN}")["class"], "route", "the class")
    require_equal(finding(report, "change", "network.host_ports")["class"], "firewall", "the class")
    require_equal(finding(report, "close", "tcp/443")["severity"], "cut", "the severity")
    finding(report, "open", "tcp/8443")
    finding(report, "start", "innkeeper-agents.service")
    require_equal(finding(report, "create", "worker")["class"], "agent", "the class")
    require("created by hand" in finding(report, "keep", "web")["reason"], "the agent that was created by hand")
    text = machine.execute(f"innkeeper switch-preview {NEW} --from {OLD}")[1]
    require("[BROKEN] tcp/443: close:" in text and "1 cut, " in text, text)
    machine.succeed(f"innkeeper apply {NEW}/etc/innkeeper/agents.json || true", "agent show worker", "agent destroy worker --now")

with subtest("the unit for declared agents applies the file of a Debian host"):
    # What `make install` installed. On NixOS, the unit exists only if the configuration declares agents.
    if machine.execute("test -e /usr/local/share/innkeeper/lvm-thin.conf")[0] == 0:
        declared = json.dumps({"agents": {"worker": {"flake": attribute(PLAIN)}}})
        machine.succeed(
            f"printf %s {shlex.quote(declared)} > /etc/innkeeper/agents.json",
            "systemctl restart innkeeper-agents.service",
        )
        require_equal(guest("worker")["declared"], True, "the record")
        # An agent that was created by hand is refused, and the unit reports it.
        manual = json.dumps({"agents": {"web": {"memory": "1G"}}})
        machine.succeed(f"printf %s {shlex.quote(manual)} > /etc/innkeeper/agents.json")
        machine.fail("systemctl restart innkeeper-agents.service")
        machine.wait_until_succeeds("journalctl --unit=innkeeper-agents.service | grep -q 'created by hand'")
        machine.succeed("rm /etc/innkeeper/agents.json", "systemctl reset-failed", "agent destroy worker --now")

with subtest("without the daemon, running guests are known from systemd"):
    build(NEW)
    machine.succeed("systemctl stop innkeeper.service", f"rm {NEW}/etc/systemd/system/caddy.service")
    report = predict()
    require_equal((report["guests_from"], report["settings_from"]), ("systemd", "program"), "the sources")
    finding(report, "start", "innkeeper.service")
    finding(report, "stop", "caddy.service")
    machine.succeed("systemctl start innkeeper.service")
    wait_until_idle()

with subtest("a system without the daemon orphans guests"):
    machine.succeed(f"rm {NEW}/etc/systemd/system/innkeeper*")
    report = predict(4)
    finding(report, "stop", "innkeeper.service")
    require_equal(finding(report, "orphan", *names)["severity"], "cut", "the severity")
    require_equal(finding(report, "stop", "innkeeper-webhook.socket")["severity"], "cut", "the severity")

with subtest("a folder that is no NixOS system"):
    failure = json.loads(machine.execute(f"innkeeper switch-preview /usr --from {OLD} --json 2>&1")[1])
    require_equal(failure["code"], "invalid_request", "the code")
    require("innkeeperd --check-start" in failure["remedy"], failure["remedy"])
    require_equal({name: leader(name) for name in names}, leaders, "the guests' first processes")
    doctor()
