# Two disks: RAID 1 for boot and root, RAID 1 for the volume group of guests. Either disk may die.
#
#   imports = [ (import ./initial-install/two-disks.nix { first = "/dev/nvme0n1"; second = "/dev/nvme1n1"; }) ];
{
  first,
  second,
  rootSize ? "64G",
}:
{ lib, ... }:
let
  pieces = import ./lib.nix;
  disk = device: espMountpoint: {
    type = "disk";
    inherit device;
    content = {
      type = "gpt";
      partitions = {
        bios = pieces.biosBoot;
        esp = pieces.esp espMountpoint;
        root = {
          size = rootSize;
          content = {
            type = "mdraid";
            name = "root";
          };
        };
        guests = {
          size = "100%";
          content = {
            type = "mdraid";
            name = "guests";
          };
        };
      };
    };
  };
in
{
  assertions = pieces.disksAreNamed [
    first
    second
  ];
  disko.devices = {
    disk = {
      first = disk first "/boot/first";
      second = disk second "/boot/second";
    };
    mdadm = {
      root = {
        type = "mdadm";
        level = 1;
        content = pieces.root;
      };
      guests = {
        type = "mdadm";
        level = 1;
        content = {
          type = "lvm_pv";
          vg = "pool";
        };
      };
    };
    lvm_vg.pool = pieces.guests;
  };

  # Without somebody to write to, mdadm's monitor does not start; the journal gets it in any case.
  boot.swraid = {
    enable = true;
    mdadmConf = "MAILADDR root";
  };
  # Each disk has a boot loader, for BIOS and for UEFI, with its own copies of the kernels.
  boot.loader.grub = {
    enable = true;
    efiSupport = true;
    efiInstallAsRemovable = true;
    # disko would add both disks once more, with a /boot that is no UEFI partition.
    devices = lib.mkForce [ ];
    mirroredBoots = [
      {
        path = "/boot/first";
        devices = [ first ];
      }
      {
        path = "/boot/second";
        devices = [ second ];
      }
    ];
  };
  services.innkeeper.storage.backend = "lvm-thin";
}
