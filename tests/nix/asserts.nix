# For each assertion a configuration that trips it: name → the messages that a person gets. tests/nix/run compares them
# with the snapshots. Takes nixpkgs by path, so that a stand-in will do.
{ nixpkgs }:
let
  lib = import (nixpkgs + "/lib");
  evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");

  evaluate =
    module:
    (evalConfig {
      system = null;
      modules = [
        ../../modules
        module
        (
          { pkgs, ... }:
          {
            nixpkgs.hostPlatform = "x86_64-linux";
            # No file systems and no boot loader to speak of.
            boot.isContainer = true;
            system.stateVersion = "26.05";
            services.innkeeper.package = lib.mkDefault pkgs.hello;
          }
        )
      ];
    }).config;

  messages =
    module:
    map (entry: entry.message) (builtins.filter (entry: !entry.assertion) (evaluate module).assertions);

  # Reports whether evaluation fails: a misspelled option, a wrong type.
  # The package is left out because a derivation is too deep to be forced whole.
  refused =
    module:
    let
      inherit
        ((evaluate {
          imports = [ module ];
          services.innkeeper.caddy.domain = lib.mkDefault "preview.example.org";
        }).services
        )
        innkeeper
        ;
    in
    !(builtins.tryEval (builtins.deepSeq (removeAttrs innkeeper [ "package" ]) true)).success;

  inn = settings: {
    services.innkeeper = {
      enable = true;
    }
    // settings;
  };
  previews = {
    enable = true;
    domain = "preview.example.org";
    nixpkgs.path = toString nixpkgs;
  };
  # All that previews need, and then what is wrong with it.
  withPreviews = wrong: {
    imports = [
      (inn {
        inherit previews;
        caddy.certificate.files = { };
        webhook.secretFile = "/var/secrets/webhook-secret";
      })
      { services.innkeeper = wrong; }
    ];
  };
  store = "${builtins.storeDir}/00000000000000000000000000000000-secret";
