# A cloud VM: its one disk is small and grows with the plan, so guests share the root file system.
{ device }:
let
  pieces = import ./lib.nix;
in
{
  assertions = pieces.disksAreNamed [ device ];
  disko.devices.disk.main = {
    type = "disk";
    inherit device;
    content = {
      type = "gpt";
      partitions = {
        bios = pieces.biosBoot;
        esp = pieces.esp "/boot";
        root = {
          size = "100%";
          content = pieces.root;
        };
      };
    };
  };
  boot.loader.grub = {
    enable = true;
    efiSupport = true;
    efiInstallAsRemovable = true;
  };
  boot.growPartition = true;
}
