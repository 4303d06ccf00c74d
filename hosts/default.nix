# Each folder here is a host: an output of the flake with the folder's name.
{
  self,
  nixpkgs,
  disko,
}:
let
  inherit (nixpkgs) lib;
  folders = lib.filterAttrs (_: type: type == "directory") (builtins.readDir ./.);
in
lib.mapAttrs (
  name: _:
  lib.nixosSystem {
    modules = [
      disko.nixosModules.disko
      self.nixosModules.default
      (./. + "/${name}")
    ];
  }
) folders