in
{
  trips = builtins.mapAttrs (_: messages) {
    # A valid configuration, which detects an assertion that always fails.
    nothing-is-wrong = {
      imports = [ (inn { settings.network.nameservers = [ "9.9.9.9" ]; }) ];
      networking.nftables.enable = true;
      services.innkeeper.caddy.certificate.files = { };
      services.innkeeper.previews = previews;
      services.innkeeper.secrets.agentCredentials.oauth_token = "/run/secrets/claude";
      services.innkeeper.webhook.secretFile = "/run/secrets/webhook";
    };

    manager-keys-are-placeholders = {
      imports = [ (inn { settings.ssh.authorized_keys = [ "REPLACE" ]; }) ];
      users.users.root.openssh.authorizedKeys.keys = [ "REPLACE" ];
    };
    manager-subnet-is-no-network = inn { settings.network.subnet = "10.100.0.1/16"; };
    manager-subnet-has-no-room = inn { settings.network.subnet = "10.100.0.0/31"; };
    manager-subnet-has-the-hosts-address = {
      imports = [ (inn { }) ];
      networking.interfaces.eth0.ipv4.addresses = [
        {
          address = "10.100.3.4";
          prefixLength = 24;
        }
      ];
    };
    manager-nameserver-is-out-of-reach = inn {
      settings.network.nameservers = [
        "127.0.0.53"
        "2620:fe::fe"
      ];
    };
    manager-guests-are-trusted = {
      imports = [ (inn { }) ];
      networking.firewall.trustedInterfaces = [ "ve-+" ];
    };
    manager-nat-is-doubled = {
      imports = [ (inn { }) ];
      networking.nat = {
        enable = true;
        internalInterfaces = [ "ve-+" ];
        externalInterface = "eth0";
      };
    };
    manager-ruleset-is-flushed = {
      imports = [ (inn { }) ];
      networking.nftables.enable = true;
      networking.nftables.flushRuleset = true;
    };
    manager-supervisor-is-direct = inn { settings.supervisor.kind = "direct"; };
    manager-there-is-no-nix = {
      imports = [ (inn { }) ];
      nix.enable = false;
    };
    manager-flake-is-an-option = inn { settings.nix.flake = "--impure"; };

    network-interface-name-is-too-long = inn { network.externalInterface = "a-very-long-name"; };
    network-interface-is-a-guests = inn { network.externalInterface = "ve-1"; };
    network-addresses-without-interface = inn {
      network = {
        addresses = [ "203.0.113.10/26" ];
        gateways = [ "203.0.113.1" ];
      };
    };
    network-addresses-without-gateway = inn {
      network = {
        externalInterface = "eth0";
        addresses = [ "203.0.113.10/26" ];
      };
    };
    network-address-without-prefix = inn {
      network = {
        externalInterface = "eth0";
        addresses = [ "203.0.113.10" ];
        gateways = [ "203.0.113.1" ];
      };
    };

    storage-name-is-none = inn {
      storage = {
        backend = "lvm-thin";
        volumeGroup = "my group";
        thinPool = "-thin";
        volume = "a/b";
      };
    };
    storage-volume-is-its-pool = inn {
      storage = {
        backend = "lvm-thin";
        volume = "thin";
      };
    };
    storage-alarm-comes-first = inn {
      storage = {
        backend = "lvm-thin";
        alarmAt = 80;
      };
    };
    storage-guests-are-refused-first = inn {
      storage.guestVolumes = {
        enable = true;
        limit = 80;
      };
    };

    caddy-domain-is-none = inn {
      caddy = {
        enable = true;
        domain = "*.Example.org";
        certificate.files = { };
      };
    };
    caddy-has-no-certificate = inn {
      caddy = {
        enable = true;
        domain = "preview.example.org";
      };
    };
    caddy-has-two-certificates = inn {
      caddy = {
        enable = true;
        domain = "preview.example.org";
        certificate.files = { };
        certificate.acme = {
          email = "ops@example.org";
          dnsProvider = "cloudflare";
          environmentFile = "/var/secrets/acme.env";
        };
      };
    };

    postgresql-is-open-to-everybody = {
      imports = [ (inn { postgresql.enable = true; }) ];
      networking.firewall.allowedTCPPorts = [ 5432 ];
    };
    postgresql-is-open-to-nobody = inn {
      postgresql.enable = true;
      firewall.enable = false;
    };

    previews-have-no-daemon = withPreviews {
      enable = lib.mkForce false;
      previews.databases = false;
    };
    previews-have-no-domain = withPreviews { previews.domain = lib.mkForce null; };
    previews-have-no-caddy = withPreviews { caddy.enable = false; };
    previews-have-no-certificate = withPreviews { caddy.certificate.files = lib.mkForce null; };
    previews-have-no-webhook = withPreviews { webhook.enable = false; };
    previews-have-no-webhook-secret = withPreviews { webhook.secretFile = lib.mkForce null; };
    previews-have-no-postgresql = withPreviews { postgresql.enable = false; };
    previews-have-no-gateway = withPreviews {
      previews.visibility = "team";
      settings.previews.repositories."octo/web".visibility = "private";
    };
    previews-have-no-nixpkgs = withPreviews { previews.nixpkgs.path = lib.mkForce null; };
    previews-have-another-domain = withPreviews { caddy.domain = "preview.example.com"; };
    previews-certificate-is-given-twice = withPreviews { caddy.certificate.internal = true; };

    secrets-name-is-none = inn { secrets.agentCredentials."../token" = "/var/secrets/token"; };

    webhook-has-no-secret = inn { webhook.enable = true; };
    webhook-has-two-sources-of-secrets = inn {
      webhook = {
        enable = true;
        secretFile = "/var/secrets/webhook-secret";
        environmentFile = "/var/secrets/preview.env";
      };
    };
    webhook-previous-secret-is-alone = inn {
      webhook = {
        enable = true;
        previousSecretFile = "/var/secrets/webhook-secret-old";
        environmentFile = "/var/secrets/preview.env";
      };
    };
    backup-has-no-daemon.services.innkeeper.backup.enable = true;
    prefetch-has-no-daemon.services.innkeeper.prefetch.enable = true;
    webhook-has-no-daemon.services.innkeeper.webhook = {
      enable = true;
      secretFile = "/var/secrets/webhook-secret";
    };

    tailscale-tag-is-none = inn {
      tailscale = {
        enable = true;
        tags = [ "innkeeper" ];
      };
    };
  };

  # Configurations with a secret where guests could read it: name → the value that fails, with the message as its error.
  secretPaths =
    let
      option =
        path: module: toString (lib.attrByPath path null (evaluate (inn module)).services.innkeeper);
    in
    {
      caddy-key = option [ "caddy" "certificate" "files" "key" ] { caddy.certificate.files.key = store; };
      caddy-acme = option [ "caddy" "certificate" "acme" "environmentFile" ] {
        caddy.certificate.acme = {
          email = "ops@example.org";
          dnsProvider = "cloudflare";
          environmentFile = store;
        };
      };
      previews-environment = option [ "previews" "environmentFile" ] {
        previews.environmentFile = store;
      };
      previews-secrets = option [ "previews" "secretsDirectory" ] { previews.secretsDirectory = store; };
      agent-credentials = option [ "secrets" "agentCredentials" "oauth_token" ] {
        secrets.agentCredentials.oauth_token = store;
      };
      credentials-directory = option [ "settings" "credentials" "directory" ] {
        settings.credentials.directory = "secrets";
      };
      webhook-secret = option [ "webhook" "secretFile" ] { webhook.secretFile = store; };
      webhook-previous-secret = option [ "webhook" "previousSecretFile" ] {
        webhook.previousSecretFile = store;
      };
      webhook-environment = option [ "webhook" "environmentFile" ] { webhook.environmentFile = store; };
      tailscale-key = option [ "tailscale" "authKeyFile" ] { tailscale.authKeyFile = store; };
    };

  # Not refused although they should be, and the other way round: nothing when all is well.
  notRefused =
    let
      wrong = {
        misspelt-option = {
          services.innkeeper.enabel = true;
        };
        misspelt-in-network = inn { network.externalInterfaces = "eth0"; };
        misspelt-in-caddy = inn { caddy.domian = "x.example.org"; };
        enable-is-text = {
          services.innkeeper.enable = "yes";
        };
        nameservers-is-text = inn { settings.network.nameservers = "9.9.9.9"; };
        subnet-is-a-number = inn { settings.network.subnet = 10; };
        backend-is-unknown = inn { storage.backend = "zfs"; };
        volume-without-a-unit = inn { storage.guestVolumes.size = "20"; };
        threshold-is-out-of-range = inn { storage.autoextend.threshold = 120; };
        state-is-elsewhere = inn { settings.state_dir = "/srv/innkeeper"; };
        supervisor-is-unknown = inn { settings.supervisor.kind = "docker"; };
        port-is-no-port = inn { firewall.openPorts = [ 70000 ]; };
        misspelt-in-previews = inn { previews.domian = "x.example.org"; };
        domain-is-a-list = inn { previews.domain = [ "x.example.org" ]; };
        builds-network-is-none = inn { builds.allowedNetworks = [ "mirror.example.org" ]; };
        webhook-is-open-to-everybody = inn { webhook.listen = "0.0.0.0:3100"; };
        repository-is-a-pattern = inn { webhook.allowedRepos = [ "octo/*" ]; };
        credentials-is-a-list = inn { secrets.agentCredentials = [ "/var/secrets/token" ]; };
      };
    in
    builtins.filter (name: !refused wrong.${name}) (builtins.attrNames wrong)
    # If a valid configuration failed too, the cases above would prove nothing.
    ++ builtins.filter (_: refused (inn { })) [ "a right configuration is refused" ];
}
