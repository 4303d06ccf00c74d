# One disk: boot, root, and the rest a volume group for guests.
{
  device,
  rootSize ? "64G",
}:
let
  pieces = import ./lib.nix;
in
{
  assertions = pieces.disksAreNamed [ device ];
  disko.devices = {
    disk.main = {
      type = "disk";
      inherit device;
      content = {
        type = "gpt";
        partitions = {
          bios = pieces.biosBoot;
          esp = pieces.esp "/boot";
          root = {
            size = rootSize;
            content = pieces.root;
          };
          guests = {
            size = "100%";
            content = {
              type = "lvm_pv";
              vg = "pool";
            };
          };
        };
      };
    };
    lvm_vg.pool = pieces.guests;
  };
  boot.loader.grub = {
    enable = true;
    efiSupport = true;
    efiInstallAsRemovable = true;
  };
  services.innkeeper.storage.backend = "lvm-thin";
}
