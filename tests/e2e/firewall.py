"""A guest reaches only allowed targets. This and its connections survive restarts of firewalls.

Needs: nothing.
"""

# Addresses of private networks beside the host: docs/security.md.
PRIVATE = ("10.9.9.9", "100.64.9.9", "172.16.9.9", "192.168.77.1", "169.254.169.254")


def reaches(name: str, address: str, port: int = 80) -> bool:
    """Reports whether a guest can fetch a page from an address."""
    command = f"agent exec {name} -- timeout 5 wget -q -O /dev/null http://{address}:{port}/"
    return machine.execute(command)[0] == 0


def require_documented_reachability() -> None:
    """Fails unless the rows of docs/security.md hold."""
    require(reaches("web", INTERNET), "it reaches the internet")
    machine.succeed(f"agent exec web -- ping -c 1 -W 5 {web['host_address']}")
    page(web["guest_address"])
    for target, address, port in (
        ("its gateway", web["host_address"], 9999),
        ("its neighbour's gateway", shop["host_address"], 9999),
        ("the host's public address", "198.51.100.1", 9999),
        ("its neighbour", shop["guest_address"], 80),
        *(("a private network beside the host", address, 80) for address in PRIVATE),
    ):
        require(not reaches("web", address, port), f"it does not reach {target} ({address}:{port})")


def require_echo(word: str) -> None:
    """Sends a line on the two connections, and waits for the echo on both."""
    machine.succeed(f"agent exec web -- sh -c 'echo {word} > /talk.in'", f"echo {word} > /run/talk.in")
    machine.wait_until_succeeds(f"agent exec web -- grep -qx {word} /talk.out")
    machine.wait_until_succeeds(f"grep -qx {word} /run/talk.out")
    machine.require_unit_state("talk.service")


boot()
machine.succeed("mkdir -p /srv/www && echo A page. > /srv/www/index.html")
start_internet()
internet = machine.get_unit_property("internet.service", "MainPID")
for address in PRIVATE:
    machine.succeed(
        f"nsenter --target {internet} --net -- ip address add {address}/32 dev lo", f"ip route add {address}/32 via {INTERNET}"
    )
machine.succeed("systemd-run --quiet --unit=secret busybox httpd -f -p 9999 -h /srv/www")
machine.wait_for_open_port(9999)
start_name_server()
web, shop = create("web"), create("shop")

with subtest("all targets are reachable from the host"):
    for address in PRIVATE:
        machine.succeed(f"curl --silent --fail --max-time 5 --output /dev/null http://{address}/")
    for address in ("198.51.100.1", web["host_address"], shop["host_address"]):
        machine.succeed(f"curl --silent --fail --max-time 5 --output /dev/null http://{address}:9999/")
    page(shop["guest_address"])

with subtest("a guest reaches the allowed targets"):
    require_documented_reachability()
    doctor()

with subtest("a guest resolves names"):
    found = machine.succeed("agent exec web -- nslookup page.example.org")
    require(f"Address: {INTERNET}" in found, f"the response: {found}")

with subtest("a change of the host's resolver reaches the firewall and a running guest"):
    # In a private network, through a symbolic link like that of systemd-resolved.
    machine.succeed("echo 'nameserver 192.168.77.1' > /run/other.conf", "ln -sfT /run/other.conf /etc/resolv.conf")
    machine.wait_until_succeeds(
        "agent exec web -- grep -qxF 'nameserver 192.168.77.1' /etc/resolv.conf && "
        "nft list chain inet innkeeper guest_to_world | grep -F 192.168.77.1 | grep -qF 'dport 53 accept'",
        timeout=10,
    )
    require_documented_reachability()

with subtest("the host's sockets, files and store are absent or inaccessible"):
    for path in ("/nix/var", "/run/innkeeper/api.sock", "/run/innkeeper/intake.sock", "/run/dbus", "/var/lib/innkeeper"):
        machine.succeed(f"agent exec web -- test ! -e {path}")
    machine.fail("agent exec web -- touch /nix/store/mine")
    machine.fail("agent exec web -- sh -c 'echo 1 > /proc/sys/kernel/sysrq'")
    machine.fail("agent exec web -- sh -c 'echo b > /proc/sysrq-trigger'")

with subtest("two connections: out of a guest through the host's NAT, and into it"):
    # The listener echoes each line.
    echo = "nc -ll -p 7 -e cat"
    machine.succeed(
        f"systemd-run --quiet --unit=echo nsenter --target {internet} --net -- busybox {echo}",
        f"agent exec --detach web -- {echo}",
    )
    machine.wait_for_open_port(7, web["guest_address"])
    machine.wait_for_open_port(7, INTERNET)
    machine.succeed(
        "agent exec web -- mkfifo /talk.in",
        f"agent exec --detach web -- sh -c 'exec 4<> /talk.in; nc {INTERNET} 7 <&4 > /talk.out'",
        "mkfifo /run/talk.in",
        f"systemd-run --quiet --unit=talk bash -c 'exec 3<> /dev/tcp/{web['guest_address']}/7 4<> /run/talk.in; "
        "cat <&4 >&3 & exec cat <&3 > /run/talk.out'",
    )
    require_echo("first")

with subtest("connections survive loading and reloading the host's own firewall"):
    rules = "table inet host { chain input { type filter hook input priority 0; policy accept; }; }"
    for word in ("loaded", "again"):
        machine.succeed(f"printf '%s\\n' 'table inet host' 'delete table inet host' '{rules}' | nft --file -")
        require_echo(word)
    require_documented_reachability()
    doctor()

with subtest("rules removed by a restarted firewall are restored at once"):
    # The first step of a restart of Debian's nftables.service.
    for word in ("flushed", "twice"):
        machine.succeed("nft flush ruleset")
        machine.wait_until_succeeds("nft list table inet innkeeper", timeout=10)
        require_echo(word)
    require_documented_reachability()
    doctor()

with subtest("connections survive a restart of the daemon"):
    machine.succeed("systemctl restart innkeeperd.service")
    wait_until_idle()
    require_echo("restarted")
    require_documented_reachability()

machine.succeed("systemctl stop talk.service echo.service", "agent destroy web shop")
doctor()
