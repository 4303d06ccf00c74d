# The host's PostgreSQL for previews with database `host`.
#
# A guest's gateway address appears and disappears with the guest, so the server listens on all addresses, and access
# is decided twice: by the firewall (5432 is open to guests' interfaces only) and by pg_hba.conf below.
# The daemon's own table lets the port pass too, on each guest's own gateway address only.
#
# The daemon makes databases as the role postgres, over the socket. It is root, which the kernel confirms (peer).
{ config, lib, ... }:
let
  cfg = config.services.innkeeper.postgresql;
  inherit (config.services.innkeeper.settings.network) subnet;

  port = config.services.postgresql.settings.port;
in
{
  imports = [
    ./manager/options.nix
    ./firewall.nix
  ];

  options.services.innkeeper.postgresql = {
    enable = lib.mkEnableOption "PostgreSQL on the host for guests";
    maxConnections = lib.mkOption {
      type = lib.types.ints.between 10 10000;
      default = 600;
      description = ''
        PostgreSQL's `max_connections`, which guests share. The default gives each of 100 previews five.
      '';
    };
  };

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

    services.postgresql = {
      enable = true;
      enableTCPIP = true;
      settings = {
        max_connections = cfg.maxConnections;
        password_encryption = "scram-sha-256";
      };
      # The whole file: NixOS' own default lines would add to it.
      authentication = lib.mkForce ''
        # TYPE  DATABASE  USER  ADDRESS  METHOD
        local   all       postgres       peer map=innkeeper
        local   all       all            peer
        host    sameuser  all   ${subnet}  scram-sha-256
        # `innkeeper restore` loads a preview's database with the rights of its role.
        host    sameuser  all   127.0.0.1/32  scram-sha-256
        host    all       all   all      reject
      '';
      identMap = ''
        # MAP       USER      ROLE
        innkeeper   root      postgres
        innkeeper   postgres  postgres
      '';
    };
    # pg_dump and pg_restore of the server's version, for backups.
    systemd.services.innkeeper.path = lib.mkIf config.services.innkeeper.enable [
      config.services.postgresql.package
    ];
    services.innkeeper = {
      firewall.guestTCPPorts = [ config.services.postgresql.settings.port ];
      settings.network.host_ports = [ "tcp/${toString config.services.postgresql.settings.port}" ];
      settings.database = {
        inherit (config.services.postgresql.settings) port;
        # Where NixOS' server has its socket.
        socket_dir = "/run/postgresql";
      };
    };
  };
}
