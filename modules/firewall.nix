# The host's own firewall, so that Innkeeper's rules decide about guests.
#
# Guests are filtered and masqueraded by the daemon's table `inet innkeeper`. A packet must pass every table, so the
# host's firewall has to let through what that table lets through, and need not repeat what it refuses:
#
# - input: DNS and PostgreSQL on the guest's gateway address, and the ports that the daemon redirects guests' HTTPS and
#   queries to. No other port is opened, so that a host whose daemon has not yet written its table is closed.
# - forward: everything that a guest sends, where the host filters forwarding at all.
#
# Rules match guests' interfaces by group, because other containers share the name pattern.
{ config, lib, ... }:
let
  cfg = config.services.innkeeper;
  innkeeperLib = import ./lib.nix;
  group = toString innkeeperLib.interfaceGroup;

  tcp = lib.optional cfg.settings.network.allow_dns 53 ++ cfg.firewall.guestTCPPorts;
  udp = lib.optional cfg.settings.network.allow_dns 53 ++ cfg.firewall.guestUDPPorts;

  forProtocol =
    rule:
    lib.concatStrings (
      lib.optional (tcp != [ ]) (rule "tcp" tcp) ++ lib.optional (udp != [ ]) (rule "udp" udp)
    );
  list = lib.concatMapStringsSep ", " toString;

  nftablesRules = forProtocol (
    protocol: ports: ''
      iifgroup ${group} ${protocol} dport { ${list ports} } accept comment "Innkeeper's guests"
    ''
  );
  iptablesRules = forProtocol (
    protocol: ports:
    lib.concatMapStrings (port: ''
      iptables -w -A nixos-fw -m devgroup --src-group ${group} -p ${protocol} --dport ${toString port} -j nixos-fw-accept
    '') ports
  );
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.firewall = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = cfg.enable;
      defaultText = lib.literalExpression "config.services.innkeeper.enable";
      description = "Whether to open the host's firewall for the traffic that Innkeeper's rules allow to guests.";
    };
    openPorts = lib.mkOption {
      type = lib.types.listOf lib.types.port;
      default = [
        22
        80
        443
      ];
      description = "TCP ports of the host that are open to everybody: SSH, HTTP and HTTPS.";
    };
    guestTCPPorts = lib.mkOption {
      type = lib.types.listOf lib.types.port;
      default = [ ];
      example = [ 5432 ];
      description = ''
        TCP ports of the host that this firewall leaves to Innkeeper's rules, for guests. The table `inet innkeeper`
        still decides, and refuses every port that the daemon has not opened.
      '';
    };
    guestUDPPorts = lib.mkOption {
      type = lib.types.listOf lib.types.port;
      default = [ ];
      example = [ 123 ];
      description = "UDP ports of the host, as {option}`services.innkeeper.firewall.guestTCPPorts`.";
    };
  };

  config = lib.mkIf cfg.firewall.enable {
    networking.firewall = lib.mkMerge [
      { allowedTCPPorts = cfg.firewall.openPorts; }
      (lib.mkIf config.networking.nftables.enable {
        extraInputRules = nftablesRules;
        # Only needed where a chain of the host filters forwarding.
        extraForwardRules = lib.mkIf config.networking.firewall.filterForward ''
          iifgroup ${group} accept comment "Innkeeper's guests: the table inet innkeeper decides"
        '';
      })
      (lib.mkIf (!config.networking.nftables.enable) { extraCommands = iptablesRules; })
    ];
  };
}
