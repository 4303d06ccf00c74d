# The default system that nixos-anywhere installs, on one disk, before the host has a configuration of its own.
{
  imports = [
    ../../initial-install/configuration.nix
    (import ../../initial-install/one-disk.nix { device = "/dev/sda"; })
  ];
  nixpkgs.hostPlatform = "x86_64-linux";
}
