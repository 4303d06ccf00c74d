# Options of the daemon that every other module may read. RFC 42: `settings` is the daemon's TOML file; only settings that
# need a type, a default of NixOS or an assertion are declared.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ../types.nix { inherit lib; }) secretPath;
  innkeeperLib = import ../lib.nix;
  format = pkgs.formats.toml { };

  setting =
    type: default: description:
    mkOption { inherit type default description; };

  cfg = config.services.innkeeper;
  inherit (cfg.settings) network nix supervisor;
  subnet = innkeeperLib.network network.subnet;
  badNameservers = builtins.filter (
    text: innkeeperLib.address text == null || lib.hasPrefix "127." text
  ) network.nameservers;
in
{
  options.services.innkeeper = {
    enable = lib.mkEnableOption "Innkeeper's daemon, which keeps isolated guests on this host";

    package = mkOption {
      type = types.package;
      description = "The package with `innkeeperd`, `agent`, `preview` and `innkeeper`.";
      defaultText = lib.literalExpression "innkeeper.packages.\${system}.default";
    };

    users = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = ''
        Users who may use `agent`, `preview` and `innkeeper` without being root. They become members of the group
        {option}`services.innkeeper.settings.api.group`. A member can make guests and read everything in them.
      '';
    };

    settings = mkOption {
      description = ''
        The daemon's configuration, {file}`config.toml`. Every setting of `innkeeper config` can be given here; those
        below are declared because NixOS has a default for them or other modules read them. The file is checked with
        `innkeeperd --check-config` when the system is built.
      '';
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          state_dir = mkOption {
            type = types.enum [ "/var/lib/innkeeper" ];
            default = "/var/lib/innkeeper";
            description = ''
              The folder with the database and the guests' file trees. It is systemd's state directory of the unit; to
              keep it elsewhere, mount a file system there ({option}`services.innkeeper.storage`).
            '';
          };
          runtime_dir = mkOption {
            type = types.enum [ "/run/innkeeper" ];
            default = "/run/innkeeper";
            description = "The folder with the sockets. It outlives restarts of the daemon.";
          };
          api.group = setting types.str "innkeeper" "The group whose members may use the API's socket.";
          network.subnet = mkOption {
            type = types.str;
            default = "10.100.0.0/16";
            example = "10.200.0.0/16";
            description = "The IPv4 network of the guests' addresses. Each guest takes two of them.";
          };
          network.nameservers = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [
              "9.9.9.9"
              "1.1.1.1"
            ];
            description = ''
              The resolvers that guests use, by IPv4 address. Empty: the host's resolvers, except those on its loopback
              interface.
            '';
          };
          network.allow_dns =
            setting types.bool true
              "Whether to let guests query a name server on their own gateway's address.";
          nix.program = mkOption {
            type = types.str;
            default = lib.getExe pkgs.nix;
            defaultText = lib.literalExpression "lib.getExe pkgs.nix";
            description = "The program `nix`.";
          };
          nix.flake = mkOption {
            type = types.str;
            default = "";
            example = "/etc/nixos#agent";
            description = "The default flake of `agent create` and `agent build`. Empty: the command must name one.";
          };
          supervisor.kind = mkOption {
            type = types.enum [
              "systemd"
              "direct"
              "auto"
            ];
            default = "systemd";
            description = "The supervisor of guests: on NixOS, systemd.";
          };
          supervisor.nspawn = mkOption {
            type = types.str;
            default = "${pkgs.systemd}/bin/systemd-nspawn";
            defaultText = lib.literalExpression ''"''${pkgs.systemd}/bin/systemd-nspawn"'';
            description = "The program `systemd-nspawn`.";
          };
          credentials.directory = mkOption {
            type = types.either (types.enum [ "" ]) secretPath;
            default = "/var/secrets/claude";
            description = ''
              The folder whose files each agent receives in {file}`/mnt/claude-creds`; empty means none. Set by
              {option}`services.innkeeper.secrets.agentCredentials` where that is used.
            '';
          };
          ssh.authorized_keys = mkOption {
            type = types.listOf types.singleLineStr;
            default = [ ];
            example = [ "ssh-ed25519 AAAA… alice" ];
            description = "Public keys that may log in to guests as `agent`.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = subnet != null;
        message = "services.innkeeper.settings.network.subnet is \"${network.subnet}\", which is not an IPv4 network. Write it as address/length with a zero host part, for example \"10.100.0.0/16\".";
      }
      {
        assertion = subnet == null || (subnet.prefix >= 8 && subnet.prefix <= 29);
        message = "services.innkeeper.settings.network.subnet is \"${network.subnet}\": a guest takes two addresses, and a prefix from 8 to 29 leaves room for guests. Write for example \"10.100.0.0/16\".";
      }
      {
        assertion = badNameservers == [ ];
        message = "services.innkeeper.settings.network.nameservers has ${lib.concatStringsSep ", " badNameservers}, which guests cannot reach: they have IPv4 only, and a loopback address is their own. Name resolvers by IPv4 address, for example [ \"9.9.9.9\" \"192.168.1.1\" ].";
      }
      {
        assertion = supervisor.kind != "direct";
        message = "services.innkeeper.settings.supervisor.kind is \"direct\". The unit lacks the privileges to supervise guests itself, and a switch would stop them. Write \"systemd\".";
      }
      {
        assertion = !lib.hasPrefix "-" nix.flake && !lib.hasInfix " " nix.flake;
        message = "services.innkeeper.settings.nix.flake is \"${nix.flake}\", which is not a flake reference. Write for example \"/etc/nixos#agent\".";
      }
    ];
  };
}
