# Secrets by path, never by value: sops-nix, agenix and files that were copied by hand all fit.
{ config, lib, ... }:
let
  cfg = config.services.innkeeper.secrets;
  used = config.services.innkeeper.enable && cfg.agentCredentials != { };
in
{
  imports = [
    ./manager/options.nix
    ./asserts/secrets.nix
  ];

  options.services.innkeeper.secrets = {
    agentCredentials = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = lib.literalExpression "{ oauth_token = config.sops.secrets.claude.path; }";
      description = ''
        What each new agent gets in {file}`/mnt/claude-creds`: the file's name there, and its path on the host. systemd
        hands the files to the daemon (`LoadCredential`), so root alone needs to be able to read them. A new value
        reaches new agents after `systemctl restart innkeeper`, which guests do not notice.
      '';
    };
  };

  config = lib.mkIf used {
    # These and no others: the daemon hands out every file of that folder.
    systemd.services.innkeeper.serviceConfig.LoadCredential = lib.mapAttrsToList (
      name: path: "${name}:${path}"
    ) cfg.agentCredentials;
    services.innkeeper.settings.credentials.directory = "/run/credentials/innkeeper.service";
  };
}
