{ config, lib, ... }:
let
  cfg = config.services.innkeeper.postgresql;
  port = config.services.postgresql.settings.port;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !builtins.elem port config.networking.firewall.allowedTCPPorts;
        message = "networking.firewall.allowedTCPPorts opens PostgreSQL's port ${toString port} to the whole internet. Remove it; guests are let in by services.innkeeper.firewall.";
      }
      {
        assertion = config.services.innkeeper.firewall.enable || !config.networking.firewall.enable;
        message = "services.innkeeper.postgresql is on and services.innkeeper.firewall.enable is false: guests would not reach port ${toString port}. Set services.innkeeper.firewall.enable = true;.";
      }
    ];
  };
}
