# Generates the example host's files as JSON for tests/nix/run: units, firewall rules, Caddyfile, settings, options page.
{
  nixpkgs,
  # A folder with the files of docs/previews.md.
  guide,
}:
let
  lib = import (nixpkgs + "/lib");
  evaluate =
    module:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        ../../modules
        module
        (
          { pkgs, ... }:
          {
            nixpkgs.hostPlatform = "x86_64-linux";
            boot.isContainer = true;
            system.stateVersion = "26.05";
            services.innkeeper.package = lib.mkDefault pkgs.hello;
          }
        )
      ];
    };
  full = {
    services.innkeeper = {
      enable = true;
      settings.network.nameservers = [ "9.9.9.9" ];
      settings.guest.memory = "8G";
      agents.web = {
        flake = "/etc/nixos#agent";
        memory = "4G";
      };
      network = {
        externalInterface = "enp3s0";
        addresses = [ "203.0.113.10/26" ];
        gateways = [ "203.0.113.1" ];
      };
      storage.backend = "lvm-thin";
      storage.guestVolumes.enable = true;
      backup.enable = true;
      metrics.enable = true;
      gateway.enable = true;
      secrets.agentCredentials.oauth_token = "/var/secrets/claude/oauth_token";
      previews = {
        enable = true;
        domain = "preview.example.org";
        nixpkgs.path = toString nixpkgs;
      };
      caddy.certificate.files = { };
      webhook = {
        secretFile = "/var/secrets/webhook-secret";
        allowedRepos = [ "octo/web" ];
      };
    };
  };
  withNftables = evaluate {
    imports = [ full ];
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
  };
  withIptables = evaluate full;
  inherit (withNftables) config;

  # The same host with something changed that does not concern guests, and with something that concerns the daemon.
  opened = evaluate {
    imports = [ full ];
    networking.firewall.allowedTCPPorts = [ 4444 ];
  };
  louder = evaluate {
    imports = [ full ];
    services.innkeeper.settings.log.level = "debug";
  };
  # The units that a switch acts on. Those of guests are transient, so NixOS does not know them.
  unit = system: name: system.config.systemd.units.${name}.text;
  # A repository's own preview-config.nix beside our base, as lib.mkGuest puts them together.
  preview =
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        ../../guest-configs/base.nix
        ./fixtures/preview-config.nix
        { nixpkgs.hostPlatform = "x86_64-linux"; }
      ];
    }).config;
  node =
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        ../../guest-configs/preview.nix
        { nixpkgs.hostPlatform = "x86_64-linux"; }
      ];
    }).config;
  variables =
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        ../../guest-configs/base.nix
        {
          nixpkgs.hostPlatform = "x86_64-linux";
          innkeeper.preview.app = {
            run = "true";
            port = 3000;
            environment = {
              RATIO = "50%";
              LIMIT = 5;
              FILE = ./fixtures/preview-meta.json;
            };
          };
        }
      ];
    }).config;
  guests = import ../../guest-configs { inherit lib; };
  # The files of the guide, as the daemon composes them.
  guideFiles = lib.mapAttrs' (file: _: {
    name = "guide-${lib.removeSuffix ".nix" file}";
    value =
      (import (nixpkgs + "/nixos/lib/eval-config.nix") {
        system = null;
        modules = [
          ../../guest-configs/base.nix
          (guide + "/${file}")
          { nixpkgs.hostPlatform = "x86_64-linux"; }
        ];
      }).config;
  }) (builtins.readDir guide);
  guest =
    module:
    (mkGuest {
      system = "x86_64-linux";
      modules = [ module ];
    }).config;
  mkGuest = import ../../guest-configs/mk-guest.nix {
    nixpkgs.lib = lib // {
      nixosSystem =
        arguments: import (nixpkgs + "/nixos/lib/eval-config.nix") ({ system = null; } // arguments);
    };
  };
  development = guest {
    imports = [ ../../guest-configs/agent.nix ];
    innkeeper.guest.devTools.enable = true;
  };
  # The version is what matters: nixpkgs by path may be older.
  builder =
    version:
    guest (
      { pkgs, ... }:
      {
        imports = [ ../../guest-configs/agent.nix ];
        innkeeper.guest.nix.enable = true;
        nix.package = pkgs.nix // {
          inherit version;
        };
      }
    );
  containers = guest {
    imports = [ ../../guest-configs/agent.nix ];
    innkeeper.guest.containers = {
      enable = true;
      userIds = 262144;
    };
  };
  everyGuest = map guest (builtins.attrValues guests);
  textsOf =
    config:
    lib.mapAttrs (_: unit: unit.text) (lib.filterAttrs (_: unit: unit.enable) config.systemd.units);
  failed =
    config: map (entry: entry.message) (builtins.filter (entry: !entry.assertion) config.assertions);

  # As the module of NixOS puts it together.
  caddyfile =
    system:
    let
      inherit (system.config.services) caddy;
    in
    "{\n${caddy.globalConfig}\n}\n${caddy.extraConfig}";

  ownUnits = system: map (unit system) ourNames;

  ourNames = builtins.filter (lib.hasPrefix "innkeeper") (builtins.attrNames config.systemd.units);
  table = config.networking.nftables.tables.nixos-fw;
