# The daemon: its configuration, its unit, the programs in PATH.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  innkeeperLib = import ../lib.nix;
  cfg = config.services.innkeeper;

  configFile = import ./config-file.nix {
    inherit lib pkgs;
    inherit (cfg) package settings;
  };

  inherit (cfg.settings) network;
  interfaceAddresses = lib.concatLists (
    lib.mapAttrsToList (
      interface: settings:
      map (address: {
        inherit interface;
        inherit (address) address;
      }) settings.ipv4.addresses
    ) config.networking.interfaces
  );
  inSubnet = builtins.filter (
    entry: innkeeperLib.inside entry.address network.subnet
  ) interfaceAddresses;
  trusted = builtins.filter (lib.hasPrefix "ve-") config.networking.firewall.trustedInterfaces;
  natted = builtins.filter (lib.hasPrefix "ve-") config.networking.nat.internalInterfaces;

  # The options with a key of the templates that was not replaced.
  placeholders =
    lib.optional (builtins.elem "REPLACE" cfg.settings.ssh.authorized_keys) "services.innkeeper.settings.ssh.authorized_keys"
    ++ lib.mapAttrsToList (user: _: "users.users.${user}.openssh.authorizedKeys.keys") (
      lib.filterAttrs (
        _: user: builtins.elem "REPLACE" user.openssh.authorizedKeys.keys
      ) config.users.users
    );

  most = 2147483647;
  sharedLimits = {
    # Bounded by a guest's memory limit, since the kernel charges the memory to it.
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
    # These use memory of the host; the values suffice for many guests. Keys count per user of each guest.
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
    ./agents.nix
    ./options.nix
    ./pool.nix
    ./service.nix
    ./switch-preview.nix
  ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = placeholders == [ ];
        message = "${lib.concatStringsSep " and " placeholders}: REPLACE is no SSH key, and nobody could sign in. Write your public key, for example the line in ~/.ssh/id_ed25519.pub.";
      }
      {
        assertion = inSubnet == [ ];
        message = "the guests' subnet ${network.subnet} contains addresses of this host: ${
          lib.concatMapStringsSep ", " (entry: "${entry.address} (${entry.interface})") inSubnet
        }. Set services.innkeeper.settings.network.subnet to a network that nothing else uses, for example \"10.200.0.0/16\".";
      }
      {
        assertion = trusted == [ ];
        message = "networking.firewall.trustedInterfaces has ${lib.concatStringsSep ", " trusted}, which opens every port of this host to every guest. Remove it; services.innkeeper.firewall opens the ports that guests need.";
      }
      {
        assertion = natted == [ ];
        message = "networking.nat.internalInterfaces has ${lib.concatStringsSep ", " natted}. The daemon's own table inet innkeeper masquerades guests already; remove the entry.";
      }
      {
        assertion = !(config.networking.nftables.enable && config.networking.nftables.flushRuleset);
        message = "networking.nftables.flushRuleset is on: each reload would remove the table inet innkeeper, and with it NAT and the filter of all guests. Set networking.nftables.flushRuleset = false; and write rules in networking.nftables.tables instead of ruleset or rulesetFile.";
      }
      {
        assertion = config.nix.enable;
        message = "services.innkeeper needs Nix to build guests, and nix.enable is false. Set nix.enable = true;.";
      }
    ];

    # The default path of `innkeeperd` and `innkeeper`.
    environment.etc."innkeeper/config.toml".source = configFile;
    environment.systemPackages = [ cfg.package ];

    users.groups.${cfg.settings.api.group}.members = cfg.users;

    # Guests are built from flakes.
    nix.settings.experimental-features = [
      "nix-command"
      "flakes"
    ];

    boot.kernel.sysctl = {
      # The daemon enables forwarding where it is off; set here, no other module disables it.
      "net.ipv4.ip_forward" = lib.mkDefault true;
    }
    # Limits that guests share with the host (docs/security.md); `innkeeper doctor` compares them. They override the
    # defaults of NixOS, and a host's own settings override them.
    // builtins.mapAttrs (_: lib.mkOverride 900) sharedLimits;

    # Loaded at boot, because the unit may not load modules.
    boot.kernelModules = [
      "veth"
      "nf_tables"
      "nf_conntrack"
      "nfnetlink_log"
      "nft_connlimit"
      "nft_fib_inet"
      "nft_limit"
      "nft_log"
      "nft_masq"
      "nft_reject_inet"
    ];
  };
}
