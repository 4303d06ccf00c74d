# Tests the reachability table of docs/security.md from inside a guest. On both back-ends of the
# host's firewall, with filtering of forwarding on the one that has it.
{ host, prelude, ... }:
let
  inn =
    number: extra:
    { pkgs, ... }:
    {
      imports = [
        host
        extra
      ];
      networking.interfaces.eth1.ipv4.addresses = [
        {
          address = "198.51.100.${number}";
          prefixLength = 24;
        }
      ];
      # Something to reach, which guests must not: a service of the host on all of its addresses.
      systemd.services.secret = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server 9999";
      };
    };
in
{
  nodes.nft = inn "2" {
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
  };
  nodes.ipt = inn "3" { networking.nftables.enable = false; };
  # The internet, as far as guests see it: an address that is not private.
  nodes.world =
    { pkgs, ... }:
    {
      networking.interfaces.eth1.ipv4.addresses = [
        {
          address = "198.51.100.1";
          prefixLength = 24;
        }
      ];
      networking.firewall.enable = false;
      systemd.services.page = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server 80";
      };
    };

  testScript = prelude + ''
    def check_table(machine):
        guest = "agent exec one --"
        reach = f"{guest} curl --silent --fail --max-time 5 --output /dev/null"
        gateway = machine.succeed(
            "agent list --json | jq --raw-output '.[] | select(.name == \"one\") | .host_address'"
        ).strip()

        machine.succeed(f"{reach} http://198.51.100.1/")
        machine.succeed(f"{guest} ping -c 1 -W 5 {gateway}")
        machine.fail(f"{reach} http://{gateway}:9999/")
        machine.fail(f"{reach} http://192.168.1.1:9999/")
        machine.fail(f"{reach} http://{address(machine, 'two')}:80/")
        machine.fail(f"{reach} http://169.254.169.254/")
        machine.succeed(f"curl --fail --max-time 5 http://{address(machine, 'one')}:80/")


    start_all()
    world.wait_for_unit("page.service")
    for machine in (nft, ipt):
        machine.wait_for_unit("innkeeper.service")
        create(machine, "one")
        create(machine, "two")
        with subtest(f"{machine.name}: guests reach what they may, and nothing else"):
            check_table(machine)
        firewall = "nftables.service" if machine is nft else "firewall.service"
        with subtest(f"{machine.name}: the same after {firewall} is reloaded and restarted"):
            machine.succeed(f"systemctl reload {firewall}")
            check_table(machine)
            machine.succeed(f"systemctl restart {firewall}")
            check_table(machine)
  '';
}
