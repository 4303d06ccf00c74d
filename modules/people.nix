# People who log in to the gateway with their GitHub account.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  cfg = config.services.innkeeper.people;
  role = types.enum [
    "viewer"
    "developer"
    "operator"
    "admin"
  ];
  isNobody = cfg.organizations == [ ] && cfg.teams == { } && cfg.users == { };
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.people = {
    oauthFile = mkOption {
      type = types.nullOr secretPath;
      default = null;
      example = "/var/secrets/dashboard.env";
      description = ''
        An environment file with `GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET` of an OAuth app of GitHub, for root only. Without it,
        nobody can log in.
      '';
    };
    organizations = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "octo" ];
      description = "Organizations on GitHub whose members may log in, with the role {option}`memberRole`.";
    };
    memberRole = mkOption {
      type = role;
      default = "viewer";
      description = "The role of members of {option}`organizations`.";
    };
    teams = mkOption {
      type = types.attrsOf role;
      default = { };
      example = {
        "octo/platform" = "operator";
      };
      description = "Teams on GitHub whose members may log in, with their roles.";
    };
    users = mkOption {
      type = types.attrsOf role;
      default = { };
      example = {
        "github:583231" = "admin";
      };
      description = ''
        People who may log in, with their roles, by login or as `github:<number of the account>`. A login may pass to another account;
        the number never does.
      '';
    };
  };

  config = lib.mkIf (cfg.oauthFile != null) {
    assertions = [
      {
        assertion = config.services.innkeeper.gateway.enable;
        message = "services.innkeeper.people.oauthFile is set and services.innkeeper.gateway.enable is false: nobody could reach the login. Set services.innkeeper.gateway.enable = true;.";
      }
      {
        assertion = !isNobody;
        message = "services.innkeeper.people.oauthFile is set, and no organization, team or user may log in. Set services.innkeeper.people.organizations, teams or users.";
      }
    ];
    services.innkeeper.settings.people = {
      oauth_file = cfg.oauthFile;
      inherit (cfg) organizations teams users;
      member_role = cfg.memberRole;
    };
  };
}
