# The host in a tailnet. Guests have a module of their own: guest-configs/tailscale.nix.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.tailscale;
in
{
  imports = [
    ./manager/options.nix
    ./asserts/tailscale.nix
  ];

  options.services.innkeeper.tailscale = {
    enable = lib.mkEnableOption "Tailscale on the host";
    authKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/secrets/tailscale";
      description = "A file with an auth key. Without one, `tailscale up` has to be run by hand once.";
    };
    mode = mkOption {
      type = types.enum [
        "kernel"
        "userspace"
      ];
      default = "kernel";
      description = "`userspace` needs no tun device; programs reach the tailnet through a SOCKS5 proxy on localhost:1055.";
    };
    tags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "tag:innkeeper" ];
      description = "Tags that the host asks for.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.tailscale = {
      enable = true;
      inherit (cfg) authKeyFile;
      interfaceName = if cfg.mode == "userspace" then "userspace-networking" else "tailscale0";
      extraDaemonFlags = lib.optional (cfg.mode == "userspace") "--socks5-server=localhost:1055";
      extraUpFlags = lib.optional (
        cfg.tags != [ ]
      ) "--advertise-tags=${lib.concatStringsSep "," cfg.tags}";
      openFirewall = true;
    };
  };
}
