# After a reboot and after a loss of power, guests that should run do, and stopped ones do not.
{ host, prelude, ... }:
{
  nodes.inn = host;
  testScript = prelude + ''
    def comes_back(machine, how):
        with subtest(f"after {how}"):
            machine.wait_for_unit("innkeeper.service")
            machine.wait_until_succeeds(
                f"curl --fail --silent --max-time 2 --output /dev/null http://{running}:8080/os-release"
            )
            machine.succeed("agent exec running -- test -e /root/kept")
            machine.fail("systemctl is-active innkeeper-guest-stopped.service")
            machine.succeed("innkeeper doctor")


    inn.wait_for_unit("innkeeper.service")
    create(inn, "running")
    create(inn, "stopped")
    inn.succeed("agent stop stopped")
    inn.succeed("agent exec running -- sh -c 'touch /root/kept && sync'")
    inn.succeed("sync")
    running = address(inn, "running")

    inn.shutdown()
    inn.start()
    comes_back(inn, "a reboot")

    inn.crash()
    inn.start()
    comes_back(inn, "a loss of power")
  '';
}
