# Disk layouts by name, for disko. Each is a function of the disks' devices and gives a NixOS module.
{
  two-disks = ./two-disks.nix;
  one-disk = ./one-disk.nix;
  cloud = ./cloud.nix;
}
