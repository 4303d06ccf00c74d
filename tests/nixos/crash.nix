# The daemon is killed while it works: what was accepted is finished, and guests do not notice.
{ host, prelude, ... }:
{
  nodes.inn = host;
  testScript = prelude + ''
    import json

    inn.wait_for_unit("innkeeper.service")
    create(inn, "witness")
    show = "systemctl show --property InvocationID --value innkeeper-guest-witness.service"
    before = inn.succeed(show)

    with subtest("killed during many creations, the daemon comes back and ends all of them"):
        for number in range(8):
            inn.succeed(f"systemd-run --unit create-{number} agent create g{number} --closure {CLOSURE}")
        for _ in range(4):
            inn.succeed("systemctl kill --kill-whom=main --signal=SIGKILL innkeeper.service")
            inn.wait_for_unit("innkeeper.service")
        inn.wait_until_succeeds("innkeeper status --json | jq --exit-status '.operations == []'")
        inn.succeed("innkeeper doctor")
        for guest in json.loads(inn.succeed("agent list --json")):
            require_healthy(inn, guest["name"])

    with subtest("no two guests have the same slot, and no interface belongs to nobody"):
        inn.succeed("agent list --json | jq --exit-status '[.[].slot] | length == (unique | length)'")
        wanted = inn.succeed("agent list --json | jq --raw-output '.[] | select(.state == \"running\") | .interface' | sort")
        found = inn.succeed("ip --json link show type veth | jq --raw-output '.[].ifname | select(startswith(\"ve-\"))' | sort")
        assert wanted == found

    with subtest("a guest that was not concerned did not notice"):
        assert before == inn.succeed(show)
  '';
}
