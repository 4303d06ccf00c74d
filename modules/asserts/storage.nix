{ config, lib, ... }:
let
  cfg = config.services.innkeeper.storage;
  isName = text: builtins.match "[a-zA-Z0-9_.+][a-zA-Z0-9_.+-]*" text != null;
  named = option: {
    assertion = isName cfg.${option};
    message = "services.innkeeper.storage.${option} is \"${cfg.${option}}\", which is no name for LVM: letters, digits and '_.+-' are allowed, and '-' not in front. Write for example \"innkeeper\".";
  };
in
{
  config = lib.mkIf (cfg.backend == "lvm-thin" || cfg.guestVolumes.enable) {
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
  };
}
