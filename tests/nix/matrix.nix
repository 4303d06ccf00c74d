# Hosts with previews in every combination of the modules' main choices, as JSON for tests/nix/matrix: what each comes to.
# Each choice has a scenario in tests/nixos, which `scenarios` names.
{
  nixpkgs,
  # One of each, to evaluate a part of the combinations.
  certificate ? null,
  database ? null,
}:
let
  lib = import (nixpkgs + "/lib");
  domain = "preview.example.org";

  choices = {
    certificate = {
      files.services.innkeeper.caddy.certificate.files = { };
      acme.services.innkeeper.caddy.certificate.acme = {
        email = "ops@example.org";
        dnsProvider = "cloudflare";
        environmentFile = "/var/secrets/acme.env";
      };
      internal.services.innkeeper.caddy.certificate.internal = true;
    };
    database = {
      on.services.innkeeper.previews.databases = true;
      off.services.innkeeper.previews.databases = false;
    };
    storage = {
      directory.services.innkeeper.storage.backend = "directory";
      thin.services.innkeeper.storage.backend = "lvm-thin";
      volumes.services.innkeeper.storage.guestVolumes.enable = true;
    };
    firewall = {
      nftables.networking = {
        nftables.enable = true;
        firewall.filterForward = true;
      };
      iptables.networking.nftables.enable = false;
    };
  };
  scenarios = {
    certificate = {
      files = "previews";
      acme = "acme";
      internal = "e2e-preview";
    };
    database = {
      on = "previews";
      off = "acme";
    };
    storage = {
      directory = "agents";
      thin = "install";
      volumes = "e2e-thin";
    };
    firewall = {
      nftables = "firewall";
      iptables = "firewall";
    };
  };

  evaluate =
    modules:
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = modules ++ [
        ../../modules
        (
          { pkgs, ... }:
          {
            nixpkgs.hostPlatform = "x86_64-linux";
            boot.isContainer = true;
            system.stateVersion = "26.05";
            services.innkeeper = {
              enable = true;
              package = pkgs.hello;
              previews = {
                enable = true;
                inherit domain;
                nixpkgs.path = toString nixpkgs;
              };
              webhook.secretFile = "/var/secrets/webhook-secret";
            };
          }
        )
      ];
    }).config;

  only = wanted: names: if wanted == null then names else [ wanted ];
  names = lib.mapAttrs (_: builtins.attrNames) choices;
  combinations = lib.cartesianProduct (
    names
    // {
      certificate = only certificate names.certificate;
      database = only database names.database;
    }
  );

  resultOf =
    combination:
    let
      config = evaluate (lib.mapAttrsToList (choice: value: choices.${choice}.${value}) combination);
      inherit (config.services) innkeeper postgresql;
      is = choice: value: combination.${choice} == value;
      hasSetting = section: innkeeper.settings ? ${section};
      units = config.systemd.units;
      caddyfile = "{\n${config.services.caddy.globalConfig}\n}\n${config.services.caddy.extraConfig}";
      tables = builtins.attrValues config.networking.nftables.tables;
      rules =
        if config.networking.nftables.enable then
          lib.concatMapStrings (table: "table ${table.family} ${table.name} {\n${table.content}\n}\n") (
            builtins.filter (table: table.enable) tables
          )
        else
          "";
      commands =
        if config.networking.nftables.enable then "" else config.networking.firewall.extraCommands;
      # The ports that guests reach on the host.
      port = toString postgresql.settings.port;
    in
    {
      failed = map (entry: entry.message) (builtins.filter (entry: !entry.assertion) config.assertions);
      # True or false already: what the choices change, and only they.
      expected = {
        "the system can be evaluated" = config.system.build.toplevel.drvPath != "";
        "files of the certificate, if it comes from files" =
          is "certificate" "files"
          == lib.hasInfix "tls /var/secrets/cloudflare-origin.pem /var/secrets/cloudflare-origin-key.pem" caddyfile;
        "an order for the wildcard, if it comes from an authority" =
          is "certificate" "acme" == config.security.acme.certs ? ${domain}
          && is "certificate" "acme" == lib.hasInfix "tls /var/lib/acme/${domain}/cert.pem" caddyfile;
        "Caddy's own authority, if it is internal" =
          is "certificate" "internal" == lib.hasInfix "tls internal" caddyfile;
        "PostgreSQL, if databases are on" =
          is "database" "on" == postgresql.enable
          && is "database" "on" == units ? "postgresql.service"
          && is "database" "on" == hasSetting "database"
          && is "database" "on" == builtins.elem "tcp/${port}" (innkeeper.settings.network.host_ports or [ ]);
        "a file system for the state, if it is a thin volume" =
          is "storage" "thin" == config.fileSystems ? ${innkeeper.settings.state_dir};
        "the pool is watched, if there is one" =
          is "storage" "directory" != units ? "innkeeper-thin-pool.service"
          && is "storage" "directory" != units ? "innkeeper-thin-pool.timer";
        "a volume for each guest, if they have volumes" =
          is "storage" "volumes" == ((innkeeper.settings.storage or { }).driver or "" == "lvm-thin");
        "rules of nftables, if it is the firewall" =
          is "firewall" "nftables" == lib.hasInfix "iifgroup" rules
          && is "firewall" "nftables" == units ? "nftables.service";
        "rules of iptables otherwise" =
          is "firewall" "iptables" == lib.hasInfix "--src-group" commands
          && is "firewall" "iptables" == units ? "firewall.service";
        "the firewall lets guests reach PostgreSQL, if databases are on" =
          is "database" "on" == lib.hasInfix port (rules + commands);
      };
      inherit caddyfile rules commands;
      inherit (innkeeper) settings;
      units = lib.mapAttrs (_: unit: unit.text) (lib.filterAttrs (_: unit: unit.enable) units);
    };
in
{
  inherit scenarios;
  # Every choice has a scenario.
  complete = lib.mapAttrs (_: builtins.attrNames) scenarios == names;
  systems = lib.listToAttrs (
    map (
      combination:
      lib.nameValuePair (lib.concatStringsSep "-" [
        combination.certificate
        combination.database
        combination.storage
        combination.firewall
      ]) (resultOf combination)
    ) combinations
  );
}
