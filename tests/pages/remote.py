"""docs/remote.md and docs/laptop.md, word for word: a Debian host with a gateway, and a laptop with only the client programs.

laptop.py has the laptop. Its certificate is of an authority of the test.

Needs: previews.
"""

from __future__ import annotations

import json
from pathlib import Path

from blocks import blocks_of
from guide import CERTIFICATE, DOMAIN, Walk, set_up_caddy
from laptop import Laptop, require_equal, restart_under_streams, use_guest
from machine import Machine

PAGE, LAPTOP_PAGE = "docs/remote.md", "docs/laptop.md"
API = f"api.{DOMAIN}"
AUTHORITY = "/srv/authority"
# Sets up the laptop's network: the host is 192.0.2.1.
NETWORK = f"""
ip netns add laptop
ip link add laptop0 type veth peer name eth0 netns laptop
ip address add 192.0.2.1/30 dev laptop0 && ip link set laptop0 up
ip -n laptop address add 192.0.2.2/30 dev eth0 && ip -n laptop link set eth0 up && ip -n laptop link set lo up
mkdir -p /etc/netns/laptop && printf '127.0.0.1 localhost\\n192.0.2.1 {API}\\n' > /etc/netns/laptop/hosts
useradd --create-home laptop
"""
# The authority that both machines trust, and the certificate of step 4 of docs/debian.md.
CERTIFICATES = f"""
mkdir -p {AUTHORITY} /var/secrets && chmod 711 /var/secrets && cd {AUTHORITY}
new() {{ openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "$@" 2> /dev/null; }}
new -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
new -subj /CN=test -keyout /var/secrets/cloudflare-origin-key.pem -out leaf.csr
printf 'basicConstraints = critical, CA:FALSE\\nsubjectAltName = DNS:*.{DOMAIN}\\n' > leaf.cnf
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 2 -extfile leaf.cnf -out {CERTIFICATE} 2> /dev/null
chown root:caddy /var/secrets/cloudflare-* && chmod 640 /var/secrets/cloudflare-*
chmod 644 ca.pem && echo 'cacert = "{AUTHORITY}/ca.pem"' > /root/.curlrc
echo '127.0.0.1 {API}' >> /etc/hosts
"""


def set_up_laptop(walk: Walk) -> Laptop:
    """Installs the client programs below the home of the laptop's user, as `make install-client` does."""
    machine = walk.machine
    machine.succeed(NETWORK)
    # The pages and completions come with the programs; the laptop needs the latter only.
    machine.succeed(
        "install -D -t /home/laptop/.local/bin /usr/local/bin/agent /usr/local/bin/preview /usr/local/bin/innkeeper",
        "chown -R laptop: /home/laptop",
    )
    return Laptop(machine, f"INNKEEPER_CA_FILE={AUTHORITY}/ca.pem")


def set_up_host(walk: Walk) -> None:
    """Prepares Caddy and its certificate, and guests with an SSH server that admits the laptop's user."""
    set_up_caddy(walk)
    walk.machine.succeed(CERTIFICATES)
    walk.machine.succeed(
        "setpriv --reuid=laptop --regid=laptop --clear-groups ssh-keygen -q -t ed25519 -N '' -f /home/laptop/.ssh/id_ed25519",
        "sed -i 's|^flake = .*|flake = \"path:/opt/innkeeper/guests#ssh\"|' /etc/innkeeper/config.toml",
    )
    key = walk.machine.succeed("cat /home/laptop/.ssh/id_ed25519.pub").strip()
    walk.write("/etc/innkeeper/config.toml", f"\n[ssh]\nauthorized_keys = [\"{key}\"]\n", ">>")


def start_gateway(walk: Walk) -> str:
    """Follows the setup of the page on a host with Caddy, and returns a token."""
    walk.write("/etc/innkeeper/config.toml", "\n" + walk.text(PAGE, "[gateway]\nenabled"), ">>")
    walk.write("/etc/caddy/Caddyfile", walk.text(PAGE, f"{API} {{"), ">>")
    walk.machine.succeed("systemctl daemon-reload", "systemctl enable --quiet --now caddy.service")
    starting = walk.block(PAGE, "systemctl restart innkeeper")
    creating = walk.block(PAGE, "innkeeper token create")
    shown = walk.run(starting.commands())
    require_equal(shown.splitlines()[-1], "ready", "the response of /readyz")
    token = walk.run(creating.commands()[:1]).strip()
    require_equal(token.startswith("ik_") and "\n" not in token, True, "standard output is the token alone")
    walk.run(creating.commands()[1:])
    return token


