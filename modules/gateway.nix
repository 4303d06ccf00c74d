# The program through which other machines use the API: a unit without privileges.
#
# systemd opens the sockets and keeps them while the program restarts: two for Caddy, which only Caddy's group can open, and one
# for the metrics on the loopback interface. The program itself needs no network at all. It reads digests of tokens, and passes
# authenticated requests on to a Unix socket of the daemon that only the group `innkeeper-gateway` can open. On the second socket,
# Caddy requests a decision about each visitor of a preview that is not public.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  innkeeperLib = import ./lib.nix;
  cfg = config.services.innkeeper.gateway;
  inherit (config.services.innkeeper) package settings;

  # The group of `<runtime_dir>/gateway.sock` and of the digests, by the daemon's default.
  user = "innkeeper-gateway";
  socket = "/run/innkeeper-gateway/http.sock";
  accessSocket = "/run/innkeeper-gateway/access.sock";
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.gateway = {
    enable = lib.mkEnableOption "the program through which other machines use the API, with tokens";
    host = mkOption {
      type = types.str;
      default = "";
      example = "innkeeper.example.net";
      description = ''
        The host name of the API, which must lead to this host. Empty means `api.<domain>`, with
        {option}`services.innkeeper.caddy.domain`. A name outside of that domain gets a certificate from Caddy itself.
      '';
    };
    tokensFile = mkOption {
      type = types.nullOr secretPath;
      default = null;
      example = "/var/secrets/gateway-tokens.env";
      description = ''
        A file with tokens that another program manages: `INNKEEPER_API_TOKENS=<name>:<secret>,…`. The group
        `innkeeper-gateway` must be able to read it, and nobody else. `systemctl reload innkeeper-gateway` reads it again.
      '';
    };
    sandboxPreviewKeyFile = mkOption {
      type = types.nullOr secretPath;
      default = null;
      example = "/var/secrets/sandbox-preview.key";
      description = ''
        A file with the key of the cookies `sandbox_preview`, which another program signs for visitors of previews that are not
        public: 32 bytes or more. The group `innkeeper-gateway` must be able to read it, and nobody else.
      '';
    };
    relayProviders = mkOption {
      type = types.listOf (types.strMatching "https://[^[:space:]#]+");
      default = [ ];
      example = [ "https://github.com/login/oauth/authorize" ];
      description = ''
        The URLs of the pages at which OAuth providers let people log in to apps of previews that are not public. With
        {option}`services.innkeeper.caddy`, the callback is `https://auth.<domain>/relay`.
      '';
    };
    metricsListen = mkOption {
      type = types.strMatching "(127[.][0-9.]+|\\[::1]):[0-9]{1,5}";
      default = "127.0.0.1:3301";
      description = "The address of the metrics on the loopback interface, in the format of Prometheus.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.services.innkeeper.enable;
        message = "services.innkeeper.gateway.enable is true and services.innkeeper.enable is false: no daemon would receive the requests. Set services.innkeeper.enable = true;.";
      }
      {
        assertion = cfg.host == "" || innkeeperLib.isDomain cfg.host;
        message = "services.innkeeper.gateway.host is \"${cfg.host}\", which is not a valid host name: labels of a-z, 0-9 and '-' with dots between them. Write for example \"api.example.org\".";
      }
    ];

    services.innkeeper.settings.gateway = {
      enabled = true;
      inherit (cfg) host;
      metrics_listen = cfg.metricsListen;
    }
    // lib.optionalAttrs (cfg.tokensFile != null) { tokens_file = cfg.tokensFile; }
    // lib.optionalAttrs (cfg.relayProviders != [ ]) { relay_providers = cfg.relayProviders; }
    // lib.optionalAttrs (cfg.sandboxPreviewKeyFile != null) {
      sandbox_preview_key_file = cfg.sandboxPreviewKeyFile;
    };

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      description = "Innkeeper's gateway";
    };
    users.groups.${user} = { };

    systemd.sockets.innkeeper-gateway = {
      description = "Requests of other machines for Innkeeper";
      wantedBy = [ "sockets.target" ];
      listenStreams = [
        socket
        cfg.metricsListen
        accessSocket
      ];
      socketConfig = {
        SocketGroup = config.services.caddy.group;
        SocketMode = "0660";
      };
    };

    systemd.services.innkeeper-gateway = {
      description = "Innkeeper's gateway";
      wantedBy = [ "multi-user.target" ];
      requires = [ "innkeeper-gateway.socket" ];
      after = [
        "innkeeper-gateway.socket"
        "innkeeper.service"
      ];
      # The parts of the shared configuration file that it reads.
      restartTriggers = [
        (builtins.toJSON {
          inherit (settings) gateway;
          runtime_dir = settings.runtime_dir or null;
          proxies = settings.caddy.trusted_proxies or null;
          domain = settings.previews.domain or null;
          log = settings.log or { };
        })
      ];
      # The sockets stay open, so a restart after the switch is enough.
      stopIfChanged = false;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' package "innkeeper-gateway"} --config /etc/innkeeper/config.toml";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        User = user;
        Group = user;
        Restart = "always";
        RestartSec = 1;
        WatchdogSec = 30;
        # Requests in flight have five seconds.
        TimeoutStopSec = 10;
        # The key of previews' cookies, which it creates.
        StateDirectory = "innkeeper-gateway";
        StateDirectoryMode = "0700";
        # Limits its use of the host, since anybody can send it requests.
        MemoryMax = "256M";
        TasksMax = 64;
        # While all processors are busy, a flood of requests without a token takes little from the daemon.
        CPUWeight = 20;
        Nice = 5;

        # Exposure by `systemd-analyze security`: 0.2 (systemd 252 and 257); tests/nix/run enforces the limit.
        # It counts Unix sockets, the clock's device, and the missing root directory.
        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        DevicePolicy = "closed";
        IPAddressDeny = "any";
        KeyringMode = "private";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateIPC = true;
        PrivateMounts = true;
        PrivateNetwork = true;
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
        RestrictAddressFamilies = [ "AF_UNIX" ];
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
