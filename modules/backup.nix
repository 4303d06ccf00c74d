# Backups of guests. `innkeeper backup` makes a set of plain files; NixOS' own modules for restic and borg store it.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.backup;
  inherit (config.services.innkeeper) enable package;

  # The directory of the daemon's unit.
  default = "/var/lib/innkeeper-backup";
  command = lib.concatStringsSep " " (
    [ "${lib.getExe' package "innkeeper"} backup --quiet" ]
    ++ lib.optional (cfg.directory != default) "--to ${cfg.directory}"
    ++ lib.optional cfg.withClosures "--with-closures"
  );
  paths = [ "${cfg.directory}/set" ] ++ cfg.extraPaths;

  job =
    description:
    mkOption {
      type = types.nullOr (types.attrsOf types.anything);
      default = null;
      inherit description;
    };
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.backup = {
    enable = lib.mkEnableOption "regular backup sets of all guests";
    directory = mkOption {
      type = types.path;
      default = "/var/lib/innkeeper-backup";
      description = "The directory of the set. It needs as much space as the guests' files, and as much again while a set is made.";
    };
    schedule = mkOption {
      type = types.str;
      default = "daily";
      example = "*-*-* 03:00";
      description = "The times, in the form of {manpage}`systemd.time(7)`.";
    };
    withClosures = lib.mkEnableOption "copies of the guests' closures in the set, for a host that cannot build or fetch them again";
    extraPaths = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "/var/secrets" ];
      description = "Further paths that restic or borg stores, such as the secrets that the host's configuration refers to.";
    };
    restic =
      (job "Options of `services.restic.backups.innkeeper`. Paths, schedule and the command that makes the set are added.")
      // {
        example = {
          repository = "sftp:backup@example.org:/innkeeper";
          passwordFile = "/var/secrets/restic";
          initialize = true;
        };
      };
    borg =
      (job "Options of `services.borgbackup.jobs.innkeeper`. Paths, schedule and the command that makes the set are added.")
      // {
        example = {
          repo = "backup@example.org:innkeeper";
          encryption.mode = "none";
        };
      };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = enable;
        message = "services.innkeeper.backup.enable is true and services.innkeeper.enable is false: no daemon has guests to back up. Set services.innkeeper.enable = true;.";
      }
    ];

    systemd.services.innkeeper.serviceConfig = lib.mkIf (cfg.directory != default) {
      ReadWritePaths = [ cfg.directory ];
    };
    systemd.tmpfiles.settings = lib.mkIf (cfg.directory != default) {
      "10-innkeeper-backup".${cfg.directory}.d = {
        user = "root";
        group = "root";
        mode = "0700";
      };
    };

    services.restic.backups = lib.mkIf (cfg.restic != null) {
      innkeeper = {
        inherit paths;
        # A guest that cannot be copied must not keep the others from being stored.
        backupPrepareCommand = "${command} --allow-incomplete";
        timerConfig = {
          OnCalendar = cfg.schedule;
          Persistent = true;
        };
        # The files of a set are new ones; what they contain is not.
        extraBackupArgs = [ "--ignore-inode" ];
      }
      // cfg.restic;
    };
    services.borgbackup.jobs = lib.mkIf (cfg.borg != null) {
      innkeeper = {
        inherit paths;
        preHook = "${command} --allow-incomplete";
        startAt = cfg.schedule;
        persistentTimer = true;
      }
      // cfg.borg;
    };

    # Without either, another program stores the set.
    systemd.services.innkeeper-backup = lib.mkIf (cfg.restic == null && cfg.borg == null) {
      description = "Backup set of Innkeeper's guests";
      documentation = [ "man:innkeeper-backup(1)" ];
      requires = [ "innkeeper.service" ];
      after = [ "innkeeper.service" ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = command;
      };
    };
    systemd.timers.innkeeper-backup = lib.mkIf (cfg.restic == null && cfg.borg == null) {
      description = "Backup sets of Innkeeper's guests";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.schedule;
        Persistent = true;
      };
    };
  };
}
