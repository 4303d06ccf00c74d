# Where guests' file trees are: a folder of the root file system, or a thin volume for all of them, or one for each.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.storage;
  inherit (config.services.innkeeper.settings) state_dir;
  pool = "${cfg.volumeGroup}/${cfg.thinPool}";
  hasVolume = cfg.backend == "lvm-thin";
  hasPool = hasVolume || cfg.guestVolumes.enable;

  isName = text: builtins.match "[a-zA-Z0-9_.+][a-zA-Z0-9_.+-]*" text != null;
  named = option: {
    assertion = isName cfg.${option};
    message = "services.innkeeper.storage.${option} is \"${cfg.${option}}\", which is not a valid name for LVM: letters, digits and '_.+-' are allowed, and '-' not in front. Write for example \"innkeeper\".";
  };
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.storage = {
    backend = mkOption {
      type = types.enum [
        "directory"
        "lvm-thin"
      ];
      default = "directory";
      description = ''
        `directory`: the state directory lies on the root file system. `lvm-thin`: it is a thin volume with a file
        system of its own, so that full guests do not fill the host. `initial-install` makes such a volume.
      '';
    };
    volumeGroup = mkOption {
      type = types.str;
      default = "pool";
      description = "The LVM volume group.";
    };
    thinPool = mkOption {
      type = types.str;
      default = "thin";
      description = "The thin pool in the volume group.";
    };
    volume = mkOption {
      type = types.str;
      default = "innkeeper";
      description = "The thin volume for the state directory.";
    };
    fsType = mkOption {
      type = types.enum [
        "ext4"
        "xfs"
        "btrfs"
      ];
      default = "ext4";
      description = "The file system on the volume.";
    };
    guestVolumes = {
      enable = lib.mkEnableOption ''
        a thin volume for each guest, in the same pool: its size is the most that a guest can take, and snapshots take no
        time. It goes well with either backend, which then only has the database and the volumes' mount points. Guests
        that are there keep what they have'';
      size = mkOption {
        type = types.strMatching "[1-9][0-9]*[MGT]";
        default = "20G";
        description = "The size of the volumes of guests that are made from now on.";
      };
      limit = mkOption {
        type = types.ints.between 50 100;
        default = 85;
        description = "No guest is added while the pool's data or its metadata are this full, in percent.";
      };
    };
    autoextend = {
      threshold = mkOption {
        type = types.ints.between 50 100;
        default = 80;
        description = "The pool grows when it is this full, in percent. 100 switches growing off.";
      };
      percent = mkOption {
        type = types.ints.between 1 100;
        default = 20;
        description = "How much the pool grows by, in percent of its size, as long as the volume group has room.";
      };
    };
    alarmAt = mkOption {
      type = types.ints.between 50 100;
      default = 90;
      description = ''
        `innkeeper-thin-pool.service`, which runs every five minutes, fails when the pool's data or its metadata are
        this full, in percent. A pool that is full breaks the file systems in it.
      '';
    };
  };

  config = lib.mkIf hasPool {
    assertions = [
      (named "volumeGroup")
      (named "thinPool")
      (named "volume")
      {
        assertion =
          !cfg.guestVolumes.enable
          || cfg.autoextend.threshold == 100
          || cfg.autoextend.threshold < cfg.guestVolumes.limit;
        message = "services.innkeeper.storage.autoextend.threshold is ${toString cfg.autoextend.threshold} and guestVolumes.limit is ${toString cfg.guestVolumes.limit}: guests would be refused before the pool has grown. Set the limit above the threshold.";
      }
      {
        assertion = cfg.volume != cfg.thinPool;
        message = "services.innkeeper.storage.volume and thinPool are both \"${cfg.volume}\": a volume and its pool need different names. Write for example volume = \"innkeeper\".";
      }
      {
        assertion = cfg.autoextend.threshold == 100 || cfg.autoextend.threshold < cfg.alarmAt;
        message = "services.innkeeper.storage.autoextend.threshold is ${toString cfg.autoextend.threshold} and alarmAt is ${toString cfg.alarmAt}: the alarm would come before the pool has grown. Set alarmAt above the threshold.";
      }
    ];

    services.lvm = {
      enable = true;
      boot.thin.enable = true;
      # Watches the pool and lets it grow.
      dmeventd.enable = true;
    };
    environment.etc."lvm/lvm.conf".text = ''
      # A loss of power can leave blocks that belong to no volume, and no volume would be activated: docs/storage.md.
      global/thin_check_options = [ "-q", "--auto-repair", "--clear-needs-check-flag" ]
      activation/monitoring = 1
      activation/thin_pool_autoextend_threshold = ${toString cfg.autoextend.threshold}
      activation/thin_pool_autoextend_percent = ${toString cfg.autoextend.percent}
    '';

    fileSystems = lib.mkIf hasVolume {
      ${state_dir} = {
        device = lib.mkDefault "/dev/${cfg.volumeGroup}/${cfg.volume}";
        fsType = lib.mkDefault cfg.fsType;
        # Space that a destroyed guest had goes back to the pool.
        options = [
          "noatime"
          "discard"
        ];
      };
    };

    services.innkeeper.settings.storage = lib.mkIf cfg.guestVolumes.enable {
      driver = "lvm-thin";
      volume_group = cfg.volumeGroup;
      pool = cfg.thinPool;
      inherit (cfg.guestVolumes) size;
      pool_limit_percent = cfg.guestVolumes.limit;
    };
    # As initial-install/debian/lvm-thin.conf on Debian.
    boot.kernelModules = lib.mkIf cfg.guestVolumes.enable [
      "dm_thin_pool"
      "dm_snapshot"
    ];
    systemd.services.innkeeper =
      lib.mkIf (cfg.guestVolumes.enable && config.services.innkeeper.enable)
        {
          path = [
            pkgs.lvm2
            pkgs.thin-provisioning-tools
            pkgs.e2fsprogs
          ];
          serviceConfig.DevicePolicy = lib.mkForce "auto";
        };

    systemd.services.innkeeper-thin-pool = {
      description = "The thin pool ${pool} has room";
      path = [
        pkgs.lvm2
        pkgs.jq
      ];
      serviceConfig = {
        Type = "oneshot";
        ProtectHome = true;
        ProtectSystem = "full";
        PrivateNetwork = true;
        NoNewPrivileges = true;
      };
      script = ''
        lvs --reportformat json --options data_percent,metadata_percent ${lib.escapeShellArg pool} |
          jq --exit-status --argjson limit ${toString cfg.alarmAt} '
            .report[0].lv[0]
            | { data: (.data_percent | tonumber), metadata: (.metadata_percent | tonumber) }
            | if .data >= $limit or .metadata >= $limit
              then "${pool} is nearly full: data \(.data) %, metadata \(.metadata) %. Destroy guests, or add a disk: vgextend, then lvextend.\n" | halt_error(1)
              else . end'
      '';
    };
    systemd.timers.innkeeper-thin-pool = {
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnBootSec = "1min";
        OnUnitInactiveSec = "5min";
      };
    };
  };
}
