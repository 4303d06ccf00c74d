# Compressed swap in the host's memory, to which the daemon moves the memory of paused guests when memory runs short.
{ config, lib, ... }:
let
  cfg = config.services.innkeeper.zram;
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.zram = {
    enable = lib.mkEnableOption ''
      zram, a swap device in memory that compresses: the memory of paused guests goes there when the host's memory runs short.
      Any other swap of the host serves the same purpose'';
    percent = lib.mkOption {
      type = lib.types.ints.between 1 200;
      default = 50;
      description = ''
        The most that the device takes, before compression, in percent of the host's memory. It takes memory only for what
        is in it.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    zramSwap = {
      enable = true;
      algorithm = lib.mkDefault "zstd";
      memoryPercent = cfg.percent;
    };
    # Pages are read one by one: zram has no seeks, and a guest that is woken waits for each page that it needs.
    boot.kernel.sysctl."vm.page-cluster" = lib.mkDefault 0;
  };
}
