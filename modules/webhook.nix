# The program that receives GitHub's requests: a unit without privileges.
#
# systemd opens the port and keeps it while the program restarts, so no delivery is refused by a switch, and the program
# itself needs no network at all: it accepts requests on the socket that systemd passes, and forwards them to the daemon on a Unix
# socket, which only the group `innkeeper-webhook` can open.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  cfg = config.services.innkeeper.webhook;
  inherit (config.services.innkeeper) package settings;

  # The group of `<runtime_dir>/intake.sock`, by the daemon's default.
  user = "innkeeper-webhook";
  credentials = "/run/credentials/innkeeper-webhook.service";

  secretFile =
    description:
    mkOption {
      type = types.nullOr secretPath;
      default = null;
      inherit description;
    };

  sources = lib.count (file: file != null) [
    cfg.secretFile
    cfg.environmentFile
  ];
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.webhook = {
    enable = lib.mkEnableOption "the program that receives GitHub's deliveries and forwards them to the daemon";
    listen = mkOption {
      type = types.strMatching "(127[.][0-9.]+|\\[::1]):[0-9]{1,5}";
      default = "127.0.0.1:3100";
      description = "The address on the loopback interface at which {option}`services.innkeeper.caddy` delivers.";
    };
    secretFile =
      secretFile "The file with the webhook's secret and nothing else, as entered on GitHub: `openssl rand -hex 32` generates a good one. Only root needs read access."
      // {
        example = "/var/secrets/webhook-secret";
      };
    previousSecretFile = secretFile "The file with the secret that {option}`services.innkeeper.webhook.secretFile` replaces, as long as GitHub may still sign with it.";
    environmentFile =
      secretFile ''
        Instead of {option}`services.innkeeper.webhook.secretFile`: a file of variables with `GITHUB_WEBHOOK_SECRET` and
        perhaps `ALLOWED_REPOS`, as earlier installations have it. The program receives the whole file, so prefer one without
        other secrets.
      ''
      // {
        example = "/var/secrets/preview.env";
      };
    allowedRepos = mkOption {
      type = types.nullOr (types.listOf (types.strMatching "[A-Za-z0-9-]+/[A-Za-z0-9._-]+"));
      default = null;
      example = [ "octo/web" ];
      description = ''
        The repositories whose deliveries are accepted. `[ ]` means all; null means `ALLOWED_REPOS` of
        {option}`services.innkeeper.webhook.environmentFile`, and all without one. A delivery must be signed in any case.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = sources == 1;
        message = "services.innkeeper.webhook needs exactly one of secretFile and environmentFile, and has ${toString sources}: without a secret, anybody could sign. Write for example secretFile = \"/var/secrets/webhook-secret\";.";
      }
      {
        assertion = cfg.previousSecretFile == null || cfg.secretFile != null;
        message = "services.innkeeper.webhook.previousSecretFile is set and secretFile is not. During a rotation both are needed; in an environmentFile, the old secret is GITHUB_WEBHOOK_SECRET_PREVIOUS.";
      }
      {
        assertion = config.services.innkeeper.enable;
        message = "services.innkeeper.webhook.enable is true and services.innkeeper.enable is false: no daemon would receive the deliveries. Set services.innkeeper.enable = true;.";
      }
    ];

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
      # The daemon's files belong to root; this program receives its secrets as credentials.
      environment.INNKEEPER_WEBHOOK_ENVIRONMENT_FILES = builtins.toJSON (
        lib.optional (cfg.environmentFile != null) "${credentials}/environment"
      );
      # The parts of the shared configuration file that it reads.
      restartTriggers = [
        (builtins.toJSON {
          inherit (settings) runtime_dir webhook;
          log = settings.log or { };
        })
      ];
      # The socket stays open, so a restart after the switch is enough.
      stopIfChanged = false;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' package "innkeeper-webhook"} --config /etc/innkeeper/config.toml";
        User = user;
        Group = user;
        Restart = "always";
        RestartSec = 1;
        WatchdogSec = 30;
        # Requests in flight have ten seconds: as long as GitHub waits.
        TimeoutStopSec = 15;
        # `systemctl restart innkeeper-webhook` makes systemd pass a new secret.
        LoadCredential =
          lib.optional (cfg.secretFile != null) "webhook-secret:${cfg.secretFile}"
          ++ lib.optional (cfg.previousSecretFile != null) "webhook-secret-previous:${cfg.previousSecretFile}"
          ++ lib.optional (cfg.environmentFile != null) "environment:${cfg.environmentFile}";
        # Limits its use of the host, since anybody can send it requests.
        MemoryMax = "256M";
        TasksMax = 64;

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
