# What nixos-anywhere installs when there is no configuration of one's own yet: the first system on one disk.
{
  imports = [
    ../../initial-install/configuration.nix
    (import ../../initial-install/one-disk.nix { device = "/dev/sda"; })
  ];
  nixpkgs.hostPlatform = "x86_64-linux";
}
