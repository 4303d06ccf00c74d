# The host's own network, as far as guests depend on it.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.network;
  innkeeperLib = import ./lib.nix;

  name = cfg.externalInterface;
  shown = if name == null then "null" else "\"${name}\"";
  withoutPrefix = builtins.filter (address: !lib.hasInfix "/" address) cfg.addresses;
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.network = {
    enable = mkOption {
      type = types.bool;
      default = config.services.innkeeper.enable;
      defaultText = lib.literalExpression "config.services.innkeeper.enable";
      description = "Whether to keep other network managers off the guests' interfaces, and to apply the options below.";
    };
    externalInterface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "enp3s0";
      description = ''
        The interface to the internet, by its name on this host (`ip -br link`). Guests are masqueraded on whatever
        interface the host's routes choose, so this is needed for static addresses only. When it is set and no such
        interface appears, the unit `innkeeper-external-interface.service` fails with a message.
      '';
    };
    addresses = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "203.0.113.10/26"
        "2001:db8::10/64"
      ];
      description = "Static addresses of the external interface, with their prefix lengths. Empty: DHCP, or whatever the host configures elsewhere.";
    };
    gateways = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "203.0.113.1"
        "fe80::1"
      ];
      description = "Default gateways. They may lie outside of the network of the addresses, as with a /32.";
    };
    nameservers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "9.9.9.9" ];
      description = "The host's own resolvers.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = name == null || innkeeperLib.isInterfaceName name;
        message = "services.innkeeper.network.externalInterface is ${shown}, which is not a valid interface name: a name has 1 to 15 bytes without '/', ':' and spaces. `ip -br link` on the host lists its interfaces.";
      }
      {
        assertion = name == null || !lib.hasPrefix "ve-" name;
        message = "services.innkeeper.network.externalInterface is ${shown}, the name of a guest's interface. Name the one to the internet; `ip route show default` on the host prints it.";
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

    # systemd's own 80-container-ve.network would assign addresses, DHCP and NAT to guests' interfaces.
    systemd.network.networks."10-innkeeper-guests" = {
      matchConfig = {
        Kind = "veth";
        Name = innkeeperLib.interfacePattern;
        Group = innkeeperLib.interfaceGroup;
      };
      linkConfig.Unmanaged = true;
    };
    networking.networkmanager.unmanaged = [ "interface-name:${innkeeperLib.interfacePattern}" ];
    networking.dhcpcd.denyInterfaces = [ innkeeperLib.interfacePattern ];

    systemd.network.enable = lib.mkIf (cfg.addresses != [ ]) true;
    networking.useNetworkd = lib.mkIf (cfg.addresses != [ ]) true;
    networking.useDHCP = lib.mkIf (cfg.addresses != [ ]) false;
    networking.nameservers = lib.mkIf (cfg.nameservers != [ ]) cfg.nameservers;
    systemd.network.networks."20-external" = lib.mkIf (cfg.addresses != [ ]) {
      matchConfig.Name = cfg.externalInterface;
      address = cfg.addresses;
      routes = map (gateway: {
        Gateway = gateway;
        GatewayOnLink = true;
      }) cfg.gateways;
      networkConfig = {
        DHCP = "no";
        IPv6AcceptRA = false;
      };
    };

    # Fails the unit if the interface does not appear.
    systemd.services.innkeeper-external-interface = lib.mkIf (cfg.externalInterface != null) {
      description = "The external interface ${cfg.externalInterface} is there";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        DynamicUser = true;
        ProtectHome = true;
        CapabilityBoundingSet = "";
        NoNewPrivileges = true;
      };
      script = ''
        for _ in {1..30}; do
          [[ ! -e /sys/class/net/${lib.escapeShellArg cfg.externalInterface} ]] || exit 0
          sleep 1
        done
        echo "There is no interface ${cfg.externalInterface}. This host has: $(cd /sys/class/net && echo *)." >&2
        echo "Set services.innkeeper.network.externalInterface to the right one." >&2
        exit 1
      '';
    };
  };
}
