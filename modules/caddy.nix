# The web server in front of previews: the certificate, the folder that sites are imported from.
#
# The sites come from Innkeeper, the wildcard site among them: the first route of a preview brings it, with
# `stream_close_delay`, so that WebSockets outlive a reload. GitHub's way to the webhook is declared here. The snippet and
# the folder are those that the contract of earlier installations says, so that their site files keep working.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.caddy;
  inherit (cfg) certificate;
  inherit (config.services.innkeeper) webhook;

  # The directory of the tables that Caddy reads at each request.
  table = "/var/lib/innkeeper-routes";
  admin = "/run/caddy/admin.sock";

  tls =
    if certificate.internal then
      "tls internal"
    else if certificate.files != null then
      "tls ${certificate.files.certificate} ${certificate.files.key}"
    else
      "tls /var/lib/acme/${cfg.domain}/cert.pem /var/lib/acme/${cfg.domain}/key.pem";
in
{
  imports = [
    ./manager/options.nix
    ./webhook.nix
    ./asserts/caddy.nix
  ];

  options.services.innkeeper.caddy = {
    enable = lib.mkEnableOption "Caddy with a wildcard site for previews";
    domain = mkOption {
      type = types.str;
      example = "preview.example.org";
      description = ''
        The domain below which each preview has a name. `*.<domain>` must lead to this host. GitHub delivers to
        `https://webhook.<domain>/webhook/github` ({option}`services.innkeeper.webhook`).
      '';
    };
    importDirectory = mkOption {
      type = types.strMatching "/[^[:space:]*?\"{}]*";
      default = "/etc/caddy/previews";
      description = ''
        The folder whose files `*.caddy` are part of Caddy's configuration. Only root may write there. A
        {file}`webhook.caddy` of an earlier installation has to go: that site is declared here.
      '';
    };
    certificate.files = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            certificate = mkOption {
              type = types.str;
              default = "/var/secrets/cloudflare-origin.pem";
              description = "The certificate with its chain, PEM.";
            };
            key = mkOption {
              type = types.str;
              default = "/var/secrets/cloudflare-origin-key.pem";
              description = "Its key, PEM. Owned by root, group `caddy`, mode 0640.";
            };
          };
        }
      );
      default = null;
      example = { };
      description = "A wildcard certificate from files, such as a Cloudflare Origin CA's. `{ }` takes the usual places.";
    };
    certificate.acme = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            email = mkOption {
              type = types.str;
              example = "ops@example.org";
              description = "Where the certificate authority writes to.";
            };
            dnsProvider = mkOption {
              type = types.str;
              example = "cloudflare";
              description = "The DNS provider, by lego's name for it. Wildcard certificates are given for DNS-01 only.";
            };
            environmentFile = mkOption {
              type = types.str;
              example = "/var/secrets/acme.env";
              description = "A file with the provider's credentials, as variables.";
            };
          };
        }
      );
      default = null;
      description = "A wildcard certificate from Let's Encrypt.";
    };
    certificate.internal = mkOption {
      type = types.bool;
      default = false;
      description = "A certificate of Caddy's own authority, which no browser trusts: for trying things out. GitHub delivers to it only when told not to look at the certificate.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.caddy = {
      enable = true;
      globalConfig = ''
        # Whoever reaches the admin endpoint controls every site: a socket in a folder that root and Caddy can enter.
        admin unix/${admin}
        # How long connections may take to end at a reload.
        grace_period 10s
      '';
      extraConfig = ''
        (cloudflare_tls) {
          ${tls}
        }

        ${lib.optionalString webhook.enable ''
          webhook.${cfg.domain} {
            import cloudflare_tls
            @public path /webhook/github /health
            handle @public {
              reverse_proxy ${webhook.listen}
            }
            handle {
              respond 404
            }
          }
        ''}
        import ${cfg.importDirectory}/*.caddy
      '';
    };
    systemd.services.caddy.serviceConfig = {
      RuntimeDirectory = "caddy";
      RuntimeDirectoryMode = "0700";
    };
    # Only root writes there: whoever does says where requests go.
    systemd.tmpfiles.settings."10-innkeeper-caddy" = lib.genAttrs [ cfg.importDirectory table ] (_: {
      d = {
        user = "root";
        group = "caddy";
        mode = "0750";
      };
    });
    systemd.services.innkeeper.serviceConfig = lib.mkIf config.services.innkeeper.enable {
      ReadWritePaths = [
        cfg.importDirectory
        table
      ];
    };

    # What the daemon has to know of all this.
    services.innkeeper.settings.caddy = {
      inherit admin table;
      directory = cfg.importDirectory;
      # What the unit of NixOS runs Caddy with.
      caddyfile = "/etc/caddy/caddy_config";
      # The snippet above, whatever certificate is in it.
      tls = "cloudflare_tls";
    };

    security.acme = lib.mkIf (certificate.acme != null) {
      acceptTerms = true;
      defaults.email = certificate.acme.email;
      certs.${cfg.domain} = {
        inherit (certificate.acme) dnsProvider environmentFile;
        domain = "*.${cfg.domain}";
        group = "caddy";
        reloadServices = [ "caddy.service" ];
      };
    };
  };
}
