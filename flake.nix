{
  description = "Innkeeper: one NixOS server as a host for many isolated guests";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    crane.url = "github:ipetkov/crane";
    disko = {
      url = "github:nix-community/disko";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    nixos-anywhere = {
      url = "github:nix-community/nixos-anywhere";
      inputs = {
        nixpkgs.follows = "nixpkgs";
        nixos-stable.follows = "nixpkgs";
        disko.follows = "disko";
        # Users of this flake do not fetch the inputs that only its tests and formatting need.
        nixos-images.follows = "";
        nix-vm-test.follows = "";
        treefmt-nix.follows = "";
      };
    };
  };

  outputs =
    {
      self,
      nixpkgs,
      crane,
      disko,
      nixos-anywhere,
    }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      systemOf = pkgs: pkgs.stdenv.hostPlatform.system;

      built = eachSystem (
        pkgs:
        import ./crates {
          inherit lib pkgs;
          craneLib = crane.mkLib pkgs;
        }
      );

      # Adds to a module the package that this flake builds, and its nixpkgs, as defaults.
      withPackage =
        module:
        { options, pkgs, ... }:
        {
          key = "innkeeper#${toString module}";
          imports = [ module ];
          services.innkeeper = {
            package = lib.mkDefault self.packages.${systemOf pkgs}.default;
          }
          // lib.optionalAttrs (options.services.innkeeper ? previews) {
            previews.nixpkgs = {
              path = lib.mkDefault nixpkgs.outPath;
              narHash = lib.mkDefault nixpkgs.narHash;
            };
          };
        };
      hostModules = import ./modules/list.nix;

      hosts = import ./hosts { inherit self nixpkgs disko; };
      guests = import ./guest-configs { inherit lib; };
      mkGuest = import ./guest-configs/mk-guest.nix { inherit nixpkgs; };

      # The systems of the templates of `nix flake init`, evaluated as their users would.
      outputsOf = template: (import template).outputs { innkeeper = self; };
      hostTemplate = (outputsOf ./guest-configs/templates/host/flake.nix).nixosConfigurations;
      templateSystems = {
        inherit (hostTemplate) agent;
        # Its placeholders fail assertions, and all others hold.
        inn =
          let
            failed = builtins.filter (entry: !entry.assertion) hostTemplate.inn.config.assertions;
          in
          assert failed != [ ] && lib.all (entry: lib.hasInfix "REPLACE" entry.message) failed;
          hostTemplate.inn.extendModules { modules = [ { assertions = lib.mkForce [ ]; } ]; };
        repository-agent = (outputsOf ./guest-configs/templates/agent/flake.nix).nixosConfigurations.agent;
        repository-preview = mkGuest {
          system = "x86_64-linux";
          modules = [ ./guest-configs/templates/preview/preview-config.nix ];
        };
      };
    in
    {
      packages = eachSystem (
        pkgs:
        let
          system = systemOf pkgs;
          inherit (built.${system}) fakeGithub sbom;
          # nixpkgs' convention: the tests of a package are its attributes.
          manager = built.${system}.manager.overrideAttrs (old: {
            passthru = old.passthru or { } // {
              tests = removeAttrs self.checks.${system} [ "package" ];
            };
          });
          docs = import ./modules/docs.nix { inherit lib pkgs manager; };
          demo-guest =
            (mkGuest {
              inherit system;
              modules = [ ./tests/demo/guest.nix ];
            }).config.system.build.toplevel;
        in
        {
          default = manager;
          inherit manager demo-guest sbom;
          demo = import ./tests/demo/app.nix {
            inherit
              self
              nixpkgs
              lib
              pkgs
              manager
              fakeGithub
              ;
            guest = demo-guest;
            guestOutput = "demo-guest";
          };
          inherit docs;
          options-json = docs.json;
          nixos-anywhere = nixos-anywhere.packages.${systemOf pkgs}.default;
        }
      );

      apps = eachSystem (
        pkgs:
        let
          inherit (self.packages.${systemOf pkgs}) demo;
        in
        {
          demo = {
            type = "app";
            program = lib.getExe demo;
            meta = { inherit (demo.meta) description; };
          };
        }
      );

      checks = eachSystem (
        pkgs:
        let
          system = systemOf pkgs;
          ofThisSystem = lib.filterAttrs (
            _: configuration: configuration.pkgs.stdenv.hostPlatform.system == system
          );
          toplevels = lib.mapAttrs' (
            name: configuration: lib.nameValuePair "system-${name}" configuration.config.system.build.toplevel
          ) (ofThisSystem self.nixosConfigurations);
          scenarios = import ./tests/nixos {
            inherit self pkgs lib;
            inherit (built.${system}) debug fakeGithub;
            inherit (self.packages.${system}) demo;
          };
        in
        built.${system}.checks
        // toplevels
        // lib.mapAttrs' (name: lib.nameValuePair "nixos-${name}") scenarios
        // lib.optionalAttrs (system == "x86_64-linux") (
          lib.mapAttrs' (
            name: configuration: lib.nameValuePair "template-${name}" configuration.config.system.build.toplevel
          ) templateSystems
        )
        // {
          options = import ./modules/docs-check.nix {
            inherit pkgs;
            generated = self.packages.${system}.docs;
            committed = ./docs/options.md;
          };
          nix-format = pkgs.runCommand "innkeeper-nix-format" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
            find ${self} -name '*.nix' -exec nixfmt --check {} +
            touch $out
          '';
          nix-lints =
            pkgs.runCommand "innkeeper-nix-lints"
              {
                nativeBuildInputs = [
                  pkgs.deadnix
                  pkgs.statix
                ];
              }
              ''
                deadnix --fail ${self}
                statix check ${self}
                touch $out
              '';
        }
      );

      devShells = eachSystem (pkgs: {
        default = import ./crates/shell.nix {
          inherit pkgs;
          craneLib = crane.mkLib pkgs;
        };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      overlays.default = final: _: {
        innkeeper = self.packages.${final.stdenv.hostPlatform.system}.default;
      };

      nixosModules = lib.mapAttrs (_: withPackage) hostModules // {
        # The modules of an agent and of a preview, for configurations that do not use lib.mkGuest.
        guest-base = ./guest-configs/base.nix;
        guest-agent = ./guest-configs/agent.nix;
        guest-tailscale = ./guest-configs/tailscale.nix;
      };

      nixosConfigurations =
        hosts
        // lib.mapAttrs (
          _: module:
          mkGuest {
            system = "x86_64-linux";
            modules = [ module ];
          }
        ) guests;

      lib = {
        inherit mkGuest;
        # The meta data of a preview, checked; see guest-configs/preview-meta.nix.
        mkPreview = import ./guest-configs/mk-preview.nix;
      };

      templates = {
        default = {
          path = ./guest-configs/templates/host;
          description = "A fleet of one host, described by the options of Innkeeper";
        };
        server = {
          path = ./guest-configs/templates/server;
          description = "Innkeeper on a server that runs NixOS, beside its configuration.nix";
        };
        preview = {
          path = ./guest-configs/templates/preview;
          description = "The preview-config.nix of a repository, for previews of its pull requests";
        };
        agent = {
          path = ./guest-configs/templates/agent;
          description = "A flake with an agent's guest, for `agent create --flake`";
        };
      };
    };
}
