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

    # The daemon switches forwarding on where nobody has; said here, nothing else can switch it off.
    boot.kernel.sysctl."net.ipv4.ip_forward" = lib.mkDefault true;

    # Loaded early: the unit may not load modules.
    boot.kernelModules = [
      "veth"
      "nf_tables"
      "nft_fib_inet"
      "nft_masq"
      "nft_reject_inet"
    ];
  };
}
