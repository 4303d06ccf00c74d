# Limits of the agents of single actors, and of the previews of single repositories.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.quotas;
  limits = types.attrsOf (types.attrsOf types.ints.unsigned);
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.quotas = {
    roles = mkOption {
      type = limits;
      default = { };
      example = {
        developer = {
          agents = 5;
          memory_gib = 32;
        };
      };
      description = ''
        Limits of the agents of each actor with the role `developer`, `operator` or `admin`: `agents`, `memory_gib`, `cpus`,
        `disk_gib` and `previews`; 0 means none.
      '';
    };
    actors = mkOption {
      type = limits;
      default = { };
      example = {
        ci = {
          agents = 20;
        };
      };
      description = ''
        Limits of single actors in place of those of their role, by the name of a token, the login of a person, or an actor such as
        `token:7` or `github:583231`.
      '';
    };
    repositories = mkOption {
      type = limits;
      default = { };
      example = {
        "octo/web" = {
          previews = 10;
        };
      };
      description = "Limits of single repositories: `previews`; 0 means none.";
    };
  };

  config = lib.mkIf (cfg.roles != { } || cfg.actors != { } || cfg.repositories != { }) {
    services.innkeeper.settings.quotas = cfg.roles // {
      inherit (cfg) actors repositories;
    };
  };
}
