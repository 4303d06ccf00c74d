{ config, lib, ... }:
let
  inherit (config.services) innkeeper;
  cfg = innkeeper.previews;
  ours = import ../lib.nix;
  asked = cfg.domain != null;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = innkeeper.enable;
        message = "services.innkeeper.previews.enable is true and services.innkeeper.enable is false: nobody would make previews. Set services.innkeeper.enable = true;.";
      }
      {
        assertion = asked;
        message = "services.innkeeper.previews has no domain: previews would have no names. Write for example domain = \"preview.example.org\"; and let *.preview.example.org lead to this host.";
      }
      {
        assertion = !asked || innkeeper.caddy.enable;
        message = "services.innkeeper.previews is on and services.innkeeper.caddy.enable is false: nobody would answer browsers. Remove the line; for a Caddy that is set up otherwise, use services.innkeeper.settings.previews and settings.caddy instead of services.innkeeper.previews.";
      }
      {
        assertion = !asked || !innkeeper.caddy.enable || innkeeper.caddy.domain == cfg.domain;
        message = "services.innkeeper.previews.domain is \"${toString cfg.domain}\" and services.innkeeper.caddy.domain is \"${innkeeper.caddy.domain}\": the certificate would be for other names than previews'. Remove the latter.";
      }
      {
        assertion = innkeeper.webhook.enable;
        message = "services.innkeeper.previews is on and services.innkeeper.webhook.enable is false: nobody would hear of pull requests. Remove the line, and set services.innkeeper.webhook.secretFile.";
      }
      {
        assertion = !cfg.databases || innkeeper.postgresql.enable;
        message = "services.innkeeper.previews.databases is true and services.innkeeper.postgresql.enable is false: previews with database = \"host\" would fail. Set services.innkeeper.previews.databases = false;, or remove the other line.";
      }
      {
        assertion = cfg.nixpkgs.path != null;
        message = "services.innkeeper.previews.nixpkgs.path is not set: previews could not be evaluated. It comes with innkeeper.nixosModules of the flake; without it, write for example nixpkgs.path = \"\${nixpkgs}\";.";
      }
      {
        assertion =
          lib.hasPrefix "/" cfg.environmentFile
          && !ours.inStore cfg.environmentFile
          && lib.hasPrefix "/" cfg.secretsDirectory
          && !ours.inStore cfg.secretsDirectory;
        message = "services.innkeeper.previews has environmentFile = ${cfg.environmentFile} and secretsDirectory = ${cfg.secretsDirectory}. Both must be absolute paths outside of the Nix store, which everybody can read, guests included. Give them as strings, for example \"/var/secrets/preview.env\" or config.sops.secrets.<name>.path.";
      }
    ];
  };
}
