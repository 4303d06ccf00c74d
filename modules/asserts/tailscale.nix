{ config, lib, ... }:
let
  cfg = config.services.innkeeper.tailscale;
  ours = import ../lib.nix;
  badTags = builtins.filter (tag: builtins.match "tag:[a-z][a-z0-9-]*" tag == null) cfg.tags;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.authKeyFile == null || !ours.inStore cfg.authKeyFile;
        message = "services.innkeeper.tailscale.authKeyFile is ${toString cfg.authKeyFile}, in the Nix store, where everybody can read it, guests included. Give a path outside of the store as a string, for example \"/var/secrets/tailscale\".";
      }
      {
        assertion = badTags == [ ];
        message = "services.innkeeper.tailscale.tags has ${lib.concatStringsSep ", " badTags}. A tag is \"tag:\" and a name of a-z, 0-9 and '-', for example \"tag:innkeeper\".";
      }
    ];
  };
}
