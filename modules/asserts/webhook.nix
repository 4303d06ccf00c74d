{ config, lib, ... }:
let
  cfg = config.services.innkeeper.webhook;
  ours = import ../lib.nix;
  given = lib.count (file: file != null) [
    cfg.secretFile
    cfg.environmentFile
  ];
  files = lib.filterAttrs (_: path: path != null) {
    inherit (cfg) secretFile previousSecretFile environmentFile;
  };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = given == 1;
        message = "services.innkeeper.webhook needs exactly one of secretFile and environmentFile, and has ${toString given}: without a secret, anybody could sign. Write for example secretFile = \"/var/secrets/webhook-secret\";.";
      }
      {
        assertion = cfg.previousSecretFile == null || cfg.secretFile != null;
        message = "services.innkeeper.webhook.previousSecretFile is set and secretFile is not. During a rotation both are needed; in an environmentFile, the old secret is GITHUB_WEBHOOK_SECRET_PREVIOUS.";
      }
      {
        assertion = config.services.innkeeper.enable;
        message = "services.innkeeper.webhook.enable is true and services.innkeeper.enable is false: nobody would take the deliveries. Set services.innkeeper.enable = true;.";
      }
    ]
    ++ lib.mapAttrsToList (option: path: {
      assertion = lib.hasPrefix "/" path && !ours.inStore path;
      message = "services.innkeeper.webhook.${option} is ${path}. It must be an absolute path outside of the Nix store, which everybody can read, guests included. Give it as a string, for example \"/var/secrets/webhook-secret\" or config.sops.secrets.<name>.path.";
    }) files;
  };
}
