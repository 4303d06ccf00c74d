# Previews of pull requests: a domain, GitHub, and the servers that they need.
#
# The servers are configured in modules of their own. This one enables them, and sets the daemon's options for the sources
# of previews and for GitHub's credentials.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  inherit (config.services) innkeeper;
  cfg = config.services.innkeeper.previews;

  # Only these files: a change in this folder makes the daemon evaluate every preview again.
  base = builtins.path {
    name = "source";
    path = ../guest-configs;
    filter =
      path: _:
      builtins.elem (baseNameOf path) [
        "base.nix"
        "nix.nix"
        "preview-app"
        "preview-meta.nix"
      ]
      || baseNameOf (dirOf path) == "preview-app";
  };

  hasDomain = cfg.domain != null;

  # The settings that need the gateway: of all repositories, and of single ones.
  notPublic = lib.optional (
    cfg.visibility != "public"
  ) "services.innkeeper.previews.visibility is \"${cfg.visibility}\""
  ++ lib.mapAttrsToList (
    repository: settings:
    "services.innkeeper.settings.previews.repositories.\"${repository}\".visibility is \"${settings.visibility}\""
  ) (lib.filterAttrs (_: settings: (settings.visibility or "public") != "public") repositories);
  repositories = innkeeper.settings.previews.repositories or { };
in
{
  imports = [
    ./manager/options.nix
    ./caddy.nix
    ./gateway.nix
    ./pages.nix
    ./postgresql.nix
    ./webhook.nix
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
      type = secretPath;
      default = "/var/secrets/preview.env";
      example = lib.literalExpression "config.sops.secrets.github.path";
      description = ''
        The file of variables with GitHub's credentials: `GITHUB_TOKEN`, or `GITHUB_APP_ID`, `GITHUB_APP_INSTALLATION_ID` and
        `GITHUB_APP_PRIVATE_KEY_PATH`. `innkeeper.service` reads it, and the App's key, as root when it starts; no other user needs access. Below {file}`/var/secrets`, its mode is set to 0400.
      '';
    };
    secretsDirectory = mkOption {
      type = secretPath;
      default = "/var/secrets/previews";
      description = ''
        The folder with the secrets that previews may request, as {file}`<owner>/<repository>.env` in lower case. Only
        root can enter it. `innkeeper secret set` writes files there.
      '';
    };
    visibility = mkOption {
      type = types.enum [
        "public"
        "team"
        "private"
      ];
      default = "public";
      description = ''
        The visitors of previews: `public` (everybody), `team` (people who may log in on this host) or `private` (people who
        may read the repository on GitHub). A repository's file and a command can only be stricter. The last two need
        {option}`services.innkeeper.gateway`.
      '';
    };
    databases = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether to allow previews a database on the host (`database = "host"`). Enables
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
    assertions = [
      {
        assertion = innkeeper.enable;
        message = "services.innkeeper.previews.enable is true and services.innkeeper.enable is false: no daemon would create previews. Set services.innkeeper.enable = true;.";
      }
      {
        assertion = hasDomain;
        message = "services.innkeeper.previews has no domain: previews would have no names. Write for example domain = \"preview.example.org\"; and let *.preview.example.org lead to this host.";
      }
      {
        assertion = !hasDomain || innkeeper.caddy.enable;
        message = "services.innkeeper.previews is on and services.innkeeper.caddy.enable is false: no server would answer browsers. Remove the line; for a Caddy that is set up otherwise, use services.innkeeper.settings.previews and settings.caddy instead of services.innkeeper.previews.";
      }
      {
        assertion = !hasDomain || !innkeeper.caddy.enable || innkeeper.caddy.domain == cfg.domain;
        message = "services.innkeeper.previews.domain is \"${toString cfg.domain}\" and services.innkeeper.caddy.domain is \"${innkeeper.caddy.domain}\": the certificate would be for other names than previews'. Remove the latter.";
      }
      {
        assertion = innkeeper.webhook.enable;
        message = "services.innkeeper.previews is on and services.innkeeper.webhook.enable is false: the daemon would not receive pull requests. Remove the line, and set services.innkeeper.webhook.secretFile.";
      }
      {
        assertion = !cfg.databases || innkeeper.postgresql.enable;
        message = "services.innkeeper.previews.databases is true and services.innkeeper.postgresql.enable is false: previews with database = \"host\" would fail. Set services.innkeeper.previews.databases = false;, or remove the other line.";
      }
      {
        assertion = notPublic == [ ] || innkeeper.gateway.enable;
        message = "${lib.concatStringsSep " and " notPublic}, and services.innkeeper.gateway.enable is false: nobody could be admitted. Set services.innkeeper.gateway.enable = true;, or write \"public\".";
      }
      {
        assertion = cfg.nixpkgs.path != null;
        message = "services.innkeeper.previews.nixpkgs.path is not set: previews could not be evaluated. It comes with innkeeper.nixosModules of the flake; without it, write for example nixpkgs.path = \"\${nixpkgs}\";.";
      }
    ];

    services.innkeeper = {
      # Without a domain, the assertion above fails; Caddy would only repeat it.
      caddy.enable = lib.mkDefault (cfg.domain != null);
      caddy.domain = lib.mkIf (cfg.domain != null) (lib.mkDefault cfg.domain);
      webhook.enable = lib.mkDefault true;
      postgresql.enable = lib.mkIf cfg.databases (lib.mkDefault true);

      settings = {
        previews = {
          secrets_dir = cfg.secretsDirectory;
          inherit (cfg) visibility;
        }
        // lib.optionalAttrs (cfg.domain != null) { inherit (cfg) domain; };
        evaluation = {
          base_module = cfg.baseModule;
          user = "innkeeper-eval";
        }
        // lib.optionalAttrs (cfg.nixpkgs.path != null) { nixpkgs = cfg.nixpkgs.path; }
        // lib.optionalAttrs (cfg.nixpkgs.narHash != null) { nixpkgs_hash = cfg.nixpkgs.narHash; };
        # For the daemon. The webhook's unit names the files that the webhook may read.
        webhook.environment_files = [ cfg.environmentFile ];
      };
    };

    # `innkeeper secret set` writes there.
    systemd.services.innkeeper.serviceConfig = lib.mkIf innkeeper.enable {
      ReadWritePaths = [ "-${cfg.secretsDirectory}" ];
    };

    systemd.tmpfiles.settings."10-innkeeper-previews" = {
      ${cfg.secretsDirectory}.d = {
        user = "root";
        group = "root";
        mode = "0700";
      };
    }
    # sops-nix and agenix manage their own files.
    // lib.optionalAttrs (lib.hasPrefix "/var/secrets/" cfg.environmentFile) {
      ${cfg.environmentFile}.z = {
        user = "root";
        group = "root";
        mode = "0400";
      };
    };
  };
}
