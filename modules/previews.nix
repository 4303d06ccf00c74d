# Previews of pull requests: a domain, GitHub, and the servers that they need.
#
# What each server is like is its own module's matter, and so is what the daemon is told of it. This one switches them on,
# tells the daemon what previews are made from, and where GitHub's credentials are.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.previews;

  # Nothing else of ours: whatever changes in there, every preview is evaluated again.
  base = builtins.path {
    name = "source";
    path = ../guest-configs;
    filter =
      path: _:
      builtins.elem (baseNameOf path) [
        "base.nix"
        "preview-meta.nix"
      ];
  };
in
{
  imports = [
    ./manager/options.nix
    ./caddy.nix
    ./postgresql.nix
    ./webhook.nix
    ./asserts/previews.nix
  ];

  options.services.innkeeper.previews = {
    enable = lib.mkEnableOption "previews of pull requests, together with {option}`services.innkeeper.caddy` and {option}`services.innkeeper.webhook`";
    domain = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "preview.example.org";
      description = "The domain below which each preview has a name. `*.<domain>` must lead to this host.";
    };
    environmentFile = mkOption {
      type = types.str;
      default = "/var/secrets/preview.env";
      example = lib.literalExpression "config.sops.secrets.github.path";
      description = ''
        The file of variables with GitHub's credentials: `GITHUB_TOKEN`, or `GITHUB_APP_ID`, `GITHUB_APP_INSTALLATION_ID` and
        `GITHUB_APP_PRIVATE_KEY_PATH`. `innkeeper.service` reads it as root when it starts, and nobody else has to; so does
        it read the App's key. Below {file}`/var/secrets`, its mode is set to 0400.
      '';
    };
    secretsDirectory = mkOption {
      type = types.str;
      default = "/var/secrets/previews";
      description = ''
        The folder with secrets that previews may ask for, as {file}`<owner>/<repository>.env` in lower case. Only root gets
        in.
      '';
    };
    databases = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether a preview may ask for a database on the host (`database = "host"`). Brings
        {option}`services.innkeeper.postgresql`.
      '';
    };
    nixpkgs = {
      path = mkOption {
        type = types.nullOr types.str;
        default = null;
        defaultText = lib.literalExpression "innkeeper.inputs.nixpkgs.outPath";
        description = "The nixpkgs that previews are made from, in the store.";
      };
      narHash = mkOption {
        type = types.nullOr types.str;
        default = null;
        defaultText = lib.literalExpression "innkeeper.inputs.nixpkgs.narHash";
        description = "The hash that it must have, as a flake's lock file has it. Null: any.";
      };
    };
    baseModule = mkOption {
      type = types.str;
      default = "${base}/base.nix";
      defaultText = lib.literalExpression "\"\${innkeeper}/guest-configs/base.nix\"";
      description = ''
        The module that comes before every {file}`preview-config.nix`. It may refer to others in its folder, all of which
        every preview can read.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    services.innkeeper = {
      # Without a domain, an assertion says so; Caddy would only add that it has none either.
      caddy.enable = lib.mkDefault (cfg.domain != null);
      caddy.domain = lib.mkIf (cfg.domain != null) (lib.mkDefault cfg.domain);
      webhook.enable = lib.mkDefault true;
      postgresql.enable = lib.mkIf cfg.databases (lib.mkDefault true);

      settings = {
        previews = {
          secrets_dir = cfg.secretsDirectory;
        }
        // lib.optionalAttrs (cfg.domain != null) { inherit (cfg) domain; };
        evaluation = {
          base_module = cfg.baseModule;
          user = "innkeeper-eval";
        }
        // lib.optionalAttrs (cfg.nixpkgs.path != null) { nixpkgs = cfg.nixpkgs.path; }
        // lib.optionalAttrs (cfg.nixpkgs.narHash != null) { nixpkgs_hash = cfg.nixpkgs.narHash; };
        # Of the daemon. What the webhook may read is said in its unit.
        webhook.environment_files = [ cfg.environmentFile ];
      };
    };

    systemd.tmpfiles.settings."10-innkeeper-previews" = {
      ${cfg.secretsDirectory}.d = {
        user = "root";
        group = "root";
        mode = "0700";
      };
    }
    # sops-nix and agenix see to their own files.
    // lib.optionalAttrs (lib.hasPrefix "/var/secrets/" cfg.environmentFile) {
      ${cfg.environmentFile}.z = {
        user = "root";
        group = "root";
        mode = "0400";
      };
    };
  };
}
