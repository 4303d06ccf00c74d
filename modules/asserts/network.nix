{ config, lib, ... }:
let
  cfg = config.services.innkeeper.network;
  ours = import ../lib.nix;
  name = cfg.externalInterface;
  shown = if name == null then "null" else "\"${name}\"";
  withoutPrefix = builtins.filter (address: !lib.hasInfix "/" address) cfg.addresses;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = name == null || ours.isInterfaceName name;
        message = "services.innkeeper.network.externalInterface is ${shown}, which no interface can be called: a name has 1 to 15 bytes without '/', ':' and spaces. `ip -br link` on the host shows what there is.";
      }
      {
        assertion = name == null || !lib.hasPrefix "ve-" name;
        message = "services.innkeeper.network.externalInterface is ${shown}, the name of a guest's interface. Name the one to the internet; `ip route show default` on the host tells it.";
      }
      {
        assertion = cfg.addresses == [ ] || name != null;
        message = "services.innkeeper.network.addresses has ${lib.concatStringsSep ", " cfg.addresses} and no interface to put them on. Set services.innkeeper.network.externalInterface, for example \"enp3s0\".";
      }
      {
        assertion = cfg.addresses == [ ] || cfg.gateways != [ ];
        message = "services.innkeeper.network.addresses is set and services.innkeeper.network.gateways is not: the host would reach nothing but its own network. Add the gateway, for example [ \"203.0.113.1\" ].";
      }
      {
        assertion = withoutPrefix == [ ];
        message = "services.innkeeper.network.addresses has ${lib.concatStringsSep ", " withoutPrefix} without the length of the network's prefix. Write for example \"203.0.113.10/26\".";
      }
    ];
  };
}
