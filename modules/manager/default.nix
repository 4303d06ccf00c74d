# The daemon: its configuration, its unit, the programs in PATH.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.innkeeper;

  configFile = import ./config-file.nix {
    inherit lib pkgs;
    inherit (cfg) package settings;
  };

  most = 2147483647;
  sharedLimits = {
    # What a guest's memory limit ends, since the kernel charges the memory to it.
    "fs.inotify.max_user_instances" = most;
    "fs.inotify.max_user_watches" = most;
    "fs.fanotify.max_user_groups" = most;
    "fs.fanotify.max_user_marks" = most;
    "user.max_user_namespaces" = most;
    "user.max_pid_namespaces" = most;
    "user.max_net_namespaces" = most;
    "user.max_mnt_namespaces" = most;
    "user.max_uts_namespaces" = most;
    "user.max_ipc_namespaces" = most;
    "user.max_cgroup_namespaces" = most;
    "user.max_time_namespaces" = most;
    # What takes memory of the host: enough for many guests. Keys count for each user of each guest.
    "fs.aio-max-nr" = 1048576;
    "kernel.keys.maxbytes" = 40000;
    "kernel.keys.maxkeys" = 400;
    "kernel.pty.max" = 16384;
    "net.ipv4.neigh.default.gc_thresh1" = 4096;
    "net.ipv4.neigh.default.gc_thresh2" = 8192;
    "net.ipv4.neigh.default.gc_thresh3" = 16384;
    "net.netfilter.nf_conntrack_max" = 524288;
  };
in
{
  imports = [
    ./options.nix
    ./service.nix
    ../asserts/manager.nix
  ];

  config = lib.mkIf cfg.enable {
    # Where `innkeeperd` and `innkeeper` look when nothing else is said.
    environment.etc."innkeeper/config.toml".source = configFile;
    environment.systemPackages = [ cfg.package ];

    users.groups.${cfg.settings.api.group}.members = cfg.users;

    # Guests are built from flakes.
    nix.settings.experimental-features = [
      "nix-command"
      "flakes"
    ];

    boot.kernel.sysctl =
      {
        # The daemon switches forwarding on where nobody has; said here, nothing else can switch it off.
        "net.ipv4.ip_forward" = lib.mkDefault true;
      }
      # Limits that guests share with the host: docs/security.md says which there are, and `innkeeper doctor` compares
      # them. Stronger than the defaults of NixOS, weaker than what a host sets.
      // builtins.mapAttrs (_: lib.mkOverride 900) sharedLimits;

    # Loaded early: the unit may not load modules.
    boot.kernelModules = [
      "veth"
      "nf_tables"
      "nf_conntrack"
      "nft_connlimit"
      "nft_fib_inet"
      "nft_limit"
      "nft_masq"
      "nft_reject_inet"
    ];
  };
}