in
{
  # Every unit of the host and of each guest that the flake builds, not only our own: one of our modules may have
  # spoilt another one's.
  units = {
    host = textsOf config;
    preview = textsOf preview;
    development = textsOf development;
    builder = textsOf (builder "2.26");
  }
  // lib.mapAttrs (_: module: textsOf (guest module)) guests
  // lib.mapAttrs (_: textsOf) guideFiles;
  nftables = ''
    table ${table.family} ${table.name} {
    ${table.content}
    }
  '';
  allowedNetworks =
    (evaluate {
      imports = [ full ];
      services.innkeeper.builds.allowedNetworks = [
        "10.1.2.3"
        "192.168.1.0/24"
        "fd00:1::/64"
        "fd00::1"
      ];
    }).config.services.innkeeper.settings.builds.allowed_networks == [
      "10.1.2.3/32"
      "192.168.1.0/24"
      "fd00:1::/64"
      "fd00::1/128"
    ];
  iptables = withIptables.config.networking.firewall.extraCommands;
  caddyfiles = lib.mapAttrs (_: caddyfile) {
    files = withNftables;
    acme = evaluate {
      imports = [ full ];
      services.innkeeper.caddy.certificate = {
        files = lib.mkForce null;
        acme = {
          email = "ops@example.org";
          dnsProvider = "cloudflare";
          environmentFile = "/var/secrets/acme.env";
        };
      };
    };
    internal = evaluate {
      imports = [ full ];
      services.innkeeper.caddy.certificate = {
        files = lib.mkForce null;
        internal = true;
      };
    };
  };
  inherit (config.services.innkeeper) settings;
  devDatabase = {
    inherit (development.services.postgresql) authentication;
    inherit (development.systemd.services.innkeeper-dev-database) script;
    url = development.environment.sessionVariables.DATABASE_URL;
  };
  pgHba = config.services.postgresql.authentication;
  previews = {
    "a repository's own configuration is taken as it is" =
      failed preview == [ ]
      && preview.system.build ? previewMeta
      && preview.system.build.toplevel.drvPath != "";
    "and says what it said" =
      builtins.fromJSON preview.environment.etc."preview-meta.json".text
      == builtins.fromJSON (builtins.readFile ./fixtures/preview-meta.json);
    "the default preview has all six fields of the contract" =
      builtins.attrNames (builtins.fromJSON node.environment.etc."preview-meta.json".text) == [
        "appServices"
        "database"
        "extraHosts"
        "hostSecrets"
        "routes"
        "setupService"
      ];
    "all files of the guide are evaluated" =
      builtins.length (builtins.attrNames guideFiles) > 8
      && lib.all (config: failed config == [ ] && config.system.build.toplevel.drvPath != "") (
        builtins.attrValues guideFiles
      );
    "a schedule's timer is started with its app" =
      guideFiles.guide-several.systemd.timers.preview-api-cleanup.wantedBy == [ "preview-api.service" ];
    "variables have the values that their author wrote" =
      let
        inherit (variables.systemd.services.preview-app) environment;
      in
      environment.RATIO == "50%%"
      && environment.LIMIT == "5"
      && lib.hasPrefix builtins.storeDir environment.FILE;
    "a guest's /etc/resolv.conf is left to the manager" = !(node.environment.etc ? "resolv.conf");
    "a guest with Nix has the daemon of the test guest, and only it asks the host" =
      let
        parameters =
          text:
          builtins.filter (part: builtins.isString part && !lib.hasPrefix "remount-hook" part) (
            builtins.split "[?&\n]" text
          );
      in
      failed (builder "2.26") == [ ]
      &&
        parameters (builder "2.26").environment.etc."innkeeper/nix".text
        == parameters (builtins.readFile ../fixtures/guest/nix/daemon-settings)
      && lib.any (lib.hasInfix "needs Nix 2.26") (failed (builder "2.24"))
      && !(node.environment.etc ? "innkeeper/nix");
    "a guest with Nix can boot a system of its own, and nixos-rebuild can copy one to it" =
      let
        inherit (builder "2.26") environment nix systemd;
        mount = systemd.services.innkeeper-nix-store.script;
      in
      environment.etc ? "innkeeper/boot-own"
      && lib.hasInfix "mount-guest-store" mount
      && lib.elem "root" nix.settings.trusted-users
      && lib.elem "@wheel" nix.settings.trusted-users;
    "a preview with Nix is rejected" =
      failed node == [ ]
      && lib.any (lib.hasInfix "innkeeper.guest.nix is for agents") (
        failed (guest {
          imports = [ ../../guest-configs/preview.nix ];
          innkeeper.guest.nix.enable = true;
        })
      );
    "the development tools are what agents expect" =
      failed development == [ ]
      && development.system.build.toplevel.drvPath != ""
      && development.services.postgresql.settings.listen_addresses == "localhost"
      && lib.hasInfix "host all dev 127.0.0.1/32 scram-sha-256" development.services.postgresql.authentication
      &&
        lib.getAttrs [
          "DATABASE_URL"
          "PGUSER"
          "PGPASSWORD"
          "PGDATABASE"
        ] development.environment.sessionVariables == {
          DATABASE_URL = "postgresql://dev:dev@localhost:5432/dev";
          PGUSER = "dev";
          PGPASSWORD = "dev";
          PGDATABASE = "dev";
        }
      && lib.all (port: builtins.elem port development.networking.firewall.allowedTCPPorts) [
        3000
        5173
      ]
      && lib.hasInfix ''email = "dev@sandbox.local"'' development.environment.etc.gitconfig.text;
    "containers get the user ids above those of a guest" =
      failed containers == [ ]
      && containers.system.build.toplevel.drvPath != ""
      && containers.virtualisation.podman.enable
      &&
        containers.users.users.agent.subUidRanges == [
          {
            startUid = 65536;
            count = 196608;
          }
        ]
      &&
        containers.users.users.agent.subGidRanges == [
          {
            startGid = 65536;
            count = 196608;
          }
        ];
    "and no agent has podman by default" =
      !(guest ../../guest-configs/agent.nix).virtualisation.podman.enable;
    "and are off by default" =
      !((guest ../../guest-configs/agent.nix).environment.sessionVariables ? DATABASE_URL);
    "guests have nothing for hardware, a boot loader or the host's memory" = lib.all (
      guest:
      guest.boot.kernelModules == [ ]
      && !(guest.systemd.services ? systemd-oomd)
      && !(guest.systemd.services ? generate-shutdown-ramfs)
      && !(guest.systemd.services ? "container@")
    ) everyGuest;
    "a guest mounts nothing that nspawn has mounted" = lib.all (
      guest: guest.boot ? isNspawnContainer || guest.boot.specialFileSystems == { }
    ) everyGuest;
    "a guest allows ping to the groups that it has" = lib.all (
      guest: guest.boot.kernel.sysctl."net.ipv4.ping_group_range" == "0 65535"
    ) everyGuest;
    "ids of users in guests are among the 65536 of a guest" = lib.all (
      guest:
      lib.all (
        user:
        !user.autoSubUidGidRange
        && lib.all (range: range.startUid + range.count <= 65536) user.subUidRanges
        && lib.all (range: range.startGid + range.count <= 65536) user.subGidRanges
        && (user.uid == null || user.uid < 65536)
      ) (builtins.attrValues guest.users.users)
    ) everyGuest;
    "no unit of a guest requests an address" = !(node.systemd.services ? dhcpcd);
  };
  # Each module without the others, at rest and at work.
  alone =
    let
      settings = {
        default.enable = true;
        manager.enable = true;
        network.network = {
          enable = true;
          externalInterface = "eth0";
        };
        firewall.firewall.enable = true;
        # Without the daemon, an assertion fails.
        backup = {
          enable = true;
          backup = {
            enable = true;
            restic = {
              repository = "sftp:backup@example.org:/innkeeper";
              passwordFile = "/var/secrets/restic";
              initialize = true;
            };
            borg = {
              repo = "backup@example.org:innkeeper";
              encryption.mode = "none";
            };
          };
        };
        # Without the daemon, an assertion fails.
        prefetch = {
          enable = true;
          prefetch.enable = true;
        };
        memory.zram.enable = true;
        metrics.metrics.enable = true;
        storage.storage.backend = "lvm-thin";
        caddy.caddy = {
          enable = true;
          domain = "preview.example.org";
          certificate.acme = {
            email = "ops@example.org";
            dnsProvider = "cloudflare";
            environmentFile = "/var/secrets/acme.env";
          };
        };
        builds.builds.allowedNetworks = [ "10.1.2.3" ];
        postgresql.postgresql.enable = true;
        postgresql.firewall.enable = true;
        secrets = { };
        pages.pages.enable = true;
        dns.dns.enable = true;
        previews = {
          enable = true;
          previews = {
            enable = true;
            domain = "preview.example.org";
            nixpkgs.path = toString nixpkgs;
          };
          caddy.certificate.internal = true;
          webhook.environmentFile = "/var/secrets/preview.env";
        };
        # Without the daemon, an assertion fails: requests would have no receiver.
        gateway = {
          enable = true;
          gateway.enable = true;
        };
        # Without the daemon, an assertion fails: deliveries would have no receiver.
        webhook = {
          enable = true;
          webhook = {
            enable = true;
            secretFile = "/var/secrets/webhook-secret";
          };
        };
        tailscale.tailscale = {
          enable = true;
          mode = "userspace";
          tags = [ "tag:innkeeper" ];
        };
      };
      works =
        name: module:
        let
          system = import (nixpkgs + "/nixos/lib/eval-config.nix") {
            system = null;
            modules = [
              module
              (
                { pkgs, ... }:
                {
                  nixpkgs.hostPlatform = "x86_64-linux";
                  boot.isContainer = true;
                  system.stateVersion = "26.05";
                  services.innkeeper = settings.${name} // {
                    package = pkgs.hello;
                  };
                }
              )
            ];
          };
        in
        failed system.config == [ ] && system.config.system.build.toplevel.drvPath != "";
    in
    lib.mapAttrs' (name: module: {
      name = "the module ${name} works without the others";
      value = works name module;
    }) (import ../../modules/list.nix);

  # Expectations of a switch, and of settings.
  switch = {
    "guests reach the resolver's configured port" =
      let
        ports =
          dns:
          let
            inherit
              (evaluate {
                imports = [ full ];
                services.innkeeper.settings = { inherit dns; };
              })
              config
              ;
            inherit (config.services.innkeeper) firewall;
          in
          map (ports: lib.remove 3443 (lib.remove 5432 ports)) [
            firewall.guestTCPPorts
            firewall.guestUDPPorts
          ];
      in
      ports { } == [
        [ 3053 ]
        [ 3053 ]
      ]
      && ports { port = 5353; } == [
        [ 5353 ]
        [ 5353 ]
      ]
      && ports { port = 0; } == [
        [ ]
        [ ]
      ];
    "declared agents are applied by a unit" = lib.hasInfix "/bin/innkeeper apply " (
      unit withIptables "innkeeper-agents.service"
    );
    "a host that declares no agents has no such unit" =
      !((evaluate { services.innkeeper.enable = true; }).config.systemd.services ? innkeeper-agents);
    "an opened port changes none of our units" = ownUnits withIptables == ownUnits opened;
    "a changed setting restarts the daemon" =
      unit withIptables "innkeeper.service" != unit louder "innkeeper.service";
    "and does not touch the guests' slice" =
      unit withIptables "innkeeper.slice" == unit louder "innkeeper.slice";
  };
  # Read by `innkeeper switch-preview`, and the script that runs it before a switch.
  switchPreview =
    let
      checked =
        mode:
        evaluate (
          { options, ... }:
          {
            imports = [
              full
              (lib.optionalAttrs (!withNftables.options.system ? preSwitchChecks) {
                # NixOS has it since 25.05.
                options.system.preSwitchChecks = lib.mkOption { type = lib.types.attrsOf lib.types.str; };
              })
            ];
            services.innkeeper.switchPreview = mode;
          }
        );
      script = mode: (checked mode).config.system.preSwitchChecks.innkeeper;
    in
    {
      facts = builtins.fromJSON config.environment.etc."innkeeper/host.json".text;
      factsWithIptables = builtins.fromJSON withIptables.config.environment.etc."innkeeper/host.json".text;
      warn = script "warn";
      refuse = script "refuse";
      off = (checked "off").config.system.preSwitchChecks or { } == { };
      activation =
        if withNftables.options.system ? preSwitchChecks then
          null
        else
          config.system.activationScripts.innkeeper-switch-preview.text;
    };
  options =
    (import ../../modules/docs.nix {
      inherit lib;
      pkgs = import nixpkgs { system = "x86_64-linux"; };
      manager = null;
    }).text;
}
