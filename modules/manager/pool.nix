# Guests that wait without a name, so that a create takes one.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper;

  warm = types.submodule {
    options = {
      flake = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "github:octo/fleet#agent";
        description = ''
          The flake of the agents that take these guests, as with `agent create --flake`. Its last build counts;
          {option}`services.innkeeper.prefetch.enable` builds it regularly. Without it and {option}`closure`, the daemon's default flake.
        '';
      };
      closure = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = lib.literalExpression "self.nixosConfigurations.agent.config.system.build.toplevel";
        description = ''
          The system that these guests have booted, built together with the host: `agent create --closure` takes them. Excludes
          {option}`flake`.
        '';
      };
      size = mkOption {
        type = types.ints.between 1 100;
        description = "The number of guests that wait. Each takes memory, disk and a slot.";
      };
    };
  };
in
{
  options.services.innkeeper.pool = {
    size = mkOption {
      type = types.ints.between 0 100;
      default = 0;
      description = "The number of guests that wait at their doors, before their systems boot. Any new guest takes one.";
    };

    warm = mkOption {
      type = types.listOf warm;
      default = [ ];
      example = lib.literalExpression ''[ { flake = "github:octo/fleet#agent"; size = 2; } ]'';
      description = ''
        Guests that wait booted and paused. `agent create` of the same closure, with the default limits, continues one. They
        give way to other guests when memory, disk or slots run short.
      '';
    };
  };

  config.services.innkeeper.settings.pool = lib.mkIf (cfg.pool.size > 0 || cfg.pool.warm != [ ]) {
    inherit (cfg.pool) size;
    warm = map (lib.filterAttrs (_: value: value != null)) cfg.pool.warm;
  };
}
