# A guest: our base and the given modules.
#
#   mkGuest { system = "x86_64-linux"; modules = [ innkeeper.nixosModules.guest-agent ./ours.nix ]; }
{ nixpkgs }:
{
  system,
  modules,
  specialArgs ? { },
}:
nixpkgs.lib.nixosSystem {
  inherit specialArgs;
  modules = [
    ./base.nix
    { nixpkgs.hostPlatform = nixpkgs.lib.mkDefault system; }
  ]
  ++ modules;
}
