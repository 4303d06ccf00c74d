# Metrics of the host for Prometheus, by its node exporter: processors, memory, disks, and the state of Innkeeper's units.
{ config, lib, ... }:
let
  cfg = config.services.innkeeper.metrics;
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.metrics = {
    enable = lib.mkEnableOption "metrics of the host and of Innkeeper's units, guests' among them, for Prometheus";
    listenAddress = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1";
      description = "The address on which the node exporter listens, on port 9100. The firewall is not opened for it.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.prometheus.exporters.node = {
      enable = true;
      inherit (cfg) listenAddress;
      enabledCollectors = [ "systemd" ];
      extraFlags = [
        "--collector.systemd.unit-include=(innkeeper.*|caddy|nix-daemon|postgresql)[.](service|socket|slice|timer)"
      ];
    };
  };
}
