# A guest in a tailnet, without rights that a guest has not got: no tun device, a SOCKS5 proxy on localhost:1055.
{ config, lib, ... }:
let
  cfg = config.innkeeper.tailscale;
in
{
  options.innkeeper.tailscale.authKeyFile = lib.mkOption {
    type = lib.types.str;
    default = "/mnt/claude-creds/tailscale_authkey";
    description = "The file with the auth key, in the guest. The default is where the daemon puts credentials.";
  };

  config = {
    services.tailscale = {
      enable = true;
      interfaceName = "userspace-networking";
      inherit (cfg) authKeyFile;
      extraDaemonFlags = [ "--socks5-server=localhost:1055" ];
    };
    # A guest without a key goes without a tailnet, and is not slowed down by waiting for it.
    systemd.services.tailscaled-autoconnect.unitConfig.ConditionPathExists = cfg.authKeyFile;
  };
}