def follow_laptop_page(walk: Walk, laptop: Laptop, token: str) -> None:
    """Follows the choice of a host on docs/laptop.md, and uses a guest."""
    choosing = next(block for block in blocks_of(walk.repository, LAPTOP_PAGE) if block.scenario == "remote")
    for command in choosing.commands():
        command = command.replace("api.example.org", API)
        # The prompt reads the token.
        given = f"echo {token} | " if " add " in command else ""
        laptop.succeed(given + command)
    laptop.succeed("innkeeper context use office")


def use_tokens_of_file(walk: Walk, laptop: Laptop) -> None:
    """Follows the section on a secrets manager: its section of the configuration is the last one of the file."""
    walk.write("/etc/innkeeper/config.toml", walk.text(PAGE, "tokens_file ="), ">>")
    walk.run(walk.block(PAGE, "systemctl reload innkeeper-gateway").commands())
    secret = walk.machine.succeed("cut -d : -f 2 /etc/innkeeper/tokens.env").strip()
    settings = f"INNKEEPER_URL=https://{API} INNKEEPER_TOKEN="
    laptop.succeed(f"{settings}{secret} agent list")
    require_equal(laptop.status(f"{settings}{secret}x agent list"), 9, "the exit status with a wrong secret")


def play(machine: Machine, repository: Path) -> None:
    """Follows the pages."""
    walk = Walk(machine, repository)
    machine.start()
    machine.wait_for_unit("innkeeper.service")
    laptop = set_up_laptop(walk)
    with machine.nested("docs/remote.md: the gateway"):
        set_up_host(walk)
        token = start_gateway(walk)
    with machine.nested("the laptop has no other way"):
        require_equal(laptop.status("agent list"), 8, "the exit status without a context")
        require_equal(laptop.status("curl --silent --max-time 5 http://192.0.2.1:3301/metrics"), 7, "curl's exit status for the metrics")
    with machine.nested("docs/laptop.md: contexts"):
        follow_laptop_page(walk, laptop, token)
    with machine.nested("responses are those of the page"):
        status = f"curl --silent --output /dev/null --write-out '%{{http_code}}' https://{API}"
        for path, expected in (("/v1/guests", "401"), ("/metrics", "404"), ("/healthz", "200")):
            require_equal(machine.succeed(f"{status}{path}"), expected, f"the status of {path}")
        machine.succeed("curl --silent --fail http://127.0.0.1:3301/metrics | grep -x 'innkeeper_gateway_tokens 1'")
    with machine.nested("docs/remote.md: tokens of a secrets manager"):
        use_tokens_of_file(walk, laptop)
    with machine.nested("a guest is created, used and destroyed from the laptop"):
        laptop.succeed("agent create web --wait")
        names = [view["name"] for view in json.loads(laptop.succeed("agent list --json"))]
        require_equal(names, ["web"], "the guests")
        big = "head -c 5000000 /dev/zero"
        require_equal(laptop.succeed(f"{big} | agent exec web -- wc -c").strip(), "5000000", "the length of an input")
        require_equal(laptop.succeed(f"agent exec web -- {big} | wc -c").strip(), "5000000", "the length of an output")
        use_guest(laptop)
    for unit in ("innkeeper-gateway.service", "innkeeper.service"):
        with machine.nested(f"{unit} restarts while streams are open"):
            restart_under_streams(laptop, unit)
            use_guest(laptop)
    with machine.nested("the daemon is away"):
        machine.succeed("systemctl stop innkeeper.service")
        require_equal(laptop.status("agent list"), 8, "the exit status while the daemon is away")
        machine.succeed("systemctl start innkeeper.service")
        machine.wait_until_succeeds(laptop.command("agent list"))
        laptop.succeed("agent destroy web --now")
    with machine.nested("a revoked token is refused at once"):
        walk.run(walk.block(PAGE, "innkeeper token revoke").commands())
        require_equal(laptop.status("agent list"), 9, "the exit status with a revoked token")
    machine.succeed(f"innkeeper doctor | grep -F 'requests of other machines, for {API}'")
    machine.succeed("systemctl stop innkeeper-gateway.socket innkeeper-gateway.service")
    machine.fail("innkeeper doctor")
    # As the remedy says.
    machine.succeed("systemctl enable --now innkeeper-gateway.socket innkeeper-gateway.service", "innkeeper doctor")
