# Secrets by path, never by value: sops-nix, agenix and files that were copied by hand all fit.
{ config, lib, ... }:
let
  inherit (import ./types.nix { inherit lib; }) secretPath;
  cfg = config.services.innkeeper.secrets;
  used = config.services.innkeeper.enable && cfg.agentCredentials != { };

  badNames = builtins.filter (name: builtins.match "[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}" name == null) (
    builtins.attrNames cfg.agentCredentials
  );
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.secrets = {
    agentCredentials = lib.mkOption {
      type = lib.types.attrsOf secretPath;
      default = { };
      example = lib.literalExpression "{ oauth_token = config.sops.secrets.claude.path; }";
      description = ''
        Files that each new agent receives in {file}`/mnt/claude-creds`: the name there, and the path on the host. systemd
        passes them to the daemon (`LoadCredential`), so only root needs read access. A new value
        reaches new agents after `systemctl restart innkeeper`, which guests do not notice.
      '';
    };
  };

  config = lib.mkIf used {
    assertions = [
      {
        assertion = badNames == [ ];
        message = "services.innkeeper.secrets.agentCredentials has ${
          lib.concatMapStringsSep ", " (name: "\"${name}\"") badNames
        }, which is not a valid file name in a guest. Use letters, digits and '._-', 64 at most, for example \"oauth_token\".";
      }
    ];

    # Only these: the daemon distributes every file of that folder.
    systemd.services.innkeeper.serviceConfig.LoadCredential = lib.mapAttrsToList (
      name: path: "${name}:${path}"
    ) cfg.agentCredentials;
    services.innkeeper.settings.credentials.directory = "/run/credentials/innkeeper.service";
  };
}
