{ config, lib, ... }:
let
  cfg = config.services.innkeeper;
  ours = import ../lib.nix;
  badNames = builtins.filter (name: builtins.match "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}" name == null) (
    builtins.attrNames cfg.secrets.agentCredentials
  );
  paths =
    lib.mapAttrsToList (name: path: {
      option = "secrets.agentCredentials.${name}";
      inherit path;
    }) cfg.secrets.agentCredentials
    ++ lib.optional (cfg.settings.credentials.directory != "") {
      option = "settings.credentials.directory";
      path = cfg.settings.credentials.directory;
    };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = badNames == [ ];
        message = "services.innkeeper.secrets.agentCredentials has ${
          lib.concatMapStringsSep ", " (name: "\"${name}\"") badNames
        }, which cannot be a file's name in a guest. Use letters, digits and '._-', 64 at most, for example \"oauth_token\".";
      }
    ]
    ++ map (secret: {
      assertion = lib.hasPrefix "/" secret.path && !ours.inStore secret.path;
      message = "services.innkeeper.${secret.option} is ${secret.path}. It must be an absolute path outside of the Nix store, which everybody can read, guests included. Give it as a string, for example \"/var/secrets/claude/oauth_token\" or config.sops.secrets.<name>.path.";
    }) paths;
  };
}
