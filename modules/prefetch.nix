# Builds the closures of agents and of previews' base branches before somebody requests them.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.prefetch;
  inherit (config.services.innkeeper) enable package;
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.prefetch = {
    enable = lib.mkEnableOption "regular builds of the closures that the next agents and pull requests will need";
    schedule = mkOption {
      type = types.str;
      default = "hourly";
      example = "*:0/15";
      description = "The times, in the form of {manpage}`systemd.time(7)`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = enable;
        message = "services.innkeeper.prefetch.enable is true and services.innkeeper.enable is false: no daemon builds closures. Set services.innkeeper.enable = true;.";
      }
    ];

    systemd.services.innkeeper-prefetch = {
      description = "Closures of Innkeeper's guests in advance";
      documentation = [ "man:innkeeper-prefetch(1)" ];
      requires = [ "innkeeper.service" ];
      after = [ "innkeeper.service" ];
      # It may take hours, and a switch would wait for it.
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${lib.getExe' package "innkeeper"} prefetch --quiet";
        # The host lacks resources to spare: the next time.
        SuccessExitStatus = 5;
      };
    };
    systemd.timers.innkeeper-prefetch = {
      description = "Closures of Innkeeper's guests in advance";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.schedule;
        RandomizedDelaySec = 300;
      };
    };
  };
}
