{ config, lib, ... }:
let
  cfg = config.services.innkeeper.caddy;
  ours = import ../lib.nix;
  inherit (cfg) certificate;
  given = lib.count (c: c != null) [
    certificate.files
    certificate.acme
    (if certificate.internal then true else null)
  ];
  secrets =
    lib.optional (certificate.files != null) {
      option = "certificate.files.key";
      path = certificate.files.key;
    }
    ++ lib.optional (certificate.acme != null) {
      option = "certificate.acme.environmentFile";
      path = certificate.acme.environmentFile;
    };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = ours.isDomain cfg.domain;
        message = "services.innkeeper.caddy.domain is \"${cfg.domain}\", which is no domain: labels of a-z, 0-9 and '-' with dots between them, in lower case and without \"*.\". Write for example \"preview.example.org\".";
      }
      {
        assertion = given == 1;
        message = "services.innkeeper.caddy.certificate needs exactly one of files, acme and internal, and has ${toString given}. Write certificate.files = { }; for a certificate in /var/secrets, or certificate.acme = { email = …; dnsProvider = …; environmentFile = …; };.";
      }
    ]
    ++ map (secret: {
      assertion = !ours.inStore secret.path;
      message = "services.innkeeper.caddy.${secret.option} is ${secret.path}, in the Nix store, where everybody can read it, guests included. Give a path outside of the store as a string, for example \"/var/secrets/…\".";
    }) secrets;
  };
}
