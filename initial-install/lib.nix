# Pieces of the layouts.
rec {
  # Assertions that no disk is a template's placeholder.
  disksAreNamed = map (device: {
    assertion = builtins.match ".*REPLACE.*" device == null;
    message = "the disk layout names the disk '${device}'. Replace it by the path of the disk to install on, such as \"/dev/vda\": `lsblk` on the server shows them.";
  });

  # The boot loader's own partition on machines without UEFI.
  biosBoot = {
    size = "1M";
    type = "EF02";
    priority = 1;
  };

  esp = mountpoint: {
    # Several generations of kernels.
    size = "1G";
    type = "EF00";
    content = {
      type = "filesystem";
      format = "vfat";
      inherit mountpoint;
      mountOptions = [
        "umask=0077"
        # A disk that has died must not keep the machine from booting.
        "nofail"
      ];
    };
  };

  root = {
    type = "filesystem";
    format = "ext4";
    mountpoint = "/";
    mountOptions = [ "noatime" ];
  };

  # A volume group with a thin pool that leaves room to grow, and the thin volume for guests in it.
  guests = {
    type = "lvm_vg";
    lvs = {
      thin = {
        size = "85%";
        lvm_type = "thin-pool";
        # Room for the metadata of many small guests; it cannot be shrunk, and a full one stops everything.
        extraArgs = [
          "--poolmetadatasize"
          "1G"
        ];
      };
      innkeeper = {
        size = "100G";
        lvm_type = "thinlv";
        pool = "thin";
        content = {
          type = "filesystem";
          format = "ext4";
          mountpoint = "/var/lib/innkeeper";
          mountOptions = [
            "noatime"
            "discard"
          ];
        };
      };
    };
  };
}
