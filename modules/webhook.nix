# The program that GitHub speaks to: a unit without any rights.
#
# systemd opens the port and keeps it while the program restarts, so no delivery is refused by a switch, and the program
# itself needs no network at all: requests come in on the socket that it is given, and go out to the daemon on a Unix
# socket, which the kernel lets the group `innkeeper-webhook` open and nobody else.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.webhook;
  inherit (config.services.innkeeper) package settings;

  # The group of `<runtime_dir>/intake.sock`, by the daemon's default.
  user = "innkeeper-webhook";
  credentials = "/run/credentials/innkeeper-webhook.service";

  secretFile =
    description:
    mkOption {
      type = types.nullOr types.str;
      default = null;
      inherit description;
    };
in
{
  imports = [
    ./manager/options.nix
    ./asserts/webhook.nix
  ];

  options.services.innkeeper.webhook = {
    enable = lib.mkEnableOption "the program that takes GitHub's deliveries and hands them to the daemon";
    listen = mkOption {
      type = types.strMatching "(127[.][0-9.]+|\\[::1]):[0-9]{1,5}";
      default = "127.0.0.1:3100";
      description = "The address on the loopback interface at which {option}`services.innkeeper.caddy` delivers.";
    };
    secretFile =
      secretFile "The file with the webhook's secret and nothing else, as it was typed in on GitHub: `openssl rand -hex 32` makes a good one. Only root needs to be able to read it."
      // {
        example = "/var/secrets/webhook-secret";
      };
    previousSecretFile = secretFile "The file with the secret that {option}`services.innkeeper.webhook.secretFile` replaces, as long as GitHub may still sign with it.";
    environmentFile =
      secretFile ''
        Instead of {option}`services.innkeeper.webhook.secretFile`: a file of variables with `GITHUB_WEBHOOK_SECRET` and
        perhaps `ALLOWED_REPOS`, as earlier installations have it. The program gets all of the file, so one without
        other secrets is better.
      ''
      // {
        example = "/var/secrets/preview.env";
      };
    allowedRepos = mkOption {
      type = types.nullOr (types.listOf (types.strMatching "[A-Za-z0-9-]+/[A-Za-z0-9._-]+"));
      default = null;
      example = [ "octo/web" ];
      description = ''
        The repositories whose deliveries are taken. `[ ]` means all; null means `ALLOWED_REPOS` of
        {option}`services.innkeeper.webhook.environmentFile`, and all without one. A delivery must be signed in any case.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    services.innkeeper.settings.webhook = {
      inherit (cfg) listen;
      # For the daemon, which takes the same repositories and reads the file as root.
      environment_files = lib.optional (cfg.environmentFile != null) cfg.environmentFile;
    }
    // lib.optionalAttrs (cfg.allowedRepos != null || cfg.environmentFile == null) {
      allowed_repos = lib.defaultTo [ ] cfg.allowedRepos;
    };

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      description = "Innkeeper's webhook";
    };
    users.groups.${user} = { };

    systemd.sockets.innkeeper-webhook = {
      description = "GitHub's deliveries for Innkeeper";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ cfg.listen ];
    };

    systemd.services.innkeeper-webhook = {
      description = "Innkeeper's webhook";
      wantedBy = [ "multi-user.target" ];
      requires = [ "innkeeper-webhook.socket" ];
      after = [
        "innkeeper-webhook.socket"
        "innkeeper.service"
      ];
      # The daemon's files are root's; what this program may know comes as credentials.
      environment.INNKEEPER_WEBHOOK_ENVIRONMENT_FILES = builtins.toJSON (
        lib.optional (cfg.environmentFile != null) "${credentials}/environment"
      );
      # What it reads of the file that it shares with the daemon.
      restartTriggers = [
        (builtins.toJSON {
          inherit (settings) runtime_dir webhook;
          log = settings.log or { };
        })
      ];
      # The socket stays open, so there is no need to stop it before the switch.
      stopIfChanged = false;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' package "innkeeper-webhook"} --config /etc/innkeeper/config.toml";
        User = user;
        Group = user;
        Restart = "always";
        RestartSec = 1;
        WatchdogSec = 30;
        # Requests under way have ten seconds: as long as GitHub waits.
        TimeoutStopSec = 15;
        # A new secret is read by `systemctl restart innkeeper-webhook`: only then does systemd hand it over.
        LoadCredential =
          lib.optional (cfg.secretFile != null) "webhook-secret:${cfg.secretFile}"
          ++ lib.optional (cfg.previousSecretFile != null) "webhook-secret-previous:${cfg.previousSecretFile}"
          ++ lib.optional (cfg.environmentFile != null) "environment:${cfg.environmentFile}";
        # Strangers can send it bytes: what it takes of the machine has an end.
        MemoryMax = "256M";
        TasksMax = 64;

        # `systemd-analyze security` says 0.2 (systemd 252 and 257); tests/nix/run holds the figure that it must not exceed.
        # What it counts still: Unix sockets, the clock's device, and that there is no root directory of its own.
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
