{ config, lib, ... }:
let
  cfg = config.services.innkeeper;
  ours = import ../lib.nix;
  inherit (cfg.settings) network nix supervisor;

  subnet = ours.network network.subnet;
  allAddresses = lib.concatLists (
    lib.mapAttrsToList (
      interface: settings:
      map (address: {
        inherit interface;
        inherit (address) address;
      }) settings.ipv4.addresses
    ) config.networking.interfaces
  );
  inSubnet = builtins.filter (entry: ours.inside entry.address network.subnet) allAddresses;
  trusted = builtins.filter (lib.hasPrefix "ve-") config.networking.firewall.trustedInterfaces;
  natted = builtins.filter (lib.hasPrefix "ve-") config.networking.nat.internalInterfaces;
  badNameservers = builtins.filter (
    text: ours.address text == null || lib.hasPrefix "127." text
  ) network.nameservers;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = subnet != null;
        message = "services.innkeeper.settings.network.subnet is \"${network.subnet}\", which is no IPv4 network. Write it as address/length with a zero host part, for example \"10.100.0.0/16\".";
      }
      {
        assertion = subnet == null || (subnet.prefix >= 8 && subnet.prefix <= 29);
        message = "services.innkeeper.settings.network.subnet is \"${network.subnet}\": a guest takes two addresses, and a prefix from 8 to 29 leaves room for guests. Write for example \"10.100.0.0/16\".";
      }
      {
        assertion = inSubnet == [ ];
        message = "the guests' subnet ${network.subnet} contains addresses of this host: ${
          lib.concatMapStringsSep ", " (entry: "${entry.address} (${entry.interface})") inSubnet
        }. Set services.innkeeper.settings.network.subnet to a network that nothing else uses, for example \"10.200.0.0/16\".";
      }
      {
        assertion = badNameservers == [ ];
        message = "services.innkeeper.settings.network.nameservers has ${lib.concatStringsSep ", " badNameservers}, which guests cannot reach: they have IPv4 only, and a loopback address is their own. Name resolvers by IPv4 address, for example [ \"9.9.9.9\" \"192.168.1.1\" ].";
      }
      {
        assertion = trusted == [ ];
        message = "networking.firewall.trustedInterfaces has ${lib.concatStringsSep ", " trusted}, which opens every port of this host to every guest. Remove it; what guests need is opened by services.innkeeper.firewall.";
      }
      {
        assertion = natted == [ ];
        message = "networking.nat.internalInterfaces has ${lib.concatStringsSep ", " natted}. The daemon's own table inet innkeeper masquerades guests already; remove the entry.";
      }
      {
        assertion = !(config.networking.nftables.enable && config.networking.nftables.flushRuleset);
        message = "networking.nftables.flushRuleset is on: each reload would remove the table inet innkeeper, and with it NAT and the filter of all guests. Set networking.nftables.flushRuleset = false; and write rules in networking.nftables.tables instead of ruleset or rulesetFile.";
      }
      {
        assertion = supervisor.kind != "direct";
        message = "services.innkeeper.settings.supervisor.kind is \"direct\". The unit has not the rights to keep guests itself, and a switch would end them. Write \"systemd\".";
      }
      {
        assertion = config.nix.enable;
        message = "services.innkeeper needs Nix to build guests, and nix.enable is false. Set nix.enable = true;.";
      }
      {
        assertion = !lib.hasPrefix "-" nix.flake && !lib.hasInfix " " nix.flake;
        message = "services.innkeeper.settings.nix.flake is \"${nix.flake}\", which is no flake reference. Write for example \"/etc/nixos#agent\".";
      }
    ];
  };
}
