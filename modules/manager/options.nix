# What every concern may ask of the daemon's configuration. RFC 42: `settings` is the daemon's TOML, and only
# what needs a type, a default of NixOS or an assertion is declared.
{
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  format = pkgs.formats.toml { };

  setting =
    type: default: description:
    mkOption { inherit type default description; };
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
              The resolvers that guests are told of and may ask, by IPv4 address. Empty: those of the host that are not
              on its loopback interface.
            '';
          };
          network.allow_dns =
            setting types.bool true
              "Whether guests may ask a name server on their own gateway's address.";
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
            description = "The flake that agents are built from when none is named. Empty: it must be named.";
          };
          supervisor.kind = mkOption {
            type = types.enum [
              "systemd"
              "direct"
              "auto"
            ];
            default = "systemd";
            description = "Who keeps guests running: on NixOS, systemd.";
          };
          supervisor.nspawn = mkOption {
            type = types.str;
            default = "${pkgs.systemd}/bin/systemd-nspawn";
            defaultText = lib.literalExpression ''"''${pkgs.systemd}/bin/systemd-nspawn"'';
            description = "The program `systemd-nspawn`.";
          };
          credentials.directory = mkOption {
            type = types.str;
            default = "/var/secrets/claude";
            description = ''
              The folder whose files each agent gets in {file}`/mnt/claude-creds`; empty means none. Set by
              {option}`services.innkeeper.secrets.agentCredentials` when that is used.
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
}
