# A switch restarts the daemon, and leaves guests alone: the same init, the same connection.
{ host, prelude, ... }:
{
  nodes.inn = {
    imports = [ host ];
    # Changes that a switch may make: the daemon's configuration, and an option unrelated to guests.
    specialisation.changed.configuration = {
      services.innkeeper.settings.log.level = "debug";
      networking.firewall.allowedTCPPorts = [ 4444 ];
    };
  };
  testScript = prelude + ''
    inn.wait_for_unit("innkeeper.service")
    create(inn, "one")
    show = "systemctl show --property InvocationID --value "
    guest_before = inn.succeed(show + "innkeeper-guest-one.service")
    daemon_before = inn.succeed(show + "innkeeper.service")

    with subtest("traffic goes on while the host is switched"):
        inn.succeed(
            "systemd-run --unit traffic sh -c "
            f"'while :; do curl --fail --silent --max-time 2 --output /dev/null http://{address(inn, 'one')}:80/ || exit 1; done'"
        )
        inn.succeed("/run/current-system/specialisation/changed/bin/switch-to-configuration test")
        inn.wait_for_unit("innkeeper.service")
        inn.succeed("systemctl is-active traffic.service")

    with subtest("the daemon was restarted and the guest was not"):
        assert daemon_before != inn.succeed(show + "innkeeper.service")
        assert guest_before == inn.succeed(show + "innkeeper-guest-one.service")
        inn.succeed("agent exec one -- true")
  '';
}
