# The system of a preview, composed as the daemon does (crates/innkeeper-host/src/evaluate/compose.nix). Machines without a
# network have it in their store beforehand, so the daemon's own evaluation finds everything built.
{
  nixpkgs,
  system,
  # A repository's preview-config.nix.
  configuration,
}:
let
  flake = (import (nixpkgs + "/flake.nix")).outputs {
    self = flake // {
      inherit (nixpkgs) outPath;
    };
  };
in
(flake.lib.nixosSystem {
  modules = [
    ../../../guest-configs/base.nix
    { nixpkgs.hostPlatform = flake.lib.mkDefault system; }
    configuration
  ];
}).config.system.build.toplevel
