# The web server in front of previews: the certificate, the folder that sites are imported from.
#
# The sites come from Innkeeper, the wildcard site among them: the first route of a preview brings it, with
# `stream_close_delay`, so that WebSockets outlive a reload. GitHub's way to the webhook is declared here. The snippet and
# the folder have the names of earlier installations, so that their site files keep working.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) secretPath;
  innkeeperLib = import ./lib.nix;
  cfg = config.services.innkeeper.caddy;
  inherit (cfg) certificate;
  inherit (config.services.innkeeper) gateway webhook;

  # The directory of the tables that Caddy reads at each request.
  table = "/var/lib/innkeeper-routes";
  admin = "/run/caddy/admin.sock";
  # The port on which Caddy responds to guests.
  guestPort = 3443;

  tls =
    if certificate.internal then
      "tls internal"
    else if certificate.files != null then
      "tls ${certificate.files.certificate} ${certificate.files.key}"
    else
      "tls /var/lib/acme/${cfg.domain}/cert.pem /var/lib/acme/${cfg.domain}/key.pem";

  apiHost = if gateway.host == "" then "api.${cfg.domain}" else gateway.host;
  # The snippet's certificate is valid for names of the domain, or for all; Caddy obtains others itself.
  apiTls = lib.optionalString (
    certificate.internal || lib.hasSuffix ".${cfg.domain}" apiHost
  ) "import cloudflare_tls";

  certificates = lib.count (c: c != null) [
    certificate.files
    certificate.acme
    (if certificate.internal then true else null)
  ];
in
{
  imports = [
    ./manager/options.nix
    ./firewall.nix
    ./gateway.nix
    ./webhook.nix
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
        {file}`webhook.caddy` of an earlier installation must be deleted: that site is declared here.
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
              type = secretPath;
              default = "/var/secrets/cloudflare-origin-key.pem";
              description = "The certificate's key, PEM. Owned by root, group `caddy`, mode 0640.";
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
              description = "The address to which the certificate authority sends notices.";
            };
            dnsProvider = mkOption {
              type = types.str;
              example = "cloudflare";
              description = "The DNS provider, by lego's name for it. Wildcard certificates are given for DNS-01 only.";
            };
            environmentFile = mkOption {
              type = secretPath;
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
      description = "A certificate of Caddy's own authority, which no browser trusts: for trying things out. GitHub delivers to it only with certificate verification disabled.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = innkeeperLib.isDomain cfg.domain;
        message = "services.innkeeper.caddy.domain is \"${cfg.domain}\", which is not a valid domain: labels of a-z, 0-9 and '-' with dots between them, in lower case and without \"*.\". Write for example \"preview.example.org\".";
      }
      {
        assertion = certificates == 1;
        message = "services.innkeeper.caddy.certificate needs exactly one of files, acme and internal, and has ${toString certificates}. Write certificate.files = { }; for a certificate in /var/secrets, or certificate.acme = { email = …; dnsProvider = …; environmentFile = …; };.";
      }
    ];

    services.caddy = {
      enable = true;
      globalConfig = ''
        # The admin endpoint controls every site, so it is a socket in a folder that only root and Caddy can enter.
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
            @public path /webhook/github /webhook/github/ /health
            handle @public {
              reverse_proxy ${webhook.listen}
            }
            handle {
              respond 404
            }
          }
        ''}
        ${lib.optionalString gateway.enable ''
          ${apiHost} {
            ${apiTls}
            reverse_proxy unix//run/innkeeper-gateway/http.sock {
              # Logs and progress arrive at once. The gateway ends a connection after each request.
              flush_interval -1
              transport http {
                keepalive off
              }
            }
          }
        ''}
        ${lib.optionalString (gateway.enable && gateway.relayProviders != [ ]) ''
          auth.${cfg.domain} {
            import cloudflare_tls
            handle /relay {
              reverse_proxy unix//run/innkeeper-gateway/http.sock {
                transport http {
                  keepalive off
                }
              }
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
    # Only root may write there: these files decide where requests go. The guests' resolver looks up names in the table.
    systemd.tmpfiles.settings."10-innkeeper-caddy" = lib.genAttrs [ cfg.importDirectory table ] (path: {
      d = {
        user = "root";
        group = "caddy";
        mode = if path == table then "0751" else "0750";
      };
    });
    systemd.services.innkeeper.serviceConfig = lib.mkIf config.services.innkeeper.enable {
      ReadWritePaths = [
        cfg.importDirectory
        table
      ];
    };

    # The daemon's view of this server.
    services.innkeeper.settings.caddy = {
      inherit admin table;
      directory = cfg.importDirectory;
      # The path with which NixOS' unit runs Caddy.
      caddyfile = "/etc/caddy/caddy_config";
      # The snippet above, whatever certificate is in it.
      tls = "cloudflare_tls";
      guest_port = guestPort;
    };
    # The daemon's rules redirect guests' connections to Caddy there.
    services.innkeeper.firewall.guestTCPPorts = [ guestPort ];

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
