# A guest is made from a closure, answers, is stopped, started and destroyed, and leaves nothing.
{ host, prelude, ... }:
{
  nodes.inn = host;
  testScript = prelude + ''
    inn.wait_for_unit("innkeeper.service")

    with subtest("a guest answers at its address before create returns"):
        create(inn, "one")
        inn.succeed(f"curl --fail http://{address(inn, 'one')}:8080/os-release")

    with subtest("its name servers and its name are the manager's"):
        inn.succeed("agent exec one -- grep nameserver /etc/resolv.conf")
        assert inn.succeed("agent exec one -- hostname").strip() == "one"

    with subtest("root of the guest is nobody on the host"):
        inn.succeed("agent exec one -- sh -c 'test $(id -u) = 0'")
        inn.fail("agent exec one -- sh -c 'echo 1 > /proc/sys/kernel/sysrq'")

    with subtest("stopped and started, it keeps its files and its address"):
        before = address(inn, "one")
        inn.succeed("agent exec one -- touch /root/kept")
        inn.succeed("agent stop one")
        inn.succeed("agent start one")
        inn.succeed("agent exec one -- test -e /root/kept")
        assert before == address(inn, "one")

    with subtest("destroyed, nothing of it is left"):
        inn.succeed("agent destroy one")
        inn.fail("ip link show ve-1")
        inn.fail("test -e /var/lib/innkeeper/guests/one")
        inn.fail("test -e /nix/var/nix/gcroots/innkeeper/one")
        inn.succeed("innkeeper doctor")

    with subtest("the unit is as exposed as documented, and not more"):
        inn.succeed("systemd-analyze security --no-pager --threshold=75 innkeeper.service")
  '';
}
