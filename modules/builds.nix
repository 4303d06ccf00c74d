# What builds with a network reach.
#
# A derivation whose output's hash is fixed is built in the host's own network, so that it can download: it would reach
# what listens on the loopback interface without a password, and whatever is beside the host. Derivations come from pull
# requests too. Build users are known by their group, and the kernel knows the group of whoever opened a socket.
#
# A table and a unit of our own, for both back-ends of the host's firewall: neither restarts nor reloads of those touch it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.builds;
  ours = import ./lib.nix;
  table = "innkeeper_builds";
  delete = ''
    table inet ${table}
    delete table inet ${table}
  '';

  load = name: text: "${lib.getExe pkgs.nftables} --file ${pkgs.writeText name text}";
  isIPv6 = lib.hasInfix ":";
  allow =
    family: networks:
    lib.optionalString (networks != [ ]) ''
      ${family} daddr { ${lib.concatStringsSep ", " networks} } accept
    '';
  # With `auto-allocate-uids` there is no group; these are Nix's own defaults for the range.
  allocated = config.nix.settings.auto-allocate-uids or false;
  first = config.nix.settings.start-id or 872415232;
  last = first + (config.nix.settings.id-count or 8388608) - 1;

  rules = ''
    ${delete}
    table inet ${table} {
      chain output {
        type filter hook output priority filter; policy accept;
        meta skgid ${toString config.users.groups.nixbld.gid} goto builds
        ${lib.optionalString allocated "meta skuid ${toString first}-${toString last} goto builds"}
      }

      chain builds {
        # The resolver may be on the loopback interface, or beside the host.
        meta l4proto { tcp, udp } th dport 53 accept
        ${allow "ip" (builtins.filter (network: !isIPv6 network) cfg.allowedNetworks)}
        ${allow "ip6" (builtins.filter isIPv6 cfg.allowedNetworks)}
        # Every address of the host itself, the public ones too.
        oifname "lo" goto refuse
        ip daddr { ${lib.concatStringsSep ", " ours.refused} } goto refuse
        ip6 daddr { ::1, fc00::/7, fe80::/10, ff00::/8 } goto refuse
      }

      chain refuse {
        counter
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
      }
    }
  '';
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.builds = {
    restrictNetwork = mkOption {
      type = types.bool;
      default = config.services.innkeeper.enable;
      defaultText = lib.literalExpression "config.services.innkeeper.enable";
      description = ''
        Whether builds that download are kept from the host's own ports and from private networks. It concerns all builds of
        the host, your own among them; DNS passes. Other builds have no network in any case.
      '';
    };
    allowedNetworks = mkOption {
      type = types.listOf (
        types.strMatching "[0-9.]+(/[0-9]{1,2})?|[0-9a-fA-F:]*:[0-9a-fA-F:]*(/[0-9]{1,3})?"
      );
      default = [ ];
      example = [ "10.1.2.3/32" ];
      description = "Networks and addresses that builds may reach nonetheless, such as a mirror's or a Git server's.";
    };
    rules = mkOption {
      type = types.lines;
      default = rules;
      internal = true;
      readOnly = true;
      description = "The rules, for `nft --file`.";
    };
  };

  config = lib.mkIf (cfg.restrictNetwork && config.nix.enable) {
    systemd.services.innkeeper-builds = {
      description = "What builds with a network reach";
      documentation = [ "https://wiki.nftables.org/" ];
      wantedBy = [
        "multi-user.target"
        "nix-daemon.service"
      ];
      # Nobody builds before.
      before = [
        "nix-daemon.service"
        "nix-daemon.socket"
      ];
      after = [ "systemd-modules-load.service" ];
      unitConfig.DefaultDependencies = false;
      conflicts = [ "shutdown.target" ];
      # The rules are replaced in one transaction; a stop would leave a gap.
      reloadIfChanged = true;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = load "innkeeper-builds.nft" cfg.rules;
        ExecReload = load "innkeeper-builds.nft" cfg.rules;
        ExecStop = load "innkeeper-builds-end.nft" delete;
        CapabilityBoundingSet = [ "CAP_NET_ADMIN" ];
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        ProtectHome = true;
        ProtectSystem = "strict";
        RestrictAddressFamilies = [ "AF_NETLINK" ];
        SystemCallArchitectures = "native";
      };
    };
    boot.kernelModules = [
      "nf_tables"
      "nft_reject_inet"
    ];
  };
}
