# The host in a tailnet. Guests have a module of their own: guest-configs/tailscale.nix.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  cfg = config.services.innkeeper.tailscale;

  badTags = builtins.filter (tag: builtins.match "tag:[a-z][a-z0-9-]*" tag == null) cfg.tags;
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.tailscale = {
    enable = lib.mkEnableOption "Tailscale on the host";
    authKeyFile = mkOption {
      type = types.nullOr secretPath;
      default = null;
      example = "/var/secrets/tailscale";
      description = "A file with an auth key. Without one, `tailscale up` must be run by hand once.";
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
      description = "Tags that the host requests.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = badTags == [ ];
        message = "services.innkeeper.tailscale.tags has ${lib.concatStringsSep ", " badTags}. A tag is \"tag:\" and a name of a-z, 0-9 and '-', for example \"tag:innkeeper\".";
      }
    ];

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
