# The program that shows visitors the state of a preview whose app does not answer: a unit without privileges.
#
# systemd opens the socket and keeps it while the program restarts. Caddy requests pages on the socket, and their contents
# are files that the daemon writes into a folder that only the group `innkeeper-pages` can read. Of the network it reaches
# the guests alone: while an app restarts, requests wait until its port accepts a connection.
{ config, lib, ... }:
let
  cfg = config.services.innkeeper.pages;
  inherit (config.services.innkeeper) caddy package settings;

  # The group of the status files, their folder, and the socket, by the daemon's defaults.
  user = "innkeeper-pages";
  directory = "/var/lib/innkeeper-pages";
  socket = "/run/innkeeper-pages/pages.sock";
in
{
  imports = [
    ./manager/options.nix
    ./caddy.nix
  ];

  options.services.innkeeper.pages = {
    enable =
      lib.mkEnableOption "the program that shows visitors the state of a preview whose app does not answer; without it, Caddy answers them with one sentence"
      // {
        default = caddy.enable;
        defaultText = lib.literalExpression "config.services.innkeeper.caddy.enable";
      };
  };

  config = lib.mkIf cfg.enable {
    users.users.${user} = {
      isSystemUser = true;
      group = user;
      description = "Innkeeper's state pages";
    };
    users.groups.${user} = { };

    systemd.tmpfiles.settings."10-innkeeper-pages".${directory}.d = {
      user = "root";
      group = user;
      mode = "2750";
    };
    systemd.services.innkeeper.serviceConfig = lib.mkIf config.services.innkeeper.enable {
      ReadWritePaths = [ directory ];
    };

    systemd.sockets.innkeeper-pages = {
      description = "Requests for Innkeeper's state pages";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ socket ];
      # Caddy's user differs from installation to installation, and the pages are public.
      socketConfig.SocketMode = "0666";
    };

    systemd.services.innkeeper-pages = {
      description = "Innkeeper's state pages";
      wantedBy = [ "multi-user.target" ];
      requires = [ "innkeeper-pages.socket" ];
      after = [ "innkeeper-pages.socket" ];
      # The parts of the shared configuration file that it reads.
      restartTriggers = [
        (builtins.toJSON {
          pages = settings.pages or { };
          runtime_dir = settings.runtime_dir or null;
          subnet = settings.network.subnet or null;
          log = settings.log or { };
        })
      ];
      # The socket stays open, so a restart after the switch is enough.
      stopIfChanged = false;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' package "innkeeper-pages"} --config /etc/innkeeper/config.toml";
        User = user;
        Group = user;
        Restart = "always";
        RestartSec = 1;
        WatchdogSec = 30;
        TimeoutStopSec = 10;
        # Limits its use of the host, since anybody can send it requests.
        MemoryMax = "256M";
        TasksMax = 64;

        # Exposure by `systemd-analyze security`: 1.0 (systemd 252); tests/nix/run enforces the limit.
        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        DevicePolicy = "closed";
        IPAddressAllow = settings.network.subnet or "10.100.0.0/16";
        IPAddressDeny = "any";
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
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        UMask = "0077";
      };
    };
  };
}
