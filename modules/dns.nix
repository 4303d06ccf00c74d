# The program that resolves names for guests: a unit without privileges.
#
# The daemon's rules redirect a guest's queries to its own gateway address there. The program resolves the hosts of the
# guest's own preview to that address, so that an app reaches its own URL through this host's Caddy, and forwards all other
# queries to the host's name servers. For the host, it resolves names by which Caddy finds the apps of settled routes. It
# works while the daemon is down.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.innkeeper.dns;
  inherit (config.services.innkeeper) caddy package settings;

  # The user by the daemon's default.
  user = "innkeeper-dns";
  port = settings.dns.port or 3053;
  ports = lib.optional (port != 0) port;
  directory = settings.dns.directory or "/run/${user}";
in
{
  imports = [
    ./manager/options.nix
    ./caddy.nix
    ./firewall.nix
  ];

  options.services.innkeeper.dns = {
    enable =
      lib.mkEnableOption "the resolver for guests, with which an app reaches its own URL where that name leads to an address in front of this host; without it, guests query the host's name servers themselves"
      // {
        default = caddy.enable;
        defaultText = lib.literalExpression "config.services.innkeeper.caddy.enable";
      };
  };

  config = lib.mkIf cfg.enable {
    users.users.${user} = {
      isSystemUser = true;
      group = user;
      description = "Innkeeper's resolver";
    };
    users.groups.${user} = { };

    # The daemon's rules redirect guests' queries there, and accept nothing else.
    services.innkeeper.firewall = {
      guestTCPPorts = ports;
      guestUDPPorts = ports;
    };

    systemd.services.innkeeper-dns = {
      description = "Innkeeper's resolver";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      # Guests that the daemon starts begin with the resolver.
      before = [ "innkeeper.service" ];
      startLimitIntervalSec = 0;
      # The parts of the shared configuration file that it reads.
      restartTriggers = [
        (builtins.toJSON {
          dns = settings.dns or { };
          subnet = settings.network.subnet or null;
          nameservers = settings.network.nameservers or null;
          table = settings.caddy.table or null;
          log = settings.log or { };
        })
      ];
      # Guests use the host's name servers meanwhile; a restart is the shortest time.
      stopIfChanged = false;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' package "innkeeper-dns"} --config /etc/innkeeper/config.toml";
        # Also after a crash: Caddy looks up all requests itself until the program has started again, if it does.
        ExecStopPost = "${pkgs.coreutils}/bin/rm --force ${directory}/table";
        User = user;
        Group = user;
        # It ends by itself with dns.port = 0.
        Restart = "on-failure";
        RestartSec = 1;
        WatchdogSec = 30;
        TimeoutStopSec = 10;
        # The file in it tells the daemon that the program listens, and Caddy reads the table through the link in it. It stays through a restart, and not after a stop.
        RuntimeDirectory = user;
        RuntimeDirectoryMode = "0755";
        RuntimeDirectoryPreserve = "restart";
        # A socket for each query that waits for a name server, and for each connection.
        LimitNOFILE = 16384;
        # Limits its use of the host, since every guest can send it queries.
        MemoryMax = "256M";
        TasksMax = 64;

        # Exposure by `systemd-analyze security`: 1.1 (systemd 252); tests/nix/run enforces the limit.
        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        DevicePolicy = "closed";
        KeyringMode = "private";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateIPC = true;
        PrivateMounts = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        UMask = "0022";
      };
    };
  };
}
