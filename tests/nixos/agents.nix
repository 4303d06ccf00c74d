# The parts of a guest's life that are specific to NixOS; tests/e2e/lifecycle.py tests the common ones: a closure that was built elsewhere,
# the contents of /etc, users of its own, and units with the rights that were written down.
{ host, prelude, ... }:
{
  nodes.inn = {
    imports = [ host ];
    # In a virtual machine, a secret that everybody can read.
    environment.etc.webhook-secret.text = "secret of a test";
    services.innkeeper.webhook = {
      enable = true;
      secretFile = "/etc/webhook-secret";
    };
  };
  testScript = prelude + ''
    inn.wait_for_unit("innkeeper.service")

    with subtest("a guest answers at its address before create returns"):
        create(inn, "one")
        inn.succeed(f"curl --fail http://{address(inn, 'one')}:80/")

    with subtest("its name servers and its name are the manager's"):
        inn.succeed("agent exec one -- grep nameserver /etc/resolv.conf")
        assert inn.succeed("agent exec one -- hostname").strip() == "one"

    with subtest("root of the guest is nobody on the host"):
        inn.succeed("agent exec one -- sh -c 'test $(id -u) = 0'")
        inn.fail("agent exec one -- sh -c 'echo 1 > /proc/sys/kernel/sysrq'")

    with subtest("destroyed, nothing of it is left"):
        inn.succeed("agent destroy --now one")
        inn.fail("ip link show ve-1")
        inn.fail("test -e /var/lib/innkeeper/guests/one")
        inn.fail("test -e /nix/var/nix/gcroots/innkeeper/one")
        inn.succeed("innkeeper doctor")

    with subtest("the units are as exposed as documented, and not more"):
        inn.succeed("systemd-analyze security --no-pager --threshold=75 innkeeper.service")
        inn.succeed("systemd-analyze security --no-pager --threshold=5 innkeeper-webhook.service")

    with subtest("the webhook answers, and knows what is signed"):
        inn.wait_for_unit("innkeeper-webhook.service")
        inn.succeed("curl --fail http://127.0.0.1:3100/health")
        post = "curl --silent --output /dev/null --write-out '%{http_code}' --data '{}' http://127.0.0.1:3100/webhook/github"
        assert inn.succeed(post) == "401"
  '';
}
